package stripetest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stripe/stripe-go/v76"

	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

func TestFaultsAreErrorsOfStripeGo(t *testing.T) {
	tests := []struct {
		name   string
		fault  stripetest.Fault
		status int
		code   stripe.ErrorCode
		kind   stripe.ErrorType
		reason string
		retry  string
	}{
		{
			"rate limited",
			stripetest.Fault{Kind: stripetest.RateLimited, RetryAfter: 1500 * time.Millisecond},
			429, "rate_limit", "invalid_request_error", "endpoint-rate", "2",
		},
		{
			"concurrency",
			stripetest.Fault{Kind: stripetest.RateLimited, Reason: "global-concurrency"},
			429, "rate_limit", "invalid_request_error", "global-concurrency", "",
		},
		{"lock timeout", stripetest.Fault{Kind: stripetest.LockTimeout}, 429, "lock_timeout", "invalid_request_error", "", ""},
		{"internal", stripetest.Fault{Kind: stripetest.InternalError}, 500, "", "api_error", "", ""},
		{"unavailable", stripetest.Fault{Kind: stripetest.Unavailable, RetryAfter: time.Minute}, 503, "", "api_error", "", "60"},
		{"unauthorized", stripetest.Fault{Kind: stripetest.Unauthorized}, 401, "", "invalid_request_error", "", ""},
		{"forbidden", stripetest.Fault{Kind: stripetest.Forbidden}, 403, "", "invalid_request_error", "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, stripetest.Options{})
			s.AddFault(test.fault)
			_, err := subscriptions(s).Get("sub_1", nil)
			var got *stripe.Error
			if !errors.As(err, &got) {
				t.Fatalf("error %T: %v", err, err)
			}
			if got.HTTPStatusCode != test.status || got.Code != test.code || got.Type != test.kind {
				t.Errorf("status %d, code %q, type %q", got.HTTPStatusCode, got.Code, got.Type)
			}
			header := got.LastResponse.Header
			if header.Get("Stripe-Rate-Limited-Reason") != test.reason || header.Get("Retry-After") != test.retry {
				t.Errorf("reason %q, retry after %q", header.Get("Stripe-Rate-Limited-Reason"), header.Get("Retry-After"))
			}
			if !strings.HasPrefix(got.RequestID, "req_") {
				t.Errorf("request id %q", got.RequestID)
			}
		})
	}
}

func TestFaultsBreakTheResponse(t *testing.T) {
	tests := []struct {
		name string
		kind stripetest.Kind
		is   func(error) bool
	}{
		{"cut connection", stripetest.CutConnection, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"truncated body", stripetest.TruncatedBody, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"not JSON", stripetest.NotJSON, func(err error) bool { // stripe-go has no type for it
			return strings.HasPrefix(err.Error(), "Couldn't deserialize JSON (response status: 200")
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, stripetest.Options{})
			s.PutSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1"})
			s.AddFault(stripetest.Fault{Kind: test.kind})
			_, err := subscriptions(s).Get("sub_1", nil)
			var answered *stripe.Error
			if err == nil || errors.As(err, &answered) || !test.is(err) {
				t.Errorf("error %T: %v", err, err)
			}
		})
	}
}

func TestForbiddenNamesThePermission(t *testing.T) {
	s := start(t, stripetest.Options{Key: "rk_test_0123456789abcd", AccountID: "acct_7"})
	s.AddFault(stripetest.Fault{Kind: stripetest.Forbidden, Endpoint: stripetest.RetrieveAccount})
	_, _, body := get(t, s, "/v1/account")
	got := decode[errorBody](t, body).Error.Message
	for _, want := range []string{"'rk_test_**********abcd'", "'acct_7'", "'rak_accounts_kyc_basic_read'"} {
		if !strings.Contains(got, want) {
			t.Errorf("message %q lacks %s", got, want)
		}
	}
	if status, _, _ := get(t, s, "/v1/subscriptions"); status != http.StatusOK {
		t.Errorf("another endpoint: status %d", status)
	}
}

func TestCutConnectionIsNotRetriedByGo(t *testing.T) {
	s := start(t, stripetest.Options{})
	client := &http.Client{Transport: &http.Transport{}}
	read := func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL()+"/v1/account", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(s.Key(), "")
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		_, err = io.Copy(io.Discard, res.Body)
		return err
	}
	if err := read(); err != nil { // leaves a connection that can be reused
		t.Fatal(err)
	}
	s.AddFault(stripetest.Fault{Kind: stripetest.CutConnection, Times: 1})
	if err := read(); err == nil {
		t.Error("the cut went unseen")
	}
	if got := s.Requests().RetrieveAccount; got != 2 {
		t.Errorf("%d requests, want 2", got)
	}
}

func TestHangLastsUntilTheClientDisconnects(t *testing.T) {
	s := start(t, stripetest.Options{})
	s.AddFault(stripetest.Fault{Kind: stripetest.Hang})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := subscriptions(s).Get("sub_1", &stripe.SubscriptionParams{Params: stripe.Params{Context: ctx}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestHangLastsUntilTheServerCloses(t *testing.T) {
	s := start(t, stripetest.Options{})
	s.AddFault(stripetest.Fault{Kind: stripetest.Hang})
	failed := make(chan error)
	go func() {
		_, err := subscriptions(s).Get("sub_1", nil)
		failed <- err
	}()
	for s.Requests().RetrieveSubscription == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; err == nil {
		t.Error("a hanging request succeeded")
	}
}

func TestFaultAppliesToItsEndpointAndCount(t *testing.T) {
	const one, all = "/v1/subscriptions/sub_1", "/v1/subscriptions"
	tests := []struct {
		name   string
		faults []stripetest.Fault
		paths  []string
		want   []int
	}{
		{"every one", []stripetest.Fault{{Kind: stripetest.InternalError}}, []string{one, all, one}, []int{500, 500, 500}},
		{"times", []stripetest.Fault{{Kind: stripetest.InternalError, Times: 2}}, []string{one, one, one}, []int{500, 500, 200}},
		{"after", []stripetest.Fault{{Kind: stripetest.InternalError, After: 1, Times: 1}}, []string{one, one, one}, []int{200, 500, 200}},
		{
			"one endpoint",
			[]stripetest.Fault{{Kind: stripetest.InternalError, Endpoint: stripetest.ListSubscriptions, After: 1}},
			[]string{one, one, all, one, all},
			[]int{200, 200, 200, 200, 500},
		},
		{
			"in order",
			[]stripetest.Fault{{Kind: stripetest.InternalError, Times: 1}, {Kind: stripetest.Unavailable, Times: 1}},
			[]string{one, one, one},
			[]int{500, 503, 200},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, stripetest.Options{})
			s.PutSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1"})
			for _, fault := range test.faults {
				s.AddFault(fault)
			}
			var got []int
			for _, path := range test.paths {
				status, _, _ := get(t, s, path)
				got = append(got, status)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			s.ClearFaults()
			if status, _, _ := get(t, s, one); status != http.StatusOK {
				t.Errorf("after ClearFaults: status %d", status)
			}
		})
	}
}

func TestFaultsWithProbabilityDependOnTheSeed(t *testing.T) {
	run := func(seed uint64) (statuses []int, failures int) {
		s := start(t, stripetest.Options{Seed: seed})
		s.AddFault(stripetest.Fault{Kind: stripetest.InternalError, Probability: 0.3})
		for range 100 {
			status, _, _ := get(t, s, "/v1/account")
			statuses = append(statuses, status)
			if status == http.StatusInternalServerError {
				failures++
			}
		}
		return statuses, failures
	}
	first, failures := run(7)
	if again, _ := run(7); !cmp.Equal(first, again) {
		t.Error("the same seed gave other failures")
	}
	if other, _ := run(8); cmp.Equal(first, other) {
		t.Error("another seed gave the same failures")
	}
	if failures < 15 || failures > 45 {
		t.Errorf("%d of 100 failed, want about 30", failures)
	}
}
