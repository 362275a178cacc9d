package telemetry_test

import (
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

func TestForeignTextIsMadeHarmless(t *testing.T) {
	for text, want := range map[string]struct{ line, clean string }{
		"plain ä € 👨‍👩‍👧":   {"plain ä € 👨‍👩‍👧", "plain ä € 👨‍👩‍👧"},
		" two\r\n\tlines\n": {"two lines", " two�\n lines\n"},
		"\x1b[2Jcleared":    {"[2Jcleared", "�[2Jcleared"},
		"\u009b2Jcleared":   {"2Jcleared", "�2Jcleared"},
		"broken \xff":       {"broken ", "broken �"},
		"abc\u202Efed":      {"abc\u202Efed", "abc�fed"},
	} {
		if got := telemetry.OneLine(text); got != want.line {
			t.Errorf("OneLine(%q) = %q, want %q", text, got, want.line)
		}
		if got := telemetry.Clean(text); got != want.clean {
			t.Errorf("Clean(%q) = %q, want %q", text, got, want.clean)
		}
	}
}
