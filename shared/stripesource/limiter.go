package stripesource

import (
	"context"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How the rate follows Stripe's answers: down by 15 % at most once a second, up by 5 % a second,
// but not beyond 85 % of what was too much last before so many requests went well, or so much
// time, that being refused again is a small part of them. What is left of the account's limit
// belongs to the application: each try for more may cost one of its requests.
const (
	cutFactor   = 0.85
	raiseFactor = 1.05
	tryFactor   = 1.01 // slower where it may be too much: Stripe lets a burst pass before it refuses
	adaptEvery  = time.Second
	// lowestShare of the configured rate that repeated cuts leave.
	lowestShare = 0.05
	// content is how many requests go well before more is tried for, contentAfter how long: one of
	// many workers, each with a small part of the rate, would take hours for so many.
	content      = 200
	contentAfter = 6 * time.Minute
	// sameStorm: refusals this close to each other have one cause, and the first tells what was
	// too much.
	sameStorm = 3 * time.Second
)

// pace is the rate of requests and what it follows from.
type pace struct {
	rate, max float64   // requests a second
	tooMuch   float64   // the rate that was refused last; infinite if none was
	unrefused int       // requests since
	changed   time.Time // when the rate was last cut or raised
	cut       time.Time // when it was last cut
}

// next is the pace after one more request that was, or was not, refused for its rate.
func (p pace) next(now time.Time, throttled bool) pace {
	if p.max <= 0 {
		return p
	}
	if throttled {
		return p.lowered(now)
	}
	p.unrefused++
	quiet := now.Sub(p.changed)
	if quiet < adaptEvery {
		return p
	}
	known, raise := min(p.max, cutFactor*p.tooMuch), raiseFactor
	if p.rate >= known && (p.unrefused > content || now.Sub(p.cut) > contentAfter) {
		known, raise = p.max, tryFactor
	}
	if p.rate < known {
		seconds := min(quiet, p.atLeastTwo(adaptEvery)).Seconds() // an idle hour tells no more
		p.rate = min(p.rate*math.Pow(raise, seconds), known)
	}
	p.changed = now
	return p
}

func (p pace) lowered(now time.Time) pace {
	since := now.Sub(p.cut)
	if since < adaptEvery {
		return p
	}
	if since >= p.atLeastTwo(sameStorm) {
		p.tooMuch = p.rate
	}
	p.rate = max(p.rate*cutFactor, p.max*lowestShare)
	p.unrefused, p.changed, p.cut = 0, now, now
	return p
}

// atLeastTwo is d, or what two requests take where that is longer: a slow pace hears of Stripe
// more rarely.
func (p pace) atLeastTwo(d time.Duration) time.Duration {
	return max(d, time.Duration(2/p.rate*float64(time.Second)))
}

// burst is how many requests may follow each other at once: a worker makes up for the one that it might
// have sent while it was busy with the database. More would let many workers that were all idle pass
// Stripe's limit together.
const burst = 2

// limiter spaces the requests to one endpoint.
type limiter struct {
	mu     sync.Mutex
	bucket *rate.Limiter
	pace   pace
	now    func() time.Time
}

func newLimiter(rps float64, now func() time.Time) *limiter {
	limit := rate.Limit(rps)
	if rps <= 0 {
		limit = rate.Inf
	}
	bucket := rate.NewLimiter(limit, burst)
	bucket.AllowN(now(), burst-1) // many workers start at the same moment
	return &limiter{bucket: bucket, pace: pace{rate: rps, max: rps, tooMuch: math.Inf(1)}, now: now}
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
	before := l.pace.rate
	l.pace = l.pace.next(now, throttled)
	if l.pace.rate != before {
		l.bucket.SetLimitAt(now, rate.Limit(l.pace.rate))
	}
}

// rps is the rate now; 0 is no limit.
func (l *limiter) rps() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(0, l.pace.rate)
}
