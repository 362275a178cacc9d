package output

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// onTerminal returns progress on a terminal of this width, with a settable clock.
func onTerminal(width int) (*Progress, *bytes.Buffer, *time.Time) {
	var b bytes.Buffer
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	return &Progress{w: &b, width: func() int { return width }, now: func() time.Time { return now }}, &b, &now
}

// last returns the text on the terminal's line.
func last(b *bytes.Buffer) string {
	_, after, _ := strings.Cut(b.String(), "\r")
	for strings.Contains(after, "\r") {
		_, after, _ = strings.Cut(after, "\r")
	}
	return after
}

func TestBarShowsRateAndTimeLeftSinceItWasFirstShown(t *testing.T) {
	p, b, now := onTerminal(90)
	p.Show(billing.RunRunning, 200, 600) // somebody began to watch in the middle
	if got := b.String(); !strings.HasPrefix(got, "running  33 % [###") || !strings.HasSuffix(got, "---] 200 of 600 organizations") || len(got) != 89 {
		t.Errorf("%q", got)
	}
	*now = now.Add(10 * time.Second)
	p.Show(billing.RunRunning, 300, 600)
	if got := last(b); !strings.HasPrefix(got, "running  50 % [#") || !strings.HasSuffix(got, "] 300 of 600 organizations, 10/s, 30s left") || len(got) != 89 {
		t.Errorf("%q", got)
	}
	*now = now.Add(30 * time.Minute)
	p.Show(billing.RunRunning, 301, 600)
	if got := last(b); !strings.HasSuffix(got, ", 3/min, 1h29m18s left") {
		t.Errorf("%q", got)
	}
	p.Count("moving", "messages", 0, 10) // something else: its pace is its own
	if got := last(b); !strings.HasPrefix(got, "moving   0 % [-") || !strings.HasSuffix(got, "-] 0 of 10 messages") {
		t.Errorf("%q", got)
	}
	p.Done()
	if got := last(b); got != "" {
		t.Errorf("%q is left on the line", got)
	}
}

func TestListingShowsCountAndRate(t *testing.T) {
	p, b, now := onTerminal(60)
	p.Tally("listing subscriptions", 300)
	if got := b.String(); got != "listing subscriptions: 300" {
		t.Errorf("%q", got)
	}
	*now = now.Add(4 * time.Second)
	p.Tally("listing subscriptions", 4300)
	if got := last(b); got != "listing subscriptions: 4,300, 1000/s" {
		t.Errorf("%q", got)
	}
}

func TestTheBarFitsAnyTerminal(t *testing.T) {
	for width := range 120 {
		for _, total := range []int{0, 1, 100_000} {
			if got := bar(width, "reconciling", "organizations", total/3, total, 12.5); len(got) > width {
				t.Errorf("%d columns for %q", width, got)
			}
		}
	}
	if got := bar(60, "running", "organizations", 700, 600, 0); !strings.HasPrefix(got, "running 100 % [#") {
		t.Errorf("more than there are: %q", got)
	}
}

func TestANoteDoesNotMixWithTheBar(t *testing.T) {
	p, b, _ := onTerminal(60)
	p.Show(billing.RunRunning, 1, 2)
	p.Note("a word")
	if got := last(b); got != "a word\n" {
		t.Errorf("%q", got)
	}
}

func TestProgressWithoutATerminalIsPlainLinesNowAndThen(t *testing.T) {
	var b bytes.Buffer
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	p := NewProgress(&b)
	p.now = func() time.Time { return now }
	for i := range 12 {
		p.Show(billing.RunRunning, i, 20)
		now = now.Add(time.Second)
	}
	p.Done()
	if want := "running: 0 of 20 organizations\nrunning: 5 of 20 organizations\nrunning: 10 of 20 organizations\n"; b.String() != want {
		t.Errorf("%q, want %q", &b, want)
	}
}

func TestAFileIsNoTerminal(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if NewProgress(file).width != nil {
		t.Error("a file is taken for a terminal")
	}
}
