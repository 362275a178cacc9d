package pipeline_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

// swept enumerates a scheduled full run, with a sweep, and returns its organizations.
func (f *fixture) swept() []string {
	f.Helper()
	f.enumerate(f.Enumerator(nil), scheduled)
	return f.ItemIDs(scheduledID)
}

// spread adds n canceled subscriptions to Stripe, created over some years. A fifth of them has the same time.
func (f *fixture) spread(n int) {
	for i := range n {
		at := created.Add(-time.Duration(i*i/7) * time.Hour)
		if i%5 == 0 {
			at = created
		}
		f.Stripe.PutSubscription(stripetest.Subscription{ID: fmt.Sprintf("sub_spread_%04d", i), CustomerID: fmt.Sprintf("cus_spread_%04d", i), Status: "canceled", Created: at.Unix()})
	}
}

func TestSweepKilledAnywhereMissesNothing(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.spread(350)
	var want []string
	testworld.EveryDeath(t, func(t *testing.T, k *testworld.Killer) {
		f.resetRuns()
		killed := f.Enumerator(k.Hooks())
		killed.Streams = 3
		_, err := killed.Run(t.Context(), scheduled)
		if k.Dead() && err == nil {
			t.Error("a killed enumerator succeeded")
		}
		if f.CountRuns() == 0 {
			f.enumerate(f.Enumerator(nil), scheduled)
		}
		f.Clock.Advance(2 * time.Minute)
		f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeAll: true})
		got := f.Texts(`SELECT subscription_id FROM reconciliation_snapshots ORDER BY subscription_id`)
		if want == nil {
			want = got
		}
		if diff := cmp.Diff(want, got); diff != "" || len(got) != 351 {
			t.Errorf("the snapshot has %d subscriptions, want 351; %s", len(got), diff)
		}
		if run := f.Run(scheduledID); run.Sweep != billing.SweepComplete || run.Status != billing.RunRunning {
			t.Errorf("the sweep is %q, the run is %s", run.Sweep, run.Status)
		}
	})
}

func TestInterruptedSweepContinuesAtItsCursor(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.spread(950)
	f.Stripe.AddFault(stripetest.Fault{Endpoint: stripetest.ListSubscriptions, Kind: stripetest.Unavailable, After: 6})
	e := f.Enumerator(nil)
	e.Streams = 1
	if got, err := e.Run(t.Context(), scheduled); err == nil || got.Done || got.Enqueued != 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	if f.Run(scheduledID).Listed {
		t.Error("the run counts as listed before the sweep ended, which may name further organizations")
	}
	f.Stripe.ClearFaults()
	f.Stripe.ResetCounts()
	if got := f.enumerate(e, pipeline.Request{ResumeAll: true}); !got.Done {
		t.Errorf("%+v", got)
	}
	if n := f.Stripe.Requests().ListSubscriptions; n > 5 {
		t.Errorf("%d pages were read after the interruption, want at most 5 of 10", n)
	}
	usage := f.Run(scheduledID).Usage
	if usage.List < 10 {
		t.Errorf("the run counts the requests %+v, want at least 10 lists", usage)
	}
}

func TestFailedSweepIsAbandoned(t *testing.T) {
	for name, breakSweep := range map[string]func(*fixture, *pipeline.Enumerator){
		"refused": func(f *fixture, _ *pipeline.Enumerator) {
			f.Stripe.Before(nil)
			f.Proxy.Refuse = func(r *http.Request) bool { return r.URL.Path == "/v1/subscriptions" && !r.URL.Query().Has("customer") }
		},
		"longer than two hours": func(f *fixture, e *pipeline.Enumerator) {
			f.Stripe.AddFault(stripetest.Fault{Endpoint: stripetest.ListSubscriptions, Kind: stripetest.Unavailable})
			if _, err := e.Run(f.Context(), scheduled); err == nil {
				f.Fatal("the sweep ended without Stripe")
			}
			f.Clock.Advance(billing.SnapshotTTL)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.Subscriber("org-1")
			f.Subscriber("org-2")
			e := f.Enumerator(nil)
			breakSweep(f, e)
			if got := f.enumerate(e, scheduled); !got.Done || got.Enqueued != 2 {
				t.Fatalf("%+v", got)
			}
			if run := f.Run(scheduledID); run.Sweep != billing.SweepAbandoned {
				t.Errorf("the sweep is %q", run.Sweep)
			}
			if lines := f.Logs.Lines(t, "message", "the sweep is abandoned, Stripe is read for each organization"); len(lines) != 1 {
				t.Errorf("%d log lines report the abandoned sweep, want 1", len(lines))
			}
			f.Stripe.ClearFaults()
			f.Stripe.ResetCounts()
			f.deliver(f.Reconciler(nil), scheduledID, "org-1", "org-2")
			if n := f.Stripe.Requests().RetrieveSubscription; n != 2 {
				t.Errorf("%d subscriptions were read, want 2", n)
			}
			f.tick()
			if s := f.stored(); s.Status != billing.RunCompleted || !s.SweepAbandoned {
				t.Errorf("the summary does not report the abandoned sweep: %+v", s)
			}
		})
	}
}

func TestInSyncOrganizationsCostNoRequest(t *testing.T) {
	f := newFixture(t)
	ids := numbered(20)
	for i, id := range ids {
		if i%4 == 0 {
			f.Org(id, free) // never subscribed
			continue
		}
		f.Subscriber(id)
	}
	f.swept()
	f.Stripe.ResetCounts()
	calls := map[string]int{}
	count := &hooks{Before: func(_ context.Context, call string) error { calls[call]++; return nil }}
	for id, result := range f.deliver(f.Reconciler(count), scheduledID, ids...) {
		f.wantResult(result, pipeline.Acknowledge, "")
		if item := f.Item(scheduledID, id); item.Outcome != billing.OutcomeSkipped {
			t.Errorf("%+v", item)
		}
	}
	if got := f.Stripe.Requests(); got != (stripetest.Counts{}) {
		t.Errorf("the worker sent requests to Stripe: %+v", got)
	}
	want := map[string]int{
		"Runs": 1, "Items": 1, "Records": 2, "Snapshot": 2, // one of them reads the run
		"begin DecideInSync": 1, "in DecideInSync": 3, "commit DecideInSync": 1, // once for each reason
	}
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Error(diff)
	}
}

func TestOnlyDifferingOrganizationsAreReadAgain(t *testing.T) {
	f := newFixture(t)
	for _, id := range []string{"same-1", "same-2", "same-3"} {
		f.Subscriber(id)
	}
	f.Subscriber("drifted", pastDue)
	f.Org("unswept") // its subscription is not in the snapshot
	f.Row("unswept")
	f.Org("paid", func(o *appschema.Organization) { o.SubscriptionTier = "max" })
	ids := f.swept()
	f.Stripe.UpdateSubscription("sub_drifted", func(s *stripetest.Subscription) { s.Status = "active" }) // meanwhile
	f.Sub("unswept")
	f.Stripe.ResetCounts()
	f.deliver(f.Reconciler(nil), scheduledID, ids...)
	for id, reason := range map[string]billing.Reason{
		"same-1": billing.ReasonInSync, "drifted": billing.ReasonInSync, "unswept": billing.ReasonInSync, "paid": billing.ReasonCustomerMissing,
	} {
		if item := f.Item(scheduledID, id); item.Reason != reason {
			t.Errorf("the reason of %s is %s, want %s", id, item.Reason, reason)
		}
	}
	// If the recorded subscription alone cannot decide, the worker lists all subscriptions of its customer.
	if got := f.Stripe.Requests(); got.RetrieveSubscription != 1 || got.ListSubscriptions != 2 {
		t.Errorf("the worker sent the requests %+v, want 1 retrieve and 2 lists", got)
	}
}

// Access is lowered only after every source was read, and the customer's list has the recorded subscription too.
func TestCustomersListIsReadFirstIfTheSnapshotShowsALowering(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org", price("price_starter"))
	f.swept()
	f.Stripe.ResetCounts()
	f.deliver(f.Reconciler(nil), scheduledID, "org")
	if item := f.Item(scheduledID, "org"); item.Reason != billing.ReasonRepaired {
		t.Errorf("the reason is %s, want repaired", item.Reason)
	}
	// The subscription is retrieved for the comparison after the write.
	if got := f.Stripe.Requests(); got.ListSubscriptions != 1 || got.RetrieveSubscription != 1 {
		t.Errorf("the worker sent the requests %+v, want 1 list and 1 retrieve", got)
	}
}

func TestStaleSnapshotIsNotUsed(t *testing.T) {
	for name, change := range map[string]func(f *fixture){
		"two hours later": func(f *fixture) { f.Clock.Advance(billing.SnapshotTTL) },
		"on a redrive": func(f *fixture) {
			f.Exec(`UPDATE reconciliation_items SET outcome = 'error', reason = 'stripe_unavailable'`)
		},
		"in a closed run": func(f *fixture) { f.Exec(`UPDATE reconciliation_runs SET status = 'incomplete'`) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.Subscriber("org-1")
			f.swept()
			change(f)
			f.Stripe.ResetCounts()
			f.wantResult(f.deliver(f.Reconciler(nil), scheduledID, "org-1")["org-1"], pipeline.Acknowledge, "")
			if n := f.Stripe.Requests().RetrieveSubscription; n != 1 {
				t.Errorf("%d subscriptions were read, want 1", n)
			}
		})
	}
}

func TestSnapshotRemovedMeanwhileDecidesNothing(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.swept()
	f.Stripe.ResetCounts()
	closes := &hooks{Before: func(_ context.Context, call string) error {
		if call == "begin DecideInSync" {
			f.Exec(`UPDATE reconciliation_runs SET status = 'incomplete'`) //nolint:contextcheck // the statement is the test's, not the step's
		}
		return nil
	}}
	f.wantResult(f.deliver(f.Reconciler(closes), scheduledID, "org-1")["org-1"], pipeline.Acknowledge, "")
	if item := f.Item(scheduledID, "org-1"); item.Reason != billing.ReasonInSync || f.Stripe.Requests().RetrieveSubscription != 1 {
		t.Errorf("%+v; %+v", item, f.Stripe.Requests())
	}
}

// named adds a subscription to Stripe that only its metadata connects with org-1.
func (f *fixture) named(changes ...func(*stripetest.Subscription)) {
	const id = "org-1"
	f.Sub(id, append([]func(*stripetest.Subscription){func(s *stripetest.Subscription) {
		s.CustomerID, s.Metadata = "cus_elsewhere_"+id, map[string]string{"orgId": id}
	}}, changes...)...)
}

func TestOrganizationThatOnlyMetadataNamesIsRepaired(t *testing.T) {
	f := newFixture(t)
	f.Org("org-1", withoutCustomer, free)
	f.named()
	if diff := cmp.Diff([]string{"org-1"}, f.swept()); diff != "" {
		t.Fatal(diff)
	}
	f.deliver(f.Reconciler(nil), scheduledID, "org-1")
	if item := f.Item(scheduledID, "org-1"); item.Reason != billing.ReasonRowInserted || item.SubscriptionID != "sub_org-1" {
		t.Errorf("%+v", item)
	}
	if tier := mysqltest.Value[string](t, f.DB, `SELECT subscription_tier FROM organizations`); tier != "pro" {
		t.Errorf("the tier is %s, want pro", tier)
	}
}

// The organization has paid access for nothing, and neither a row nor a customer leads to it.
func TestPaidOrganizationThatStripeKnowsNothingOfIsReported(t *testing.T) {
	f := newFixture(t)
	f.Org("org-1", withoutCustomer)
	f.Org("org-2", withoutCustomer, free)
	if diff := cmp.Diff([]string{"org-1"}, f.swept()); diff != "" {
		t.Fatal(diff)
	}
	f.deliver(f.Reconciler(nil), scheduledID, "org-1")
	item := f.Item(scheduledID, "org-1")
	if item.Reason != billing.ReasonNoStripeIdentity || len(item.Warnings) != 1 || item.Warnings[0].Code != billing.WarnPaidWithoutSubscription {
		t.Errorf("%+v", item)
	}
}

// A redrive does not use the snapshot, so it must find the subscription with Stripe's search.
func TestOrganizationThatOnlyMetadataNamesIsRepairedByRedrive(t *testing.T) {
	f := newFixture(t)
	f.Org("org-1", withoutCustomer, free)
	f.named()
	f.swept()
	f.Stripe.AddFault(stripetest.Fault{Endpoint: stripetest.RetrieveSubscription, Kind: stripetest.Unavailable})
	got := f.deliverAs(t.Context(), f.Reconciler(nil), scheduledID, true, "org-1")["org-1"]
	f.wantResult(got, pipeline.DeadLetter, billing.ReasonStripeUnavailable)
	f.Stripe.ClearFaults()
	f.Clock.Advance(24 * time.Hour)
	f.deliver(f.Reconciler(nil), scheduledID, "org-1")
	if item := f.Item(scheduledID, "org-1"); item.Reason != billing.ReasonRowInserted {
		t.Errorf("%+v", item)
	}
}

func TestSubscriptionWhoseMetadataChangedSinceTheSweepIsNotUsed(t *testing.T) {
	f := newFixture(t)
	f.Org("org-1", withoutCustomer, free)
	f.Org("org-2", withoutCustomer, free)
	f.named()
	f.swept()
	f.Stripe.UpdateSubscription("sub_org-1", func(s *stripetest.Subscription) { s.Metadata = map[string]string{"orgId": "org-2"} })
	f.deliver(f.Reconciler(nil), scheduledID, "org-1")
	if item := f.Item(scheduledID, "org-1"); item.Reason != billing.ReasonNoStripeIdentity {
		t.Errorf("%+v", item)
	}
}

func TestSummaryListsOrphans(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.Sub("orphan")
	f.Sub("ended", canceled)
	ids := f.swept()
	f.deliver(f.Reconciler(nil), scheduledID, ids...)
	f.progress(scheduledID)
	s, err := f.Aggregator(nil).Summary(t.Context(), scheduledID)
	if err != nil {
		t.Fatal(err)
	}
	want := []billing.Orphan{{SubscriptionID: "sub_orphan", CustomerID: "cus_orphan", Status: billing.StatusActive}}
	if diff := cmp.Diff(want, s.Orphans); diff != "" || s.OrphansTotal != 1 || s.Status != billing.RunCompleted {
		t.Errorf("%d orphans, want 1; the run is %s; (-want +got)\n%s", s.OrphansTotal, s.Status, diff)
	}
	if n := f.Count(`SELECT COUNT(*) FROM reconciliation_snapshots`); n != 0 {
		t.Errorf("%d rows of the snapshot are left after the run was closed", n)
	}
}

func TestTickDeletesSnapshotsOfClosedRuns(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.swept()
	f.Exec(`UPDATE reconciliation_runs SET status = 'completed', summary = '{}'`)
	f.tick()
	if n := f.Count(`SELECT COUNT(*) FROM reconciliation_snapshots`); n != 0 {
		t.Errorf("%d rows of the snapshot are left", n)
	}
}

func TestRefusedKeyDuringSweepStopsTheRun(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.Stripe.AddFault(stripetest.Fault{Endpoint: stripetest.ListSubscriptions, Kind: stripetest.Unauthorized})
	_, err := f.Enumerator(nil).Run(t.Context(), scheduled)
	wantReason(t, err, billing.RunFatal, billing.ReasonStripeUnauthorized)
	if run := f.Run(scheduledID); run.Status != billing.RunStopped || run.StatusReason != billing.ReasonStripeUnauthorized {
		t.Errorf("the run is %s, %s", run.Status, run.StatusReason)
	}
	f.Stripe.ClearFaults()
	got := f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeRun: scheduledID})
	if !got.Done || got.Enqueued != 1 || f.Run(scheduledID).Sweep != billing.SweepComplete {
		t.Errorf("the resumed enumeration returned %+v", got)
	}
}

// decided is the part of an item that must not depend on the strategy.
type decided struct {
	Outcome        billing.Outcome
	Reason         billing.Reason
	SubscriptionID string
	Changes        string
	Lowers         bool // whether the changes lower access
}

// decidedBy executes a run with the strategy and returns what it decided.
func (f *fixture) decidedBy(strategy billing.Strategy, dryRun bool) map[string]decided {
	f.Helper()
	f.resetRuns()
	req := pipeline.Request{ScheduledFor: start, DryRun: dryRun, Strategy: strategy}
	f.enumerate(f.Enumerator(nil), req)
	ids := f.ItemIDs(scheduledID)
	f.deliver(f.Reconciler(nil), scheduledID, ids...)
	return f.decided(scheduledID)
}

// decided returns what the run decided, by organization.
func (f *fixture) decided(runID string) map[string]decided {
	f.Helper()
	all := map[string]decided{}
	for _, id := range f.ItemIDs(runID) {
		item := f.Item(runID, id)
		if item.Reason == billing.ReasonCustomerMissing {
			item.Reason = billing.ReasonNoSubscription
		}
		if item.Outcome == billing.OutcomeError {
			item.SubscriptionID = "" // only a sweep may have found one
		}
		if item.Outcome == billing.OutcomeSkipped { // a skipped item has its subscription's id only if it has a warning
			item.SubscriptionID = mysqltest.Value[string](f.TB, f.DB, `SELECT CASE WHEN i.governed THEN 'one' ELSE 'none' END
				FROM reconciliation_items i JOIN reconciliation_runs r ON r.run_key = i.run_key WHERE r.id = ? AND i.org_id = ?`, runID, id)
		}
		all[id] = decided{item.Outcome, item.Reason, item.SubscriptionID, changesText(f.TB, item.Changes), billing.DefaultTiers.LowersAccess(item.Changes)}
	}
	return all
}

func TestBothStrategiesDecideEverySituationTheSame(t *testing.T) {
	f := newFixture(t)
	f.seed(situations)
	sweep, retrieve := f.decidedBy(billing.StrategySweep, true), f.decidedBy(billing.StrategyRetrieve, true)
	const named = "own-of-another-by-metadata" // only metadata names it, so only a sweep lists it
	if _, ok := sweep[named]; !ok {
		t.Errorf("the run with the sweep did not list %s", named)
	}
	delete(sweep, named)
	if diff := cmp.Diff(retrieve, sweep); diff != "" || len(sweep) < len(situations) {
		t.Errorf("%d organizations; (-retrieve +sweep)\n%s", len(sweep), diff)
	}
}

// A person who subscribed again as another Stripe customer keeps access even if the snapshot has expired or cannot be
// used on a redrive.
func TestNewSubscriptionThatOnlyMetadataConnectsIsFoundWithoutSnapshot(t *testing.T) {
	for name, later := range map[string]func(f *fixture){
		"expired": func(f *fixture) { f.Clock.Advance(billing.SnapshotTTL) },
		"redriven": func(f *fixture) {
			f.Stripe.AddFault(stripetest.Fault{Kind: stripetest.Unavailable})
			f.wantResult(f.deliverAs(f.Context(), f.Reconciler(nil), scheduledID, true, "org-1")["org-1"], pipeline.DeadLetter, billing.ReasonStripeUnavailable)
			f.Stripe.ClearFaults()
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.Subscriber("org-1", canceled)
			f.named(func(s *stripetest.Subscription) { s.ID = "sub_again" })
			f.swept()
			later(f)
			f.deliver(f.Reconciler(nil), scheduledID, "org-1")
			if item := f.Item(scheduledID, "org-1"); item.SubscriptionID != "sub_again" {
				t.Errorf("%+v", item)
			}
			if tier := mysqltest.Value[string](t, f.DB, `SELECT subscription_tier FROM organizations`); tier != "pro" {
				t.Errorf("the tier is %s, want pro", tier)
			}
		})
	}
}

func TestEnumeratorWithoutTimeForTheRateLimiterIsNotDone(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.spread(900)
	e := f.Enumerator(nil)
	e.Stripe = f.StripeClient(func(c *stripesource.Config) { c.RPS = 5 })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	got, err := e.Run(ctx, scheduled)
	if err != nil || got.Done || f.Leased() || f.Status(scheduledID) != billing.RunEnumerating {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestSweepContinuesThrough429s(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.Stripe.AddFault(stripetest.Fault{Endpoint: stripetest.ListSubscriptions, Kind: stripetest.RateLimited, Times: 15})
	if got := f.enumerate(f.Enumerator(nil), scheduled); !got.Done {
		t.Errorf("%+v", got)
	}
}

func TestSweepOlderThanSnapshotTTLIsAbandoned(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.Stripe.AddFault(stripetest.Fault{Endpoint: stripetest.ListSubscriptions, Kind: stripetest.Unavailable, Times: 3})
	if _, err := f.Enumerator(nil).Run(t.Context(), scheduled); err == nil {
		t.Fatal("the sweep failed, but Run returned no error")
	}
	f.Clock.Advance(billing.SnapshotTTL)
	f.Stripe.ResetCounts()
	f.enumerate(f.Enumerator(nil), scheduled)
	if n := f.Stripe.Requests().ListSubscriptions; n != 0 || f.Run(scheduledID).Sweep != billing.SweepAbandoned {
		t.Errorf("%d pages were read, want none; the sweep is %q", n, f.Run(scheduledID).Sweep)
	}
}

func TestDuplicateInBatchCostsNoRequest(t *testing.T) {
	f := newFixture(t)
	ids := numbered(5)
	for _, id := range ids {
		f.Subscriber(id)
	}
	f.swept()
	f.Stripe.ResetCounts()
	otherWorker := &hooks{Before: func(_ context.Context, call string) error {
		if call == "begin DecideInSync" {
			f.Exec(`UPDATE reconciliation_items SET outcome = 'skipped', reason = 'in_sync' WHERE org_id = 'org-002'`) //nolint:contextcheck // the statement is the test's, not the step's
		}
		return nil
	}}
	for _, result := range f.deliver(f.Reconciler(otherWorker), scheduledID, ids...) {
		f.wantResult(result, pipeline.Acknowledge, "")
	}
	if n := f.Stripe.Requests().Total(); n != 0 {
		t.Errorf("%d requests were sent, want none", n)
	}
}
