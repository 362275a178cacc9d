package stripetest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const apiVersion = "2023-10-16"

// Options configure a [Server]. The zero value is a test-mode account without limits.
type Options struct {
	Key       string // the accepted secret key; default "sk_test_stripetest", or sk_live_ in live mode
	AccountID string // default "acct_test"
	LiveMode  bool   // the mode that all objects are in

	Latency      time.Duration // of every response
	GlobalRate   float64       // requests a second for the account; 0: no limit
	EndpointRate float64       // requests a second for each endpoint; 0: no limit

	SearchLag time.Duration // age of what search finds, at most a minute; see [Server.SetSearch]
	NoSearch  bool          // the account has no search

	Now  func() time.Time // default time.Now
	Seed uint64           // of faults with a probability
}

// An Endpoint is an operation of the API, as Stripe names it in its limits.
type Endpoint string

// The endpoints that are served.
const (
	RetrieveSubscription Endpoint = "GET /v1/subscriptions/{id}"
	ListSubscriptions    Endpoint = "GET /v1/subscriptions"
	RetrieveCustomer     Endpoint = "GET /v1/customers/{id}"
	RetrieveAccount      Endpoint = "GET /v1/account"
	ListItems            Endpoint = "GET /v1/subscription_items"
	SearchSubscriptions  Endpoint = "GET /v1/subscriptions/search"
	ListEvents           Endpoint = "GET /v1/events"
	other                Endpoint = "other"
)

var endpoints = []Endpoint{RetrieveSubscription, ListSubscriptions, RetrieveCustomer, RetrieveAccount, ListItems, SearchSubscriptions, ListEvents}

// permission is the one that a restricted key needs for the endpoint.
func (e Endpoint) permission() string {
	switch e {
	case RetrieveCustomer:
		return "rak_customer_read"
	case RetrieveAccount:
		return "rak_accounts_kyc_basic_read"
	case ListEvents:
		return "rak_event_read"
	default:
		return "rak_subscription_read"
	}
}

// Counts are the received requests by endpoint, failed ones too.
type Counts struct {
	RetrieveSubscription int
	ListSubscriptions    int
	RetrieveCustomer     int
	RetrieveAccount      int
	ListItems            int
	SearchSubscriptions  int
	ListEvents           int
	Other                int
	Throttled            int // of the above, those with response 429
}

// Total returns the number of requests.
func (c Counts) Total() int {
	return c.RetrieveSubscription + c.ListSubscriptions + c.RetrieveCustomer + c.RetrieveAccount +
		c.ListItems + c.SearchSubscriptions + c.ListEvents + c.Other
}

func (c *Counts) count(e Endpoint) {
	switch e {
	case RetrieveSubscription:
		c.RetrieveSubscription++
	case ListSubscriptions:
		c.ListSubscriptions++
	case RetrieveCustomer:
		c.RetrieveCustomer++
	case RetrieveAccount:
		c.RetrieveAccount++
	case ListItems:
		c.ListItems++
	case SearchSubscriptions:
		c.SearchSubscriptions++
	case ListEvents:
		c.ListEvents++
	default:
		c.Other++
	}
}

// A Server is a fake Stripe. It is safe for concurrent use.
type Server struct {
	opts  Options
	store *store

	http    *http.Server // nil unless started
	url     string
	serving sync.WaitGroup
	closing chan struct{}

	mu      sync.Mutex // guards what follows
	closed  bool
	latency time.Duration
	search  struct {
		off bool
		lag time.Duration
	}
	global   *rate.Limiter // nil: no limit
	limits   map[Endpoint]*rate.Limiter
	faults   faults
	counts   Counts
	requests int // numbers the request ids
	before   func(*http.Request)
	after    func(*http.Request)
}

// New returns a server that does not listen; it is an [http.Handler].
func New(opts Options) *Server {
	if opts.Key == "" {
		opts.Key = "sk_test_stripetest"
		if opts.LiveMode {
			opts.Key = twin(opts.Key)
		}
	}
	if opts.AccountID == "" {
		opts.AccountID = "acct_test"
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &Server{
		opts:    opts,
		store:   newStore(opts.Now),
		closing: make(chan struct{}),
		latency: opts.Latency,
		faults:  faults{random: rand.New(rand.NewPCG(opts.Seed, 0))},
	}
	s.SetRates(opts.GlobalRate, opts.EndpointRate)
	s.SetSearch(!opts.NoSearch, opts.SearchLag)
	return s
}

// Start returns a server that listens on a free port of 127.0.0.1.
func Start(opts Options) (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the fake Stripe: %w", err)
	}
	s := New(opts)
	s.url = "http://" + listener.Addr().String()
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	s.serving.Go(func() { _ = s.http.Serve(listener) }) // ends when Close closes the listener
	return s, nil
}

// URL returns the base URL of a started server, without a slash at its end.
func (s *Server) URL() string { return s.url }

// Key returns the accepted key.
func (s *Server) Key() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opts.Key
}

// RollKey replaces the accepted key by another one of the same mode.
// https://docs.stripe.com/keys#rolling-keys
func (s *Server) RollKey() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.Key += "x"
}

// Close closes all connections, frees the port, and waits for running requests. Their contexts end, so that a
// waiting hook must return.
func (s *Server) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	s.mu.Unlock()
	var err error
	if s.http != nil {
		err = s.http.Close()
	}
	s.serving.Wait()
	return err
}

// PutCustomer creates or replaces a customer. It panics if the id is empty.
func (s *Server) PutCustomer(c Customer) {
	mustID(c.ID)
	c = c.clone()
	if c.Created == 0 {
		c.Created = s.opts.Now().Unix()
	}
	s.store.putCustomer(&c)
}

// DeleteCustomer deletes a customer as Stripe does: it stays retrievable as deleted, and its subscriptions are
// canceled.
func (s *Server) DeleteCustomer(id string) { s.store.deleteCustomer(id, s.opts.Now().Unix()) }

// RemoveCustomer removes a customer and its subscriptions as if they had never existed.
func (s *Server) RemoveCustomer(id string) { s.store.removeCustomer(id) }

// PutSubscription creates a subscription without an event, or replaces one with an event, and creates a missing
// customer. It panics if either id is empty: to serve an object without an id, use Override.
func (s *Server) PutSubscription(sub Subscription) { s.putSubscription(sub, false) }

// CreateSubscription is PutSubscription with the event of the creation.
func (s *Server) CreateSubscription(sub Subscription) { s.putSubscription(sub, true) }

func (s *Server) putSubscription(sub Subscription, created bool) {
	mustID(sub.ID)
	mustID(sub.CustomerID)
	sub = sub.clone().withDefaults(s.opts.Now().Unix())
	s.store.putSubscription(&sub, created)
}

// UpdateSubscription changes a subscription atomically, except its id, and adds an event if it differs. It returns
// false if there is no such subscription. The function must not call the server.
func (s *Server) UpdateSubscription(id string, change func(*Subscription)) bool {
	return s.store.updateSubscription(id, func(old Subscription) *Subscription {
		sub := old.clone()
		change(&sub)
		mustID(sub.CustomerID)
		sub.ID = id
		sub = sub.clone() // change may have set maps of the caller
		return &sub
	})
}

// RemoveSubscription removes a subscription as if it had never existed.
func (s *Server) RemoveSubscription(id string) { s.store.removeSubscription(id) }

// PutInOtherMode adds ids that exist in the other mode. Objects with these ids in the server's mode are still found.
func (s *Server) PutInOtherMode(ids ...string) { s.store.putInOtherMode(ids) }

// Subscription returns a copy of a subscription.
func (s *Server) Subscription(id string) (Subscription, bool) {
	sub, ok := s.store.subscription(id)
	if !ok {
		return Subscription{}, false
	}
	return sub.clone(), true
}

// SetLatency sets the latency of every response.
func (s *Server) SetLatency(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latency = d
}

// SetRates sets the limits in requests a second, 0 for none, and fills their buckets. Search has a lower limit.
func (s *Server) SetRates(global, endpoint float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.global = newLimiter(global)
	s.limits = map[Endpoint]*rate.Limiter{}
	for _, e := range endpoints {
		s.limits[e] = newLimiter(endpoint)
	}
	s.limits[SearchSubscriptions] = newLimiter(min(endpoint, searchRate))
}

// SetSearch sets whether the account has search, and how long search does not find a change.
func (s *Server) SetSearch(available bool, lag time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.search.off, s.search.lag = !available, min(lag, maxSearchLag)
}

// newLimiter returns a bucket with the tokens of one second.
func newLimiter(perSecond float64) *rate.Limiter {
	if perSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(perSecond), int(math.Ceil(perSecond)))
}

// AddFault adds a fault and returns a function that ends it.
func (s *Server) AddFault(f Fault) (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.list = append(s.faults.list, &f)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.faults.list = slices.DeleteFunc(s.faults.list, func(other *Fault) bool { return other == &f })
	}
}

// ClearFaults ends all faults, except for requests that already hang.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.list = nil
}

// Before sets a function that is called before the state is read for a response; nil removes it. It may be called
// concurrently.
func (s *Server) Before(hook func(*http.Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = hook
}

// After sets a function that is called before a response is sent; nil removes it.
func (s *Server) After(hook func(*http.Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after = hook
}

// Requests returns the counts so far.
func (s *Server) Requests() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

// ResetCounts sets the counts to zero.
func (s *Server) ResetCounts() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts = Counts{}
}

func mustID(id string) {
	if id == "" {
		panic("stripetest: an object needs an id")
	}
}
