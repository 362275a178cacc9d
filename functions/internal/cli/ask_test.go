package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

func TestAskTakesOnlyYesAsYes(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, "YES \n": true, "n\n": false, "\n": false, "": false, "yikes\n": false} {
		var errs strings.Builder
		got, err := ask(t.Context(), strings.NewReader(answer), &errs, "This writes.")
		if err != nil || got != want || errs.String() != "This writes.\nContinue? [y/N] " {
			t.Errorf("%q: %t, %v after %q", answer, got, err, &errs)
		}
	}
}

func TestAskCanBeCancelledAndNeedsATerminal(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	silent, _ := io.Pipe() // never answers
	if yes, err := ask(ctx, silent, io.Discard, "This writes."); yes || !errors.Is(err, context.Canceled) {
		t.Errorf("%t, %v", yes, err)
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := Ask(t.Context(), file, io.Discard, "This writes."); !errors.Is(err, ErrNoTerminal) {
		t.Errorf("%v", err)
	}
}
