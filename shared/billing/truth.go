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

// precedence orders competing subscriptions by status: the lowest value governs.
var precedence = map[Status]int{
	StatusActive: 0, StatusTrialing: 1, StatusPastDue: 2, StatusUnpaid: 3, StatusPaused: 4,
	StatusIncomplete: 5, StatusCanceled: 6, StatusIncompleteExpired: 7,
}

// Known reports whether this version knows the status.
func (s Status) Known() bool {
	_, ok := precedence[s]
	return ok
}

// Live reports whether the customer has access: active, trialing or past_due.
func (s Status) Live() bool {
	return s == StatusActive || s == StatusTrialing || s == StatusPastDue
}

// ended reports whether the subscription ended for good.
func (s Status) ended() bool { return s == StatusCanceled || s == StatusIncompleteExpired }

// grantsNothing reports whether the subscription ended, was never paid, or is suspended.
// https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses
func (s Status) grantsNothing() bool {
	return s.ended() || s == StatusIncomplete || s == StatusPaused
}

// Subscription is the part of a Stripe subscription that this system uses. A zero time means null. The fields with a
// JSON name have no column of their own in a snapshot.
type Subscription struct {
	ID                 string
	CustomerID         string
	Status             Status
	PriceID            string    // of the first item; in a plan of the item that decides the tier; "" without items
	OrgID              string    // metadata.orgId
	MetadataTier       string    // metadata.tier, as written
	Created            time.Time `json:"created"`
	CurrentPeriodStart time.Time `json:"start"`
	CurrentPeriodEnd   time.Time `json:"end"`
	TrialEnd           time.Time `json:"trialEnd"`
	CanceledAt         time.Time `json:"canceled"`
	EndedAt            time.Time `json:"ended"`
	CancelAtPeriodEnd  bool      `json:"cancelAtPeriodEnd"`
	CancelAt           time.Time `json:"cancelAt"`         // may be set together with CancelAtPeriodEnd; https://docs.stripe.com/api/subscriptions/object
	CollectionPaused   bool      `json:"collectionPaused"` // pause_collection is set, which the status does not show
	// Items were read; MoreItems: Stripe has more.
	Items     []SubscriptionItem `json:"items"`
	MoreItems bool               `json:"moreItems"`
	// Unreadable: a value of the object could not be read. Only its id, customer and metadata.orgId are known.
	Unreadable bool `json:"unreadable"`
}

// SubscriptionItem is an item of a subscription.
type SubscriptionItem struct {
	PriceID   string `json:"price"` // of its plan if it has no price
	ProductID string `json:"product"`
	Metered   bool   `json:"metered"` // billed by usage; https://docs.stripe.com/api/prices/object#price_object-recurring-usage_type
}

// Truth is what was read from Stripe for one organization.
type Truth struct {
	// Subscriptions are those that the organization records, those of its customers, and those whose metadata names
	// it, in any order and possibly repeated.
	Subscriptions []Subscription
	// CustomerMissing: the customer does not exist in Stripe or was deleted there.
	CustomerMissing bool
	// OtherMode are the recorded subscriptions and customers that exist only in Stripe's other mode. InKeyMode: another
	// recorded one exists in the key's mode.
	OtherMode []string
	InKeyMode bool
	// ReadAt is when Stripe was read.
	ReadAt time.Time
	// Claims are the claims on Subscriptions.
	Claims Claims
}

// Claims are the organizations that the subscriptions may belong to.
type Claims struct {
	// RecordedBy maps a subscription to the organizations whose rows record it: one, unless the table lacks a unique key
	// or the ids differ in surrounding white space.
	RecordedBy map[string][]string
	// Deleted are the organizations of RecordedBy that are deleted or do not exist.
	Deleted map[string]bool
	// Named maps [Subscription.NamedID] to the organization that it names: see [Named]. Like RecordedBy, it has ids in
	// the database's spelling.
	Named map[string]string
	// SharedCustomers maps a customer to the organizations that have it and are not deleted. Only [AmbiguousCustomers]
	// need to be looked up.
	SharedCustomers map[string][]string
}

// Names reports whether the subscription's metadata names the organization.
func (c Claims) Names(s Subscription, orgID string) bool {
	id := s.NamedID()
	return id != "" && (id == orgID || c.Named[id] == orgID)
}

// namesOther reports whether the metadata names another organization that exists.
func (c Claims) namesOther(s Subscription, orgID string) bool {
	return c.Named[s.NamedID()] != "" && !c.Names(s, orgID)
}

// otherOwner returns another organization whose row records the subscription, "" if there is none: a deleted one only
// if no other does.
func (c Claims) otherOwner(s Subscription, orgID string) string {
	deleted := ""
	for _, owner := range c.RecordedBy[s.ID] {
		switch {
		case owner == orgID:
		case !c.Deleted[owner]:
			return owner
		case deleted == "":
			deleted = owner
		}
	}
	return deleted
}

// checkOwner refuses a subscription that another organization's row records, unless the organization's row and the
// metadata agree that it is this one's: then only the other row is wrong. If the organization's row records it, rows of
// deleted organizations do not count.
func (t Truth) checkOwner(s *Subscription, r Record) error {
	recorded := r.Records(s.ID)
	owner := cmp.Or(r.OtherOwners[s.ID], t.Claims.otherOwner(*s, r.Org.ID))
	switch {
	case owner == "" || recorded && (t.Claims.Deleted[owner] || t.Claims.Names(*s, r.Org.ID)):
		return nil
	case recorded:
		return permanent(ReasonSubscriptionConflict, "subscription %s is recorded by the rows of this organization and of organization %s, and its metadata.orgId does not name this one; "+
			"set it in Stripe to its owner and remove the subscription from the other's row", s.ID, owner)
	case t.Claims.Deleted[owner]:
		return permanent(ReasonSubscriptionConflict,
			"subscription %s governs this organization but is recorded by the row of organization %s, which is deleted; delete that row or set its subscription id to NULL", s.ID, owner)
	default:
		return permanent(ReasonSubscriptionConflict,
			"subscription %s governs this organization but is recorded by the row of organization %s; decide which one owns it and correct metadata.orgId in Stripe or that row", s.ID, owner)
	}
}

// ofOther reports whether the metadata or a row assigns the subscription to another organization.
func (c Claims) ofOther(s Subscription, orgID string) bool {
	return c.namesOther(s, orgID) || c.otherOwner(s, orgID) != ""
}

// sharedWith returns another organization with the subscription's customer if neither a row nor the metadata decides
// which of the two owns it, else "".
func (c Claims) sharedWith(s *Subscription, r Record) string {
	if r.Records(s.ID) || c.Names(*s, r.Org.ID) {
		return ""
	}
	for _, id := range c.SharedCustomers[s.CustomerID] {
		if id != r.Org.ID {
			return id
		}
	}
	return ""
}

// checkMode refuses an organization whose recorded ids are of Stripe's other mode: either the key or the ids are wrong.
// If another recorded id is of the key's mode and there are candidates, an id of the other mode counts as missing.
func (t Truth) checkMode(found []Subscription) error {
	if len(t.OtherMode) == 0 || t.InKeyMode && len(found) > 0 {
		return nil
	}
	return permanent(ReasonOtherMode, "Stripe has %s in its other mode only; nothing was written, correct the database's ids or use a key of the mode that they belong to",
		strings.Join(t.OtherMode, ", "))
}

// MaxOtherMode is how many organizations of a run may have only ids of Stripe's other mode before the key counts as
// wrong.
const MaxOtherMode = 10

// AllOtherMode is the failure of a run in which more than [MaxOtherMode] organizations have ids of Stripe's other mode.
func AllOtherMode() *Failure {
	return &Failure{Class: RunFatal, Reason: ReasonWrongMode, Message: fmt.Sprintf(
		"more than %d organizations have ids of Stripe's other mode and none has one of the key's; use a key of the mode that the database's ids belong to", MaxOtherMode)}
}

// maxTimestamp is the largest MySQL TIMESTAMP.
// https://dev.mysql.com/doc/refman/8.0/en/datetime.html
var maxTimestamp = time.Date(2038, time.January, 19, 3, 14, 7, 0, time.UTC)

// validate refuses a subscription with values that the tables cannot store or Stripe cannot have.
func validate(s *Subscription) error {
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
	if problem := timeProblem(timeOrNull(s.Created), false); problem != "" {
		return bad("created %s", problem)
	}
	for i := range columns {
		c := &columns[i]
		if c.Kind != KindTime {
			continue
		}
		if problem := timeProblem(c.want(s, ""), c.Null); problem != "" {
			return bad("%s %s", c.Name(), problem)
		}
	}
	return nil
}

func timeProblem(v value, mayBeNull bool) string {
	switch {
	case v.kind == 0 && mayBeNull:
		return ""
	case v.kind == 0:
		return "is missing"
	case v.number <= 0 || v.number > maxTimestamp.Unix():
		return fmt.Sprintf("%d is outside what a MySQL TIMESTAMP holds (1970-01-01 to 2038-01-19)", v.number)
	default:
		return ""
	}
}
