package mysqlstore_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

var anyOrder = cmpopts.SortSlices(func(a, b billing.Tally) bool { return fmt.Sprint(a) < fmt.Sprint(b) })

func TestTalliesCountEveryOutcomeAndReason(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addItems(t,
			pendingItem("r", "a"), pendingItem("r", "b"), pendingItem("other", "a"),
			billing.Item{RunID: "r", OrgID: "c", Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync},
			billing.Item{RunID: "r", OrgID: "d", Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync},
			billing.Item{RunID: "r", OrgID: "e", Outcome: billing.OutcomeSkipped, Reason: billing.ReasonNoSubscription},
			billing.Item{RunID: "r", OrgID: "f", Outcome: billing.OutcomeError, Reason: billing.ReasonWithheld})
		got, err := f.store.Tallies(t.Context(), "r")
		if err != nil {
			t.Fatal(err)
		}
		want := []billing.Tally{
			{Outcome: billing.OutcomePending, Items: 2},
			{Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync, Items: 2},
			{Outcome: billing.OutcomeSkipped, Reason: billing.ReasonNoSubscription, Items: 1},
			{Outcome: billing.OutcomeError, Reason: billing.ReasonWithheld, Items: 1},
		}
		if diff := cmp.Diff(want, got, anyOrder); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for run, want := range map[string]bool{"r": true, "unknown": false} {
			if pending, err := f.store.HasPending(t.Context(), run); pending != want || err != nil {
				t.Errorf("%s has pending: %v, %v", run, pending, err)
			}
		}
	})
}

func TestDriftIsCountedOverAllPages(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		const tier = `[{"field":"subscriptions.plan_tier","from":"free","to":"pro"},{"field":"subscriptions.plan_tier","from":"pro","to":"max"}`
		both := 2*mysqlstore.ItemPage + 1
		var items []billing.Item
		for i := range both {
			items = append(items, billing.Item{RunID: "r", OrgID: orgID(i), Outcome: billing.OutcomeSynced})
		}
		items = append(items,
			billing.Item{RunID: "r", OrgID: "drifted", Outcome: billing.OutcomeDrifted},
			billing.Item{RunID: "r", OrgID: "nothing", Outcome: billing.OutcomeSynced},
			billing.Item{RunID: "r", OrgID: "withheld", Outcome: billing.OutcomeError, Reason: billing.ReasonWithheld},
			billing.Item{RunID: "r", OrgID: "unreadable", Outcome: billing.OutcomeError, Reason: billing.ReasonStripeUnavailable},
			billing.Item{RunID: "other", OrgID: "drifted", Outcome: billing.OutcomeDrifted})
		f.addItems(t, items...)
		f.MustExec(t, `UPDATE reconciliation_items SET changes = ? WHERE org_id <> 'nothing'`, tier+`,{"field":"organizations.subscription_tier","from":"free","to":"pro"}]`)
		f.MustExec(t, `UPDATE reconciliation_items SET changes = ? WHERE org_id = 'drifted'`, tier+`]`)
		f.MustExec(t, `UPDATE reconciliation_items SET warnings = '[{"code":"tier_metadata_mismatch"}]' WHERE org_id IN ('withheld','nothing')`)
		got, err := f.store.Drift(t.Context(), "r")
		if err != nil {
			t.Fatal(err)
		}
		want := billing.Drift{
			ByField: map[string]int{billing.FieldPlanTier: both + 2, billing.FieldOrgTier: both + 1},
			Access:  both + 2, Warnings: map[billing.WarningCode]int{billing.WarnTierMetadataMismatch: 2},
			AccessChanges: billing.AccessChanges{Raised: billing.Affected{Organizations: both + 1, First: slices.Sorted(slices.Values(orgIDs(both)))[:10]}},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestNotableItemsAreErrorsThenOthersInTheOrderOfIDs(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addItems(t,
			pendingItem("r", "a"),
			billing.Item{RunID: "r", OrgID: "b", Outcome: billing.OutcomeSynced},
			billing.Item{RunID: "r", OrgID: "c", Outcome: billing.OutcomeSkipped},
			billing.Item{RunID: "r", OrgID: "d", Outcome: billing.OutcomeSkipped},
			billing.Item{RunID: "r", OrgID: "e", Outcome: billing.OutcomeDrifted},
			billing.Item{RunID: "r", OrgID: "f", Outcome: billing.OutcomeError},
			billing.Item{RunID: "r", OrgID: "g", Outcome: billing.OutcomeError},
			billing.Item{RunID: "other", OrgID: "h", Outcome: billing.OutcomeError})
		f.MustExec(t, `UPDATE reconciliation_items SET warnings = '[{"code":"w","message":"m"}]' WHERE org_id IN ('a', 'd')`)
		// The limit counts errors, others with a warning, and others without one separately.
		for limit, want := range map[int][]string{100: {"f", "g", "b", "d", "e"}, 2: {"f", "g", "b", "d", "e"}, 1: {"f", "b", "d"}} {
			items, err := f.store.Notable(t.Context(), "r", limit)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, item := range items {
				got = append(got, item.OrgID)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("with the limit %d (-want +got):\n%s", limit, diff)
			}
		}
	})
}

func summaryOf(id string, status billing.RunStatus) billing.Summary {
	s := billing.Summarize(newRun(id), nil, billing.Drift{}, nil)
	s.Status, s.FinishedAt = status, new(now.Add(time.Hour))
	return s
}

// setStatus opens a run and gives it this status.
func (f *fixture) setStatus(t *testing.T, run billing.Run, status billing.RunStatus) {
	t.Helper()
	f.openRun(t, run)
	f.MustExec(t, `UPDATE reconciliation_runs SET status = ? WHERE id = ?`, status, run.ID)
}

func TestRunIsClosedOnlyFromTheGivenStatus(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		for _, status := range []billing.RunStatus{
			billing.RunEnumerating, billing.RunRunning, billing.RunCompleted, billing.RunCompletedWithErrors, billing.RunIncomplete, billing.RunStopped,
		} {
			id := string(status)
			f.setStatus(t, newRun(id), status)
			f.MustExec(t, `UPDATE reconciliation_runs SET lease_owner = 'o', lease_expires_at = ? WHERE id = ?`, now, id)
			before := f.run(t, id)
			closed, err := f.store.CloseRun(t.Context(), billing.End{Summary: summaryOf(id, billing.RunCompleted), Baseline: billing.Baseline{}}, billing.RunRunning)
			if err != nil || closed != (status == billing.RunRunning) {
				t.Errorf("%s: closed %v, %v", status, closed, err)
			}
			if closed {
				before.Status, before.FinishedAt = billing.RunCompleted, new(now.Add(time.Hour))
				before.Summarized, before.SummaryRevision = true, 1
			}
			if diff := cmp.Diff(before, f.run(t, id)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", status, diff)
			}
			if f.leaseEnd(t, id).Valid == closed {
				t.Errorf("%s: closed %v, and the lease ends at %v", status, closed, f.leaseEnd(t, id))
			}
		}
	})
}

func TestOneOfManyConcurrentCallsClosesTheRun(t *testing.T) {
	f := onServer(t)
	for round := range 5 {
		id := fmt.Sprintf("run-%d", round)
		f.setStatus(t, newRun(id), billing.RunRunning)
		closed := make(chan bool, 8)
		for _, err := range inParallel(cap(closed), func(int) error {
			ok, err := f.store.CloseRun(t.Context(), billing.End{Summary: summaryOf(id, billing.RunCompleted), Baseline: billing.Baseline{}}, billing.RunRunning)
			closed <- ok
			return err
		}) {
			if err != nil {
				t.Error(err)
			}
		}
		if n := countTrue(closed); n != 1 {
			t.Errorf("%d calls closed the run, want 1", n)
		}
	}
}

func TestRunIsAmendedOnlyIfTheSummaryDiffers(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.setStatus(t, newRun("r"), billing.RunRunning)
		summary := summaryOf("r", billing.RunIncomplete)
		summary.Details = []billing.Detail{{OrgID: "a'\\\"é🚀"}}
		if ok, err := f.store.CloseRun(t.Context(), billing.End{Summary: summary, Baseline: billing.Baseline{}}, billing.RunRunning); !ok || err != nil {
			t.Fatalf("closed %v, %v", ok, err)
		}
		amend := func(name string, from billing.RunStatus, want bool) {
			t.Helper()
			if ok, err := f.store.AmendRun(t.Context(), billing.End{Summary: summary, Baseline: billing.Baseline{}}, from, f.run(t, summary.RunID).SummaryRevision); ok != want || err != nil {
				t.Errorf("%s: amended %v, %v; want %v", name, ok, err, want)
			}
		}
		amend("the same summary", billing.RunIncomplete, false)
		summary.Synchronized, summary.Status = 1, billing.RunCompleted
		amend("from another status", billing.RunRunning, false)
		amend("another summary", billing.RunIncomplete, true)
		amend("the other summary again", billing.RunCompleted, false)
		if run := f.run(t, "r"); run.Status != billing.RunCompleted || !run.FinishedAt.Equal(now.Add(time.Hour)) {
			t.Errorf("got %+v", run)
		}

		f.openRun(t, newRun("stopped"))
		if _, err := f.store.StopRun(t.Context(), "stopped", billing.ReasonWrongMode, "why", now); err != nil {
			t.Fatal(err)
		}
		summary = summaryOf("stopped", billing.RunStopped)
		before := f.run(t, "stopped")
		amend("the first summary of a stopped run", billing.RunStopped, true)
		summary.Synchronized = 5
		if ok, err := f.store.AmendRun(t.Context(), billing.End{Summary: summary, Baseline: billing.Baseline{}}, before.Status, before.SummaryRevision); ok || err != nil {
			t.Errorf("a second call wrote the first summary again: %v, %v", ok, err)
		}
		if !f.run(t, "stopped").Summarized {
			t.Error("the stopped run has no summary")
		}
	})
}

func TestLastFullRunCountsComeFromTheLastCompletedRunThatReadStripe(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		if counts, err := f.store.LastFullRunCounts(t.Context(), now); err != nil || counts != (billing.Baseline{}) {
			t.Errorf("before the first run: %+v, %v", counts, err)
		}
		for i, c := range []struct {
			status billing.RunStatus
			orgID  string
		}{
			{billing.RunSuspect, ""},
			{billing.RunCompleted, "org"},
			{billing.RunIncomplete, ""},
			{billing.RunStopped, ""},
			{billing.RunRunning, ""},
			{billing.RunCompletedWithErrors, ""},
			{billing.RunCompleted, ""},
		} {
			run := newRun(fmt.Sprintf("run-%d", i))
			run.OrgID, run.StartedAt = c.orgID, now.Add(-time.Duration(i+1)*time.Hour)
			f.setStatus(t, run, billing.RunRunning)
			f.MustExec(t, `UPDATE reconciliation_runs SET total = ? WHERE id = ?`, 100+i, run.ID)
			summary := summaryOf(run.ID, c.status)
			if _, err := f.store.CloseRun(t.Context(), billing.End{Summary: summary, Baseline: billing.Baseline{Subscriptions: 10 + i}}, billing.RunRunning); err != nil {
				t.Fatal(err)
			}
		}
		unavailable := newRun("stripe was down")
		unavailable.StartedAt = now.Add(-time.Minute)
		f.setStatus(t, unavailable, billing.RunRunning)
		f.MustExec(t, `UPDATE reconciliation_runs SET total = 104 WHERE id = ?`, unavailable.ID)
		if _, err := f.store.CloseRun(t.Context(), billing.End{Summary: summaryOf(unavailable.ID, billing.RunCompletedWithErrors), Baseline: billing.Baseline{}}, billing.RunRunning); err != nil {
			t.Fatal(err)
		}
		for before, want := range map[time.Time]billing.Baseline{
			now:                      {Organizations: 105, Subscriptions: 15},
			now.Add(-6 * time.Hour):  {Organizations: 106, Subscriptions: 16},
			now.Add(-20 * time.Hour): {},
		} {
			if counts, err := f.store.LastFullRunCounts(t.Context(), before); err != nil || counts != want {
				t.Errorf("before %s: %+v, %v, want %+v", before, counts, err, want)
			}
		}
	})
}

func TestRunsToCloseAreDecidedOverdueOrStoppedWithoutSummary(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		minute := 0
		for _, c := range []struct {
			id       string
			status   billing.RunStatus
			deadline time.Duration
			pending  bool
		}{
			{"decided", billing.RunRunning, time.Hour, false},
			{"pending", billing.RunRunning, time.Hour, true},
			{"overdue", billing.RunRunning, -time.Second, true},
			{"enumerating", billing.RunEnumerating, time.Hour, false},
			{"enumerating overdue", billing.RunEnumerating, -time.Second, true},
			{"stopped", billing.RunStopped, time.Hour, true},
			{"stopped with summary", billing.RunStopped, -time.Hour, true},
			{"completed", billing.RunCompleted, -time.Hour, false},
			{"incomplete", billing.RunIncomplete, -time.Hour, true},
		} {
			run := newRun(c.id)
			minute++
			run.StartedAt, run.DeadlineAt = now.Add(-time.Duration(minute)*time.Minute), now.Add(c.deadline)
			f.setStatus(t, run, c.status)
			f.addItems(t, billing.Item{RunID: c.id, OrgID: "decided", Outcome: billing.OutcomeError})
			if c.pending {
				f.addItems(t, pendingItem(c.id, "pending"))
			}
		}
		f.MustExec(t, `UPDATE reconciliation_runs SET summary = '{}' WHERE id = 'stopped with summary'`)
		runs, err := f.store.RunsToClose(t.Context(), now)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, run := range runs {
			got = append(got, run.ID)
		}
		if diff := cmp.Diff([]string{"stopped", "enumerating overdue", "overdue", "decided"}, got); diff != "" {
			t.Errorf("runs to close, the earliest first (-want +got):\n%s", diff)
		}
	})
}

func TestLastFullRunAtIgnoresOtherRuns(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		last := func() *time.Time {
			t.Helper()
			at, err := f.store.LastFullRunAt(t.Context(), *at(25))
			if err != nil {
				t.Fatal(err)
			}
			return at
		}
		add := func(id string, status billing.RunStatus, day int, change func(*billing.Run)) {
			t.Helper()
			run := newRun(id)
			change(&run)
			f.setStatus(t, run, status)
			f.MustExec(t, `UPDATE reconciliation_runs SET finished_at = ? WHERE id = ?`, at(day), id)
		}
		unchanged := func(*billing.Run) {}
		add("dry", billing.RunCompleted, 20, func(r *billing.Run) { r.DryRun = true })
		add("single", billing.RunCompleted, 21, func(r *billing.Run) { r.OrgID = "a" })
		add("stopped", billing.RunStopped, 22, unchanged)
		add("incomplete", billing.RunIncomplete, 23, unchanged)
		add("ended in the future", billing.RunCompleted, 26, unchanged)
		f.openRun(t, newRun("open"))
		if got := last(); got != nil {
			t.Errorf("no full run has completed, but LastFullRunAt is %v", got)
		}
		add("errors", billing.RunCompletedWithErrors, 3, unchanged)
		add("completed", billing.RunCompleted, 2, unchanged)
		if got := last(); got == nil || !got.Equal(*at(3)) {
			t.Errorf("got %v, want %v", got, at(3))
		}
	})
}

func TestCreatedAtIsTheTimeOfTheFirstMigration(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.MustExec(t, `UPDATE reconciliation_migrations SET tstamp = ? WHERE version_id = 0`, old)
		if at, err := f.store.CreatedAt(t.Context()); err != nil || !at.Equal(old) {
			t.Errorf("CreatedAt() = %v, %v, want %v", at, err, old)
		}
	})
}

func TestPruneRemovesOldClosedRunsWithTheirItems(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		cutoff := now.Add(-90 * 24 * time.Hour)
		for id, c := range map[string]struct {
			status  billing.RunStatus
			started time.Time
		}{
			"old":             {billing.RunCompleted, cutoff.Add(-time.Hour)},
			"old stopped":     {billing.RunStopped, cutoff.Add(-time.Hour)},
			"old running":     {billing.RunRunning, cutoff.Add(-time.Hour)},
			"old enumerating": {billing.RunEnumerating, cutoff.Add(-time.Hour)},
			"recent":          {billing.RunCompleted, cutoff},
		} {
			run := newRun(id)
			run.StartedAt = c.started
			f.setStatus(t, run, c.status)
			f.addItems(t, pendingItem(id, "a"), pendingItem(id, "b"))
		}
		var items []billing.Item
		for i := range 2 * mysqlstore.PruneBatch { // two more than these exist already
			items = append(items, pendingItem("old", orgID(i)))
		}
		f.addItems(t, items...)
		if n, err := f.store.Prune(t.Context(), cutoff); n != 2 || err != nil {
			t.Errorf("pruned %d, %v; want 2", n, err)
		}
		want := []string{"old enumerating", "old running", "recent"}
		if diff := cmp.Diff(want, f.selectStrings(t, `SELECT id FROM reconciliation_runs ORDER BY id`)); diff != "" {
			t.Errorf("runs (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want, f.selectStrings(t, `SELECT DISTINCT r.id FROM reconciliation_items i JOIN reconciliation_runs r ON r.run_key = i.run_key ORDER BY r.id`)); diff != "" {
			t.Errorf("runs with items (-want +got):\n%s", diff)
		}
		if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_items`); n != 6 {
			t.Errorf("%d items, want 6", n)
		}
		if n, err := f.store.Prune(t.Context(), cutoff); n != 0 || err != nil {
			t.Errorf("the second Prune removed %d runs, %v", n, err)
		}
	})
}
