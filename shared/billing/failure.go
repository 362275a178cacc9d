package billing

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Conflicts: the state that a write depends on has changed.
var (
	// ErrRecordChanged: the organization was written since it was read; read it again.
	ErrRecordChanged = errors.New("the record changed since it was read")
	// ErrAlreadyDecided: an earlier delivery decided the item; there is nothing to do.
	ErrAlreadyDecided = errors.New("the organization already has its outcome in this run")
	// ErrLeaseLost: another enumerator acquired the run's lease, or the run was closed.
	ErrLeaseLost = errors.New("another enumerator holds this run")
)

// IsConflict reports whether err is a conflict, so that repeating the same write is useless.
func IsConflict(err error) bool {
	return errors.Is(err, ErrRecordChanged) || errors.Is(err, ErrAlreadyDecided) || errors.Is(err, ErrLeaseLost)
}

// Class alone decides whether work is retried, dead-lettered or stopped.
type Class int

const (
	// Permanent: concerns one organization; a retry does not help.
	Permanent Class = iota + 1
	// Throttled: a rate limit.
	Throttled
	// Unavailable: temporary (timeouts, 5xx, deadlocks, lost connections).
	Unavailable
	// RunFatal: concerns the whole run (bad key, wrong account, refused login).
	RunFatal
)

func (c Class) String() string {
	switch c {
	case Permanent:
		return "permanent"
	case Throttled:
		return "throttled"
	case Unavailable:
		return "unavailable"
	case RunFatal:
		return "run_fatal"
	default:
		return fmt.Sprintf("class(%d)", int(c))
	}
}

// Failure is an error with its class and reason. The packages that call Stripe, MySQL and SQS return it.
type Failure struct {
	Class      Class
	Reason     Reason
	Message    string        // one line: what happened and what to do next
	RetryAfter time.Duration // of a Retry-After header; 0 without one
	Err        error         // the cause, may be nil
}

func (f *Failure) Error() string {
	if f.Err == nil {
		return f.Message
	}
	return f.Message + ": " + f.Err.Error()
}

func (f *Failure) Unwrap() error { return f.Err }

// Retryable reports whether a retry may succeed.
func (f *Failure) Retryable() bool { return f.Class == Throttled || f.Class == Unavailable }

// AsFailure returns the Failure in err's chain. Any other error becomes Unavailable: it is retried, and dead-lettered
// if it persists.
func AsFailure(err error) *Failure {
	if f, ok := errors.AsType[*Failure](err); ok {
		return f
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return &Failure{Class: Unavailable, Reason: ReasonOutOfTime, Message: "the time for this invocation ended", Err: err}
	}
	return &Failure{Class: Unavailable, Reason: ReasonInternal, Message: "unexpected error", Err: err}
}

// IsDatabaseDown reports whether the next statement would fail too.
func IsDatabaseDown(err error) bool {
	if err == nil {
		return false
	}
	reason := AsFailure(err).Reason
	return reason == ReasonDatabaseUnavailable || reason == ReasonOutOfTime
}

func permanent(reason Reason, format string, args ...any) *Failure {
	return &Failure{Class: Permanent, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// UnknownRun is the failure for a run that is not in the database.
func UnknownRun(id string) error {
	return &Failure{
		Class: Permanent, Reason: ReasonUnknownRun,
		Message: "there is no run " + id + "; it may have been pruned, or belong to another database",
	}
}

// CatchUpListing is the failure of a catch-up that is started while another one has not finished listing.
func CatchUpListing(id string) error {
	return permanent(ReasonCatchUpListing, "catch-up %s is still listing the organizations that Stripe's events name, and only one may do so at a time, so nothing was started; "+
		"try again in a few minutes, or resume that one if its enumerator stopped: --resume %s", id, id)
}

// IsUnknownRun reports whether the error is one of [UnknownRun].
func IsUnknownRun(err error) bool { return err != nil && AsFailure(err).Reason == ReasonUnknownRun }
