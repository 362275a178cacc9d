package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestHelpWrapsAt80ColumnsWithoutATerminal(t *testing.T) {
	cmd := &cobra.Command{
		Use: "x RUN", Short: "Do something",
		Long:    "A first paragraph whose lines\nare joined and wrapped again, because it is longer than the eighty columns of a file.\n\nA second one:\n\n    stays as it is",
		Example: "  x one        does one thing\n  x another --with-a-flag=and-a-value        does another, and is long enough to have its words below",
		RunE:    func(*cobra.Command, []string) error { return nil },
	}
	cmd.Flags().Bool("dry", false, "a flag whose text is so long that it goes on in the next line, below the words of the line before it")
	var out, errs bytes.Buffer
	if code := Execute(t.Context(), cmd, []string{"--help"}, &out, &errs); code != ExitOK || errs.Len() != 0 {
		t.Fatalf("exit %d: %s", code, &errs)
	}
	for _, want := range []string{
		"A first paragraph whose lines are joined and wrapped again, because it is longer\nthan the eighty columns of a file.\n\nA second one:\n\n    stays as it is\n",
		"\nUsage:\n  x RUN [flags]\n", "\n  x one\n      does one thing\n  x another --with-a-flag=and-a-value\n      does another, and", "\n      --dry       a flag whose text",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
	for line := range strings.Lines(out.String()) {
		if len(strings.TrimSuffix(line, "\n")) > withoutTerminal {
			t.Errorf("wider than %d columns: %q", withoutTerminal, line)
		}
	}
}

func TestUsageAfterAnErrorGoesToStandardError(t *testing.T) {
	cmd := &cobra.Command{Use: "x"}
	cmd.AddCommand(&cobra.Command{Use: "do", Run: func(*cobra.Command, []string) {}})
	var out, errs bytes.Buffer
	Execute(t.Context(), cmd, []string{"help", "nothing"}, &out, &errs)
	if strings.Contains(out.String(), "Usage:") || !strings.Contains(errs.String(), "Usage:\n  x [command]\n") {
		t.Errorf("standard output %q, standard error %q", &out, &errs)
	}
}
