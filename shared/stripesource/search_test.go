package stripesource_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

func putNamed(s *stripetest.Server, id, org string) {
	s.PutSubscription(stripetest.Subscription{ID: id, CustomerID: "cus_" + id, Status: "canceled", Metadata: map[string]string{"orgId": org}})
}

// oddOrgs are unusual ids of organizations; a search for each finds only that one.
var oddOrgs = []string{
	"org-1", "org-10", "org 1", `it's`, `it\'s`, `a"b`, `a\`, `\`, `'`, `\\`, `' OR status:'active`, `x'] OR created>0`, "org\n1", "org&limit=1", "org#1", "org%20", "süß✓", "null",
}

func TestSearchFindsSubscriptionsByOrgID(t *testing.T) {
	s := serve(t, stripetest.Options{})
	for i, org := range oddOrgs {
		putNamed(s, fmt.Sprintf("sub_%d", i), org)
	}
	c := newClient(s)
	for i, org := range oddOrgs {
		for _, asked := range []string{org, " " + org + "\n"} {
			ids, available, err := c.SearchByOrgID(t.Context(), asked)
			if diff := cmp.Diff([]string{fmt.Sprintf("sub_%d", i)}, ids); diff != "" || !available || err != nil {
				t.Errorf("%q: available %t, error %v: %s", asked, available, err, diff)
			}
		}
	}
	if ids, available, err := c.SearchByOrgID(t.Context(), "nobody"); ids != nil || !available || err != nil {
		t.Errorf("nobody: %v, available %t, error %v", ids, available, err)
	}
	sent := s.Requests().Total()
	if ids, available, err := c.SearchByOrgID(t.Context(), " \n"); ids != nil || !available || err != nil || s.Requests().Total() != sent {
		t.Errorf("an id of white space: %v, available %t, error %v", ids, available, err)
	}
	if used := c.TakeUsage(); used.Other != int64(s.Requests().SearchSubscriptions) || used.List+used.Retrieve != 0 {
		t.Errorf("used %+v of %+v", used, s.Requests())
	}
}

func TestSearchReadsAllPages(t *testing.T) {
	for n, requests := range map[int]int{0: 1, 100: 1, 101: 2, 250: 3} {
		s := serve(t, stripetest.Options{})
		for i := range n {
			putNamed(s, fmt.Sprintf("sub_%03d", i), "org-1")
		}
		ids, available, err := newClient(s).SearchByOrgID(t.Context(), "org-1")
		if len(ids) != n || !available || err != nil || s.Requests().SearchSubscriptions != requests {
			t.Errorf("of %d: %d in %d requests, available %t, error %v", n, len(ids), s.Requests().SearchSubscriptions, available, err)
		}
		for after := range requests {
			s.AddFault(stripetest.Fault{Endpoint: stripetest.SearchSubscriptions, Kind: stripetest.InternalError, After: after, Times: 1})
			ids, _, err := newClient(s).SearchByOrgID(t.Context(), "org-1")
			wantFailure(t, err, billing.Unavailable, billing.ReasonStripeUnavailable)
			if ids != nil {
				t.Errorf("a failure on page %d: %d ids", after+1, len(ids))
			}
		}
	}
}

func TestInconsistentSearchIsAnError(t *testing.T) {
	const found = `{"object":"subscription","id":"sub_1"}`
	const again = `{"object":"search_result","data":[` + found + `],"has_more":true,"next_page":"p"}`
	for name, test := range map[string]struct {
		responses []string
		class     billing.Class
	}{
		"no next page":        {[]string{`{"object":"search_result","data":[` + found + `],"has_more":true,"next_page":null}`}, billing.Unavailable},
		"the same page again": {[]string{again, again}, billing.Unavailable},
		"a list":              {[]string{`{"object":"list","data":[],"has_more":false}`}, billing.Unavailable},
		"a result has no id":  {[]string{`{"object":"search_result","data":[{}],"has_more":false}`}, billing.Permanent},
		"an id is a number":   {[]string{`{"object":"search_result","data":[{"id":5}],"has_more":false}`}, billing.Permanent},
	} {
		t.Run(name, func(t *testing.T) {
			fake, baseURL := serveThrough(t, func(w http.ResponseWriter, _ *http.Request) bool {
				if len(test.responses) == 0 {
					t.Error("the search does not end")
					return false
				}
				body := test.responses[0]
				test.responses = test.responses[1:]
				return respond(w, http.StatusOK, body)
			})
			ids, _, err := newClient(fake, withBaseURL(baseURL)).SearchByOrgID(t.Context(), "org-1")
			if ids != nil || err == nil || billing.AsFailure(err).Class != test.class {
				t.Errorf("%v, %v", ids, err)
			}
		})
	}
}

// Only the messages that Stripe is known to send for such accounts mean "no search". Any other refusal is an error.
func TestAccountWithoutSearchIsNotAnError(t *testing.T) {
	s := serve(t, stripetest.Options{NoSearch: true})
	putNamed(s, "sub_1", "org-1")
	if ids, available, err := newClient(s).SearchByOrgID(t.Context(), "org-1"); ids != nil || available || err != nil {
		t.Errorf("%v, available %t, error %v", ids, available, err)
	}
	for message, test := range map[string]struct {
		status    int
		available bool
		class     billing.Class // 0: no error
	}{
		"search feature unavailable for merchant":                        {400, false, 0},
		"Search is unavailable to your account.":                         {403, false, 0},
		"We were unable to parse your search query.":                     {400, true, billing.Permanent},
		"The provided key does not have the required permissions.":       {403, true, billing.RunFatal},
		"Invalid API Key provided: the search feature is unavailable":    {401, true, billing.RunFatal},
		"The search feature is temporarily unavailable.":                 {503, true, billing.Unavailable},
		"Too many searches; search is unavailable for some more seconds": {429, true, billing.Throttled},
	} {
		fake, baseURL := serveThrough(t, func(w http.ResponseWriter, _ *http.Request) bool {
			return respond(w, test.status, `{"error":{"type":"invalid_request_error","message":"`+message+`"}}`)
		})
		ids, available, err := newClient(fake, withBaseURL(baseURL)).SearchByOrgID(t.Context(), "org-1")
		if available != test.available || (err == nil) != (test.class == 0) || ids != nil {
			t.Errorf("%s: available %t, error %v", message, available, err)
		}
		if err != nil && billing.AsFailure(err).Class != test.class {
			t.Errorf("%s: %v", message, err)
		}
	}
	// On another endpoint the same message is an error.
	fake, baseURL := serveThrough(t, func(w http.ResponseWriter, _ *http.Request) bool {
		return respond(w, http.StatusBadRequest, `{"error":{"message":"The search feature is temporarily unavailable in your region."}}`)
	})
	_, _, err := newClient(fake, withBaseURL(baseURL)).CustomerSubscriptions(t.Context(), "cus_1")
	wantFailure(t, err, billing.Permanent, billing.ReasonStripeRefused)
}

// The caller retrieves what the search found, and sees its current metadata.
func TestSearchIndexMayBeStale(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := serve(t, stripetest.Options{Now: func() time.Time { return now }, SearchLag: time.Minute})
	c := newClient(s)
	putNamed(s, "sub_1", "org-1")
	if ids, _, err := c.SearchByOrgID(t.Context(), "org-1"); ids != nil || err != nil {
		t.Errorf("at once: %v, %v", ids, err)
	}
	now = now.Add(time.Minute)
	s.UpdateSubscription("sub_1", func(sub *stripetest.Subscription) { sub.Metadata["orgId"] = "org-2" })
	ids, _, err := c.SearchByOrgID(t.Context(), "ORG-1")
	if err != nil || !cmp.Equal(ids, []string{"sub_1"}) {
		t.Fatalf("%v, %v", ids, err)
	}
	if sub, _, err := c.Subscription(t.Context(), ids[0]); sub.OrgID != "org-2" || err != nil {
		t.Errorf("metadata.orgId is %q, %v", sub.OrgID, err)
	}
}

// Search is limited to 20 requests a second, divided by the number of clients.
func TestSearchHasItsOwnLimiter(t *testing.T) {
	for name, test := range map[string]struct {
		rps     float64
		clients int
		search  float64 // requests a second after one 429, which cuts the rate by 15 %
		list    float64
	}{
		"alone":        {100, 0, 17, 85},
		"shared":       {100, 10, 1.7, 8.5},
		"a lower rate": {10, 1, 8.5, 8.5},
		"no limit":     {0, 10, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, stripetest.Options{})
			s.AddFault(stripetest.Fault{Kind: stripetest.RateLimited})
			var log strings.Builder
			c := newClient(s, func(c *stripesource.Config) {
				c.RPS, c.Clients, c.Log = test.rps, test.clients, slog.New(slog.NewJSONHandler(&log, nil))
			})
			_, _, err := c.SearchByOrgID(t.Context(), "org-1")
			wantFailure(t, err, billing.Throttled, billing.ReasonStripeThrottled)
			_, _, err = c.CustomerSubscriptions(t.Context(), "cus_1")
			wantFailure(t, err, billing.Throttled, billing.ReasonStripeThrottled)
			type line struct {
				Endpoint          string
				RequestsPerSecond float64
			}
			want := []line{{"GET /v1/subscriptions/search", test.search}, {"GET /v1/subscriptions", test.list}}
			if diff := cmp.Diff(want, readLog[line](t, strings.NewReader(log.String()))); diff != "" {
				t.Error(diff)
			}
		})
	}
}
