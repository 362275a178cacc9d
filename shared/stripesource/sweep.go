package stripesource

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// SweepPage returns the next page of a range of all subscriptions, ended ones too. One that
// cannot be read is returned as such, so that it does not hide the others.
// https://docs.stripe.com/api/subscriptions/list
func (c *Client) SweepPage(ctx context.Context, r billing.Range) (billing.Page, error) {
	filter := url.Values{"status": {"all"}}
	if r.From > 0 {
		filter.Set("created[gte]", strconv.FormatInt(r.From, 10))
	}
	if r.Before > 0 {
		filter.Set("created[lt]", strconv.FormatInt(r.Before, 10))
	}
	subs, more, err := c.page(ctx, filter, r.After, c.decodeLeniently)
	if r.After != "" && errors.Is(err, errCursorGone) {
		return c.SweepPage(ctx, billing.Range{From: r.From, Before: r.Before}) // read again from its start
	}
	if err != nil {
		return billing.Page{}, err
	}
	if more && (len(subs) == 0 || subs[len(subs)-1].ID == r.After) {
		return billing.Page{}, broken("Stripe's list of subscriptions promises more but gives none")
	}
	return billing.Page{Subscriptions: subs, More: more}, nil
}

// decodeLeniently reads what it can of a subscription: its id must be there, and its customer, or
// an organization known by that alone would seem to have none. Where nothing else is usable the
// rest is left to whoever reads it singly.
func (c *Client) decodeLeniently(raw jsontext.Value) (billing.Subscription, error) {
	sub, err := c.decode(raw)
	if err == nil && sub.CustomerID != "" && fits(sub) {
		return sub, nil
	}
	if f, ok := errors.AsType[*billing.Failure](err); ok && f.Class != billing.Permanent {
		return sub, err
	}
	var s struct {
		ID       string         `json:"id"`
		Created  jsontext.Value `json:"created"`
		Customer jsontext.Value `json:"customer"`
		Metadata jsontext.Value `json:"metadata"`
	}
	if jsonErr := unmarshal(raw, &s); jsonErr != nil || shortOrNone(s.ID) == "" {
		return sub, broken("a subscription in Stripe's list has no usable id")
	}
	customer := shortOrNone(string(orNone[expandable](s.Customer)))
	if customer == "" {
		return sub, broken("subscription %q in Stripe's list has no usable customer", s.ID)
	}
	return billing.Subscription{
		ID: s.ID, Unreadable: true, Created: at(orNone[*int64](s.Created)),
		CustomerID: customer, OrgID: shortOrNone(orNone[map[string]string](s.Metadata)["orgId"]),
	}, nil
}

// orNone is the value, or the zero one where it is of another kind.
func orNone[T any](raw jsontext.Value) T {
	var v, none T
	if unmarshal(raw, &v) != nil {
		return none
	}
	return v
}

// Stripe's own limits: ids have at most 255 characters, metadata values 500.
// https://docs.stripe.com/upgrades#what-changes-does-stripe-consider-to-be-backward-compatible
// https://docs.stripe.com/api/metadata
const (
	maxID       = 255
	maxMetadata = 500
)

// fits: a snapshot has room for it.
func fits(s billing.Subscription) bool {
	for _, id := range []string{s.ID, s.CustomerID, s.PriceID, string(s.Status)} {
		if !within(maxID, id) {
			return false
		}
	}
	return within(maxMetadata, s.OrgID) && within(maxMetadata, s.MetadataTier)
}

func within(characters int, s string) bool { return utf8.RuneCountInString(s) <= characters }

func shortOrNone(s string) string {
	if !within(maxID, s) {
		return ""
	}
	return s
}
