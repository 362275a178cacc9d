package present

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Progress shows how far something is: a bar on a terminal, with rate and time left, else a line
// now and then. It uses no colour, so there is none for NO_COLOR to take away.
type Progress struct {
	w        io.Writer
	terminal bool
	bar      *progressbar.ProgressBar
	unit     string // of the bar
	lastLine time.Time
	lastText string
}

// lineEvery spaces the plain lines.
const lineEvery = 5 * time.Second

// NewProgress writes to w.
func NewProgress(w io.Writer) *Progress {
	file, ok := w.(*os.File)
	return &Progress{w: w, terminal: ok && term.IsTerminal(int(file.Fd()))}
}

// Note writes a line of its own.
func (p *Progress) Note(format string, args ...any) {
	p.clear()
	_, _ = fmt.Fprintln(p.w, Clean(fmt.Sprintf(format, args...)))
}

// Show tells how many organizations of the run have an outcome.
func (p *Progress) Show(status billing.RunStatus, done, total int) {
	p.Count(string(status), "organizations", done, total)
}

// Count tells how many of the units are done, and what is being done with them.
func (p *Progress) Count(doing, unit string, done, total int) {
	if p.terminal {
		p.showBar(doing, unit, done, total)
		return
	}
	text := fmt.Sprintf("%s: %d of %d %s", doing, done, total, unit)
	if text == p.lastText || time.Since(p.lastLine) < lineEvery {
		return
	}
	p.lastLine, p.lastText = time.Now(), text
	_, _ = fmt.Fprintln(p.w, text)
}

func (p *Progress) showBar(doing, unit string, done, total int) {
	if total == 0 {
		return
	}
	if p.bar == nil || p.unit != unit {
		p.clear()
		p.unit, p.bar = unit, progressbar.NewOptions(total, progressbar.OptionSetWriter(p.w), progressbar.OptionShowCount(),
			progressbar.OptionShowIts(), progressbar.OptionSetItsString(unit), progressbar.OptionSetPredictTime(true),
			progressbar.OptionFullWidth(), progressbar.OptionClearOnFinish())
	}
	p.bar.ChangeMax(total)
	p.bar.Describe(doing)
	_ = p.bar.Set(done) // a terminal that went away is no reason to stop
}

// Done removes the bar.
func (p *Progress) Done() { p.clear() }

func (p *Progress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}
