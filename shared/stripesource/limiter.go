package stripesource

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How the rate follows Stripe's answers: down by 15 % at most once a second, up by 5 % a second.
const (
	cutFactor   = 0.85
	raiseFactor = 1.05
	adaptEvery  = time.Second
	// lowestShare of the configured rate that repeated cuts leave.
	lowestShare = 0.05
)

// limiter spaces the requests to one endpoint.
type limiter struct {
	mu      sync.Mutex
	bucket  *rate.Limiter
	max     float64
	changed time.Time // when the rate was last cut or raised
	cut     time.Time // when it was last cut
	now     func() time.Time
}

func newLimiter(rps float64, now func() time.Time) *limiter {
	limit := rate.Limit(rps)
	if rps <= 0 {
		limit = rate.Inf
	}
	return &limiter{bucket: rate.NewLimiter(limit, 1), max: rps, now: now}
}

// wait until the next request may be sent, or ctx ends.
func (l *limiter) wait(ctx context.Context) error {
	l.adapt(false)
	return l.bucket.Wait(ctx)
}

// throttled tells that Stripe answered 429.
func (l *limiter) throttled() { l.adapt(true) }

func (l *limiter) adapt(throttled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	since := l.changed
	if throttled {
		since = l.cut // a raise just before must not keep a 429 from being heard
	}
	next := nextRate(float64(l.bucket.Limit()), l.max, throttled, now.Sub(since))
	if next == float64(l.bucket.Limit()) {
		return
	}
	l.bucket.SetLimitAt(now, rate.Limit(next))
	l.changed = now
	if throttled {
		l.cut = now
	}
}

// nextRate is the rate after a 429, so long after the last cut, or before a request, so long
// after the last change.
func nextRate(current, limit float64, throttled bool, since time.Duration) float64 {
	if limit <= 0 || since < adaptEvery {
		return current
	}
	if throttled {
		return max(current*cutFactor, limit*lowestShare)
	}
	return min(current*raiseFactor, limit)
}

// rps is the rate now; 0 is no limit.
func (l *limiter) rps() float64 {
	if l.max <= 0 {
		return 0
	}
	return float64(l.bucket.Limit())
}
