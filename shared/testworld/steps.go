package testworld

import (
	"context"
	"net/http/httptest"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// StoreBehind returns the store of a process with these hooks and its own connections.
func (w *World) StoreBehind(p *Hooks) *mysqlstore.Store {
	w.Helper()
	if p == nil {
		return w.Store
	}
	pool := w.DB.Intercepted(w.TB, p.Do)
	w.pools = append(w.pools, pool)
	return mysqlstore.New(pool)
}

// EndProcesses closes the connections of all processes so far. Tests with many processes need it.
func (w *World) EndProcesses() {
	w.Helper()
	for _, pool := range w.pools {
		if err := pool.Close(); err != nil {
			w.Error(err)
		}
	}
	w.pools = nil
}

// withHooks makes a call that returns a value.
func withHooks[T any](ctx context.Context, h *Hooks, call string, fn func() (T, error)) (value T, err error) {
	err = h.Do(ctx, call, func() (err error) {
		value, err = fn()
		return err
	})
	return value, err
}

// Stripe is the real client with hooks.
type Stripe struct {
	*stripesource.Client

	Hooks *Hooks
}

// Account calls the hooks and the client.
func (s Stripe) Account(ctx context.Context) (string, error) {
	return withHooks(ctx, s.Hooks, "Account", func() (string, error) { return s.Client.Account(ctx) })
}

// Subscription calls the hooks and the client.
func (s Stripe) Subscription(ctx context.Context, id string) (sub billing.Subscription, exists bool, err error) {
	err = s.Hooks.Do(ctx, "Subscription", func() (err error) {
		sub, exists, err = s.Client.Subscription(ctx, id)
		return err
	})
	return sub, exists, err
}

// CustomerSubscriptions calls the hooks and the client.
func (s Stripe) CustomerSubscriptions(ctx context.Context, id string) (subs []billing.Subscription, exists bool, err error) {
	err = s.Hooks.Do(ctx, "CustomerSubscriptions", func() (err error) {
		subs, exists, err = s.Client.CustomerSubscriptions(ctx, id)
		return err
	})
	return subs, exists, err
}

// CustomerExists calls the hooks and the client.
func (s Stripe) CustomerExists(ctx context.Context, id string) (bool, error) {
	return withHooks(ctx, s.Hooks, "CustomerExists", func() (bool, error) { return s.Client.CustomerExists(ctx, id) })
}

// SearchByOrgID calls the hooks and the client.
func (s Stripe) SearchByOrgID(ctx context.Context, orgID string) (ids []string, available bool, err error) {
	err = s.Hooks.Do(ctx, "SearchByOrgID", func() (err error) {
		ids, available, err = s.Client.SearchByOrgID(ctx, orgID)
		return err
	})
	return ids, available, err
}

// SweepPage calls the hooks and the client.
func (s Stripe) SweepPage(ctx context.Context, r billing.Range) (billing.Page, error) {
	return withHooks(ctx, s.Hooks, "SweepPage", func() (billing.Page, error) { return s.Client.SweepPage(ctx, r) })
}

// Queue is a real queue with hooks.
type Queue struct {
	*sqsqueue.Queue

	Hooks *Hooks
}

// SendWork calls the hooks and the queue.
func (q Queue) SendWork(ctx context.Context, runID string, orgIDs []string) error {
	return q.Hooks.Do(ctx, "SendWork", func() error { return q.Queue.SendWork(ctx, runID, orgIDs) })
}

// SendProgress calls the hooks and the queue.
func (q Queue) SendProgress(ctx context.Context, runID string) error {
	return q.Hooks.Do(ctx, "SendProgress", func() error { return q.Queue.SendProgress(ctx, runID) })
}

// StripeClient returns a client of the fake Stripe, behind the proxy.
func (w *World) StripeClient(changes ...func(*stripesource.Config)) *stripesource.Client {
	c := stripesource.Config{Key: w.Stripe.Key(), BaseURL: w.Proxy.server.URL, Log: w.Logger()}
	for _, change := range changes {
		change(&c)
	}
	return stripesource.New(c)
}

// OtherAccount returns a client of another Stripe account, which has none of this world's customers.
func (w *World) OtherAccount() *stripesource.Client {
	w.Helper()
	server := stripetest.New(stripetest.Options{AccountID: "acct_other", Now: w.Clock.Now})
	listener := httptest.NewServer(server)
	w.Cleanup(func() {
		listener.Close()
		if err := server.Close(); err != nil {
			w.Error(err)
		}
	})
	return w.StripeClient(func(c *stripesource.Config) { c.BaseURL = listener.URL })
}

// Enumerator returns the enumerator of a new process. The hooks may be nil.
func (w *World) Enumerator(p *Hooks) *pipeline.Enumerator {
	return &pipeline.Enumerator{
		Store: w.StoreBehind(p), Stripe: Stripe{w.StripeClient(), p},
		Work: Queue{sqsqueue.New(w.Queues, w.Work), p}, Progress: Queue{sqsqueue.New(w.Queues, w.Results), p},
		Free: w.Rules.Tiers.Lowest(), Downgrades: func(listed int) int { return max(10, listed/20) }, RunDeadline: 12 * time.Hour, PageSize: 3,
		Reserve: 15 * time.Second, Retry: Quick, Now: w.Now, Log: w.Logger(),
	}
}

// Reconciler returns the reconciler of a new process. The hooks may be nil.
func (w *World) Reconciler(p *Hooks) *pipeline.Reconciler {
	return &pipeline.Reconciler{
		Store: w.StoreBehind(p), Stripe: Stripe{w.StripeClient(), p}, Rules: w.Rules,
		Reserve: 15 * time.Second, Retry: Quick, Now: w.Now, Log: w.Logger(),
	}
}

// Aggregator returns the aggregator of a new process. The hooks may be nil.
func (w *World) Aggregator(p *Hooks) *pipeline.Aggregator {
	return &pipeline.Aggregator{
		Store: w.StoreBehind(p), Retention: 90 * 24 * time.Hour, Retry: Quick, Now: w.Now, Log: w.Logger(),
		Metrics: telemetry.NewMetrics(&w.Metrics, "Test", w.Now),
	}
}
