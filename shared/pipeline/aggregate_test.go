package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

func (f *fixture) progress(runID string) {
	f.Helper()
	if err := f.Aggregator(nil).Progress(f.Context(), runID); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) tick() pipeline.Tick {
	f.Helper()
	tick, err := f.Aggregator(nil).Tick(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	return tick
}

// wantReports checks how many log lines report an end of a run with this message, how many metric lines report
// outcomes, and how many log lines report an amendment.
func (f *fixture) wantReports(message string, ended, amended int) {
	f.Helper()
	if n := len(f.Logs.Lines(f.TB, "message", message)); n != ended {
		f.Errorf("%d log lines have the message %q, want %d", n, message, ended)
	}
	if n := len(f.Metrics.Lines(f.TB, "Organizations", nil)); n != ended {
		f.Errorf("%d metric lines have outcomes, want %d", n, ended)
	}
	if n := len(f.Logs.Lines(f.TB, "message", "Reconciliation amended")); n != amended {
		f.Errorf("%d log lines report an amendment, want %d", n, amended)
	}
}

// stored returns the stored summary of the only run.
func (f *fixture) stored() (s billing.Summary) {
	f.Helper()
	text := mysqltest.Value[string](f.TB, f.DB, `SELECT summary FROM reconciliation_runs`)
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		f.Fatal(err)
	}
	return s
}

func TestConcurrentAggregatorsCloseRunOnce(t *testing.T) {
	f := newFixture(t)
	ids := numbered(4)
	f.OpenRun(runID, ids)
	f.decide(runID, billing.OutcomeSkipped, ids...)
	f.Clock.Advance(90 * time.Second)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			if i%4 == 3 {
				f.tick()
				return
			}
			f.progress(runID)
		})
	}
	group.Wait()
	f.wantReports("Reconciliation completed", 1, 0)
	if run := f.Run(runID); run.Status != billing.RunCompleted || !run.FinishedAt.Equal(start.Add(90*time.Second)) || !run.Summarized {
		t.Errorf("%+v", run)
	}
	if s := f.stored(); s.Status != billing.RunCompleted || s.Skipped != 4 || s.DurationMs != 90_000 {
		t.Errorf("%+v", s)
	}
}

func TestOpenRunIsNotClosed(t *testing.T) {
	f := newFixture(t)
	f.OpenRun("pending", numbered(2))
	f.decide("pending", billing.OutcomeSkipped, "org-000")
	f.OpenRun("enumerating", nil)
	f.Exec(`UPDATE reconciliation_runs SET status = 'enumerating' WHERE id = 'enumerating'`)
	for _, id := range []string{"pending", "enumerating", "unknown"} {
		f.progress(id)
	}
	if tick := f.tick(); len(tick.Closed) != 0 {
		t.Errorf("%+v", tick)
	}
	if got := f.Status("pending"); got != billing.RunRunning {
		t.Errorf("the run with a pending item is %s", got)
	}
	if got := f.Status("enumerating"); got != billing.RunEnumerating {
		t.Errorf("the enumerating run is %s", got)
	}
	f.wantReports("Reconciliation completed", 0, 0)
}

func TestClosedRunHasTheStatusOfItsEnd(t *testing.T) {
	after := func(d time.Duration, tick bool) func(f *fixture) {
		return func(f *fixture) {
			f.Clock.Advance(d)
			if tick {
				f.tick()
				return
			}
			f.progress(runID)
		}
	}
	tests := map[string]struct {
		outcomes []billing.Outcome
		before   func(f *fixture)
		end      func(f *fixture)
		want     billing.RunStatus
		message  string
		level    string
	}{
		"without errors": {
			outcomes: []billing.Outcome{billing.OutcomeSkipped, billing.OutcomeSynced}, end: after(time.Minute, false),
			want: billing.RunCompleted, message: "Reconciliation completed", level: "INFO",
		},
		"with errors": {
			outcomes: []billing.Outcome{billing.OutcomeSkipped, billing.OutcomeError}, end: after(time.Minute, false),
			want: billing.RunCompletedWithErrors, message: "Reconciliation completed", level: "ERROR",
		},
		"progress message lost": {
			outcomes: []billing.Outcome{billing.OutcomeSkipped}, end: after(time.Minute, true),
			want: billing.RunCompleted, message: "Reconciliation completed", level: "INFO",
		},
		"pending at its deadline": {
			outcomes: []billing.Outcome{billing.OutcomeSkipped, billing.OutcomePending}, end: after(12*time.Hour+time.Second, true),
			want: billing.RunIncomplete, message: "Reconciliation incomplete", level: "ERROR",
		},
		"enumerating at its deadline": {
			outcomes: []billing.Outcome{billing.OutcomeSkipped},
			before: func(f *fixture) {
				f.Exec(`UPDATE reconciliation_runs SET status = 'enumerating', listed = FALSE`)
			},
			end: after(12*time.Hour+time.Second, true), want: billing.RunIncomplete, message: "Reconciliation incomplete", level: "ERROR",
		},
		"stopped": {
			outcomes: []billing.Outcome{billing.OutcomeSkipped, billing.OutcomePending},
			before: func(f *fixture) {
				if _, err := f.Store.StopRun(f.Context(), runID, billing.ReasonStripeUnauthorized, "the key is refused", f.Clock.Now()); err != nil {
					f.Fatal(err)
				}
			},
			end: after(time.Minute, false), want: billing.RunStopped, message: "Reconciliation stopped", level: "ERROR",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			ids := numbered(len(test.outcomes))
			f.OpenRun(runID, ids)
			for i, outcome := range test.outcomes {
				if outcome != billing.OutcomePending {
					f.decide(runID, outcome, ids[i])
				}
			}
			if test.before != nil {
				test.before(f)
			}
			test.end(f)
			if got := f.Status(runID); got != test.want {
				t.Errorf("the run is %s, want %s", got, test.want)
			}
			f.progress(runID)
			f.tick()
			f.wantReports(test.message, 1, 0)
			line := f.Logs.Lines(t, "message", test.message)[0]
			result := line["result"].(map[string]any)
			if line["level"] != test.level || result["status"] != string(test.want) || result["finishedAt"] == nil {
				t.Errorf("%v", line)
			}
			if s := f.stored(); s.Status != test.want {
				t.Errorf("the summary has the status %s, want %s", s.Status, test.want)
			}
		})
	}
}

// An organization without a subscription is normal. It does not show that the run reads a wrong account.
func TestRunOverOneOrganizationIsNeverSuspect(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-000")
	f.Org("org-free", free)
	f.Stripe.PutCustomer(stripetest.Customer{ID: "cus_org-free"})
	f.OpenRun("all", []string{"org-000"})
	f.deliver(f.Reconciler(nil), "all", "org-000")
	f.progress("all")
	for runOver, want := range map[string]billing.RunStatus{"": billing.RunSuspect, "org-free": billing.RunCompleted} {
		f.Clock.Advance(time.Hour)
		id := "over " + runOver
		f.OpenRun(id, []string{"org-free"}, func(r *billing.Run) { r.OrgID = runOver })
		f.deliver(f.Reconciler(nil), id, "org-free")
		f.progress(id)
		if got := f.Status(id); got != want {
			t.Errorf("the run over %q is %s, want %s", runOver, got, want)
		}
	}
}

// The worker that stopped the run could not send a progress message.
func TestTickSummarizesStoppedRun(t *testing.T) {
	f := newFixture(t)
	f.OpenRun(runID, numbered(2))
	if _, err := f.Store.StopRun(t.Context(), runID, billing.ReasonStripeUnauthorized, "the key is refused", f.Clock.Now()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if tick := f.tick(); len(tick.Closed) > 0 {
			t.Errorf("the tick closed %v, which was stopped before", tick.Closed)
		}
	}
	f.wantReports("Reconciliation stopped", 1, 0)
	if s := f.stored(); s.Status != billing.RunStopped || s.StatusReason != billing.ReasonStripeUnauthorized || s.Pending != 2 {
		t.Errorf("%+v", s)
	}
}

// A worker commits the last downgrade after the aggregator read the run and before it counts the pending items.
func TestSummaryIncludesTheLastItem(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-000", canceled)
	f.OpenRun(runID, numbered(1))
	finish := once(func() { f.deliver(f.Reconciler(nil), runID, "org-000") })
	a := f.Aggregator(&hooks{After: func(_ context.Context, call string) error {
		if call == "Run" {
			finish()
		}
		return nil
	}})
	if err := a.Progress(t.Context(), runID); err != nil {
		t.Fatal(err)
	}
	if s := f.stored(); s.Downgrades != 1 || s.StripeRequests.Retrieve == 0 || s.Synchronized != 1 {
		t.Errorf("the summary has %d downgrades, the requests %+v and %d synchronized", s.Downgrades, s.StripeRequests, s.Synchronized)
	}
}

func TestRepairedErrorAmendsSummary(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-000")
	f.Subscriber("org-001", price("price_of_nothing"))
	f.OpenRun(runID, numbered(2))
	f.deliver(f.Reconciler(nil), runID, numbered(2)...)
	f.progress(runID)
	f.wantReports("Reconciliation completed", 1, 0)
	finished := f.Run(runID).FinishedAt

	f.Clock.Advance(24 * time.Hour)
	f.progress(runID) // nothing changed since
	f.wantReports("Reconciliation completed", 1, 0)

	f.Sub("org-001", price("price_max"))
	f.deliver(f.Reconciler(nil), runID, "org-001") // redriven
	f.progress(runID)
	f.progress(runID)
	f.wantReports("Reconciliation completed", 1, 1)
	run, s := f.Run(runID), f.stored()
	if run.Status != billing.RunCompleted || !run.FinishedAt.Equal(*finished) {
		t.Errorf("%+v", run)
	}
	if s.Status != billing.RunCompleted || s.Errors != 0 || s.Synchronized != 1 || s.Skipped != 1 || s.DriftByField[billing.FieldPlanTier] != 1 {
		t.Errorf("%+v", s)
	}
	if got := f.Logs.Lines(t, "message", "Reconciliation amended")[0]["result"].(map[string]any)["synchronized"]; got != 1.0 {
		t.Errorf("the amended summary has %v synchronized, want 1", got)
	}
}

func TestIncompleteRunCompletesWithItsLastItem(t *testing.T) {
	f := newFixture(t)
	f.OpenRun(runID, numbered(3))
	f.decide(runID, billing.OutcomeSkipped, "org-000")
	f.Clock.Advance(13 * time.Hour)
	f.tick()
	f.wantReports("Reconciliation incomplete", 1, 0)
	f.decide(runID, billing.OutcomeSkipped, "org-001")
	f.progress(runID)
	if got := f.Status(runID); got != billing.RunIncomplete {
		t.Errorf("the run is %s", got)
	}
	f.decide(runID, billing.OutcomeSkipped, "org-002")
	f.progress(runID)
	if got := f.Status(runID); got != billing.RunCompleted {
		t.Errorf("the run is %s", got)
	}
	f.wantReports("Reconciliation incomplete", 1, 2)
}

// A run that was closed while it was enumerating may lack organizations. So it stays incomplete even if no item is
// pending.
func TestRunThatWasNotListedStaysIncomplete(t *testing.T) {
	f := newFixture(t)
	f.OpenRun(runID, numbered(2))
	f.Exec(`UPDATE reconciliation_runs SET status = 'enumerating', listed = FALSE`)
	f.decide(runID, billing.OutcomeSkipped, "org-000")
	f.Clock.Advance(13 * time.Hour)
	f.tick()
	f.decide(runID, billing.OutcomeSkipped, "org-001")
	f.progress(runID)
	if got := f.Status(runID); got != billing.RunIncomplete {
		t.Errorf("the run is %s", got)
	}
}

// An operator resumes the run between the tick's list of overdue runs and the statement that closes the run.
func TestTickDoesNotCloseRunResumedMeanwhile(t *testing.T) {
	for _, status := range []billing.RunStatus{billing.RunEnumerating, billing.RunRunning} {
		t.Run(string(status), func(t *testing.T) {
			f := newFixture(t)
			f.OpenRun(runID, numbered(2))
			f.Clock.Advance(13 * time.Hour)
			a := f.Aggregator(&hooks{After: func(ctx context.Context, call string) error {
				if call != "RunsToClose" {
					return nil
				}
				reopened, err := f.Store.Reopen(ctx, runID, "", f.Clock.Now().Add(12*time.Hour))
				if !reopened {
					t.Error("the run was not reopened")
				}
				f.Exec(`UPDATE reconciliation_runs SET status = ?`, status) //nolint:contextcheck // the statement is the test's, not the step's
				return err
			}})
			tick, err := a.Tick(t.Context())
			if err != nil || len(tick.Closed) != 0 {
				t.Errorf("Tick() = %+v, %v", tick, err)
			}
			if got := f.Status(runID); got != status {
				t.Errorf("the run is %s, want %s", got, status)
			}
			f.wantReports("Reconciliation incomplete", 0, 0)
		})
	}
}

// A redrive, and messages that come again, arrive after most items of the run were deleted.
func TestTotalsOfTrimmedRunAddUp(t *testing.T) {
	f := newFixture(t)
	ids := []string{"org-1", "org-2", "org-3"}
	f.Subscriber("org-1")
	f.Subscriber("org-2")
	f.Subscriber("org-3", price("price_of_nothing"))
	f.OpenRun(runID, ids)
	f.deliver(f.Reconciler(nil), runID, ids...)
	a := f.Aggregator(nil)
	if err := a.Progress(t.Context(), runID); err != nil {
		t.Fatal(err)
	}
	f.Clock.Advance(15 * 24 * time.Hour)
	f.OpenRun("later", nil)
	if _, err := a.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	if kept := f.ItemIDs(runID); !slices.Equal(kept, []string{"org-3"}) || !f.Run(runID).Trimmed {
		t.Fatalf("the items of %v are kept, want org-3; the run is trimmed: %t", kept, f.Run(runID).Trimmed)
	}
	f.Sub("org-3")
	results := f.deliver(f.Reconciler(nil), runID, ids...)
	for _, id := range ids {
		f.wantResult(results[id], pipeline.Acknowledge, "")
	}
	if err := a.Progress(t.Context(), runID); err != nil {
		t.Fatal(err)
	}
	summary, found, err := f.Store.StoredSummary(t.Context(), runID)
	if err != nil || !found || summary.Status != billing.RunCompleted || summary.TotalOrganizations != 3 || summary.Reasons[billing.ReasonInSync]+summary.Reasons[billing.ReasonRepaired] != 3 {
		t.Errorf("%+v, %v", summary, err)
	}
}

func TestOldRunsArePruned(t *testing.T) {
	f := newFixture(t)
	day := 24 * time.Hour
	for id, age := range map[string]time.Duration{"old": 91 * day, "young": 89 * day, "old-and-open": 92 * day, "latest": 0} {
		f.OpenRun(id, numbered(2), func(r *billing.Run) {
			r.StartedAt, r.DeadlineAt = start.Add(-age), start.Add(12*time.Hour)
		})
		if id != "old-and-open" {
			f.decide(id, billing.OutcomeSynced, numbered(2)...)
			f.progress(id)
		}
	}
	if diff := cmp.Diff(pipeline.Tick{Closed: []string{}, Pruned: 1}, f.tick()); diff != "" {
		t.Error(diff)
	}
	for id, items := range map[string]int{"old": 0, "young": 2, "old-and-open": 2, "latest": 2} {
		if n := len(f.ItemIDs(id)); n != items || (f.Run(id).ID == "") != (items == 0) {
			t.Errorf("%s: run %q, %d items, want %d", id, f.Run(id).ID, n, items)
		}
	}
	if _, err := f.Aggregator(nil).Summary(t.Context(), "old"); err == nil || billing.AsFailure(err).Reason != billing.ReasonUnknownRun {
		t.Errorf("Summary() = %v", err)
	}
}

func TestTickEmitsAgeOfLastCompletedRun(t *testing.T) {
	f := newFixture(t)
	f.Exec(`UPDATE reconciliation_migrations SET tstamp = ?`, start.Add(-time.Minute))
	f.tick()
	if lines := f.Metrics.Lines(t, "LastRunAge", 60.0); len(lines) != 1 {
		t.Error("before the first run, LastRunAge is not the age of the tables")
	}
	f.OpenRun(runID, nil)
	f.progress(runID)
	f.OpenRun("dry", nil, testworld.DryRun)
	f.OpenRun("one", numbered(1), func(r *billing.Run) { r.OrgID = "org-000" })
	f.Clock.Advance(time.Hour)
	f.decide("one", billing.OutcomeSkipped, "org-000")
	f.progress("dry")
	f.progress("one")
	f.tick()
	lines := f.Metrics.Lines(t, "LastRunAge", nil)
	if len(lines) != 2 || lines[1]["LastRunAge"] != 3600.0 {
		t.Errorf("%v", lines)
	}
}

func TestFullRunEmitsMetricsOnce(t *testing.T) {
	f := newFixture(t)
	f.OpenRun(runID, numbered(6))
	f.Exec(`UPDATE reconciliation_runs SET downgrades = 3, stripe_list = 4, stripe_retrieve = 5, stripe_other = 6, stripe_throttled = 7`)
	for org, columns := range map[string]string{
		"org-000": `outcome = 'synced', changes = '[{"field":"subscriptions.plan_tier"},{"field":"subscriptions.canceled_at"}]'`,
		"org-001": `outcome = 'synced', changes = '[{"field":"subscriptions.canceled_at"}]'`,
		"org-002": `outcome = 'synced', changes = '[{"field":"subscriptions.canceled_at"}]'`,
		"org-003": `outcome = 'error', reason = 'withheld', changes = '[{"field":"subscriptions.status"}]'`,
		"org-004": `outcome = 'skipped', warnings = '[{"code":"tier_metadata_mismatch"}]'`,
	} {
		f.Exec(`UPDATE reconciliation_items SET `+columns+` WHERE org_id = ?`, org)
	}
	f.Clock.Advance(12*time.Hour + time.Second)
	f.tick()
	f.tick()
	f.progress(runID)

	lines := f.Metrics.Lines(t, "Organizations", nil)
	if len(lines) != 1 {
		t.Fatalf("%d metric lines have outcomes, want 1", len(lines))
	}
	delete(lines[0], "_aws")
	want := map[string]any{
		"Organizations": 6.0, "Synchronized": 3.0, "Errors": 1.0, "Skipped": 1.0, "Pending": 1.0, "Withheld": 1.0, "Downgrades": 3.0,
		"RunDuration": 43201000.0, "Orphans": 0.0, "RunIncomplete": 1.0, "RunSuspect": 0.0, "RunStopped": 0.0,
		"AccessDrift": 2.0, "DetailDrift": 2.0, "TierMetadataMismatch": 1.0, "RepairUndone": 0.0,
		"StripeListRequests": 4.0, "StripeRetrieveRequests": 5.0, "StripeOtherRequests": 6.0, "StripeThrottled": 7.0,
	}
	if diff := cmp.Diff(want, lines[0]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	drift := map[string]any{}
	for _, line := range f.Metrics.Lines(t, "FieldDrift", nil) {
		drift[line["Field"].(string)] = line["FieldDrift"]
	}
	if len(drift) != 15 || drift["subscriptions.canceled_at"] != 3.0 || drift["subscriptions.plan_tier"] != 1.0 || drift["subscriptions.status"] != 1.0 {
		t.Errorf("the drift by field is %v", drift)
	}
	if n := len(f.Metrics.Lines(t, "FieldDrift", nil)); n != 15 {
		t.Errorf("%d metric lines have drift by field, want 15", n)
	}
}

// The person who starts such a run looks at its result. Its metrics would hide those of the scheduled run from alarms.
func TestDryRunAndSingleOrganizationRunEmitNoMetrics(t *testing.T) {
	f := newFixture(t)
	f.OpenRun("dry", numbered(1), testworld.DryRun)
	f.OpenRun("one", numbered(1), func(r *billing.Run) { r.OrgID = "org-000" })
	for _, id := range []string{"dry", "one"} {
		f.decide(id, billing.OutcomeSkipped, "org-000")
		f.progress(id)
	}
	if lines := f.Metrics.Lines(t, "", nil); len(lines) != 0 {
		t.Errorf("%v", lines)
	}
	if n := len(f.Logs.Lines(t, "message", "Reconciliation completed")); n != 2 {
		t.Errorf("%d runs were logged, want 2", n)
	}
}

func TestTotalsAlwaysAddUp(t *testing.T) {
	f := newFixture(t)
	outcomes := []billing.Outcome{billing.OutcomePending, billing.OutcomeSynced, billing.OutcomeDrifted, billing.OutcomeSkipped, billing.OutcomeError}
	for seed := range 6 {
		id := fmt.Sprint("run-", seed)
		n := 11 * seed
		f.OpenRun(id, numbered(n))
		want := map[billing.Outcome]int{}
		for i, org := range numbered(n) {
			outcome := outcomes[(i*i+seed*i+i/3)%len(outcomes)]
			want[outcome]++
			f.Exec(`UPDATE reconciliation_items SET outcome = ?, reason = ? WHERE run_key = (SELECT run_key FROM reconciliation_runs WHERE id = ?) AND org_id = ?`, outcome, fmt.Sprint("reason-", i%3), id, org)
		}
		s, err := f.Aggregator(nil).Summary(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		got := []int{s.TotalOrganizations, s.Synchronized, s.Errors, s.Skipped, s.Pending}
		if diff := cmp.Diff([]int{n, want[billing.OutcomeSynced] + want[billing.OutcomeDrifted], want[billing.OutcomeError], want[billing.OutcomeSkipped], want[billing.OutcomePending]}, got); diff != "" {
			t.Error(diff)
		}
		reasons := 0
		for _, count := range s.Reasons {
			reasons += count
		}
		if reasons != n-s.Pending {
			t.Errorf("the reasons count %d organizations, want %d", reasons, n-s.Pending)
		}
	}
}

func TestSummaryHasTheKeysOfTheContract(t *testing.T) {
	f := newFixture(t)
	ids := f.seed(situations)
	f.OpenRun(runID, ids)
	f.deliver(f.Reconciler(nil), runID, ids...)
	f.progress(runID)
	line := f.Logs.Lines(t, "message", "Reconciliation completed")[0]
	if diff := cmp.Diff([]string{"level", "message", "result", "time"}, slices.Sorted(maps.Keys(line))); diff != "" {
		t.Error("log line:", diff)
	}
	result := line["result"].(map[string]any)
	keysOf := func(v any) []string { return slices.Sorted(maps.Keys(v.(map[string]any))) }
	for what, test := range map[string]struct{ got, want []string }{
		"result": {keysOf(result), []string{
			"accepted", "access", "details", "downgradeLimit", "downgrades", "driftByCause", "driftByField", "dryRun", "durationMs", "errors", "finishedAt", "orphans", "orphansTotal",
			"pending", "reasons", "runId", "skipped", "startedAt", "status", "stripeRequests", "synchronized", "totalOrganizations", "warnings",
		}},
		"stripeRequests": {keysOf(result["stripeRequests"]), []string{"list", "other", "retrieve", "throttled"}},
		"detail":         {keysOf(result["details"].([]any)[0]), []string{"action", "changes", "error", "orgId", "reason", "warnings"}},
		"access":         {keysOf(result["access"]), []string{"lowered", "raised"}},
	} {
		if diff := cmp.Diff(test.want, test.got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	for _, d := range result["details"].([]any) {
		detail := d.(map[string]any)
		if _, ok := detail["changes"].([]any); !ok || detail["warnings"] == nil {
			t.Errorf("changes or warnings is null, not a list: %v", detail)
		}
		if detail["action"] == "skipped" && len(detail["warnings"].([]any)) == 0 {
			t.Errorf("a skipped organization without warnings is listed: %v", detail)
		}
	}
	if result["startedAt"] != "2026-11-22T03:00:00Z" || result["orphans"] == nil {
		t.Errorf("%v", result)
	}
	s, err := f.Aggregator(nil).Summary(t.Context(), runID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(f.stored(), s); diff != "" {
		t.Error("stored and new summary differ:", diff)
	}
	logged, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	var fromLog billing.Summary
	if err := json.Unmarshal(logged, &fromLog); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, fromLog); diff != "" {
		t.Error("summary and log line differ:", diff)
	}
}

func TestTransientAggregatorFailureIsRetried(t *testing.T) {
	f := newFixture(t)
	f.OpenRun(runID, nil)
	failures := 2
	a := f.Aggregator(&hooks{Before: func(context.Context, string) error {
		if failures--; failures >= 0 {
			return &billing.Failure{Class: billing.Unavailable, Reason: billing.ReasonDatabaseUnavailable, Message: "not available for a moment"}
		}
		return nil
	}})
	if err := a.Progress(t.Context(), runID); err != nil || f.Status(runID) != billing.RunCompleted {
		t.Errorf("the run is %s, %v", f.Status(runID), err)
	}
	a = f.Aggregator(&hooks{Before: func(context.Context, string) error { return testworld.ErrKilled }})
	if err := a.Progress(t.Context(), runID); !errors.Is(err, testworld.ErrKilled) {
		t.Errorf("Progress() = %v", err)
	}
}
