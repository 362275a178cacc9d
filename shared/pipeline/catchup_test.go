package pipeline_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

const settle = 10 * time.Minute

func (f *fixture) catchUpEnumerator(p *hooks) *pipeline.Enumerator {
	e := f.Enumerator(p)
	e.Settle = settle
	return e
}

// dueCatchUp returns the scheduled request for a catch-up at the clock's time, and the id of its run.
func (f *fixture) dueCatchUp() (pipeline.Request, string) {
	now := f.Clock.Now()
	return pipeline.Request{ScheduledFor: now, Strategy: billing.StrategyEvents}, "events-" + now.UTC().Format(time.RFC3339)
}

// catchUp executes a catch-up from its start to its end and returns its summary.
func (f *fixture) catchUp() billing.Summary {
	f.Helper()
	return f.finish(f.startCatchUp())
}

// startCatchUp enumerates a catch-up and returns the id of its run.
func (f *fixture) startCatchUp() string {
	f.Helper()
	req, id := f.dueCatchUp()
	f.enumerate(f.catchUpEnumerator(nil), req)
	return id
}

// crashedCatchUp does the same with an enumerator that dies before it sends messages.
func (f *fixture) crashedCatchUp() string {
	f.Helper()
	req, id := f.dueCatchUp()
	if _, err := f.catchUpEnumerator(testworld.DyingAt("SendWork")).Run(f.Context(), req); err == nil {
		f.Fatal("the enumerator was not killed")
	}
	return id
}

// stop stops a run and removes its messages from the queue.
func (f *fixture) stop(id string) {
	f.Helper()
	if ok, err := f.Store.StopRun(f.Context(), id, billing.ReasonStoppedByOperator, "no", f.Clock.Now()); err != nil || !ok {
		f.Fatal(ok, err)
	}
	f.Received(f.Work)
}

// wantCatchUp executes a catch-up and checks how many organizations it names and repairs.
func (f *fixture) wantCatchUp(named, repaired int) {
	f.Helper()
	s := f.catchUp()
	if s.Status != billing.RunCompleted || s.TotalOrganizations != named || s.Synchronized != repaired {
		f.Errorf("the catch-up named %d organizations and repaired %d, want %d and %d: %+v", s.TotalOrganizations, s.Synchronized, named, repaired, s)
	}
}

// wantEmptyCatchUps executes a catch-up in each of the next hours and checks that none names an organization.
func (f *fixture) wantEmptyCatchUps(hours int) {
	f.Helper()
	for range hours {
		f.Clock.Advance(time.Hour)
		f.wantCatchUp(0, 0)
	}
}

// wantRows checks the number of rows in the table reconciliation_TABLE.
func (f *fixture) wantRows(table string, want int) {
	f.Helper()
	if n := f.Count(`SELECT COUNT(*) FROM reconciliation_` + table); n != want {
		f.Errorf("%d rows of %s, want %d", n, table, want)
	}
}

// finish delivers the run's messages to a worker, closes the run and returns its summary.
func (f *fixture) finish(id string) billing.Summary {
	f.Helper()
	orgs := distinct(f.SentWork(id))
	worker := f.Reconciler(nil)
	for len(orgs) > 0 {
		n := min(10, len(orgs))
		f.deliver(worker, id, orgs[:n]...)
		orgs = orgs[n:]
	}
	f.Received(f.Results)
	aggregator := f.Aggregator(nil)
	if err := aggregator.Progress(f.Context(), id); err != nil {
		f.Fatal(err)
	}
	summary, err := aggregator.Summary(f.Context(), id)
	if err != nil {
		f.Fatal(err)
	}
	if summary.Status.Open() {
		f.Fatalf("run %s is still %s", id, summary.Status)
	}
	return summary
}

// change changes the organization's subscription in Stripe. The endpoint accepts the event, unless it is down.
func (f *fixture) change(id string, endpointIsDown bool, change func(*stripetest.Subscription)) {
	f.Helper()
	f.Stripe.FailWebhooks(map[bool]int{true: 1}[endpointIsDown])
	defer f.Stripe.FailWebhooks(0)
	if !f.Stripe.UpdateSubscription("sub_"+id, change) {
		f.Fatalf("subscription sub_%s does not exist", id)
	}
}

// webhookHandles makes the application's webhook write the present state of the organization's subscription.
func (f *fixture) webhookHandles(id string) {
	f.Helper()
	sub, _ := f.Stripe.Subscription("sub_" + id)
	f.webhookHandlesState(id, sub)
}

// webhookHandlesState makes the application's webhook write this state of the organization's subscription.
func (f *fixture) webhookHandlesState(id string, sub stripetest.Subscription) {
	f.Helper()
	if err := f.Webhook().Handle(f.Context(), id, sub, func() {}); err != nil {
		f.Fatal(err)
	}
}

func TestCatchUpRepairsOrganizationsNamedByEventsOnly(t *testing.T) {
	f := newFixture(t)
	for _, id := range []string{"recorded", "handled", "ignored", "unnamed", "deleted"} {
		f.Subscriber(id)
	}
	f.Exec(`UPDATE subscriptions SET plan_tier = 'starter' WHERE org_id = 'unnamed'`) // drifted, but no event names it
	f.Exec(`UPDATE organizations SET is_deleted = TRUE WHERE id = 'deleted'`)
	f.Org("checkout", withoutCustomer, free) // the webhook missed its checkout
	f.Org("customer", free)                  // the webhook wrote only its customer
	f.Org("Padded")                          // its ids have spaces and another case, because somebody pasted them
	f.Row("Padded", func(s *appschema.Subscription) {
		s.StripeSubscriptionID, s.StripeCustomerID = new(" sub_Padded\n"), nil
	})
	f.Exec(`UPDATE organizations SET stripe_customer_id = NULL WHERE id = 'Padded'`)
	f.Sub("Padded")
	f.Clock.Advance(time.Hour)
	f.Stripe.FailWebhooks(2)
	f.Stripe.CreateSubscription(stripetest.Subscription{
		ID: "sub_checkout", CustomerID: "cus_new", Status: "active", PriceID: "price_max", Metadata: map[string]string{"orgId": " CHECKOUT "},
		Created: created.Unix(), CurrentPeriodStart: periodStart.Unix(), CurrentPeriodEnd: periodEnd.Unix(),
	})
	f.Stripe.FailWebhooks(0)
	f.Sub("customer")
	f.change("customer", true, price("price_starter"))
	f.change("recorded", true, pastDue)
	f.change("recorded", true, canceled)
	f.change("Padded", true, price("price_max"))
	f.change("ignored", false, price("price_max")) // the webhook's handler ignored it
	f.change("handled", false, price("price_max"))
	f.webhookHandlesState("handled", testworld.Subscription("handled", price("price_max")))
	f.change("deleted", true, canceled)
	f.Sub("stranger") // belongs to another system that uses the same account
	f.change("stranger", true, pastDue)
	before := f.Cells()
	f.Clock.Advance(20 * time.Minute)

	s := f.catchUp()

	_, id := f.dueCatchUp()
	if diff := cmp.Diff([]string{"Padded", "checkout", "customer", "handled", "ignored", "recorded"}, f.ItemIDs(id)); diff != "" {
		t.Error("named organizations (-want +got):", diff)
	}
	if s.Status != billing.RunCompleted || s.Synchronized != 5 || s.Skipped != 1 || s.DriftByCause != (billing.DriftByCause{Pending: 4, NotPending: 1}) {
		t.Errorf("%+v", s)
	}
	causes := map[string]string{}
	for _, d := range s.Details {
		causes[d.OrgID] = fmt.Sprintf("%s %d", strings.TrimPrefix(d.Event.Type, "customer.subscription."), d.Event.PendingWebhooks)
		if !d.Event.Created.Equal(f.Clock.Now().Add(-20*time.Minute)) || d.Event.ID == "" {
			t.Errorf("%s: %+v", d.OrgID, d.Event)
		}
	}
	want := map[string]string{"Padded": "updated 1", "checkout": "created 2", "customer": "updated 1", "ignored": "updated 0", "recorded": "deleted 1"}
	if diff := cmp.Diff(want, causes); diff != "" {
		t.Error("causes (-want +got):", diff)
	}
	after := f.Cells()
	if diff := cmp.Diff([]string{"Padded", "checkout", "customer", "ignored", "recorded"}, slices.Sorted(maps.Keys(after.WithoutTimestamps().ChangedSince(before.WithoutTimestamps())))); diff != "" {
		t.Error("changed organizations (-want +got):", diff)
	}
	if tier := mysqltest.Value[string](t, f.DB, `SELECT plan_tier FROM subscriptions WHERE org_id = 'checkout' AND stripe_subscription_id = 'sub_checkout'`); tier != "max" {
		t.Errorf("the tier of the missed checkout is %s, want max", tier)
	}
	if n := len(f.Metrics.Lines(t, telemetry.MetricCatchUpAccessDrift, 5.0)); n != 1 {
		t.Errorf("%d metric lines have the drift of 5, want 1: %v", n, f.Metrics.Lines(t, "", nil))
	}
	f.wantRows("events", 0)
}

func TestCatchUpWindowBeginsWhereTheLastCompleteListingEnded(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("a")
	window := func(id string) [2]string {
		t.Helper()
		w := f.Run(id).Window
		if w == nil {
			t.Fatalf("%s has no window", id)
		}
		return [2]string{w.From.UTC().Format("02 15:04"), w.To.UTC().Format("02 15:04")}
	}
	want := func(id, from, to string) {
		t.Helper()
		if diff := cmp.Diff([2]string{from, to}, window(id)); diff != "" {
			t.Errorf("%s: %s", id, diff)
		}
	}
	f.catchUp()
	want("events-2026-11-22T03:00:00Z", "21 03:00", "22 02:50") // the first window is a day long

	f.Clock.Advance(time.Hour)
	f.catchUp()
	want("events-2026-11-22T04:00:00Z", "22 02:35", "22 03:50")

	f.Clock.Advance(time.Hour) // a dry run and a catch-up with Since do not move the window
	dry := f.enumerate(f.catchUpEnumerator(nil), pipeline.Request{Strategy: billing.StrategyEvents, DryRun: true})
	f.finish(dry.RunID)
	want(dry.RunID, "22 03:35", "22 04:50")
	since := f.enumerate(f.catchUpEnumerator(nil), pipeline.Request{Strategy: billing.StrategyEvents, Since: f.Clock.Now().Add(-5 * time.Minute)})
	f.finish(since.RunID)
	want(since.RunID, "22 04:55", "22 05:00")

	f.Clock.Advance(time.Hour) // a catch-up whose key may not read events does not move the window
	f.Proxy.Refuse = func(r *http.Request) bool { return r.URL.Path == "/v1/events" }
	req, refused := f.dueCatchUp()
	if _, err := f.catchUpEnumerator(nil).Run(t.Context(), req); err == nil {
		t.Error("the list of events was refused, but Run returned no error")
	}
	f.stop(refused)
	f.Proxy.Refuse = nil
	want(refused, "22 03:35", "22 05:50")
	f.Clock.Advance(time.Hour)
	f.catchUp()
	want("events-2026-11-22T07:00:00Z", "22 03:35", "22 06:50")

	f.Clock.Advance(time.Hour) // the window of a stopped catch-up is listed again, even if it was fully listed
	f.change("a", true, pastDue)
	f.Clock.Advance(20 * time.Minute)
	f.stop(f.startCatchUp())
	f.Clock.Advance(40 * time.Minute)
	f.wantCatchUp(1, 1)
	want("events-2026-11-22T09:00:00Z", "22 06:35", "22 08:50")
	f.Clock.Advance(time.Hour)
	f.catchUp()
	want("events-2026-11-22T10:00:00Z", "22 08:35", "22 09:50")
}

func TestCatchUpWindowOlderThanEventLogIsReportedAsExpired(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("a")
	f.catchUp()
	f.Clock.Advance(31 * 24 * time.Hour)
	s := f.catchUp()
	_, expired := f.dueCatchUp()
	if s.Status != billing.RunCompleted || s.StatusReason != billing.ReasonEventsExpired || !strings.Contains(s.StatusMessage, "run over all organizations") {
		t.Errorf("%+v", s)
	}
	wantAlarms := func(times int) {
		t.Helper()
		if n := len(f.Metrics.Lines(t, telemetry.MetricRunSuspect, 1.0)); n != times {
			t.Errorf("%s was 1 in %d metric lines, want %d", telemetry.MetricRunSuspect, n, times)
		}
		if n := len(f.Logs.Lines(t, "level", "ERROR")); n != times {
			t.Errorf("%d log lines have the level ERROR, want %d", n, times)
		}
	}
	wantAlarms(1)
	f.Clock.Advance(time.Hour)
	if s := f.catchUp(); s.StatusReason != "" {
		t.Errorf("%+v", s)
	}
	wantAlarms(1)
	f.Clock.Advance(8 * 24 * time.Hour)
	f.catchUp()
	f.tick()
	if run := f.Run(expired); run.StatusReason != billing.ReasonEventsExpired {
		t.Errorf("the run that reported expired events was pruned: %+v", run)
	}
}

func TestCatchUpDoesNotStartWhileAnotherLists(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("a")
	f.change("a", true, pastDue)
	f.Clock.Advance(time.Hour)
	first := f.crashedCatchUp()
	f.Clock.Advance(time.Hour)
	lease := billing.Lease{RunID: first, Owner: "the enumerator that still lists", End: f.Clock.Now().Add(billing.LeaseTTL)}
	if held, err := f.Store.AcquireLease(t.Context(), lease, f.Clock.Now()); err != nil || !held {
		t.Fatal(held, err)
	}
	again, second := f.dueCatchUp()
	if got := f.enumerate(f.catchUpEnumerator(nil), again); got.RunID != first || got.Enqueued != 0 {
		t.Errorf("%+v", got)
	}
	_, err := f.catchUpEnumerator(nil).Run(t.Context(), pipeline.Request{Strategy: billing.StrategyEvents, RequestID: "by-hand"})
	wantReason(t, err, billing.Permanent, billing.ReasonCatchUpListing)
	f.Clock.Advance(2 * billing.LeaseTTL)
	if f.CountRuns() != 1 || f.Run(second).ID != "" {
		t.Errorf("%d runs exist, want 1", f.CountRuns())
	}
	f.enumerate(f.catchUpEnumerator(nil), pipeline.Request{ResumeAll: true})

	// The first catch-up has ended its listing, so the next one starts.
	f.Clock.Advance(time.Hour)
	third, id := f.dueCatchUp()
	if got := f.enumerate(f.catchUpEnumerator(nil), third); got.RunID != id || !got.Done {
		t.Errorf("%+v", got)
	}
	if w := f.Run(id).Window; !w.From.Equal(f.Run(first).Window.To.Add(-billing.Overlap)) {
		t.Errorf("the window is %+v, want it to begin before the end of the first window", w)
	}
	for _, run := range []string{first, id} {
		f.deliver(f.Reconciler(nil), run, f.ItemIDs(run)...)
	}
	if got := f.Item(first, "a"); got.Outcome != billing.OutcomeSynced {
		t.Errorf("%+v", got)
	}
}

// Without deployed functions there is no tick that would resume it.
func TestNextCatchUpResumesTheOneOfACrashedEnumerator(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("a")
	f.change("a", true, pastDue)
	f.Clock.Advance(time.Hour)
	crashed := f.crashedCatchUp()
	f.Clock.Advance(2 * billing.LeaseTTL)
	byHand := pipeline.Request{Strategy: billing.StrategyEvents, RequestID: "by-hand", DryRun: true}
	_, err := f.catchUpEnumerator(nil).Run(t.Context(), byHand) // a dry run must not resume a catch-up that writes
	wantReason(t, err, billing.Permanent, billing.ReasonCatchUpListing)
	if err == nil || !strings.Contains(err.Error(), "--resume "+crashed) || f.Status(crashed) != billing.RunEnumerating {
		t.Errorf("the run is %s; %v", f.Status(crashed), err)
	}
	next, _ := f.dueCatchUp()
	if got := f.enumerate(f.catchUpEnumerator(nil), next); got.RunID != crashed || got.Enqueued != 1 || !got.Done || f.Status(crashed) != billing.RunRunning {
		t.Errorf("the run is %s; %+v", f.Status(crashed), got)
	}
	if s := f.finish(crashed); s.Synchronized != 1 {
		t.Errorf("%+v", s)
	}
	if _, err := f.catchUpEnumerator(nil).Run(t.Context(), byHand); err != nil {
		t.Error(err)
	}
}

func TestStoppedCatchUpIsNotResumedWhileAnotherLists(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("a")
	f.change("a", true, pastDue)
	f.Clock.Advance(time.Hour)
	stopped := f.startCatchUp()
	f.stop(stopped)
	f.Clock.Advance(time.Hour)
	listing := f.crashedCatchUp()
	_, err := f.catchUpEnumerator(nil).Run(t.Context(), pipeline.Request{ResumeRun: stopped})
	wantReason(t, err, billing.Permanent, billing.ReasonCatchUpListing)
	if f.Status(stopped) != billing.RunStopped || err == nil || !strings.Contains(err.Error(), listing) {
		t.Errorf("the run is %s; %v", f.Status(stopped), err)
	}
	f.Clock.Advance(2 * billing.LeaseTTL)
	f.enumerate(f.catchUpEnumerator(nil), pipeline.Request{ResumeAll: true})
	if s := f.finish(listing); s.Synchronized != 1 {
		t.Errorf("%+v", s)
	}
	f.enumerate(f.catchUpEnumerator(nil), pipeline.Request{ResumeRun: stopped})
	if s := f.finish(stopped); s.Skipped != 1 || s.Status != billing.RunCompleted {
		t.Errorf("%+v", s)
	}
}

func TestWindowAfterLongStoppedCatchUpIsLimited(t *testing.T) {
	const week = 7 * 24 * time.Hour
	stopCatchUp := func(f *fixture) {
		f.change("a", true, pastDue)
		f.Clock.Advance(time.Hour)
		f.stop(f.startCatchUp())
	}
	fullRun := func(f *fixture) {
		id := f.enumerate(f.Enumerator(nil), pipeline.Request{ScheduledFor: f.Clock.Now()}).RunID
		f.finish(id)
	}
	for name, test := range map[string]struct {
		prepare func(f *fixture)
		expired bool          // the next window begins later than it should, because Stripe's event log begins later
		from    time.Duration // how long ago the next window begins
	}{
		"no full run since": {func(f *fixture) {
			stopCatchUp(f)
			f.Clock.Advance(5 * week)
		}, true, billing.EventRetention},
		"a full run since": {func(f *fixture) {
			stopCatchUp(f)
			f.Clock.Advance(4 * week)
			fullRun(f)
			f.Clock.Advance(week)
		}, false, week},
		"a full run while the catch-up listed": {func(f *fixture) {
			f.Clock.Advance(time.Hour)
			fullRun(f)
			stopCatchUp(f)
			f.Clock.Advance(5 * week)
		}, true, billing.EventRetention},
		"a full run began within its window": {func(f *fixture) {
			f.Clock.Advance(46 * time.Hour)
			fullRun(f)
			stopCatchUp(f)
			f.Clock.Advance(29 * 24 * time.Hour)
		}, false, 29*24*time.Hour + time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.Subscriber("a")
			f.catchUp()
			test.prepare(f)
			for range 3 {
				s := f.catchUp()
				_, id := f.dueCatchUp()
				w := f.Run(id).Window
				if begins := f.Clock.Now().Sub(w.From); begins != test.from || w.Expired != test.expired || (s.StatusReason != "") != test.expired {
					t.Errorf("the window begins %s ago, want %s: %+v, %+v", begins, test.from, w, s)
				}
				f.Clock.Advance(time.Hour)
				test.from, test.expired = time.Hour+settle+billing.Overlap, false
			}
		})
	}
}

// If Stripe changed the format of its events, catch-ups would name no organization and look successful.
func TestCatchUpReportsUnreadableEvents(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("a")
	f.catchUp()
	sub, _ := f.Stripe.Subscription("sub_a")
	for range 3 {
		f.Stripe.AddEvent(stripetest.Event{Subscription: &sub, PendingWebhooks: 1, Override: map[string]any{"data": map[string]any{"object": map[string]any{"object": "subscription.v2"}}}})
	}
	f.Clock.Advance(time.Hour)
	s := f.catchUp()
	if s.Status != billing.RunCompleted || s.StatusReason != billing.ReasonEventsUnreadable || !strings.HasPrefix(s.StatusMessage, "3 ") {
		t.Errorf("%+v", s)
	}
	f.Clock.Advance(time.Hour) // the events are no longer in the window, only in the list of undelivered events
	if s := f.catchUp(); s.StatusReason != "" {
		t.Errorf("%+v", s)
	}
}

func TestScheduledCatchUpDeliveredTwiceIsOneRun(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("a")
	f.change("a", true, pastDue)
	f.Clock.Advance(time.Hour)
	req, id := f.dueCatchUp()
	f.enumerate(f.Enumerator(nil), pipeline.Request{ScheduledFor: req.ScheduledFor}) // a full run at the same time
	for range 2 {
		if got := f.enumerate(f.catchUpEnumerator(nil), req); got.RunID != id || !got.Done {
			t.Errorf("%+v", got)
		}
	}
	if f.CountRuns() != 2 {
		t.Errorf("%d runs, want 2", f.CountRuns())
	}
	var byHand []string
	for _, request := range []string{"one", "one", "two"} {
		got := f.enumerate(f.catchUpEnumerator(nil), pipeline.Request{Strategy: billing.StrategyEvents, RequestID: request})
		byHand = append(byHand, got.RunID)
	}
	if byHand[0] != byHand[1] || byHand[1] == byHand[2] {
		t.Errorf("the same request must give the same run, another request another run: %v", byHand)
	}
}

// Stripe may deliver an event hours later. It has the subscription's old state, and there is no new event.
func TestNextCatchUpRepairsWriteOfLateWebhook(t *testing.T) {
	f := newFixture(t)
	for _, id := range []string{"late", "undelivered"} {
		f.Subscriber(id)
	}
	f.change("late", true, price("price_starter")) // delivered below
	f.change("undelivered", true, price("price_max"))
	late := f.Stripe.Events()[0].ID
	f.Clock.Advance(time.Hour)
	f.change("late", false, price("price_max"))
	f.Clock.Advance(time.Hour)
	f.wantCatchUp(2, 2)
	f.wantEmptyCatchUps(5) // the overlap ends; an event that stays undelivered names no organization

	f.webhookHandlesState("late", testworld.Subscription("late", price("price_starter")))
	f.Stripe.SetPendingWebhooks(late, 0)
	f.Clock.Advance(time.Hour)
	dry := f.enumerate(f.catchUpEnumerator(nil), pipeline.Request{Strategy: billing.StrategyEvents, DryRun: true})
	f.finish(dry.RunID) // a dry run leaves the late event for the catch-up that repairs
	s := f.catchUp()
	if s.TotalOrganizations != 1 || s.Synchronized != 1 || s.DriftByCause != (billing.DriftByCause{NotPending: 1}) || s.Details[0].Event.ID != late {
		t.Errorf("%+v", s)
	}

	f.wantEmptyCatchUps(24 * 4) // Stripe stops to deliver the other event after three days
	f.wantRows("undelivered", 0)
}

// lateWebhook makes the application's webhook handle an event of "late" hours after it happened. The webhook overwrites
// the repair with the event's old state.
func (f *fixture) lateWebhook() (event string) {
	f.Helper()
	f.Subscriber("late")
	f.change("late", true, price("price_starter"))
	event = f.Stripe.Events()[0].ID
	f.Clock.Advance(time.Hour)
	f.change("late", false, price("price_max"))
	f.Clock.Advance(time.Hour)
	f.wantCatchUp(1, 1)
	f.wantEmptyCatchUps(3) // until the event is before the overlap
	f.webhookHandlesState("late", testworld.Subscription("late", price("price_starter")))
	f.Stripe.SetPendingWebhooks(event, 0)
	f.Clock.Advance(time.Hour)
	return event
}

func TestLateWebhookIsRepairedAfterAnUnfinishedCatchUp(t *testing.T) {
	for name, end := range map[string]func(f *fixture){
		"stopped before it sent messages": func(f *fixture) {
			f.stop(f.crashedCatchUp())
		},
		"stopped after it sent messages": func(f *fixture) {
			f.stop(f.startCatchUp())
		},
		"past its deadline": func(f *fixture) {
			f.startCatchUp()
			f.Clock.Advance(13 * time.Hour)
			f.tick()
		},
		"with Since, and stopped": func(f *fixture) {
			id := f.enumerate(f.catchUpEnumerator(nil), pipeline.Request{Strategy: billing.StrategyEvents, Since: f.Clock.Now().Add(-30 * time.Minute)}).RunID
			f.stop(id)
		},
		"stopped twice": func(f *fixture) {
			for range 2 {
				f.stop(f.startCatchUp())
				f.Clock.Advance(time.Hour)
			}
		},
		"stopped and pruned": func(f *fixture) {
			id := f.startCatchUp()
			f.stop(id)
			f.Exec(`DELETE FROM reconciliation_items WHERE run_key = (SELECT run_key FROM reconciliation_runs WHERE id = ?)`, id)
			f.Clock.Advance(8 * 24 * time.Hour)
			f.enumerate(f.catchUpEnumerator(nil), pipeline.Request{Strategy: billing.StrategyEvents, DryRun: true})
			f.tick()
			if f.Run(id).ID != "" {
				f.Fatal("the stopped catch-up was not pruned")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			event := f.lateWebhook()
			end(f)
			f.Received(f.Work)
			f.Clock.Advance(time.Hour)
			s := f.catchUp()
			if s.TotalOrganizations != 1 || s.Synchronized != 1 || s.Details[0].Event.ID != event {
				t.Errorf("%+v", s)
			}
			f.wantEmptyCatchUps(2)
			f.wantRows("late", 0)
		})
	}
}

// An event is undelivered until both endpoints have accepted it.
func TestLateWebhookIsNoticedIfAnotherEndpointIsDown(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("late")
	f.Stripe.FailWebhooks(2)
	f.Stripe.UpdateSubscription("sub_late", price("price_starter"))
	f.Stripe.FailWebhooks(1) // one endpoint stays down
	late := f.Stripe.Events()[0].ID
	f.Clock.Advance(time.Hour)
	f.Stripe.UpdateSubscription("sub_late", price("price_max"))
	f.Clock.Advance(time.Hour)
	f.wantCatchUp(1, 1)
	f.wantEmptyCatchUps(3)
	f.Exec(`UPDATE subscriptions SET plan_tier = 'starter', stripe_price_id = 'price_starter' WHERE org_id = 'late'`)
	f.Stripe.SetPendingWebhooks(late, 1)
	f.Clock.Advance(time.Hour)
	if s := f.catchUp(); s.TotalOrganizations != 1 || s.Synchronized != 1 || s.Details[0].Event.ID != late {
		t.Errorf("%+v", s)
	}
	f.wantEmptyCatchUps(24 * 4)
	f.wantRows("undelivered", 0)
}

// An endpoint may have accepted the event after a catch-up last listed it.
func TestUndeliveredEventThatIsTooOldToBeListedNamesItsOrganizationOnce(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("a")
	f.change("a", true, price("price_starter"))
	f.change("a", false, price("price_max"))
	f.Clock.Advance(time.Hour)
	f.catchUp()
	f.Exec(`UPDATE subscriptions SET plan_tier = 'starter', stripe_price_id = 'price_starter' WHERE org_id = 'a'`)
	f.Clock.Advance(5 * 24 * time.Hour)
	f.wantCatchUp(1, 1)
}

func TestTenThousandEventsOfOneSubscriptionAreOneItem(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("a")
	f.Subscriber("b")
	sub, _ := f.Stripe.Subscription("sub_a")
	for i := range 10_000 {
		f.Stripe.AddEvent(stripetest.Event{Subscription: &sub, Created: start.Add(time.Duration(i) * time.Second / 10).Unix(), PendingWebhooks: i % 2})
	}
	f.Clock.Advance(time.Hour)
	id := f.startCatchUp()
	if diff := cmp.Diff([]string{"a"}, f.ItemIDs(id)); diff != "" {
		t.Error(diff)
	}
	f.wantRows("named", 1)
	got := mysqltest.Value[string](t, f.DB, `SELECT event_id FROM reconciliation_named`)
	if events := f.Stripe.Events(); got != events[len(events)-1].ID {
		t.Errorf("the cause is %s, want the last event %s", got, events[len(events)-1].ID)
	}
	if used := f.Run(id).Usage.List; used != 100+50 {
		t.Errorf("%d pages were listed, want 150", used)
	}
}

// With one request for each of the 600 subscriptions, the worker would run out of time: it has two reads a second and
// five minutes.
func TestOrganizationWithManyNamedSubscriptionsIsReadByCustomerLists(t *testing.T) {
	for name, recorded := range map[string]string{"the recorded subscription is active": "active", "the recorded subscription is canceled": "canceled"} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.Subscriber("a")
			if recorded == "canceled" {
				f.Sub("a", canceled)
			}
			for i := range 600 {
				f.Sub("a", canceled, func(s *stripetest.Subscription) {
					s.ID = fmt.Sprintf("sub_a_%03d", i)
					if i%2 == 0 { // a checkout without a customer creates a new customer
						s.CustomerID, s.Metadata = "cus_second", map[string]string{"orgId": "a"}
					}
					if i == 500 {
						s.Status, s.PriceID, s.CanceledAt, s.EndedAt = "active", "price_max", 0, 0
					}
				})
				sub, _ := f.Stripe.Subscription(fmt.Sprintf("sub_a_%03d", i))
				f.Stripe.AddEvent(stripetest.Event{Subscription: &sub})
			}
			f.Clock.Advance(time.Hour)
			s := f.catchUp()
			_, id := f.dueCatchUp()
			item := f.Item(id, "a")
			if used := f.Run(id).Usage; used.Retrieve > 10 || used.List > 20 {
				t.Errorf("%+v", used)
			}
			if recorded == "canceled" && (s.Synchronized != 1 || item.SubscriptionID != "sub_a_500") {
				t.Errorf("%+v", item)
			}
			if recorded == "active" && (s.Skipped != 1 || !item.Warns(billing.WarnMultipleLive)) {
				t.Errorf("%+v", item)
			}
		})
	}
}

func TestEmptyCatchUpIsCheapAndPrunedAfterAWeek(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("a")
	f.catchUp()
	f.Clock.Advance(time.Hour)
	calls := 0
	count := &hooks{Before: func(context.Context, string) error {
		calls++
		return nil
	}}
	req, id := f.dueCatchUp()
	f.enumerate(f.catchUpEnumerator(count), req)
	if err := f.Aggregator(count).Progress(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if f.Status(id) != billing.RunCompleted || calls > 100 {
		t.Errorf("the run is %s after %d calls", f.Status(id), calls)
	}
	t.Logf("%d calls to Stripe, MySQL and the queues, including begins and commits", calls)
	f.Clock.Advance(time.Hour)
	f.change("a", true, pastDue)
	f.Clock.Advance(time.Hour)
	f.wantCatchUp(1, 1)
	_, kept := f.dueCatchUp()
	f.Clock.Advance(7*24*time.Hour + time.Minute)
	f.catchUp()
	_, last := f.dueCatchUp()
	tick, err := f.Aggregator(nil).Tick(t.Context())
	if err != nil || tick.Pruned != 2 {
		t.Errorf("%+v, %v", tick, err)
	}
	if diff := cmp.Diff([]string{kept, last}, f.Texts(`SELECT id FROM reconciliation_runs ORDER BY started_at`)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{kept, last}, f.Texts(`SELECT run_id FROM reconciliation_windows ORDER BY from_at`)); diff != "" {
		t.Error(diff)
	}
}

// The age of the last run, and the counts that a run compares itself with, come from full runs only.
func TestCatchUpsDoNotCountAsFullRuns(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("a")
	f.Subscriber("b")
	enumerator := f.catchUpEnumerator(nil)
	enumerator.Settle, enumerator.Downgrades = 0, func(listed int) int { return listed }
	f.change("b", false, func(s *stripetest.Subscription) { s.CancelAtPeriodEnd = true })
	first := f.enumerate(enumerator, pipeline.Request{Strategy: billing.StrategyEvents, Since: start.Add(-time.Hour)})
	f.finish(first.RunID)
	if limit := f.Run(first.RunID).DowngradeLimit; limit != 1 { // the limit follows this catch-up's own count, because there was no full run before
		t.Errorf("the limit of the first catch-up is %d", limit)
	}
	f.enumerate(f.Enumerator(nil), scheduled)
	f.finish(scheduledID)
	for range 3 {
		f.Clock.Advance(time.Hour)
		if s := f.catchUp(); s.Status != billing.RunCompleted { // a catch-up without organizations is not suspect
			t.Errorf("%+v", s)
		}
	}
	if counts, err := f.Store.LastFullRunCounts(t.Context(), f.Clock.Now()); err != nil || counts.Organizations != 2 {
		t.Errorf("%+v, %v", counts, err)
	}
	f.Clock.Advance(time.Hour)
	f.Metrics.Reset()
	f.tick()
	lines := f.Metrics.Lines(t, telemetry.MetricLastRunAge, (4 * time.Hour).Seconds())
	if len(lines) != 1 || lines[0][telemetry.MetricCatchUpAge] != time.Hour.Seconds() {
		t.Errorf("%v", f.Metrics.Lines(t, "", nil))
	}
	if s := f.Run("events-2026-11-22T06:00:00Z"); s.DowngradeLimit != 10 {
		t.Errorf("the limit of the last catch-up is %d, want 10", s.DowngradeLimit)
	}
}

func TestCatchUpKilledAnywhereLosesNothing(t *testing.T) {
	f := newFixture(t)
	ids := numbered(4)
	for _, id := range ids {
		f.Subscriber(id)
		f.change(id, true, price("price_starter"))
	}
	f.Org("customer", free)
	f.Sub("customer")
	f.change("customer", true, price("price_starter"))
	f.Sub("stranger")
	f.change("stranger", true, pastDue)
	f.Subscriber("late") // the endpoint accepted its event hours later
	sub, _ := f.Stripe.Subscription("sub_late")
	lateEvent := f.Stripe.AddEvent(stripetest.Event{Subscription: &sub, Created: start.Add(-36 * time.Hour).Unix()})
	want := append(slices.Clone(ids), "customer", "late")
	slices.Sort(want)
	f.Clock.Advance(time.Hour)
	testworld.EveryDeath(t, func(t *testing.T, k *testworld.Killer) {
		f.resetRuns()
		for _, table := range []string{"windows", "events", "named", "undelivered", "late"} {
			f.Exec(`DELETE FROM reconciliation_` + table)
		}
		f.Exec(`INSERT INTO reconciliation_undelivered (event_id, type, pending_webhooks, subscription_id, customer_id, org_id, created_at, seen_key, seen_at)
			VALUES (?, 'customer.subscription.updated', 1, 'sub_late', 'cus_late', '', ?, 0, ?)`, lateEvent, start.Add(-36*time.Hour), start.Add(-time.Hour))
		req, id := f.dueCatchUp()
		killed := f.catchUpEnumerator(k.Hooks())
		killed.AccountID = "acct_test"
		if _, err := killed.Run(t.Context(), req); k.Dead() && err == nil {
			t.Error("a killed enumerator succeeded")
		}
		if f.CountRuns() == 0 { // the schedule tries again
			f.enumerate(f.catchUpEnumerator(nil), req)
		}
		f.Clock.Advance(2 * time.Minute)
		if again := f.enumerate(f.catchUpEnumerator(nil), pipeline.Request{ResumeAll: true}); !again.Done {
			t.Errorf("the resumed enumeration returned %+v", again)
		}
		if diff := cmp.Diff(want, f.ItemIDs(id)); diff != "" {
			t.Error("items (-want +got):", diff)
		}
		if diff := cmp.Diff(want, distinct(f.SentWork(id))); diff != "" {
			t.Error("messages (-want +got):", diff)
		}
		if run := f.Run(id); run.Status != billing.RunRunning || run.Total != len(want) {
			t.Errorf("%+v", run)
		}
		named, err := f.Store.EventSubscriptions(t.Context(), []billing.Work{{RunID: id, OrgID: "late"}, {RunID: id, OrgID: "customer"}})
		if err != nil || len(named) != 2 {
			t.Errorf("%v, %v", named, err)
		}
		f.wantRows("events", 0)
		f.wantRows("undelivered", len(ids)+2)
	})
}
