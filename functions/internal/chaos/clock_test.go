package chaos_test

import "time"

// speedup is how much faster the queues' clock runs.
const speedup = 20

// fastClock is a clock that runs speedup times as fast as real time.
type fastClock struct{ began time.Time }

func (c fastClock) Now() time.Time { return c.began.Add(speedup * time.Since(c.began)) }

func (c fastClock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	return time.AfterFunc(d/speedup+1, f).Stop
}
