package handler_test

import (
	"context"
	"database/sql/driver"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// Stripe or the database is unavailable for eleven hours of the queue's clock: neither the worker nor SQS gives a message
// up, and all are handled afterwards.
func TestElevenHourOutageDeadLettersNothing(t *testing.T) {
	const base, deadline, outage = 30 * time.Second, 12 * time.Hour, 11 * time.Hour
	for name, begin := range map[string]func(f *fixture) (store *mysqlstore.Store, end func()){
		"of Stripe": func(f *fixture) (*mysqlstore.Store, func()) {
			return f.Store, f.Stripe.AddFault(stripetest.Fault{Kind: stripetest.Unavailable})
		},
		"of the database": func(f *fixture) (*mysqlstore.Store, func()) {
			away := f.DB.Intercepted(f.TB, func(context.Context, string, func() error) error { return driver.ErrBadConn })
			return mysqlstore.New(away), func() {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.Subscriber("org-1", price("price_max"))
			f.openRun("org-1")
			receives := billing.Receives(base, deadline)
			f.giveUpAfter(receives)
			f.send(f.Work, workBody(runID, "org-1"))
			store, end := begin(f)
			w := f.workerOn(store, f.Queues)
			w.Backoff, w.MaxReceive = base, receives
			tries := 0
			for waited := time.Duration(0); waited < outage; waited += time.Minute {
				tries += len(f.handle(w))
				f.Clock.Advance(time.Minute)
			}
			end()
			if tries < 20 || tries >= receives || f.held(f.DeadLetter) != 0 || f.outcome("org-1") != billing.OutcomePending {
				t.Fatalf("%d tries, %d dead letters, org-1 is %s", tries, f.held(f.DeadLetter), f.outcome("org-1"))
			}
			f.Clock.Advance(40 * time.Minute) // the longest backoff
			if failed := f.handle(f.worker()); len(failed) != 0 || f.outcome("org-1") != billing.OutcomeSynced {
				t.Errorf("failed: %v, org-1 is %s", failed, f.outcome("org-1"))
			}
		})
	}
}
