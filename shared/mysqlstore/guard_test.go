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

// startCatchUp starts a catch-up over everybody, which may lower so many together with the others.
func (f *fixture) startCatchUp(t *testing.T, id string, limit int) {
	t.Helper()
	f.startRun(t, id, limit)
	f.MustExec(t, `UPDATE reconciliation_runs SET strategy = ? WHERE id = ?`, billing.StrategyEvents, id)
}

// lower has the run lower the organizations one after the other, and returns whom it did.
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

// setBudgetEnd lets the time pass within which the catch-ups' budget counts, but for so much.
func (f *fixture) setBudgetEnd(t *testing.T, before time.Duration) {
	t.Helper()
	f.MustExec(t, `UPDATE reconciliation_budgets SET opened_at = UTC_TIMESTAMP(6) - INTERVAL ? SECOND`, int((24*time.Hour-before)/time.Second))
}

func (f *fixture) used(t *testing.T) int {
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
			t.Errorf("the second lowered %q", got)
		}
		err := f.apply(t, "2", f.record(t, "d"), downgrade("d"))
		wantFailure(t, err, billing.Permanent, billing.ReasonWithheld)
		if said := err.Error(); !strings.Contains(said, "catch-ups together have lowered the 3") || !strings.Contains(said, "run 2") {
			t.Errorf("it says %q", said)
		}
		if got := f.lower(t, "week", "d", "e", "f"); got != "de" {
			t.Errorf("the weekly run, which has a limit of its own, lowered %q", got)
		}
		f.setBudgetEnd(t, time.Minute)
		if got := f.lower(t, "1", "f"); got != "" || f.used(t) != 3 {
			t.Errorf("a minute before a day is over it lowered %q, used %d", got, f.used(t))
		}
		f.setBudgetEnd(t, 0)
		if got := f.lower(t, "1", "f"); got != "f" || f.used(t) != 1 {
			t.Errorf("a day after the first it lowered %q, used %d", got, f.used(t))
		}
		if one, two, week := f.run(t, "1").Downgrades, f.run(t, "2").Downgrades, f.run(t, "week").Downgrades; one != 3 || two != 1 || week != 2 {
			t.Errorf("the runs count %d, %d and %d", one, two, week)
		}
	})
}

// A catch-up that is redriven next week counts when it writes, with the budget of that day.
func TestRedriveCountsAgainstTheBudgetOfTheDayItWrites(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a", "b", "c")
		f.startCatchUp(t, "old", 1)
		if got := f.lower(t, "old", "a", "b"); got != "a" {
			t.Fatalf("lowered %q", got)
		}
		f.setBudgetEnd(t, 0)
		f.startCatchUp(t, "new", 1)
		if got := f.lower(t, "old", "b"); got != "b" {
			t.Errorf("redriven, it lowered %q", got)
		}
		if got := f.lower(t, "new", "c"); got != "" {
			t.Errorf("nothing is left, and a later catch-up lowered %q", got)
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
			t.Errorf("it says %q", err)
		}
		f.startCatchUp(t, "one", 1)
		f.startCatchUp(t, "many", 100)
		if got := f.lower(t, "one", "a") + f.lower(t, "many", "b"); got != "a" {
			t.Errorf("lowered %q", got)
		}
		f.setBudgetEnd(t, 0)
		if got := f.lower(t, "none", "b"); got != "" || f.used(t) != 1 {
			t.Errorf("lowered %q", got)
		}
		if got := f.lower(t, "many", "b") + f.lower(t, "one", "c"); got != "bc" {
			t.Errorf("lowered %q of the larger budget", got)
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
		if got := f.lower(t, "1", "b", "c", "d"); got != "bc" || f.used(t) != 1 {
			t.Errorf("approved, it lowered %q; %d of the budget are used", got, f.used(t))
		}
		if got := f.lower(t, "2", "d"); got != "" {
			t.Errorf("what was approved for another let it lower %q", got)
		}
		f.setBudgetEnd(t, 0)
		if got := f.lower(t, "2", "d", "e"); got != "d" || f.used(t) != 1 {
			t.Errorf("the budget after that lowered %q", got)
		}
		if run := f.run(t, "1"); run.DowngradeLimit != 1 || run.Downgrades != 3 {
			t.Errorf("%+v", run)
		}
	})
}

// Who approves what a catch-up has done, and no more, has refused the rest: a budget of a later day changes nothing.
func TestApprovedLimitExcludesTheBudget(t *testing.T) {
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
			t.Errorf("it says %q", err)
		}
		f.approve(t, "1", 2)
		if got := f.lower(t, "1", "b", "c"); got != "b" {
			t.Errorf("approved for one more, it lowered %q", got)
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
				t.Errorf("%s to %d: approved %t, %v", c.run, c.limit, approved, err)
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
				t.Errorf("%s to %d: the limit is %d", c.run, c.limit, run.DowngradeLimit)
			}
		}
	})
}

func TestRunKeepsWhoStartedIt(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		asked := newRun("r")
		asked.By, asked.AllowDowngrade, asked.RequestID = "ops@desk", true, "request"
		f.openRun(t, asked)
		again := asked
		again.ID, again.By = "r2", "somebody else"
		if got := f.openRun(t, again); got.ID != "r" || got.By != "ops@desk" || !got.AllowDowngrade {
			t.Errorf("%+v", got)
		}
		if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_orders`); n != 1 {
			t.Errorf("%d orders are kept", n)
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
			t.Errorf("%d orders outlive their run", n)
		}
	})
}

// Catch-ups, a weekly run and duplicates of their messages lower at once, while the limit of one catch-up is set
// up and down, and the budget's day ends in between. Each unit is counted once and none too many.
func TestBudgetIsExactForConcurrentRuns(t *testing.T) {
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
				id := ids[(i*7+worker*3)%organizations] // several workers have each, at different times
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
				if run == "c1" && i%5 == 0 { // a person, who cannot make up their mind
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
			t.Errorf("day %d: catch-ups lowered %d with a budget of %d and at most %d that were approved", day, all, spent, approved)
		}
		count("the weekly run's", `SELECT downgrades FROM reconciliation_runs WHERE id = 'week'`, weekly)
		for _, id := range runs {
			count("repairs of "+id, `SELECT COUNT(*) FROM reconciliation_items i JOIN reconciliation_runs r ON r.run_key = i.run_key
				WHERE r.id = ? AND i.outcome = 'synced'`, f.run(t, id).Downgrades, id)
		}
		count("lowered", `SELECT COUNT(*) FROM organizations WHERE subscription_tier = 'free'`, all+weekly)
		if day == 0 {
			f.setBudgetEnd(t, 0)
			lowerAll()
			spent += budget
		}
	}
}
