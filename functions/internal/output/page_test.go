package output

import (
	"strings"
	"testing"
)

func TestLinesWrapAtWordsWithAHangingIndent(t *testing.T) {
	for name, c := range map[string]struct {
		width int
		want  string
	}{
		"elsewhere lines stay whole": {0, "  drift  a word   and 組織 more  aVeryLongWordThatNothingDivides\n"},
		"on a terminal":              {24, "  drift  a word   and\n    組織 more\n    aVeryLongWordThatNothingDivides\n"},
	} {
		t.Run(name, func(t *testing.T) {
			p := Page{width: c.width}
			p.Line(2, "%s", "drift  a word   and 組織 more  aVeryLongWordThatNothingDivides")
			if got := p.text.String(); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestNoLineOfASummaryIsWiderThanTheTerminal(t *testing.T) {
	for width := 60; width <= 140; width += 20 {
		p := Page{width: width}
		p.details(wholeRun(), View{Names: map[string]string{"org-1": strings.Repeat("a long name ", 10)}})
		p.figures(wholeRun(), nil)
		p.toDo(wholeRun(), View{})
		for line := range strings.Lines(p.text.String()) {
			if n := Columns(strings.TrimSuffix(line, "\n")); n > width {
				t.Errorf("%d columns of %d: %q", n, width, line)
			}
		}
	}
}

func TestACommandOnALineOfItsOwnStaysWhole(t *testing.T) {
	p := Page{width: 40}
	p.Lines("to follow the run from the beginning to its end:\n  reconcile status 01a22659-03d0-7c52-b652-e044e99b4d2f --watch\n  local --resume 01a22659-03d0-7c52-b652-e044e99b4d2f\n")
	want := "to follow the run from the beginning to\n  its end:\n  reconcile status 01a22659-03d0-7c52-b652-e044e99b4d2f --watch\n  local --resume 01a22659-03d0-7c52-b652-e044e99b4d2f\n"
	if got := p.text.String(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestACommandStaysWholeOnANarrowTerminal(t *testing.T) {
	p := Page{width: 40}
	p.commands(2, []string{"reconcile approve 01a22614-fc27-702e-91c7-062ab2aa796b --limit 40"})
	if got := strings.Count(p.text.String(), "\n"); got != 1 {
		t.Errorf("%d lines", got)
	}
}

func TestOutputIsColouredOnlyOnTerminalsThatTakeIt(t *testing.T) {
	for name, c := range map[string]struct {
		environ map[string]string
		want    bool
	}{
		"a terminal":      {map[string]string{"TERM": "xterm"}, true},
		"NO_COLOR":        {map[string]string{"TERM": "xterm", "NO_COLOR": "1"}, false},
		"an empty one":    {map[string]string{"TERM": "xterm", "NO_COLOR": ""}, true},
		"a dumb terminal": {map[string]string{"TERM": "dumb"}, false},
		"who knows what":  {nil, false},
	} {
		if got := takesColour(func(name string) string { return c.environ[name] }); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	plain, coloured := Page{}, Page{colour: true, width: 40}
	for _, p := range []*Page{&plain, &coloured} {
		p.Parts(0, 2, Part(Failed, "er\x1bror"), Part(Plain, " fine"))
		p.Count(0, "none", 0, Failed)
	}
	if got := plain.text.String(); strings.Contains(got, "\x1b") {
		t.Errorf("%q", got)
	}
	if got := coloured.text.String(); !strings.HasPrefix(got, "\x1b[31mer\uFFFDror\x1b[0m fine\n") || strings.Count(got, "\x1b") != 2 {
		t.Errorf("%q: data may not colour, and no error is none", got)
	}
}
