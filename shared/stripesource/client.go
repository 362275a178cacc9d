package stripesource

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stripe/stripe-go/v76"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// Config says how to reach Stripe.
type Config struct {
	Key      string
	BaseURL  string        // without a slash at its end; "" is Stripe's
	LiveMode bool          // the mode objects must have
	RPS      float64       // requests a second for each endpoint; 0 or less is no limit
	Clients  int           // how many share the limits; 0 is this one alone
	Timeout  time.Duration // of one request, connecting included; 0 means 20 s
	Log      *slog.Logger
	// Renew returns the key that has taken the place of a refused one, or the same if none has. Without it, a
	// key that is refused is about the run at once.
	Renew func(ctx context.Context, refused string) (string, error)
}

const (
	defaultTimeout = 20 * time.Second
	connectTimeout = 5 * time.Second
	// pageLimit is the most Stripe gives in one page. https://docs.stripe.com/api/pagination
	pageLimit = 100
)

// Client reads Stripe. Its methods may be called from several goroutines; white space around the ids
// that they are given is not sent.
type Client struct {
	http     *http.Client
	backend  *stripe.BackendImplementation // makes requests, and errors of answers
	key      atomic.Pointer[string]
	renewals atomic.Int64 // of the key
	renew    func(ctx context.Context, refused string) (string, error)
	refusals billing.Refusals
	liveMode bool
	log      *slog.Logger
	limits   map[endpoint]*limiter
	usage    struct{ list, retrieve, other, throttled atomic.Int64 }
}

// endpoint is what Stripe counts separately. https://docs.stripe.com/rate-limits
type endpoint string

const (
	endpointRetrieve endpoint = "GET /v1/subscriptions/{id}"
	endpointList     endpoint = "GET /v1/subscriptions"
	endpointCustomer endpoint = "GET /v1/customers/{id}"
	endpointAccount  endpoint = "GET /v1/account"
	endpointItems    endpoint = "GET /v1/subscription_items"
	endpointSearch   endpoint = "GET /v1/subscriptions/search"
	endpointEvents   endpoint = "GET /v1/events"
)

// New returns a Client; it sends nothing yet.
func New(c Config) *Client {
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.BaseURL == "" {
		c.BaseURL = stripe.APIURL
	}
	share := float64(max(1, c.Clients))
	limits := map[endpoint]*limiter{endpointSearch: newLimiter(min(c.RPS, searchRPS)/share, time.Now)}
	for _, e := range []endpoint{endpointRetrieve, endpointList, endpointCustomer, endpointAccount, endpointItems, endpointEvents} {
		limits[e] = newLimiter(c.RPS/share, time.Now)
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: connectTimeout}).DialContext,
		TLSHandshakeTimeout:   connectTimeout,
		ResponseHeaderTimeout: c.Timeout,
		MaxIdleConnsPerHost:   32,
		IdleConnTimeout:       90 * time.Second,
		ForceAttemptHTTP2:     true,
	}
	client := &Client{
		http:    &http.Client{Transport: transport, Timeout: c.Timeout},
		backend: &stripe.BackendImplementation{Type: stripe.APIBackend, URL: c.BaseURL, LeveledLogger: &stripe.LeveledLogger{Level: stripe.LevelNull}},
		renew:   c.Renew, liveMode: c.LiveMode, log: c.Log, limits: limits,
	}
	client.key.Store(&c.Key)
	return client
}

// Account returns the id of the account that the key belongs to.
func (c *Client) Account(ctx context.Context) (string, error) {
	body, err := c.object(ctx, endpointAccount, "/v1/account", "account")
	if err != nil {
		return "", err
	}
	return decodeAccount(body)
}

// Subscription returns the subscription, with all of its items, and whether it exists. Canceled ones do.
// https://docs.stripe.com/api/subscriptions/retrieve
func (c *Client) Subscription(ctx context.Context, id string) (billing.Subscription, bool, error) {
	id = strings.TrimSpace(id)
	path, err := objectPath("/v1/subscriptions", id)
	if err != nil {
		return billing.Subscription{}, false, err
	}
	body, err := c.object(ctx, endpointRetrieve, path, "subscription")
	if isMissing(err) {
		return billing.Subscription{}, false, nil
	}
	if err != nil {
		return billing.Subscription{}, false, err
	}
	sub, err := c.decode(body)
	if err != nil {
		return billing.Subscription{}, false, err
	}
	if sub.ID != id {
		return billing.Subscription{}, false, invalid("asked for subscription %q, Stripe answered with %q", id, sub.ID)
	}
	if err := c.readItems(ctx, &sub); err != nil {
		return billing.Subscription{}, false, err
	}
	return sub, true, nil
}

// CustomerSubscriptions returns every subscription of the customer, ended ones too, with all of their
// items, and whether the customer exists. https://docs.stripe.com/api/subscriptions/list
//
// One that cannot be read, even an old one that ended, makes all of them invalid_subscription. That
// is deliberate: which one governs cannot be told while one of them is unknown, and a guess could
// cut off who pays.
func (c *Client) CustomerSubscriptions(ctx context.Context, customerID string) (subs []billing.Subscription, exists bool, err error) {
	customerID = strings.TrimSpace(customerID)
	for after := ""; ; {
		page, more, err := c.page(ctx, url.Values{"customer": {customerID}, "status": {"all"}}, after, c.decode)
		if isMissing(err) && after == "" {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		for _, sub := range page {
			if err := c.readItems(ctx, &sub); err != nil {
				return nil, false, err
			}
			subs = append(subs, sub)
		}
		if !more {
			return subs, true, nil
		}
		if len(page) == 0 || page[len(page)-1].ID == after {
			return nil, false, broken("Stripe's list of customer %q's subscriptions promises more but gives none", customerID)
		}
		after = page[len(page)-1].ID
	}
}

// CustomerExists reports whether the customer exists and was not deleted: a deleted one stays
// retrievable. https://docs.stripe.com/api/customers/retrieve
func (c *Client) CustomerExists(ctx context.Context, id string) (bool, error) {
	id = strings.TrimSpace(id)
	path, err := objectPath("/v1/customers", id)
	if err != nil {
		return false, err
	}
	body, err := c.object(ctx, endpointCustomer, path, "customer")
	if isMissing(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return c.decodeCustomer(body)
}

// objectPath is the path of one object. An empty id or dots would lead to another path, for servers
// resolve them, escaped or not; so would the name of an endpoint.
func objectPath(collection, id string) (string, error) {
	if id == "" || id == "." || id == ".." || id == "search" {
		return "", invalid("%q is no id of Stripe's", id)
	}
	return collection + "/" + url.PathEscape(id), nil
}

// page returns one page of the list of subscriptions, after the given one.
func (c *Client) page(ctx context.Context, filter url.Values, after string, decode func(jsontext.Value) (billing.Subscription, error)) (subs []billing.Subscription, more bool, err error) {
	query := url.Values{"limit": {strconv.Itoa(pageLimit)}}
	for name, values := range filter {
		query[name] = values
	}
	if after != "" {
		query.Set("starting_after", after)
	}
	found, err := c.list(ctx, endpointList, "/v1/subscriptions", "list", query)
	if err != nil {
		return nil, false, err
	}
	for _, raw := range found.Data {
		sub, err := decode(raw)
		if err != nil {
			return nil, false, err
		}
		subs = append(subs, sub)
	}
	return subs, *found.HasMore, nil
}

// readItems completes the items of a subscription that holds the first of them only.
// https://docs.stripe.com/api/subscription_items/list
func (c *Client) readItems(ctx context.Context, sub *billing.Subscription) error {
	if !sub.MoreItems {
		return nil
	}
	var items []billing.SubscriptionItem
	query := url.Values{"subscription": {sub.ID}, "limit": {strconv.Itoa(pageLimit)}}
	for {
		page, err := c.list(ctx, endpointItems, "/v1/subscription_items", "list", query)
		if isMissing(err) {
			return broken("subscription %q was there, but its items are not", sub.ID)
		}
		if err != nil {
			return err
		}
		last := ""
		for _, raw := range page.Data {
			var i item
			if err := unmarshal(raw, &i); err != nil {
				return invalid("an item of subscription %q cannot be read: %v", sub.ID, err)
			}
			items, last = append(items, i.billing()), i.ID
		}
		if !*page.HasMore && len(items) <= len(sub.Items) {
			return broken("Stripe's list of subscription %q's items is no longer than what promised more", sub.ID)
		}
		if !*page.HasMore {
			sub.Items, sub.MoreItems = items, false
			return nil
		}
		if last == "" || last == query.Get("starting_after") {
			return broken("Stripe's list of subscription %q's items promises more but gives none", sub.ID)
		}
		query.Set("starting_after", last)
	}
}

// list returns one page of a list or a search, complete or an error.
func (c *Client) list(ctx context.Context, e endpoint, path, object string, query url.Values) (list, error) {
	body, err := c.get(ctx, e, path, query)
	if err != nil {
		return list{}, err
	}
	var v list
	if err := unmarshal(body, &v); err != nil {
		return list{}, notJSON(body)
	}
	if v.Object != object || v.Data == nil || v.HasMore == nil {
		return list{}, broken("Stripe's answer to %s is no complete %s (its object is %q)", e, object, v.Object)
	}
	return v, nil
}

// object returns the object at the path. What is no JSON (an answer cut off, or a proxy's page) or does
// not call itself such an object is a fault of the connection; one with odd values is a fault of that
// one object.
func (c *Client) object(ctx context.Context, e endpoint, path, kind string) (jsontext.Value, error) {
	body, err := c.get(ctx, e, path, nil)
	if err != nil {
		return nil, err
	}
	if !body.IsValid(lenient) {
		return nil, notJSON(body)
	}
	var v struct {
		Object string `json:"object"`
	}
	if err := unmarshal(body, &v); err != nil || v.Object != kind {
		return nil, broken("Stripe's answer to %s is no %s but %q", e, kind, body[:min(len(body), maxQuoted)])
	}
	return body, nil
}

// get sends one request, once its endpoint's limiter lets it, and returns the answer's text.
func (c *Client) get(ctx context.Context, e endpoint, path string, query url.Values) (jsontext.Value, error) {
	limit := c.limits[e]
	if err := limit.wait(ctx); err != nil {
		return nil, outOfTime(err)
	}
	c.count(e)
	key := *c.key.Load()
	body, err := c.send(ctx, key, path, query)
	if isRefused(err) && c.renew != nil {
		body, err = c.sendRenewed(ctx, e, key, path, query, err)
	}
	if err == nil {
		c.refusals.Accepted()
		return body, nil
	}
	failed := failure(ctx, e, err)
	if failed.Class == billing.Throttled {
		c.throttled(ctx, e, limit, err)
	}
	if isRefused(err) && c.renew != nil {
		failed = c.refusals.Judge(failed, time.Now())
	}
	return nil, failed
}

// Renewals is how often the key was replaced: what was found out about one does not hold for the next.
func (c *Client) Renewals() int64 { return c.renewals.Load() }

// sendRenewed sends a request once more if there is another key by now.
func (c *Client) sendRenewed(ctx context.Context, e endpoint, refused, path string, query url.Values, refusal error) (jsontext.Value, error) {
	key, err := c.renew(ctx, refused)
	if err != nil {
		c.log.WarnContext(ctx, "Stripe refuses the key, and no other could be fetched", telemetry.Err(err))
	}
	if err != nil || key == refused {
		return nil, refusal
	}
	c.key.Store(&key)
	c.renewals.Add(1)
	c.log.InfoContext(ctx, "Stripe's key was rotated, going on with the new one")
	c.count(e)
	return c.send(ctx, key, path, query)
}

// maxAnswer is many times what the largest page can have.
const maxAnswer = 32 << 20

// send is what stripe-go does, but for its way to decode: that goes over every answer four times.
func (c *Client) send(ctx context.Context, key, path string, query url.Values) (body jsontext.Value, err error) {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	request, err := c.backend.NewRequest(http.MethodGet, path, key, "application/x-www-form-urlencoded", &stripe.Params{Context: ctx})
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= http.StatusBadRequest {
		return nil, c.backend.ResponseToError(response, body)
	}
	return body, nil
}

func (c *Client) throttled(ctx context.Context, e endpoint, limit *limiter, err error) {
	c.usage.throttled.Add(1)
	limit.throttled()
	c.log.WarnContext(ctx, "Stripe limits our requests", telemetry.KeyEndpoint, string(e),
		telemetry.KeyRateLimitedReason, rateLimitedReason(err), telemetry.KeyRequestsPerSecond, limit.rps())
}

func (c *Client) count(e endpoint) {
	switch e {
	case endpointList, endpointEvents:
		c.usage.list.Add(1)
	case endpointRetrieve:
		c.usage.retrieve.Add(1)
	case endpointCustomer, endpointAccount, endpointItems, endpointSearch:
		c.usage.other.Add(1)
	}
}

// TakeUsage returns the requests sent since the last call, and starts counting anew: what is
// added to a run is never added twice.
func (c *Client) TakeUsage() billing.Usage {
	return billing.Usage{
		List: c.usage.list.Swap(0), Retrieve: c.usage.retrieve.Swap(0),
		Other: c.usage.other.Swap(0), Throttled: c.usage.throttled.Swap(0),
	}
}
