package stripesource

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// EventsPage returns the next page of Stripe's events, which go back 30 days. If the event in q.After has
// expired, it returns the first page again. https://docs.stripe.com/api/events/list
//
// An event that can be read in part only is returned with that part, counted in [EventPage.Unreadable] and logged with its id.
// It is not an error: that event would fail every catch-up until it expires. The next run over all
// organizations finds the organization that it names. Only an event without a usable id is an error, because
// the list cannot be continued after it.
func (c *Client) EventsPage(ctx context.Context, q billing.EventQuery) (billing.EventPage, error) {
	found, err := c.list(ctx, endpointEvents, "/v1/events", "list", eventParams(q))
	if q.StartingAfter != "" && errors.Is(err, errCursorGone) {
		q.StartingAfter = ""
		return c.EventsPage(ctx, q)
	}
	if err != nil {
		return billing.EventPage{}, err
	}
	page := billing.EventPage{More: *found.HasMore}
	for _, raw := range found.Data {
		event, odd, err := c.decodeEvent(raw, q)
		if err != nil {
			return billing.EventPage{}, err
		}
		if len(odd) > 0 {
			page.Unreadable++
			c.log.WarnContext(ctx, "A Stripe event can be read in part only; the next run over all organizations finds the organization that it names",
				telemetry.KeyEvent, event.ID, telemetry.KeyOdd, odd)
		}
		page.Events = append(page.Events, event)
	}
	if n := len(page.Events); page.More && (n == 0 || page.Events[n-1].ID == q.StartingAfter) {
		return billing.EventPage{}, unavailable("Stripe's list of events says has_more=true, but the page has no object to continue after")
	}
	return page, nil
}

func eventParams(q billing.EventQuery) url.Values {
	params := url.Values{"types[]": billing.EventTypes(), "limit": {strconv.Itoa(pageLimit)}}
	if !q.From.IsZero() {
		params.Set("created[gte]", strconv.FormatInt(q.From.Unix(), 10))
	}
	if !q.To.IsZero() {
		params.Set("created[lte]", strconv.FormatInt(q.To.Unix(), 10))
	}
	if q.Undelivered {
		params.Set("delivery_success", "false")
	}
	if q.StartingAfter != "" {
		params.Set("starting_after", q.StartingAfter)
	}
	return params
}

// maxPending is far above the number of webhook endpoints that an account can have.
const maxPending = 1000

// eventObject is an event whose fields are not decoded yet. https://docs.stripe.com/api/events/object
type eventObject struct {
	ID       jsontext.Value `json:"id"`
	Type     jsontext.Value `json:"type"`
	Created  jsontext.Value `json:"created"`
	LiveMode jsontext.Value `json:"livemode"`
	Pending  jsontext.Value `json:"pending_webhooks"`
	Data     jsontext.Value `json:"data"`
}

// decodeEvent decodes each field separately, and returns the names of those that it cannot use.
func (c *Client) decodeEvent(raw jsontext.Value, q billing.EventQuery) (e billing.Event, odd []string, err error) {
	var o eventObject
	if err := unmarshal(raw, &o); err != nil {
		return e, nil, unavailable("an event in Stripe's list cannot be read: %v", err)
	}
	if e.ID = part(o.ID, "id", &odd, usable); e.ID == "" {
		return e, nil, unavailable("an event in Stripe's list has no usable id (%s)", o.ID)
	}
	live := part(o.LiveMode, "livemode", &odd, func(live *bool) bool { return live != nil })
	if live != nil {
		if err := c.checkMode(live, "event", e.ID); err != nil {
			return e, nil, err
		}
	}
	e.Type = part(o.Type, "type", &odd, func(t string) bool { return slices.Contains(billing.EventTypes(), t) })
	e.PendingWebhooks = part(o.Pending, "pending_webhooks", &odd, func(n int) bool { return n >= 0 && n <= maxPending })
	e.Created = q.From // if it cannot be read: then any other event of the organization is later
	if created := part(o.Created, "created", &odd, func(t int64) bool { return t > 0 && t <= farFuture }); created > 0 {
		e.Created = unixTime(&created)
	}
	readObject(o.Data, &odd, &e)
	return e, odd, nil
}

// readObject reads the subscription, customer and organization of an event.
func readObject(data jsontext.Value, odd *[]string, e *billing.Event) {
	type object struct {
		Object   string         `json:"object"`
		ID       jsontext.Value `json:"id"`
		Customer jsontext.Value `json:"customer"`
		Metadata jsontext.Value `json:"metadata"`
	}
	type wrapped struct {
		Object object `json:"object"`
	}
	o := part(data, "data", odd, func(w wrapped) bool { return w.Object.Object == "subscription" }).Object
	if o.Object == "" {
		return // not a subscription
	}
	e.SubscriptionID = part(o.ID, "data.object.id", odd, usable)
	e.CustomerID = string(part(o.Customer, "data.object.customer", odd, func(id expandable) bool { return usable(string(id)) }))
	metadata := part(o.Metadata, "data.object.metadata", odd, func(map[string]jsontext.Value) bool { return true })
	if orgID, ok := metadata["orgId"]; ok {
		e.OrgID = trimOrgID(part(orgID, "data.object.metadata.orgId", odd, func(string) bool { return true }))
	}
}

// part decodes one field. If it cannot be used, it returns the zero value and adds the name to odd.
func part[T any](text jsontext.Value, name string, odd *[]string, usable func(T) bool) (v T) {
	if unmarshal(text, &v) == nil && usable(v) {
		return v
	}
	*odd = append(*odd, name)
	var none T
	return none
}
