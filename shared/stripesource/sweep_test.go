package stripesource_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

func TestSweepReadsARangeNewestFirstWithEndedSubscriptions(t *testing.T) {
	fake := serve(t, stripetest.Options{})
	for i := range 250 {
		status := "active"
		if i%3 == 0 {
			status = "canceled"
		}
		fake.PutSubscription(stripetest.Subscription{ID: fmt.Sprintf("sub_%03d", i), CustomerID: "cus_1", Status: status, Created: int64(1_700_000_000 + i)})
	}
	client := newClient(fake)
	for name, test := range map[string]struct {
		r            billing.Range
		first, count int
		more         bool
	}{
		"everything":     {billing.Range{}, 249, 100, true},
		"the next page":  {billing.Range{StartingAfter: "sub_150"}, 149, 100, true},
		"the last page":  {billing.Range{StartingAfter: "sub_050"}, 49, 50, false},
		"up to a second": {billing.Range{Before: 1_700_000_030}, 29, 30, false},
		"from a second":  {billing.Range{From: 1_700_000_240}, 249, 10, false},
		"between":        {billing.Range{From: 1_700_000_010, Before: 1_700_000_020}, 19, 10, false},
		"after a cursor": {billing.Range{From: 1_700_000_010, Before: 1_700_000_020, StartingAfter: "sub_015"}, 14, 5, false},
		"nothing":        {billing.Range{From: 1_800_000_000}, 0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			page, err := client.SweepPage(t.Context(), test.r)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for i := range test.count {
				want = append(want, fmt.Sprintf("sub_%03d", test.first-i))
			}
			if diff := cmp.Diff(want, ids(page.Subscriptions)); diff != "" || page.More != test.more {
				t.Errorf("more: %t; %s", page.More, diff)
			}
		})
	}
}

func TestUnreadableSubscriptionDoesNotFailTheSweep(t *testing.T) {
	fake := serve(t, stripetest.Options{})
	put := func(id string, override map[string]any) {
		fake.PutSubscription(stripetest.Subscription{
			ID: id, CustomerID: "cus_" + id, Created: 1_700_000_000, Metadata: map[string]string{"orgId": "org-" + id}, Override: override,
		})
	}
	put("sub_ok", nil)
	put("sub_dates", map[string]any{"current_period_end": "tomorrow"})
	put("sub_metadata", map[string]any{"metadata": map[string]any{"orgId": "org-sub_metadata", "tier": 7}})
	put("sub_mode", map[string]any{"livemode": nil})
	put("sub_price", map[string]any{"items": map[string]any{"data": []any{map[string]any{"price": map[string]any{"id": strings.Repeat("p", 300)}}}}})
	page, err := newClient(fake).SweepPage(t.Context(), billing.Range{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]billing.Subscription{}
	for _, s := range page.Subscriptions {
		got[s.ID] = s
	}
	if s := got["sub_ok"]; s.Unreadable || s.CurrentPeriodEnd.IsZero() {
		t.Errorf("%+v", s)
	}
	for id, known := range map[string]billing.Subscription{
		"sub_dates":    {CustomerID: "cus_sub_dates", OrgID: "org-sub_dates"},
		"sub_metadata": {CustomerID: "cus_sub_metadata", OrgID: "org-sub_metadata"},
		"sub_mode":     {CustomerID: "cus_sub_mode", OrgID: "org-sub_mode"},
		"sub_price":    {CustomerID: "cus_sub_price", OrgID: "org-sub_price"},
	} {
		known.ID, known.Unreadable, known.Created = id, true, time.Unix(1_700_000_000, 0).UTC()
		if diff := cmp.Diff(known, got[id]); diff != "" {
			t.Errorf("%s: %s", id, diff)
		}
	}
}

// The values are as long as Stripe allows, or one character longer.
func TestValueLongerThanItsSnapshotColumnIsUnreadable(t *testing.T) {
	fake := serve(t, stripetest.Options{})
	for _, n := range []int{0, 1} {
		id, metadata := strings.Repeat("ü", 255+n), strings.Repeat("ü", 500+n)
		for name, change := range map[string]func(*stripetest.Subscription){
			"status":  func(s *stripetest.Subscription) { s.Status = id },
			"price":   func(s *stripetest.Subscription) { s.PriceID, s.ProductID = id, "prod_1" },
			"product": func(s *stripetest.Subscription) { s.PriceID, s.ProductID = "price_1", id },
			"second": func(s *stripetest.Subscription) {
				s.Items = []stripetest.Item{{PriceID: "price_1"}, {PriceID: id, ProductID: "prod_1"}}
			},
			"orgId": func(s *stripetest.Subscription) { s.Metadata = map[string]string{"orgId": metadata} },
			"tier":  func(s *stripetest.Subscription) { s.Metadata = map[string]string{"tier": metadata} },
		} {
			s := stripetest.Subscription{ID: fmt.Sprintf("sub_%s_%d", name, n), CustomerID: "cus_1", Created: 1_700_000_000}
			change(&s)
			fake.PutSubscription(s)
		}
	}
	page, err := newClient(fake).SweepPage(t.Context(), billing.Range{})
	if err != nil || len(page.Subscriptions) != 12 {
		t.Fatalf("%d subscriptions, %v", len(page.Subscriptions), err)
	}
	for _, s := range page.Subscriptions {
		if s.Unreadable != strings.HasSuffix(s.ID, "_1") {
			t.Errorf("%s: unreadable %t", s.ID, s.Unreadable)
		}
	}
}

func TestInvalidPageOfTheSweepIsAnError(t *testing.T) {
	good := `{"object":"subscription","id":"sub_1","livemode":false,"customer":"cus_1"}`
	for name, body := range map[string]string{
		"more behind nothing":    `{"object":"list","has_more":true,"data":[]}`,
		"the same page again":    `{"object":"list","has_more":true,"data":[` + good + `]}`,
		"another kind of answer": `{"object":"customer"}`,
	} {
		t.Run(name, func(t *testing.T) {
			fake, url := serveThrough(t, func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte(body))
				return true
			})
			page, err := newClient(fake, withBaseURL(url)).SweepPage(t.Context(), billing.Range{StartingAfter: "sub_1"})
			if f := billing.AsFailure(err); err == nil || f.Class != billing.Unavailable {
				t.Errorf("%+v, %v", page, err)
			}
		})
	}
}

// If the sweep left the subscription out, its organization would seem to have none. Reading again would not help.
func TestSubscriptionWithoutIDCustomerOrReadableMetadataFailsTheSweep(t *testing.T) {
	for name, object := range map[string]string{
		"without id":             `{"object":"subscription","livemode":false}`,
		"no object":              `7`,
		"an endless id":          `{"object":"subscription","id":"` + strings.Repeat("s", 300) + `","customer":"cus_2"}`,
		"without customer":       `{"object":"subscription","id":"sub_2","livemode":false}`,
		"an odd customer":        `{"object":"subscription","id":"sub_2","livemode":false,"customer":7}`,
		"a customer without id":  `{"object":"subscription","id":"sub_2","livemode":false,"customer":{}}`,
		"an endless customer":    `{"object":"subscription","id":"sub_2","livemode":false,"customer":"` + strings.Repeat("c", 300) + `"}`,
		"odd metadata":           `{"object":"subscription","id":"sub_2","livemode":false,"customer":"cus_2","metadata":[]}`,
		"an odd organization id": `{"object":"subscription","id":"sub_2","livemode":false,"customer":"cus_2","metadata":{"orgId":["org-2"]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			fake, url := serveThrough(t, func(w http.ResponseWriter, _ *http.Request) bool {
				return respond(w, http.StatusOK, `{"object":"list","has_more":false,"data":[`+object+`]}`)
			})
			_, err := newClient(fake, withBaseURL(url)).SweepPage(t.Context(), billing.Range{})
			wantFailure(t, err, billing.Permanent, billing.ReasonInvalidSubscription)
		})
	}
}

func TestSubscriptionOfTheOtherModeEndsTheSweep(t *testing.T) {
	fake := serve(t, stripetest.Options{})
	other := true
	fake.PutSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1", LiveMode: &other})
	_, err := newClient(fake).SweepPage(t.Context(), billing.Range{})
	if f := billing.AsFailure(err); f.Class != billing.RunFatal || f.Reason != billing.ReasonWrongMode {
		t.Errorf("got %v", err)
	}
	if _, err := newClient(fake, func(c *stripesource.Config) { c.LiveMode = true }).SweepPage(t.Context(), billing.Range{}); err != nil {
		t.Errorf("with the right mode: %v", err)
	}
}

// Deleting a test clock deletes its subscriptions.
func TestSweepWithVanishedCursorReadsTheRangeFromTheStart(t *testing.T) {
	fake := serve(t, stripetest.Options{})
	putMany(fake, 150)
	client := newClient(fake)
	first, err := client.SweepPage(t.Context(), billing.Range{})
	if err != nil {
		t.Fatal(err)
	}
	rest := billing.Range{}.Rest(first)
	fake.RemoveSubscription(rest.StartingAfter)
	again, err := client.SweepPage(t.Context(), rest)
	if err != nil || len(again.Subscriptions) != 100 || again.Subscriptions[0].ID != first.Subscriptions[0].ID || !again.More {
		t.Errorf("%d subscriptions from %s, %v", len(again.Subscriptions), again.Subscriptions[0].ID, err)
	}
}
