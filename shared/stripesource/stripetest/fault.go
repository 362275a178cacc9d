package stripetest

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// A Kind is a way to fail.
type Kind int

// The kinds of fault.
const (
	RateLimited   Kind = iota + 1 // 429 with Stripe-Rate-Limited-Reason
	LockTimeout                   // 429 with code lock_timeout and no such header
	InternalError                 // 500
	Unavailable                   // 503
	Unauthorized                  // 401: the key was revoked
	Forbidden                     // 403: a restricted key without the permission
	Hang                          // no response until the client disconnects or the server closes
	CutConnection                 // the connection ends in the middle of the headers
	TruncatedBody                 // 200 whose body ends halfway through its Content-Length
	NotJSON                       // 200 with a page of HTML
	WrongType                     // the correct response with one value replaced by one of another type
)

// A Fault makes requests fail. The zero value of each field but Kind means no restriction.
type Fault struct {
	Endpoint    Endpoint // only requests of this endpoint
	Kind        Kind
	After       int           // this many matching requests succeed first
	Times       int           // number of failures; 0: until ClearFaults
	Probability float64       // of failing a matching request, drawn with Options.Seed
	RetryAfter  time.Duration // sent in whole seconds, rounded up, with the kinds that have a status
	Reason      string        // of RateLimited; default "endpoint-rate"
	OnFailure   func()        // called for each request that fails; it must not call the server

	draw uint64 // selects the value that WrongType replaces, and by what
}

// faults apply in the order in which they were added; the first match wins.
type faults struct {
	random *rand.Rand
	list   []*Fault
}

// next returns the fault of a request to the endpoint, or nil.
func (f *faults) next(endpoint Endpoint) *Fault {
	for i, fault := range f.list {
		if fault.Endpoint != "" && fault.Endpoint != endpoint {
			continue
		}
		if fault.After > 0 {
			fault.After--
			continue
		}
		if fault.Probability > 0 && f.random.Float64() >= fault.Probability {
			continue
		}
		if fault.Times == 1 {
			f.list = append(f.list[:i:i], f.list[i+1:]...)
		} else if fault.Times > 1 {
			fault.Times--
		}
		if fault.OnFailure != nil {
			fault.OnFailure()
		}
		met := *fault
		met.draw = f.random.Uint64()
		return &met
	}
	return nil
}

// err returns the Stripe error of the fault, nil for kinds without one.
func (f *Fault) err(key, account string, endpoint Endpoint) *apiError {
	switch f.Kind {
	case RateLimited:
		reason := f.Reason
		if reason == "" {
			reason = "endpoint-rate"
		}
		return errRateLimited(reason)
	case LockTimeout:
		return newError(http.StatusTooManyRequests, codeLockTimeout, "This object cannot be accessed right now because "+
			"another API request or Stripe process is currently accessing it. If you see this error intermittently, "+
			"retry the request.")
	case InternalError:
		return newError(http.StatusInternalServerError, "", "Sorry! There was an error while talking to Stripe. "+
			"Please let us know at https://support.stripe.com/.")
	case Unavailable:
		return newError(http.StatusServiceUnavailable, "", "Stripe is temporarily unavailable. Please try again.")
	case Unauthorized:
		return errBadKey(key)
	case Forbidden:
		return newError(http.StatusForbidden, "", fmt.Sprintf("The provided key '%s' does not have the required "+
			"permissions for this endpoint on account '%s'. Having the '%s' permission would allow this request to "+
			"continue.", redact(key), account, endpoint.permission()))
	default:
		return nil
	}
}

// apply changes the correct response into that of the fault.
func (f *Fault) apply(a *response) {
	a.truncated = f.Kind == TruncatedBody
	if f.Kind == NotJSON {
		a.status = http.StatusOK
		a.header.Set("Content-Type", "text/html; charset=utf-8")
		a.body = []byte("<!doctype html><title>Stripe</title><h1>We will be back soon</h1>\n")
	}
	if f.Kind == WrongType {
		a.body = WithWrongType(a.body, f.draw)
	}
	if f.RetryAfter > 0 {
		seconds := (f.RetryAfter + time.Second - 1) / time.Second
		a.header.Set("Retry-After", strconv.Itoa(int(seconds)))
	}
}

// cut closes the connection after the first bytes of a response. Without them Go's client would retry a GET on a reused
// connection, and the test would not see the failure.
func cut(w http.ResponseWriter) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer func() { _ = conn.Close() }()
	_, _ = buf.WriteString("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n") // fails only if the client is gone
	_ = buf.Flush()
}
