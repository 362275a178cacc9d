package billing

import "time"

const (
	// Overlap is how far the windows of consecutive catch-ups overlap: clocks differ, and Stripe may list an event a
	// little after its creation.
	Overlap = 15 * time.Minute
	// firstLookback is the window of the first catch-up if no full run has completed.
	firstLookback = 24 * time.Hour
	// UndeliveredLookback is how far back undelivered events are listed. It exceeds [Redelivery].
	UndeliveredLookback = 4 * 24 * time.Hour
	// Redelivery is how long Stripe retries an undelivered event. https://docs.stripe.com/webhooks#retries
	Redelivery = 3 * 24 * time.Hour
)

// Cause is the latest event that names an organization of a catch-up.
type Cause struct {
	ID      string    `json:"id"`
	Type    string    `json:"type"`
	Created time.Time `json:"created"`
	// PendingWebhooks counts the endpoints that had not accepted the event when it was last listed.
	PendingWebhooks int `json:"pendingWebhooks"`
}

// Pending reports whether an endpoint had not accepted the event. If false and the record is wrong, the application's
// handler failed or ignored the event, or no endpoint is subscribed to it.
func (c Cause) Pending() bool { return c.PendingWebhooks > 0 }

// Before reports whether the event is older than the other; two of the same second are ordered by id.
func (c Cause) Before(other Cause) bool {
	if !c.Created.Equal(other.Created) {
		return other.Created.After(c.Created)
	}
	return other.ID > c.ID
}

// WindowState is the progress of a catch-up through Stripe's event log.
type WindowState string

const (
	// WindowEvents: the events of the window are being read.
	WindowEvents WindowState = ""
	// WindowUndelivered: the undelivered events are being read.
	WindowUndelivered WindowState = "undelivered"
	// WindowRead: all events were read, and their organizations are being listed.
	WindowRead WindowState = "read"
)

// Window is the part of Stripe's event log that a catch-up reads. It is fixed when the run is opened.
type Window struct {
	From, To time.Time // to the second, both included
	Since    bool      // a person chose From; the next catch-up does not continue from this window
	Expired  bool      // From was moved to the start of Stripe's log, so earlier events are missing
	// Unreadable counts the events that could not be fully read; their organizations may be missing.
	Unreadable int
	State      WindowState
	After      string // the last event read in the current state; "" before the first page
}

// Coverage is the progress of earlier runs, from which the next window follows. A zero time means that there is none.
type Coverage struct {
	// Through is the end of the latest window that was fully listed.
	Through time.Time
	// Interrupted is the start of the earliest window of a stopped or timed-out catch-up that no later run covered, or
	// the start of the last full run if that was later.
	Interrupted time.Time
	// Full is the start of the last completed full run.
	Full time.Time
}

// NewWindow returns the window of a catch-up that is opened now. It excludes events younger than settle, to give the
// webhook time to handle them. A nonzero since is the start that a person chose.
func NewWindow(now time.Time, settle time.Duration, since time.Time, earlier Coverage) Window {
	w := Window{To: now.Add(-settle).Truncate(time.Second), Since: !since.IsZero(), From: since}
	if w.Since && w.To.Before(since) { // the person wants exactly the unsettled events
		w.To = now.Truncate(time.Second)
	}
	if !w.Since {
		w.From = earlier.next(now)
	}
	oldest := now.Add(-EventRetention)
	if !w.Since && w.From.Before(oldest) && earlier.Full.After(w.From) { // the full run covered the events before it
		w.From = earlier.Full
	}
	if w.From.Before(oldest) {
		w.From, w.Expired = oldest, true
	}
	if w.To.Before(w.From) { // a clock was wrong
		w.From = w.To
	}
	w.From = w.From.Truncate(time.Second)
	return w
}

// next returns the start of the next window.
func (c Coverage) next(now time.Time) time.Time {
	from := now.Add(-firstLookback)
	switch {
	case !c.Through.IsZero():
		from = c.Through.Add(-Overlap)
	case !c.Full.IsZero():
		from = c.Full
	}
	if !c.Interrupted.IsZero() && c.Interrupted.Before(from) {
		return c.Interrupted
	}
	return from
}

// UndeliveredFrom is the start of the list of undelivered events.
func (w Window) UndeliveredFrom() time.Time { return w.To.Add(-UndeliveredLookback) }

// Query returns the next page to read.
func (w Window) Query() EventQuery {
	q := EventQuery{From: w.From, To: w.To, StartingAfter: w.After}
	if w.State == WindowUndelivered {
		q.From, q.Undelivered = w.UndeliveredFrom(), true
	}
	return q
}

// Advance returns the window after the page. A dry run skips the undelivered events: recording them would hide them
// from the run that repairs.
func (w Window) Advance(p EventPage, dryRun bool) Window {
	if w.State == WindowEvents {
		w.Unreadable += p.Unreadable
	}
	switch {
	case p.More && len(p.Events) > 0:
		w.After = p.Events[len(p.Events)-1].ID
	case w.State == WindowEvents && !dryRun:
		w.State, w.After = WindowUndelivered, ""
	default:
		w.State, w.After = WindowRead, ""
	}
	return w
}
