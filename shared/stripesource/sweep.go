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

// SweepPage returns the next page of the subscriptions created in a range, including ended ones. A sweep lists all
// subscriptions of the account in this way. If the subscription r.StartingAfter no longer exists, SweepPage returns the
// range's first page, and the caller sees the range's subscriptions again. Unreadable is set for a subscription that
// cannot be decoded, MoreItems for one with more than ten items: the caller must retrieve these subscriptions.
// https://docs.stripe.com/api/subscriptions/list
func (c *Client) SweepPage(ctx context.Context, r billing.Range) (billing.Page, error) {
	filter := url.Values{"status": {"all"}}
	if r.From > 0 {
		filter.Set("created[gte]", strconv.FormatInt(r.From, 10))
	}
	if r.Before > 0 {
		filter.Set("created[lt]", strconv.FormatInt(r.Before, 10))
	}
	subs, more, err := c.page(ctx, filter, r.StartingAfter, c.decodeLeniently)
	if r.StartingAfter != "" && errors.Is(err, errCursorGone) {
		return c.SweepPage(ctx, billing.Range{From: r.From, Before: r.Before})
	}
	if err != nil {
		return billing.Page{}, err
	}
	if more && (len(subs) == 0 || subs[len(subs)-1].ID == r.StartingAfter) {
		return billing.Page{}, unavailable("Stripe's list of subscriptions says has_more=true, but the page has no object to continue after")
	}
	return billing.Page{Subscriptions: subs, More: more}, nil
}

// decodeLeniently decodes at least id, customer and organization of a subscription. If one of these cannot be decoded, it
// returns a permanent error, which fails the sweep: an organization would seem to have no subscription, and a second try
// would read the same.
func (c *Client) decodeLeniently(raw jsontext.Value) (billing.Subscription, error) {
	sub, err := c.decode(raw)
	if err == nil && sub.CustomerID != "" && fitsSnapshot(sub) {
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
		ID: s.ID, Unreadable: true, Created: unixTime(created), CustomerID: string(s.Customer), OrgID: trimOrgID(s.Metadata.OrgID),
	}, nil
}

func usable(id string) bool { return id != "" && within(maxID, id) }

// trimOrgID trims the id of an organization. It returns "" for one that is longer than the snapshot's column, because no
// organization has such an id.
func trimOrgID(orgID string) string {
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

// fitsSnapshot reports whether the columns of the snapshot can hold the subscription.
func fitsSnapshot(s billing.Subscription) bool {
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
