package pipeline

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Retry says how often, and with which pauses, a failed call is repeated in place.
type Retry struct {
	Tries int           // calls in all; 0 means 3
	Base  time.Duration // first pause, doubled and jittered from there; 0 means 200 ms
}

// do is retry for a function that returns only an error.
func (r Retry) do(ctx context.Context, fn func() error) error {
	_, err := retry(ctx, r, func() (struct{}, error) { return struct{}{}, fn() })
	return err
}

// retry calls fn until fn succeeds or fails permanently, until the tries are used up, or until ctx ends. It returns the
// result of the last call.
func retry[T any](ctx context.Context, r Retry, fn func() (T, error)) (T, error) {
	policy := backoff.NewExponentialBackOff()
	policy.InitialInterval, policy.Multiplier = 200*time.Millisecond, 2
	if r.Base > 0 {
		policy.InitialInterval = r.Base
	}
	tries := uint(3)
	if r.Tries > 0 {
		tries = uint(r.Tries)
	}
	longest := backoff.DefaultMaxElapsedTime
	if deadline, ok := ctx.Deadline(); ok {
		longest = time.Until(deadline) // do not start a pause that would end after the deadline
	}
	var last error
	value, err := backoff.Retry(ctx, func() (value T, err error) {
		value, last = fn()
		return value, retryable(last)
	}, backoff.WithBackOff(policy), backoff.WithMaxTries(tries), backoff.WithMaxElapsedTime(longest))
	if err != nil && last != nil {
		return value, last // more specific than the end of ctx between two tries
	}
	return value, err
}

func retryable(err error) error {
	if err == nil {
		return nil
	}
	f := billing.AsFailure(err)
	if !f.Retryable() || billing.IsConflict(err) {
		return backoff.Permanent(err)
	}
	if f.RetryAfter > 0 {
		return errors.Join(err, &backoff.RetryAfterError{Duration: f.RetryAfter})
	}
	return err
}

// withReserve ends ctx before its deadline, if it has one, and so reserves time for the response. The reserve is at most
// a fifth of the remaining time.
func withReserve(ctx context.Context, reserve time.Duration) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	reserve = min(reserve, time.Until(deadline)/5)
	return context.WithDeadline(ctx, deadline.Add(-reserve))
}

// bookkeepingTime is the time for the last writes of an invocation.
const bookkeepingTime = 3 * time.Second

// detached returns a context for writes that must be made even if the time for the work is over.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), bookkeepingTime)
}
