package sqsserver

import (
	"sync"
	"time"
)

// Clock is where the server takes time from.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f once, d from now, in any goroutine. stop reports
	// whether it kept f from being called.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// systemClock is package time. It follows the fake time of a testing/synctest
// bubble when the server lives in one.
type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	return time.AfterFunc(d, f).Stop
}

// ManualClock is a Clock for tests: it moves only when it is told to. It is
// safe for use by several goroutines.
type ManualClock struct {
	mu     sync.Mutex
	now    time.Time
	timers map[*manualTimer]struct{}
	added  *sync.Cond
}

type manualTimer struct {
	at time.Time
	f  func()
}

// NewManualClock returns a clock that stands at now.
func NewManualClock(now time.Time) *ManualClock {
	c := &ManualClock{now: now, timers: map[*manualTimer]struct{}{}}
	c.added = sync.NewCond(&c.mu)
	return c
}

// Now is the time to which the clock was last moved.
func (c *ManualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// AfterFunc has Advance call f when the clock reaches d from now.
func (c *ManualClock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &manualTimer{at: c.now.Add(d), f: f}
	c.timers[t] = struct{}{}
	c.added.Broadcast()
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, pending := c.timers[t]
		delete(c.timers, t)
		return pending
	}
}

// Advance moves the clock by d and calls what falls due on the way, in order
// of time, each with the clock standing at its own moment.
func (c *ManualClock) Advance(d time.Duration) {
	c.mu.Lock()
	end := c.now.Add(d)
	for {
		t := c.next(end)
		if t == nil {
			break
		}
		delete(c.timers, t)
		if t.at.After(c.now) {
			c.now = t.at
		}
		c.mu.Unlock()
		t.f()
		c.mu.Lock()
	}
	c.now = end
	c.mu.Unlock()
}

// next returns the earliest timer due by end, or nil.
func (c *ManualClock) next(end time.Time) *manualTimer {
	var first *manualTimer
	for t := range c.timers {
		if t.at.After(end) {
			continue
		}
		if first == nil || t.at.Before(first.at) {
			first = t
		}
	}
	return first
}

// BlockUntil returns when at least n timers are pending: so many long polls
// are waiting, and an Advance will reach them.
func (c *ManualClock) BlockUntil(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.timers) < n {
		c.added.Wait()
	}
}
