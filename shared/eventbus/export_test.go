package eventbus

import "time"

// SetClock has the bus ask for the time there.
func (b *Bus) SetClock(now func() time.Time) { b.now = now }
