package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/sqsserver"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

const scheduledID = "2026-11-22T03:00:00Z"

// scheduled is what the schedule asks for.
var scheduled = pipeline.Request{ScheduledFor: start}

// customersOnly inserts organizations of which only the customer is known.
func (f *fixture) customersOnly(ids ...string) {
	f.Helper()
	for _, id := range ids {
		f.org(id)
	}
}

func (f *fixture) enumerate(e *pipeline.Enumerator, req pipeline.Request) pipeline.Enumeration {
	f.Helper()
	got, err := e.Run(f.Context(), req)
	if err != nil {
		f.Fatalf("Run(%+v) = %v", req, err)
	}
	return got
}

func wantReason(t *testing.T, err error, class billing.Class, reason billing.Reason) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s", reason)
	}
	f, ok := errors.AsType[*billing.Failure](err)
	if !ok || f.Class != class || f.Reason != reason {
		t.Fatalf("%v, want class %s with reason %s", err, class, reason)
	}
}

func TestEachEligibleOrganizationIsSentOnce(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	ids := numbered(10)
	f.customersOnly(ids...)
	f.org("row-only", func(o *appschema.Organization) { o.StripeCustomerID = nil })
	f.row("row-only")
	f.org("deleted", func(o *appschema.Organization) { o.IsDeleted = true })
	f.org("unknown-to-stripe", func(o *appschema.Organization) { o.StripeCustomerID = nil })
	f.org("empty-customer", func(o *appschema.Organization) { o.StripeCustomerID = ptr("") })
	want := slices.Sorted(slices.Values(append(slices.Clone(ids), "row-only")))

	got := f.enumerate(f.enumerator(nil), scheduled)

	if diff := cmp.Diff(pipeline.Enumeration{RunID: scheduledID, Enqueued: 11, Done: true}, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, f.sentWork(scheduledID)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{`{"version":1,"runId":"` + scheduledID + `"}`}, f.received(f.results)); diff != "" {
		t.Error("progress:", diff)
	}
	run := f.run(scheduledID)
	if run.Status != billing.RunRunning || !run.Listed || run.Total != 11 || run.DowngradeLimit != 10 ||
		!run.StartedAt.Equal(start) || !run.DeadlineAt.Equal(start.Add(12*time.Hour)) || f.leased() {
		t.Errorf("run is %+v", run)
	}
}

func TestPagesThatEndWithTheOrganizations(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 6} {
		f := newFixture(t)
		f.startQueues()
		f.customersOnly(numbered(n)...)
		if got := f.enumerate(f.enumerator(nil), scheduled); got.Enqueued != n || !got.Done {
			t.Errorf("%d organizations in pages of 3: %+v", n, got)
		}
		if diff := cmp.Diff(numbered(n), f.sentWork(scheduledID)); diff != "" {
			t.Error(diff)
		}
	}
}

// resetRuns ends the processes and empties this system's tables and the queues.
func (f *fixture) resetRuns() {
	f.Helper()
	f.endProcesses()
	for _, table := range []string{"items", "runs", "sweeps", "ranges", "snapshots", "accounts"} {
		f.exec(`DELETE FROM reconciliation_` + table)
	}
	f.received(f.work)
	f.received(f.results)
}

func TestAnEnumeratorKilledAnywhereLeavesNobodyOut(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	ids := numbered(7)
	f.customersOnly(ids...)
	everyDeath(t, func(t *testing.T, k *killer) {
		f.resetRuns()
		killed := f.enumerator(k.tap())
		killed.AccountID = "acct_test"
		_, err := killed.Run(t.Context(), scheduled)
		if k.dead && err == nil {
			t.Errorf("a killed enumerator succeeded")
		}
		if f.countRuns() == 0 { // died before it opened the run: the schedule tries again
			f.enumerate(f.enumerator(nil), scheduled)
		}
		f.clock.advance(2 * time.Minute) // the lease has expired
		again := f.enumerate(f.enumerator(nil), pipeline.Request{ResumeAll: true})
		if !again.Done {
			t.Errorf("resumed: %+v", again)
		}
		if got := f.status(scheduledID); got != billing.RunRunning {
			t.Errorf("run is %s", got)
		}
		if diff := cmp.Diff(ids, f.itemIDs(scheduledID)); diff != "" {
			t.Error("items:", diff)
		}
		if diff := cmp.Diff(ids, distinct(f.sentWork(scheduledID))); diff != "" {
			t.Error("messages:", diff)
		}
		if f.run(scheduledID).Total != len(ids) {
			t.Errorf("total is %d", f.run(scheduledID).Total)
		}
	})
}

func TestASecondEnumeratorLeavesALeasedRunAlone(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	f.customersOnly(numbered(5)...)
	for name, req := range map[string]pipeline.Request{
		"second delivery": scheduled, "resume tick": {ResumeAll: true}, "resume by hand": {ResumeRun: scheduledID},
	} {
		t.Run(name, func(t *testing.T) {
			f.resetRuns()
			second := once(func() {
				got, err := f.enumerator(nil).Run(t.Context(), req)
				if err != nil || got.Enqueued != 0 {
					t.Errorf("the second enumerator: %+v, %v", got, err)
				}
				if req.ResumeAll == got.Done { // the tick has nothing to do; the others know it is not sent yet
					return
				}
				t.Errorf("the second enumerator: %+v", got)
			})
			first := f.enumerator(&tap{before: func(_ context.Context, call string) error {
				if call == "SendWork" {
					second()
				}
				return nil
			}})
			f.enumerate(first, scheduled)
			if diff := cmp.Diff(numbered(5), f.sentWork(scheduledID)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAnEnumeratorWhoseLeaseWasTakenStops(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	f.customersOnly(numbered(5)...)
	takeOver := once(func() {
		f.clock.advance(2 * time.Minute)
		f.enumerate(f.enumerator(nil), pipeline.Request{ResumeAll: true})
	})
	slow := f.enumerator(&tap{after: func(_ context.Context, call string) error {
		if call == "SendWork" {
			takeOver()
		}
		return nil
	}})
	if got := f.enumerate(slow, scheduled); got.Done || got.Enqueued != 3 {
		t.Errorf("the slow enumerator: %+v", got)
	}
	if got := f.status(scheduledID); got != billing.RunRunning {
		t.Errorf("run is %s", got)
	}
	if diff := cmp.Diff(numbered(5), distinct(f.sentWork(scheduledID))); diff != "" {
		t.Error(diff)
	}
}

// Between reading a run and taking its lease another enumerator may have been at it.
func TestAnEnumeratorGoesOnFromWhereTheRunStands(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	f.customersOnly(numbered(8)...)
	meanwhile := once(func() {
		sends := 0
		other := f.enumerator(&tap{before: func(_ context.Context, call string) error {
			if call != "SendWork" {
				return nil
			}
			if sends++; sends == 3 {
				return errKilled
			}
			return nil
		}})
		if _, err := other.Run(t.Context(), scheduled); err == nil {
			t.Error("it could send everything")
		}
	})
	e := f.enumerator(&tap{before: func(_ context.Context, call string) error {
		if call == "AcquireLease" {
			meanwhile()
		}
		return nil
	}})
	if got := f.enumerate(e, scheduled); !got.Done || got.Enqueued != 2 {
		t.Errorf("%+v", got)
	}
	if diff := cmp.Diff(numbered(8), f.sentWork(scheduledID)); diff != "" {
		t.Error(diff)
	}
}

func TestAScheduledRunHasTheIDOfItsTime(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	f.customersOnly("org-1")
	elsewhere := time.Date(2026, time.November, 22, 4, 0, 0, 500, time.FixedZone("CET", 3600))
	for range 2 {
		if got := f.enumerate(f.enumerator(nil), pipeline.Request{ScheduledFor: elsewhere, RequestID: uuid.NewString()}); got.RunID != scheduledID || !got.Done {
			t.Errorf("%+v", got)
		}
	}
	if n := f.countRuns(); n != 1 {
		t.Errorf("%d runs", n)
	}
	if diff := cmp.Diff([]string{"org-1"}, f.sentWork(scheduledID)); diff != "" {
		t.Error(diff)
	}
}

func TestAManualRunBelongsToItsRequest(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	f.customersOnly("org-1")
	first := f.enumerate(f.enumerator(nil), pipeline.Request{RequestID: "request-1"})
	if id, err := uuid.Parse(first.RunID); err != nil || id.Version() != 7 {
		t.Errorf("run id %q is no UUIDv7: %v", first.RunID, err)
	}
	if again := f.enumerate(f.enumerator(nil), pipeline.Request{RequestID: "request-1"}); again.RunID != first.RunID || again.Enqueued != 0 || !again.Done {
		t.Errorf("second delivery: %+v", again)
	}
	if other := f.enumerate(f.enumerator(nil), pipeline.Request{RequestID: "request-2"}); other.RunID == first.RunID {
		t.Error("another request got the same run")
	}
	if n := f.countRuns(); n != 2 {
		t.Errorf("%d runs", n)
	}
}

func TestTheSameRequestResumesItsRun(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	f.customersOnly(numbered(4)...)
	if _, err := f.enumerator(dyingAt("CountItems")).Run(t.Context(), pipeline.Request{RequestID: "request-1"}); err == nil {
		t.Fatal("not killed")
	}
	f.clock.advance(2 * time.Minute)
	got := f.enumerate(f.enumerator(nil), pipeline.Request{RequestID: "request-1"})
	if !got.Done || f.countRuns() != 1 || f.status(got.RunID) != billing.RunRunning {
		t.Errorf("%+v, %d runs", got, f.countRuns())
	}
	if diff := cmp.Diff(numbered(4), distinct(f.sentWork(got.RunID))); diff != "" {
		t.Error(diff)
	}
}

func TestOtherSettingsForARunAreRefused(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	f.customersOnly("org-1", "org-2")
	f.enumerate(f.enumerator(nil), scheduled)
	for name, req := range map[string]pipeline.Request{
		"dry":               {ScheduledFor: start, DryRun: true},
		"one organization":  {ScheduledFor: start, OrgID: "org-1"},
		"strategy":          {ScheduledFor: start, Strategy: "other"},
		"resumed dry":       {ResumeRun: scheduledID, DryRun: true},
		"resumed for one":   {ResumeRun: scheduledID, OrgID: "org-1"},
		"resumed elsewise":  {ResumeRun: scheduledID, Strategy: "other"},
		"resumed all wrong": {ResumeRun: scheduledID, DryRun: true, OrgID: "org-1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.enumerator(nil).Run(t.Context(), req)
			wantReason(t, err, billing.Permanent, billing.ReasonOtherSettings)
		})
	}
	if n := f.countRuns(); n != 1 {
		t.Errorf("%d runs", n)
	}
}

func TestAnUnknownOrganizationOpensNoRun(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	f.org("org-deleted", func(o *appschema.Organization) { o.IsDeleted = true })
	for _, id := range []string{"org-unknown", "org-deleted"} {
		_, err := f.enumerator(nil).Run(t.Context(), pipeline.Request{OrgID: id})
		wantReason(t, err, billing.Permanent, billing.ReasonUnknownOrganization)
	}
	if n := f.countRuns(); n != 0 {
		t.Errorf("%d runs", n)
	}
}

func TestARunOverOneOrganization(t *testing.T) {
	for _, pageSize := range []int{1, 3} {
		f := newFixture(t)
		f.startQueues()
		f.customersOnly(numbered(3)...)
		f.org("org-free", func(o *appschema.Organization) { o.StripeCustomerID = nil }) // asked for, so looked at
		for _, id := range []string{"org-001", "org-free"} {
			e := f.enumerator(nil)
			e.PageSize = pageSize
			got := f.enumerate(e, pipeline.Request{OrgID: id, DryRun: true})
			if diff := cmp.Diff([]string{id}, f.sentWork(got.RunID)); diff != "" || got.Enqueued != 1 || !got.Done {
				t.Errorf("%+v %s", got, diff)
			}
			if run := f.run(got.RunID); run.OrgID != id || !run.DryRun || run.Total != 1 || run.Strategy != billing.StrategyRetrieve {
				t.Errorf("%+v", run)
			}
		}
	}
}

// decide gives items an outcome.
func (f *fixture) decide(runID string, outcome billing.Outcome, orgIDs ...string) {
	f.Helper()
	for _, id := range orgIDs {
		item := billing.Item{RunID: runID, OrgID: id, Outcome: outcome, Reason: billing.ReasonInSync}
		if err := f.store.Decide(f.Context(), item, false, f.clock.Now()); err != nil {
			f.Fatal(err)
		}
	}
}

func TestResumingSendsOnlyWhatIsPending(t *testing.T) {
	for name, end := range map[string]func(f *fixture){
		"a stopped run": func(f *fixture) {
			if _, err := f.store.StopRun(f.Context(), scheduledID, billing.ReasonStripeUnauthorized, "bad key", f.clock.Now()); err != nil {
				f.Fatal(err)
			}
		},
		"a run that lost its messages": func(*fixture) {},
		"an incomplete run": func(f *fixture) {
			f.clock.advance(13 * time.Hour)
			if _, err := f.aggregator(nil).Tick(f.Context()); err != nil {
				f.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.startQueues()
			f.customersOnly(numbered(7)...)
			f.enumerate(f.enumerator(nil), scheduled)
			f.received(f.work)
			f.decide(scheduledID, billing.OutcomeSkipped, "org-001", "org-004", "org-006")
			f.decide(scheduledID, billing.OutcomeError, "org-003")
			end(f)

			f.clock.advance(time.Hour)
			got := f.enumerate(f.enumerator(nil), pipeline.Request{ResumeRun: scheduledID})
			if diff := cmp.Diff(pipeline.Enumeration{RunID: scheduledID, Enqueued: 3, Done: true}, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]string{"org-000", "org-002", "org-005"}, f.sentWork(scheduledID)); diff != "" {
				t.Error(diff)
			}
			run := f.run(scheduledID)
			if run.Status != billing.RunRunning || run.StatusReason != "" || run.FinishedAt != nil || run.Summarized || run.Total != 7 ||
				!run.DeadlineAt.Equal(f.clock.Now().Add(12*time.Hour)) {
				t.Errorf("%+v", run)
			}
		})
	}
}

func TestResumingARunKilledAnywhereSendsWhatIsPending(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	f.customersOnly(numbered(6)...)
	everyDeath(t, func(t *testing.T, k *killer) {
		f.resetRuns()
		f.enumerate(f.enumerator(nil), scheduled)
		f.received(f.work)
		f.decide(scheduledID, billing.OutcomeSkipped, "org-001")
		if _, err := f.store.StopRun(t.Context(), scheduledID, billing.ReasonStripeUnauthorized, "bad key", f.clock.Now()); err != nil {
			t.Fatal(err)
		}
		_, err := f.enumerator(k.tap()).Run(t.Context(), pipeline.Request{ResumeRun: scheduledID})
		if k.dead && err == nil {
			t.Error("a killed enumerator succeeded")
		}
		f.clock.advance(2 * time.Minute)
		f.enumerate(f.enumerator(nil), pipeline.Request{ResumeRun: scheduledID})
		if got := f.status(scheduledID); got != billing.RunRunning {
			t.Errorf("run is %s", got)
		}
		if diff := cmp.Diff([]string{"org-000", "org-002", "org-003", "org-004", "org-005"}, distinct(f.sentWork(scheduledID))); diff != "" {
			t.Error(diff)
		}
	})
}

// The last organizations may be decided while the run is being stopped.
func TestAStoppedRunWithNothingPendingIsResumedToItsEnd(t *testing.T) {
	for _, strategy := range billing.Strategies() {
		t.Run(string(strategy), func(t *testing.T) {
			f := newFixture(t)
			f.startQueues()
			f.inSync("org-000")
			f.openRun(runID, []string{"org-000"}, func(r *billing.Run) { r.Strategy = strategy })
			if strategy == billing.StrategySweep {
				f.sweepInto()
			}
			f.decide(runID, billing.OutcomeSkipped, "org-000")
			if _, err := f.store.StopRun(t.Context(), runID, billing.ReasonStripeUnauthorized, "the key is refused", f.clock.Now()); err != nil {
				t.Fatal(err)
			}
			f.progress(runID)
			f.stripe.ResetCounts()
			got := f.enumerate(f.enumerator(nil), pipeline.Request{ResumeRun: runID})
			if got.Enqueued != 0 || !got.Done {
				t.Errorf("%+v", got)
			}
			if got := f.stripe.Requests(); got.Total() > got.RetrieveAccount {
				t.Errorf("%+v, with nobody to ask about", got)
			}
			f.progress(runID)
			if got := f.status(runID); got != billing.RunCompleted {
				t.Errorf("the run is %s", got)
			}
		})
	}
}

func TestResumingWhatNeedsNothing(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	f.customersOnly("org-1")
	f.enumerate(f.enumerator(nil), scheduled)
	f.received(f.work)
	f.decide(scheduledID, billing.OutcomeSkipped, "org-1")
	if err := f.aggregator(nil).Progress(t.Context(), scheduledID); err != nil {
		t.Fatal(err)
	}
	got := f.enumerate(f.enumerator(nil), pipeline.Request{ResumeRun: scheduledID})
	if !got.Done || got.Enqueued != 0 || f.status(scheduledID) != billing.RunCompleted || len(f.received(f.work)) > 0 {
		t.Errorf("%+v, run is %s", got, f.status(scheduledID))
	}
	if got := f.enumerate(f.enumerator(nil), pipeline.Request{ResumeAll: true}); !got.Done || got.Enqueued != 0 {
		t.Errorf("the tick: %+v", got)
	}
	_, err := f.enumerator(nil).Run(t.Context(), pipeline.Request{ResumeRun: "unknown"})
	wantReason(t, err, billing.Permanent, billing.ReasonUnknownRun)
}

// untilDeadline returns a context that ends soon, and a tap whose n-th send takes all the time that
// the step allows itself.
func untilDeadline(t *testing.T, n int) (context.Context, *tap) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	t.Cleanup(cancel)
	return ctx, &tap{after: func(step context.Context, call string) error {
		if call == "SendWork" {
			n--
		}
		if call == "SendWork" && n == 0 {
			<-step.Done()
		}
		return nil
	}}
}

func TestAnEnumeratorOutOfTimeSavesAndTheNextGoesOn(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	f.customersOnly(numbered(10)...)
	ctx, slow := untilDeadline(t, 2)
	got, err := f.enumerator(slow).Run(ctx, scheduled)
	if err != nil || got.Done || got.RunID != scheduledID || got.Enqueued != 6 {
		t.Fatalf("Run() = %+v, %v", got, err)
	}
	if ctx.Err() != nil {
		t.Error("it answered after the deadline")
	}
	run := f.run(scheduledID)
	if f.leased() || run.Status != billing.RunEnumerating || !run.Listed || run.SentThrough != "org-002" {
		t.Errorf("leased %t, run %+v", f.leased(), run)
	}
	// Without waiting for any lease:
	got = f.enumerate(f.enumerator(nil), pipeline.Request{ResumeAll: true})
	if !got.Done || got.Enqueued != 7 || f.status(scheduledID) != billing.RunRunning {
		t.Errorf("%+v, run is %s", got, f.status(scheduledID))
	}
	if diff := cmp.Diff(numbered(10), distinct(f.sentWork(scheduledID))); diff != "" {
		t.Error(diff)
	}
}

func TestATickOutOfTimeLeavesTheOtherRunsToTheNext(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	f.customersOnly(numbered(5)...)
	second := pipeline.Request{ScheduledFor: start.Add(time.Hour)}
	for _, req := range []pipeline.Request{scheduled, second} {
		if _, err := f.enumerator(dyingAt("begin ListOrganizations")).Run(t.Context(), req); err == nil {
			t.Fatal("not killed")
		}
		f.clock.advance(time.Hour)
	}
	ctx, slow := untilDeadline(t, 1)
	got, err := f.enumerator(slow).Run(ctx, pipeline.Request{ResumeAll: true})
	if err != nil || got.Done {
		t.Fatalf("Run() = %+v, %v", got, err)
	}
	if got := f.enumerate(f.enumerator(nil), pipeline.Request{ResumeAll: true}); !got.Done {
		t.Errorf("%+v", got)
	}
	for _, id := range []string{scheduledID, "2026-11-22T04:00:00Z"} {
		if got := f.status(id); got != billing.RunRunning {
			t.Errorf("run %s is %s", id, got)
		}
	}
}

// A run that cannot go on must not keep the tick from the others.
func TestATickLeavesAloneWhatEndedMeanwhile(t *testing.T) {
	for _, status := range []billing.RunStatus{billing.RunStopped, billing.RunRunning, billing.RunIncomplete} {
		t.Run(string(status), func(t *testing.T) {
			f := newFixture(t)
			f.startQueues()
			f.inSync("org-1")
			f.openRun("ended", []string{"org-1"})
			f.exec(`UPDATE reconciliation_runs SET status = 'enumerating'`)
			meanwhile := &tap{after: func(_ context.Context, call string) error {
				if call == "ResumableRuns" {
					f.exec(`UPDATE reconciliation_runs SET status = ?`, status) //nolint:contextcheck // the test's own statement
				}
				return nil
			}}
			if got := f.enumerate(f.enumerator(meanwhile), pipeline.Request{ResumeAll: true}); got.Enqueued != 0 || f.status("ended") != status {
				t.Errorf("%+v; the run is %s, want %s", got, f.status("ended"), status)
			}
			if got := f.enumerate(f.enumerator(nil), pipeline.Request{ContinueRun: "ended"}); !got.Done || got.Enqueued != 0 || f.status("ended") != status {
				t.Errorf("%+v; the run is %s, want %s", got, f.status("ended"), status)
			}
		})
	}
}

func TestALostAnswerToTheLastStepIsNoLostLease(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	f.inSync("org-1")
	lost := false
	p := &tap{after: func(_ context.Context, call string) error {
		if call == "MarkRunning" && !lost {
			lost = true
			return &billing.Failure{Class: billing.Unavailable, Reason: billing.ReasonDatabaseUnavailable, Message: "the answer was lost"}
		}
		return nil
	}}
	got := f.enumerate(f.enumerator(p), pipeline.Request{})
	if !got.Done || got.Enqueued != 1 || f.status(got.RunID) != billing.RunRunning || len(f.received(f.results)) != 1 {
		t.Errorf("%+v; the run is %s", got, f.status(got.RunID))
	}
}

func TestResumingEveryRunTakesNoRestriction(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	f.inSync("org-1")
	f.openRun("open", []string{"org-1"})
	f.exec(`UPDATE reconciliation_runs SET status = 'enumerating'`)
	for _, req := range []pipeline.Request{{DryRun: true}, {OrgID: "org-2"}, {Strategy: billing.StrategyRetrieve}, {ScheduledFor: start}} {
		req.ResumeAll = true
		if _, err := f.enumerator(nil).Run(t.Context(), req); err == nil || billing.AsFailure(err).Reason != billing.ReasonOtherSettings {
			t.Errorf("%+v: %v", req, err)
		}
	}
	if n := len(f.sentWork("open")); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
}

func TestATickGoesOnBehindARunThatFails(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	f.customersOnly(numbered(2)...)
	second := pipeline.Request{ScheduledFor: start.Add(time.Hour)}
	for _, req := range []pipeline.Request{scheduled, second} {
		if _, err := f.enumerator(dyingAt("begin ListOrganizations")).Run(t.Context(), req); err == nil {
			t.Fatal("not killed")
		}
		f.clock.advance(time.Hour)
	}
	broken := errors.New("broken")
	failFirst := errors.Join(broken)
	e := f.enumerator(&tap{before: func(_ context.Context, call string) error {
		if call == "CountItems" {
			err := failFirst
			failFirst = nil
			return err
		}
		return nil
	}})
	e.Retry.Tries = 1
	if _, err := e.Run(t.Context(), pipeline.Request{ResumeAll: true}); !errors.Is(err, broken) {
		t.Errorf("Run() = %v", err)
	}
	if got := f.status(scheduledID); got != billing.RunEnumerating {
		t.Errorf("the first run is %s", got)
	}
	if got := f.status("2026-11-22T04:00:00Z"); got != billing.RunRunning {
		t.Errorf("the second run is %s", got)
	}
}

func TestZeroOrganizations(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	got := f.enumerate(f.enumerator(nil), scheduled)
	if diff := cmp.Diff(pipeline.Enumeration{RunID: scheduledID, Done: true}, got); diff != "" {
		t.Error(diff)
	}
	if f.status(scheduledID) != billing.RunRunning || len(f.received(f.results)) != 1 {
		t.Errorf("run is %s", f.status(scheduledID))
	}
	if err := f.aggregator(nil).Progress(t.Context(), scheduledID); err != nil || f.status(scheduledID) != billing.RunCompleted {
		t.Errorf("run is %s, %v", f.status(scheduledID), err)
	}
}

func TestAWrongAccountOpensNoRunAndStopsAResumedOne(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	f.customersOnly(numbered(4)...)
	wrong := f.enumerator(nil)
	wrong.AccountID = "acct_other"

	_, err := wrong.Run(t.Context(), scheduled)
	wantReason(t, err, billing.RunFatal, billing.ReasonWrongAccount)
	if n := f.countRuns(); n != 0 {
		t.Fatalf("%d runs", n)
	}

	if _, err := f.enumerator(dyingAt("CountItems")).Run(t.Context(), scheduled); err == nil {
		t.Fatal("not killed")
	}
	f.clock.advance(2 * time.Minute)
	f.received(f.work)
	_, err = wrong.Run(t.Context(), pipeline.Request{ResumeAll: true})
	wantReason(t, err, billing.RunFatal, billing.ReasonWrongAccount)
	if run := f.run(scheduledID); run.Status != billing.RunStopped || run.StatusReason != billing.ReasonWrongAccount || run.StatusMessage == "" {
		t.Errorf("%+v", run)
	}
	if sent := f.received(f.work); len(sent) > 0 {
		t.Errorf("%d messages sent", len(sent))
	}
	if told := f.received(f.results); len(told) != 1 {
		t.Errorf("%d progress messages, so nobody sums the run up", len(told))
	}
	f.progress(scheduledID)
	f.wantReports("Reconciliation stopped", 1, 0)

	right := f.enumerator(nil)
	right.AccountID = "acct_test"
	f.enumerate(right, pipeline.Request{ResumeRun: scheduledID})
	if diff := cmp.Diff(numbered(4), f.sentWork(scheduledID)); diff != "" {
		t.Error(diff)
	}
}

func TestTablesThatAreNotAsNeededOpenNoRunAndStopAResumedOne(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	f.customersOnly(numbered(4)...)
	spoil := func() {
		f.exec(`ALTER TABLE organizations MODIFY is_deleted INT NULL DEFAULT 0, MODIFY updated_at DATE NOT NULL`)
	}
	mend := func() {
		f.exec(`ALTER TABLE organizations MODIFY is_deleted INT NOT NULL DEFAULT 0, MODIFY updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP`)
	}
	refused := func(req pipeline.Request) {
		t.Helper()
		_, err := f.enumerator(nil).Run(t.Context(), req)
		wantReason(t, err, billing.RunFatal, billing.ReasonDatabaseSchema)
		for _, part := range []string{"organizations.is_deleted may be NULL", "organizations.updated_at is date"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("no %q in %q", part, err)
			}
		}
	}
	spoil()
	for _, req := range []pipeline.Request{scheduled, {}, {DryRun: true}, {OrgID: "org-001"}} {
		refused(req)
	}
	if n := f.countRuns(); n != 0 {
		t.Fatalf("%d runs", n)
	}

	mend()
	if _, err := f.enumerator(dyingAt("CountItems")).Run(t.Context(), scheduled); err == nil {
		t.Fatal("not killed")
	}
	f.clock.advance(2 * time.Minute)
	f.received(f.work)
	open := f.run(scheduledID)
	spoil()
	refused(scheduled) // delivered again
	if diff := cmp.Diff(open, f.run(scheduledID)); diff != "" {
		t.Error("an open run was touched:", diff)
	}
	refused(pipeline.Request{ResumeAll: true})
	stopped := f.run(scheduledID)
	if stopped.Status != billing.RunStopped || stopped.StatusReason != billing.ReasonDatabaseSchema || !strings.Contains(stopped.StatusMessage, "organizations.is_deleted") {
		t.Errorf("%+v", stopped)
	}
	refused(pipeline.Request{ResumeRun: scheduledID})
	if diff := cmp.Diff(stopped, f.run(scheduledID)); diff != "" {
		t.Error("a stopped run was touched:", diff)
	}
	if sent := f.received(f.work); len(sent) > 0 {
		t.Errorf("%d messages sent", len(sent))
	}

	mend()
	f.enumerate(f.enumerator(nil), pipeline.Request{ResumeRun: scheduledID})
	if diff := cmp.Diff(numbered(4), f.sentWork(scheduledID)); diff != "" {
		t.Error(diff)
	}
}

func TestKeysThatAreMissedAreLoggedOnceForARun(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	f.customersOnly(numbered(4)...)
	f.exec(`ALTER TABLE subscriptions DROP FOREIGN KEY fk_subscriptions_org`)
	if _, err := f.enumerator(dyingAt("CountItems")).Run(t.Context(), scheduled); err == nil {
		t.Fatal("not killed")
	}
	f.clock.advance(2 * time.Minute)
	f.enumerate(f.enumerator(nil), pipeline.Request{ResumeAll: true})
	if logged := f.logs.lines(t, "message", "the application's tables lack a key"); len(logged) != 1 || logged[0]["level"] != "WARN" ||
		!strings.Contains(fmt.Sprint(logged[0]["reason"]), "subscriptions has no foreign key") {
		t.Errorf("logged %v", logged)
	}
}

func TestSendFailuresLeaveTheCursorWhereItWas(t *testing.T) {
	for name, fault := range map[string]sqsserver.Fault{"refused": sqsserver.AccessDenied, "answer lost": sqsserver.LostAnswer} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			server := f.startQueues()
			f.customersOnly(numbered(8)...)
			pages := 0
			server.SetFail(func(action string) *sqsserver.Fault {
				if action != "SendMessageBatch" {
					return nil
				}
				if pages++; pages > 1 {
					return &fault
				}
				return nil
			})
			got, err := f.enumerator(nil).Run(t.Context(), scheduled)
			wantReason(t, err, billing.Unavailable, billing.ReasonQueueUnavailable)
			if got.Enqueued != 3 || got.Done || f.run(scheduledID).SentThrough != "org-002" || f.leased() {
				t.Errorf("%+v, sent through %s", got, f.run(scheduledID).SentThrough)
			}
			server.SetFail(nil)
			if got := f.enumerate(f.enumerator(nil), scheduled); !got.Done || got.Enqueued != 5 {
				t.Errorf("%+v", got)
			}
			if diff := cmp.Diff(numbered(8), distinct(f.sentWork(scheduledID))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAPassingDatabaseFailureIsTriedAgainInPlace(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	f.customersOnly(numbered(4)...)
	failed := map[string]bool{}
	e := f.enumerator(&tap{before: func(_ context.Context, call string) error {
		switch call {
		case "OpenRun", "begin ListOrganizations", "CountItems", "FinishListing", "PendingAfter", "MarkSent", "MarkRunning":
			if !failed[call] {
				failed[call] = true
				return &billing.Failure{Class: billing.Unavailable, Reason: billing.ReasonDatabaseUnavailable, Message: "gone for a moment"}
			}
		}
		return nil
	}})
	if got := f.enumerate(e, scheduled); !got.Done || got.Enqueued != 4 {
		t.Errorf("%+v", got)
	}
	if diff := cmp.Diff(numbered(4), f.sentWork(scheduledID)); diff != "" {
		t.Error(diff)
	}
}

func TestALostProgressMessageIsAnErrorButTheRunGoesOn(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	e := f.enumerator(&tap{before: func(_ context.Context, call string) error {
		if call == "SendProgress" {
			return errKilled
		}
		return nil
	}})
	if _, err := e.Run(t.Context(), scheduled); !errors.Is(err, errKilled) {
		t.Errorf("Run() = %v", err)
	}
	tick, err := f.aggregator(nil).Tick(t.Context())
	if err != nil || !slices.Equal(tick.Closed, []string{scheduledID}) {
		t.Errorf("Tick() = %+v, %v", tick, err)
	}
}

// The week's only event must not be lost to a Stripe that is away for five minutes.
func TestAScheduledRunIsOpenedAlsoWhereTheAccountCannotBeCheckedJustThen(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	f.customersOnly(numbered(3)...)
	e := f.enumerator(nil)
	e.AccountID = "acct_test"
	f.stripe.AddFault(stripetest.Fault{Kind: stripetest.Unavailable})
	if _, err := e.Run(t.Context(), pipeline.Request{}); err == nil || f.countRuns() != 0 {
		t.Fatalf("one asked for by hand: %v, %d runs", err, f.countRuns())
	}
	_, err := e.Run(t.Context(), scheduled)
	wantReason(t, err, billing.Unavailable, billing.ReasonStripeUnavailable)
	if f.status(scheduledID) != billing.RunEnumerating || f.leased() {
		t.Fatalf("the run is %s", f.status(scheduledID))
	}
	if _, err := e.Run(t.Context(), pipeline.Request{ResumeAll: true}); err == nil {
		t.Error("a tick went on without Stripe")
	}
	f.stripe.ClearFaults()
	if got := f.enumerate(e, pipeline.Request{ResumeAll: true}); !got.Done || got.Enqueued != 3 {
		t.Errorf("%+v", got)
	}
}
