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
	Clients  int           // how many clients share the limits; 0 is one
	Timeout  time.Duration // of one request, connecting included; 0 means 20 s
	Log      *slog.Logger
	// Renew returns the key that replaced a refused one, or the refused key if there is no other. Without
	// Renew, a refused key stops the run at once.
	Renew func(ctx context.Context, refused string) (string, error)
}

const (
	defaultTimeout = 20 * time.Second
	connectTimeout = 5 * time.Second
	// pageLimit is Stripe's largest page. https://docs.stripe.com/api/pagination
	pageLimit = 100
)

// Client reads Stripe. It is safe for concurrent use. It trims the ids that it is given.
type Client struct {
	http       *http.Client
	backend    *stripe.BackendImplementation // builds requests and errors
	key        atomic.Pointer[string]
	keyVersion atomic.Int64 // how often the key was replaced
	renew      func(ctx context.Context, refused string) (string, error)
	refusals   billing.Refusals
	liveMode   bool
	log        *slog.Logger
	limits     map[endpoint]*limiter
	usage      struct{ list, retrieve, other, throttled atomic.Int64 }
}

// endpoint has a rate limit of its own. https://docs.stripe.com/rate-limits
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

// New returns a Client. It sends no request.
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
// One unreadable subscription, even one that ended long ago, makes the result an invalid_subscription
// error. That is deliberate: it may be the one that governs, and a wrong guess could end the access of a
// customer who pays.
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
			return nil, false, unavailable("Stripe's list of customer %q's subscriptions says has_more=true, but the page has no object to continue after", customerID)
		}
		after = page[len(page)-1].ID
	}
}

// CustomerExists reports whether the customer exists and is not deleted: Stripe still returns deleted
// customers. https://docs.stripe.com/api/customers/retrieve
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

// objectPath returns the path of one object. It refuses ids that make another path: an empty one, dots,
// which servers resolve even when they are escaped, and the name of an endpoint.
func objectPath(collection, id string) (string, error) {
	if id == "" || id == "." || id == ".." || id == "search" {
		return "", invalid("%q is not a Stripe id", id)
	}
	return collection + "/" + url.PathEscape(id), nil
}

// page returns the page of subscriptions that starts after the given id.
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

// readItems reads all items of a subscription that has only the first ones.
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
			return unavailable("subscription %q exists, but its items do not", sub.ID)
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
			return unavailable("Stripe's list of subscription %q's items is not longer than the part in the subscription, which has has_more=true", sub.ID)
		}
		if !*page.HasMore {
			sub.Items, sub.MoreItems = items, false
			return nil
		}
		if last == "" || last == query.Get("starting_after") {
			return unavailable("Stripe's list of subscription %q's items says has_more=true, but the page has no object to continue after", sub.ID)
		}
		query.Set("starting_after", last)
	}
}

// list returns one page of a list or a search. An incomplete one is an error.
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
		return list{}, unavailable("Stripe's response to %s is not a complete %s (its object is %q)", e, object, v.Object)
	}
	return v, nil
}

// object returns the object at the path. A response that is not JSON (truncated, or a proxy's page) or is
// another kind of object counts as unavailable; unexpected values in it are an error of that object.
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
		return nil, unavailable("Stripe's response to %s is not %s but %q", e, kind, body[:min(len(body), maxQuoted)])
	}
	return body, nil
}

// get waits for the endpoint's limiter, sends one request and returns the body.
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
		c.refusals.Reset()
		return body, nil
	}
	failed := failure(ctx, e, err)
	if failed.Class == billing.Throttled {
		c.throttled(ctx, e, limit, err)
	}
	if isRefused(err) && c.renew != nil {
		failed = c.refusals.Classify(failed, time.Now())
	}
	return nil, failed
}

// KeyVersion counts how often the key was replaced. What is known about one key may be wrong for the next.
func (c *Client) KeyVersion() int64 { return c.keyVersion.Load() }

// sendRenewed sends a refused request again if the key was replaced.
func (c *Client) sendRenewed(ctx context.Context, e endpoint, refused, path string, query url.Values, refusal error) (jsontext.Value, error) {
	key, err := c.renew(ctx, refused)
	if err != nil {
		c.log.WarnContext(ctx, "Stripe refuses the key, and fetching another failed", telemetry.Err(err))
	}
	if err != nil || key == refused {
		return nil, refusal
	}
	c.key.Store(&key)
	c.keyVersion.Add(1)
	c.log.InfoContext(ctx, "Stripe's key was rotated, using the new one")
	c.count(e)
	return c.send(ctx, key, path, query)
}

// maxResponse is many times the size of the largest page.
const maxResponse = 32 << 20

// send does what stripe-go does, except that stripe-go decodes each response four times.
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
	body, err = io.ReadAll(io.LimitReader(response.Body, maxResponse))
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

// TakeUsage returns the number of requests since the last call and resets it, so that no request is
// added to a run twice.
func (c *Client) TakeUsage() billing.Usage {
	return billing.Usage{
		List: c.usage.list.Swap(0), Retrieve: c.usage.retrieve.Swap(0),
		Other: c.usage.other.Swap(0), Throttled: c.usage.throttled.Swap(0),
	}
}
