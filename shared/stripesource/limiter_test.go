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

func TestThrottlingCutsTheRateAndQuietTimeRaisesIt(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	none := math.Inf(1)
	tests := []struct {
		name      string
		aimd      aimd
		throttled bool
		want      float64
	}{
		{"429 cuts by 15 %", aimd{rate: 20, lastRejectedRate: none, lastCut: ago(time.Second)}, true, 17},
		{"429 within the second changes nothing", aimd{rate: 17, lastRejectedRate: 20, lastCut: ago(time.Second - 1)}, true, 17},
		{"the cut stops at 5 %", aimd{rate: 1.1, lastRejectedRate: none, lastCut: ago(time.Minute)}, true, 1},
		{"at 5 % it stays", aimd{rate: 1, lastRejectedRate: none, lastCut: ago(time.Minute)}, true, 1},
		{"a 429 just after a raise cuts", aimd{rate: 20, lastRejectedRate: none, lastChange: now, lastCut: ago(time.Minute)}, true, 17},
		{"a quiet second raises by 5 %", aimd{rate: 10, lastRejectedRate: none, lastChange: ago(time.Second)}, false, 10.5},
		{"a raise within the second waits", aimd{rate: 10, lastRejectedRate: none, lastChange: ago(time.Second - 1)}, false, 10},
		{"a quiet hour raises once", aimd{rate: 10, lastRejectedRate: none, lastChange: ago(time.Hour)}, false, 10.5},
		{"the raise stops at the limit", aimd{rate: 19.9, lastRejectedRate: none, lastChange: ago(time.Second)}, false, 20},
		{"at the limit it stays", aimd{rate: 20, lastRejectedRate: none, lastChange: ago(time.Second)}, false, 20},
		{"a clock that went back changes nothing", aimd{rate: 10, lastRejectedRate: none, lastCut: ago(-time.Hour)}, true, 10},
		{"the rate stays below 85 % of the last rejected rate", aimd{rate: 8.5, lastRejectedRate: 10, lastChange: ago(time.Minute), lastCut: ago(time.Minute)}, false, 8.5},
		{"it rises up to there", aimd{rate: 4, lastRejectedRate: 10, lastChange: ago(time.Minute), lastCut: ago(time.Minute)}, false, 4.2},
		{"it probes after enough requests", aimd{rate: 10, lastRejectedRate: 10, sinceCut: probeAfter, lastChange: ago(time.Second), lastCut: ago(time.Minute)}, false, 10.1},
		{"it probes after enough time", aimd{rate: 10, lastRejectedRate: 10, lastChange: ago(time.Second), lastCut: ago(probeWindow + 1)}, false, 10.1},
		{"it does not probe before", aimd{rate: 10, lastRejectedRate: 10, sinceCut: probeAfter - 1, lastChange: ago(time.Second), lastCut: ago(probeWindow)}, false, 10},
		{"a low rate rises by the second too", aimd{rate: 1, lastRejectedRate: none, lastChange: ago(2 * time.Second)}, false, 1.1025},
		{"for at most the time of two requests", aimd{rate: 1, lastRejectedRate: none, lastChange: ago(time.Hour)}, false, 1.1025},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.aimd.max = 20
			if got := test.aimd.next(now, test.throttled).rate; math.Abs(got-test.want) > 1e-9 {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

func TestCutsWithinTheWindowSetOneLastRejectedRate(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	p := aimd{rate: 20, max: 20, lastRejectedRate: math.Inf(1)}
	for range 10 {
		p = p.next(now, true)
		now = now.Add(time.Second)
	}
	if p.lastRejectedRate != 20 || p.rate > 5 {
		t.Errorf("%+v", p)
	}
	now = now.Add(cutWindow)
	if p = p.next(now, true); p.lastRejectedRate > 5 {
		t.Errorf("after the window: %+v", p)
	}
}

func TestRateStaysBetweenMinShareAndMax(t *testing.T) {
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
			if after > limit || after < limit*minShare {
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

// The application uses part of the account's limit, so that often far less than the configured rate gets through.
func TestRateAdaptsToWhatTheApplicationLeaves(t *testing.T) {
	for left, mostRefused := range map[float64]float64{2: 0.02, 5: 0.015, 10: 0.01, 15: 0.01, 20: 0} {
		clock := time.Unix(0, 0)
		l := newLimiter(20, func() time.Time { return clock })
		tokens, sent, refused := left, 0, 0
		for clock.Sub(time.Unix(0, 0)) < time.Hour {
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
		if through := float64(sent-refused) / 3600; through < 0.75*left {
			t.Errorf("%v/s left: only %.1f/s used", left, through)
		}
	}
}

func TestRateRecoversToMaxAfterThrottling(t *testing.T) {
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
	if seconds > 282 { // 1.05^62 > 20, probeAfter requests, and the slower probes
		t.Errorf("recovered after %d seconds", seconds)
	}
}

// Each of forty workers has a small share of the rate, and must not slow the run down.
func TestRecoveryTakesNoLongerAtALowRate(t *testing.T) {
	for _, rps := range []float64{20, 2, 0.5} {
		now := time.Unix(1_000_000, 0)
		l := newLimiter(rps, func() time.Time { return now })
		ask := func() {
			l.adapt(false)
			now = now.Add(time.Duration(float64(time.Second) / l.rps()))
		}
		for end := now.Add(30 * time.Second); now.Before(end); {
			ask()
			l.throttled()
		}
		low, over := l.rps(), now
		var half time.Duration
		for l.rps() < rps && now.Sub(over) < time.Hour {
			ask()
			if half == 0 && l.rps() >= rps/2 {
				half = now.Sub(over)
			}
		}
		whole := now.Sub(over)
		t.Logf("%v/s: down to %.2f, half of it after %v, all after %v", rps, low, half.Round(time.Second), whole.Round(time.Second))
		if low > 0.6*rps || half == 0 || half > 2*time.Minute || whole > 7*time.Minute {
			t.Errorf("%v/s: down to %.2f, half of it after %v, all after %v", rps, low, half, whole)
		}
	}
}

func TestLimiterWithoutRateNeverWaits(t *testing.T) {
	l := newLimiter(0, time.Now)
	for range 1000 {
		l.throttled()
		if err := l.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLimiterSpacesRequests(t *testing.T) {
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

func TestWaitEndsWithItsContext(t *testing.T) {
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
		// The canceled wait returned its token.
		if err := l.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(start); got > 101*time.Second {
			t.Errorf("the next waited %v", got)
		}
	})
}
