package stripetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

const (
	typeInvalidRequest = "invalid_request_error"
	typeAPI            = "api_error"

	codeMissing        = "resource_missing"
	codeUnknownParam   = "parameter_unknown"
	codeMissingParam   = "parameter_missing"
	codeInvalidEmpty   = "parameter_invalid_empty"
	codeInvalidInteger = "parameter_invalid_integer"
	codeRateLimit      = "rate_limit"
	codeLockTimeout    = "lock_timeout"
)

// An apiError is a Stripe error: the body's "error" object and its status.
type apiError struct {
	Code          string `json:"code,omitempty"`
	DocURL        string `json:"doc_url,omitempty"`
	Message       string `json:"message"`
	Param         string `json:"param,omitempty"`
	RequestLogURL string `json:"request_log_url,omitempty"`
	Type          string `json:"type"`

	status int
	reason string // Stripe-Rate-Limited-Reason
}

func newError(status int, code, message string) *apiError {
	e := &apiError{status: status, Code: code, Message: message, Type: typeInvalidRequest}
	if code != "" {
		e.DocURL = "https://stripe.com/docs/error-codes/" + strings.ReplaceAll(code, "_", "-")
	}
	if status >= http.StatusInternalServerError {
		e.Type = typeAPI
	}
	return e
}

func errParam(code, param, message string) *apiError {
	e := newError(http.StatusBadRequest, code, message)
	e.Param = param
	return e
}

// errMissing has status 404 for an id in the path and 400 for a parameter.
func errMissing(status int, kind, param, id string) *apiError {
	e := newError(status, codeMissing, fmt.Sprintf("No such %s: '%s'", kind, id))
	e.Param = param
	return e
}

// inOtherMode adds to a missing object that it exists in the other mode.
func (e *apiError) inOtherMode(live bool) *apiError {
	objectMode, keyMode := "test", "live"
	if live {
		objectMode, keyMode = "live", "test"
	}
	e.Message += fmt.Sprintf("; a similar object exists in %s mode, but a %s mode key was used to make this request.",
		objectMode, keyMode)
	return e
}

func errRateLimited(reason string) *apiError {
	e := newError(http.StatusTooManyRequests, codeRateLimit,
		"Request rate limit exceeded. Learn more about rate limits here: https://stripe.com/docs/rate-limits.")
	e.reason = reason
	return e
}

func errNoKey() *apiError {
	return newError(http.StatusUnauthorized, "", "You did not provide an API key. You need to provide your API key "+
		"in the Authorization header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'). See "+
		"https://stripe.com/docs/api#authentication for details, or we can help at https://support.stripe.com/.")
}

func errBadKey(key string) *apiError {
	return newError(http.StatusUnauthorized, "", "Invalid API Key provided: "+redact(key))
}

// response returns the error as a response. That of a refused key has no link to the log.
func (e *apiError) response(requestID string) *response {
	if e.status != http.StatusUnauthorized {
		e.RequestLogURL = "https://dashboard.stripe.com/test/logs/" + requestID
	}
	body, err := json.MarshalIndent(map[string]*apiError{"error": e}, "", "  ")
	if err != nil {
		panic("stripetest: " + err.Error())
	}
	a := &response{status: e.status, body: body, header: http.Header{}}
	if e.reason != "" {
		a.header.Set("Stripe-Rate-Limited-Reason", e.reason)
	}
	if e.status == http.StatusMethodNotAllowed {
		a.header.Set("Allow", http.MethodGet)
	}
	return a
}
