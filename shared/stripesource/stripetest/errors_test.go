package stripetest_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

type errorBody struct {
	Error struct {
		Code          string
		DocURL        string `json:"doc_url"`
		Message       string
		Param         string
		RequestLogURL string `json:"request_log_url"`
		Type          string
	}
}

func TestErrorsHaveStripesFormat(t *testing.T) {
	s := start(t, stripetest.Options{})
	s.PutSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1"})
	tests := []struct {
		path    string
		status  int
		code    string
		param   string
		message string // prefix
	}{
		{"/v1/subscriptions/sub_x", 404, "resource_missing", "id", "No such subscription: 'sub_x'"},
		{"/v1/customers/cus_x", 404, "resource_missing", "id", "No such customer: 'cus_x'"},
		{"/v1/subscriptions?customer=cus_x", 400, "resource_missing", "customer", "No such customer: 'cus_x'"},
		{"/v1/subscriptions?starting_after=sub_x", 400, "resource_missing", "starting_after", "No such subscription: 'sub_x'"},
		{"/v1/subscriptions?ending_before=sub_x", 400, "resource_missing", "ending_before", "No such subscription: 'sub_x'"},
		{"/v1/subscriptions?starting_after=sub_1&ending_before=sub_1", 400, "", "ending_before", "You cannot pass both"},
		{"/v1/subscriptions?customer=", 400, "parameter_invalid_empty", "customer", "You passed an empty string for 'customer'"},
		{"/v1/subscriptions?limit=0", 400, "parameter_invalid_integer", "limit", "This value must be greater than or equal to 1."},
		{"/v1/subscriptions?limit=101", 400, "parameter_invalid_integer", "limit", "This value must be less than or equal to 100"},
		{"/v1/subscriptions?limit=ten", 400, "parameter_invalid_integer", "limit", "Invalid integer: ten"},
		{"/v1/subscriptions?created[gt]=today", 400, "parameter_invalid_integer", "created[gt]", "Invalid integer: today"},
		{"/v1/subscriptions?status=lapsed", 400, "", "status", "Invalid status: must be one of active"},
		{"/v1/subscriptions?price=price_1", 400, "parameter_unknown", "price", "Received unknown parameter: price"},
		{"/v1/subscriptions/sub_1?expand[]=customer", 400, "parameter_unknown", "expand[]", "Received unknown parameter: expand[]"},
		{"/v1/invoices", 404, "", "", "Unrecognized request URL (GET: /v1/invoices)."},
		{"/v1/subscriptions/sub_1/discount", 404, "", "", "Unrecognized request URL"},
		{"/v1/subscriptions/", 404, "", "", "Unrecognized request URL"},
	}
	for _, test := range tests {
		t.Run(test.path, func(t *testing.T) {
			status, header, body := get(t, s, test.path)
			got := decode[errorBody](t, body).Error
			if status != test.status || got.Code != test.code || got.Param != test.param {
				t.Errorf("status %d, code %q, param %q; want %d, %q, %q", status, got.Code, got.Param, test.status, test.code, test.param)
			}
			if !strings.HasPrefix(got.Message, test.message) {
				t.Errorf("message %q, want %q", got.Message, test.message)
			}
			if got.Type != "invalid_request_error" {
				t.Errorf("type %q", got.Type)
			}
			if (got.Code == "") != (got.DocURL == "") || !strings.HasSuffix(got.RequestLogURL, header.Get("Request-Id")) {
				t.Errorf("doc_url %q, request_log_url %q", got.DocURL, got.RequestLogURL)
			}
		})
	}
}

func TestResponsesHaveStripesHeaders(t *testing.T) {
	s := start(t, stripetest.Options{})
	for _, path := range []string{"/v1/account", "/v1/subscriptions/sub_x"} {
		_, header, _ := get(t, s, path)
		if got := header.Get("Content-Type"); got != "application/json" {
			t.Errorf("%s: Content-Type %q", path, got)
		}
		if got := header.Get("Stripe-Version"); got != "2023-10-16" {
			t.Errorf("%s: Stripe-Version %q", path, got)
		}
		if got := header.Get("Request-Id"); !strings.HasPrefix(got, "req_") {
			t.Errorf("%s: Request-Id %q", path, got)
		}
	}
}

func TestKeysAreAuthenticated(t *testing.T) {
	const key = "sk_test_0123456789abcd"
	s := start(t, stripetest.Options{Key: key})
	basic := func(user string) http.Header {
		r := &http.Request{Header: http.Header{}}
		r.SetBasicAuth(user, "")
		return r.Header
	}
	bearer := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	tests := []struct {
		name    string
		header  http.Header
		status  int
		message string
	}{
		{"bearer", bearer(key), 200, ""},
		{"basic", basic(key), 200, ""},
		{"none", http.Header{}, 401, "You did not provide an API key."},
		{"other scheme", http.Header{"Authorization": {"Digest x"}}, 401, "You did not provide an API key."},
		{"wrong", bearer("sk_test_wrongkey1234"), 401, "Invalid API Key provided: sk_test_********1234"},
		{"wrong, of the other mode", basic("rk_live_wrongkey1234"), 401, "Invalid API Key provided: rk_live_********1234"},
		{"no key at all", bearer("hello"), 401, "Invalid API Key provided: *ello"},
		{"too short to show", bearer("sk_test_1"), 401, "Invalid API Key provided: *********"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			status, _, body := send(t, s, http.MethodGet, "/v1/account", test.header)
			got := decode[errorBody](t, body).Error
			if status != test.status || !strings.HasPrefix(got.Message, test.message) {
				t.Errorf("status %d, message %q; want %d, %q", status, got.Message, test.status, test.message)
			}
			if got.RequestLogURL != "" {
				t.Errorf("a refused key got a log: %s", got.RequestLogURL)
			}
		})
	}
}

func TestKeyOfTheOtherModeFindsNothing(t *testing.T) {
	tests := []struct {
		name        string
		live        bool
		key, suffix string
	}{
		{"test key, live objects", true, "sk_test_stripetest", "; a similar object exists in live mode, but a test mode key was used to make this request."},
		{"live key, test objects", false, "sk_live_stripetest", "; a similar object exists in test mode, but a live mode key was used to make this request."},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, stripetest.Options{LiveMode: test.live})
			s.PutSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1"})
			header := http.Header{"Authorization": {"Bearer " + test.key}}
			for path, want := range map[string]string{
				"/v1/subscriptions/sub_1":                "No such subscription: 'sub_1'" + test.suffix,
				"/v1/customers/cus_1":                    "No such customer: 'cus_1'" + test.suffix,
				"/v1/subscriptions?customer=cus_1":       "No such customer: 'cus_1'" + test.suffix,
				"/v1/subscriptions?starting_after=sub_1": "No such subscription: 'sub_1'" + test.suffix,
				"/v1/subscriptions/sub_x":                "No such subscription: 'sub_x'",
				"/v1/subscriptions?customer=cus_x":       "No such customer: 'cus_x'",
			} {
				status, _, body := send(t, s, http.MethodGet, path, header)
				got := decode[errorBody](t, body).Error
				if status < 400 || got.Code != "resource_missing" || got.Message != want {
					t.Errorf("%s: status %d, code %q, message %q", path, status, got.Code, got.Message)
				}
			}
			status, _, body := send(t, s, http.MethodGet, "/v1/subscriptions", header)
			if got := decode[listAnswer](t, body).ids(); status != http.StatusOK || !cmp.Equal(got, []string{}) {
				t.Errorf("list: status %d, %v", status, got)
			}
		})
	}
}

func TestWritesAreRefused(t *testing.T) {
	s := start(t, stripetest.Options{})
	for _, method := range []string{http.MethodPost, http.MethodDelete, http.MethodHead} {
		status, header, _ := send(t, s, method, "/v1/subscriptions", http.Header{"Authorization": {"Bearer " + s.Key()}})
		if status != http.StatusMethodNotAllowed || header.Get("Allow") != http.MethodGet {
			t.Errorf("%s: status %d, Allow %q", method, status, header.Get("Allow"))
		}
	}
}

func TestOtherAPIVersionsAreRefused(t *testing.T) {
	s := start(t, stripetest.Options{})
	for version, want := range map[string]int{"2023-10-16": 200, "2025-03-31.basil": 400} {
		header := http.Header{"Authorization": {"Bearer " + s.Key()}, "Stripe-Version": {version}}
		if status, _, body := send(t, s, http.MethodGet, "/v1/account", header); status != want {
			t.Errorf("%s: status %d, want %d: %s", version, status, want, body)
		}
	}
}
