package billing

import "time"

// EventTypes are the events that say that a subscription may have changed. trial_will_end is none of
// them: it comes three days ahead of a change. https://docs.stripe.com/api/events/types
func EventTypes() []string {
	return []string{
		"customer.subscription.created", "customer.subscription.updated", "customer.subscription.deleted",
		"customer.subscription.paused", "customer.subscription.resumed",
		"customer.subscription.pending_update_applied", "customer.subscription.pending_update_expired",
	}
}

// EventRetention is how far back Stripe lists events. https://docs.stripe.com/api/events/list
const EventRetention = 30 * 24 * time.Hour

// Event is what Stripe's log of events tells of one change of a subscription: whom it may concern, and
// whether the webhook was taken. What the subscription is now it does not tell.
type Event struct {
	ID      string
	Type    string    // one of [EventTypes]; "" if it could not be read
	Created time.Time // the beginning of what was asked for, if it could not be read
	// Who is named, each "" where the event does not name it, or could not be read.
	SubscriptionID, CustomerID string
	OrgID                      string // metadata.orgId, trimmed
	// PendingWebhooks is how many endpoints have not taken the event: they were not asked yet, or failed.
	PendingWebhooks int
}

// NamesNothing reports whether the event leads to no organization.
func (e Event) NamesNothing() bool {
	return e.SubscriptionID == "" && e.CustomerID == "" && e.OrgID == ""
}

// EventQuery is a part of Stripe's log of events, of those of [EventTypes]. Stripe lists the newest first.
type EventQuery struct {
	From, To    time.Time // to the second, both included; the zero time has no end
	Undelivered bool      // only those that some endpoint has not taken
	After       string    // the last event read; "" before the first page
}

// EventPage is one page of a part of the log.
type EventPage struct {
	Events []Event // newest first
	// Unreadable counts those of the events that could not be read in full.
	Unreadable int
	More       bool // there are more after the last one
}
