package pipeline_test

import (
	"context"
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
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

// interleavings is how many random ones a test run tries; INTERLEAVINGS asks for another number.
const interleavings = 300

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
	lowered := f.Count(`SELECT COALESCE(SUM(downgrades), 0) FROM reconciliation_runs WHERE strategy = 'events'`)
	if used := f.Count(`SELECT used FROM reconciliation_budgets`); used != lowered || used == 0 {
		t.Errorf("catch-ups lowered %d organizations, their budget counts %d", lowered, used)
	}
}

func tryInterleavings(t *testing.T, f *fixture, catchUp bool) {
	t.Helper()
	client := f.StripeClient()
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
	for n < fromEnvironment(t, "INTERLEAVINGS", interleavings) {
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

// fromEnvironment returns the number in the variable, or the default.
func fromEnvironment(t *testing.T, name string, value int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return value
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func newWorld(f *fixture, client *stripesource.Client, t *rapid.T, n int, catchUp bool) *world {
	w := &world{fixture: f, client: client, t: t, org: fmt.Sprintf("org-%d", n), run: fmt.Sprintf("run-%d", n)}
	f.Sub(w.org)
	// A row and a customer, or one of them: what is missing the webhook or a worker adds.
	switch rapid.SampledFrom([]string{"both", "both", "row", "customer"}).Draw(t, "recorded") {
	case "both":
		f.Org(w.org)
		f.Row(w.org)
	case "row":
		f.Org(w.org, withoutCustomer)
		f.Row(w.org)
	case "customer":
		f.Org(w.org, free)
	}
	f.OpenRun(w.run, []string{w.org})
	second := w.run
	if catchUp {
		w.catchUp = "events-" + w.run
		second = w.catchUp
		f.OpenRun(second, []string{w.org}, func(r *billing.Run) { r.Strategy, r.DowngradeLimit = billing.StrategyEvents, 1_000_000 })
		f.Exec(`INSERT INTO reconciliation_named (run_key, org_id, subscription_id, event_id, type, pending_webhooks, created_at)
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
		w.Sub(w.org, func(s *stripetest.Subscription) { s.ID, s.Created = id, created.Unix()+100 })
	}
	sub, ok := w.Stripe.Subscription(id)
	if !ok {
		w.t.Fatalf("subscription %s is gone", id)
	}
	if sub.Status != "canceled" { // which is for ever
		changes[rapid.SampledFrom(slices.Sorted(maps.Keys(changes))).Draw(w.t, "change")](&sub)
		w.Stripe.PutSubscription(sub)
	}
	w.told = append(w.told, sub)
	if rapid.IntRange(0, 2).Draw(w.t, "lost") > 0 {
		w.events = append(w.events, sub)
	}
}

// webhook makes the next write of the application's handler: to the row, or to the organization after it.
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
	w.must(w.Webhook().WriteRow(w.Context(), w.org, sub))
	w.pending = func() { w.must(w.Webhook().WriteOrganization(w.Context(), w.org, sub)) }
}

func (w *world) must(err error) {
	if err != nil {
		w.t.Fatal(err)
	}
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
	w.Exec(`UPDATE reconciliation_repairs SET written_at = ? WHERE org_id = ?`, w.Clock.Now().Add(-25*time.Hour), w.org)
	last := w.run + "-last"
	w.OpenRun(last, []string{w.org})
	r := w.Reconciler(nil)
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
	if w.Item(last, w.org).Outcome == billing.OutcomeError {
		w.t.Fatal("the run after is in error")
	}
}

// plan compares what both sides hold now.
func (w *world) plan() billing.Plan {
	records, err := w.Store.Records(w.Context(), []string{w.org})
	if err != nil {
		w.t.Fatal(err)
	}
	subs, _, err := w.client.CustomerSubscriptions(w.Context(), "cus_"+w.org)
	if err != nil {
		w.t.Fatal(err)
	}
	plan, err := rules.Plan(billing.Truth{Subscriptions: subs, ReadAt: w.Clock.Now()}, records[w.org])
	if err != nil {
		w.t.Fatal(err)
	}
	return plan
}

// checkItem: however many deliveries there were, the organization has one outcome, and counts as a
// downgrade if one of the changes recorded for it lowers access.
func (w *world) checkItem(run string) {
	item := w.Item(run, w.org)
	if item.Reason == billing.ReasonNotRepeated { // another run did, and the webhook undid it
		item.Changes = nil
	} else if item.Outcome == billing.OutcomeError || (item.Outcome == billing.OutcomeSynced) != (len(item.Changes) > 0) {
		w.t.Fatalf("outcome %s (%s) with changes %+v", item.Outcome, item.Error, item.Changes)
	}
	want := 0
	if billing.DefaultTiers.LowersAccess(item.Changes) {
		want = 1
	}
	if got := w.Run(run).Downgrades; got != want {
		w.t.Fatalf("%d downgrades are counted, want %d for %+v", got, want, item.Changes)
	}
}

func (w *world) stop() {
	for _, worker := range w.workers {
		worker.finish()
	}
	w.EndProcesses()
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
	t := &hooks{
		Before: func(_ context.Context, call string) error {
			if !testworld.InTransaction(call) {
				s.wait()
			}
			switch {
			case call == "Records" && rows:
				maps.Copy(read, w.own().Of("subscriptions")) //nolint:contextcheck // the test reads in its own time
			case call == "Records":
				read = w.own().Of("organizations") //nolint:contextcheck // the test reads in its own time
			case call == "begin Apply":
				found = w.own() //nolint:contextcheck // the test reads in its own time
			}
			rows = call == "Records" && !rows
			return nil
		},
		After: func(_ context.Context, call string) error {
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
	r := w.Reconciler(t)
	r.Stripe = testworld.Stripe{Client: w.client, Hooks: t}
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
func (w *world) own() cells { return w.CellsOf(w.org) }
