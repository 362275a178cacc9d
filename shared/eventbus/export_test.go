package eventbus

import "time"

// SetClock replaces the clock of the bus.
func (b *Bus) SetClock(now func() time.Time) { b.now = now }
