package stripesource_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// putItems adds sub_1 with n items.
func putItems(s *stripetest.Server, n int) (items []billing.SubscriptionItem) {
	sub := stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1", Created: 1_700_000_000, Items: []stripetest.Item{}}
	for i := range n {
		price := fmt.Sprintf("price_%d", i)
		sub.Items = append(sub.Items, stripetest.Item{PriceID: price, Metered: i%2 == 1})
		items = append(items, billing.SubscriptionItem{PriceID: price, ProductID: strings.Replace(price, "price", "prod", 1), Metered: i%2 == 1})
	}
	s.PutSubscription(sub)
	return items
}

func TestEachItemIsReadByItsPriceOrPlan(t *testing.T) {
	type m = map[string]any
	price := func(fields m) m { return m{"price": fields} }
	for name, test := range map[string]struct {
		item m
		want billing.SubscriptionItem
	}{
		"price":                {price(m{"id": "price_1", "product": "prod_1", "recurring": m{"usage_type": "licensed"}}), billing.SubscriptionItem{PriceID: "price_1", ProductID: "prod_1"}},
		"metered":              {price(m{"id": "price_1", "product": "prod_1", "recurring": m{"usage_type": "metered"}}), billing.SubscriptionItem{PriceID: "price_1", ProductID: "prod_1", Metered: true}},
		"product expanded":     {price(m{"id": "price_1", "product": m{"id": "prod_1", "deleted": true}}), billing.SubscriptionItem{PriceID: "price_1", ProductID: "prod_1"}},
		"product null":         {price(m{"id": "price_1", "product": nil, "recurring": nil}), billing.SubscriptionItem{PriceID: "price_1"}},
		"plan, price null":     {m{"price": nil, "plan": m{"id": "plan_1", "product": "prod_1", "usage_type": "licensed"}}, billing.SubscriptionItem{PriceID: "plan_1", ProductID: "prod_1"}},
		"plan, price missing":  {m{"plan": m{"id": "plan_1", "product": m{"id": "prod_1"}, "usage_type": "metered"}}, billing.SubscriptionItem{PriceID: "plan_1", ProductID: "prod_1", Metered: true}},
		"price wins over plan": {m{"price": m{"id": "price_1"}, "plan": m{"id": "plan_1", "product": "prod_1", "usage_type": "metered"}}, billing.SubscriptionItem{PriceID: "price_1"}},
		"neither":              {m{"price": nil, "plan": nil}, billing.SubscriptionItem{}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, stripetest.Options{})
			s.PutSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1", Override: m{"items": m{"data": []any{m{"price": m{"id": "price_0"}}, test.item}}}})
			sub, _, err := newClient(s).Subscription(t.Context(), "sub_1")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]billing.SubscriptionItem{{PriceID: "price_0"}, test.want}, sub.Items); diff != "" || sub.PriceID != "price_0" || sub.MoreItems {
				t.Errorf("first price %q, more %t: %s", sub.PriceID, sub.MoreItems, diff)
			}
		})
	}
}

func TestEndedSubscriptionWithoutItemsIsReadable(t *testing.T) {
	s := serve(t, stripetest.Options{})
	s.PutSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1", Status: "canceled", Items: []stripetest.Item{}})
	c := newClient(s)
	sub, exists, err := c.Subscription(t.Context(), "sub_1")
	if err != nil || !exists || sub.Items != nil || sub.PriceID != "" || sub.MoreItems {
		t.Errorf("%+v, exists %t, error %v", sub, exists, err)
	}
	page, err := c.SweepPage(t.Context(), billing.Range{})
	if err != nil || len(page.Subscriptions) != 1 || page.Subscriptions[0].Unreadable {
		t.Errorf("swept %+v, error %v", page, err)
	}
}

// A subscription that is retrieved or listed by customer has all of its items; one of a sweep has MoreItems set.
func TestAllItemsAreReadIfTheObjectHasTheFirstTen(t *testing.T) {
	for n, requests := range map[int]int{0: 0, 1: 0, 10: 0, 11: 1, 100: 1, 101: 2, 250: 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := serve(t, stripetest.Options{})
			want := putItems(s, n)
			c := newClient(s)
			single, _, err := c.Subscription(t.Context(), "sub_1")
			if err != nil {
				t.Fatal(err)
			}
			listed, _, err := c.CustomerSubscriptions(t.Context(), "cus_1")
			if err != nil {
				t.Fatal(err)
			}
			for _, sub := range append(listed, single) {
				if diff := cmp.Diff(want, sub.Items); diff != "" || sub.MoreItems {
					t.Errorf("more %t: %s", sub.MoreItems, diff)
				}
			}
			if got, used := s.Requests(), c.TakeUsage(); got.ListItems != 2*requests || used != (billing.Usage{List: 1, Retrieve: 1, Other: int64(2 * requests)}) {
				t.Errorf("requests %+v, used %+v", got, used)
			}
			page, err := c.SweepPage(t.Context(), billing.Range{})
			if err != nil {
				t.Fatal(err)
			}
			swept := page.Subscriptions[0]
			if diff := cmp.Diff(want[:min(n, 10)], swept.Items); diff != "" || swept.MoreItems != (n > 10) {
				t.Errorf("swept, more %t: %s", swept.MoreItems, diff)
			}
			if s.Requests().ListItems != 2*requests {
				t.Error("the sweep asked for items")
			}
		})
	}
}

func TestFailedPageOfItemsIsAnError(t *testing.T) {
	for _, kind := range []stripetest.Kind{stripetest.RateLimited, stripetest.InternalError, stripetest.CutConnection, stripetest.TruncatedBody, stripetest.NotJSON} {
		for after := range 3 {
			t.Run(fmt.Sprintf("kind %d on page %d", kind, after+1), func(t *testing.T) {
				s := serve(t, stripetest.Options{})
				putItems(s, 250)
				c := newClient(s)
				s.AddFault(stripetest.Fault{Endpoint: stripetest.ListItems, Kind: kind, After: after, Times: 1})
				sub, exists, err := c.Subscription(t.Context(), "sub_1")
				if err == nil || exists || !cmp.Equal(sub, billing.Subscription{}) || !billing.AsFailure(err).Retryable() {
					t.Errorf("%d items, exists %t, error %v", len(sub.Items), exists, err)
				}
			})
		}
	}
}

func TestInconsistentItemsAreAnError(t *testing.T) {
	const item = `{"id":"si_1","price":{"id":"price_1"}}`
	for name, test := range map[string]struct {
		answers []string
		class   billing.Class
		reason  billing.Reason
	}{
		"more but no data":       {[]string{`{"object":"list","data":[],"has_more":true}`}, billing.Unavailable, billing.ReasonStripeUnavailable},
		"the same page again":    {[]string{`{"object":"list","data":[` + item + `],"has_more":true}`, `{"object":"list","data":[` + item + `],"has_more":true}`}, billing.Unavailable, billing.ReasonStripeUnavailable},
		"no more than before":    {[]string{`{"object":"list","data":[` + strings.Repeat(item+",", 9) + item + `],"has_more":false}`}, billing.Unavailable, billing.ReasonStripeUnavailable},
		"none at all":            {[]string{`{"object":"list","data":[],"has_more":false}`}, billing.Unavailable, billing.ReasonStripeUnavailable},
		"another object":         {[]string{`{"object":"subscription"}`}, billing.Unavailable, billing.ReasonStripeUnavailable},
		"more behind no id":      {[]string{`{"object":"list","data":[{"price":{"id":"price_1"}}],"has_more":true}`}, billing.Unavailable, billing.ReasonStripeUnavailable},
		"an item that is a text": {[]string{`{"object":"list","data":["si_1"],"has_more":false}`}, billing.Permanent, billing.ReasonInvalidSubscription},
	} {
		t.Run(name, func(t *testing.T) {
			fake, baseURL := serveThrough(t, func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/v1/subscription_items" {
					return false
				}
				if len(test.answers) == 0 {
					t.Error("the list does not end")
					return false
				}
				body := test.answers[0]
				test.answers = test.answers[1:]
				return respond(w, http.StatusOK, body)
			})
			putItems(fake, 11)
			sub, exists, err := newClient(fake, withBaseURL(baseURL)).Subscription(t.Context(), "sub_1")
			wantFailure(t, err, test.class, test.reason)
			if exists || len(sub.Items) > 0 {
				t.Errorf("%+v, exists %t", sub, exists)
			}
		})
	}
}

func TestSubscriptionOrItemThatVanishesWhileItemsAreReadIsUnavailable(t *testing.T) {
	for name, vanish := range map[string]func(*stripetest.Server){
		"subscription": func(s *stripetest.Server) { s.RemoveSubscription("sub_1") },
		"item": func(s *stripetest.Server) {
			s.UpdateSubscription("sub_1", func(sub *stripetest.Subscription) { sub.Items[99].ID = "si_new" })
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, stripetest.Options{})
			putItems(s, 150)
			var once sync.Once
			s.After(func(r *http.Request) {
				if r.URL.Path == "/v1/subscription_items" {
					once.Do(func() { vanish(s) })
				}
			})
			_, exists, err := newClient(s).Subscription(t.Context(), "sub_1")
			wantFailure(t, err, billing.Unavailable, billing.ReasonStripeUnavailable)
			if exists {
				t.Error("it exists")
			}
			sub, exists, err := newClient(s).Subscription(t.Context(), "sub_1")
			if err != nil || exists != (name == "item") || exists && len(sub.Items) != 150 {
				t.Errorf("the second time: exists %t with %d items, error %v", exists, len(sub.Items), err)
			}
		})
	}
}
