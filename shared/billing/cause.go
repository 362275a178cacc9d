package billing

import (
	"fmt"
	"time"
)

// Describe returns the event's type, time and delivery in words. The date is omitted if it is that of on.
func (c Cause) Describe(on time.Time) string {
	kind, at := c.Type, c.Created.UTC()
	if kind == "" {
		kind = "an event"
	}
	layout := "15:04 UTC"
	if at.Format(time.DateOnly) != on.UTC().Format(time.DateOnly) {
		layout = "2006-01-02 " + layout
	}
	return fmt.Sprintf("%s of %s, %s", kind, at.Format(layout), c.Delivery())
}

// Delivery returns the state of the event's webhooks in words.
func (c Cause) Delivery() string {
	switch {
	case c.PendingWebhooks > 1:
		return fmt.Sprintf("still pending at %d endpoints", c.PendingWebhooks)
	case c.Pending():
		return "still pending at an endpoint"
	default:
		return "pending at no endpoint"
	}
}

// MissedWebhooks explains the drift of a number of organizations and its remedy.
type MissedWebhooks struct {
	Organizations   int
	What, Means, Do string
}

// Missed returns the drifted organizations whose webhook was not delivered, then those whose webhook was not handled,
// each only if there are any.
func (d DriftByCause) Missed() []MissedWebhooks {
	all := []MissedWebhooks{
		{
			d.Pending, "webhooks that were not delivered",
			"Some endpoint has not taken the event: it fails, or Stripe has not got to it yet.",
			"In the Stripe dashboard (Developers, Webhooks) see what the endpoint answers, fix it, and send the events again.",
		},
		{
			d.NotPending, "webhooks that were not handled",
			"Each endpoint that is subscribed to the event has taken it, or none is subscribed, and the record is wrong all the same.",
			"First see in the Stripe dashboard whether an endpoint is subscribed to customer.subscription.*, then look for the handler's error in the application's log. " +
				"A handler that answers 200 to the retry of an event that it failed on never sees that event again.",
		},
	}
	var missed []MissedWebhooks
	for _, m := range all {
		if m.Organizations > 0 {
			missed = append(missed, m)
		}
	}
	return missed
}
