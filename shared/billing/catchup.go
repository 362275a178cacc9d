package billing

import "time"

const (
	// Overlap is how far a catch-up reaches back into what the one before has read: clocks differ, and an
	// event may be listed a little after it was created.
	Overlap = 15 * time.Minute
	// firstReach is how far back the first catch-up looks where no full run has completed.
	firstReach = 24 * time.Hour
	// UndeliveredLookback is how long an event that no endpoint took is looked for: longer than Stripe goes on
	// sending it. https://docs.stripe.com/webhooks#retries
	UndeliveredLookback = 4 * 24 * time.Hour
	// Redelivery is how long Stripe goes on sending an event that no endpoint takes.
	Redelivery = 3 * 24 * time.Hour
)

// Cause is why a catch-up looked at an organization: the latest of the events that name it.
type Cause struct {
	ID      string    `json:"id"`
	Type    string    `json:"type"`
	Created time.Time `json:"created"`
	// PendingWebhooks is how many endpoints had not taken the event when it was last listed.
	PendingWebhooks int `json:"pendingWebhooks"`
}

// Pending reports whether some endpoint had not taken the event. Else it was taken, and the record is wrong
// all the same: the application's handler failed or ignored it; or no endpoint is subscribed to it.
func (c Cause) Pending() bool { return c.PendingWebhooks > 0 }

// Before reports whether the event is older than the other; two of the same second are ordered by id.
func (c Cause) Before(other Cause) bool {
	if !c.Created.Equal(other.Created) {
		return other.Created.After(c.Created)
	}
	return other.ID > c.ID
}

// WindowState is how far a catch-up is with what it reads of Stripe's log of events.
type WindowState string

const (
	// WindowEvents: the events of its window are being read.
	WindowEvents WindowState = ""
	// WindowUndelivered: those that an endpoint has not taken are being read.
	WindowUndelivered WindowState = "undelivered"
	// WindowRead: everything was read; whom it concerns is looked up.
	WindowRead WindowState = "read"
)

// Window is the part of Stripe's log of events that a catch-up reads. It is fixed when the run is opened.
type Window struct {
	From, To time.Time // to the second, both included
	Since    bool      // From is what somebody asked for, so that the next catch-up does not go on from here
	Expired  bool      // From is where Stripe's log begins: what was before is not known
	// Unreadable counts the events between them that could not be read in full: whom they concern may be missing.
	Unreadable int
	State      WindowState
	After      string // the last event read of the list that is being read; "" before the first page
}

// CaughtUp is what earlier runs have seen to.
type CaughtUp struct {
	// Through is the end of the latest catch-up that listed to its end; zero if there is none.
	Through time.Time
	// Interrupted is the beginning of the earliest catch-up that was stopped or ran out of time, and whose window neither
	// another nor a full run has been through, or when the last full run began, if that was later; zero if there is
	// none.
	Interrupted time.Time
	// Full is when the last completed run over all organizations began; zero if there is none.
	Full time.Time
}

// NewWindow is the window of a catch-up that is opened now. Events younger than settle are left to the next
// one: the webhook gets its chance first. since, unless it is zero, is where somebody wants it to begin.
func NewWindow(now time.Time, settle time.Duration, since time.Time, at CaughtUp) Window {
	w := Window{To: now.Add(-settle).Truncate(time.Second), Since: !since.IsZero(), From: since}
	if w.Since && w.To.Before(since) { // whoever asks for the last minutes wants those
		w.To = now.Truncate(time.Second)
	}
	if !w.Since {
		w.From = at.from(now)
	}
	reach := now.Add(-EventRetention)
	if !w.Since && w.From.Before(reach) && at.Full.After(w.From) { // which has seen to what was before
		w.From = at.Full
	}
	if w.From.Before(reach) {
		w.From, w.Expired = reach, true
	}
	if w.To.Before(w.From) { // a clock was wrong
		w.From = w.To
	}
	w.From = w.From.Truncate(time.Second)
	return w
}

func (at CaughtUp) from(now time.Time) time.Time {
	from := now.Add(-firstReach)
	switch {
	case !at.Through.IsZero():
		from = at.Through.Add(-Overlap)
	case !at.Full.IsZero():
		from = at.Full
	}
	if !at.Interrupted.IsZero() && at.Interrupted.Before(from) {
		return at.Interrupted
	}
	return from
}

// UndeliveredFrom is where the events that an endpoint has not taken are read from.
func (w Window) UndeliveredFrom() time.Time { return w.To.Add(-UndeliveredLookback) }

// Query is what to read next of the log.
func (w Window) Query() EventQuery {
	q := EventQuery{From: w.From, To: w.To, After: w.After}
	if w.State == WindowUndelivered {
		q.From, q.Undelivered = w.UndeliveredFrom(), true
	}
	return q
}

// Advance is the window once the page is read. A dry run looks for nothing that is undelivered: what it found
// would be found no more by the run that repairs it.
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
