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
	ExitFailed = 1 // the run could not be started or followed
	ExitUsage  = 2 // the command line or the configuration is wrong
	ExitNotOK  = 3 // the run ended any other way
)

// Codes of commands that the operator ended: they are not shown as errors.
const (
	CodeInterrupted  = "interrupted"   // by Ctrl-C or a signal
	CodeNotConfirmed = "not_confirmed" // the answer to a question was no
)

// CodeConflict is the code of a command that the state of the run does not allow.
const CodeConflict = "conflict"

// Conflict returns the error of a command that the state of the run does not allow.
func Conflict(hint, format string, args ...any) error {
	return &Error{Exit: ExitFailed, Code: CodeConflict, Hint: hint, Err: fmt.Errorf(format, args...)}
}

// Error ends a command and says what to do next.
type Error struct {
	Exit int
	Code string // for machines, such as "configuration"
	Hint string // the next step; may be empty
	Err  error  // nil if the result says everything
}

func (e *Error) Error() string {
	if e.Err == nil {
		return "the run did not end completed"
	}
	return e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Usage returns an error of the command line.
func Usage(format string, args ...any) error {
	return &Error{Exit: ExitUsage, Code: "usage", Hint: "--help lists the commands and flags", Err: fmt.Errorf(format, args...)}
}

// Fail writes the error, as JSON to out or as text to errs, and returns the exit code.
func Fail(out, errs io.Writer, asJSON bool, err error) int {
	e := asError(err)
	if e.Err == nil {
		return e.Exit // the result says everything
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
	if e.Code == CodeInterrupted || e.Code == CodeNotConfirmed {
		prefix = output.Part(output.Plain, "")
	}
	p.Parts(0, 2, prefix, output.Part(output.Plain, "%s", first))
	p.Lines(rest)
	if next := nextStep(e); next != "" {
		p.Lines("  " + next)
	}
	_ = p.Flush() // nowhere left to report to
	return e.Exit
}

// nextStep is the error's hint, or for a temporary failure, whose message does not say what to do, the advice on it.
func nextStep(e *Error) string {
	advice := billing.Reason(e.Code).Advice()
	if e.Hint != "" || advice.Concern != billing.ConcernPassing || e.Code == string(billing.ReasonInternal) {
		return e.Hint
	}
	return advice.Do
}

// hint says what to do next; in JSON it is never empty.
func hint(e *Error) string {
	advice := billing.Reason(e.Code).Advice()
	switch {
	case e.Hint != "":
		return e.Hint
	case advice.Do != "":
		return advice.Do
	case e.Code == CodeInterrupted:
		return "run the command again to continue"
	default:
		return "read the message; run the command again once the cause is removed"
	}
}

func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*config.Error](err); ok {
		return &Error{Exit: ExitUsage, Code: "configuration", Hint: ".env.example names every variable", Err: e}
	}
	f := billing.AsFailure(err)
	return &Error{Exit: ExitFailed, Code: string(f.Reason), Err: err}
}

// Ended returns nil if the run is completed, else an error without text that sets the exit code.
func Ended(status billing.RunStatus) error {
	if status == billing.RunCompleted {
		return nil
	}
	return &Error{Exit: ExitNotOK}
}
