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

// interleavings is the number of random interleavings that a test tries. The variable INTERLEAVINGS changes it.
const interleavings = 300

// interleavedWorld has one organization, two workers, Stripe and the application's webhook. It executes the workers'
// calls, the changes in Stripe and the webhook's statements in a random order. Only one party acts at a time, and a step
// of a worker is one call. So the test knows the tables' values at each call.
type interleavedWorld struct {
	*fixture

	client     *stripesource.Client // shared by all interleavings, because each client has its own connections
	t          *rapid.T
	org        string
	run        string
	catchUp    string                    // the run of the second worker; "" if both workers belong to run
	unhandled  []stripetest.Subscription // the states that Stripe sent and the webhook has not handled, oldest first
	sent       []stripetest.Subscription // all states that Stripe sent; it may send each of them again
	secondHalf func()                    // the webhook's second statement; nil if the webhook is not between its two statements
	workers    []*stepper
	writes     int
}

// TestNoInterleavingLosesANewerState orders the calls of two workers, Stripe's changes and the webhook's statements
// (late, twice, out of order) at random. No write of a worker replaces a row that changed after the worker read it.
// After the webhook's last write, one more run makes the record equal to Stripe.
func TestNoInterleavingLosesANewerState(t *testing.T) { tryInterleavings(t, newFixture(t), false) }

// TestNoInterleavingOfACatchUpAndAFullRunLosesANewerState does the same with one worker of a full run and one of a
// catch-up. It also checks that the budget of the catch-ups counts exactly the organizations that they lowered.
func TestNoInterleavingOfACatchUpAndAFullRunLosesANewerState(t *testing.T) {
	f := newFixture(t)
	tryInterleavings(t, f, true)
	lowered := f.Count(`SELECT COALESCE(SUM(downgrades), 0) FROM reconciliation_runs WHERE strategy = 'events'`)
	if used := f.Count(`SELECT used FROM reconciliation_budgets`); used != lowered || used == 0 {
		t.Errorf("catch-ups lowered %d organizations, but their budget counts %d", lowered, used)
	}
}

func tryInterleavings(t *testing.T, f *fixture, catchUp bool) {
	t.Helper()
	client := f.StripeClient()
	n, writes := 0, 0
	check := func(t *rapid.T) {
		n++
		w := newInterleavedWorld(f, client, t, n, catchUp)
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
		t.Error("no worker wrote anything, so the test checked nothing")
	}
}

// fromEnvironment returns the number in the variable, or defaultValue if the variable is not set.
func fromEnvironment(t *testing.T, name string, defaultValue int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return defaultValue
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func newInterleavedWorld(f *fixture, client *stripesource.Client, t *rapid.T, n int, catchUp bool) *interleavedWorld {
	w := &interleavedWorld{fixture: f, client: client, t: t, org: fmt.Sprintf("org-%d", n), run: fmt.Sprintf("run-%d", n)}
	f.Sub(w.org)
	// The record has a row and a customer, or one of them. The webhook or a worker adds the other.
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

// step lets one party do one thing.
func (w *interleavedWorld) step() {
	switch rapid.SampledFrom([]string{"worker", "worker", "worker", "worker", "Stripe", "webhook", "webhook", "late webhook"}).Draw(w.t, "who") {
	case "worker":
		w.workers[rapid.IntRange(0, len(w.workers)-1).Draw(w.t, "worker")].step()
	case "Stripe":
		w.changeStripe()
	case "webhook":
		w.webhook()
	case "late webhook":
		if len(w.sent) > 0 {
			w.unhandled = append(w.unhandled, rapid.SampledFrom(w.sent).Draw(w.t, "sent again"))
		}
	}
}

// changes are the possible changes of a subscription in Stripe.
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
	"cancel at period end toggled": func(s *stripetest.Subscription) { s.CancelAtPeriodEnd = !s.CancelAtPeriodEnd },
}

// changeStripe changes the subscription or adds a new one of the customer. Stripe sends an event with the new state; a
// third of the events is lost.
func (w *interleavedWorld) changeStripe() {
	id := "sub_" + w.org
	if rapid.IntRange(0, 5).Draw(w.t, "new subscription") == 0 {
		id = "sub_new_" + w.org
		w.Sub(w.org, func(s *stripetest.Subscription) { s.ID, s.Created = id, created.Unix()+100 })
	}
	sub, ok := w.Stripe.Subscription(id)
	if !ok {
		w.t.Fatalf("subscription %s does not exist", id)
	}
	if sub.Status != "canceled" { // a canceled subscription never changes again
		changes[rapid.SampledFrom(slices.Sorted(maps.Keys(changes))).Draw(w.t, "change")](&sub)
		w.Stripe.PutSubscription(sub)
	}
	w.sent = append(w.sent, sub)
	if rapid.IntRange(0, 2).Draw(w.t, "lost") > 0 {
		w.unhandled = append(w.unhandled, sub)
	}
}

// webhook makes the application's webhook execute its next statement. The first statement of an event writes the row,
// the second writes the organization.
func (w *interleavedWorld) webhook() {
	if w.secondHalf != nil {
		w.secondHalf()
		w.secondHalf = nil
		return
	}
	if len(w.unhandled) == 0 {
		return
	}
	i := rapid.IntRange(0, len(w.unhandled)-1).Draw(w.t, "event") // out of order
	sub := w.unhandled[i]
	w.unhandled = append(w.unhandled[:i:i], w.unhandled[i+1:]...)
	w.must(w.Webhook().WriteRow(w.Context(), w.org, sub))
	w.secondHalf = func() { w.must(w.Webhook().WriteOrganization(w.Context(), w.org, sub)) }
}

func (w *interleavedWorld) must(err error) {
	if err != nil {
		w.t.Fatal(err)
	}
}

// settle lets the webhook and the workers finish. Then it executes one more run and checks that no drift is left.
func (w *interleavedWorld) settle() {
	for w.secondHalf != nil || len(w.unhandled) > 0 {
		w.webhook()
	}
	for _, worker := range w.workers {
		worker.finish()
	}
	// A run does not repeat a lowering that was undone within the last 24 hours, so the repairs become older.
	w.Exec(`UPDATE reconciliation_repairs SET written_at = ? WHERE org_id = ?`, w.Clock.Now().Add(-25*time.Hour), w.org)
	last := w.run + "-last"
	w.OpenRun(last, []string{w.org})
	r := w.Reconciler(nil)
	r.Stripe = w.client
	result := w.deliver(r, last, w.org)[w.org]
	if result.Disposition != pipeline.Acknowledge {
		w.t.Fatalf("the last run failed: %+v", result.Failure)
	}
	if plan := w.plan(); len(plan.Changes) > 0 {
		w.t.Fatalf("the last run left drift: %+v", plan.Changes)
	}
	w.checkItem(w.run)
	if w.catchUp != "" {
		w.checkItem(w.catchUp)
	}
	w.checkItem(last)
	if w.Item(last, w.org).Outcome == billing.OutcomeError {
		w.t.Fatal("the organization is in error in the last run")
	}
}

// plan compares the record with Stripe as both are now.
func (w *interleavedWorld) plan() billing.Plan {
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

// checkItem checks that the organization has one outcome in the run, and that the run counts it as a downgrade exactly
// if a recorded change lowers access.
func (w *interleavedWorld) checkItem(run string) {
	item := w.Item(run, w.org)
	if item.Reason == billing.ReasonNotRepeated { // another run wrote these changes, and the webhook undid them
		item.Changes = nil
	} else if item.Outcome == billing.OutcomeError || (item.Outcome == billing.OutcomeSynced) != (len(item.Changes) > 0) {
		w.t.Fatalf("outcome %s (%s) with changes %+v", item.Outcome, item.Error, item.Changes)
	}
	want := 0
	if billing.DefaultTiers.LowersAccess(item.Changes) {
		want = 1
	}
	if got := w.Run(run).Downgrades; got != want {
		w.t.Fatalf("the run counts %d downgrades, want %d for %+v", got, want, item.Changes)
	}
}

func (w *interleavedWorld) stop() {
	for _, worker := range w.workers {
		worker.finish()
	}
	w.EndProcesses()
}

// stepper is a worker that waits before each of its calls until the test lets it proceed.
type stepper struct {
	proceed chan struct{}
	ready   chan struct{} // the worker sends when it waits or has ended
	ended   bool
}

// newWorker starts a worker that handles the organization's message. When the worker commits Apply, newWorker checks
// that the overwritten values are the values that the worker read. A transaction is one step, because the other parties
// would wait for its locks.
func (w *interleavedWorld) newWorker(run string) *stepper {
	s := &stepper{proceed: make(chan struct{}), ready: make(chan struct{})}
	var read, overwritten cells
	rowsAreNext := false // the next statement of Records reads the rows
	h := &hooks{
		Before: func(_ context.Context, call string) error {
			if !testworld.InTransaction(call) {
				s.wait()
			}
			switch {
			case call == "Records" && rowsAreNext:
				maps.Copy(read, w.own().Of("subscriptions")) //nolint:contextcheck // the statement is the test's, not the step's
			case call == "Records":
				read = w.own().Of("organizations") //nolint:contextcheck // the statement is the test's, not the step's
			case call == "begin Apply":
				overwritten = w.own() //nolint:contextcheck // the statement is the test's, not the step's
			}
			rowsAreNext = call == "Records" && !rowsAreNext
			return nil
		},
		After: func(_ context.Context, call string) error {
			if call != "commit Apply" {
				return nil
			}
			w.writes++
			if diff := cmp.Diff(read, overwritten); diff != "" {
				w.t.Errorf("a worker overwrote values that changed after it read them (-read +overwritten)\n%s", diff)
			}
			return nil
		},
	}
	r := w.Reconciler(h)
	r.Stripe = testworld.Stripe{Client: w.client, Hooks: h}
	go func() {
		s.wait()
		w.deliver(r, run, w.org)
		s.ended = true
		s.ready <- struct{}{}
	}()
	<-s.ready
	return s
}

// wait blocks the worker until the test lets it proceed.
func (s *stepper) wait() {
	s.ready <- struct{}{}
	<-s.proceed
}

// step lets the worker make its next call, and returns when the worker is before the call after that or has ended.
func (s *stepper) step() {
	if s.ended {
		return
	}
	s.proceed <- struct{}{}
	<-s.ready
}

func (s *stepper) finish() {
	for !s.ended {
		s.step()
	}
}

// own returns the values of the organization in the tables of the application.
func (w *interleavedWorld) own() cells { return w.CellsOf(w.org) }
