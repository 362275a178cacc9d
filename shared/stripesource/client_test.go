package stripesource_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

func serve(t testing.TB, o stripetest.Options) *stripetest.Server {
	t.Helper()
	s, err := stripetest.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// serveThrough serves the fake Stripe behind a function that sees every request. handled means that the function has sent
// the response.
func serveThrough(t *testing.T, intercept func(w http.ResponseWriter, r *http.Request) (handled bool)) (fake *stripetest.Server, baseURL string) {
	t.Helper()
	fake = stripetest.New(stripetest.Options{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !intercept(w, r) {
			fake.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return fake, server.URL
}

func newClient(s *stripetest.Server, change ...func(*stripesource.Config)) *stripesource.Client {
	c := stripesource.Config{
		Key: s.Key(), BaseURL: s.URL(), LiveMode: strings.Contains(s.Key(), "_live_"), Log: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&c)
	}
	return stripesource.New(c)
}

func withBaseURL(baseURL string) func(*stripesource.Config) {
	return func(c *stripesource.Config) { c.BaseURL = baseURL }
}

// A read calls one of the client's methods for sub_1 or cus_1.
type read struct {
	name     string
	endpoint stripetest.Endpoint
	do       func(ctx context.Context, c *stripesource.Client) error
}

var (
	subscriptionRead = read{"subscription", stripetest.RetrieveSubscription, func(ctx context.Context, c *stripesource.Client) error {
		_, _, err := c.Subscription(ctx, "sub_1")
		return err
	}}
	listRead = read{"list", stripetest.ListSubscriptions, func(ctx context.Context, c *stripesource.Client) error {
		_, _, err := c.CustomerSubscriptions(ctx, "cus_1")
		return err
	}}
	customerRead = read{"customer", stripetest.RetrieveCustomer, func(ctx context.Context, c *stripesource.Client) error {
		_, err := c.CustomerExists(ctx, "cus_1")
		return err
	}}
	accountRead = read{"account", stripetest.RetrieveAccount, func(ctx context.Context, c *stripesource.Client) error {
		_, err := c.Account(ctx)
		return err
	}}
	eventsRead = read{"events", stripetest.ListEvents, func(ctx context.Context, c *stripesource.Client) error {
		_, err := c.EventsPage(ctx, billing.EventQuery{})
		return err
	}}
	searchRead = read{"search", stripetest.SearchSubscriptions, func(ctx context.Context, c *stripesource.Client) error {
		_, _, err := c.SearchByOrgID(ctx, "org-1")
		return err
	}}

	reads = []read{subscriptionRead, listRead, customerRead, accountRead, eventsRead, searchRead}
	// objectReads name an object, which may be of the other mode.
	objectReads = []read{subscriptionRead, listRead, customerRead}
)

func wantFailure(t *testing.T, err error, class billing.Class, reason billing.Reason) {
	t.Helper()
	f, ok := errors.AsType[*billing.Failure](err)
	if !ok {
		t.Fatalf("error is a %T, not a failure with a class: %v", err, err)
	}
	if f.Class != class || f.Reason != reason {
		t.Errorf("%v %s, want %v %s: %v", f.Class, f.Reason, class, reason, err)
	}
	if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
		t.Errorf("the error is not one line: %q", err)
	}
}

// respond sends a response. It ignores errors, which mean that the client is gone.
func respond(w http.ResponseWriter, status int, body string) bool {
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
	return true
}

func TestEveryFieldOfASubscriptionIsRead(t *testing.T) {
	s := serve(t, stripetest.Options{})
	s.PutSubscription(stripetest.Subscription{
		ID: "sub_full", CustomerID: "cus_1", Status: "canceled",
		Items:   []stripetest.Item{{PriceID: "price_first", ProductID: "prod_a"}, {PriceID: "price_second", Metered: true}},
		Created: 1_700_000_001, CurrentPeriodStart: 1_700_000_002, CurrentPeriodEnd: 1_700_000_003,
		TrialStart: 1_700_000_004, TrialEnd: 1_700_000_005, CanceledAt: 1_700_000_006, EndedAt: 1_700_000_007,
		CancelAtPeriodEnd: true, CancelAt: 1_700_000_008, CollectionPaused: true,
		Metadata: map[string]string{"orgId": " org-1\n", "tier": "Pro", "other": "x"},
	})
	got, exists, err := newClient(s).Subscription(t.Context(), "sub_full")
	if err != nil || !exists {
		t.Fatalf("exists %t, error %v", exists, err)
	}
	want := billing.Subscription{
		ID: "sub_full", CustomerID: "cus_1", Status: billing.StatusCanceled, PriceID: "price_first",
		OrgID: "org-1", MetadataTier: "Pro",
		Created: unix(1_700_000_001), CurrentPeriodStart: unix(1_700_000_002), CurrentPeriodEnd: unix(1_700_000_003),
		TrialEnd: unix(1_700_000_005), CanceledAt: unix(1_700_000_006), EndedAt: unix(1_700_000_007),
		CancelAtPeriodEnd: true, CancelAt: unix(1_700_000_008), CollectionPaused: true,
		Items: []billing.SubscriptionItem{{PriceID: "price_first", ProductID: "prod_a"}, {PriceID: "price_second", ProductID: "prod_second", Metered: true}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got.Created.Location() != time.UTC {
		t.Errorf("times are in %v, want UTC", got.Created.Location())
	}
}

func unix(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }

func TestNullIsTheZeroValueAndZeroIsATime(t *testing.T) {
	nulls := map[string]any{}
	for _, name := range []string{
		"customer", "cancel_at_period_end", "created", "current_period_start", "current_period_end",
		"trial_end", "canceled_at", "ended_at", "items", "metadata", "cancel_at", "pause_collection",
	} {
		nulls[name] = nil
	}
	s := serve(t, stripetest.Options{})
	s.PutSubscription(stripetest.Subscription{ID: "sub_null", CustomerID: "cus_1", Override: nulls})
	s.PutSubscription(stripetest.Subscription{ID: "sub_zero", CustomerID: "cus_1", Override: map[string]any{
		"created": 0, "trial_end": 0, "cancel_at_period_end": false, "metadata": map[string]string{}, "cancel_at": 0, "pause_collection": map[string]any{},
	}})
	for id, want := range map[string]billing.Subscription{
		"sub_null": {ID: "sub_null", Status: billing.StatusActive},
		"sub_zero": {
			ID: "sub_zero", Status: billing.StatusActive, CustomerID: "cus_1", Created: unix(0), TrialEnd: unix(0),
			CancelAt: unix(0), CollectionPaused: true, Items: []billing.SubscriptionItem{{}},
		},
	} {
		got, _, err := newClient(s).Subscription(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if id == "sub_zero" {
			got.CurrentPeriodStart, got.CurrentPeriodEnd = time.Time{}, time.Time{}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestMetadataKeysAreCaseSensitive(t *testing.T) {
	s := serve(t, stripetest.Options{})
	s.PutSubscription(stripetest.Subscription{
		ID: "sub_1", CustomerID: "cus_1",
		Metadata: map[string]string{"orgId": "org-1", "orgid": "org-2", "tier": "pro", "tiER": "max", "ORGID": "org-3"},
	})
	got, _, err := newClient(s).Subscription(t.Context(), "sub_1")
	if err != nil || got.OrgID != "org-1" || got.MetadataTier != "pro" {
		t.Errorf("organization %q, tier %q, error %v", got.OrgID, got.MetadataTier, err)
	}
}

func TestCustomerSubscriptionsReadsAllPages(t *testing.T) {
	for _, n := range []int{0, 1, 100, 101, 250} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := serve(t, stripetest.Options{})
			s.PutCustomer(stripetest.Customer{ID: "cus_1"})
			s.PutSubscription(stripetest.Subscription{ID: "sub_foreign", CustomerID: "cus_2"})
			var want []string
			for i := range n {
				id := fmt.Sprintf("sub_%03d", i)
				status := []string{"active", "canceled", "incomplete_expired"}[i%3]
				s.PutSubscription(stripetest.Subscription{ID: id, CustomerID: "cus_1", Status: status, Created: int64(1_700_000_000 + i)})
				want = append(want, id)
			}
			slices.Reverse(want) // newest first
			subs, exists, err := newClient(s).CustomerSubscriptions(t.Context(), "cus_1")
			if err != nil || !exists {
				t.Fatalf("exists %t, error %v", exists, err)
			}
			if diff := cmp.Diff(want, ids(subs)); diff != "" {
				t.Error(diff)
			}
			if got, want := s.Requests().ListSubscriptions, max(1, (n+99)/100); got != want {
				t.Errorf("%d requests, want %d", got, want)
			}
		})
	}
}

func ids(subs []billing.Subscription) []string {
	var all []string
	for _, s := range subs {
		all = append(all, s.ID)
	}
	return all
}

func putMany(s *stripetest.Server, n int) {
	for i := range n {
		s.PutSubscription(stripetest.Subscription{ID: fmt.Sprintf("sub_%03d", i), CustomerID: "cus_1", Created: int64(1_700_000_000 + i)})
	}
}

func TestFailedPageIsNotTheEndOfTheList(t *testing.T) {
	for _, kind := range []stripetest.Kind{
		stripetest.RateLimited, stripetest.LockTimeout, stripetest.InternalError, stripetest.Unavailable, stripetest.Unauthorized,
		stripetest.Forbidden, stripetest.Hang, stripetest.CutConnection, stripetest.TruncatedBody, stripetest.NotJSON,
	} {
		for after := range 3 {
			t.Run(fmt.Sprintf("kind %d on page %d", kind, after+1), func(t *testing.T) {
				s := serve(t, stripetest.Options{})
				putMany(s, 250)
				timeout := 10 * time.Second
				if kind == stripetest.Hang {
					timeout = 200 * time.Millisecond
				}
				c := newClient(s, func(c *stripesource.Config) { c.Timeout = timeout })
				s.AddFault(stripetest.Fault{Endpoint: stripetest.ListSubscriptions, Kind: kind, After: after, Times: 1})
				subs, exists, err := c.CustomerSubscriptions(t.Context(), "cus_1")
				if err == nil || subs != nil || exists {
					t.Errorf("%d subscriptions, exists %t, error %v", len(subs), exists, err)
				}
				if got := s.Requests().Total(); got != after+1 {
					t.Errorf("%d requests, want %d", got, after+1)
				}
			})
		}
	}
}

func TestListWithVanishedCursorIsUnavailable(t *testing.T) {
	s := serve(t, stripetest.Options{})
	putMany(s, 150)
	var once sync.Once
	s.After(func(*http.Request) { once.Do(func() { s.RemoveSubscription("sub_050") }) }) // the last of the first page
	c := newClient(s)
	subs, exists, err := c.CustomerSubscriptions(t.Context(), "cus_1")
	wantFailure(t, err, billing.Unavailable, billing.ReasonStripeUnavailable)
	if subs != nil || exists {
		t.Errorf("%d subscriptions, exists %t", len(subs), exists)
	}
	if subs, _, err = c.CustomerSubscriptions(t.Context(), "cus_1"); err != nil || len(subs) != 149 {
		t.Errorf("the second time: %d subscriptions, error %v", len(subs), err)
	}
}

func TestCustomerThatVanishesBetweenPagesIsAnError(t *testing.T) {
	s := serve(t, stripetest.Options{})
	putMany(s, 150)
	s.After(func(*http.Request) { s.RemoveCustomer("cus_1") })
	subs, exists, err := newClient(s).CustomerSubscriptions(t.Context(), "cus_1")
	wantFailure(t, err, billing.Permanent, billing.ReasonStripeRefused)
	if subs != nil || exists {
		t.Errorf("%d subscriptions, exists %t", len(subs), exists)
	}
}

func TestInconsistentListIsAnError(t *testing.T) {
	const object = `{"object":"subscription","id":"sub_1","livemode":false}`
	tests := []struct{ name, first, second string }{
		{"more but no data", `{"object":"list","data":[],"has_more":true}`, ""},
		{"more but null data", `{"object":"list","data":null,"has_more":true}`, ""},
		{"more but no data on the second page", `{"object":"list","data":[` + object + `],"has_more":true}`, `{"object":"list","data":[],"has_more":true}`},
		{"the same page again", `{"object":"list","data":[` + object + `],"has_more":true}`, `{"object":"list","data":[` + object + `],"has_more":true}`},
		{"has_more missing", `{"object":"list","data":[` + object + `]}`, ""},
		{"has_more null", `{"object":"list","data":[` + object + `],"has_more":null}`, ""},
		{"has_more a text", `{"object":"list","data":[` + object + `],"has_more":"false"}`, ""},
		{"data missing", `{"object":"list","has_more":false}`, ""},
		{"data an object", `{"object":"list","data":{},"has_more":false}`, ""},
		{"another object", `{"object":"search_result","data":[],"has_more":false}`, ""},
		{"null", `null`, ""},
		{"an array", `[]`, ""},
		{"two values", `{"object":"list","data":[],"has_more":false}{}`, ""},
		{"nothing", ``, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			answers := []string{test.first, test.second}
			fake, baseURL := serveThrough(t, func(w http.ResponseWriter, _ *http.Request) bool {
				if len(answers) == 0 {
					t.Error("the list does not end")
					return false
				}
				body := answers[0]
				answers = answers[1:]
				return respond(w, http.StatusOK, body)
			})
			subs, exists, err := newClient(fake, withBaseURL(baseURL)).CustomerSubscriptions(t.Context(), "cus_1")
			wantFailure(t, err, billing.Unavailable, billing.ReasonStripeUnavailable)
			if subs != nil || exists {
				t.Errorf("%d subscriptions, exists %t", len(subs), exists)
			}
		})
	}
}

func TestMissingObjectIsNotAnError(t *testing.T) {
	s := serve(t, stripetest.Options{AccountID: "acct_7"})
	s.PutSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1"})
	s.PutSubscription(stripetest.Subscription{ID: "sub_of_deleted", CustomerID: "cus_deleted"})
	s.DeleteCustomer("cus_deleted")
	c := newClient(s)

	sub, exists, err := c.Subscription(t.Context(), "sub_missing")
	if exists || err != nil || !cmp.Equal(sub, billing.Subscription{}) {
		t.Errorf("missing subscription: %+v, exists %t, error %v", sub, exists, err)
	}
	subs, exists, err := c.CustomerSubscriptions(t.Context(), "cus_missing")
	if exists || err != nil || subs != nil {
		t.Errorf("list of a missing customer: %+v, exists %t, error %v", subs, exists, err)
	}
	subs, exists, err = c.CustomerSubscriptions(t.Context(), "cus_deleted")
	if !exists || err != nil || len(subs) != 1 || subs[0].Status != billing.StatusCanceled {
		t.Errorf("list of a deleted customer: %+v, exists %t, error %v", subs, exists, err)
	}
	for id, want := range map[string]bool{"cus_1": true, "cus_missing": false, "cus_deleted": false} {
		if exists, err := c.CustomerExists(t.Context(), id); exists != want || err != nil {
			t.Errorf("%s: exists %t, error %v", id, exists, err)
		}
	}
	if id, err := c.Account(t.Context()); id != "acct_7" || err != nil {
		t.Errorf("account %q, error %v", id, err)
	}
}

// oddIDs are invalid ids that the database may contain.
var oddIDs = []string{
	"sub 1", "sub+1", "sub%201", "sub%2F1", "sub/1", "../account", "x/../../account", "/account", "sub_1/",
	"sub?status=all", "sub_1?", "sub#1", "sub&limit=1", "sub;1", "sub=1", "süb✓", "sub\\1", "sub\n1", "sub\x001", "sub\xff", "...", "%2e%2e",
	"sub:1", "//evil.example/", strings.Repeat("x", 300),
}

func TestUnusualIDsAreEscaped(t *testing.T) {
	var mu sync.Mutex
	var asked []*http.Request
	fake, baseURL := serveThrough(t, func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r)
		return respond(w, http.StatusNotFound, `{"error":{"type":"invalid_request_error","code":"resource_missing","message":"No such thing","param":"id"}}`)
	})
	c := newClient(fake, withBaseURL(baseURL))
	for _, id := range oddIDs {
		asked = nil
		if _, exists, err := c.Subscription(t.Context(), id); exists || err != nil {
			t.Errorf("subscription %q: exists %t, error %v", id, exists, err)
		}
		if _, exists, err := c.CustomerSubscriptions(t.Context(), id); exists || err != nil {
			t.Errorf("list of %q: exists %t, error %v", id, exists, err)
		}
		if exists, err := c.CustomerExists(t.Context(), id); exists || err != nil {
			t.Errorf("customer %q: exists %t, error %v", id, exists, err)
		}
		if len(asked) != 3 {
			t.Fatalf("%q: %d requests", id, len(asked))
		}
		wantPath(t, asked[0].URL, "/v1/subscriptions/", id)
		wantPath(t, asked[2].URL, "/v1/customers/", id)
		want := url.Values{"customer": {id}, "status": {"all"}, "limit": {"100"}}
		if got := asked[1].URL.Query(); asked[1].URL.EscapedPath() != "/v1/subscriptions" || !cmp.Equal(got, want) {
			t.Errorf("list of %q asked for %s", id, asked[1].URL)
		}
	}
}

// wantPath checks that the id is one segment of the path.
func wantPath(t *testing.T, u *url.URL, prefix, id string) {
	t.Helper()
	segment, ok := strings.CutPrefix(u.EscapedPath(), prefix)
	if !ok || strings.Contains(segment, "/") || u.Path != prefix+id || u.RawQuery != "" {
		t.Errorf("%q was asked for as %s", id, u)
	}
}

// The path of an empty id is that of the list, and servers resolve dots before they route.
func TestIDsThatMakeAnotherPathAreRefused(t *testing.T) {
	s := serve(t, stripetest.Options{})
	c := newClient(s)
	for _, id := range []string{"", ".", "..", "search"} {
		_, exists, err := c.Subscription(t.Context(), id)
		wantFailure(t, err, billing.Permanent, billing.ReasonInvalidSubscription)
		if exists {
			t.Errorf("subscription %q exists", id)
		}
		exists, err = c.CustomerExists(t.Context(), id)
		wantFailure(t, err, billing.Permanent, billing.ReasonInvalidSubscription)
		if exists {
			t.Errorf("customer %q exists", id)
		}
	}
	if n := s.Requests().Total(); n != 0 {
		t.Errorf("%d requests", n)
	}
}

// Without the parameter Stripe would list the whole account.
func TestEmptyCustomerIDIsRefused(t *testing.T) {
	s := serve(t, stripetest.Options{})
	putMany(s, 3)
	subs, exists, err := newClient(s).CustomerSubscriptions(t.Context(), "")
	wantFailure(t, err, billing.Permanent, billing.ReasonStripeRefused)
	if subs != nil || exists {
		t.Errorf("got %v, exists %t", ids(subs), exists)
	}
}

func TestResponseWithAnotherSubscriptionIsRefused(t *testing.T) {
	s := serve(t, stripetest.Options{})
	s.PutSubscription(stripetest.Subscription{ID: "sub\n1", CustomerID: "cus_1", Override: map[string]any{"id": "sub_2"}})
	sub, exists, err := newClient(s).Subscription(t.Context(), "sub\n1")
	wantFailure(t, err, billing.Permanent, billing.ReasonInvalidSubscription)
	if exists || !cmp.Equal(sub, billing.Subscription{}) {
		t.Errorf("exists %t, subscription %+v", exists, sub)
	}
}

func TestOnlyGetRequestsAreSent(t *testing.T) {
	var mu sync.Mutex
	methods := map[string]int{}
	fake, baseURL := serveThrough(t, func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		methods[r.Method]++
		if body, err := io.ReadAll(r.Body); len(body) > 0 || err != nil {
			t.Errorf("%s %s has a body: %q, error %v", r.Method, r.URL, body, err)
		}
		return false
	})
	putMany(fake, 150)
	c := newClient(fake, withBaseURL(baseURL))
	for range 2 {
		for _, r := range reads {
			_ = r.do(t.Context(), c) // sub_1 is missing
		}
		fake.AddFault(stripetest.Fault{Kind: stripetest.InternalError})
	}
	want := map[string]int{http.MethodGet: 7 + 6}
	if diff := cmp.Diff(want, methods); diff != "" {
		t.Error(diff)
	}
}

func TestUsageCountsRequests(t *testing.T) {
	s := serve(t, stripetest.Options{})
	putMany(s, 150)
	c := newClient(s)
	for _, r := range reads {
		_ = r.do(t.Context(), c)
	}
	s.AddFault(stripetest.Fault{Kind: stripetest.RateLimited, Times: 2})
	_ = subscriptionRead.do(t.Context(), c)
	_ = listRead.do(t.Context(), c)
	s.AddFault(stripetest.Fault{Kind: stripetest.LockTimeout, Times: 1})
	_ = subscriptionRead.do(t.Context(), c)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_ = subscriptionRead.do(ended, c) // not sent

	want := billing.Usage{List: 4, Retrieve: 3, Other: 3, Throttled: 2}
	if got := c.TakeUsage(); got != want {
		t.Errorf("used %+v, want %+v", got, want)
	}
	if got := c.TakeUsage(); got != (billing.Usage{}) {
		t.Errorf("taken twice: %+v", got)
	}
	if got := s.Requests(); int64(got.ListSubscriptions+got.ListEvents) != want.List || int64(got.RetrieveSubscription) != want.Retrieve || int64(got.Total()) != 10 {
		t.Errorf("Stripe received %+v", got)
	}
}

func TestUsageIsTakenExactlyOnce(t *testing.T) {
	s := serve(t, stripetest.Options{})
	putMany(s, 1)
	s.AddFault(stripetest.Fault{Kind: stripetest.RateLimited, Probability: 0.3})
	c := newClient(s)
	var mu sync.Mutex
	var sum billing.Usage
	take := func() {
		u := c.TakeUsage()
		mu.Lock()
		defer mu.Unlock()
		sum.List += u.List
		sum.Retrieve += u.Retrieve
		sum.Other += u.Other
		sum.Throttled += u.Throttled
	}
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for range 10 {
				for _, r := range reads {
					_ = r.do(t.Context(), c)
				}
				take()
			}
		})
	}
	workers.Wait()
	take()
	got := s.Requests()
	want := billing.Usage{
		List: int64(got.ListSubscriptions + got.ListEvents), Retrieve: int64(got.RetrieveSubscription),
		Other: int64(got.RetrieveCustomer + got.RetrieveAccount + got.SearchSubscriptions), Throttled: int64(got.Throttled),
	}
	if sum != want || want.List != 160 || want.Throttled == 0 {
		t.Errorf("took %+v, Stripe received %+v", sum, want)
	}
}

func TestWaitingRequestEndsWithItsContext(t *testing.T) {
	s := serve(t, stripetest.Options{})
	c := newClient(s, func(c *stripesource.Config) { c.RPS = 0.0001 })
	read := accountRead
	if err := read.do(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- read.do(ctx, c) }()
	cancel()
	err := <-ended
	wantFailure(t, err, billing.Unavailable, billing.ReasonOutOfTime)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	// The limiter fails at once if the wait would exceed the deadline.
	ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	wantFailure(t, read.do(ctx, c), billing.Unavailable, billing.ReasonOutOfTime)
	if got, used := s.Requests().Total(), c.TakeUsage(); got != 1 || used.Other != 1 {
		t.Errorf("%d requests, used %+v", got, used)
	}
}

func TestEndpointsHaveSeparateLimiters(t *testing.T) {
	s := serve(t, stripetest.Options{})
	c := newClient(s, func(c *stripesource.Config) { c.RPS = 0.0001 })
	for _, r := range reads {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if err := r.do(ctx, c); err != nil { // waiting would take hours and fail at once
			t.Errorf("%s: %v", r.name, err)
		}
		cancel()
	}
}

func TestThrottledEndpointIsLoggedAndSlowedAlone(t *testing.T) {
	fixed := time.Now()
	s := serve(t, stripetest.Options{EndpointRate: 1, Now: func() time.Time { return fixed }})
	s.PutSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1"})
	var log bytes.Buffer
	c := newClient(s, func(c *stripesource.Config) {
		c.RPS = 1000
		c.Log = slog.New(slog.NewJSONHandler(&log, nil))
	})
	retrieve, list := subscriptionRead, listRead
	if err := retrieve.do(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	wantFailure(t, retrieve.do(t.Context(), c), billing.Throttled, billing.ReasonStripeThrottled)
	s.AddFault(stripetest.Fault{Kind: stripetest.RateLimited, Reason: "global-concurrency"})
	wantFailure(t, list.do(t.Context(), c), billing.Throttled, billing.ReasonStripeThrottled)

	type line struct {
		Level, Endpoint, RateLimitedReason string
		RequestsPerSecond                  float64
	}
	want := []line{
		{"WARN", "GET /v1/subscriptions/{id}", "endpoint-rate", 850},
		{"WARN", "GET /v1/subscriptions", "global-concurrency", 850}, // not slowed by the other endpoint's 429
	}
	if diff := cmp.Diff(want, readLog[line](t, &log)); diff != "" {
		t.Error(diff)
	}
}

func readLog[T any](t *testing.T, log io.Reader) []T {
	t.Helper()
	var lines []T
	for d := json.NewDecoder(log); ; {
		var line T
		err := d.Decode(&line)
		if errors.Is(err, io.EOF) {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
}
