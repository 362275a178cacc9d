package billing

import (
	"fmt"
	"slices"
	"strings"
)

// candidates are the subscriptions that may govern the organization, each once and by id: the
// recorded ones, those whose metadata names it, and the customer's others unless another
// organization accounts for them (two organizations may share a customer). What is in doubt
// between two organizations and grants nothing is left to neither.
func candidates(t Truth, r Record) []Subscription {
	var found []Subscription
	for _, s := range t.Subscriptions {
		if t.isCandidate(s, r) {
			found = append(found, s)
		}
	}
	slices.SortStableFunc(found, compareIDs)
	return slices.CompactFunc(found, func(a, b Subscription) bool { return a.ID == b.ID })
}

func (t Truth) isCandidate(s Subscription, r Record) bool {
	if r.Records(s.ID) || t.Claims.Names(s, r.Org.ID) {
		return true
	}
	return !t.isStrange(s, r) && !t.Claims.ofOther(s, r.Org.ID) && (t.Claims.sharedWith(s, r) == "" || !s.Status.grantsNothing())
}

// isStrange: the subscription was looked at because its metadata may mean the organization, and it
// does not; nor is its customer one that the organization is known under.
func (t Truth) isStrange(s Subscription, r Record) bool {
	if !s.MayName(r.Org.ID) || t.Claims.Names(s, r.Org.ID) || slices.Contains(r.CustomerIDs(), s.CustomerID) {
		return false
	}
	return !slices.ContainsFunc(t.Subscriptions, func(other Subscription) bool {
		return other.CustomerID == s.CustomerID && r.Records(other.ID)
	})
}

// AmbiguousCustomers returns the customers to look up for [Claims.SharedCustomers]: none where a row or the
// metadata leads to the subscription that governs, for then it makes no difference who else is
// known under a customer. So it makes none where the plan has nothing to change.
func AmbiguousCustomers(t Truth, r Record) []string {
	found := candidates(t, r)
	if len(found) == 0 {
		return nil
	}
	sub, err := governing(found, r)
	if err != nil || r.Records(sub.ID) || t.Claims.Names(sub, r.Org.ID) {
		return nil
	}
	var customers []string
	for _, s := range found {
		if !r.Records(s.ID) && !t.Claims.Names(s, r.Org.ID) {
			customers = append(customers, s.CustomerID)
		}
	}
	return distinct(customers)
}

// RecordedSuffice reports whether the recorded subscriptions alone decide which one governs, so that
// the customer's others need not be read.
func RecordedSuffice(recorded []Subscription) bool {
	return slices.ContainsFunc(recorded, func(s Subscription) bool { return s.Status == StatusActive })
}

// governing picks among candidates; it fails where one of those that compete has a status
// nobody can rank.
func governing(found []Subscription, r Record) (Subscription, error) {
	competing, _ := preferred(found, r)
	for _, s := range competing {
		if !s.Status.Known() {
			return Subscription{}, permanent(ReasonUnknownStatus,
				"subscription %s has status %q, which this version does not know; nothing was written", s.ID, s.Status)
		}
	}
	return slices.MinFunc(competing, comparePrecedence), nil
}

// preferred are the recorded subscriptions that are active or, where no candidate at all is, on trial: who pays
// for more than the trial gets it. Without such a one all compete.
func preferred(found []Subscription, r Record) (competing []Subscription, settled bool) {
	recorded := func(status Status) (all []Subscription) {
		for _, s := range found {
			if s.Status == status && r.Records(s.ID) {
				all = append(all, s)
			}
		}
		return all
	}
	if active := recorded(StatusActive); len(active) > 0 {
		return active, true
	}
	anyActive := slices.ContainsFunc(found, func(s Subscription) bool { return s.Status == StatusActive })
	if trialing := recorded(StatusTrialing); len(trialing) > 0 && !anyActive {
		return trialing, true
	}
	return found, false
}

// Precedes reports whether a, of two that may govern, is to be looked at first. One that cannot be read
// comes last.
func Precedes(a, b Subscription) bool {
	if a.Status.Known() != b.Status.Known() {
		return a.Status.Known()
	}
	return comparePrecedence(a, b) < 0
}

// comparePrecedence: status, then the newest created, then the id.
func comparePrecedence(a, b Subscription) int {
	if d := precedence[a.Status] - precedence[b.Status]; d != 0 {
		return d
	}
	if d := b.Created.Compare(a.Created); d != 0 {
		return d
	}
	return compareIDs(a, b)
}

func compareIDs(a, b Subscription) int { return strings.Compare(a.ID, b.ID) }

func multipleLive(found []Subscription) (Warning, bool) {
	var ids []string
	for _, s := range found {
		if s.Status.Live() {
			ids = append(ids, s.ID)
		}
	}
	if len(ids) < 2 {
		return Warning{}, false
	}
	return Warning{Code: WarnMultipleLive, Message: fmt.Sprintf(
		"the customer pays for %d subscriptions (%s); cancel what is not wanted in Stripe", len(ids), strings.Join(ids, ", "))}, true
}
