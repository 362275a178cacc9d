package stripesource

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// SweepPage returns the next page of the subscriptions created in a range, ended ones too. If the cursor
// no longer exists, it returns the first page again. A subscription that cannot be read has Unreadable set,
// and one with more than ten items MoreItems: the caller retrieves both.
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
		return c.SweepPage(ctx, billing.Range{From: r.From, Before: r.Before})
	}
	if err != nil {
		return billing.Page{}, err
	}
	if more && (len(subs) == 0 || subs[len(subs)-1].ID == r.After) {
		return billing.Page{}, unavailable("Stripe's list of subscriptions has has_more=true but no next object")
	}
	return billing.Page{Subscriptions: subs, More: more}, nil
}

// decodeLeniently reads what it can of a subscription. Its id, customer and organization must be readable:
// without them an organization would seem to have no subscription. Otherwise the sweep fails; reading the
// list again would not help.
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
		Customer expandable     `json:"customer"`
		Metadata struct {
			OrgID string `json:"orgId"`
		} `json:"metadata"`
	}
	if err := unmarshal(raw, &s); err != nil {
		return billing.Subscription{}, invalid("subscription %q in Stripe's list cannot be read: %v", s.ID, err)
	}
	if !usable(s.ID) || !usable(string(s.Customer)) {
		return billing.Subscription{}, invalid("subscription %q in Stripe's list has no usable id or customer (%q)", s.ID, s.Customer)
	}
	var created *int64
	if unmarshal(s.Created, &created) != nil {
		created = nil
	}
	return billing.Subscription{
		ID: s.ID, Unreadable: true, Created: at(created), CustomerID: string(s.Customer), OrgID: organization(s.Metadata.OrgID),
	}, nil
}

func usable(id string) bool { return id != "" && within(maxID, id) }

// organization trims the id. One that is too long for the snapshot is not an organization's: it returns "".
func organization(orgID string) string {
	if !within(maxMetadata, orgID) {
		return ""
	}
	return strings.TrimSpace(orgID)
}

// Stripe's own limits: ids have at most 255 characters, metadata values 500.
// https://docs.stripe.com/upgrades#what-changes-does-stripe-consider-to-be-backward-compatible
// https://docs.stripe.com/api/metadata
const (
	maxID       = 255
	maxMetadata = 500
)

// fits reports whether the columns of the snapshot can hold the subscription.
func fits(s billing.Subscription) bool {
	for _, id := range []string{s.ID, s.CustomerID, string(s.Status)} {
		if !within(maxID, id) {
			return false
		}
	}
	for _, i := range s.Items {
		if !within(maxID, i.PriceID) || !within(maxID, i.ProductID) {
			return false
		}
	}
	return within(maxMetadata, s.OrgID) && within(maxMetadata, s.MetadataTier)
}

func within(characters int, s string) bool { return utf8.RuneCountInString(s) <= characters }
