package stripesource_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

func TestFaultsAreClassifiedAndNotRetried(t *testing.T) {
	tests := []struct {
		name        string
		fault       stripetest.Fault
		class       billing.Class
		reason      billing.Reason
		retryAfter  time.Duration
		throttled   int64
		noRequestID bool // the response has no request id
		wantText    string
	}{
		{
			name: "rate limit", fault: stripetest.Fault{Kind: stripetest.RateLimited},
			class: billing.Throttled, reason: billing.ReasonStripeThrottled, throttled: 1, wantText: "429 rate_limit",
		},
		{
			name: "rate limit with Retry-After", fault: stripetest.Fault{Kind: stripetest.RateLimited, RetryAfter: 3 * time.Second},
			class: billing.Throttled, reason: billing.ReasonStripeThrottled, retryAfter: 3 * time.Second, throttled: 1, wantText: "429",
		},
		{
			name: "lock timeout", fault: stripetest.Fault{Kind: stripetest.LockTimeout, RetryAfter: time.Second},
			class: billing.Unavailable, reason: billing.ReasonStripeUnavailable, retryAfter: time.Second, wantText: "429 lock_timeout",
		},
		{
			name: "500", fault: stripetest.Fault{Kind: stripetest.InternalError},
			class: billing.Unavailable, reason: billing.ReasonStripeUnavailable, wantText: "500",
		},
		{
			name: "503 with a long Retry-After", fault: stripetest.Fault{Kind: stripetest.Unavailable, RetryAfter: time.Hour},
			class: billing.Unavailable, reason: billing.ReasonStripeUnavailable, retryAfter: time.Minute, wantText: "503",
		},
		{
			name: "hang", fault: stripetest.Fault{Kind: stripetest.Hang},
			class: billing.Unavailable, reason: billing.ReasonStripeUnavailable, noRequestID: true, wantText: "cannot be reached",
		},
		{
			name: "cut connection", fault: stripetest.Fault{Kind: stripetest.CutConnection},
			class: billing.Unavailable, reason: billing.ReasonStripeUnavailable, noRequestID: true, wantText: "cannot be reached",
		},
		{
			name: "truncated body", fault: stripetest.Fault{Kind: stripetest.TruncatedBody},
			class: billing.Unavailable, reason: billing.ReasonStripeUnavailable, noRequestID: true, wantText: "cannot be reached",
		},
		{
			name: "a page of HTML", fault: stripetest.Fault{Kind: stripetest.NotJSON},
			class: billing.Unavailable, reason: billing.ReasonStripeUnavailable, noRequestID: true, wantText: "We will be back soon",
		},
		{
			name: "revoked key", fault: stripetest.Fault{Kind: stripetest.Unauthorized},
			class: billing.RunFatal, reason: billing.ReasonStripeUnauthorized, wantText: "STRIPE_SECRET_KEY",
		},
		{
			name: "missing permission", fault: stripetest.Fault{Kind: stripetest.Forbidden},
			class: billing.RunFatal, reason: billing.ReasonStripeForbidden, wantText: "Having the 'rak_",
		},
	}
	for _, test := range tests {
		for _, r := range reads {
			t.Run(test.name+"/"+r.name, func(t *testing.T) {
				const key = "rk_test_0123456789abcdefghij" // secret-scan:allow a made-up key that must not be shown
				s := serve(t, stripetest.Options{Key: key})
				s.AddFault(test.fault)
				c := newClient(s, func(c *stripesource.Config) {
					if test.fault.Kind == stripetest.Hang {
						c.Timeout = 100 * time.Millisecond
					}
				})
				err := r.do(t.Context(), c)
				wantFailure(t, err, test.class, test.reason)
				if got := billing.AsFailure(err).RetryAfter; got != test.retryAfter {
					t.Errorf("retry after %v, want %v", got, test.retryAfter)
				}
				if strings.Contains(err.Error(), key) {
					t.Errorf("the error shows the key: %v", err)
				}
				if got := strings.Contains(err.Error(), "req_00000000000001"); got == test.noRequestID {
					t.Errorf("the error has the request id: %t, want %t: %v", got, !test.noRequestID, err)
				}
				if !strings.Contains(err.Error(), test.wantText) {
					t.Errorf("the error does not say %q: %v", test.wantText, err)
				}
				if got := s.Requests().Total(); got != 1 {
					t.Errorf("%d requests, want 1", got)
				}
				used := c.TakeUsage()
				if sent := used.List + used.Retrieve + used.Other; sent != 1 || used.Throttled != test.throttled {
					t.Errorf("used %+v", used)
				}
			})
		}
	}
}

func TestRequestEndsWithItsContext(t *testing.T) {
	for _, r := range reads {
		t.Run(r.name, func(t *testing.T) {
			s := serve(t, stripetest.Options{})
			s.AddFault(stripetest.Fault{Kind: stripetest.Hang})
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			err := r.do(ctx, newClient(s))
			wantFailure(t, err, billing.Unavailable, billing.ReasonOutOfTime)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestUnreachableServerIsUnavailable(t *testing.T) {
	s := serve(t, stripetest.Options{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantFailure(t, subscriptionRead.do(t.Context(), newClient(s)), billing.Unavailable, billing.ReasonStripeUnavailable)
}

func TestRetryAfterIsBounded(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"":                              0,
		"0":                             0,
		"7":                             7 * time.Second,
		"60":                            time.Minute,
		"61":                            time.Minute,
		"99999999999":                   time.Minute, // overflows time.Duration
		"-5":                            0,
		"soon":                          0,
		"1.5":                           0,
		"Wed, 21 Oct 2026 07:28:00 GMT": 0,
	} {
		fake, baseURL := serveThrough(t, func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Retry-After", header)
			return respond(w, http.StatusTooManyRequests, `{"error":{"code":"rate_limit","message":"slow down"}}`)
		})
		err := subscriptionRead.do(t.Context(), newClient(fake, withBaseURL(baseURL)))
		wantFailure(t, err, billing.Throttled, billing.ReasonStripeThrottled)
		if got := billing.AsFailure(err).RetryAfter; got != want {
			t.Errorf("Retry-After %q: wait %v, want %v", header, got, want)
		}
	}
}

func TestUnusualResponsesAreClassified(t *testing.T) {
	tests := []struct {
		name   string
		status int
		body   string
		class  billing.Class
		reason billing.Reason
	}{
		{"a load balancer's page", 502, "<html>\r\n\t<h1>502</h1>\v\r\n</html>", billing.Unavailable, billing.ReasonStripeUnavailable},
		{"a long page cut inside a UTF-8 character", 503, strings.Repeat("é", 5000), billing.Unavailable, billing.ReasonStripeUnavailable},
		{"an object without an error", 500, "{\n  \"message\":\n\"down\"\n}", billing.Unavailable, billing.ReasonStripeUnavailable},
		{"a long object without an error", 500, `{"message":"` + strings.Repeat("x", 100_000) + `"}`, billing.Unavailable, billing.ReasonStripeUnavailable},
		{"an empty body", 500, "", billing.Unavailable, billing.ReasonStripeUnavailable},
		{"null", 500, "null", billing.Unavailable, billing.ReasonStripeUnavailable},
		{"an empty body with status 200", 200, "", billing.Unavailable, billing.ReasonStripeUnavailable},
		{"a message of many lines", 400, `{"error":{"code":"a\nb","message":"one\ntwo\u0000\u001b[31m"}}`, billing.Permanent, billing.ReasonStripeRefused},
		{"a conflict", 409, `{"error":{"message":"try again"}}`, billing.Unavailable, billing.ReasonStripeUnavailable},
		{"an unknown route", 404, `{"error":{"message":"Unrecognized request URL"}}`, billing.Permanent, billing.ReasonStripeRefused},
	}
	for _, test := range tests {
		for _, r := range reads {
			t.Run(test.name+"/"+r.name, func(t *testing.T) {
				fake, baseURL := serveThrough(t, func(w http.ResponseWriter, _ *http.Request) bool {
					return respond(w, test.status, test.body)
				})
				err := r.do(t.Context(), newClient(fake, withBaseURL(baseURL)))
				wantFailure(t, err, test.class, test.reason)
				if !utf8.ValidString(err.Error()) || len(err.Error()) > 2000 {
					t.Errorf("%d bytes, valid UTF-8 %t", len(err.Error()), utf8.ValidString(err.Error()))
				}
			})
		}
	}
}

func TestIDFromOtherStripeModeIsPermanentError(t *testing.T) {
	for _, live := range []bool{false, true} {
		s := serve(t, stripetest.Options{LiveMode: live})
		s.PutSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1"})
		c := newClient(s, func(c *stripesource.Config) {
			c.LiveMode = !live
			c.Key = "sk_live_stripetest"
			if live {
				c.Key = "sk_test_stripetest"
			}
		})
		for _, r := range objectReads {
			wantFailure(t, r.do(t.Context(), c), billing.Permanent, billing.ReasonOtherMode)
		}
		if err := accountRead.do(t.Context(), c); err != nil { // one account has both modes
			t.Error(err)
		}
		if _, exists, err := c.Subscription(t.Context(), "sub_missing"); exists || err != nil {
			t.Errorf("missing in both modes: exists %t, error %v", exists, err)
		}
	}
}

// The cursor comes from the previous page. If it exists in the other mode only, the key has changed.
func TestCursorFromOtherStripeModeIsRunFatal(t *testing.T) {
	served := 0
	fake, baseURL := serveThrough(t, func(w http.ResponseWriter, _ *http.Request) bool {
		served++
		if served == 1 {
			return false // the fake serves the first page
		}
		return respond(w, http.StatusBadRequest, `{"error":{"type":"invalid_request_error","code":"resource_missing","param":"starting_after",`+
			`"message":"No such subscription: 'sub_050'; a similar object exists in test mode, but a live mode key was used to make this request."}}`)
	})
	putMany(fake, 150)
	_, _, err := newClient(fake, withBaseURL(baseURL)).CustomerSubscriptions(t.Context(), "cus_1")
	wantFailure(t, err, billing.RunFatal, billing.ReasonWrongMode)
}

func TestObjectOfOtherStripeModeIsRunFatal(t *testing.T) {
	for _, live := range []bool{false, true} {
		other := !live
		s := serve(t, stripetest.Options{LiveMode: live})
		s.PutCustomer(stripetest.Customer{ID: "cus_1", LiveMode: &other})
		s.PutCustomer(stripetest.Customer{ID: "cus_2", LiveMode: &other, Deleted: true})
		s.PutSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1", LiveMode: &other})
		c := newClient(s)
		for _, r := range objectReads {
			err := r.do(t.Context(), c)
			wantFailure(t, err, billing.RunFatal, billing.ReasonWrongMode)
			if !strings.Contains(err.Error(), "_1") {
				t.Errorf("the error does not name the object: %v", err)
			}
		}
		if exists, err := c.CustomerExists(t.Context(), "cus_2"); exists || err != nil {
			t.Errorf("a deleted customer, which has no mode: exists %t, error %v", exists, err)
		}
	}
}

func TestUnreadableObjectIsPermanentError(t *testing.T) {
	raw := func(text string) stripetest.Subscription { return stripetest.Subscription{Raw: json.RawMessage(text)} }
	with := func(name string, value any) stripetest.Subscription {
		return stripetest.Subscription{Override: map[string]any{name: value}}
	}
	tests := map[string]stripetest.Subscription{
		"status is a number":                         with("status", 5),
		"customer is a number":                       with("customer", 5),
		"customer's id is a number":                  with("customer", map[string]any{"id": 5}),
		"created is a string":                        with("created", "2026-01-01"),
		"created is huge":                            with("created", json.RawMessage("1e30")),
		"trial end is beyond int64":                  with("trial_end", json.RawMessage("9223372036854775808")),
		"period end has a fraction":                  with("current_period_end", json.RawMessage("1700000000.5")),
		"cancel_at_period_end is a string":           with("cancel_at_period_end", "no"),
		"items is an array":                          with("items", []any{}),
		"price is an id":                             with("items", map[string]any{"data": []any{map[string]any{"price": "price_1"}}}),
		"plan is an id":                              with("items", map[string]any{"data": []any{map[string]any{"plan": "plan_1"}}}),
		"product is a number":                        with("items", map[string]any{"data": []any{map[string]any{"price": map[string]any{"id": "price_1", "product": 5}}}}),
		"has_more is a string":                       with("items", map[string]any{"data": []any{}, "has_more": "no"}),
		"cancel_at is a string":                      with("cancel_at", "2026-01-01"),
		"pause_collection is a string":               with("pause_collection", "void"),
		"metadata is an array":                       with("metadata", []any{}),
		"metadata.orgId is an array":                 with("metadata", map[string]any{"orgId": []string{"a"}}),
		"id is empty":                                with("id", ""),
		"id is null":                                 with("id", nil),
		"id is a number":                             with("id", 1),
		"livemode is null":                           with("livemode", nil),
		"livemode is a string":                       with("livemode", "true"),
		"livemode is missing":                        raw(`{"object":"subscription","id":"sub_1","status":"active"}`),
		"deleted":                                    raw(`{"object":"subscription","id":"sub_1","deleted":true}`),
		"a line break in an id, livemode is missing": raw(`{"object":"subscription","id":"sub\n1"}`),
		"a line break in an id, status is a number":  raw(`{"object":"subscription","id":"sub\n1","status":5,"livemode":false}`),
	}
	for name, sub := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t, stripetest.Options{})
			sub.ID, sub.CustomerID = "sub_1", "cus_1"
			s.PutSubscription(sub)
			c := newClient(s)
			got, exists, err := c.Subscription(t.Context(), "sub_1")
			wantFailure(t, err, billing.Permanent, billing.ReasonInvalidSubscription)
			if exists || !cmp.Equal(got, billing.Subscription{}) {
				t.Errorf("exists %t, got %+v", exists, got)
			}
			if !strings.Contains(err.Error(), "nothing was written") {
				t.Errorf("error %v", err)
			}
			subs, exists, err := c.CustomerSubscriptions(t.Context(), "cus_1")
			wantFailure(t, err, billing.Permanent, billing.ReasonInvalidSubscription)
			if exists || subs != nil {
				t.Errorf("the list has %v, exists %t", ids(subs), exists)
			}
		})
	}
}

// A proxy may have sent a response that is not the object asked for. As an element of a valid list the same JSON is a
// permanent error.
func TestResponseOfAnotherKindIsUnavailable(t *testing.T) {
	for name, body := range map[string]string{
		"an empty object":            `{}`,
		"null":                       `null`,
		"an array":                   `[]`,
		"a string":                   `"sub_1"`,
		"a number":                   `1`,
		"a proxy's response":         `{"status":"ok"}`,
		"a deleted thing":            `{"id":"sub_1","deleted":true}`,
		"another type":               `{"object":"invoice","id":"sub_1","livemode":false}`,
		"no type":                    `{"object":null,"id":"sub_1","livemode":false}`,
		"a number as type":           `{"object":1,"id":"sub_1","livemode":false}`,
		"line breaks in id and type": `{"object":"a\nb","id":"sub\n1","livemode":false}`,
		"a long response":            `{"object":"` + strings.Repeat("x", 10_000) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			fake, baseURL := serveThrough(t, func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/v1/subscriptions" {
					return respond(w, http.StatusOK, `{"object":"list","has_more":false,"data":[`+body+`]}`)
				}
				return respond(w, http.StatusOK, body)
			})
			c := newClient(fake, withBaseURL(baseURL))
			for _, r := range []read{subscriptionRead, customerRead, accountRead} {
				err := r.do(t.Context(), c)
				wantFailure(t, err, billing.Unavailable, billing.ReasonStripeUnavailable)
				if len(err.Error()) > 2000 {
					t.Errorf("%s: %d bytes", r.name, len(err.Error()))
				}
			}
			wantFailure(t, listRead.do(t.Context(), c), billing.Permanent, billing.ReasonInvalidSubscription)
		})
	}
}

func TestUnreadableCustomersAndAccountsAreErrors(t *testing.T) {
	tests := []struct {
		name, body string
		r          read
		class      billing.Class
		reason     billing.Reason
	}{
		{"customer without livemode", `{"object":"customer","id":"cus_1"}`, customerRead, billing.Permanent, billing.ReasonInvalidSubscription},
		{"customer with a string for deleted", `{"object":"customer","id":"cus_1","deleted":"yes","livemode":false}`, customerRead, billing.Permanent, billing.ReasonInvalidSubscription},
		{"account without id", `{"object":"account"}`, accountRead, billing.Unavailable, billing.ReasonStripeUnavailable},
		{"account with a number for id", `{"object":"account","id":7}`, accountRead, billing.Unavailable, billing.ReasonStripeUnavailable},
		{"account array", `["acct_1"]`, accountRead, billing.Unavailable, billing.ReasonStripeUnavailable},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fake, baseURL := serveThrough(t, func(w http.ResponseWriter, _ *http.Request) bool {
				return respond(w, http.StatusOK, test.body)
			})
			wantFailure(t, test.r.do(t.Context(), newClient(fake, withBaseURL(baseURL))), test.class, test.reason)
		})
	}
}

// Valid but unusual objects are returned; billing.Rules.Plan decides whether they can be written.
func TestUnusualButReadableObjectsAreReturned(t *testing.T) {
	tests := map[string]struct {
		sub        stripetest.Subscription
		wantReason billing.Reason // of Rules.Plan; "" if it succeeds
	}{
		"no items":                        {stripetest.Subscription{Items: []stripetest.Item{}}, billing.ReasonInvalidSubscription},
		"null price":                      {stripetest.Subscription{PriceID: ""}, billing.ReasonInvalidSubscription},
		"null item":                       {stripetest.Subscription{Override: map[string]any{"items": map[string]any{"data": []any{nil}}}}, billing.ReasonInvalidSubscription},
		"null customer":                   {stripetest.Subscription{PriceID: "price_1", Override: map[string]any{"customer": nil}}, billing.ReasonInvalidSubscription},
		"period end is the largest int64": {stripetest.Subscription{PriceID: "price_1", Override: map[string]any{"current_period_end": json.RawMessage("9223372036854775807")}}, billing.ReasonInvalidSubscription},
		"created is the smallest int64":   {stripetest.Subscription{PriceID: "price_1", Override: map[string]any{"created": json.RawMessage("-9223372036854775808")}}, billing.ReasonInvalidSubscription},
		"the year 1":                      {stripetest.Subscription{PriceID: "price_1", Override: map[string]any{"trial_end": json.RawMessage("-62135596800")}}, billing.ReasonInvalidSubscription},
		"an unknown status":               {stripetest.Subscription{PriceID: "price_1", Override: map[string]any{"status": "hibernating"}}, billing.ReasonUnknownStatus},
		"no status":                       {stripetest.Subscription{PriceID: "price_1", Override: map[string]any{"status": ""}}, billing.ReasonUnknownStatus},
		"expanded customer":               {stripetest.Subscription{PriceID: "price_1", Override: map[string]any{"customer": map[string]any{"id": "cus_1", "deleted": true}}}, ""},
		"unknown properties":              {stripetest.Subscription{PriceID: "price_1", Override: map[string]any{"new": map[string]any{"id": 1}}}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t, stripetest.Options{})
			test.sub.ID, test.sub.CustomerID = "sub_1", "cus_1"
			s.PutSubscription(test.sub)
			sub, exists, err := newClient(s).Subscription(t.Context(), "sub_1")
			if err != nil || !exists || sub.ID != "sub_1" {
				t.Fatalf("%+v, exists %t, error %v", sub, exists, err)
			}
			id := "sub_1"
			_, err = billing.Rules{Prices: map[string]billing.Tier{"price_1": billing.TierStarter}}.Plan(billing.Truth{Subscriptions: []billing.Subscription{sub}},
				billing.Record{Org: billing.Organization{ID: "org-1"}, Rows: []billing.Row{{ID: "row-1", SubscriptionID: &id}}})
			if test.wantReason == "" {
				if err != nil || sub.CustomerID != "cus_1" {
					t.Errorf("customer %q, error %v", sub.CustomerID, err)
				}
				return
			}
			wantFailure(t, err, billing.Permanent, test.wantReason)
		})
	}
}
