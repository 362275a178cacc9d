package stripesource

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// lenient accepts invalid UTF-8 and duplicate names: people typed parts of Stripe's objects.
var lenient = json.JoinOptions(jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))

// unmarshal decodes in one pass. Names are case-sensitive.
func unmarshal(text jsontext.Value, into any) error { return json.Unmarshal(text, into, lenient) }

type list struct {
	Object   string           `json:"object"`
	HasMore  *bool            `json:"has_more"`
	NextPage string           `json:"next_page"` // of a search
	Data     []jsontext.Value `json:"data"`
}

// subscription has the fields that are read from Stripe's object, at API version 2023-10-16.
// https://docs.stripe.com/api/subscriptions/object
type subscription struct {
	Object             string     `json:"object"`
	ID                 string     `json:"id"`
	Customer           expandable `json:"customer"`
	Status             string     `json:"status"`
	LiveMode           *bool      `json:"livemode"`
	CancelAtPeriodEnd  bool       `json:"cancel_at_period_end"`
	Created            *int64     `json:"created"`
	CurrentPeriodStart *int64     `json:"current_period_start"`
	CurrentPeriodEnd   *int64     `json:"current_period_end"`
	TrialEnd           *int64     `json:"trial_end"`
	CanceledAt         *int64     `json:"canceled_at"`
	EndedAt            *int64     `json:"ended_at"`
	CancelAt           *int64     `json:"cancel_at"`
	PauseCollection    *struct{}  `json:"pause_collection"`
	Items              struct {
		HasMore bool   `json:"has_more"`
		Data    []item `json:"data"`
	} `json:"items"`
	Metadata map[string]string `json:"metadata"`
}

// item is one item of a subscription. Old ones have a plan and no price; if both exist, they have the same id.
// https://docs.stripe.com/api/subscription_items/object
type item struct {
	ID    string `json:"id"`
	Price *struct {
		ID        string     `json:"id"`
		Product   expandable `json:"product"`
		Recurring struct {
			UsageType string `json:"usage_type"`
		} `json:"recurring"`
	} `json:"price"`
	Plan struct {
		ID        string     `json:"id"`
		Product   expandable `json:"product"`
		UsageType string     `json:"usage_type"`
	} `json:"plan"`
}

func (i item) billing() billing.SubscriptionItem {
	if i.Price == nil {
		return billing.SubscriptionItem{PriceID: i.Plan.ID, ProductID: string(i.Plan.Product), Metered: i.Plan.UsageType == metered}
	}
	return billing.SubscriptionItem{PriceID: i.Price.ID, ProductID: string(i.Price.Product), Metered: i.Price.Recurring.UsageType == metered}
}

const metered = "metered"

// expandable is an id, or the object with that id if the request expanded it.
type expandable string

func (e *expandable) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		var o struct {
			ID string `json:"id"`
		}
		err := unmarshal(b, &o)
		if err == nil && o.ID == "" {
			err = errors.New("the object has no id")
		}
		*e = expandable(o.ID)
		return err
	}
	return unmarshal(b, (*string)(e))
}

func (c *Client) decode(raw jsontext.Value) (billing.Subscription, error) {
	var s subscription
	if err := unmarshal(raw, &s); err != nil {
		return billing.Subscription{}, invalid("subscription %q cannot be read: %v", s.ID, err)
	}
	if s.Object != "subscription" || s.ID == "" {
		return billing.Subscription{}, invalid("Stripe answered with a %q with id %q instead of a subscription", s.Object, s.ID)
	}
	if err := c.checkMode(s.LiveMode, "subscription", s.ID); err != nil {
		return billing.Subscription{}, err
	}
	var items []billing.SubscriptionItem
	for _, i := range s.Items.Data {
		items = append(items, i.billing())
	}
	price := ""
	if len(items) > 0 {
		price = items[0].PriceID
	}
	return billing.Subscription{
		ID: s.ID, CustomerID: string(s.Customer), Status: billing.Status(s.Status), PriceID: price,
		OrgID: strings.TrimSpace(s.Metadata["orgId"]), MetadataTier: s.Metadata["tier"],
		Created: unixTime(s.Created), CurrentPeriodStart: unixTime(s.CurrentPeriodStart), CurrentPeriodEnd: unixTime(s.CurrentPeriodEnd),
		TrialEnd: unixTime(s.TrialEnd), CanceledAt: unixTime(s.CanceledAt), EndedAt: unixTime(s.EndedAt),
		CancelAtPeriodEnd: s.CancelAtPeriodEnd, CancelAt: unixTime(s.CancelAt), CollectionPaused: s.PauseCollection != nil,
		Items: items, MoreItems: s.Items.HasMore,
	}, nil
}

func (c *Client) decodeCustomer(raw jsontext.Value) (exists bool, err error) {
	var v struct {
		ID       string `json:"id"`
		Deleted  bool   `json:"deleted"`
		LiveMode *bool  `json:"livemode"`
	}
	if err := unmarshal(raw, &v); err != nil {
		return false, invalid("customer cannot be read: %v", err)
	}
	if v.Deleted {
		return false, nil // a deleted customer has no livemode
	}
	err = c.checkMode(v.LiveMode, "customer", v.ID)
	return err == nil, err
}

func decodeAccount(raw jsontext.Value) (string, error) {
	var v struct {
		ID string `json:"id"`
	}
	if err := unmarshal(raw, &v); err != nil || v.ID == "" {
		return "", unavailable("Stripe's response to GET /v1/account has no account id")
	}
	return v.ID, nil
}

// checkMode refuses an object of the other mode: live and test mode have separate data.
// https://docs.stripe.com/keys#test-live-modes
func (c *Client) checkMode(live *bool, kind, id string) error {
	if live == nil {
		return invalid("%s %q has no livemode", kind, id)
	}
	if *live == c.liveMode {
		return nil
	}
	return &billing.Failure{
		Class: billing.RunFatal, Reason: billing.ReasonWrongMode,
		Message: fmt.Sprintf("%s %q is not of the mode of STRIPE_SECRET_KEY; check the key and STRIPE_API_BASE", kind, id),
	}
}

// farFuture is the last second of the year 9999.
const farFuture = 253402300799

// unixTime converts seconds; null becomes the zero time. It clamps values that time.Time cannot hold, and the one
// that is the zero time, to times that are outside of what the database accepts too.
func unixTime(seconds *int64) time.Time {
	if seconds == nil {
		return time.Time{}
	}
	return time.Unix(min(max(*seconds, -1), farFuture), 0).UTC()
}
