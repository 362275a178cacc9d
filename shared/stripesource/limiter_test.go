package stripesource

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestNextRate(t *testing.T) {
	tests := []struct {
		name      string
		current   float64
		throttled bool
		since     time.Duration
		want      float64
	}{
		{"429 cuts by 15 %", 20, true, time.Second, 17},
		{"429 cuts again a second later", 17, true, time.Second, 14.45},
		{"429 within the second changes nothing", 20, true, time.Second - 1, 20},
		{"the cut stops at 5 %", 1.1, true, time.Minute, 1},
		{"at 5 % it stays", 1, true, time.Minute, 1},
		{"a quiet second raises by 5 %", 10, false, time.Second, 10.5},
		{"a raise within the second waits", 10, false, time.Second - 1, 10},
		{"a quiet hour raises once", 10, false, time.Hour, 10.5},
		{"the raise stops at the limit", 19.9, false, time.Second, 20},
		{"at the limit it stays", 20, false, time.Second, 20},
		{"a clock that went back changes nothing", 10, true, -time.Hour, 10},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := nextRate(test.current, 20, test.throttled, test.since); math.Abs(got-test.want) > 1e-9 {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
	for _, limit := range []float64{0, -1} {
		if got := nextRate(math.Inf(1), limit, true, time.Minute); !math.IsInf(got, 1) {
			t.Errorf("limit %v: %v", limit, got)
		}
	}
}

func TestTheRateStaysWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Float64Range(0.001, 10_000).Draw(t, "limit")
		now := time.Unix(0, 0)
		l := newLimiter(limit, func() time.Time { return now })
		var changed, cut time.Time
		before := l.rps()
		for range rapid.IntRange(1, 200).Draw(t, "answers") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "pause")))
			throttled := rapid.Bool().Draw(t, "throttled")
			l.adapt(throttled)
			after := l.rps()
			if after > limit || after < limit*lowestShare {
				t.Fatalf("rate %v of %v", after, limit)
			}
			if after == before {
				continue
			}
			since := changed
			if throttled {
				since = cut
			}
			if !since.IsZero() && now.Sub(since) < time.Second {
				t.Fatalf("throttled %t: changed after %v", throttled, now.Sub(since))
			}
			if throttled != (after < before) {
				t.Fatalf("throttled %t: from %v to %v", throttled, before, after)
			}
			before, changed = after, now
			if throttled {
				cut = now
			}
		}
	})
}

// TestTheRateFollowsWhatIsLeft: the rest of the account's limit is the web application's, so
// often far less than the configured rate gets through.
func TestTheRateFollowsWhatIsLeft(t *testing.T) {
	for left, mostRefused := range map[float64]float64{2: 0.25, 5: 0.12, 10: 0.06, 15: 0.04, 20: 0} {
		clock := time.Unix(0, 0)
		l := newLimiter(20, func() time.Time { return clock })
		tokens, sent, refused := left, 0, 0
		for clock.Sub(time.Unix(0, 0)) < 5*time.Minute {
			l.adapt(false)
			pause := 1 / l.rps()
			clock = clock.Add(time.Duration(pause * float64(time.Second)))
			tokens = min(tokens+pause*left, left)
			sent++
			if tokens < 1-1e-6 {
				refused++
				l.throttled()
				continue
			}
			tokens--
		}
		share := float64(refused) / float64(sent)
		t.Logf("%v/s left: %d sent, %.1f %% refused", left, sent, 100*share)
		if share > mostRefused {
			t.Errorf("%v/s left: %.1f %% refused, want at most %.0f %%", left, 100*share, 100*mostRefused)
		}
		if through := float64(sent-refused) / (5 * 60); through < 0.75*left {
			t.Errorf("%v/s left: only %.1f/s used", left, through)
		}
	}
}

func TestTheRateRecoversFully(t *testing.T) {
	now := time.Unix(0, 0)
	l := newLimiter(20, func() time.Time { return now })
	for range 100 {
		now = now.Add(time.Second)
		l.throttled()
	}
	if got := l.rps(); got != 1 {
		t.Fatalf("rate %v after 100 seconds of 429, want 1", got)
	}
	seconds := 0
	for l.rps() < 20 {
		now = now.Add(time.Second)
		l.adapt(false)
		seconds++
	}
	if seconds > 62 { // 1.05^62 > 20
		t.Errorf("recovered after %d seconds", seconds)
	}
}

func TestAnUnlimitedLimiterStaysUnlimited(t *testing.T) {
	for _, rps := range []float64{0, -5} {
		l := newLimiter(rps, time.Now)
		for range 1000 {
			l.throttled()
			if err := l.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestRequestsAreSpaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(20, time.Now)
		start := time.Now()
		for range 41 {
			if err := l.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := time.Since(start); got < 2*time.Second || got > 2010*time.Millisecond {
			t.Errorf("41 requests at 20 a second took %v", got)
		}
		l.throttled()
		start = time.Now()
		if err := l.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(start); got < time.Second/17-time.Millisecond {
			t.Errorf("the first request after a 429 waited %v", got)
		}
	})
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(0.01, time.Now)
		if err := l.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var ended error
		go func() { ended = l.wait(ctx) }()
		synctest.Wait()
		if ended != nil {
			t.Fatalf("did not wait: %v", ended)
		}
		start := time.Now()
		cancel()
		synctest.Wait()
		if !errors.Is(ended, context.Canceled) || time.Since(start) > 0 {
			t.Errorf("error %v after %v", ended, time.Since(start))
		}
		// Who gave up has given its turn back.
		if err := l.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(start); got > 101*time.Second {
			t.Errorf("the next waited %v", got)
		}
	})
}
