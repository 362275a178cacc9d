package testworld

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Hooks are functions that a step calls before and after each of its calls: to Stripe and the queues, named by the
// method, and to the database, named as for a [mysqltest.Interceptor].
type Hooks struct {
	Before func(ctx context.Context, call string) error // an error prevents the call
	After  func(ctx context.Context, call string) error // an error replaces the call's answer
	Killer *Killer
}

// Do makes the call, and calls the hooks before and after it.
func (h *Hooks) Do(ctx context.Context, call string, effect func() error) error {
	if h == nil {
		return effect()
	}
	if h.Before != nil {
		if err := h.Before(ctx, call); err != nil {
			return err
		}
	}
	var err error
	if h.Killer != nil {
		err = h.Killer.do(effect)
	} else {
		err = effect()
	}
	if h.After != nil {
		if lost := h.After(ctx, call); lost != nil {
			return lost
		}
	}
	return err
}

// InTransaction reports whether the call is between the begin of a transaction and its end.
func InTransaction(call string) bool {
	return strings.HasPrefix(call, "in ") || strings.HasPrefix(call, "commit ")
}

// ErrKilled is the answer to every call of a killed process.
var ErrKilled error = &billing.Failure{Class: billing.Unavailable, Reason: billing.ReasonInternal, Message: "the process was killed"}

// Killer ends a process at its n-th call to the outside, before or after the call's effect. After that no call of the
// process has an effect, not even to clean up.
type Killer struct {
	At    int // 0: never
	After bool

	mu    sync.Mutex
	calls int
	dead  bool
}

// Hooks returns hooks that count the calls and kill the process.
func (k *Killer) Hooks() *Hooks { return &Hooks{Killer: k} }

// HTTP returns a client whose requests count as calls of the process.
func (k *Killer) HTTP(client *http.Client) *KillerHTTP { return &KillerHTTP{k, client} }

// Dead reports whether the process was killed.
func (k *Killer) Dead() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.dead
}

func (k *Killer) do(effect func() error) error {
	k.mu.Lock()
	k.calls++
	dies := !k.dead && k.calls == k.At
	k.dead = k.dead || dies
	prevented := k.dead && (!dies || !k.After)
	k.mu.Unlock()
	if prevented {
		return ErrKilled
	}
	err := effect()
	if k.Dead() {
		return ErrKilled
	}
	return err
}

// KillerHTTP is an HTTP client whose requests are calls of a process with a [Killer].
type KillerHTTP struct {
	killer *Killer
	client *http.Client
}

// Do sends the request, if the process is alive.
func (c *KillerHTTP) Do(r *http.Request) (response *http.Response, err error) {
	err = c.killer.do(func() (err error) {
		response, err = c.client.Do(r) //nolint:bodyclose // the caller closes it, or the lines below
		return err
	})
	if err != nil {
		if response != nil {
			_ = response.Body.Close() // a dead process does not read it
		}
		return nil, err
	}
	return response, nil
}

// DyingAt kills the process before the call.
func DyingAt(call string) *Hooks { return FailingFrom(call, ErrKilled) }

// FailingFrom answers the call and every later one with the error.
func FailingFrom(call string, err error) *Hooks {
	var begun atomic.Bool
	return &Hooks{Before: func(_ context.Context, name string) error {
		if name == call {
			begun.Store(true)
		}
		if begun.Load() {
			return err
		}
		return nil
	}}
}

// EveryDeath calls fn for a process killed at its first call, at its second and so on, each
// before and after the call's effect, until one survives.
func EveryDeath(t *testing.T, fn func(t *testing.T, k *Killer)) {
	t.Helper()
	for at := 1; ; at++ {
		survived := false
		for _, after := range []bool{false, true} {
			k := &Killer{At: at, After: after}
			fn(t, k)
			if t.Failed() {
				t.Fatalf("killed at call %d, after its effect: %t", at, after)
			}
			survived = survived || !k.Dead()
		}
		if survived {
			if at < 3 {
				t.Fatalf("only %d calls were made", at-1)
			}
			t.Logf("%d deaths before and after their effect", at-1)
			return
		}
	}
}

// Once calls fn at the first call only.
func Once(fn func()) func() {
	var o sync.Once
	return func() { o.Do(fn) }
}
