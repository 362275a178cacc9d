package stripetest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/account"
	"github.com/stripe/stripe-go/v76/customer"
	"github.com/stripe/stripe-go/v76/subscription"

	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

func start(t testing.TB, opts stripetest.Options) *stripetest.Server {
	t.Helper()
	s, err := stripetest.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// backend is stripe-go's, without its retries and its log.
func backend(url string) stripe.Backend {
	return stripe.GetBackendWithConfig(stripe.APIBackend, &stripe.BackendConfig{
		URL:               stripe.String(url),
		HTTPClient:        &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		MaxNetworkRetries: stripe.Int64(0),
		LeveledLogger:     &stripe.LeveledLogger{},
	})
}

func subscriptions(s *stripetest.Server) subscription.Client {
	return subscription.Client{B: backend(s.URL()), Key: s.Key()}
}

// get returns the status, header and body of a GET with the server's key.
func get(t testing.TB, s *stripetest.Server, path string) (int, http.Header, []byte) {
	t.Helper()
	return send(t, s, http.MethodGet, path, http.Header{"Authorization": {"Bearer " + s.Key()}})
}

func send(t testing.TB, s *stripetest.Server, method, path string, header http.Header) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, body
}

func decode[T any](t testing.TB, body []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return v
}

func TestStripeGoDecodesAllFields(t *testing.T) {
	s := start(t, stripetest.Options{AccountID: "acct_42"})
	s.PutCustomer(stripetest.Customer{ID: "cus_1", Email: "a@example.com", Metadata: map[string]string{"k": "v"}})
	s.PutSubscription(stripetest.Subscription{
		ID: "sub_1", CustomerID: "cus_1", Status: "trialing", PriceID: "price_pro",
		Metadata: map[string]string{"orgId": "org_1", "quote": `"é"` + "\n"},
		Created:  100, CurrentPeriodStart: 200, CurrentPeriodEnd: 300, TrialStart: 200, TrialEnd: 300,
		CanceledAt: 250, EndedAt: -5, CancelAtPeriodEnd: true,
	})

	sub, err := subscriptions(s).Get("sub_1", nil)
	if err != nil {
		t.Fatal(err)
	}
	type seen struct {
		ID, Customer, Price, Plan           string
		Status                              stripe.SubscriptionStatus
		Metadata                            map[string]string
		Created, Start, End, TrialS, TrialE int64
		CanceledAt, EndedAt, CancelAt       int64
		AtPeriodEnd, Live                   bool
	}
	item := sub.Items.Data[0]
	got := seen{
		ID: sub.ID, Customer: sub.Customer.ID, Price: item.Price.ID, Plan: item.Plan.ID, Status: sub.Status,
		Metadata: sub.Metadata, Created: sub.Created, Start: sub.CurrentPeriodStart, End: sub.CurrentPeriodEnd,
		TrialS: sub.TrialStart, TrialE: sub.TrialEnd, CanceledAt: sub.CanceledAt, EndedAt: sub.EndedAt,
		CancelAt: sub.CancelAt, AtPeriodEnd: sub.CancelAtPeriodEnd, Live: sub.Livemode,
	}
	want := seen{
		ID: "sub_1", Customer: "cus_1", Price: "price_pro", Plan: "price_pro", Status: "trialing",
		Metadata: map[string]string{"orgId": "org_1", "quote": `"é"` + "\n"}, Created: 100, Start: 200, End: 300,
		TrialS: 200, TrialE: 300, CanceledAt: 250, EndedAt: -5, CancelAt: 300, AtPeriodEnd: true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("subscription (-want +got):\n%s", diff)
	}

	cus, err := customer.Client{B: backend(s.URL()), Key: s.Key()}.Get("cus_1", nil)
	if err != nil || cus.Email != "a@example.com" || cus.Metadata["k"] != "v" || cus.Deleted {
		t.Errorf("customer = %+v, %v", cus, err)
	}
	acct, err := account.Client{B: backend(s.URL()), Key: s.Key()}.Get()
	if err != nil || acct.ID != "acct_42" {
		t.Errorf("account = %+v, %v", acct, err)
	}
}

func TestUnsetFieldsHaveDefaults(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := start(t, stripetest.Options{LiveMode: true, Now: func() time.Time { return now }})
	s.PutSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1"})
	sub, err := subscriptions(s).Get("sub_1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if sub.Status != "active" || sub.Created != now.Unix() || sub.CurrentPeriodEnd != now.Unix()+30*86400 || !sub.Livemode {
		t.Errorf("status %s, created %d, period end %d, livemode %t", sub.Status, sub.Created, sub.CurrentPeriodEnd, sub.Livemode)
	}
	if status, _, body := get(t, s, "/v1/customers/cus_1"); status != http.StatusOK {
		t.Errorf("the customer was not made: %s", body)
	}
}

func TestOverrideAndRawAreServed(t *testing.T) {
	no := false
	tests := []struct {
		name string
		sub  stripetest.Subscription
		want string // of the fields that it has
	}{
		{"null price", stripetest.Subscription{}, `{"items":[null]}`},
		{"no items", stripetest.Subscription{PriceID: "price_1", Items: []stripetest.Item{}}, `{"items":[]}`},
		{
			"two items",
			stripetest.Subscription{Items: []stripetest.Item{{PriceID: "price_1"}, {PriceID: "price_2"}}},
			`{"items":["price_1","price_2"]}`,
		},
		{"unknown status", stripetest.Subscription{Status: "dormant"}, `{"status":"dormant"}`},
		{"negative time", stripetest.Subscription{CurrentPeriodEnd: -1}, `{"current_period_end":-1}`},
		{"other mode", stripetest.Subscription{LiveMode: &no}, `{"livemode":false}`},
		{"no id", stripetest.Subscription{Override: map[string]any{"id": nil}}, `{"id":null}`},
		{"null period", stripetest.Subscription{Override: map[string]any{"current_period_end": nil}}, `{"current_period_end":null}`},
		{"raw", stripetest.Subscription{Raw: json.RawMessage(`{"id":7}`)}, `{"id":7}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, stripetest.Options{LiveMode: true})
			test.sub.ID, test.sub.CustomerID = "sub_1", "cus_1"
			s.PutSubscription(test.sub)
			_, _, one := get(t, s, "/v1/subscriptions/sub_1")
			_, _, list := get(t, s, "/v1/subscriptions?status=all")
			listed := decode[struct{ Data []json.RawMessage }](t, list)
			for _, body := range [][]byte{one, listed.Data[0]} {
				got := decode[map[string]any](t, body)
				flattenPrices(got)
				for field, want := range decode[map[string]any](t, []byte(test.want)) {
					if diff := cmp.Diff(want, got[field]); diff != "" {
						t.Errorf("%s (-want +got):\n%s", field, diff)
					}
				}
			}
		})
	}
}

// flattenPrices replaces the items by their price ids.
func flattenPrices(sub map[string]any) {
	list, ok := sub["items"].(map[string]any)
	if !ok {
		return
	}
	prices := []any{}
	for _, item := range list["data"].([]any) {
		price, _ := item.(map[string]any)["price"].(map[string]any)
		prices = append(prices, price["id"])
	}
	sub["items"] = prices
}

func TestDeleteCustomerCancelsItsSubscriptions(t *testing.T) {
	s := start(t, stripetest.Options{Now: func() time.Time { return time.Unix(500, 0) }})
	s.PutSubscription(stripetest.Subscription{ID: "sub_live", CustomerID: "cus_1", Created: 100})
	s.PutSubscription(stripetest.Subscription{ID: "sub_old", CustomerID: "cus_1", Created: 90, Status: "canceled", EndedAt: 95})
	s.DeleteCustomer("cus_1")
	s.DeleteCustomer("cus_unknown")

	_, _, body := get(t, s, "/v1/customers/cus_1")
	want := map[string]any{"id": "cus_1", "object": "customer", "deleted": true}
	if diff := cmp.Diff(want, decode[map[string]any](t, body)); diff != "" {
		t.Errorf("customer (-want +got):\n%s", diff)
	}
	sub, _ := s.Subscription("sub_live")
	if sub.Status != "canceled" || sub.EndedAt != 500 || sub.CanceledAt != 500 {
		t.Errorf("live subscription became %+v", sub)
	}
	if old, _ := s.Subscription("sub_old"); old.EndedAt != 95 {
		t.Errorf("ended subscription became %+v", old)
	}
	if got := list(t, s, "customer=cus_1&status=all"); len(got) != 2 {
		t.Errorf("listed %v", got)
	}
}

func TestRemovedObjectsAreMissing(t *testing.T) {
	s := start(t, stripetest.Options{})
	for _, id := range []string{"sub_1", "sub_2"} {
		s.PutSubscription(stripetest.Subscription{ID: id, CustomerID: "cus_1"})
	}
	s.RemoveSubscription("sub_1")
	if got := list(t, s, "customer=cus_1"); !cmp.Equal(got, []string{"sub_2"}) {
		t.Errorf("listed %v", got)
	}
	s.RemoveCustomer("cus_1")
	for _, path := range []string{"/v1/subscriptions/sub_1", "/v1/subscriptions/sub_2", "/v1/customers/cus_1"} {
		if status, _, _ := get(t, s, path); status != http.StatusNotFound {
			t.Errorf("%s: status %d", path, status)
		}
	}
}

func TestCallersShareNothingWithTheServer(t *testing.T) {
	s := start(t, stripetest.Options{})
	metadata := map[string]string{"tier": "pro"}
	s.PutSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1", Metadata: metadata})
	metadata["tier"] = "changed"
	got, _ := s.Subscription("sub_1")
	got.Metadata["tier"] = "changed"
	kept := map[string]string{"tier": "max"}
	ok := s.UpdateSubscription("sub_1", func(sub *stripetest.Subscription) {
		if sub.Metadata["tier"] != "pro" {
			t.Errorf("tier = %q, want pro", sub.Metadata["tier"])
		}
		sub.ID, sub.Metadata = "sub_other", kept
	})
	kept["tier"] = "changed"
	if got, found := s.Subscription("sub_1"); !ok || !found || got.Metadata["tier"] != "max" {
		t.Errorf("after the update: %+v, %t, %t", got, ok, found)
	}
	if s.UpdateSubscription("sub_none", func(*stripetest.Subscription) {}) {
		t.Error("updated a subscription that does not exist")
	}
}

func TestHooksRunBeforeAndAfterTheStateIsRead(t *testing.T) {
	s := start(t, stripetest.Options{})
	s.PutSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1", Status: "trialing"})
	setStatus := func(status string) func(*http.Request) {
		return func(*http.Request) {
			s.UpdateSubscription("sub_1", func(sub *stripetest.Subscription) { sub.Status = status })
		}
	}
	s.Before(setStatus("active"))
	s.After(setStatus("canceled"))
	sub, err := subscriptions(s).Get("sub_1", nil)
	if err != nil || sub.Status != "active" {
		t.Errorf("served %v, %v; want what Before wrote", sub, err)
	}
	if now, _ := s.Subscription("sub_1"); now.Status != "canceled" {
		t.Errorf("afterwards it is %s; want what After wrote", now.Status)
	}
}

func TestEveryResponseTakesTheLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stripetest.New(stripetest.Options{Latency: time.Minute})
		start := time.Now()
		for _, path := range []string{"/v1/account", "/v1/nothing"} {
			w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil)
			r.SetBasicAuth(s.Key(), "")
			s.ServeHTTP(w, r)
		}
		if took := time.Since(start); took != 2*time.Minute {
			t.Errorf("two answers took %v", took)
		}
	})
}

func TestDelayedResponseEndsWithTheClient(t *testing.T) {
	s := start(t, stripetest.Options{Latency: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	s.After(func(*http.Request) { cancel() })
	params := &stripe.SubscriptionParams{Params: stripe.Params{Context: ctx}}
	if _, err := subscriptions(s).Get("sub_1", params); err == nil {
		t.Error("a canceled request succeeded")
	}
	// Close, at the end of the test, must not wait for the hour either.
}

func TestCloseFreesThePort(t *testing.T) {
	s, err := stripetest.Start(stripetest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if res, err := http.Get(s.URL()); err == nil {
		res.Body.Close()
		t.Error("a closed server answered")
	}
}

func TestRequestsAreCounted(t *testing.T) {
	s := start(t, stripetest.Options{})
	for range 3 {
		get(t, s, "/v1/subscriptions")
	}
	get(t, s, "/v1/subscriptions/sub_1")
	get(t, s, "/v1/customers/cus_1")
	get(t, s, "/v1/customers/cus_1")
	get(t, s, "/v1/account")
	get(t, s, "/v1/subscription_items?subscription=sub_1")
	get(t, s, "/v1/subscriptions/search")
	get(t, s, "/v1/subscriptions/search?query=x")
	get(t, s, "/v1/events")
	get(t, s, "/v1/invoices")
	s.AddFault(stripetest.Fault{Kind: stripetest.LockTimeout, Times: 1})
	get(t, s, "/v1/account")

	want := stripetest.Counts{
		ListSubscriptions: 3, RetrieveSubscription: 1, RetrieveCustomer: 2, RetrieveAccount: 2, ListItems: 1, SearchSubscriptions: 2, ListEvents: 1, Other: 1, Throttled: 1,
	}
	if diff := cmp.Diff(want, s.Requests()); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	if total := s.Requests().Total(); total != 13 {
		t.Errorf("total = %d, want 13", total)
	}
	s.ResetCounts()
	if got := s.Requests(); got.Total() != 0 || got.Throttled != 0 {
		t.Errorf("after a reset: %+v", got)
	}
}

func TestRatesAreTokenBuckets(t *testing.T) {
	now := time.Unix(0, 0)
	s := start(t, stripetest.Options{EndpointRate: 2, GlobalRate: 5, Now: func() time.Time { return now }})
	s.PutSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1"})
	const one, all, cus = "/v1/subscriptions/sub_1", "/v1/subscriptions", "/v1/customers/cus_1"
	steps := []struct {
		after  time.Duration
		path   string
		reason string // "" passes
	}{
		{0, one, ""},
		{0, one, ""},
		{0, one, "endpoint-rate"}, // after the tokens of one second
		{0, all, ""},
		{0, all, ""}, // another endpoint has its own; the account's five are used up
		{0, cus, "global-rate"},
		{500 * time.Millisecond, one, ""},
		{0, one, "endpoint-rate"},
		{time.Hour, one, ""},
		{0, one, ""},
		{0, one, "endpoint-rate"}, // an idle time adds the tokens of one second at most
	}
	for i, step := range steps {
		now = now.Add(step.after)
		status, header, body := get(t, s, step.path)
		if got := header.Get("Stripe-Rate-Limited-Reason"); got != step.reason || (status == 429) != (step.reason != "") {
			t.Errorf("step %d: status %d, reason %q, want %q: %s", i, status, got, step.reason, body)
		}
	}
	s.SetRates(0, 0)
	for range 10 {
		if status, _, _ := get(t, s, one); status != http.StatusOK {
			t.Errorf("status %d without limits", status)
		}
	}
}

func BenchmarkPage(b *testing.B) {
	s := stripetest.New(stripetest.Options{})
	const n = 100_000
	for i := range n {
		s.PutSubscription(stripetest.Subscription{
			ID: fmt.Sprintf("sub_%06d", i), CustomerID: fmt.Sprintf("cus_%06d", i), PriceID: "price_pro",
			Created: int64(1 + i*7919%n), Metadata: map[string]string{"orgId": fmt.Sprint(i), "tier": "pro"},
		})
	}
	r := httptest.NewRequest(http.MethodGet, "/v1/subscriptions?limit=100&status=all&starting_after=sub_050000", nil)
	r.SetBasicAuth(s.Key(), "")
	s.ServeHTTP(httptest.NewRecorder(), r) // puts them in order
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
		b.SetBytes(int64(w.Body.Len()))
	}
}
