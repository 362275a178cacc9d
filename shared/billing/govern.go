package billing

import (
	"fmt"
	"slices"
	"strings"
)

// candidates returns the subscriptions that may govern the organization, by id and each once: those that it records,
// those whose metadata names it, and the others of its customers. Two organizations may share a customer, so these
// others exclude subscriptions of another organization, and ambiguous ones that grant nothing.
func candidates(t Truth, r Record) []Subscription {
	found := make([]Subscription, 0, len(t.Subscriptions))
	for i := range t.Subscriptions {
		if s := &t.Subscriptions[i]; t.isCandidate(s, r) {
			found = append(found, *s)
		}
	}
	slices.SortStableFunc(found, compareIDs)
	return slices.CompactFunc(found, func(a, b Subscription) bool { return a.ID == b.ID })
}

func (t Truth) isCandidate(s *Subscription, r Record) bool {
	if r.Records(s.ID) || t.Claims.Names(*s, r.Org.ID) {
		return true
	}
	return !t.isUnrelated(*s, r) && !t.Claims.ofOther(*s, r.Org.ID) && (t.Claims.sharedWith(s, r) == "" || !s.Status.grantsNothing())
}

// isUnrelated reports whether the subscription was read only because its metadata resembles the organization's id:
// neither the metadata nor the customer belongs to the organization.
func (t Truth) isUnrelated(s Subscription, r Record) bool {
	if !s.MayName(r.Org.ID) || t.Claims.Names(s, r.Org.ID) || slices.Contains(r.CustomerIDs(), s.CustomerID) {
		return false
	}
	return !slices.ContainsFunc(t.Subscriptions, func(other Subscription) bool {
		return other.CustomerID == s.CustomerID && r.Records(other.ID)
	})
}

// AmbiguousCustomers returns the customers to look up for [Claims.SharedCustomers]. There are none if the organization's
// row or the metadata leads to the governing subscription: who else has the customer then changes nothing.
func AmbiguousCustomers(t Truth, r Record) []string {
	found := candidates(t, r)
	if len(found) == 0 {
		return nil
	}
	sub, err := governing(found, r)
	if err != nil || r.Records(sub.ID) || t.Claims.Names(*sub, r.Org.ID) {
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

// RecordedSuffice reports whether the recorded subscriptions alone decide which one governs, so that the customers'
// subscriptions need not be read.
func RecordedSuffice(recorded []Subscription) bool {
	return slices.ContainsFunc(recorded, func(s Subscription) bool { return s.Status == StatusActive })
}

// ExpectRecordedSuffice reports what RecordedSuffice returns if Stripe agrees with the rows.
func (r Record) ExpectRecordedSuffice() bool {
	return slices.ContainsFunc(r.Rows, func(row Row) bool { return row.Status == string(StatusActive) })
}

// governing returns the candidate that governs. It fails where a competing one has a status without a rank.
func governing(found []Subscription, r Record) (*Subscription, error) {
	preferred := preferredStatus(found, r)
	var best *Subscription
	for i := range found {
		s := &found[i]
		switch {
		case !s.competes(preferred, r):
		case !s.Status.Known():
			return nil, permanent(ReasonUnknownStatus,
				"subscription %s has status %q, which this version does not know; nothing was written", s.ID, s.Status)
		case best == nil || comparePrecedence(*s, *best) < 0:
			best = s
		}
	}
	return best, nil
}

// preferredStatus is active if a recorded candidate is, else trialing if a recorded candidate is and no candidate is
// active: a paid subscription beats a trial. "" means that all candidates compete.
func preferredStatus(found []Subscription, r Record) Status {
	active, recordedTrial := false, false
	for i := range found {
		s := &found[i]
		recorded := r.Records(s.ID)
		if s.Status == StatusActive && recorded {
			return StatusActive
		}
		active = active || s.Status == StatusActive
		recordedTrial = recordedTrial || s.Status == StatusTrialing && recorded
	}
	if recordedTrial && !active {
		return StatusTrialing
	}
	return ""
}

// competes reports whether the candidate competes, given the preferred status.
func (s *Subscription) competes(preferred Status, r Record) bool {
	return preferred == "" || s.Status == preferred && r.Records(s.ID)
}

// Precedes reports whether a governs rather than b. Unknown statuses come last.
func Precedes(a, b Subscription) bool {
	if a.Status.Known() != b.Status.Known() {
		return a.Status.Known()
	}
	return comparePrecedence(a, b) < 0
}

// comparePrecedence orders by status, then descending creation time, then id.
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
