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
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

const scheduledID = "2026-11-22T03:00:00Z"

// scheduled is the request of the schedule.
var scheduled = pipeline.Request{ScheduledFor: start}

// customersOnly inserts organizations that have only a customer.
func (f *fixture) customersOnly(ids ...string) {
	f.Helper()
	for _, id := range ids {
		f.Org(id)
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
	ids := numbered(10)
	f.customersOnly(ids...)
	f.Org("row-only", func(o *appschema.Organization) { o.StripeCustomerID = nil })
	f.Row("row-only")
	f.Org("deleted", func(o *appschema.Organization) { o.IsDeleted = true })
	f.Org("free", withoutCustomer, free)
	f.Org("empty-customer", func(o *appschema.Organization) { o.StripeCustomerID = new("") }, free)
	f.Org("paid", withoutCustomer)
	want := slices.Sorted(slices.Values(append(slices.Clone(ids), "row-only", "paid")))

	got := f.enumerate(f.Enumerator(nil), scheduled)

	if diff := cmp.Diff(pipeline.Enumeration{RunID: scheduledID, Enqueued: 12, Done: true}, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, f.SentWork(scheduledID)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{`{"version":1,"runId":"` + scheduledID + `"}`}, f.Received(f.Results)); diff != "" {
		t.Error("progress messages (-want +got):", diff)
	}
	run := f.Run(scheduledID)
	if run.Status != billing.RunRunning || !run.Listed || run.Total != 12 || run.DowngradeLimit != 10 ||
		!run.StartedAt.Equal(start) || !run.DeadlineAt.Equal(start.Add(12*time.Hour)) || f.Leased() {
		t.Errorf("the run is %+v", run)
	}
}

func TestEveryOrganizationIsSentIfTheLastPageIsFull(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 6} {
		f := newFixture(t)
		f.customersOnly(numbered(n)...)
		if got := f.enumerate(f.Enumerator(nil), scheduled); got.Enqueued != n || !got.Done {
			t.Errorf("%d organizations in pages of 3: %+v", n, got)
		}
		if diff := cmp.Diff(numbered(n), f.SentWork(scheduledID)); diff != "" {
			t.Error(diff)
		}
	}
}

// resetRuns ends the processes and empties this system's tables and the queues.
func (f *fixture) resetRuns() {
	f.Helper()
	f.EndProcesses()
	for _, table := range []string{"items", "runs", "sweeps", "ranges", "snapshots", "accounts"} {
		f.Exec(`DELETE FROM reconciliation_` + table)
	}
	f.Received(f.Work)
	f.Received(f.Results)
}

func TestEnumeratorKilledAnywhereSendsEveryOrganization(t *testing.T) {
	f := newFixture(t)
	ids := numbered(7)
	f.customersOnly(ids...)
	testworld.EveryDeath(t, func(t *testing.T, k *testworld.Killer) {
		f.resetRuns()
		killed := f.Enumerator(k.Hooks())
		killed.AccountID = "acct_test"
		_, err := killed.Run(t.Context(), scheduled)
		if k.Dead() && err == nil {
			t.Errorf("a killed enumerator succeeded")
		}
		if f.CountRuns() == 0 { // it died before it opened the run, so the schedule tries again
			f.enumerate(f.Enumerator(nil), scheduled)
		}
		f.Clock.Advance(2 * time.Minute) // the lease has expired
		again := f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeAll: true})
		if !again.Done {
			t.Errorf("the resumed enumeration returned %+v", again)
		}
		if got := f.Status(scheduledID); got != billing.RunRunning {
			t.Errorf("the run is %s", got)
		}
		if diff := cmp.Diff(ids, f.ItemIDs(scheduledID)); diff != "" {
			t.Error("items (-want +got):", diff)
		}
		if diff := cmp.Diff(ids, distinct(f.SentWork(scheduledID))); diff != "" {
			t.Error("messages (-want +got):", diff)
		}
		if f.Run(scheduledID).Total != len(ids) {
			t.Errorf("the run's total is %d, want %d", f.Run(scheduledID).Total, len(ids))
		}
	})
}

func TestSecondEnumeratorDoesNotTouchLeasedRun(t *testing.T) {
	f := newFixture(t)
	f.customersOnly(numbered(5)...)
	for name, req := range map[string]pipeline.Request{
		"second delivery": scheduled, "resume tick": {ResumeAll: true}, "resume by hand": {ResumeRun: scheduledID},
	} {
		t.Run(name, func(t *testing.T) {
			f.resetRuns()
			second := once(func() {
				got, err := f.Enumerator(nil).Run(t.Context(), req)
				// The tick finds no run to resume, so it is done. The others know that the run is not sent yet.
				if err != nil || got.Enqueued != 0 || got.Done != req.ResumeAll {
					t.Errorf("the second enumerator returned %+v, %v", got, err)
				}
			})
			first := f.Enumerator(&hooks{Before: func(_ context.Context, call string) error {
				if call == "SendWork" {
					second()
				}
				return nil
			}})
			f.enumerate(first, scheduled)
			if diff := cmp.Diff(numbered(5), f.SentWork(scheduledID)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEnumeratorStopsWhenItsLeaseIsTaken(t *testing.T) {
	f := newFixture(t)
	f.customersOnly(numbered(5)...)
	takeOver := once(func() {
		f.Clock.Advance(2 * time.Minute)
		f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeAll: true})
	})
	slow := f.Enumerator(&hooks{After: func(_ context.Context, call string) error {
		if call == "SendWork" {
			takeOver()
		}
		return nil
	}})
	if got := f.enumerate(slow, scheduled); got.Done || got.Enqueued != 3 {
		t.Errorf("the slow enumerator returned %+v", got)
	}
	if got := f.Status(scheduledID); got != billing.RunRunning {
		t.Errorf("the run is %s", got)
	}
	if diff := cmp.Diff(numbered(5), distinct(f.SentWork(scheduledID))); diff != "" {
		t.Error(diff)
	}
}

// Another enumerator may work on the run after this one read the run and before it takes the lease.
func TestEnumeratorContinuesAtTheCursor(t *testing.T) {
	f := newFixture(t)
	f.customersOnly(numbered(8)...)
	meanwhile := once(func() {
		sends := 0
		other := f.Enumerator(&hooks{Before: func(_ context.Context, call string) error {
			if call != "SendWork" {
				return nil
			}
			if sends++; sends == 3 {
				return testworld.ErrKilled
			}
			return nil
		}})
		if _, err := other.Run(t.Context(), scheduled); err == nil {
			t.Error("the other enumerator was not killed")
		}
	})
	e := f.Enumerator(&hooks{Before: func(_ context.Context, call string) error {
		if call == "AcquireLease" {
			meanwhile()
		}
		return nil
	}})
	if got := f.enumerate(e, scheduled); !got.Done || got.Enqueued != 2 {
		t.Errorf("%+v", got)
	}
	if diff := cmp.Diff(numbered(8), f.SentWork(scheduledID)); diff != "" {
		t.Error(diff)
	}
}

func TestScheduledRunIDIsItsTime(t *testing.T) {
	f := newFixture(t)
	f.customersOnly("org-1")
	elsewhere := time.Date(2026, time.November, 22, 4, 0, 0, 500, time.FixedZone("CET", 3600))
	for range 2 {
		if got := f.enumerate(f.Enumerator(nil), pipeline.Request{ScheduledFor: elsewhere, RequestID: uuid.NewString()}); got.RunID != scheduledID || !got.Done {
			t.Errorf("%+v", got)
		}
	}
	if n := f.CountRuns(); n != 1 {
		t.Errorf("the number of runs is %d", n)
	}
	if diff := cmp.Diff([]string{"org-1"}, f.SentWork(scheduledID)); diff != "" {
		t.Error(diff)
	}
}

func TestManualRunBelongsToItsRequest(t *testing.T) {
	f := newFixture(t)
	f.customersOnly("org-1")
	first := f.enumerate(f.Enumerator(nil), pipeline.Request{RequestID: "request-1"})
	if id, err := uuid.Parse(first.RunID); err != nil || id.Version() != 7 {
		t.Errorf("the run id %q is not a UUIDv7: %v", first.RunID, err)
	}
	if again := f.enumerate(f.Enumerator(nil), pipeline.Request{RequestID: "request-1"}); again.RunID != first.RunID || again.Enqueued != 0 || !again.Done {
		t.Errorf("the second delivery returned %+v", again)
	}
	if other := f.enumerate(f.Enumerator(nil), pipeline.Request{RequestID: "request-2"}); other.RunID == first.RunID {
		t.Error("another request got the same run")
	}
	if n := f.CountRuns(); n != 2 {
		t.Errorf("%d runs, want 2", n)
	}
}

func TestRepeatedRequestResumesItsRun(t *testing.T) {
	f := newFixture(t)
	f.customersOnly(numbered(4)...)
	if _, err := f.Enumerator(testworld.DyingAt("CountItems")).Run(t.Context(), pipeline.Request{RequestID: "request-1"}); err == nil {
		t.Fatal("the enumerator was not killed")
	}
	f.Clock.Advance(2 * time.Minute)
	got := f.enumerate(f.Enumerator(nil), pipeline.Request{RequestID: "request-1"})
	if !got.Done || f.CountRuns() != 1 || f.Status(got.RunID) != billing.RunRunning {
		t.Errorf("%+v, %d runs", got, f.CountRuns())
	}
	if diff := cmp.Diff(numbered(4), distinct(f.SentWork(got.RunID))); diff != "" {
		t.Error(diff)
	}
}

func TestOtherSettingsForARunAreRefused(t *testing.T) {
	f := newFixture(t)
	f.customersOnly("org-1", "org-2")
	f.enumerate(f.Enumerator(nil), scheduled)
	for name, req := range map[string]pipeline.Request{
		"dry run":                             {ScheduledFor: start, DryRun: true},
		"one organization":                    {ScheduledFor: start, OrgID: "org-1"},
		"other strategy":                      {ScheduledFor: start, Strategy: "other"},
		"resumed as dry run":                  {ResumeRun: scheduledID, DryRun: true},
		"resumed over one organization":       {ResumeRun: scheduledID, OrgID: "org-1"},
		"resumed with other strategy":         {ResumeRun: scheduledID, Strategy: "other"},
		"resumed with several other settings": {ResumeRun: scheduledID, DryRun: true, OrgID: "org-1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.Enumerator(nil).Run(t.Context(), req)
			wantReason(t, err, billing.Permanent, billing.ReasonOtherSettings)
		})
	}
	if n := f.CountRuns(); n != 1 {
		t.Errorf("the number of runs is %d", n)
	}
}

func TestUnknownOrganizationOpensNoRun(t *testing.T) {
	f := newFixture(t)
	f.Org("org-deleted", func(o *appschema.Organization) { o.IsDeleted = true })
	for _, id := range []string{"org-unknown", "org-deleted"} {
		_, err := f.Enumerator(nil).Run(t.Context(), pipeline.Request{OrgID: id})
		wantReason(t, err, billing.Permanent, billing.ReasonUnknownOrganization)
	}
	if n := f.CountRuns(); n != 0 {
		t.Errorf("the number of runs is %d", n)
	}
}

func TestRunOverOneOrganizationSendsItOnly(t *testing.T) {
	for _, pageSize := range []int{1, 3} {
		f := newFixture(t)
		f.customersOnly(numbered(3)...)
		f.Org("org-free", func(o *appschema.Organization) { o.StripeCustomerID = nil }) // listed only because the request names it
		for _, id := range []string{"org-001", "org-free"} {
			e := f.Enumerator(nil)
			e.PageSize = pageSize
			got := f.enumerate(e, pipeline.Request{OrgID: id, DryRun: true})
			if diff := cmp.Diff([]string{id}, f.SentWork(got.RunID)); diff != "" || got.Enqueued != 1 || !got.Done {
				t.Errorf("%+v %s", got, diff)
			}
			if run := f.Run(got.RunID); run.OrgID != id || !run.DryRun || run.Total != 1 || run.Strategy != billing.StrategyRetrieve {
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
		if err := f.Store.Decide(f.Context(), item, false, f.Clock.Now()); err != nil {
			f.Fatal(err)
		}
	}
}

func TestResumeSendsPendingOrganizationsOnly(t *testing.T) {
	for name, end := range map[string]func(f *fixture){
		"a stopped run": func(f *fixture) {
			if _, err := f.Store.StopRun(f.Context(), scheduledID, billing.ReasonStripeUnauthorized, "bad key", f.Clock.Now()); err != nil {
				f.Fatal(err)
			}
		},
		"a run whose messages were lost": func(*fixture) {},
		"an incomplete run": func(f *fixture) {
			f.Clock.Advance(13 * time.Hour)
			if _, err := f.Aggregator(nil).Tick(f.Context()); err != nil {
				f.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.customersOnly(numbered(7)...)
			f.enumerate(f.Enumerator(nil), scheduled)
			f.Received(f.Work)
			f.decide(scheduledID, billing.OutcomeSkipped, "org-001", "org-004", "org-006")
			f.decide(scheduledID, billing.OutcomeError, "org-003")
			end(f)

			f.Clock.Advance(time.Hour)
			got := f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeRun: scheduledID})
			if diff := cmp.Diff(pipeline.Enumeration{RunID: scheduledID, Enqueued: 3, Done: true}, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]string{"org-000", "org-002", "org-005"}, f.SentWork(scheduledID)); diff != "" {
				t.Error(diff)
			}
			run := f.Run(scheduledID)
			if run.Status != billing.RunRunning || run.StatusReason != "" || run.FinishedAt != nil || run.Summarized || run.Total != 7 ||
				!run.DeadlineAt.Equal(f.Clock.Now().Add(12*time.Hour)) {
				t.Errorf("%+v", run)
			}
		})
	}
}

func TestResumeKilledAnywhereSendsEveryPendingOrganization(t *testing.T) {
	f := newFixture(t)
	f.customersOnly(numbered(6)...)
	testworld.EveryDeath(t, func(t *testing.T, k *testworld.Killer) {
		f.resetRuns()
		f.enumerate(f.Enumerator(nil), scheduled)
		f.Received(f.Work)
		f.decide(scheduledID, billing.OutcomeSkipped, "org-001")
		if _, err := f.Store.StopRun(t.Context(), scheduledID, billing.ReasonStripeUnauthorized, "bad key", f.Clock.Now()); err != nil {
			t.Fatal(err)
		}
		_, err := f.Enumerator(k.Hooks()).Run(t.Context(), pipeline.Request{ResumeRun: scheduledID})
		if k.Dead() && err == nil {
			t.Error("a killed enumerator succeeded")
		}
		f.Clock.Advance(2 * time.Minute)
		f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeRun: scheduledID})
		if got := f.Status(scheduledID); got != billing.RunRunning {
			t.Errorf("run is %s", got)
		}
		if diff := cmp.Diff([]string{"org-000", "org-002", "org-003", "org-004", "org-005"}, distinct(f.SentWork(scheduledID))); diff != "" {
			t.Error(diff)
		}
	})
}

// The last organizations may be decided while the run is being stopped.
func TestStoppedRunWithNothingPendingCompletesWhenResumed(t *testing.T) {
	for _, strategy := range billing.Strategies() {
		t.Run(string(strategy), func(t *testing.T) {
			f := newFixture(t)
			f.Subscriber("org-000")
			f.OpenRun(runID, []string{"org-000"}, func(r *billing.Run) { r.Strategy = strategy })
			if strategy == billing.StrategySweep {
				f.sweepInto()
			}
			f.decide(runID, billing.OutcomeSkipped, "org-000")
			if _, err := f.Store.StopRun(t.Context(), runID, billing.ReasonStripeUnauthorized, "the key is refused", f.Clock.Now()); err != nil {
				t.Fatal(err)
			}
			f.progress(runID)
			f.Stripe.ResetCounts()
			got := f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeRun: runID})
			if got.Enqueued != 0 || !got.Done {
				t.Errorf("%+v", got)
			}
			if got := f.Stripe.Requests(); got.Total() > got.RetrieveAccount {
				t.Errorf("the enumerator sent %+v to Stripe although no organization is pending", got)
			}
			f.progress(runID)
			if got := f.Status(runID); got != billing.RunCompleted {
				t.Errorf("the run is %s", got)
			}
		})
	}
}

func TestResumeOfCompletedRunDoesNothing(t *testing.T) {
	f := newFixture(t)
	f.customersOnly("org-1")
	f.enumerate(f.Enumerator(nil), scheduled)
	f.Received(f.Work)
	f.decide(scheduledID, billing.OutcomeSkipped, "org-1")
	if err := f.Aggregator(nil).Progress(t.Context(), scheduledID); err != nil {
		t.Fatal(err)
	}
	got := f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeRun: scheduledID})
	if !got.Done || got.Enqueued != 0 || f.Status(scheduledID) != billing.RunCompleted || len(f.Received(f.Work)) > 0 {
		t.Errorf("%+v, the run is %s", got, f.Status(scheduledID))
	}
	if got := f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeAll: true}); !got.Done || got.Enqueued != 0 {
		t.Errorf("the tick returned %+v", got)
	}
	_, err := f.Enumerator(nil).Run(t.Context(), pipeline.Request{ResumeRun: "unknown"})
	wantReason(t, err, billing.Permanent, billing.ReasonUnknownRun)
}

// untilDeadline returns a context that ends soon, and hooks whose n-th send takes until the step's reserve begins.
func untilDeadline(t *testing.T, n int) (context.Context, *hooks) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	t.Cleanup(cancel)
	return ctx, &hooks{After: func(step context.Context, call string) error {
		if call == "SendWork" {
			n--
		}
		if call == "SendWork" && n == 0 {
			<-step.Done()
		}
		return nil
	}}
}

func TestEnumeratorOutOfTimeSavesItsCursorForTheNext(t *testing.T) {
	f := newFixture(t)
	f.customersOnly(numbered(10)...)
	ctx, slow := untilDeadline(t, 2)
	got, err := f.Enumerator(slow).Run(ctx, scheduled)
	if err != nil || got.Done || got.RunID != scheduledID || got.Enqueued != 6 {
		t.Fatalf("Run() = %+v, %v", got, err)
	}
	if ctx.Err() != nil {
		t.Error("the enumerator returned after its deadline")
	}
	run := f.Run(scheduledID)
	if f.Leased() || run.Status != billing.RunEnumerating || !run.Listed || run.SentThrough != "org-002" {
		t.Errorf("the run is leased: %t; %+v", f.Leased(), run)
	}
	// The next enumerator need not wait for a lease.
	got = f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeAll: true})
	if !got.Done || got.Enqueued != 7 || f.Status(scheduledID) != billing.RunRunning {
		t.Errorf("%+v, the run is %s", got, f.Status(scheduledID))
	}
	if diff := cmp.Diff(numbered(10), distinct(f.SentWork(scheduledID))); diff != "" {
		t.Error(diff)
	}
}

func TestTickOutOfTimeLeavesOtherRunsToTheNext(t *testing.T) {
	f := newFixture(t)
	f.customersOnly(numbered(5)...)
	second := pipeline.Request{ScheduledFor: start.Add(time.Hour)}
	for _, req := range []pipeline.Request{scheduled, second} {
		if _, err := f.Enumerator(testworld.DyingAt("begin ListOrganizations")).Run(t.Context(), req); err == nil {
			t.Fatal("the enumerator was not killed")
		}
		f.Clock.Advance(time.Hour)
	}
	ctx, slow := untilDeadline(t, 1)
	got, err := f.Enumerator(slow).Run(ctx, pipeline.Request{ResumeAll: true})
	if err != nil || got.Done {
		t.Fatalf("Run() = %+v, %v", got, err)
	}
	if got := f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeAll: true}); !got.Done {
		t.Errorf("%+v", got)
	}
	for _, id := range []string{scheduledID, "2026-11-22T04:00:00Z"} {
		if got := f.Status(id); got != billing.RunRunning {
			t.Errorf("run %s is %s", id, got)
		}
	}
}

// Such a run must not prevent the tick from resuming the others.
func TestTickDoesNotTouchRunThatEndedMeanwhile(t *testing.T) {
	for _, status := range []billing.RunStatus{billing.RunStopped, billing.RunRunning, billing.RunIncomplete} {
		t.Run(string(status), func(t *testing.T) {
			f := newFixture(t)
			f.Subscriber("org-1")
			f.OpenRun("ended", []string{"org-1"})
			f.Exec(`UPDATE reconciliation_runs SET status = 'enumerating'`)
			meanwhile := &hooks{After: func(_ context.Context, call string) error {
				if call == "ResumableRuns" {
					f.Exec(`UPDATE reconciliation_runs SET status = ?`, status) //nolint:contextcheck // the statement is the test's, not the step's
				}
				return nil
			}}
			if got := f.enumerate(f.Enumerator(meanwhile), pipeline.Request{ResumeAll: true}); got.Enqueued != 0 || f.Status("ended") != status {
				t.Errorf("%+v; the run is %s, want %s", got, f.Status("ended"), status)
			}
			if got := f.enumerate(f.Enumerator(nil), pipeline.Request{ContinueRun: "ended"}); !got.Done || got.Enqueued != 0 || f.Status("ended") != status {
				t.Errorf("%+v; the run is %s, want %s", got, f.Status("ended"), status)
			}
		})
	}
}

func TestLostAnswerToMarkRunningDoesNotCountAsLostLease(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	lost := false
	p := &hooks{After: func(_ context.Context, call string) error {
		if call == "MarkRunning" && !lost {
			lost = true
			return &billing.Failure{Class: billing.Unavailable, Reason: billing.ReasonDatabaseUnavailable, Message: "the response was lost"}
		}
		return nil
	}}
	got := f.enumerate(f.Enumerator(p), pipeline.Request{})
	if !got.Done || got.Enqueued != 1 || f.Status(got.RunID) != billing.RunRunning || len(f.Received(f.Results)) != 1 {
		t.Errorf("%+v; the run is %s", got, f.Status(got.RunID))
	}
}

func TestResumeAllWithOtherSettingsIsRefused(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.OpenRun("open", []string{"org-1"})
	f.Exec(`UPDATE reconciliation_runs SET status = 'enumerating'`)
	for _, req := range []pipeline.Request{{DryRun: true}, {OrgID: "org-2"}, {Strategy: billing.StrategyRetrieve}, {ScheduledFor: start}} {
		req.ResumeAll = true
		if _, err := f.Enumerator(nil).Run(t.Context(), req); err == nil || billing.AsFailure(err).Reason != billing.ReasonOtherSettings {
			t.Errorf("%+v: %v", req, err)
		}
	}
	if n := len(f.SentWork("open")); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
}

func TestTickResumesOtherRunsAfterOneFails(t *testing.T) {
	f := newFixture(t)
	f.customersOnly(numbered(2)...)
	second := pipeline.Request{ScheduledFor: start.Add(time.Hour)}
	for _, req := range []pipeline.Request{scheduled, second} {
		if _, err := f.Enumerator(testworld.DyingAt("begin ListOrganizations")).Run(t.Context(), req); err == nil {
			t.Fatal("the enumerator was not killed")
		}
		f.Clock.Advance(time.Hour)
	}
	broken := errors.New("broken")
	failFirst := errors.Join(broken)
	e := f.Enumerator(&hooks{Before: func(_ context.Context, call string) error {
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
	if got := f.Status(scheduledID); got != billing.RunEnumerating {
		t.Errorf("the first run is %s", got)
	}
	if got := f.Status("2026-11-22T04:00:00Z"); got != billing.RunRunning {
		t.Errorf("the second run is %s", got)
	}
}

func TestRunWithoutOrganizationsIsRunningAndThenCompleted(t *testing.T) {
	f := newFixture(t)
	got := f.enumerate(f.Enumerator(nil), scheduled)
	if diff := cmp.Diff(pipeline.Enumeration{RunID: scheduledID, Done: true}, got); diff != "" {
		t.Error(diff)
	}
	if f.Status(scheduledID) != billing.RunRunning || len(f.Received(f.Results)) != 1 {
		t.Errorf("the run is %s", f.Status(scheduledID))
	}
	if err := f.Aggregator(nil).Progress(t.Context(), scheduledID); err != nil || f.Status(scheduledID) != billing.RunCompleted {
		t.Errorf("the run is %s, %v", f.Status(scheduledID), err)
	}
}

func TestWrongAccountOpensNoRunAndStopsResumedRun(t *testing.T) {
	f := newFixture(t)
	f.customersOnly(numbered(4)...)
	wrong := f.Enumerator(nil)
	wrong.AccountID = "acct_other"

	_, err := wrong.Run(t.Context(), scheduled)
	wantReason(t, err, billing.RunFatal, billing.ReasonWrongAccount)
	if n := f.CountRuns(); n != 0 {
		t.Fatalf("%d runs were opened, want none", n)
	}

	if _, err := f.Enumerator(testworld.DyingAt("CountItems")).Run(t.Context(), scheduled); err == nil {
		t.Fatal("the enumerator was not killed")
	}
	f.Clock.Advance(2 * time.Minute)
	f.Received(f.Work)
	_, err = wrong.Run(t.Context(), pipeline.Request{ResumeAll: true})
	wantReason(t, err, billing.RunFatal, billing.ReasonWrongAccount)
	if run := f.Run(scheduledID); run.Status != billing.RunStopped || run.StatusReason != billing.ReasonWrongAccount || run.StatusMessage == "" {
		t.Errorf("%+v", run)
	}
	if sent := f.Received(f.Work); len(sent) > 0 {
		t.Errorf("%d messages were sent, want none", len(sent))
	}
	if progress := f.Received(f.Results); len(progress) != 1 {
		t.Errorf("%d progress messages were sent, want 1", len(progress))
	}
	f.progress(scheduledID)
	f.wantReports("Reconciliation stopped", 1, 0)

	right := f.Enumerator(nil)
	right.AccountID = "acct_test"
	f.enumerate(right, pipeline.Request{ResumeRun: scheduledID})
	if diff := cmp.Diff(numbered(4), f.SentWork(scheduledID)); diff != "" {
		t.Error(diff)
	}
}

func TestUnsuitableTablesOpenNoRunAndStopResumedRun(t *testing.T) {
	f := newFixture(t)
	f.customersOnly(numbered(4)...)
	breakTables := func() {
		f.Exec(`ALTER TABLE organizations MODIFY is_deleted INT NULL DEFAULT 0, MODIFY updated_at DATE NOT NULL`)
	}
	repairTables := func() {
		f.Exec(`ALTER TABLE organizations MODIFY is_deleted INT NOT NULL DEFAULT 0, MODIFY updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP`)
	}
	wantRefused := func(req pipeline.Request) {
		t.Helper()
		_, err := f.Enumerator(nil).Run(t.Context(), req)
		wantReason(t, err, billing.RunFatal, billing.ReasonDatabaseSchema)
		for _, part := range []string{"organizations.is_deleted may be NULL", "organizations.updated_at is date"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("the error does not contain %q: %v", part, err)
			}
		}
	}
	breakTables()
	for _, req := range []pipeline.Request{scheduled, {}, {DryRun: true}, {OrgID: "org-001"}} {
		wantRefused(req)
	}
	if n := f.CountRuns(); n != 0 {
		t.Fatalf("%d runs were opened, want none", n)
	}

	repairTables()
	if _, err := f.Enumerator(testworld.DyingAt("CountItems")).Run(t.Context(), scheduled); err == nil {
		t.Fatal("the enumerator was not killed")
	}
	f.Clock.Advance(2 * time.Minute)
	f.Received(f.Work)
	open := f.Run(scheduledID)
	breakTables()
	wantRefused(scheduled) // a second delivery
	if diff := cmp.Diff(open, f.Run(scheduledID)); diff != "" {
		t.Error("the refused delivery changed the open run (-before +after):", diff)
	}
	wantRefused(pipeline.Request{ResumeAll: true})
	stopped := f.Run(scheduledID)
	if stopped.Status != billing.RunStopped || stopped.StatusReason != billing.ReasonDatabaseSchema || !strings.Contains(stopped.StatusMessage, "organizations.is_deleted") {
		t.Errorf("%+v", stopped)
	}
	wantRefused(pipeline.Request{ResumeRun: scheduledID})
	if diff := cmp.Diff(stopped, f.Run(scheduledID)); diff != "" {
		t.Error("the refused resume changed the stopped run (-before +after):", diff)
	}
	if sent := f.Received(f.Work); len(sent) > 0 {
		t.Errorf("%d messages were sent, want none", len(sent))
	}

	repairTables()
	f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeRun: scheduledID})
	if diff := cmp.Diff(numbered(4), f.SentWork(scheduledID)); diff != "" {
		t.Error(diff)
	}
}

func TestMissingKeysAreLoggedOncePerRun(t *testing.T) {
	f := newFixture(t)
	f.customersOnly(numbered(4)...)
	f.Exec(`ALTER TABLE subscriptions DROP FOREIGN KEY fk_subscriptions_org`)
	if _, err := f.Enumerator(testworld.DyingAt("CountItems")).Run(t.Context(), scheduled); err == nil {
		t.Fatal("the enumerator was not killed")
	}
	f.Clock.Advance(2 * time.Minute)
	f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeAll: true})
	if logged := f.Logs.Lines(t, "message", "the application's tables lack a key"); len(logged) != 1 || logged[0]["level"] != "WARN" ||
		!strings.Contains(fmt.Sprint(logged[0]["reason"]), "subscriptions has no foreign key") {
		t.Errorf("the warnings are %v, want one", logged)
	}
}

func TestFailedSendDoesNotMoveTheCursor(t *testing.T) {
	for name, fault := range map[string]sqsserver.Fault{"refused": sqsserver.AccessDenied, "answer lost": sqsserver.LostResponse} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.customersOnly(numbered(8)...)
			pages := 0
			f.SQS.SetFail(func(action string) *sqsserver.Fault {
				if action != "SendMessageBatch" {
					return nil
				}
				if pages++; pages > 1 {
					return &fault
				}
				return nil
			})
			got, err := f.Enumerator(nil).Run(t.Context(), scheduled)
			wantReason(t, err, billing.Unavailable, billing.ReasonQueueUnavailable)
			if got.Enqueued != 3 || got.Done || f.Run(scheduledID).SentThrough != "org-002" || f.Leased() {
				t.Errorf("%+v, sent through %s", got, f.Run(scheduledID).SentThrough)
			}
			f.SQS.SetFail(nil)
			if got := f.enumerate(f.Enumerator(nil), scheduled); !got.Done || got.Enqueued != 5 {
				t.Errorf("%+v", got)
			}
			if diff := cmp.Diff(numbered(8), distinct(f.SentWork(scheduledID))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTransientDatabaseFailureIsRetriedInPlace(t *testing.T) {
	f := newFixture(t)
	f.customersOnly(numbered(4)...)
	failed := map[string]bool{}
	e := f.Enumerator(&hooks{Before: func(_ context.Context, call string) error {
		switch call {
		case "OpenRun", "begin ListOrganizations", "CountItems", "FinishListing", "PendingAfter", "MarkSent", "MarkRunning":
			if !failed[call] {
				failed[call] = true
				return &billing.Failure{Class: billing.Unavailable, Reason: billing.ReasonDatabaseUnavailable, Message: "not available for a moment"}
			}
		}
		return nil
	}})
	if got := f.enumerate(e, scheduled); !got.Done || got.Enqueued != 4 {
		t.Errorf("%+v", got)
	}
	if diff := cmp.Diff(numbered(4), f.SentWork(scheduledID)); diff != "" {
		t.Error(diff)
	}
}

func TestTickClosesRunWhoseProgressMessageWasNotSent(t *testing.T) {
	f := newFixture(t)
	e := f.Enumerator(&hooks{Before: func(_ context.Context, call string) error {
		if call == "SendProgress" {
			return testworld.ErrKilled
		}
		return nil
	}})
	if _, err := e.Run(t.Context(), scheduled); !errors.Is(err, testworld.ErrKilled) {
		t.Errorf("Run() = %v", err)
	}
	tick, err := f.Aggregator(nil).Tick(t.Context())
	if err != nil || !slices.Equal(tick.Closed, []string{scheduledID}) {
		t.Errorf("Tick() = %+v, %v", tick, err)
	}
}

// There is one scheduled event a week. It must not be lost because Stripe is unavailable for five minutes.
func TestScheduledRunIsOpenedIfAccountCheckIsUnavailable(t *testing.T) {
	f := newFixture(t)
	f.customersOnly(numbered(3)...)
	e := f.Enumerator(nil)
	e.AccountID = "acct_test"
	f.Stripe.AddFault(stripetest.Fault{Kind: stripetest.Unavailable})
	if _, err := e.Run(t.Context(), pipeline.Request{}); err == nil || f.CountRuns() != 0 {
		t.Fatalf("a run started by hand: %v, %d runs, want none", err, f.CountRuns())
	}
	_, err := e.Run(t.Context(), scheduled)
	wantReason(t, err, billing.Unavailable, billing.ReasonStripeUnavailable)
	if f.Status(scheduledID) != billing.RunEnumerating || f.Leased() {
		t.Fatalf("the run is %s", f.Status(scheduledID))
	}
	if _, err := e.Run(t.Context(), pipeline.Request{ResumeAll: true}); err == nil {
		t.Error("a tick succeeded without Stripe")
	}
	f.Stripe.ClearFaults()
	if got := f.enumerate(e, pipeline.Request{ResumeAll: true}); !got.Done || got.Enqueued != 3 {
		t.Errorf("%+v", got)
	}
}
