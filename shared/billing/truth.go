package billing

import (
	"cmp"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Status is a subscription's status as Stripe names it.
// https://docs.stripe.com/api/subscriptions/object#subscription_object-status
type Status string

const (
	StatusActive            Status = "active"
	StatusTrialing          Status = "trialing"
	StatusPastDue           Status = "past_due"
	StatusUnpaid            Status = "unpaid"
	StatusPaused            Status = "paused"
	StatusIncomplete        Status = "incomplete"
	StatusCanceled          Status = "canceled"
	StatusIncompleteExpired Status = "incomplete_expired"
)

// precedence orders the statuses when several subscriptions compete: the lower governs.
var precedence = map[Status]int{
	StatusActive: 0, StatusTrialing: 1, StatusPastDue: 2, StatusUnpaid: 3, StatusPaused: 4,
	StatusIncomplete: 5, StatusCanceled: 6, StatusIncompleteExpired: 7,
}

// Known reports whether Stripe's documentation listed the status when this was written.
func (s Status) Known() bool {
	_, ok := precedence[s]
	return ok
}

// Live reports whether the customer has access: active, trialing or past_due.
func (s Status) Live() bool {
	return s == StatusActive || s == StatusTrialing || s == StatusPastDue
}

// ended: for good.
func (s Status) ended() bool { return s == StatusCanceled || s == StatusIncompleteExpired }

// grantsNothing: it has ended, its first payment was never made, or Stripe suspends the service.
// https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses
func (s Status) grantsNothing() bool {
	return s.ended() || s == StatusIncomplete || s == StatusPaused
}

// Subscription is what matters of a Stripe subscription. A zero time means Stripe sent null. A snapshot
// has columns for most of it, and keeps the rest under these names.
type Subscription struct {
	ID                 string
	CustomerID         string
	Status             Status
	PriceID            string    // of the first item, in a plan of the one that decides the tier; empty where there is none
	OrgID              string    // metadata.orgId
	MetadataTier       string    // metadata.tier, as written
	Created            time.Time `json:"created"`
	CurrentPeriodStart time.Time `json:"start"`
	CurrentPeriodEnd   time.Time `json:"end"`
	TrialEnd           time.Time `json:"trialEnd"`
	CanceledAt         time.Time `json:"canceled"`
	EndedAt            time.Time `json:"ended"`
	CancelAtPeriodEnd  bool      `json:"cancelAtPeriodEnd"`
	CancelAt           time.Time `json:"cancelAt"`         // set beside CancelAtPeriodEnd too; https://docs.stripe.com/api/subscriptions/object
	CollectionPaused   bool      `json:"collectionPaused"` // pause_collection is set; the status does not change by it
	// Items are all that are known of it. MoreItems: Stripe has others, which were not read.
	Items     []SubscriptionItem `json:"items"`
	MoreItems bool               `json:"moreItems"`
	// Unreadable: the object has a value that cannot be read. In a list it must not hide the
	// others, so only its id and whose it may be are known.
	Unreadable bool `json:"unreadable"`
}

// SubscriptionItem is one of the prices that a subscription consists of.
type SubscriptionItem struct {
	PriceID   string `json:"price"` // of its plan, where it has no price
	ProductID string `json:"product"`
	Metered   bool   `json:"metered"` // it is paid by use: https://docs.stripe.com/api/prices/object#price_object-recurring-usage_type
}

// Truth is what Stripe holds for one organization, as far as it was asked.
type Truth struct {
	// Subscriptions seen: the recorded ones, the customer's, those whose metadata names the
	// organization. Order and repetition do not matter.
	Subscriptions []Subscription
	// CustomerMissing: the customer does not exist in Stripe or was deleted there.
	CustomerMissing bool
	// OtherMode are the recorded ids, of subscriptions and customers, that exist in Stripe's other mode only. InKeyMode:
	// another recorded one exists in the key's.
	OtherMode []string
	InKeyMode bool
	// ReadAt is when Stripe was read.
	ReadAt time.Time
	// Claims on Subscriptions, other organizations' above all.
	Claims Claims
}

// Claims says which organizations account for the subscriptions seen.
type Claims struct {
	// RecordedBy maps a subscription id to the organizations whose rows record it: one, unless the table lacks a unique
	// key or ids have white space around them.
	RecordedBy map[string][]string
	// Deleted are the organizations of RecordedBy that are deleted or do not exist.
	Deleted map[string]bool
	// Named maps what metadata says, [Subscription.NamedID], to the organization in the database
	// that it names: see [Named]. As in RecordedBy, it is the organization's own spelling of its id.
	Named map[string]string
	// SharedCustomers maps a customer to the organizations that are known under it, those that are
	// deleted left out. Only the customers of [AmbiguousCustomers] need to be looked up.
	SharedCustomers map[string][]string
}

// Names reports whether the metadata gives the subscription to the organization.
func (c Claims) Names(s Subscription, orgID string) bool {
	id := s.NamedID()
	return id != "" && (id == orgID || c.Named[id] == orgID)
}

// namesOther: the metadata hands the subscription to another organization that exists.
func (c Claims) namesOther(s Subscription, orgID string) bool {
	return c.Named[s.NamedID()] != "" && !c.Names(s, orgID)
}

// otherOwner is another organization whose row records the subscription, with living one that is not deleted; "" if
// there is none.
func (c Claims) otherOwner(s Subscription, orgID string, living bool) string {
	for _, owner := range c.RecordedBy[s.ID] {
		if owner != orgID && !(living && c.Deleted[owner]) {
			return owner
		}
	}
	return ""
}

// disputed refuses a subscription that another organization's row records, unless the organization's own row and the
// metadata both say that it is this one's: then only the other row is wrong. Against its own row a deleted
// organization's does not count.
func (t Truth) disputed(s Subscription, r Record) error {
	recorded := r.Records(s.ID)
	owner := cmp.Or(r.OtherOwners[s.ID], t.Claims.otherOwner(s, r.Org.ID))
	switch {
	case owner == "" || recorded && t.Claims.Names(s, r.Org.ID):
		return nil
	case recorded:
		return permanent(ReasonSubscriptionConflict, "subscription %s stands on the row of this organization and on that of organization %s, and its metadata.orgId does not say that it is this one's; "+
			"set it in Stripe to whose it is and take the subscription off the other's row", s.ID, owner)
	case t.Claims.Deleted[owner]:
		return permanent(ReasonSubscriptionConflict,
			"subscription %s governs this organization but stands on the row of organization %s, which is deleted; delete that row or set its subscription id to NULL", s.ID, owner)
	default:
		return permanent(ReasonSubscriptionConflict,
			"subscription %s governs this organization but stands on the row of organization %s; decide whose it is and correct metadata.orgId in Stripe or that row", s.ID, owner)
	}
}

// ofOther: the metadata or a row gives the subscription to another organization.
func (c Claims) ofOther(s Subscription, orgID string) bool {
	return c.namesOther(s, orgID) || c.otherOwner(s, orgID, false) != ""
}

// sharedWith is the other organization that the subscription may belong to as well: no row and no
// metadata tells whose it is, and both are known under its customer. "" if there is none.
func (c Claims) sharedWith(s Subscription, r Record) string {
	if r.Records(s.ID) || c.Names(s, r.Org.ID) {
		return ""
	}
	for _, id := range c.SharedCustomers[s.CustomerID] {
		if id != r.Org.ID {
			return id
		}
	}
	return ""
}

// wrongMode refuses an organization whose recorded ids are of Stripe's other mode: it is the key, or all of them, that
// is wrong. One beside others that are right counts as missing, unless nothing else governs: then access would end
// because of it.
func (t Truth) wrongMode(found []Subscription) error {
	if len(t.OtherMode) == 0 || t.InKeyMode && len(found) > 0 {
		return nil
	}
	return permanent(ReasonOtherMode, "Stripe has %s in its other mode only; nothing was written, correct the database's ids or use a key of the mode that they belong to",
		strings.Join(t.OtherMode, ", "))
}

// maxTimestamp is the last second a MySQL TIMESTAMP holds.
// https://dev.mysql.com/doc/refman/8.0/en/datetime.html
var maxTimestamp = time.Date(2038, time.January, 19, 3, 14, 7, 0, time.UTC)

// validate refuses an object whose values the tables cannot hold or that cannot be Stripe's.
func validate(s Subscription) error {
	bad := func(format string, args ...any) error {
		return permanent(ReasonInvalidSubscription, "subscription %q: %s; nothing was written", s.ID, fmt.Sprintf(format, args...))
	}
	texts := []struct{ name, value string }{
		{"id", s.ID}, {"customer", s.CustomerID}, {"price", s.PriceID},
	}
	for _, t := range texts {
		if t.value == "" && (t.name != "price" || !s.Status.ended()) {
			return bad("%s is empty", t.name)
		}
		if utf8.RuneCountInString(t.value) > MaxIDLength {
			return bad("%s is longer than the column's %d characters", t.name, MaxIDLength)
		}
	}
	if wrong := wrongTime(timeOrNull(s.Created), false); wrong != "" {
		return bad("created %s", wrong)
	}
	for i := range columns {
		c := &columns[i]
		if c.Kind != KindTime {
			continue
		}
		if wrong := wrongTime(c.want(&s, ""), c.Null); wrong != "" {
			return bad("%s %s", c.Name(), wrong)
		}
	}
	return nil
}

func wrongTime(v value, mayBeNull bool) string {
	switch {
	case v.kind == "" && mayBeNull:
		return ""
	case v.kind == "":
		return "is missing"
	case v.number <= 0 || v.number > maxTimestamp.Unix():
		return fmt.Sprintf("%d is outside what a MySQL TIMESTAMP holds (1970-01-01 to 2038-01-19)", v.number)
	default:
		return ""
	}
}
