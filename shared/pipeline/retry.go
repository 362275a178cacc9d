package pipeline

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Retry says how work that met a passing failure is tried again in place.
type Retry struct {
	Tries int           // in all; 0 means 3
	Base  time.Duration // first pause, doubled and jittered from there; 0 means 200 ms
}

// do is retry for what returns nothing but an error.
func (r Retry) do(ctx context.Context, fn func() error) error {
	_, err := retry(ctx, r, func() (struct{}, error) { return struct{}{}, fn() })
	return err
}

// retry calls fn until it succeeds, fails for good, has been tried often enough or ctx ends. It
// returns what the last call did.
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
		longest = time.Until(deadline) // a pause beyond it is not begun
	}
	var last error
	value, err := backoff.Retry(ctx, func() (value T, err error) {
		value, last = fn()
		return value, retryable(last)
	}, backoff.WithBackOff(policy), backoff.WithMaxTries(tries), backoff.WithMaxElapsedTime(longest))
	if err != nil && last != nil {
		return value, last // says more than the end of ctx between two tries
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

// withReserve ends ctx so long before its deadline, if it has one: the rest is for answering.
// It never takes more than a fifth of the time there is.
func withReserve(ctx context.Context, reserve time.Duration) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	reserve = min(reserve, time.Until(deadline)/5)
	return context.WithDeadline(ctx, deadline.Add(-reserve))
}

// bookkeepingTime is what the last writes of an invocation that is ending get.
const bookkeepingTime = 3 * time.Second

// detached is for bookkeeping that must not be lost because the work's time is over.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), bookkeepingTime)
}
