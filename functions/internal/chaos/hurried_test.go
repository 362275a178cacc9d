package chaos_test

import "time"

// hurry is how much faster time passes for the queues.
const hurry = 20

// hurried is a clock of which hurry seconds pass in one.
type hurried struct{ began time.Time }

func (c hurried) Now() time.Time { return c.began.Add(hurry * time.Since(c.began)) }

func (c hurried) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	return time.AfterFunc(d/hurry+1, f).Stop
}
