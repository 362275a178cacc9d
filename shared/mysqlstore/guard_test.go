package mysqlstore_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

// startCatchUp starts a catch-up over all organizations. limit is the limit of the budget that catch-ups share.
func (f *fixture) startCatchUp(t *testing.T, id string, limit int) {
	t.Helper()
	f.startRun(t, id, limit)
	f.MustExec(t, `UPDATE reconciliation_runs SET strategy = ? WHERE id = ?`, billing.StrategyEvents, id)
}

// lower lets the run downgrade the organizations one after the other. It returns the ids of those that were lowered.
func (f *fixture) lower(t *testing.T, runID string, orgs ...string) (lowered string) {
	t.Helper()
	for _, id := range orgs {
		switch err := f.apply(t, runID, f.record(t, id), downgrade(id)); {
		case err == nil:
			lowered += id
		case billing.AsFailure(err).Reason != billing.ReasonWithheld:
			t.Fatal(err)
		}
	}
	return lowered
}

// setBudgetEnd lets the catch-ups' budget end after the remaining time.
func (f *fixture) setBudgetEnd(t *testing.T, remaining time.Duration) {
	t.Helper()
	f.MustExec(t, `UPDATE reconciliation_budgets SET opened_at = UTC_TIMESTAMP(6) - INTERVAL ? SECOND`, int((24*time.Hour-remaining)/time.Second))
}

func (f *fixture) usedBudget(t *testing.T) int {
	t.Helper()
	return mysqltest.Value[int](t, f.DB, `SELECT used FROM reconciliation_budgets WHERE name = 'events'`)
}

func (f *fixture) approve(t *testing.T, runID string, limit int) {
	t.Helper()
	approved, err := f.store.Approve(t.Context(), runID, billing.Approval{Limit: limit, By: "ops@desk", At: now})
	if err != nil || !approved {
		t.Fatalf("approved %t, %v", approved, err)
	}
}

func TestCatchUpsShareOneBudgetFor24Hours(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a", "b", "c", "d", "e", "f", "g")
		f.startCatchUp(t, "1", 3)
		f.startCatchUp(t, "2", 3)
		f.startRun(t, "week", 2)
		if got := f.lower(t, "1", "a", "b"); got != "ab" {
			t.Errorf("the first catch-up lowered %q", got)
		}
		if got := f.lower(t, "2", "c", "d"); got != "c" {
			t.Errorf("the second catch-up lowered %q", got)
		}
		err := f.apply(t, "2", f.record(t, "d"), downgrade("d"))
		wantFailure(t, err, billing.Permanent, billing.ReasonWithheld)
		if text := err.Error(); !strings.Contains(text, "catch-ups together have lowered the 3") || !strings.Contains(text, "run 2") {
			t.Errorf("the error is %q", text)
		}
		if got := f.lower(t, "week", "d", "e", "f"); got != "de" {
			t.Errorf("the weekly run, which has a separate limit, lowered %q", got)
		}
		f.setBudgetEnd(t, time.Minute)
		if got := f.lower(t, "1", "f"); got != "" || f.usedBudget(t) != 3 {
			t.Errorf("a minute before the budget ends, the first catch-up lowered %q and the budget counts %d", got, f.usedBudget(t))
		}
		f.setBudgetEnd(t, 0)
		if got := f.lower(t, "1", "f"); got != "f" || f.usedBudget(t) != 1 {
			t.Errorf("after the budget ended, the first catch-up lowered %q and the new budget counts %d", got, f.usedBudget(t))
		}
		if one, two, week := f.run(t, "1").Downgrades, f.run(t, "2").Downgrades, f.run(t, "week").Downgrades; one != 3 || two != 1 || week != 2 {
			t.Errorf("the runs count %d, %d and %d", one, two, week)
		}
	})
}

// A catch-up may be redriven a week later.
func TestRedriveUsesTheBudgetOfTheTimeAtWhichItWrites(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a", "b", "c")
		f.startCatchUp(t, "old", 1)
		if got := f.lower(t, "old", "a", "b"); got != "a" {
			t.Fatalf("lowered %q", got)
		}
		f.setBudgetEnd(t, 0)
		f.startCatchUp(t, "new", 1)
		if got := f.lower(t, "old", "b"); got != "b" {
			t.Errorf("the redriven catch-up lowered %q", got)
		}
		if got := f.lower(t, "new", "c"); got != "" {
			t.Errorf("after the budget was used up, a later catch-up lowered %q", got)
		}
	})
}

func TestBudgetKeepsTheLimitOfTheCatchUpThatOpenedIt(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a", "b", "c")
		f.startCatchUp(t, "none", 0)
		err := f.apply(t, "none", f.record(t, "a"), downgrade("a"))
		wantFailure(t, err, billing.Permanent, billing.ReasonWithheld)
		if !strings.Contains(err.Error(), "may not lower any organization") {
			t.Errorf("the error is %q", err)
		}
		f.startCatchUp(t, "one", 1)
		f.startCatchUp(t, "many", 100)
		if got := f.lower(t, "one", "a") + f.lower(t, "many", "b"); got != "a" {
			t.Errorf("lowered %q", got)
		}
		f.setBudgetEnd(t, 0)
		if got := f.lower(t, "none", "b"); got != "" || f.usedBudget(t) != 1 {
			t.Errorf("lowered %q", got)
		}
		if got := f.lower(t, "many", "b") + f.lower(t, "one", "c"); got != "bc" {
			t.Errorf("with the larger budget %q were lowered, want bc", got)
		}
	})
}

func TestApprovedDowngradesOfACatchUpDoNotUseTheBudget(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a", "b", "c", "d", "e")
		f.startCatchUp(t, "1", 1)
		f.startCatchUp(t, "2", 1)
		if got := f.lower(t, "1", "a", "b", "c"); got != "a" {
			t.Fatalf("lowered %q", got)
		}
		f.approve(t, "1", 3)
		if got := f.lower(t, "1", "b", "c", "d"); got != "bc" || f.usedBudget(t) != 1 {
			t.Errorf("after the approval the catch-up lowered %q, and the budget counts %d", got, f.usedBudget(t))
		}
		if got := f.lower(t, "2", "d"); got != "" {
			t.Errorf("because of another catch-up's approval, the catch-up lowered %q", got)
		}
		f.setBudgetEnd(t, 0)
		if got := f.lower(t, "2", "d", "e"); got != "d" || f.usedBudget(t) != 1 {
			t.Errorf("with the next budget the catch-up lowered %q", got)
		}
		if run := f.run(t, "1"); run.DowngradeLimit != 1 || run.Downgrades != 3 {
			t.Errorf("%+v", run)
		}
	})
}

// A person who approves exactly the downgrades that a catch-up has made refuses the others. A later budget does not
// change that.
func TestApprovedLimitReplacesTheBudget(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a", "b", "c")
		f.startCatchUp(t, "1", 1)
		if got := f.lower(t, "1", "a", "b"); got != "a" {
			t.Fatalf("lowered %q", got)
		}
		f.approve(t, "1", 1)
		f.setBudgetEnd(t, 0)
		err := f.apply(t, "1", f.record(t, "b"), downgrade("b"))
		wantFailure(t, err, billing.Permanent, billing.ReasonWithheld)
		if !strings.Contains(err.Error(), "the 1 downgrades that were approved") {
			t.Errorf("the error is %q", err)
		}
		f.approve(t, "1", 2)
		if got := f.lower(t, "1", "b", "c"); got != "b" {
			t.Errorf("after one more was approved, the catch-up lowered %q", got)
		}
	})
}

func TestApproveRaisesAndLowersTheLimitButNotBelowDowngradesMade(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.startRun(t, "full", 10)
		f.startCatchUp(t, "catch-up", 10)
		f.MustExec(t, `UPDATE reconciliation_runs SET downgrades = 4`)
		for _, c := range []struct {
			run      string
			limit    int
			approved bool
		}{{"full", 50, true}, {"full", 5, true}, {"full", 3, false}, {"full", 4, true}, {"catch-up", 50, true}, {"catch-up", 3, false}, {"catch-up", 4, true}, {"unknown", 9, false}} {
			name := "ops@desk" + strings.Repeat("é", billing.MaxWhoLength)
			approved, err := f.store.Approve(t.Context(), c.run, billing.Approval{Limit: c.limit, By: name, At: now})
			if err != nil || approved != c.approved {
				t.Errorf("%s to %d: approved %t, want %t, %v", c.run, c.limit, approved, c.approved, err)
			}
			if !c.approved {
				continue
			}
			run := f.run(t, c.run)
			want := &billing.Approval{Limit: c.limit, By: string([]rune(name)[:billing.MaxWhoLength]), At: now}
			if diff := cmp.Diff(want, run.Approval); diff != "" {
				t.Errorf("%s to %d (-want +got):\n%s", c.run, c.limit, diff)
			}
			if limit := map[string]int{"full": c.limit, "catch-up": 10}[c.run]; run.DowngradeLimit != limit {
				t.Errorf("%s to %d: the run's limit is %d, want %d", c.run, c.limit, run.DowngradeLimit, limit)
			}
		}
	})
}

func TestRunKeepsWhoStartedIt(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		first := newRun("r")
		first.By, first.AllowDowngrade, first.RequestID = "ops@desk", true, "request"
		f.openRun(t, first)
		again := first
		again.ID, again.By = "r2", "somebody else"
		if got := f.openRun(t, again); got.ID != "r" || got.By != "ops@desk" || !got.AllowDowngrade {
			t.Errorf("%+v", got)
		}
		if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_orders`); n != 1 {
			t.Errorf("%d orders are stored, want 1", n)
		}
		f.approve(t, "r", 7)
		if got := f.run(t, "r"); got.By != "ops@desk" || !got.AllowDowngrade || got.Approval == nil {
			t.Errorf("%+v", got)
		}
		f.MustExec(t, `UPDATE reconciliation_runs SET status = 'completed'`)
		f.openRun(t, newRun("later"))
		f.MustExec(t, `UPDATE reconciliation_runs SET status = 'stopped', started_at = ? WHERE id = 'later'`, now.Add(time.Hour))
		if _, err := f.store.Prune(t.Context(), now.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		f.openRun(t, billing.Run{ID: "newest", StartedAt: now.Add(2 * time.Hour), DeadlineAt: now.Add(2 * time.Hour)})
		f.MustExec(t, `UPDATE reconciliation_runs SET status = 'completed', finished_at = ? WHERE id = 'newest'`, now.Add(2*time.Hour))
		if n, err := f.store.Prune(t.Context(), now.Add(time.Minute)); n != 1 || err != nil {
			t.Fatalf("pruned %d, %v", n, err)
		}
		if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_orders`); n != 0 {
			t.Errorf("%d orders are left after their run was pruned", n)
		}
	})
}

// Catch-ups and a weekly run, with duplicate messages, lower at the same time. Meanwhile a person raises and lowers the
// limit of one catch-up, and the budget ends. Each downgrade is counted once, and none is above a limit.
func TestConcurrentRunsUseTheBudgetExactly(t *testing.T) {
	f := onServer(t)
	f.SetMaxOpenConns(16)
	const organizations, workers, budget, weekly, approved = 240, 16, 23, 11, 9
	ids := orgIDs(organizations)
	f.addPaying(t, ids...)
	catchUps := []string{"c1", "c2", "c3"}
	for _, id := range catchUps {
		f.startCatchUp(t, id, budget)
	}
	f.startRun(t, "week", weekly)
	runs := append(slices.Clone(catchUps), "week")
	lowerAll := func() {
		t.Helper()
		for _, err := range inParallel(workers, func(worker int) error {
			for i := range organizations {
				id := ids[(i*7+worker*3)%organizations] // several workers try each organization, at different times
				records, err := f.store.Records(t.Context(), []string{id})
				if err != nil {
					return err
				}
				if records[id].Org.Tier == "free" {
					continue
				}
				run := runs[(i+worker)%len(runs)]
				err = f.apply(t, run, records[id], downgrade(id))
				switch {
				case err == nil, errors.Is(err, billing.ErrAlreadyDecided), errors.Is(err, billing.ErrRecordChanged):
				case billing.AsFailure(err).Reason == billing.ReasonWithheld, billing.AsFailure(err).Reason == billing.ReasonDatabaseUnavailable: // a deadlock
				default:
					return err
				}
				if run == "c1" && i%5 == 0 { // a person approves a higher limit, or none
					if _, err := f.store.Approve(t.Context(), "c1", billing.Approval{Limit: approved - i%2*approved, At: now}); err != nil && !billing.AsFailure(err).Retryable() {
						return err
					}
				}
			}
			return nil
		}) {
			if err != nil {
				t.Error(err)
			}
		}
	}
	count := func(what, query string, want int, args ...any) {
		t.Helper()
		if got := mysqltest.Value[int](t, f.DB, query, args...); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	lowerAll()
	spent := budget
	for day := range 2 {
		count("used of the budget", `SELECT used FROM reconciliation_budgets`, budget)
		all := mysqltest.Value[int](t, f.DB, `SELECT SUM(downgrades) FROM reconciliation_runs WHERE strategy = 'events'`)
		if all < spent || all > spent+approved {
			t.Errorf("budget %d: the catch-ups lowered %d, want %d and at most %d approved ones", day+1, all, spent, approved)
		}
		count("downgrades of the weekly run", `SELECT downgrades FROM reconciliation_runs WHERE id = 'week'`, weekly)
		for _, id := range runs {
			count("repairs of "+id, `SELECT COUNT(*) FROM reconciliation_items i JOIN reconciliation_runs r ON r.run_key = i.run_key
				WHERE r.id = ? AND i.outcome = 'synced'`, f.run(t, id).Downgrades, id)
		}
		count("lowered organizations", `SELECT COUNT(*) FROM organizations WHERE subscription_tier = 'free'`, all+weekly)
		if day == 0 {
			f.setBudgetEnd(t, 0)
			lowerAll()
			spent += budget
		}
	}
}
