package billing

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// What a store answers when a write would build on something that is no longer so.
var (
	// ErrRecordChanged: somebody wrote the organization since it was read; read again.
	ErrRecordChanged = errors.New("the record changed since it was read")
	// ErrAlreadyDecided: the item has its outcome from an earlier delivery; nothing to do.
	ErrAlreadyDecided = errors.New("the organization already has its outcome in this run")
	// ErrLeaseLost: another enumerator took over the run, or the run was closed.
	ErrLeaseLost = errors.New("another enumerator holds this run")
)

// IsConflict reports whether a store told one of these about the work: no failure, and trying again
// would hear the same.
func IsConflict(err error) bool {
	return errors.Is(err, ErrRecordChanged) || errors.Is(err, ErrAlreadyDecided) || errors.Is(err, ErrLeaseLost)
}

// Class says what a failure means for the work that met it. It is the only thing that decides
// between retrying, dead-lettering and stopping.
type Class int

const (
	// Permanent: about one organization; trying again changes nothing.
	Permanent Class = iota + 1
	// Throttled: the other side asks us to slow down.
	Throttled
	// Unavailable: passes by itself (timeouts, 5xx, deadlocks, lost connections).
	Unavailable
	// RunFatal: about the run, not the organization (bad key, wrong account, refused login).
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

// Failure is an error with its class and reason. Packages that talk to Stripe or MySQL map
// their errors to it once, at their border.
type Failure struct {
	Class      Class
	Reason     Reason
	Message    string        // one line: what happened and what to do next
	RetryAfter time.Duration // what the other side asked for (Retry-After); 0 if it did not
	Err        error         // the cause, may be nil
}

func (f *Failure) Error() string {
	if f.Err == nil {
		return f.Message
	}
	return f.Message + ": " + f.Err.Error()
}

func (f *Failure) Unwrap() error { return f.Err }

// Retryable reports whether the same work may succeed later without anybody's help.
func (f *Failure) Retryable() bool { return f.Class == Throttled || f.Class == Unavailable }

// AsFailure returns the Failure in err's chain. An error nobody classified counts as
// Unavailable: it is tried again, and ends in the dead-letter queue if it stays.
func AsFailure(err error) *Failure {
	if f, ok := errors.AsType[*Failure](err); ok {
		return f
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return &Failure{Class: Unavailable, Reason: ReasonOutOfTime, Message: "the time for this invocation ended", Err: err}
	}
	return &Failure{Class: Unavailable, Reason: ReasonInternal, Message: "unexpected error", Err: err}
}

// IsDatabaseDown reports whether the next statement would wait for the database in vain too.
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

// UnknownRun is the permanent failure of who asks for a run that the database does not have.
func UnknownRun(id string) error {
	return &Failure{
		Class: Permanent, Reason: ReasonUnknownRun,
		Message: "there is no run " + id + "; it may have been pruned, or belong to another database",
	}
}

// CatchUpListing is the permanent failure of who would have a catch-up list beside the one that does, or that was
// left before it had listed everybody.
func CatchUpListing(id string) error {
	return permanent(ReasonCatchUpListing, "catch-up %s has not yet listed everybody whom Stripe's events name, and there is one at a time, so nothing was started; "+
		"try again in a few minutes, or go on with that one if nobody does any more: --resume %s", id, id)
}

// IsUnknownRun reports whether the error is one of [UnknownRun].
func IsUnknownRun(err error) bool { return err != nil && AsFailure(err).Reason == ReasonUnknownRun }
