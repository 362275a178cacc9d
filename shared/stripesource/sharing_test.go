package stripesource

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
)

// shared has the rates of requests to one endpoint.
type shared struct {
	ours, refused, others float64 // requests a second: answered, answered with 429, and of other clients
}

// share runs workers at the rate of their limiters, beside other clients. It measures after the
// first minute, in which the workers find their rate.
func share(t *testing.T, workers int, limit, others float64, d time.Duration) (s shared) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		const latency, streams, settling = 120 * time.Millisecond, 4, time.Minute
		stripe := rate.NewLimiter(25, 25)
		began := time.Now()
		counts := func() bool { return time.Since(began) > settling }
		var ours, refused, theirs atomic.Int64
		end := began.Add(settling + d)
		for range workers {
			l := newLimiter(limit/float64(workers), time.Now)
			for range streams {
				go func() {
					for time.Now().Before(end) {
						if err := l.wait(t.Context()); err != nil {
							return
						}
						ok := stripe.Allow()
						time.Sleep(latency)
						if !ok {
							l.throttled()
						}
						if counts() && ok {
							ours.Add(1)
						}
						if counts() && !ok {
							refused.Add(1)
						}
					}
				}()
			}
		}
		random := rand.New(rand.NewPCG(1, 1))
		for others > 0 && time.Now().Before(end) {
			time.Sleep(time.Duration(random.ExpFloat64() / others * float64(time.Second)))
			if stripe.Allow() && counts() {
				theirs.Add(1)
			}
		}
		time.Sleep(time.Until(end) + time.Minute)
		synctest.Wait()
		s = shared{float64(ours.Load()) / d.Seconds(), float64(refused.Load()) / d.Seconds(), float64(theirs.Load()) / d.Seconds()}
	})
	return s
}

func TestWorkersTogetherAdaptToTheRestOfTheLimit(t *testing.T) {
	for _, workers := range []int{1, 2, 10, 40} {
		s := share(t, workers, 20, 25.0/3, 20*time.Minute)
		left := 25 - s.others
		t.Logf("%d workers: %.2f/s answered, %.2f/s refused (%.2f %%), others %.2f/s, %.1f %% of what they left is used",
			workers, s.ours, s.refused, 100*s.refused/(s.ours+s.refused), s.others, 100*s.ours/left)
		if s.refused > 0.01*(s.ours+s.refused) || s.ours < 0.8*left {
			t.Errorf("%d workers: %+v", workers, s)
		}
	}
}
