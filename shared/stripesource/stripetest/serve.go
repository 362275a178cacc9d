package stripetest

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// A call is a request and the settings at its arrival.
type call struct {
	*http.Request
	id       string // of the request
	endpoint Endpoint
	object   string // the id in the path
	key      string
	query    url.Values

	latency       time.Duration
	before, after func(*http.Request)
}

// A response is not sent yet.
type response struct {
	status    int
	header    http.Header
	body      []byte
	truncated bool
}

// ServeHTTP handles one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, open := s.begin(r)
	if !open {
		panic(http.ErrAbortHandler)
	}
	defer s.serving.Done()
	fault, refusal := s.admit(c)
	switch {
	case fault != nil && fault.Kind == Hang:
		s.wait(r.Context(), nil)
		panic(http.ErrAbortHandler)
	case fault != nil && fault.Kind == CutConnection:
		cut(w)
	default:
		s.reply(r.Context(), w, c, fault, refusal)
	}
}

// begin counts the request, unless the server is closed.
func (s *Server) begin(r *http.Request) (*call, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false
	}
	s.serving.Add(1)
	s.requests++
	c := &call{
		Request: r,
		id:      fmt.Sprintf("req_%014d", s.requests),
		key:     requestKey(r),
		query:   r.URL.Query(),
		latency: s.latency,
		before:  s.before,
		after:   s.after,
	}
	c.endpoint, c.object = route(r)
	s.counts.count(c.endpoint)
	return c, true
}

// admit checks the key, then the limits, then the faults.
func (s *Server) admit(c *call) (*Fault, *apiError) {
	if refusal := s.authenticate(c.key); refusal != nil {
		return nil, refusal
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.opts.Now()
	if s.global != nil && !s.global.AllowN(now, 1) {
		return nil, errRateLimited("global-rate")
	}
	if limit := s.limits[c.endpoint]; limit != nil && !limit.AllowN(now, 1) {
		return nil, errRateLimited("endpoint-rate")
	}
	fault := s.faults.next(c.endpoint)
	if fault == nil {
		return nil, nil
	}
	refusal := fault.err(c.key, s.opts.AccountID, c.endpoint)
	return fault, refusal
}

// reply makes the response, waits for the latency, and sends it.
func (s *Server) reply(ctx context.Context, w http.ResponseWriter, c *call, fault *Fault, refusal *apiError) {
	runHook(c.before, c.Request)
	a := s.makeResponse(c, refusal)
	if fault != nil {
		fault.apply(a)
	}
	runHook(c.after, c.Request)
	if c.latency > 0 {
		timer := time.NewTimer(c.latency)
		defer timer.Stop()
		if !s.wait(ctx, timer.C) {
			panic(http.ErrAbortHandler)
		}
	}
	s.countThrottled(a.status)
	a.send(w, c.id)
}

func runHook(hook func(*http.Request), r *http.Request) {
	if hook != nil {
		hook(r)
	}
}

// wait returns true when done is readable, false if the client disconnects or the server closes first.
func (s *Server) wait(ctx context.Context, done <-chan time.Time) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	case <-s.closing:
		return false
	}
}

func (s *Server) countThrottled(status int) {
	if status != http.StatusTooManyRequests {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Throttled++
}

func (s *Server) makeResponse(c *call, refusal *apiError) *response {
	var body []byte
	if refusal == nil {
		body, refusal = s.body(c)
	}
	if refusal != nil {
		return refusal.response(c.id)
	}
	return &response{status: http.StatusOK, header: http.Header{}, body: body}
}

// body returns the object or list that the call asks for.
func (s *Server) body(c *call) ([]byte, *apiError) {
	if version := c.Header.Get("Stripe-Version"); version != "" && version != apiVersion {
		return nil, newError(http.StatusBadRequest, "",
			fmt.Sprintf("Invalid Stripe API version: %s. This fake speaks %s only.", version, apiVersion))
	}
	if c.Method != http.MethodGet {
		return nil, newError(http.StatusMethodNotAllowed, "",
			fmt.Sprintf("This fake serves reads only (%s: %s).", c.Method, c.URL.Path))
	}
	switch c.endpoint {
	case ListSubscriptions:
		return s.list(c)
	case ListItems:
		return s.listItems(c)
	case SearchSubscriptions:
		return s.searchSubscriptions(c)
	case ListEvents:
		return s.listEvents(c)
	default: // the others have no parameters
	}
	if err := checkParams(c.query, nil); err != nil {
		return nil, err
	}
	switch c.endpoint {
	case RetrieveSubscription:
		return s.retrieveSubscription(c)
	case RetrieveCustomer:
		return s.retrieveCustomer(c)
	case RetrieveAccount:
		return appendAccount(nil, s.opts.AccountID), nil
	default:
		return nil, newError(http.StatusNotFound, "", fmt.Sprintf("Unrecognized request URL (%s: %s). Please see "+
			"https://stripe.com/docs or we can help at https://support.stripe.com/.", c.Method, c.URL.Path))
	}
}

func (s *Server) retrieveSubscription(c *call) ([]byte, *apiError) {
	sub, ok := s.store.subscription(c.object)
	if !ok || s.hides(c.key) {
		return nil, s.missing(c, c.object, ok, errMissing(http.StatusNotFound, "subscription", "id", c.object))
	}
	return sub.appendJSON(nil, s.opts.LiveMode), nil
}

func (s *Server) retrieveCustomer(c *call) ([]byte, *apiError) {
	customer, ok := s.store.customer(c.object)
	if !ok || s.hides(c.key) {
		return nil, s.missing(c, c.object, ok, errMissing(http.StatusNotFound, "customer", "id", c.object))
	}
	return customer.appendJSON(nil, s.opts.LiveMode), nil
}

// missing returns err, with a hint if the object exists in the other mode than the key's.
func (s *Server) missing(c *call, id string, here bool, err *apiError) *apiError {
	switch hidden := s.hides(c.key); {
	case hidden && here:
		return err.inOtherMode(s.opts.LiveMode)
	case !hidden && s.store.inOtherMode(id):
		return err.inOtherMode(!s.opts.LiveMode)
	default:
		return err
	}
}

func (s *Server) list(c *call) ([]byte, *apiError) {
	q, err := parseList(c.query)
	if err != nil {
		return nil, err
	}
	if s.hides(c.key) {
		return s.hiddenList(c, q)
	}
	page, more, err := s.store.page(q)
	if err != nil {
		id := q.cursor
		if err.Param == "customer" {
			id = q.customer
		}
		return nil, s.missing(c, id, false, err)
	}
	return encodeList(page, more, s.opts.LiveMode), nil
}

// hiddenList is a list for a key of the other mode: empty, unless it names an object.
func (s *Server) hiddenList(c *call, q listQuery) ([]byte, *apiError) {
	if q.customer != "" {
		_, ok := s.store.customer(q.customer)
		return nil, s.missing(c, q.customer, ok, errMissing(http.StatusBadRequest, "customer", "customer", q.customer))
	}
	if q.cursor != "" {
		_, ok := s.store.subscription(q.cursor)
		return nil, s.missing(c, q.cursor, ok, errMissing(http.StatusBadRequest, "subscription", q.cursorParam(), q.cursor))
	}
	return encodeList(nil, false, s.opts.LiveMode), nil
}

// route returns the endpoint of a request, whatever its method, and the id in its path.
func route(r *http.Request) (Endpoint, string) {
	switch r.URL.Path {
	case "/v1/subscriptions":
		return ListSubscriptions, ""
	case "/v1/account":
		return RetrieveAccount, ""
	case "/v1/subscription_items":
		return ListItems, ""
	case "/v1/subscriptions/search":
		return SearchSubscriptions, ""
	case "/v1/events":
		return ListEvents, ""
	}
	if id, ok := pathID(r.URL.Path, "/v1/subscriptions/"); ok {
		return RetrieveSubscription, id
	}
	if id, ok := pathID(r.URL.Path, "/v1/customers/"); ok {
		return RetrieveCustomer, id
	}
	return other, ""
}

func pathID(path, prefix string) (string, bool) {
	id, ok := strings.CutPrefix(path, prefix)
	return id, ok && id != "" && !strings.Contains(id, "/")
}

func (a *response) send(w http.ResponseWriter, requestID string) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-cache, no-store")
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	h.Set("Request-Id", requestID)
	h.Set("Stripe-Version", apiVersion)
	for name, values := range a.header {
		h[name] = values
	}
	body := a.body
	if a.truncated {
		body = body[:len(body)/2]
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(body) // fails only if the client is gone
}
