package lambdabuild_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	randv2 "math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/uuid"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

const (
	// webhooksPerRepair is the number of webhooks that the application handles per request to Stripe: some 12,000 beside
	// 5,000 repairs.
	webhooksPerRepair = 3
	// webhooksAtOnce is the number of webhooks that the application handles concurrently.
	webhooksAtOnce = 4
	// orgsPerRepair makes every second organization drift. So the rows of the run and of the application are neighbours,
	// and their locks conflict as often as possible.
	orgsPerRepair = 2
	// checkoutEvery makes every fifth webhook one of a new customer, for whom the application inserts rows.
	checkoutEvery = 5
)

// BenchmarkApplicationBesideARun measures what a run costs the application: how long its webhook's statements take beside
// a run and without one. It fails if a run makes the server roll one of them back. BENCH_REPAIRS is how many organizations
// the run repairs; the webhook writes as many others. BENCH_RPS sets the pace of both.
func BenchmarkApplicationBesideARun(b *testing.B) {
	for _, repairs := range setting(b, "BENCH_REPAIRS", "50") {
		for _, rps := range setting(b, "BENCH_RPS", "20") {
			b.Run(fmt.Sprintf("repairs=%d/rps=%d", repairs, rps), func(b *testing.B) {
				for b.Loop() {
					besideARun(b, repairs, rps)
				}
			})
		}
	}
}

func besideARun(b *testing.B, repairs, rps int) {
	b.Helper()
	b.StopTimer()
	defer b.StartTimer()
	population := demo.Options{Orgs: orgsPerRepair * repairs, Drift: 1.0 / orgsPerRepair, Plain: true, Seed: 1, Now: time.Now().UTC().Truncate(time.Second)}
	s := newStackOn(b, population, stripetest.Options{Latency: stripeTakes})
	functions, stop := s.deploy(rps)
	a := s.application(population)
	every := time.Duration(float64(time.Second) / (webhooksPerRepair * float64(rps)))

	quiet := a.play(b, every, func(ctx context.Context) {
		select {
		case <-time.After(time.Duration(webhooksPerRepair * float64(repairs) * float64(every))):
		case <-ctx.Done():
		}
	})
	var wall time.Duration
	beside := a.play(b, every, func(ctx context.Context) {
		began := time.Now()
		runID := s.enumerateAll(functions["enumerator"], `{"strategy":"sweep"}`) //nolint:contextcheck // its context is the benchmark's, as ctx is
		s.awaitDecided(ctx, runID)
		wall = time.Since(began)
		s.awaitClosed(ctx, runID)
		repaired, _ := s.outcome(runID) //nolint:contextcheck // as above
		b.ReportMetric(float64(repaired), "repairs")
	})
	stop()

	b.ReportMetric(wall.Seconds(), "s/run")
	for name, p := range map[string]played{"quiet": quiet, "beside": beside} {
		b.ReportMetric(float64(p.webhooks), name+"-webhooks")
		b.ReportMetric(p.percentile(50), name+"-p50-us")
		b.ReportMetric(p.percentile(99), name+"-p99-us")
		if p.deadlocks+p.timeouts > 0 {
			b.Errorf("%s, %d of %d webhooks were rolled back by a deadlock (1213), and %d by a lock wait timeout (1205)", name, p.deadlocks, p.webhooks, p.timeouts)
		}
	}
	b.ReportMetric(float64(beside.deadlocks), "deadlocks")
	b.ReportMetric(float64(beside.timeouts), "timeouts")
	b.ReportMetric(float64(beside.serverDeadlocks), "deadlocks-of-anyone")
	b.ReportMetric(beside.percentile(99)/quiet.percentile(99), "p99-times-quiet")
}

// application handles webhooks about organizations that are in sync. Nearly all contain nothing new, but the application
// writes them anyway.
type application struct {
	*stack

	random   *randv2.Rand
	known    []appschema.Subscription // the rows that a webhook may repeat
	checkout sync.Mutex
}

func (s *stack) application(population demo.Options) *application {
	s.Helper()
	drifted := map[string]bool{}
	for i := range population.Orgs {
		if e := demo.Expect(population, i); e.Drifted() {
			drifted[e.OrgID] = true
		}
	}
	a := &application{stack: s, random: randv2.New(randv2.NewPCG(1, 1))}
	rows, err := appschema.Subscriptions(s.Context(), s.db.DB)
	if err != nil {
		s.Fatal(err)
	}
	for _, row := range rows {
		if row.StripeSubscriptionID != nil && !drifted[row.OrgID] {
			a.known = append(a.known, row)
		}
	}
	return a
}

// played is the result of the webhooks of one play.
type played struct {
	webhooks            int
	took                []time.Duration // the duration of each statement
	deadlocks, timeouts int
	serverDeadlocks     int // deadlocks of all clients
}

// percentile returns a percentile of the statements' durations in microseconds.
func (p played) percentile(of int) float64 {
	if len(p.took) == 0 {
		return 0
	}
	slices.Sort(p.took)
	return float64(p.took[len(p.took)*of/100].Microseconds())
}

// play handles a webhook at every interval while meanwhile runs.
func (a *application) play(b *testing.B, every time.Duration, meanwhile func(context.Context)) played {
	b.Helper()
	var p played
	var mu sync.Mutex
	timed := func(statement func() error) error {
		began := time.Now()
		err := statement()
		took := time.Since(began)
		mu.Lock()
		defer mu.Unlock()
		p.took = append(p.took, took)
		return err
	}
	deadlocksBefore := a.serverDeadlocks()
	webhooks := make(chan webhook)
	var handlers sync.WaitGroup
	for range webhooksAtOnce {
		handlers.Go(func() {
			for w := range webhooks {
				err := a.handle(b.Context(), w, timed)
				mu.Lock()
				p.webhooks++
				switch numberOf(err) {
				case 1213:
					p.deadlocks++
				case 1205:
					p.timeouts++
				default:
					if err != nil {
						b.Error(err)
					}
				}
				mu.Unlock()
			}
		})
	}
	over := make(chan struct{})
	var feeder sync.WaitGroup
	feeder.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for n := 1; ; n++ {
			select {
			case <-over:
				close(webhooks)
				return
			case <-tick.C:
				webhooks <- a.next(n)
			}
		}
	})
	meanwhile(b.Context())
	close(over)
	feeder.Wait()
	handlers.Wait()
	p.serverDeadlocks = a.serverDeadlocks() - deadlocksBefore
	return p
}

// serverDeadlocks returns how many deadlocks the server found since it started.
func (a *application) serverDeadlocks() int {
	a.Helper()
	return mysqltest.Value[int](a.TB, a.db, `SELECT count FROM information_schema.innodb_metrics WHERE name = 'lock_deadlocks'`)
}

// webhook is the row of a subscription that the application's webhook writes.
type webhook struct {
	appschema.Subscription

	newOrg bool // the organization does not exist yet
}

// next returns the n-th webhook. Stripe already has this state.
func (a *application) next(n int) webhook {
	w := webhook{Subscription: a.known[a.random.IntN(len(a.known))]}
	if n%checkoutEvery > 0 {
		return w
	}
	sub, _ := a.stripe.Subscription(*w.StripeSubscriptionID)
	w.newOrg, w.OrgID = true, uuid.NewString()
	sub.ID, sub.CustomerID, sub.Metadata = "sub_1"+rand.Text(), "cus_"+rand.Text(), maps.Clone(sub.Metadata)
	sub.Metadata["orgId"] = w.OrgID
	w.StripeSubscriptionID, w.StripeCustomerID = &sub.ID, &sub.CustomerID
	a.stripe.PutCustomer(stripetest.Customer{ID: sub.CustomerID})
	a.stripe.PutSubscription(sub)
	return w
}

// handle is the application's webhook: in one transaction, at the server's isolation level, it updates or inserts the
// row and updates the organization.
func (a *application) handle(ctx context.Context, w webhook, timed func(func() error) error) error {
	if w.newOrg {
		// Only one at a time: two webhooks that search for a missing row would deadlock even without a run.
		a.checkout.Lock()
		defer a.checkout.Unlock()
		err := timed(func() error {
			_, err := a.db.ExecContext(ctx, `INSERT INTO organizations (id, name, created_by) VALUES (?,'New','user')`, w.OrgID)
			return err
		})
		if err != nil {
			return err
		}
	}
	tx, err := a.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // no effect after a commit
	exec := func(statement string, values ...any) (matched int64, err error) {
		err = timed(func() error {
			result, err := tx.ExecContext(ctx, statement, values...)
			if err != nil {
				return err
			}
			matched, err = result.RowsAffected()
			return err
		})
		return matched, err
	}
	row := []any{
		w.StripeSubscriptionID, w.StripeCustomerID, w.StripePriceID, w.PlanTier, w.Status,
		w.CurrentPeriodStart, w.CurrentPeriodEnd, w.TrialEnd, w.CancelAtPeriodEnd, w.CanceledAt, w.EndedAt, w.OrgID,
	}
	matched, err := exec(`UPDATE subscriptions SET stripe_subscription_id = ?, stripe_customer_id = ?, stripe_price_id = ?, plan_tier = ?, status = ?,
		current_period_start = ?, current_period_end = ?, trial_end = ?, cancel_at_period_end = ?, canceled_at = ?, ended_at = ?,
		updated_at = CURRENT_TIMESTAMP WHERE org_id = ?`, row...)
	if err == nil && matched == 0 {
		_, err = exec(`INSERT INTO subscriptions (stripe_subscription_id, stripe_customer_id, stripe_price_id, plan_tier, status,
			current_period_start, current_period_end, trial_end, cancel_at_period_end, canceled_at, ended_at, org_id, id) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,UUID())`, row...)
	}
	if err == nil {
		_, err = exec(`UPDATE organizations SET stripe_customer_id = ?, subscription_tier = ?, subscription_status = ?, trial_ends_at = ?,
			updated_at = CURRENT_TIMESTAMP WHERE id = ?`, w.StripeCustomerID, w.PlanTier, w.Status, w.TrialEnd, w.OrgID)
	}
	if err != nil {
		return err
	}
	return timed(tx.Commit)
}

func numberOf(err error) uint16 {
	if refused, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return refused.Number
	}
	return 0
}
