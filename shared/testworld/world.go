package testworld

import (
	"database/sql"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/sqsserver"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

var (
	// Start is the clock's time at the beginning.
	Start = time.Date(2026, time.November, 22, 3, 0, 0, 0, time.UTC)
	// Created is when organizations and subscriptions were created.
	Created = time.Date(2026, time.January, 10, 9, 30, 0, 0, time.UTC)

	// PeriodStart is the start of a subscription's current period.
	PeriodStart = time.Date(2026, time.November, 10, 9, 30, 0, 0, time.UTC)
	// PeriodEnd is its end.
	PeriodEnd = time.Date(2026, time.December, 10, 9, 30, 0, 0, time.UTC)

	// Rules list price_starter, price_pro and price_max.
	Rules = billing.Rules{Prices: map[string]billing.Tier{
		"price_starter": billing.TierStarter, "price_pro": billing.TierPro, "price_max": billing.TierMax,
	}}

	// Quick retries in place as in production, with very short pauses.
	Quick = pipeline.Retry{Base: time.Millisecond}
)

// World is the surroundings of the pipeline.
type World struct {
	testing.TB

	Rules  billing.Rules
	DB     *mysqltest.DB
	Store  *mysqlstore.Store
	Stripe *stripetest.Server
	Proxy  Proxy // in front of Stripe
	Clock  *sqsserver.ManualClock
	Now    func() time.Time // the steps' clock; at the beginning it is Clock

	SQS                       *sqsserver.Server
	Queues                    *sqs.Client
	Work, Results, DeadLetter string // URLs

	Logs, Metrics Lines

	pools []*sql.DB // of processes with hooks
}

// New returns a world without organizations. It is closed when the test ends.
func New(t testing.TB) *World {
	t.Helper()
	w := Unmigrated(t)
	if _, err := w.Store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

// Unmigrated returns a world without this system's own tables.
func Unmigrated(t testing.TB) *World {
	t.Helper()
	w := &World{TB: t, Rules: Rules, DB: mysqltest.New(t), Clock: sqsserver.NewManualClock(Start)}
	w.Now = w.Clock.Now
	w.Store = mysqlstore.New(w.DB.DB)
	w.Stripe = stripetest.New(stripetest.Options{Now: w.Clock.Now})
	w.Proxy.to = w.Stripe
	w.Proxy.server = httptest.NewServer(&w.Proxy)
	t.Cleanup(func() {
		w.Proxy.server.CloseClientConnections()
		w.Proxy.server.Close()
		if err := w.Stripe.Close(); err != nil {
			t.Error(err)
		}
	})
	w.startQueues()
	return w
}

// Environ returns environment variables for a program that uses this database and Stripe.
func (w *World) Environ() map[string]string {
	environ := w.DB.Environ()
	environ["STRIPE_SECRET_KEY"], environ["STRIPE_API_BASE"] = w.Stripe.Key(), w.Proxy.server.URL
	return environ
}

// Ahead returns a clock that is ahead by this duration.
func (w *World) Ahead(by time.Duration) func() time.Time {
	return func() time.Time { return w.Clock.Now().Add(by) }
}

// Logger returns a logger that writes to Logs.
func (w *World) Logger() *slog.Logger { return telemetry.NewLogger(&w.Logs, slog.LevelInfo) }
