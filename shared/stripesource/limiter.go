package stripesource

import (
	"context"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// AIMD: a 429 cuts the rate by 15 %, at most once a second. Each second without one raises it by 5 %, up to
// 85 % of the rate that was rejected last. Only after probeAfter requests or probeWindow without a 429 does it
// probe for more, by 1 % a second: each probe may cost the application one of its requests, for both share the
// account's limit.
const (
	cutFactor   = 0.85
	raiseFactor = 1.05
	probeFactor = 1.01 // slower than raiseFactor: Stripe lets a burst pass before it answers 429
	adaptEvery  = time.Second
	// minShare is the part of the configured rate that cuts never go below.
	minShare = 0.05
	// probeAfter is a number of requests, probeWindow a time: one of many workers, each with a small share of
	// the rate, would need hours for that many requests.
	probeAfter  = 200
	probeWindow = 6 * time.Minute
	// cutWindow: cuts this close to each other have one cause, and only the first sets lastRejectedRate.
	cutWindow = 3 * time.Second
)

// aimd is the current rate and the state from which the next one follows.
type aimd struct {
	rate, max        float64   // requests a second
	lastRejectedRate float64   // at the last 429; infinite if there was none
	sinceCut         int       // requests without a 429 since the last cut
	lastChange       time.Time // when the rate was last cut or raised
	lastCut          time.Time
}

// next returns the state after one more request.
func (a aimd) next(now time.Time, throttled bool) aimd {
	if a.max <= 0 {
		return a
	}
	if throttled {
		return a.cut(now)
	}
	a.sinceCut++
	quiet := now.Sub(a.lastChange)
	if quiet < adaptEvery {
		return a
	}
	ceiling, factor := min(a.max, cutFactor*a.lastRejectedRate), raiseFactor
	if a.rate >= ceiling && (a.sinceCut > probeAfter || now.Sub(a.lastCut) > probeWindow) {
		ceiling, factor = a.max, probeFactor
	}
	if a.rate < ceiling {
		seconds := min(quiet, a.atLeastTwo(adaptEvery)).Seconds() // an idle hour raises it no further
		a.rate = min(a.rate*math.Pow(factor, seconds), ceiling)
	}
	a.lastChange = now
	return a
}

func (a aimd) cut(now time.Time) aimd {
	since := now.Sub(a.lastCut)
	if since < adaptEvery {
		return a
	}
	if since >= a.atLeastTwo(cutWindow) {
		a.lastRejectedRate = a.rate
	}
	a.rate = max(a.rate*cutFactor, a.max*minShare)
	a.sinceCut, a.lastChange, a.lastCut = 0, now, now
	return a
}

// atLeastTwo returns d, or the time of two requests at the current rate if that is longer: at a low rate
// responses are too rare to judge by d.
func (a aimd) atLeastTwo(d time.Duration) time.Duration {
	return max(d, time.Duration(2/a.rate*float64(time.Second)))
}

// burst lets a worker catch up on one request that it could have sent while it waited for the database. With
// more, many idle workers together would exceed Stripe's limit.
const burst = 2

// limiter is a token bucket for the requests to one endpoint. Its rate follows the responses.
type limiter struct {
	now    func() time.Time
	bucket *rate.Limiter

	mu   sync.Mutex
	aimd aimd
}

func newLimiter(rps float64, now func() time.Time) *limiter {
	limit := rate.Limit(rps)
	if rps <= 0 {
		limit = rate.Inf
	}
	bucket := rate.NewLimiter(limit, burst)
	bucket.AllowN(now(), burst-1) // no burst at the start: many workers start at the same moment
	return &limiter{bucket: bucket, aimd: aimd{rate: rps, max: rps, lastRejectedRate: math.Inf(1)}, now: now}
}

// wait returns when the next request may be sent, or with ctx's error.
func (l *limiter) wait(ctx context.Context) error {
	l.adapt(false)
	return l.bucket.Wait(ctx)
}

// throttled lowers the rate after a 429.
func (l *limiter) throttled() { l.adapt(true) }

func (l *limiter) adapt(throttled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	before := l.aimd.rate
	l.aimd = l.aimd.next(now, throttled)
	if l.aimd.rate != before {
		l.bucket.SetLimitAt(now, rate.Limit(l.aimd.rate))
	}
}

// rps returns the current rate; 0 is no limit.
func (l *limiter) rps() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(0, l.aimd.rate)
}
