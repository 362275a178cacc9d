package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

// Exit codes.
const (
	ExitOK     = 0 // the run ended completed
	ExitFailed = 1 // it could not be started or followed
	ExitUsage  = 2 // the command line or the configuration is wrong
	ExitNotOK  = 3 // the run ended any other way
)

// CodeInterrupted is the code of what somebody ended with Ctrl-C or a signal.
const CodeInterrupted = "interrupted"

// Error is what ends a command, with what to do next.
type Error struct {
	Exit int
	Code string // for machines, such as "configuration"
	Hint string // the next step; may be empty
	Err  error  // nil: there is nothing to say beside the result
}

func (e *Error) Error() string {
	if e.Err == nil {
		return "the run did not end completed"
	}
	return e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Usage is an error of the command line.
func Usage(format string, args ...any) error {
	return &Error{Exit: ExitUsage, Code: "usage", Hint: "--help shows what there is", Err: fmt.Errorf(format, args...)}
}

// Fail writes the error, to out as JSON or to errs for people, and returns the exit code.
func Fail(out, errs io.Writer, asJSON bool, err error) int {
	e := classified(err)
	if e.Err == nil {
		return e.Exit // the result that was written says it all
	}
	if asJSON {
		type body struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Hint    string `json:"hint"`
		}
		if err := json.NewEncoder(out).Encode(map[string]body{"error": {e.Code, e.Error(), hint(e)}}); err != nil {
			return ExitFailed
		}
		return e.Exit
	}
	p := output.NewPage(errs)
	first, rest, _ := strings.Cut(e.Error(), "\n")
	prefix := output.Part(output.Failed, "error: ")
	if e.Code == CodeInterrupted { // by who reads this
		prefix = output.Part(output.Plain, "")
	}
	p.Parts(0, 2, prefix, output.Part(output.Plain, "%s", first))
	p.Lines(rest)
	if e.Hint != "" {
		p.Lines("  " + e.Hint)
	}
	_ = p.Flush() // nowhere left to report to
	return e.Exit
}

// hint is what to do next: for machines there always is something.
func hint(e *Error) string {
	advice := billing.Reason(e.Code).Advice()
	switch {
	case e.Hint != "":
		return e.Hint
	case advice.Do != "":
		return advice.Do
	case e.Code == CodeInterrupted:
		return "run it again to go on"
	default:
		return "read the message; run it again once its cause is gone"
	}
}

func classified(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*config.Error](err); ok {
		return &Error{Exit: ExitUsage, Code: "configuration", Hint: ".env.example names every variable", Err: e}
	}
	f := billing.AsFailure(err)
	return &Error{Exit: ExitFailed, Code: string(f.Reason), Err: err}
}

// Ended is nil for a run that ended completed, else an error with the exit code and no words.
func Ended(status billing.RunStatus) error {
	if status == billing.RunCompleted {
		return nil
	}
	return &Error{Exit: ExitNotOK}
}
