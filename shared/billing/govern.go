package billing

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxTimestamp is the last second a MySQL TIMESTAMP holds.
// https://dev.mysql.com/doc/refman/8.0/en/datetime.html
var maxTimestamp = time.Date(2038, time.January, 19, 3, 14, 7, 0, time.UTC)

// candidates are the subscriptions that may govern the organization, each once and by id: the
// recorded ones, those whose metadata names it, and the customer's others unless another
// organization accounts for them (two organizations may share a customer).
func candidates(t Truth, r Record) []Subscription {
	var found []Subscription
	for _, s := range t.Subscriptions {
		if isCandidate(s, t.Claims, r) {
			found = append(found, s)
		}
	}
	slices.SortStableFunc(found, compareIDs)
	return slices.CompactFunc(found, func(a, b Subscription) bool { return a.ID == b.ID })
}

func isCandidate(s Subscription, c Claims, r Record) bool {
	if r.Records(s.ID) || s.Names(r.Org.ID) {
		return true
	}
	return !c.namesOther(s, r.Org.ID) && c.otherOwner(s, r.Org.ID) == ""
}

// Settled reports whether the recorded subscriptions alone decide which one governs, so that
// the customer's others need not be read.
func Settled(recorded []Subscription) bool {
	return slices.ContainsFunc(recorded, func(s Subscription) bool { return s.Status.entitled() })
}

// governing picks among candidates; it fails where one of those that compete has a status
// nobody can rank.
func governing(found []Subscription, r Record) (Subscription, error) {
	competing := found
	if entitled := recordedAndEntitled(found, r); len(entitled) > 0 {
		competing = entitled
	}
	for _, s := range competing {
		if !s.Status.Known() {
			return Subscription{}, permanent(ReasonUnknownStatus,
				"subscription %s has status %q, which this version does not know; nothing was written", s.ID, s.Status)
		}
	}
	return slices.MinFunc(competing, comparePrecedence), nil
}

func recordedAndEntitled(found []Subscription, r Record) []Subscription {
	var entitled []Subscription
	for _, s := range found {
		if s.Status.entitled() && r.Records(s.ID) {
			entitled = append(entitled, s)
		}
	}
	return entitled
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

// validate refuses an object whose values the tables cannot hold or that cannot be Stripe's.
func validate(s Subscription) error {
	bad := func(format string, args ...any) error {
		return permanent(ReasonInvalidSubscription, "subscription %q: %s; nothing was written", s.ID, fmt.Sprintf(format, args...))
	}
	texts := []struct{ name, value string }{
		{"id", s.ID}, {"customer", s.CustomerID}, {"price of the first item", s.PriceID},
	}
	for _, t := range texts {
		if t.value == "" {
			return bad("%s is empty", t.name)
		}
		if len(t.value) > 120 {
			return bad("%s is longer than the column's 120 characters", t.name)
		}
	}
	dates := []struct {
		name     string
		at       time.Time
		required bool
	}{
		{"created", s.Created, true},
		{"current_period_start", s.CurrentPeriodStart, true},
		{"current_period_end", s.CurrentPeriodEnd, true},
		{"trial_end", s.TrialEnd, false},
		{"canceled_at", s.CanceledAt, false},
		{"ended_at", s.EndedAt, false},
	}
	for _, d := range dates {
		if d.at.IsZero() && !d.required {
			continue
		}
		if d.at.IsZero() {
			return bad("%s is missing", d.name)
		}
		if d.at.Unix() <= 0 || d.at.Unix() > maxTimestamp.Unix() {
			return bad("%s %d is outside what a MySQL TIMESTAMP holds (1970-01-01 to 2038-01-19)", d.name, d.at.Unix())
		}
	}
	return nil
}
