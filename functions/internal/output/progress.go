package output

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Progress shows how far something is: a bar on a terminal, with rate and time left, else a line
// now and then. It may be used by several goroutines.
type Progress struct {
	mu       sync.Mutex
	w        io.Writer
	width    func() int // of the terminal; nil where there is none
	now      func() time.Time
	first    look // what the rate is measured from
	shown    int  // columns that the bar takes on the terminal now
	lastLine time.Time
	lastText string
}

// look is how far it was at some time.
type look struct {
	unit string
	at   time.Time
	done int
}

// lineEvery spaces the plain lines.
const lineEvery = 5 * time.Second

// NewProgress writes to w.
func NewProgress(w io.Writer) *Progress {
	p := &Progress{w: w, now: time.Now}
	if file, ok := terminal(w); ok {
		p.width = func() int { return terminalWidth(file) }
	}
	return p
}

func terminalWidth(file *os.File) int {
	const usual = 80
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil || width < 1 {
		return usual
	}
	return width
}

// Note writes a separate line.
func (p *Progress) Note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	page := NewPage(p.w)
	page.Lines(fmt.Sprintf(format, args...))
	_ = page.Flush() // a terminal that went away is no reason to stop
}

// Show shows how many organizations of the run have an outcome.
func (p *Progress) Show(status billing.RunStatus, done, total int) {
	p.Count(string(status), "organizations", done, total)
}

// Tally shows how many were listed so far, where the total is unknown.
func (p *Progress) Tally(doing string, done int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := fmt.Sprintf("%s: %s", doing, billing.Thousands(done))
	if p.width == nil {
		p.plain(text)
		return
	}
	if rate := p.rate(doing, done); rate > 0 {
		text += ", " + speed(rate)
	}
	p.line(text[:min(len(text), p.width()-1)])
}

// rate returns the units a second since the first call for this unit.
func (p *Progress) rate(unit string, done int) float64 {
	now := p.now()
	if p.first.unit != unit {
		p.first = look{unit, now, done}
	}
	return float64(done-p.first.done) / max(now.Sub(p.first.at).Seconds(), 0.001)
}

// line puts the text in the place of the one before it.
func (p *Progress) line(text string) {
	p.erase()
	p.shown = len([]rune(text))
	_, _ = fmt.Fprint(p.w, text) // a terminal that went away is no reason to stop
}

// Count shows how many of the units are done, and what is being done with them.
func (p *Progress) Count(doing, unit string, done, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.width == nil {
		p.plain(fmt.Sprintf("%s: %d of %d %s", doing, done, total, unit))
		return
	}
	p.line(bar(p.width()-1, doing, unit, done, total, p.rate(unit, done))) // the last column would wrap on some terminals
}

func (p *Progress) plain(text string) {
	if text == p.lastText || p.now().Sub(p.lastLine) < lineEvery {
		return
	}
	p.lastLine, p.lastText = p.now(), text
	_, _ = fmt.Fprintln(p.w, text)
}

// Done removes the bar.
func (p *Progress) Done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
}

func (p *Progress) erase() {
	if p.shown > 0 {
		_, _ = fmt.Fprint(p.w, "\r"+strings.Repeat(" ", p.shown)+"\r")
	}
	p.shown = 0
}

// shortestBar is the number of characters below which a bar shows nothing that the percentage does not.
const shortestBar = 5

// bar is a line of at most width columns; rate is units a second.
func bar(width int, doing, unit string, done, total int, rate float64) string {
	share := 0.0
	if total > 0 {
		share = min(1, float64(done)/float64(total))
	}
	left := fmt.Sprintf("%s %3.0f %% ", doing, 100*share)
	right := fmt.Sprintf(" %d of %d %s%s", done, total, unit, pace(total-done, rate))
	room := width - len(left) - len(right) - len("[]")
	if room < shortestBar {
		return (left + right)[:min(len(left+right), width)]
	}
	full := int(share * float64(room))
	return left + "[" + strings.Repeat("#", full) + strings.Repeat("-", room-full) + "]" + right
}

// pace returns the rate and the remaining time, or "" if there is no progress yet.
func pace(remaining int, rate float64) string {
	if rate <= 0 {
		return ""
	}
	left := time.Duration(float64(max(0, remaining)) / rate * float64(time.Second))
	return fmt.Sprintf(", %s, %s left", speed(rate), left.Round(time.Second))
}

func speed(rate float64) string {
	if rate < 1 {
		return fmt.Sprintf("%.0f/min", 60*rate)
	}
	return fmt.Sprintf("%.0f/s", rate)
}
