package stripetest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/subscriptionitem"

	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

func putItems(s *stripetest.Server, n int) {
	sub := stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1", Items: []stripetest.Item{}}
	for i := range n {
		sub.Items = append(sub.Items, stripetest.Item{ID: fmt.Sprintf("si_%d", i), PriceID: fmt.Sprintf("price_%d", i)})
	}
	s.PutSubscription(sub)
}

type itemList struct {
	Object  string
	Data    []struct{ ID, Object, Subscription string }
	HasMore bool `json:"has_more"`
	Total   int  `json:"total_count"`
	URL     string
}

func (l itemList) ids() string {
	ids := []string{}
	for _, item := range l.Data {
		ids = append(ids, strings.TrimPrefix(item.ID, "si_"))
	}
	return strings.Join(ids, " ")
}

func TestSubscriptionHasItsFirstTenItems(t *testing.T) {
	for n, embedded := range map[int]int{0: 0, 1: 1, 10: 10, 11: 10, 25: 10} {
		s := start(t, stripetest.Options{})
		putItems(s, n)
		_, _, body := get(t, s, "/v1/subscriptions/sub_1")
		got := decode[struct{ Items itemList }](t, body).Items
		if len(got.Data) != embedded || got.HasMore != (n > embedded) || got.Total != n || got.URL != "/v1/subscription_items?subscription=sub_1" {
			t.Errorf("of %d: %+v", n, got)
		}
	}
}

func TestItemsAreListedInPages(t *testing.T) {
	s := start(t, stripetest.Options{})
	putItems(s, 12)
	for query, want := range map[string]struct {
		ids  string
		more bool
	}{
		"":                             {"0 1 2 3 4 5 6 7 8 9", true},
		"&limit=12":                    {"0 1 2 3 4 5 6 7 8 9 10 11", false},
		"&limit=11":                    {"0 1 2 3 4 5 6 7 8 9 10", true},
		"&starting_after=si_9":         {"10 11", false},
		"&starting_after=si_11":        {"", false},
		"&limit=1&starting_after=si_9": {"10", true},
		"&limit=2&ending_before=si_2":  {"0 1", false},
		"&limit=2&ending_before=si_3":  {"1 2", true},
		"&limit=2&ending_before=si_0":  {"", false},
	} {
		status, _, body := get(t, s, "/v1/subscription_items?subscription=sub_1"+query)
		got := decode[itemList](t, body)
		if status != http.StatusOK || got.ids() != want.ids || got.HasMore != want.more || got.Object != "list" || got.URL != "/v1/subscription_items" {
			t.Errorf("%s: status %d, %s, has_more %t: %s", query, status, got.ids(), got.HasMore, body)
		}
	}
	params := &stripe.SubscriptionItemListParams{Subscription: stripe.String("sub_1"), ListParams: stripe.ListParams{Limit: stripe.Int64(5)}}
	seen := 0
	iter := subscriptionitem.Client{B: backend(s.URL()), Key: s.Key()}.List(params)
	for ; iter.Next(); seen++ {
		if item := iter.SubscriptionItem(); item.Price.ID != fmt.Sprintf("price_%d", seen) || item.Subscription != "sub_1" {
			t.Errorf("item %d is %s with %s", seen, item.ID, item.Price.ID)
		}
	}
	if err := iter.Err(); err != nil || seen != 12 {
		t.Errorf("stripe-go saw %d, %v", seen, err)
	}
}

func TestInvalidListsAreRefused(t *testing.T) {
	s := start(t, stripetest.Options{})
	putItems(s, 1)
	for path, want := range map[string]string{
		"/v1/subscription_items":                                                     "parameter_missing subscription",
		"/v1/subscription_items?subscription=":                                       "parameter_invalid_empty subscription",
		"/v1/subscription_items?subscription=sub_2":                                  "resource_missing subscription",
		"/v1/subscription_items?subscription=sub_1&starting_after=si_9":              "resource_missing starting_after",
		"/v1/subscription_items?subscription=sub_1&ending_before=si_9":               "resource_missing ending_before",
		"/v1/subscription_items?subscription=sub_1&limit=101":                        "parameter_invalid_integer limit",
		"/v1/subscription_items?subscription=sub_1&customer=cus_1":                   "parameter_unknown customer",
		"/v1/subscriptions/search":                                                   "parameter_missing query",
		"/v1/subscriptions/search?query=" + "status:'active'":                        " query",
		"/v1/subscriptions/search?query=" + "metadata['a']:'b'%20metadata['c']:'d'":  " query",
		"/v1/subscriptions/search?query=" + "metadata['a']:b":                        " query",
		"/v1/subscriptions/search?query=" + "metadata['a']:'it's'":                   " query",
		"/v1/subscriptions/search?query=" + "metadata['a']:'b'&page=2":               " page",
		"/v1/subscriptions/search?query=" + "metadata['a']:'b'&limit=0":              "parameter_invalid_integer limit",
		"/v1/subscriptions/search?query=" + "metadata['a']:'b'&starting_after=sub_1": "parameter_unknown starting_after",
	} {
		status, _, body := get(t, s, path)
		refused := decode[struct{ Error struct{ Code, Param string } }](t, body).Error
		if got := refused.Code + " " + refused.Param; status != http.StatusBadRequest || got != want {
			t.Errorf("%s: status %d, %q, want %q", path, status, got, want)
		}
	}
}

// The price of an item is in several fields.
func TestItemsAreDecodedByStripeGo(t *testing.T) {
	type seen struct{ Price, Plan, Product, Usage string }
	for name, test := range map[string]struct {
		sub  stripetest.Subscription
		want seen
	}{
		"default product": {stripetest.Subscription{PriceID: "price_a"}, seen{"price_a", "price_a", "prod_a", "licensed"}},
		"product":         {stripetest.Subscription{PriceID: "price_a", ProductID: "prod_b"}, seen{"price_a", "price_a", "prod_b", "licensed"}},
		"item's product":  {stripetest.Subscription{Items: []stripetest.Item{{PriceID: "price_a", ProductID: "prod_b"}}}, seen{"price_a", "price_a", "prod_b", "licensed"}},
		"metered":         {stripetest.Subscription{Items: []stripetest.Item{{PriceID: "price_a", Metered: true}}}, seen{"price_a", "price_a", "prod_a", "metered"}},
		"plan only":       {stripetest.Subscription{Items: []stripetest.Item{{PriceID: "plan_a", PlanOnly: true}}}, seen{"", "plan_a", "prod_a", "licensed"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, stripetest.Options{})
			test.sub.ID, test.sub.CustomerID = "sub_1", "cus_1"
			s.PutSubscription(test.sub)
			sub, err := subscriptions(s).Get("sub_1", nil)
			if err != nil {
				t.Fatal(err)
			}
			item := sub.Items.Data[0]
			got := seen{Plan: item.Plan.ID, Product: item.Plan.Product.ID, Usage: string(item.Plan.UsageType)}
			if item.Price != nil {
				got.Price = item.Price.ID
				if p := item.Price; p.Product.ID != got.Product || string(p.Recurring.UsageType) != got.Usage {
					t.Errorf("the price's product is %s, its usage %s; the plan's %+v", p.Product.ID, p.Recurring.UsageType, got)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCancelAtAndPausedCollectionAreServed(t *testing.T) {
	type seen struct {
		CancelAt int64
		Paused   bool
	}
	for name, test := range map[string]struct {
		sub  stripetest.Subscription
		want seen
	}{
		"neither":           {stripetest.Subscription{}, seen{}},
		"at the period end": {stripetest.Subscription{CancelAtPeriodEnd: true, CurrentPeriodEnd: 300}, seen{CancelAt: 300}},
		"at a date":         {stripetest.Subscription{CancelAt: 250, CurrentPeriodEnd: 300}, seen{CancelAt: 250}},
		"paused":            {stripetest.Subscription{CollectionPaused: true}, seen{Paused: true}},
	} {
		s := start(t, stripetest.Options{})
		test.sub.ID, test.sub.CustomerID = "sub_1", "cus_1"
		s.PutSubscription(test.sub)
		sub, err := subscriptions(s).Get("sub_1", nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := (seen{sub.CancelAt, sub.PauseCollection != nil}); got != test.want || sub.CancelAtPeriodEnd != test.sub.CancelAtPeriodEnd {
			t.Errorf("%s: %+v, at period end %t", name, got, sub.CancelAtPeriodEnd)
		}
	}
}

// The errors for other ids do not name a mode, and an object with the same id in the server's mode is found.
func TestIDOfTheOtherModeNamesThatMode(t *testing.T) {
	for _, live := range []bool{false, true} {
		s := start(t, stripetest.Options{LiveMode: live})
		s.PutInOtherMode("sub_other", "cus_other", "sub_both")
		s.PutSubscription(stripetest.Subscription{ID: "sub_both", CustomerID: "cus_1"})
		object, key := "live", "test"
		if live {
			object, key = key, object
		}
		said := "; a similar object exists in " + object + " mode, but a " + key + " mode key was used to make this request."
		for path, status := range map[string]int{
			"/v1/subscriptions/sub_other": 404, "/v1/customers/cus_other": 404, "/v1/subscriptions?customer=cus_other": 400,
			"/v1/subscriptions?starting_after=sub_other": 400, "/v1/subscription_items?subscription=sub_other": 400,
		} {
			got, _, body := get(t, s, path)
			refused := decode[struct {
				Error struct{ Code, Message string }
			}](t, body).Error
			if got != status || refused.Code != "resource_missing" || !strings.HasSuffix(refused.Message, said) {
				t.Errorf("%s: status %d: %s", path, got, body)
			}
		}
		for path, status := range map[string]int{"/v1/subscriptions/sub_both": 200, "/v1/subscriptions/sub_none": 404} {
			if got, _, body := get(t, s, path); got != status || strings.Contains(string(body), "similar") {
				t.Errorf("%s: status %d: %s", path, got, body)
			}
		}
	}
}
