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

// due is what the schedule of catch-ups asks for now, and the id of the run.
func (f *fixture) due() (pipeline.Request, string) {
	now := f.Clock.Now()
	return pipeline.Request{ScheduledFor: now, Strategy: billing.StrategyEvents}, "events-" + now.UTC().Format(time.RFC3339)
}

// catchUp plays the catch-up that is due now to its end, and returns its summary.
func (f *fixture) catchUp() billing.Summary {
	f.Helper()
	return f.finish(f.startCatchUp())
}

// startCatchUp enumerates the catch-up that is due now, and returns its run.
func (f *fixture) startCatchUp() string {
	f.Helper()
	req, id := f.due()
	f.enumerate(f.catchUpEnumerator(nil), req)
	return id
}

// crashedCatchUp is startCatchUp by an enumerator that crashes before it sends.
func (f *fixture) crashedCatchUp() string {
	f.Helper()
	req, id := f.due()
	if _, err := f.catchUpEnumerator(testworld.DyingAt("SendWork")).Run(f.Context(), req); err == nil {
		f.Fatal("not killed")
	}
	return id
}

// stop stops a run and loses its messages.
func (f *fixture) stop(id string) {
	f.Helper()
	if ok, err := f.Store.StopRun(f.Context(), id, billing.ReasonStoppedByOperator, "no", f.Clock.Now()); err != nil || !ok {
		f.Fatal(ok, err)
	}
	f.Received(f.Work)
}

// wantCatchUp plays the catch-up that is due now, which is to name so many organizations and repair so many of them.
func (f *fixture) wantCatchUp(named, repaired int) {
	f.Helper()
	s := f.catchUp()
	if s.Status != billing.RunCompleted || s.TotalOrganizations != named || s.Synchronized != repaired {
		f.Errorf("%d organizations named and %d repaired, want %d and %d: %+v", s.TotalOrganizations, s.Synchronized, named, repaired, s)
	}
}

// quiet plays the catch-ups of the next hours, which name nobody.
func (f *fixture) quiet(hours int) {
	f.Helper()
	for range hours {
		f.Clock.Advance(time.Hour)
		f.wantCatchUp(0, 0)
	}
}

// wantRows checks how many rows one of this system's tables has.
func (f *fixture) wantRows(table string, want int) {
	f.Helper()
	if n := f.Count(`SELECT COUNT(*) FROM reconciliation_` + table); n != want {
		f.Errorf("%d rows of %s, want %d", n, table, want)
	}
}

// finish has a worker and the aggregator bring what was sent of a run to its end.
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

// change changes the organization's subscription in Stripe, whose endpoints take the event or not.
func (f *fixture) change(id string, missed bool, change func(*stripetest.Subscription)) {
	f.Helper()
	f.Stripe.FailWebhooks(map[bool]int{true: 1}[missed])
	defer f.Stripe.FailWebhooks(0)
	if !f.Stripe.UpdateSubscription("sub_"+id, change) {
		f.Fatalf("there is no sub_%s", id)
	}
}

// handled has the application's webhook handle what the organization's subscription is now.
func (f *fixture) handled(id string) {
	f.Helper()
	sub, _ := f.Stripe.Subscription("sub_" + id)
	f.handledAs(id, sub)
}

// handledAs has the application's webhook handle an event.
func (f *fixture) handledAs(id string, sub stripetest.Subscription) {
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
	f.Org("checkout", withoutCustomer, free) // the webhook of its checkout was missed
	f.Org("customer", free)                  // and of this one nothing but the customer arrived
	f.Org("Padded")                          // somebody pasted its id
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
	f.handledAs("handled", testworld.Subscription("handled", price("price_max")))
	f.change("deleted", true, canceled)
	f.Sub("stranger") // of another system that uses the same account
	f.change("stranger", true, pastDue)
	before := f.Cells()
	f.Clock.Advance(20 * time.Minute)

	s := f.catchUp()

	_, id := f.due()
	if diff := cmp.Diff([]string{"Padded", "checkout", "customer", "handled", "ignored", "recorded"}, f.ItemIDs(id)); diff != "" {
		t.Error("named:", diff)
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
		t.Error("causes:", diff)
	}
	after := f.Cells()
	if diff := cmp.Diff([]string{"Padded", "checkout", "customer", "ignored", "recorded"}, slices.Sorted(maps.Keys(after.WithoutTimestamps().ChangedSince(before.WithoutTimestamps())))); diff != "" {
		t.Error("changed:", diff)
	}
	if tier := mysqltest.Value[string](t, f.DB, `SELECT plan_tier FROM subscriptions WHERE org_id = 'checkout' AND stripe_subscription_id = 'sub_checkout'`); tier != "max" {
		t.Errorf("the missed checkout's tier is %s", tier)
	}
	if n := len(f.Metrics.Lines(t, telemetry.MetricCatchUpAccessDrift, 5.0)); n != 1 {
		t.Errorf("%d lines tell of the drift: %v", n, f.Metrics.Lines(t, "", nil))
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
	want("events-2026-11-22T03:00:00Z", "21 03:00", "22 02:50") // a day, for nobody has run before

	f.Clock.Advance(time.Hour)
	f.catchUp()
	want("events-2026-11-22T04:00:00Z", "22 02:35", "22 03:50")

	f.Clock.Advance(time.Hour) // a dry run, and one from where somebody said, leave the window where it is
	dry := f.enumerate(f.catchUpEnumerator(nil), pipeline.Request{Strategy: billing.StrategyEvents, DryRun: true})
	f.finish(dry.RunID)
	want(dry.RunID, "22 03:35", "22 04:50")
	since := f.enumerate(f.catchUpEnumerator(nil), pipeline.Request{Strategy: billing.StrategyEvents, Since: f.Clock.Now().Add(-5 * time.Minute)})
	f.finish(since.RunID)
	want(since.RunID, "22 04:55", "22 05:00")

	f.Clock.Advance(time.Hour) // the key lacks the permission
	f.Proxy.Refuse = func(r *http.Request) bool { return r.URL.Path == "/v1/events" }
	req, refused := f.due()
	if _, err := f.catchUpEnumerator(nil).Run(t.Context(), req); err == nil {
		t.Error("the list of events was refused, and no error")
	}
	f.stop(refused)
	f.Proxy.Refuse = nil
	want(refused, "22 03:35", "22 05:50")
	f.Clock.Advance(time.Hour)
	f.catchUp()
	want("events-2026-11-22T07:00:00Z", "22 03:35", "22 06:50")

	f.Clock.Advance(time.Hour) // one that listed to its end and was stopped before all were read is gone through again
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
	_, expired := f.due()
	if s.Status != billing.RunCompleted || s.StatusReason != billing.ReasonEventsExpired || !strings.Contains(s.StatusMessage, "run over all organizations") {
		t.Errorf("%+v", s)
	}
	alarmed := func(times int) {
		t.Helper()
		if n := len(f.Metrics.Lines(t, telemetry.MetricRunSuspect, 1.0)); n != times {
			t.Errorf("the metric that alarms was emitted %d times", n)
		}
		if n := len(f.Logs.Lines(t, "level", "ERROR")); n != times {
			t.Errorf("%d lines of level ERROR", n)
		}
	}
	alarmed(1)
	f.Clock.Advance(time.Hour)
	if s := f.catchUp(); s.StatusReason != "" {
		t.Errorf("%+v", s)
	}
	alarmed(1)
	f.Clock.Advance(8 * 24 * time.Hour)
	f.catchUp()
	f.tick()
	if run := f.Run(expired); run.StatusReason != billing.ReasonEventsExpired {
		t.Errorf("it was removed: %+v", run)
	}
}

func TestCatchUpDoesNotStartWhileAnotherLists(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("a")
	f.change("a", true, pastDue)
	f.Clock.Advance(time.Hour)
	first := f.crashedCatchUp()
	f.Clock.Advance(time.Hour)
	lease := billing.Lease{RunID: first, Owner: "who still lists", End: f.Clock.Now().Add(billing.LeaseTTL)}
	if held, err := f.Store.AcquireLease(t.Context(), lease, f.Clock.Now()); err != nil || !held {
		t.Fatal(held, err)
	}
	again, second := f.due()
	if got := f.enumerate(f.catchUpEnumerator(nil), again); got.RunID != first || got.Enqueued != 0 {
		t.Errorf("%+v", got)
	}
	_, err := f.catchUpEnumerator(nil).Run(t.Context(), pipeline.Request{Strategy: billing.StrategyEvents, RequestID: "by-hand"})
	wantReason(t, err, billing.Permanent, billing.ReasonCatchUpListing)
	f.Clock.Advance(2 * billing.LeaseTTL)
	if f.CountRuns() != 1 || f.Run(second).ID != "" {
		t.Errorf("%d runs", f.CountRuns())
	}
	f.enumerate(f.catchUpEnumerator(nil), pipeline.Request{ResumeAll: true})

	// The first one only waits for its organizations now, and holds nobody up.
	f.Clock.Advance(time.Hour)
	third, id := f.due()
	if got := f.enumerate(f.catchUpEnumerator(nil), third); got.RunID != id || !got.Done {
		t.Errorf("%+v", got)
	}
	if w := f.Run(id).Window; !w.From.Equal(f.Run(first).Window.To.Add(-billing.Overlap)) {
		t.Errorf("the window is %+v", w)
	}
	for _, run := range []string{first, id} {
		f.deliver(f.Reconciler(nil), run, f.ItemIDs(run)...)
	}
	if got := f.Item(first, "a"); got.Outcome != billing.OutcomeSynced {
		t.Errorf("%+v", got)
	}
}

// Where no functions run, nobody ticks.
func TestCatchUpOfCrashedEnumeratorIsResumedByTheNext(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("a")
	f.change("a", true, pastDue)
	f.Clock.Advance(time.Hour)
	dead := f.crashedCatchUp()
	f.Clock.Advance(2 * billing.LeaseTTL)
	byHand := pipeline.Request{Strategy: billing.StrategyEvents, RequestID: "by-hand", DryRun: true}
	_, err := f.catchUpEnumerator(nil).Run(t.Context(), byHand) // which must not go on with one that writes
	wantReason(t, err, billing.Permanent, billing.ReasonCatchUpListing)
	if err == nil || !strings.Contains(err.Error(), "--resume "+dead) || f.Status(dead) != billing.RunEnumerating {
		t.Errorf("%s: %v", f.Status(dead), err)
	}
	next, _ := f.due()
	if got := f.enumerate(f.catchUpEnumerator(nil), next); got.RunID != dead || got.Enqueued != 1 || !got.Done || f.Status(dead) != billing.RunRunning {
		t.Errorf("%s: %+v", f.Status(dead), got)
	}
	if s := f.finish(dead); s.Synchronized != 1 {
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
	lists := f.crashedCatchUp()
	_, err := f.catchUpEnumerator(nil).Run(t.Context(), pipeline.Request{ResumeRun: stopped})
	wantReason(t, err, billing.Permanent, billing.ReasonCatchUpListing)
	if f.Status(stopped) != billing.RunStopped || err == nil || !strings.Contains(err.Error(), lists) {
		t.Errorf("%s: %v", f.Status(stopped), err)
	}
	f.Clock.Advance(2 * billing.LeaseTTL)
	f.enumerate(f.catchUpEnumerator(nil), pipeline.Request{ResumeAll: true})
	if s := f.finish(lists); s.Synchronized != 1 {
		t.Errorf("%+v", s)
	}
	f.enumerate(f.catchUpEnumerator(nil), pipeline.Request{ResumeRun: stopped})
	if s := f.finish(stopped); s.Skipped != 1 || s.Status != billing.RunCompleted {
		t.Errorf("%+v", s)
	}
}

func TestWindowBehindLongStoppedCatchUpIsLimited(t *testing.T) {
	const week = 7 * 24 * time.Hour
	stopOne := func(f *fixture) {
		f.change("a", true, pastDue)
		f.Clock.Advance(time.Hour)
		f.stop(f.startCatchUp())
	}
	fullRun := func(f *fixture) {
		id := f.enumerate(f.Enumerator(nil), pipeline.Request{ScheduledFor: f.Clock.Now()}).RunID
		f.finish(id)
	}
	for name, test := range map[string]struct {
		story   func(f *fixture)
		expired bool          // no run knows what happened before Stripe's log begins
		from    time.Duration // how long ago the next one begins
	}{
		"and no full run since": {func(f *fixture) {
			stopOne(f)
			f.Clock.Advance(5 * week)
		}, true, billing.EventRetention},
		"and a full run since": {func(f *fixture) {
			stopOne(f)
			f.Clock.Advance(4 * week)
			fullRun(f)
			f.Clock.Advance(week)
		}, false, week},
		"and a full run while it was listed": {func(f *fixture) {
			f.Clock.Advance(time.Hour)
			fullRun(f)
			stopOne(f)
			f.Clock.Advance(5 * week)
		}, true, billing.EventRetention},
		"and a full run began in the days that it was about": {func(f *fixture) {
			f.Clock.Advance(46 * time.Hour)
			fullRun(f)
			stopOne(f)
			f.Clock.Advance(29 * 24 * time.Hour)
		}, false, 29*24*time.Hour + time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.Subscriber("a")
			f.catchUp()
			test.story(f)
			for range 3 {
				s := f.catchUp()
				_, id := f.due()
				w := f.Run(id).Window
				if begins := f.Clock.Now().Sub(w.From); begins != test.from || w.Expired != test.expired || (s.StatusReason != "") != test.expired {
					t.Errorf("begins %s ago: %+v, %+v", begins, w, s)
				}
				f.Clock.Advance(time.Hour)
				test.from, test.expired = time.Hour+settle+billing.Overlap, false
			}
		})
	}
}

// If Stripe changed how it tells of a subscription, catch-ups would name nobody, and all would seem well.
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
	f.Clock.Advance(time.Hour) // they are in the list of those undelivered, and not in the window any more
	if s := f.catchUp(); s.StatusReason != "" {
		t.Errorf("%+v", s)
	}
}

func TestScheduledCatchUpDeliveredTwiceIsOneRun(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("a")
	f.change("a", true, pastDue)
	f.Clock.Advance(time.Hour)
	req, id := f.due()
	f.enumerate(f.Enumerator(nil), pipeline.Request{ScheduledFor: req.ScheduledFor}) // the full run of the same minute
	for range 2 {
		if got := f.enumerate(f.catchUpEnumerator(nil), req); got.RunID != id || !got.Done {
			t.Errorf("%+v", got)
		}
	}
	if f.CountRuns() != 2 {
		t.Errorf("%d runs", f.CountRuns())
	}
	var byHand []string
	for _, request := range []string{"one", "one", "two"} {
		got := f.enumerate(f.catchUpEnumerator(nil), pipeline.Request{Strategy: billing.StrategyEvents, RequestID: request})
		byHand = append(byHand, got.RunID)
	}
	if byHand[0] != byHand[1] || byHand[1] == byHand[2] {
		t.Errorf("runs %v", byHand)
	}
}

// A webhook that Stripe sends again hours later carries the object as it was, and leaves no new event.
func TestNextCatchUpRepairsWriteOfLateWebhook(t *testing.T) {
	f := newFixture(t)
	for _, id := range []string{"late", "gone"} {
		f.Subscriber(id)
	}
	f.change("late", true, price("price_starter")) // its webhook waits
	f.change("gone", true, price("price_max"))
	late := f.Stripe.Events()[0].ID
	f.Clock.Advance(time.Hour)
	f.change("late", false, price("price_max"))
	f.Clock.Advance(time.Hour)
	f.wantCatchUp(2, 2)
	f.quiet(5) // the overlap ends; both events stay undelivered, which names nobody

	f.handledAs("late", testworld.Subscription("late", price("price_starter")))
	f.Stripe.SetPendingWebhooks(late, 0)
	f.Clock.Advance(time.Hour)
	dry := f.enumerate(f.catchUpEnumerator(nil), pipeline.Request{Strategy: billing.StrategyEvents, DryRun: true})
	f.finish(dry.RunID) // takes nothing away from the one that repairs
	s := f.catchUp()
	if s.TotalOrganizations != 1 || s.Synchronized != 1 || s.DriftByCause != (billing.DriftByCause{NotPending: 1}) || s.Details[0].Event.ID != late {
		t.Errorf("%+v", s)
	}

	f.quiet(24 * 4) // Stripe gives the other one up after three days
	f.wantRows("undelivered", 0)
}

// lateWebhook has the application's endpoint take an event of "late" now that happened two days ago, when it was
// missed: it writes what the event says over what was repaired since.
func (f *fixture) lateWebhook() (event string) {
	f.Helper()
	f.Subscriber("late")
	f.change("late", true, price("price_starter"))
	event = f.Stripe.Events()[0].ID
	f.Clock.Advance(time.Hour)
	f.change("late", false, price("price_max"))
	f.Clock.Advance(time.Hour)
	f.wantCatchUp(1, 1)
	f.quiet(3) // beyond the overlap
	f.handledAs("late", testworld.Subscription("late", price("price_starter")))
	f.Stripe.SetPendingWebhooks(event, 0)
	f.Clock.Advance(time.Hour)
	return event
}

func TestLateWebhookIsRepairedHoweverTheFirstCatchUpEnds(t *testing.T) {
	for name, end := range map[string]func(f *fixture){
		"stopped before it looked up whom that concerns": func(f *fixture) {
			f.stop(f.crashedCatchUp())
		},
		"stopped when all was sent": func(f *fixture) {
			f.stop(f.startCatchUp())
		},
		"out of time": func(f *fixture) {
			f.startCatchUp()
			f.Clock.Advance(13 * time.Hour)
			f.tick()
		},
		"begun where somebody said, and stopped": func(f *fixture) {
			id := f.enumerate(f.catchUpEnumerator(nil), pipeline.Request{Strategy: billing.StrategyEvents, Since: f.Clock.Now().Add(-30 * time.Minute)}).RunID
			f.stop(id)
		},
		"stopped twice": func(f *fixture) {
			for range 2 {
				f.stop(f.startCatchUp())
				f.Clock.Advance(time.Hour)
			}
		},
		"stopped, and removed since": func(f *fixture) {
			id := f.startCatchUp()
			f.stop(id)
			f.Exec(`DELETE FROM reconciliation_items WHERE run_key = (SELECT run_key FROM reconciliation_runs WHERE id = ?)`, id)
			f.Clock.Advance(8 * 24 * time.Hour)
			f.enumerate(f.catchUpEnumerator(nil), pipeline.Request{Strategy: billing.StrategyEvents, DryRun: true})
			f.tick()
			if f.Run(id).ID != "" {
				f.Fatal("it is still there")
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
			f.quiet(2)
			f.wantRows("late", 0)
		})
	}
}

// An event of two endpoints stays undelivered as long as one of them does not take it.
func TestLateWebhookIsNoticedIfAnotherEndpointIsDead(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("late")
	f.Stripe.FailWebhooks(2)
	f.Stripe.UpdateSubscription("sub_late", price("price_starter"))
	f.Stripe.FailWebhooks(1) // the dead one takes none
	late := f.Stripe.Events()[0].ID
	f.Clock.Advance(time.Hour)
	f.Stripe.UpdateSubscription("sub_late", price("price_max"))
	f.Clock.Advance(time.Hour)
	f.wantCatchUp(1, 1)
	f.quiet(3)
	f.Exec(`UPDATE subscriptions SET plan_tier = 'starter', stripe_price_id = 'price_starter' WHERE org_id = 'late'`)
	f.Stripe.SetPendingWebhooks(late, 1)
	f.Clock.Advance(time.Hour)
	if s := f.catchUp(); s.TotalOrganizations != 1 || s.Synchronized != 1 || s.Details[0].Event.ID != late {
		t.Errorf("%+v", s)
	}
	f.quiet(24 * 4)
	f.wantRows("undelivered", 0)
}

// One that was seen for the last time while Stripe went on sending it may have been taken since.
func TestUndeliveredEventIsCheckedOnceItIsTooOldToBeListed(t *testing.T) {
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
		t.Errorf("its cause is %s", got)
	}
	if used := f.Run(id).Usage.List; used != 100+50 {
		t.Errorf("%d pages", used)
	}
}

// A worker has two reads a second and five minutes.
func TestOrganizationWithManyNamedSubscriptionsIsReadByCustomerLists(t *testing.T) {
	for name, recorded := range map[string]string{"the recorded one is active": "active", "the recorded one is canceled": "canceled"} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.Subscriber("a")
			if recorded == "canceled" {
				f.Sub("a", canceled)
			}
			for i := range 600 {
				f.Sub("a", canceled, func(s *stripetest.Subscription) {
					s.ID = fmt.Sprintf("sub_a_%03d", i)
					if i%2 == 0 { // a checkout without a customer makes a new one
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
			_, id := f.due()
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
	statements := 0
	count := &hooks{Before: func(context.Context, string) error {
		statements++
		return nil
	}}
	req, id := f.due()
	f.enumerate(f.catchUpEnumerator(count), req)
	if err := f.Aggregator(count).Progress(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if f.Status(id) != billing.RunCompleted || statements > 100 {
		t.Errorf("%s after %d calls", f.Status(id), statements)
	}
	t.Logf("%d calls of Stripe, MySQL and the queues, with begins and commits", statements)
	f.Clock.Advance(time.Hour)
	f.change("a", true, pastDue)
	f.Clock.Advance(time.Hour)
	f.wantCatchUp(1, 1)
	_, kept := f.due()
	f.Clock.Advance(7*24*time.Hour + time.Minute)
	f.catchUp()
	_, last := f.due()
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

// What is told of the last run, of its age and of what it saw is told of full runs.
func TestCatchUpsDoNotCountAsFullRuns(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("a")
	f.Subscriber("b")
	percent := f.catchUpEnumerator(nil)
	percent.Settle, percent.Downgrades = 0, func(listed int) int { return listed }
	f.change("b", false, func(s *stripetest.Subscription) { s.CancelAtPeriodEnd = true })
	first := f.enumerate(percent, pipeline.Request{Strategy: billing.StrategyEvents, Since: start.Add(-time.Hour)})
	f.finish(first.RunID)
	if limit := f.Run(first.RunID).DowngradeLimit; limit != 1 { // there was no full run to go by
		t.Errorf("the limit of the first catch-up is %d", limit)
	}
	f.enumerate(f.Enumerator(nil), scheduled)
	f.finish(scheduledID)
	for range 3 {
		f.Clock.Advance(time.Hour)
		if s := f.catchUp(); s.Status != billing.RunCompleted { // it saw nobody, which is no reason for suspicion
			t.Errorf("%+v", s)
		}
	}
	if seen, err := f.Store.LastFullRunCounts(t.Context(), f.Clock.Now()); err != nil || seen.Organizations != 2 {
		t.Errorf("%+v, %v", seen, err)
	}
	f.Clock.Advance(time.Hour)
	f.Metrics.Reset()
	f.tick()
	lines := f.Metrics.Lines(t, telemetry.MetricLastRunAge, (4 * time.Hour).Seconds())
	if len(lines) != 1 || lines[0][telemetry.MetricCatchUpAge] != time.Hour.Seconds() {
		t.Errorf("%v", f.Metrics.Lines(t, "", nil))
	}
	if s := f.Run("events-2026-11-22T06:00:00Z"); s.DowngradeLimit != 10 {
		t.Errorf("its limit is %d", s.DowngradeLimit)
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
	f.Subscriber("late") // its webhook came hours later
	sub, _ := f.Stripe.Subscription("sub_late")
	taken := f.Stripe.AddEvent(stripetest.Event{Subscription: &sub, Created: start.Add(-36 * time.Hour).Unix()})
	want := append(slices.Clone(ids), "customer", "late")
	slices.Sort(want)
	f.Clock.Advance(time.Hour)
	testworld.EveryDeath(t, func(t *testing.T, k *testworld.Killer) {
		f.resetRuns()
		for _, table := range []string{"windows", "events", "named", "undelivered", "late"} {
			f.Exec(`DELETE FROM reconciliation_` + table)
		}
		f.Exec(`INSERT INTO reconciliation_undelivered (event_id, type, pending_webhooks, subscription_id, customer_id, org_id, created_at, seen_key, seen_at)
			VALUES (?, 'customer.subscription.updated', 1, 'sub_late', 'cus_late', '', ?, 0, ?)`, taken, start.Add(-36*time.Hour), start.Add(-time.Hour))
		req, id := f.due()
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
			t.Errorf("resumed: %+v", again)
		}
		if diff := cmp.Diff(want, f.ItemIDs(id)); diff != "" {
			t.Error("items:", diff)
		}
		if diff := cmp.Diff(want, distinct(f.SentWork(id))); diff != "" {
			t.Error("messages:", diff)
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
