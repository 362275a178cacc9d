package billing

import "time"

// EventTypes returns the types of events that follow a subscription's change. trial_will_end precedes one by three
// days. https://docs.stripe.com/api/events/types
func EventTypes() []string {
	return []string{
		"customer.subscription.created", "customer.subscription.updated", "customer.subscription.deleted",
		"customer.subscription.paused", "customer.subscription.resumed",
		"customer.subscription.pending_update_applied", "customer.subscription.pending_update_expired",
	}
}

// EventRetention is how far back Stripe lists events. https://docs.stripe.com/api/events/list
const EventRetention = 30 * 24 * time.Hour

// Event is an entry of Stripe's event log about a subscription, without the subscription's state.
type Event struct {
	ID      string
	Type    string    // one of [EventTypes]; "" if unreadable
	Created time.Time // the start of the query if unreadable
	// What the event names; each is "" if missing or unreadable.
	SubscriptionID, CustomerID string
	OrgID                      string // metadata.orgId, trimmed
	// PendingWebhooks counts the endpoints that have not accepted the event.
	PendingWebhooks int
}

// NamesNothing reports whether the event leads to no organization.
func (e Event) NamesNothing() bool {
	return e.SubscriptionID == "" && e.CustomerID == "" && e.OrgID == ""
}

// EventQuery selects events of [EventTypes] from Stripe's log.
type EventQuery struct {
	From, To      time.Time // to the second, both included; zero means unlimited
	Undelivered   bool      // only events that an endpoint has not accepted
	StartingAfter string    // the last event read; "" before the first page
}

// EventPage is one page of an [EventQuery].
type EventPage struct {
	Events []Event // newest first
	// Unreadable counts the events that could not be fully read.
	Unreadable int
	More       bool // there is another page
}
