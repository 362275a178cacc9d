package pipeline_test

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// interleavings is how many random ones a test run tries; INTERLEAVINGS asks for another number.
const interleavings = 600

// world is one organization that two workers reconcile while Stripe changes and the application's
// webhook writes. One party moves at a time, one call to the outside at a step, so that what is
// read and written between two lines of the worker is known exactly.
type world struct {
	*fixture

	client  *stripesource.Client // one for all worlds: each has its own connections
	t       *rapid.T
	org     string
	run     string
	catchUp string                    // beside it, "" in a world without
	events  []stripetest.Subscription // what Stripe told and the webhook has not handled, oldest first
	told    []stripetest.Subscription // everything Stripe ever told: it may tell it again
	pending func()                    // the webhook's second statement, if it stands between the two
	workers []*stepper
	writes  int
}

// TestNoInterleavingLosesANewerState: whatever the order of two workers' calls, Stripe's changes
// and the webhook's statements (late, twice, out of order), no write of ours replaces a row that
// changed since it was read; and once the webhook is quiet, one more run leaves record = truth.
func TestNoInterleavingLosesANewerState(t *testing.T) { tryInterleavings(t, newFixture(t), false) }

// TestNoInterleavingOfACatchUpAndAFullRunLosesANewerState: the same where the two workers are those of a run over all
// organizations and of a catch-up; and what catch-ups lowered is counted in their budget, to the unit.
func TestNoInterleavingOfACatchUpAndAFullRunLosesANewerState(t *testing.T) {
	f := newFixture(t)
	tryInterleavings(t, f, true)
	lowered := mysqltest.Value[int](t, f.db, `SELECT COALESCE(SUM(downgrades), 0) FROM reconciliation_runs WHERE strategy = 'events'`)
	if used := mysqltest.Value[int](t, f.db, `SELECT used FROM reconciliation_budgets`); used != lowered || used == 0 {
		t.Errorf("catch-ups lowered %d organizations, their budget counts %d", lowered, used)
	}
}

func tryInterleavings(t *testing.T, f *fixture, catchUp bool) {
	t.Helper()
	client := f.stripeClient()
	n, writes := 0, 0
	check := func(t *rapid.T) {
		n++
		w := newWorld(f, client, t, n, catchUp)
		defer w.stop()
		w.changeStripe()
		for range rapid.IntRange(5, 60).Draw(t, "steps") {
			w.step()
		}
		w.settle()
		writes += w.writes
	}
	for n < wanted(t) {
		rapid.Check(t, check)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d interleavings, %d writes of workers", n, writes)
	if writes == 0 {
		t.Error("no worker ever wrote: the test shows nothing")
	}
}

func wanted(t *testing.T) int {
	t.Helper()
	text := os.Getenv("INTERLEAVINGS")
	if text == "" {
		return interleavings
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func newWorld(f *fixture, client *stripesource.Client, t *rapid.T, n int, catchUp bool) *world {
	w := &world{fixture: f, client: client, t: t, org: fmt.Sprintf("org-%d", n), run: fmt.Sprintf("run-%d", n)}
	f.sub(w.org)
	// A row and a customer, or one of them: what is missing the webhook or a worker adds.
	switch rapid.SampledFrom([]string{"both", "both", "row", "customer"}).Draw(t, "recorded") {
	case "both":
		f.org(w.org)
		f.row(w.org)
	case "row":
		f.org(w.org, withoutCustomer)
		f.row(w.org)
	case "customer":
		f.org(w.org, free)
	}
	f.openRun(w.run, []string{w.org})
	second := w.run
	if catchUp {
		w.catchUp = "events-" + w.run
		second = w.catchUp
		f.openRun(second, []string{w.org}, func(r *billing.Run) { r.Strategy, r.DowngradeLimit = billing.StrategyEvents, 1_000_000 })
		f.exec(`INSERT INTO reconciliation_named (run_key, org_id, subscription_id, event_id, type, pending_webhooks, created_at)
			VALUES ((SELECT run_key FROM reconciliation_runs WHERE id = ?), ?, ?, 'evt', 'customer.subscription.updated', 1, ?)`, second, w.org, "sub_"+w.org, start)
	}
	w.workers = []*stepper{w.newWorker(w.run), w.newWorker(second)}
	return w
}

// step lets one party make one move.
func (w *world) step() {
	switch rapid.SampledFrom([]string{"worker", "worker", "worker", "worker", "Stripe", "webhook", "webhook", "late webhook"}).Draw(w.t, "who") {
	case "worker":
		w.workers[rapid.IntRange(0, len(w.workers)-1).Draw(w.t, "worker")].step()
	case "Stripe":
		w.changeStripe()
	case "webhook":
		w.webhook()
	case "late webhook":
		if len(w.told) > 0 {
			w.events = append(w.events, rapid.SampledFrom(w.told).Draw(w.t, "again"))
		}
	}
}

// changes that somebody makes to a subscription in Stripe.
var changes = map[string]func(*stripetest.Subscription){
	"paid":     func(s *stripetest.Subscription) { s.Status = "active" },
	"past due": pastDue,
	"unpaid":   func(s *stripetest.Subscription) { s.Status = "unpaid" },
	"canceled": canceled,
	"starter":  price("price_starter"),
	"pro":      price("price_pro"),
	"max":      price("price_max"),
	"trial": func(s *stripetest.Subscription) {
		s.Status, s.TrialEnd = "trialing", s.CurrentPeriodEnd
	},
	"renewed": func(s *stripetest.Subscription) {
		s.CurrentPeriodStart, s.CurrentPeriodEnd = s.CurrentPeriodEnd, s.CurrentPeriodEnd+30*24*60*60
	},
	"to end": func(s *stripetest.Subscription) { s.CancelAtPeriodEnd = !s.CancelAtPeriodEnd },
}

// changeStripe changes the subscription, or lets the customer subscribe anew, and tells it: a
// third of what it tells is lost.
func (w *world) changeStripe() {
	id := "sub_" + w.org
	if rapid.IntRange(0, 5).Draw(w.t, "new subscription") == 0 {
		id = "sub_new_" + w.org
		w.sub(w.org, func(s *stripetest.Subscription) { s.ID, s.Created = id, created.Unix()+100 })
	}
	sub, ok := w.stripe.Subscription(id)
	if !ok {
		w.t.Fatalf("subscription %s is gone", id)
	}
	if sub.Status != "canceled" { // which is for ever
		changes[rapid.SampledFrom(slices.Sorted(maps.Keys(changes))).Draw(w.t, "change")](&sub)
		w.stripe.PutSubscription(sub)
	}
	w.told = append(w.told, sub)
	if rapid.IntRange(0, 2).Draw(w.t, "lost") > 0 {
		w.events = append(w.events, sub)
	}
}

// webhook does the next statement of the application's handler: it writes the event's payload as
// it is, the row first and the organization after, without a transaction.
func (w *world) webhook() {
	if w.pending != nil {
		w.pending()
		w.pending = nil
		return
	}
	if len(w.events) == 0 {
		return
	}
	i := rapid.IntRange(0, len(w.events)-1).Draw(w.t, "event") // out of order
	sub := w.events[i]
	w.events = append(w.events[:i:i], w.events[i+1:]...)
	w.writeRow(w.org, sub)
	w.pending = func() { w.writeOrganization(w.org, sub) }
}

// tierOf is what the application's handler makes of a subscription.
func tierOf(sub stripetest.Subscription) string {
	if sub.Status == "canceled" {
		return "free"
	}
	return map[string]string{"price_starter": "starter", "price_pro": "pro", "price_max": "max"}[sub.PriceID]
}

// writeRow is the first statement of the application's handler.
func (f *fixture) writeRow(org string, sub stripetest.Subscription) {
	f.Helper()
	if mysqltest.Value[int](f.T, f.db, `SELECT COUNT(*) FROM subscriptions WHERE org_id = ?`, org) == 0 {
		f.exec(`INSERT INTO subscriptions (id, org_id) VALUES (?,?)`, "row-"+org, org)
	}
	f.exec(`UPDATE subscriptions SET stripe_subscription_id = ?, stripe_customer_id = ?, stripe_price_id = ?, plan_tier = ?, status = ?,
		current_period_start = ?, current_period_end = ?, trial_end = ?, cancel_at_period_end = ? WHERE org_id = ?`,
		sub.ID, sub.CustomerID, sub.PriceID, tierOf(sub), sub.Status, unixOrNull(sub.CurrentPeriodStart), unixOrNull(sub.CurrentPeriodEnd), unixOrNull(sub.TrialEnd), sub.CancelAtPeriodEnd, org)
}

// writeOrganization is the second.
func (f *fixture) writeOrganization(org string, sub stripetest.Subscription) {
	f.Helper()
	status := sub.Status
	if status == "unpaid" {
		status = "past_due"
	}
	f.exec(`UPDATE organizations SET stripe_customer_id = ?, subscription_tier = ?, subscription_status = ?, trial_ends_at = ? WHERE id = ?`,
		sub.CustomerID, tierOf(sub), status, unixOrNull(sub.TrialEnd), org)
}

// unixOrNull is a date of Stripe's as the tables have it.
func unixOrNull(seconds int64) sql.NullTime {
	return sql.NullTime{Time: time.Unix(seconds, 0).UTC(), Valid: seconds != 0}
}

// settle lets everybody finish, then checks that one further run leaves nothing to do.
func (w *world) settle() {
	for w.pending != nil || len(w.events) > 0 {
		w.webhook()
	}
	for _, worker := range w.workers {
		worker.finish()
	}
	// What something undid is not repeated within a day.
	w.exec(`UPDATE reconciliation_repairs SET written_at = ? WHERE org_id = ?`, w.clock.Now().Add(-25*time.Hour), w.org)
	last := w.run + "-last"
	w.openRun(last, []string{w.org})
	r := w.reconciler(nil)
	r.Stripe = w.client
	result := w.deliver(r, last, w.org)[w.org]
	if result.Disposition != pipeline.Acknowledge {
		w.t.Fatalf("the run after did not get through: %+v", result.Failure)
	}
	if plan := w.plan(); len(plan.Changes) > 0 {
		w.t.Fatalf("the run after left drift: %+v", plan.Changes)
	}
	w.checkItem(w.run)
	if w.catchUp != "" {
		w.checkItem(w.catchUp)
	}
	w.checkItem(last)
	if w.item(last, w.org).Outcome == billing.OutcomeError {
		w.t.Fatal("the run after is in error")
	}
}

// plan compares what both sides hold now.
func (w *world) plan() billing.Plan {
	records, err := w.store.Records(w.Context(), []string{w.org})
	if err != nil {
		w.t.Fatal(err)
	}
	subs, _, err := w.client.CustomerSubscriptions(w.Context(), "cus_"+w.org)
	if err != nil {
		w.t.Fatal(err)
	}
	plan, err := rules.Plan(billing.Truth{Subscriptions: subs, ReadAt: w.clock.Now()}, records[w.org])
	if err != nil {
		w.t.Fatal(err)
	}
	return plan
}

// checkItem: however many deliveries there were, the organization has one outcome, and counts as a
// downgrade if one of the changes recorded for it lowers access.
func (w *world) checkItem(run string) {
	item := w.item(run, w.org)
	if item.Reason == billing.ReasonNotRepeated { // another run did, and the webhook undid it
		item.Changes = nil
	} else if item.Outcome == billing.OutcomeError || (item.Outcome == billing.OutcomeSynced) != (len(item.Changes) > 0) {
		w.t.Fatalf("outcome %s (%s) with changes %+v", item.Outcome, item.Error, item.Changes)
	}
	want := 0
	if billing.DefaultTiers.LowersAccess(item.Changes) {
		want = 1
	}
	if got := w.fixture.run(run).Downgrades; got != want {
		w.t.Fatalf("%d downgrades are counted, want %d for %+v", got, want, item.Changes)
	}
}

func (w *world) stop() {
	for _, worker := range w.workers {
		worker.finish()
	}
	w.endProcesses()
}

// stepper is a worker that waits before each of its calls for leave to make it.
type stepper struct {
	leave chan struct{}
	ready chan struct{} // the worker waits, or has ended
	done  bool
}

// newWorker starts a delivery of the organization. Around Apply it checks the promise: what is
// overwritten is what was read. A transaction is one step: the others would wait for its locks.
func (w *world) newWorker(run string) *stepper {
	s := &stepper{leave: make(chan struct{}), ready: make(chan struct{})}
	var read, found cells
	rows := false // are read next
	t := &tap{
		before: func(_ context.Context, call string) error {
			if !inTransaction(call) {
				s.wait()
			}
			switch {
			case call == "Records" && rows:
				maps.Copy(read, w.own().of("subscriptions")) //nolint:contextcheck // the test reads in its own time
			case call == "Records":
				read = w.own().of("organizations") //nolint:contextcheck // the test reads in its own time
			case call == "begin Apply":
				found = w.own() //nolint:contextcheck // the test reads in its own time
			}
			rows = call == "Records" && !rows
			return nil
		},
		after: func(_ context.Context, call string) error {
			if call != "commit Apply" {
				return nil
			}
			w.writes++
			if diff := cmp.Diff(read, found); diff != "" {
				w.t.Errorf("a worker overwrote what changed since it was read:\n%s", diff)
			}
			return nil
		},
	}
	r := w.reconciler(t)
	r.Stripe = tappedStripe{w.client, t}
	go func() {
		s.wait()
		w.deliver(r, run, w.org)
		s.done = true
		s.ready <- struct{}{}
	}()
	<-s.ready
	return s
}

// wait for leave to go on.
func (s *stepper) wait() {
	s.ready <- struct{}{}
	<-s.leave
}

// step lets the worker make its next call and waits until it wants the one after.
func (s *stepper) step() {
	if s.done {
		return
	}
	s.leave <- struct{}{}
	<-s.ready
}

func (s *stepper) finish() {
	for !s.done {
		s.step()
	}
}

// own is what the tables hold for the world's organization.
func (w *world) own() cells { return w.cellsOf(w.org) }
