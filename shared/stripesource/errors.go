package stripesource

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v76"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// errMissing is inside the failure of a request for an object that does not exist.
var errMissing = errors.New("no such object in Stripe")

// errCursorGone is inside the failure of a request for the page after an object that is gone: a
// subscription of a test clock that was deleted, or an event that Stripe lists no longer.
// https://docs.stripe.com/billing/testing/test-clocks
var errCursorGone = errors.New("the list's place is lost")

func isMissing(err error) bool { return errors.Is(err, errMissing) }

// failure maps an error of stripe-go to the failure classes; it is the only place that does.
// https://docs.stripe.com/error-handling and https://docs.stripe.com/rate-limits
func failure(ctx context.Context, to endpoint, err error) *billing.Failure {
	e, ok := errors.AsType[*stripe.Error](err)
	if !ok {
		if ctx.Err() != nil {
			return outOfTime(ctx.Err())
		}
		return unreachable(err)
	}
	f := &billing.Failure{Message: describe(e)}
	switch status := e.HTTPStatusCode; {
	case status == http.StatusUnauthorized:
		f.Class, f.Reason = billing.RunFatal, billing.ReasonStripeUnauthorized
		f.Message += "; check STRIPE_SECRET_KEY"
	case to == endpointSearch && (status == http.StatusBadRequest || status == http.StatusForbidden) && withoutSearch(e.Msg):
		f.Class, f.Reason, f.Err = billing.Permanent, billing.ReasonStripeRefused, errNoSearch
	case status == http.StatusForbidden && to == endpointEvents:
		f.Class, f.Reason = billing.RunFatal, billing.ReasonStripeForbidden
		f.Message += "; catch-ups need read on Events: give it to the restricted key, or set CATCH_UP_SCHEDULE=off (runs over all organizations need it not)"
	case status == http.StatusForbidden:
		f.Class, f.Reason = billing.RunFatal, billing.ReasonStripeForbidden
		f.Message += "; give the restricted key the permission named there (it needs read on Subscriptions and Customers)"
	case e.Code == stripe.ErrorCodeResourceMissing && otherMode(e) && e.Param == "starting_after":
		// The id is of the page before, so the key is no longer the same.
		f.Class, f.Reason = billing.RunFatal, billing.ReasonWrongMode
		f.Message += "; use a key of the mode that the list was begun in"
	case e.Code == stripe.ErrorCodeResourceMissing && otherMode(e):
		f.Class, f.Reason = billing.Permanent, billing.ReasonOtherMode
		f.Message += "; correct the id in the database, or use a key of the mode that its ids belong to"
	case e.Code == stripe.ErrorCodeResourceMissing && e.Param != "starting_after":
		f.Class, f.Reason, f.Err = billing.Permanent, billing.ReasonStripeRefused, errMissing
	case e.Code == stripe.ErrorCodeResourceMissing:
		// The last object of the page before vanished: the list must start over.
		f.Class, f.Reason, f.Err = billing.Unavailable, billing.ReasonStripeUnavailable, errCursorGone
	case status == http.StatusTooManyRequests && e.Code != stripe.ErrorCodeLockTimeout:
		f.Class, f.Reason, f.RetryAfter = billing.Throttled, billing.ReasonStripeThrottled, retryAfter(e)
	case status == http.StatusTooManyRequests, status == http.StatusConflict, status >= http.StatusInternalServerError:
		f.Class, f.Reason, f.RetryAfter = billing.Unavailable, billing.ReasonStripeUnavailable, retryAfter(e)
	default:
		f.Class, f.Reason = billing.Permanent, billing.ReasonStripeRefused
	}
	return f
}

// isRefused: the key is none, or none any more.
func isRefused(err error) bool {
	e, ok := errors.AsType[*stripe.Error](err)
	return ok && e.HTTPStatusCode == http.StatusUnauthorized
}

// describe is one line: Stripe's message (it redacts keys itself) and the request to look up in
// the dashboard.
func describe(e *stripe.Error) string {
	text := fmt.Sprintf("Stripe answered %d", e.HTTPStatusCode)
	if e.Code != "" {
		text += " " + string(e.Code)
	}
	if e.RequestID != "" {
		text += " (request " + e.RequestID + ")"
	}
	return oneLine(text + ": " + e.Msg)
}

// shortened is an error that may quote a whole body: what answers need not be Stripe.
type shortened struct{ error }

func (s shortened) Error() string { return oneLine(s.error.Error()) }
func (s shortened) Unwrap() error { return s.error }

// maxText bounds what we repeat of somebody else's text.
const maxText = 1000

// oneLine makes a log line, or a column's value, of the beginning of any text.
func oneLine(text string) string {
	return telemetry.OneLine(text[:min(len(text), maxText)])
}

// otherMode recognizes Stripe's sentence for an id that exists in the other mode.
func otherMode(e *stripe.Error) bool {
	return strings.Contains(e.Msg, "a similar object exists in")
}

func header(e *stripe.Error, name string) string {
	if e.LastResponse == nil {
		return ""
	}
	return e.LastResponse.Header.Get(name)
}

// maxRetryAfter bounds what we believe of a Retry-After header.
const maxRetryAfter = time.Minute

func retryAfter(e *stripe.Error) time.Duration {
	seconds, err := strconv.Atoi(header(e, "Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
}

// rateLimitedReason says which of Stripe's limits was met.
func rateLimitedReason(err error) string {
	if e, ok := errors.AsType[*stripe.Error](err); ok {
		return header(e, "Stripe-Rate-Limited-Reason")
	}
	return ""
}

func outOfTime(err error) *billing.Failure {
	return &billing.Failure{Class: billing.Unavailable, Reason: billing.ReasonOutOfTime, Message: "no time left to ask Stripe", Err: err}
}

func invalid(format string, args ...any) error {
	return &billing.Failure{Class: billing.Permanent, Reason: billing.ReasonInvalidSubscription, Message: oneLine(fmt.Sprintf(format, args...)) + "; nothing was written"}
}

func unreachable(err error) *billing.Failure {
	return &billing.Failure{
		Class: billing.Unavailable, Reason: billing.ReasonStripeUnavailable,
		Message: "Stripe cannot be reached or answers with something else than JSON (check the network and STRIPE_API_BASE)",
		Err:     shortened{err},
	}
}

// maxQuoted bounds what we show of an answer that is not Stripe's.
const maxQuoted = 200

func notJSON(body []byte) error {
	return unreachable(fmt.Errorf("the answer is %q", body[:min(len(body), maxText)]))
}

func broken(format string, args ...any) error {
	return &billing.Failure{Class: billing.Unavailable, Reason: billing.ReasonStripeUnavailable, Message: oneLine(fmt.Sprintf(format, args...))}
}
