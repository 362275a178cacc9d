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

// errMissing is the cause of a failure: the object does not exist.
var errMissing = errors.New("no such object in Stripe")

// errCursorGone is the cause of a failure: the object in starting_after no longer exists. Stripe deletes the
// subscriptions of a deleted test clock, and events after 30 days.
// https://docs.stripe.com/billing/testing/test-clocks
var errCursorGone = errors.New("the object of the cursor no longer exists")

func isMissing(err error) bool { return errors.Is(err, errMissing) }

// failure maps an error of stripe-go to a failure class. Nothing else does.
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
		// The id comes from the previous page, so the key has changed since.
		f.Class, f.Reason = billing.RunFatal, billing.ReasonWrongMode
		f.Message += "; use a key of the mode in which the list was started"
	case e.Code == stripe.ErrorCodeResourceMissing && otherMode(e):
		f.Class, f.Reason = billing.Permanent, billing.ReasonOtherMode
		f.Message += "; correct the id in the database, or use a key of the mode that its ids belong to"
	case e.Code == stripe.ErrorCodeResourceMissing && e.Param != "starting_after":
		f.Class, f.Reason, f.Err = billing.Permanent, billing.ReasonStripeRefused, errMissing
	case e.Code == stripe.ErrorCodeResourceMissing:
		// The last object of the previous page no longer exists: the list must start again.
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

// isRefused reports whether Stripe does not accept the key.
func isRefused(err error) bool {
	e, ok := errors.AsType[*stripe.Error](err)
	return ok && e.HTTPStatusCode == http.StatusUnauthorized
}

// describe returns one line with Stripe's message, in which Stripe has redacted the key, and the request
// id, which the dashboard can find.
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

// shortened cuts the text of an error that may quote a whole body: a proxy may have answered.
type shortened struct{ error }

func (s shortened) Error() string { return oneLine(s.error.Error()) }
func (s shortened) Unwrap() error { return s.error }

// maxText bounds the foreign text in a message.
const maxText = 1000

// oneLine returns the beginning of the text as one line, for a log or a column.
func oneLine(text string) string {
	return telemetry.OneLine(text[:min(len(text), maxText)])
}

// otherMode reports whether the error says that the id exists in the other mode.
func otherMode(e *stripe.Error) bool {
	return strings.Contains(e.Msg, "a similar object exists in")
}

func header(e *stripe.Error, name string) string {
	if e.LastResponse == nil {
		return ""
	}
	return e.LastResponse.Header.Get(name)
}

// maxRetryAfter bounds the Retry-After header.
const maxRetryAfter = time.Minute

func retryAfter(e *stripe.Error) time.Duration {
	seconds, err := strconv.Atoi(header(e, "Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
}

// rateLimitedReason returns which of Stripe's limits was exceeded.
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

// maxQuoted bounds the quoted part of a response that Stripe did not send.
const maxQuoted = 200

func notJSON(body []byte) error {
	return unreachable(fmt.Errorf("the response is %q", body[:min(len(body), maxText)]))
}

// unavailable is a response that contradicts itself or is not Stripe's: a later one may be right.
func unavailable(format string, args ...any) error {
	return &billing.Failure{Class: billing.Unavailable, Reason: billing.ReasonStripeUnavailable, Message: oneLine(fmt.Sprintf(format, args...))}
}
