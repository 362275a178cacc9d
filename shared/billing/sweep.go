package billing

import (
	"slices"
	"time"
)

// SweepState is the progress of a run's sweep.
type SweepState string

const (
	// SweepOpen: not started or not finished.
	SweepOpen SweepState = ""
	// SweepComplete: the snapshot has every subscription in Stripe.
	SweepComplete SweepState = "complete"
	// SweepAbandoned: the sweep could not be finished; there is no snapshot.
	SweepAbandoned SweepState = "abandoned"
)

const (
	// SnapshotTTL is how long a snapshot may be used, from the start of its sweep.
	SnapshotTTL = 2 * time.Hour
	// ClockSkew is the tolerated difference between clocks.
	ClockSkew = time.Minute
)

// SweepExpired reports whether the run's snapshot is too old to be used, or was started in the future: then a clock is
// wrong and its age unknown.
func (r Run) SweepExpired(now time.Time) bool {
	if r.SweptFrom == nil {
		return false
	}
	age := now.Sub(*r.SweptFrom)
	return age >= SnapshotTTL || age < -ClockSkew
}

// HasSnapshot reports whether the run's snapshot may be used: it is complete and not expired, and the run is open.
// Redriven organizations of a closed run are read from Stripe.
func (r Run) HasSnapshot(now time.Time) bool {
	return r.Sweep == SweepComplete && r.Status.Open() && r.SweptFrom != nil && !r.SweepExpired(now)
}

// Range is the part of Stripe's list of subscriptions that was created in a period. Stripe lists the newest first.
// https://docs.stripe.com/api/subscriptions/list
type Range struct {
	From          int64  // Unix seconds, included; 0 means unlimited
	Before        int64  // Unix seconds, excluded; 0 means unlimited
	StartingAfter string // cursor: the last subscription read; "" before the first page
}

// Page is one page of a range.
type Page struct {
	Subscriptions []Subscription // newest first
	More          bool           // there is another page
}

const (
	// stripeEpoch precedes Stripe's launch in September 2011, and so every subscription.
	stripeEpoch = 1_300_000_000
	// worthSplitting is the estimated number of remaining pages from which splitting a range pays: each range costs an
	// extra request for its last page.
	worthSplitting = 4
)

// Rest returns the range after the page.
func (r Range) Rest(p Page) Range {
	if n := len(p.Subscriptions); n > 0 {
		r.StartingAfter = p.Subscriptions[n-1].ID
	}
	return r
}

// Split divides the rest of the range after the page into two disjoint halves of its period, if that pays: newer
// continues after the page, older is read by another stream.
func (r Range) Split(p Page) (newer, older Range, ok bool) {
	rest := r.Rest(p)
	if !p.More || len(p.Subscriptions) == 0 {
		return rest, Range{}, false
	}
	newest, oldest := p.Subscriptions[0].Created.Unix(), p.Subscriptions[len(p.Subscriptions)-1].Created.Unix()
	read, unread := newest-oldest+1, oldest-max(r.From, stripeEpoch)
	if read < 1 || unread/read < worthSplitting || unread < 2 {
		return rest, Range{}, false
	}
	middle := oldest - unread/2
	newer, older = rest, Range{From: r.From, Before: middle}
	newer.From = middle
	return newer, older, true
}

// InSync reports whether the snapshot alone shows that the record needs no change; it returns that plan. It does not if
//   - a subscription was not fully read,
//   - the record names a subscription that is not in the snapshot, or one of a customer that the record does not name:
//     that customer may have other subscriptions,
//   - the record has a customer without a subscription, and grants access: a snapshot does not show whether the customer
//     was deleted or is of the other mode.
func (r Rules) InSync(t Truth, rec Record) (Plan, bool) {
	customers := rec.CustomerIDs()
	complete := map[string]bool{} // subscriptions whose customer's others are in t too
	for _, s := range t.Subscriptions {
		if s.Unreadable || s.MoreItems {
			return Plan{}, false
		}
		complete[s.ID] = !rec.Records(s.ID) || slices.Contains(customers, s.CustomerID)
	}
	for _, id := range rec.RecordedIDs() {
		if !complete[id] {
			return Plan{}, false
		}
	}
	plan, err := r.Plan(t, rec)
	if err != nil || len(plan.Changes) > 0 {
		return Plan{}, false
	}
	paidCustomer := rec.HasStripeIdentity() && rec.highestTier(r.Tiers) != r.Tiers.Lowest()
	return plan, plan.GoverningID != "" || rec.Org.Deleted || !paidCustomer
}
