package billing

import (
	"slices"
	"time"
)

// SweepState is how far the sweep of a run is.
type SweepState string

const (
	// SweepOpen: not begun, or going on.
	SweepOpen SweepState = ""
	// SweepComplete: every subscription that Stripe had stands in the snapshot.
	SweepComplete SweepState = "complete"
	// SweepAbandoned: it could not be brought to its end, so there is no snapshot.
	SweepAbandoned SweepState = "abandoned"
)

const (
	// SnapshotTTL is how long after the sweep began its snapshot may be decided by.
	SnapshotTTL = 2 * time.Hour
	// ClockSkew is how much clocks that are right may differ.
	ClockSkew = time.Minute
)

// SweepExpired reports whether what the run's sweep reads may not be decided by any more: it began
// too long ago, or in the future, so that a clock is wrong and nobody knows its age.
func (r Run) SweepExpired(now time.Time) bool {
	if r.SweptFrom == nil {
		return false
	}
	age := now.Sub(*r.SweptFrom)
	return age >= SnapshotTTL || age < -ClockSkew
}

// HasSnapshot reports whether the run's snapshot may be decided by at this time: it is complete,
// not outlived, and the run is open. What is redriven to a closed run is read afresh.
func (r Run) HasSnapshot(now time.Time) bool {
	return r.Sweep == SweepComplete && r.Status.Open() && r.SweptFrom != nil && !r.SweepExpired(now)
}

// Range is a part of Stripe's list of subscriptions: those created from one second up to, and
// not including, another. Stripe lists the newest first.
// https://docs.stripe.com/api/subscriptions/list
type Range struct {
	From   int64  // Unix seconds, included; 0 is since ever
	Before int64  // Unix seconds, not included; 0 has no end
	After  string // the last subscription read; "" before the first page
}

// Page is one page of a range.
type Page struct {
	Subscriptions []Subscription // newest first
	More          bool           // the range goes on after the last one
}

const (
	// stripeEpoch is before the first subscription Stripe can have: it opened in September 2011.
	stripeEpoch = 1_300_000_000
	// worthSplitting is how many pages a range must seem to have left: a new one ends in a page
	// that is not full, or turns out empty, and that costs a request.
	worthSplitting = 4
)

// Rest returns the range without the page that was just read of it.
func (r Range) Rest(p Page) Range {
	if n := len(p.Subscriptions); n > 0 {
		r.After = p.Subscriptions[n-1].ID
	}
	return r
}

// Split divides what is left of the range after this page at the middle of its time, if it seems
// worth it: newer goes on after the page, older is read from its start by somebody else. Together
// they have every second of the range, and none twice.
func (r Range) Split(p Page) (newer, older Range, ok bool) {
	rest := r.Rest(p)
	if !p.More || len(p.Subscriptions) == 0 {
		return rest, Range{}, false
	}
	newest, oldest := p.Subscriptions[0].Created.Unix(), p.Subscriptions[len(p.Subscriptions)-1].Created.Unix()
	read, left := newest-oldest+1, oldest-max(r.From, stripeEpoch)
	if read < 1 || left/read < worthSplitting || left < 2 {
		return rest, Range{}, false
	}
	middle := oldest - left/2
	newer, older = rest, Range{From: r.From, Before: middle}
	newer.From = middle
	return newer, older, true
}

// InSync reports whether what the sweep saw of the organization is all there is to know, and in
// agreement with its record: then Stripe need not be asked. The plan has nothing to change.
//
// It is not where a subscription has items that were not read; nor where the record names a subscription that the sweep did not see, or one whose
// customer the record does not name (the customer may have others); nor where access is granted
// without any subscription. A deleted customer, or one of the other mode, is not told from one without subscriptions.
func (r Rules) InSync(t Truth, rec Record) (Plan, bool) {
	customers := rec.CustomerIDs()
	seen := map[string]bool{}
	for _, s := range t.Subscriptions {
		if s.Unreadable || s.MoreItems {
			return Plan{}, false
		}
		seen[s.ID] = !rec.Records(s.ID) || slices.Contains(customers, s.CustomerID)
	}
	for _, id := range rec.RecordedIDs() {
		if !seen[id] {
			return Plan{}, false
		}
	}
	plan, err := r.Plan(t, rec)
	if err != nil || len(plan.Changes) > 0 {
		return Plan{}, false
	}
	return plan, plan.GoverningID != "" || rec.Org.Deleted || rec.highestTier(r.Tiers) == r.Tiers.Lowest()
}
