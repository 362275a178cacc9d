package mysqlstore_test

import (
	"cmp"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
)

// pastIDs returns the ids of the runs.
func pastIDs(runs []mysqlstore.PastRun) []string {
	ids := make([]string, len(runs))
	for i, run := range runs {
		ids[i] = run.ID
	}
	return ids
}

func TestHistoryListsTheLatestRunsNewestFirst(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		if runs, err := f.store.RecentRuns(t.Context(), "", 5); len(runs) != 0 || err != nil {
			t.Errorf("before the first run: %v, %v", runs, err)
		}
		for i := range 6 {
			run := newRun(fmt.Sprintf("run-%d", i))
			run.StartedAt = now.Add(time.Duration(i/2) * time.Hour) // two start at the same time
			if i == 4 {
				run.OrgID = "a"
			}
			f.openRun(t, run)
		}
		for limit, want := range map[int][]string{3: {"run-5", "run-4", "run-3"}, 9: {"run-5", "run-4", "run-3", "run-2", "run-1", "run-0"}} {
			runs, err := f.store.RecentRuns(t.Context(), "", limit)
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(want, pastIDs(runs)); diff != "" {
				t.Errorf("with the limit %d (-want +got):\n%s", limit, diff)
			}
		}
		for _, c := range []struct {
			until time.Duration
			limit int
			want  []string
		}{
			{2 * time.Hour, 9, []string{"run-5", "run-3", "run-2", "run-1", "run-0"}},
			{time.Hour, 2, []string{"run-3", "run-2"}},
			{-time.Hour, 2, []string{}},
		} {
			runs, err := f.store.RecentFullRuns(t.Context(), now.Add(c.until), c.limit)
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(c.want, pastIDs(runs)); diff != "" {
				t.Errorf("full runs until %v (-want +got):\n%s", c.until, diff)
			}
		}
	})
}

func TestHistoryHasStoredTotalsOfClosedRunsAndCountsOpenRuns(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		items := []billing.Item{
			{RunID: "closed", OrgID: "a", Outcome: billing.OutcomeSynced},
			{RunID: "open", OrgID: "a", Outcome: billing.OutcomeError, Reason: billing.ReasonWithheld},
			{RunID: "open", OrgID: "b", Outcome: billing.OutcomeDrifted, Reason: billing.ReasonRepaired},
			pendingItem("open", "c"),
		}
		f.addItems(t, items...)
		f.setStatus(t, newRun("closed"), billing.RunRunning)
		summary := summaryOf("closed", billing.RunCompleted)
		summary.TotalOrganizations, summary.Synchronized, summary.Skipped = 50, 20, 30
		if ok, err := f.store.CloseRun(t.Context(), billing.End{Summary: summary, Baseline: billing.Baseline{}}, billing.RunRunning); !ok || err != nil {
			t.Fatal(ok, err)
		}
		f.openRun(t, newRun("open"))
		runs, err := f.store.RecentRuns(t.Context(), "", 2)
		if err != nil {
			t.Fatal(err)
		}
		open, closed := runs[0], runs[1]
		if closed.ID != "closed" || closed.Status != billing.RunCompleted || closed.Totals.TotalOrganizations != 50 || closed.Totals.Synchronized != 20 {
			t.Errorf("the closed run: %+v", closed)
		}
		if g := open.Totals; open.ID != "open" || g.TotalOrganizations != 3 || g.Errors != 1 || g.Synchronized != 1 || g.Pending != 1 || g.Reasons[billing.ReasonWithheld] != 1 {
			t.Errorf("the open run: %+v", open)
		}
	})
}

func TestReportItemsIncludeTheirOrganization(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addOrganizations(t, appschema.Organization{ID: "a", Name: "Alpha", CreatedBy: "user", StripeCustomerID: new("cus_a"), SubscriptionTier: "pro"}, appschema.Organization{ID: "b"})
		f.addRows(t,
			appschema.Subscription{ID: "1", OrgID: "a", StripeSubscriptionID: new("sub_old"), StripePriceID: new("price_old")},
			appschema.Subscription{ID: "2", OrgID: "a", StripeSubscriptionID: new(" sub_a "), StripePriceID: new("price_a")},
			appschema.Subscription{ID: "3", OrgID: "b", StripePriceID: new("price_b")})
		f.addItems(t,
			billing.Item{RunID: "r", OrgID: "a", Outcome: billing.OutcomeSynced, Reason: billing.ReasonRepaired},
			billing.Item{RunID: "r", OrgID: "b", Outcome: billing.OutcomeError, Reason: billing.ReasonInternal},
			billing.Item{RunID: "r", OrgID: "c", Outcome: billing.OutcomeSkipped},
			billing.Item{RunID: "r", OrgID: "d", Outcome: billing.OutcomeSkipped},
			billing.Item{RunID: "r", OrgID: "e", Outcome: billing.OutcomeDrifted},
			pendingItem("r", "f"), billing.Item{RunID: "other", OrgID: "a", Outcome: billing.OutcomeSynced})
		f.MustExec(t, `UPDATE reconciliation_items SET warnings = '[{"code":"w","message":"m"}]' WHERE org_id = 'd'`)
		f.MustExec(t, `UPDATE reconciliation_items SET updated_at = ?, subscription_id = 'sub_a', changes = '[{"field":"organizations.subscription_tier","from":"free","to":"pro"}]' WHERE org_id = 'a'`, now)
		for _, c := range []struct {
			outcomes []billing.Outcome
			want     []string
		}{
			{[]billing.Outcome{billing.OutcomeSynced, billing.OutcomeDrifted, billing.OutcomeSkipped, billing.OutcomeError}, []string{"a", "b", "d", "e"}},
			{[]billing.Outcome{billing.OutcomeError}, []string{"b"}},
		} {
			var got []mysqlstore.ReportItem
			err := f.store.EachReportItem(t.Context(), "r", func(i mysqlstore.ReportItem) error {
				got = append(got, i)
				return nil
			}, c.outcomes...)
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, i := range got {
				ids = append(ids, i.OrgID)
			}
			if diff := gocmp.Diff(c.want, ids); diff != "" {
				t.Fatalf("%v (-want +got):\n%s", c.outcomes, diff)
			}
			if got[0].OrgID != "a" {
				continue
			}
			want := mysqlstore.ReportItem{
				Item: billing.Item{
					RunID: "r", OrgID: "a", Outcome: billing.OutcomeSynced, Reason: billing.ReasonRepaired,
					SubscriptionID: "sub_a", Changes: []billing.Change{{Field: billing.FieldOrgTier, From: "free", To: "pro"}},
				},
				DecidedAt: now, Raises: true, OrgName: "Alpha", OrgCustomerID: "cus_a", OrgTier: "pro", OrgStatus: "incomplete", PriceID: "price_a",
			}
			if diff := gocmp.Diff(want, got[0]); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if missing := got[3]; missing.OrgName != "" || missing.OrgCustomerID != "" || missing.DecidedAt.IsZero() {
				t.Errorf("the item of a missing organization: %+v", missing)
			}
			if got[1].PriceID != "" {
				t.Errorf("the item without a subscription has the price %s", got[1].PriceID)
			}
		}
	})
}

// A run that left the organization right bounds how long its access was wrong.
func TestReportItemsKnowWhenAnotherRunLeftThemRight(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		synced := func(runID, org string) billing.Item {
			return billing.Item{RunID: runID, OrgID: org, Outcome: billing.OutcomeSynced, Reason: billing.ReasonRepaired}
		}
		f.addItems(t, synced("r", "a"), synced("r", "b"), synced("r", "c"), synced("r", "d"),
			synced("before", "a"), synced("before", "d"), synced("after", "a"), synced("long-before", "c"),
			billing.Item{RunID: "before", OrgID: "b", Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync},
			billing.Item{RunID: "before", OrgID: "c", Outcome: billing.OutcomeError, Reason: billing.ReasonWithheld})
		left := now.Add(-11 * time.Minute)
		for run, at := range map[string]time.Time{"r": now, "before": left, "after": now.Add(time.Hour), "long-before": now.AddDate(0, 0, -7)} {
			f.MustExec(t, `UPDATE reconciliation_items SET updated_at = ? WHERE run_key = ?`, at, f.key(t, run))
			f.MustExec(t, `UPDATE reconciliation_runs SET started_at = ? WHERE id = ?`, at.Add(-time.Minute), run)
		}
		f.MustExec(t, `UPDATE reconciliation_items SET changes = '[{"field":"organizations.subscription_tier","from":"free","to":"pro"}]' WHERE run_key = ?`, f.key(t, "r"))
		f.MustExec(t, `UPDATE reconciliation_items SET warnings = '[{"code":"repair_undone"}]' WHERE org_id <> 'd' AND run_key = ?`, f.key(t, "r"))
		want := map[string]time.Time{"a": left, "b": left, "c": {}, "d": {}}
		got := map[string]time.Time{}
		err := f.store.EachReportItem(t.Context(), "r", func(i mysqlstore.ReportItem) error {
			got[i.OrgID] = i.RightAt
			return nil
		}, billing.OutcomeSynced)
		if diff := gocmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
		if at, err := f.store.LastDecided(t.Context(), "r"); err != nil || !at.Equal(now) {
			t.Errorf("last decided %v, %v", at, err)
		}
		if at, err := f.store.LastDecided(t.Context(), "no such run"); err != nil || !at.IsZero() {
			t.Errorf("of no run: %v, %v", at, err)
		}
	})
}

// The callback may query the database over the pool's only connection, because each page is fully read before its first
// item is passed to the callback.
func TestReportPagesHoldNoConnection(t *testing.T) {
	f := onServer(t)
	store, _ := f.singleConnection(t)
	var items []billing.Item
	for i := range 2*mysqlstore.ItemPage + 1 {
		items = append(items, billing.Item{RunID: "r", OrgID: orgID(i), Outcome: billing.OutcomeSynced})
	}
	f.addItems(t, items...)
	reported := map[string]bool{}
	err := store.EachReportItem(t.Context(), "r", func(i mysqlstore.ReportItem) error {
		reported[i.OrgID] = true
		if len(reported)%mysqlstore.ItemPage != 1 {
			return nil
		}
		_, err := store.CountItems(t.Context(), "r")
		return err
	}, billing.OutcomeSynced)
	if err != nil || len(reported) != len(items) {
		t.Errorf("%d of %d items were reported, %v", len(reported), len(items), err)
	}

	n, stop := 0, errors.New("stop")
	if err := store.EachReportItem(t.Context(), "r", func(mysqlstore.ReportItem) error { n++; return stop }, billing.OutcomeSynced); !errors.Is(err, stop) || n != 1 {
		t.Errorf("after the callback's error %d items were reported, want 1, %v", n, err)
	}
}

func TestPruneKeepsBaselineRuns(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		cutoff := now.Add(-90 * 24 * time.Hour)
		for i, c := range []struct {
			id     string
			status billing.RunStatus
			change func(*billing.Run)
		}{
			{"stopped", billing.RunStopped, func(*billing.Run) {}},
			{"single", billing.RunCompleted, func(r *billing.Run) { r.OrgID = "a" }},
			{"dry", billing.RunCompleted, func(r *billing.Run) { r.DryRun = true }},
			{"older dry", billing.RunCompleted, func(r *billing.Run) { r.DryRun = true }},
			{"last", billing.RunCompletedWithErrors, func(*billing.Run) {}},
			{"before", billing.RunCompleted, func(*billing.Run) {}},
		} {
			run := newRun(c.id)
			run.StartedAt = cutoff.Add(-time.Duration(i+1) * time.Hour)
			c.change(&run)
			f.setStatus(t, run, c.status)
			f.MustExec(t, `UPDATE reconciliation_runs SET finished_at = ?, total = ? WHERE id = ?`, run.StartedAt.Add(time.Minute), i, c.id)
			f.addItems(t, billing.Item{RunID: c.id, OrgID: "a", Outcome: billing.OutcomeSynced})
		}
		if n, err := f.store.Prune(t.Context(), cutoff); n != 4 || err != nil {
			t.Errorf("pruned %d, %v; want 4", n, err)
		}
		want := []string{"dry", "last"}
		if diff := gocmp.Diff(want, f.selectStrings(t, `SELECT id FROM reconciliation_runs ORDER BY id`)); diff != "" {
			t.Errorf("runs (-want +got):\n%s", diff)
		}
		if diff := gocmp.Diff(want, f.selectStrings(t, `SELECT r.id FROM reconciliation_items i JOIN reconciliation_runs r ON r.run_key = i.run_key ORDER BY r.id`)); diff != "" {
			t.Errorf("runs with items (-want +got):\n%s", diff)
		}
		if last, err := f.store.LastFullRunAt(t.Context(), cutoff); err != nil || last == nil || !last.Equal(cutoff.Add(-5*time.Hour+time.Minute)) {
			t.Errorf("the last full run ended at %v, %v", last, err)
		}
		if counts, err := f.store.LastFullRunCounts(t.Context(), now); err != nil || counts.Organizations != 2 {
			t.Errorf("the counts of the last full run: %+v, %v", counts, err)
		}
	})
}

func TestInterruptedPruneContinues(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		cutoff := now.Add(-90 * 24 * time.Hour)
		for _, id := range []string{"half", "without items"} {
			run := newRun(id)
			run.StartedAt = cutoff.Add(-time.Hour)
			f.setStatus(t, run, billing.RunStopped)
		}
		f.addItems(t, pendingItem("half", "z")) // the other items were deleted before
		if n, err := f.store.Prune(t.Context(), cutoff); n != 2 || err != nil {
			t.Errorf("pruned %d, %v; want 2", n, err)
		}
		if rest := f.selectStrings(t, `SELECT id FROM reconciliation_runs UNION ALL SELECT org_id FROM reconciliation_items`); len(rest) > 0 {
			t.Errorf("these runs and items are left: %v", rest)
		}
	})
}

func TestRecentRunsFilterByKind(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		for i, run := range []billing.Run{{}, {OrgID: "a"}, {Strategy: billing.StrategyEvents}, {Strategy: billing.StrategyRetrieve}} {
			made := newRun(fmt.Sprintf("run-%d", i))
			made.StartedAt, made.OrgID = now.Add(time.Duration(i)*time.Hour), run.OrgID
			made.Strategy = cmp.Or(run.Strategy, billing.StrategySweep)
			f.openRun(t, made)
		}
		for kind, want := range map[billing.RunKind][]string{
			"": {"run-3", "run-2", "run-1", "run-0"}, billing.KindFull: {"run-3", "run-0"}, billing.KindOne: {"run-1"}, billing.KindCatchUp: {"run-2"},
		} {
			runs, err := f.store.RecentRuns(t.Context(), kind, 9)
			if diff := gocmp.Diff(want, pastIDs(runs)); diff != "" || err != nil {
				t.Errorf("%q: %v, %s", kind, err, diff)
			}
			for _, run := range runs {
				if kind != "" && run.Kind() != kind {
					t.Errorf("%s is %s", run.ID, run.Kind())
				}
			}
		}
		f.MustExec(t, `UPDATE reconciliation_runs SET started_at = ? WHERE id = 'run-2'`, now.Add(9*time.Hour))
		for _, want := range []string{"run-3", "run-2"} {
			if run, found, err := f.store.LatestFullRun(t.Context()); run.ID != want || !found || err != nil {
				t.Errorf("the latest full run is %q, %t, %v; want %s", run.ID, found, err, want)
			}
			f.MustExec(t, `DELETE FROM reconciliation_runs WHERE `+`org_id = '' AND strategy <> 'events'`)
		}
		f.MustExec(t, `DELETE FROM reconciliation_runs`)
		if run, found, err := f.store.LatestFullRun(t.Context()); found || err != nil {
			t.Errorf("without a run, the latest full run is %q, %v", run.ID, err)
		}
	})
}

func TestCatchUpDaysSumUpCatchUps(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		if days, err := f.store.CatchUpDays(t.Context(), 5); len(days) != 0 || err != nil {
			t.Errorf("before the first catch-up: %v, %v", days, err)
		}
		midnight := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
		add := func(id string, at time.Time, status billing.RunStatus, total int, summary string, change func(*billing.Run)) {
			run := newRun(id)
			run.StartedAt, run.Strategy = at, billing.StrategyEvents
			if change != nil {
				change(&run)
			}
			f.openRun(t, run)
			f.MustExec(t, `UPDATE reconciliation_runs SET status = ?, total = ?, summary = ? WHERE id = ?`, status, total, sql.NullString{String: summary, Valid: summary != ""}, id)
		}
		add("c-1", midnight, billing.RunCompleted, 9, `{"synchronized":3,"errors":2,"skipped":4,"reasons":{"withheld":1}}`, nil)
		add("c-2", midnight.Add(23*time.Hour+59*time.Minute), billing.RunCompleted, 5, `{"synchronized":1,"errors":0,"skipped":4,"reasons":{}}`, nil)
		add("c-3", midnight.Add(time.Hour), billing.RunStopped, 0, "", nil)
		add("c-0", midnight.Add(-time.Second), billing.RunCompleted, 0, `{"synchronized":0,"errors":0,"skipped":0,"reasons":{}}`, nil)
		add("dry", midnight, billing.RunCompleted, 9, `{"synchronized":9}`, func(r *billing.Run) { r.DryRun = true })
		add("full", midnight, billing.RunCompleted, 9, `{"synchronized":9}`, func(r *billing.Run) { r.Strategy = billing.StrategySweep })
		want := []mysqlstore.CatchUpDay{
			{
				Day: midnight, Last: midnight.Add(23*time.Hour + 59*time.Minute), Statuses: map[billing.RunStatus]int{billing.RunCompleted: 2, billing.RunStopped: 1},
				Totals: mysqlstore.DayTotals{Organizations: 14, Synchronized: 4, Withheld: 1, Errors: 2, Skipped: 8},
			},
			{Day: midnight.AddDate(0, 0, -1), Last: midnight.Add(-time.Second), Statuses: map[billing.RunStatus]int{billing.RunCompleted: 1}},
		}
		for limit := range 4 {
			got, err := f.store.CatchUpDays(t.Context(), limit)
			if diff := gocmp.Diff(want[:min(limit, 2)], got, cmpopts.EquateEmpty()); diff != "" || err != nil {
				t.Errorf("with the limit %d: %v, %s", limit, err, diff)
			}
		}
	})
}
