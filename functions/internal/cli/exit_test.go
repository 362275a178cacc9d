package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func TestUnconfirmedStartIsPrintedWithoutTheWordError(t *testing.T) {
	var errs bytes.Buffer
	code := Fail(nil, &errs, false, &Error{Exit: ExitFailed, Code: CodeNotConfirmed, Err: errors.New("nothing was started"), Hint: "--dry-run shows what would change"})
	if code != ExitFailed || errs.String() != "nothing was started\n  --dry-run shows what would change\n" {
		t.Errorf("exit %d, %q", code, &errs)
	}
}

func TestErrorTextCannotControlTheTerminal(t *testing.T) {
	var errs bytes.Buffer
	Fail(nil, &errs, false, &Error{Exit: ExitFailed, Code: "x", Err: errors.New("run \x1b[2Ja"), Hint: "still open: \x1b]0;b\a\n    the next line"})
	if strings.ContainsAny(errs.String(), "\x1b\a") || !strings.Contains(errs.String(), "\n    the next line\n") {
		t.Errorf("wrote %q", &errs)
	}
}

func TestTemporaryFailureIsPrintedWithItsAdvice(t *testing.T) {
	for reason, want := range map[billing.Reason]string{
		billing.ReasonDatabaseUnavailable: "error: no answer\n  Make sure that it is up, DB_HOST is the writer, and nothing holds locks for long.\n",
		billing.ReasonInternal:            "error: no answer\n",
	} {
		var errs bytes.Buffer
		Fail(nil, &errs, false, &billing.Failure{Class: billing.Unavailable, Reason: reason, Message: "no answer"})
		if errs.String() != want {
			t.Errorf("%q, want %q", &errs, want)
		}
	}
}
