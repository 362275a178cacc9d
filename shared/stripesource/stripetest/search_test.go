package stripetest_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stripe/stripe-go/v76"

	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

type searchAnswer struct {
	Object   string
	Data     []struct{ ID, Status string }
	HasMore  bool    `json:"has_more"`
	NextPage *string `json:"next_page"`
	URL      string
}

func (a searchAnswer) ids() []string {
	ids := []string{}
	for _, sub := range a.Data {
		ids = append(ids, sub.ID)
	}
	return ids
}

func search(t *testing.T, s *stripetest.Server, query string, more ...string) searchAnswer {
	t.Helper()
	path := "/v1/subscriptions/search?query=" + url.QueryEscape(query)
	for _, param := range more {
		path += "&" + param
	}
	status, _, body := get(t, s, path)
	if status != http.StatusOK {
		t.Fatalf("%s: status %d: %s", query, status, body)
	}
	return decode[searchAnswer](t, body)
}

func TestSearchFindsMetadata(t *testing.T) {
	s := start(t, stripetest.Options{})
	for id, org := range map[string]string{"sub_1": "org-1", "sub_2": "ORG-1", "sub_3": "org-10", "sub_4": `it's "q\`, "sub_5": " org-1", "sub_6": ""} {
		s.PutSubscription(stripetest.Subscription{ID: id, CustomerID: "cus_1", Status: "canceled", Created: int64(id[4]), Metadata: map[string]string{"orgId": org}})
	}
	s.PutSubscription(stripetest.Subscription{ID: "sub_other_key", CustomerID: "cus_1", Metadata: map[string]string{"org": "org-1"}})
	for query, want := range map[string][]string{
		`metadata['orgId']:'org-1'`:      {"sub_2", "sub_1"}, // without case, newest first
		`metadata["orgId"]:"org-1"`:      {"sub_2", "sub_1"},
		` metadata['orgId'] : 'org-1' `:  {"sub_2", "sub_1"},
		`metadata['org\Id']:'org\-1'`:    {"sub_2", "sub_1"},
		`metadata['orgid']:'org-1'`:      {},
		`metadata['orgId']:'it\'s "q\\'`: {"sub_4"},
		`metadata["orgId"]:"it's \"q\\"`: {"sub_4"},
		`metadata['orgId']:''`:           {"sub_6"},
		`metadata['orgId']:'nobody'`:     {},
	} {
		got := search(t, s, query)
		if diff := cmp.Diff(want, got.ids()); diff != "" || got.HasMore || got.NextPage != nil {
			t.Errorf("%s: %+v: %s", query, got, diff)
		}
		if got.Object != "search_result" || got.URL != "/v1/subscriptions/search" {
			t.Errorf("%+v", got)
		}
	}
}

func TestSearchIsPaged(t *testing.T) {
	s := start(t, stripetest.Options{})
	for _, id := range []string{"sub_1", "sub_2", "sub_3", "sub_4", "sub_5"} {
		s.PutSubscription(stripetest.Subscription{ID: id, CustomerID: "cus_1", Created: int64(id[4]), Metadata: map[string]string{"orgId": "a"}})
	}
	const query = `metadata['orgId']:'a'`
	first := search(t, s, query, "limit=2")
	second := search(t, s, query, "limit=2", "page="+*first.NextPage)
	third := search(t, s, query, "limit=2", "page="+*second.NextPage)
	got := append(append(first.ids(), second.ids()...), third.ids()...)
	if diff := cmp.Diff([]string{"sub_5", "sub_4", "sub_3", "sub_2", "sub_1"}, got); diff != "" || !second.HasMore || third.HasMore || third.NextPage != nil {
		t.Errorf("%s; %+v", diff, third)
	}
	seen := 0
	iter := subscriptions(s).Search(&stripe.SubscriptionSearchParams{SearchParams: stripe.SearchParams{Query: query, Limit: stripe.Int64(2)}})
	for iter.Next() {
		seen++
	}
	if err := iter.Err(); err != nil || seen != 5 {
		t.Errorf("stripe-go saw %d, %v", seen, err)
	}
}

func TestSearchFindsChangesAfterTheLag(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := start(t, stripetest.Options{SearchLag: 20 * time.Second, Now: func() time.Time { return now }})
	found := func(org string) string {
		all := search(t, s, `metadata['orgId']:'`+org+`'`).Data
		if len(all) == 0 {
			return ""
		}
		return all[0].Status
	}
	expect := func(step, a, b string) {
		t.Helper()
		if gotA, gotB := found("a"), found("b"); gotA != a || gotB != b {
			t.Errorf("%s: found a %q and b %q, want %q and %q", step, gotA, gotB, a, b)
		}
	}
	s.PutSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1", Metadata: map[string]string{"orgId": "a"}})
	expect("put", "", "")
	now = now.Add(19 * time.Second)
	expect("put, nearly", "", "")
	now = now.Add(time.Second)
	expect("put, caught up", "active", "")
	s.UpdateSubscription("sub_1", func(sub *stripetest.Subscription) { sub.Status = "canceled" })
	expect("canceled", "active", "")
	now = now.Add(10 * time.Second)
	s.UpdateSubscription("sub_1", func(sub *stripetest.Subscription) { sub.Metadata["orgId"], sub.Created = "b", 1 })
	now = now.Add(10 * time.Second)
	expect("canceled, caught up", "canceled", "")
	now = now.Add(10 * time.Second)
	expect("moved, caught up", "", "canceled")
	s.RemoveSubscription("sub_1")
	expect("removed", "", "canceled")
	now = now.Add(20 * time.Second)
	expect("removed, caught up", "", "")
	s.PutSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1", Metadata: map[string]string{"orgId": "a"}})
	s.SetSearch(true, 0)
	expect("without lag", "active", "")
	s.SetSearch(true, time.Hour)
	now = now.Add(time.Minute)
	expect("a lag is a minute at most", "active", "")
}

func TestSearchWithoutTheFeatureIsRefused(t *testing.T) {
	s := start(t, stripetest.Options{NoSearch: true})
	status, _, body := get(t, s, "/v1/subscriptions/search?query=metadata['orgId']:'a'")
	refused := decode[struct {
		Error struct{ Type, Code, Message string }
	}](t, body).Error
	if status != http.StatusBadRequest || refused.Type != "invalid_request_error" || refused.Message == "" {
		t.Errorf("status %d: %s", status, body)
	}
	s.SetSearch(true, 0)
	search(t, s, "metadata['orgId']:'a'")
}

// Search allows 20 requests a second, although the other endpoints allow more.
func TestSearchHasALowerRate(t *testing.T) {
	s := start(t, stripetest.Options{EndpointRate: 25, Now: func() time.Time { return time.Unix(0, 0) }})
	const search, list = "/v1/subscriptions/search?query=metadata['orgId']:'a'", "/v1/subscriptions"
	passed := map[string]int{}
	for range 30 {
		for _, path := range []string{search, list} {
			if status, _, _ := get(t, s, path); status == http.StatusOK {
				passed[path]++
			}
		}
	}
	if diff := cmp.Diff(map[string]int{search: 20, list: 25}, passed); diff != "" {
		t.Error(diff)
	}
}
