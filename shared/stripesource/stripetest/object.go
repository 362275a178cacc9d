package stripetest

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A Subscription has the fields that the fake serves. Times are in seconds since 1970; 0 is served as null.
type Subscription struct {
	ID                 string
	CustomerID         string
	Status             string // default "active"
	PriceID            string // price of the only item; "" is served as null
	ProductID          string // product of that price; default as in Item
	Items              []Item // replaces PriceID and ProductID; empty but not nil means no items
	Metadata           map[string]string
	Created            int64 // default now
	CurrentPeriodStart int64 // default Created
	CurrentPeriodEnd   int64 // default 30 days after CurrentPeriodStart
	TrialStart         int64
	TrialEnd           int64
	CanceledAt         int64
	EndedAt            int64
	CancelAtPeriodEnd  bool
	CancelAt           int64 // default CurrentPeriodEnd if CancelAtPeriodEnd is set
	CollectionPaused   bool  // pause_collection is set
	LiveMode           *bool // the value of "livemode"; nil means the server's mode

	Override map[string]any  // replaces top-level fields of the served object
	Raw      json.RawMessage // is served unchanged instead of the object
}

// An Item is one line of a subscription.
type Item struct {
	ID        string // default "si_" and the rest of the subscription's id
	PriceID   string // "" is served as a null price
	ProductID string // of the price; default "prod_" and the rest of the price's id
	Metered   bool   // paid by use
	PlanOnly  bool   // the price is null, the plan has the id
}

// A Customer has the fields that the fake serves.
type Customer struct {
	ID       string
	Email    string
	Name     string
	Metadata map[string]string
	Created  int64 // default now
	LiveMode *bool // what "livemode" says; nil: the server's mode
	Deleted  bool

	Override map[string]any // laid over the top level of the served object
}

const (
	statusActive            = "active"
	statusCanceled          = "canceled"
	statusIncompleteExpired = "incomplete_expired"

	embeddedItems = 10 // a subscription's own list of items has no more

	defaultPeriod = 30 * 24 * 60 * 60 // seconds
)

func (s Subscription) withDefaults(now int64) Subscription {
	if s.Status == "" {
		s.Status = statusActive
	}
	if s.Created == 0 {
		s.Created = now
	}
	if s.CurrentPeriodStart == 0 {
		s.CurrentPeriodStart = s.Created
	}
	if s.CurrentPeriodEnd == 0 {
		s.CurrentPeriodEnd = s.CurrentPeriodStart + defaultPeriod
	}
	return s
}

// clone returns a copy that shares nothing a caller could change.
func (s Subscription) clone() Subscription {
	s.Items = slices.Clone(s.Items)
	s.Metadata = maps.Clone(s.Metadata)
	s.Override = maps.Clone(s.Override)
	s.Raw = slices.Clone(s.Raw)
	return s
}

func (c Customer) clone() Customer {
	c.Metadata = maps.Clone(c.Metadata)
	c.Override = maps.Clone(c.Override)
	return c
}

func (s *Subscription) ended() bool {
	return s.Status == statusCanceled || s.Status == statusIncompleteExpired
}

// cancel changes the subscription as the deletion of its customer does.
func (s *Subscription) cancel(now int64) {
	if s.ended() {
		return
	}
	s.Status, s.EndedAt = statusCanceled, now
	if s.CanceledAt == 0 {
		s.CanceledAt = now
	}
}

// appendJSON appends the object as Stripe sends it.
func (s *Subscription) appendJSON(b []byte, live bool) []byte {
	if s.Raw != nil {
		return append(b, s.Raw...)
	}
	return appendOverridden(b, s.Override, func(b []byte) []byte {
		return s.appendObject(b, mode(s.LiveMode, live))
	})
}

func (s *Subscription) appendObject(b []byte, live bool) []byte {
	items := s.items(live)
	cancelAt := s.CancelAt
	if s.CancelAtPeriodEnd && cancelAt == 0 {
		cancelAt = s.CurrentPeriodEnd
	}
	var reason string
	if cancelAt != 0 || s.CanceledAt != 0 {
		reason = "cancellation_requested"
	}
	return subscriptionTemplate.append(b, fields{
		{"id", s.ID},
		{"cancel_at", unix(cancelAt)},
		{"cancel_at_period_end", s.CancelAtPeriodEnd},
		{"cancel_reason", nullable(reason)},
		{"canceled_at", unix(s.CanceledAt)},
		{"created", unix(s.Created)},
		{"current_period_end", unix(s.CurrentPeriodEnd)},
		{"current_period_start", unix(s.CurrentPeriodStart)},
		{"customer", s.CustomerID},
		{"ended_at", unix(s.EndedAt)},
		{"items", items[:min(len(items), embeddedItems)]},
		{"item_count", len(items)},
		{"more_items", len(items) > embeddedItems},
		{"items_url", "/v1/subscription_items?subscription=" + s.ID},
		{"livemode", live},
		{"metadata", s.Metadata},
		{"pause_collection", objectOrNull(s.CollectionPaused, pauseTemplate, nil)},
		{"status", s.Status},
		{"trial_end", unix(s.TrialEnd)},
		{"trial_start", unix(s.TrialStart)},
	})
}

func (s *Subscription) items(live bool) []object {
	items := s.Items
	if items == nil {
		items = []Item{{PriceID: s.PriceID, ProductID: s.ProductID}}
	}
	objects := make([]object, len(items))
	for i, item := range items {
		if item.ID == "" {
			item.ID = "si_" + afterUnderscore(s.ID)
			if i > 0 {
				item.ID += strconv.Itoa(i)
			}
		}
		if item.ProductID == "" {
			item.ProductID = "prod_" + afterUnderscore(item.PriceID)
		}
		usage := "licensed"
		if item.Metered {
			usage = "metered"
		}
		price := fields{
			{"id", item.PriceID},
			{"product", item.ProductID},
			{"livemode", live},
			{"usage_type", usage},
		}
		objects[i] = object{itemTemplate, fields{
			{"id", item.ID},
			{"created", unix(s.Created)},
			{"subscription", s.ID},
			{"price", objectOrNull(item.PriceID != "" && !item.PlanOnly, priceTemplate, price)},
			{"plan", objectOrNull(item.PriceID != "", planTemplate, price)},
		}}
	}
	return objects
}

func (c *Customer) appendJSON(b []byte, live bool) []byte {
	t := customerTemplate
	if c.Deleted {
		t = deletedCustomerTemplate
	}
	return appendOverridden(b, c.Override, func(b []byte) []byte {
		return t.append(b, fields{
			{"id", c.ID},
			{"created", unix(c.Created)},
			{"email", nullable(c.Email)},
			{"livemode", mode(c.LiveMode, live)},
			{"metadata", c.Metadata},
			{"name", nullable(c.Name)},
		})
	})
}

func appendAccount(b []byte, id string) []byte {
	return accountTemplate.append(b, fields{
		{"id", id},
		{"external_accounts_url", "/v1/accounts/" + id + "/external_accounts"},
	})
}

func mode(override *bool, live bool) bool {
	if override != nil {
		return *override
	}
	return live
}

// afterUnderscore returns "x" of "sub_x".
func afterUnderscore(id string) string {
	if _, rest, ok := strings.Cut(id, "_"); ok {
		return rest
	}
	return id
}
