package sqsserver

import (
	"sync"
	"time"
)

// Clock is the server's source of time.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f once, d from now, in any goroutine. stop returns
	// false if f was already called.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// systemClock is package time, also the fake time of a testing/synctest bubble.
type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	return time.AfterFunc(d, f).Stop
}

// ManualClock is a Clock for tests that only Advance moves. It is safe for concurrent use.
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

// NewManualClock returns a clock with the time now.
func NewManualClock(now time.Time) *ManualClock {
	c := &ManualClock{now: now, timers: map[*manualTimer]struct{}{}}
	c.added = sync.NewCond(&c.mu)
	return c
}

// Now returns the clock's time.
func (c *ManualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// AfterFunc makes Advance call f when the clock reaches d from now.
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

// Advance moves the clock by d and calls the functions that are due, in order of time, each at its own time.
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

// BlockUntil returns when at least n timers are pending, such as those of n long polls.
func (c *ManualClock) BlockUntil(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.timers) < n {
		c.added.Wait()
	}
}
