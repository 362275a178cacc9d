package mysqlstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

// counts are all counts of a run's items.
type counts struct {
	Tallies              []billing.Tally
	Items, Subscriptions int
}

func (f *fixture) counts(t *testing.T, runID string) (c counts) {
	t.Helper()
	var err error
	if c.Tallies, err = f.store.Tallies(t.Context(), runID); err != nil {
		t.Fatal(err)
	}
	if c.Items, err = f.store.CountItems(t.Context(), runID); err != nil {
		t.Fatal(err)
	}
	if c.Subscriptions, err = f.store.CountGoverned(t.Context(), runID); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTrimKeepsReportedItemsAndCounts(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addItems(t,
			billing.Item{RunID: "old", OrgID: "a", Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync},
			billing.Item{RunID: "old", OrgID: "b", Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync},
			billing.Item{RunID: "old", OrgID: "c", Outcome: billing.OutcomeSkipped, Reason: billing.ReasonNoSubscription},
			billing.Item{RunID: "old", OrgID: "warned", Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync},
			billing.Item{RunID: "old", OrgID: "repaired", Outcome: billing.OutcomeSynced, Reason: billing.ReasonRepaired},
			billing.Item{RunID: "old", OrgID: "withheld", Outcome: billing.OutcomeError, Reason: billing.ReasonWithheld},
			billing.Item{RunID: "old", OrgID: "pending", Outcome: billing.OutcomePending, Reason: billing.ReasonNotDecided},
			billing.Item{RunID: "open", OrgID: "a", Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync},
			billing.Item{RunID: "young", OrgID: "a", Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync})
		f.MustExec(t, `UPDATE reconciliation_items SET warnings = '[]' WHERE org_id = 'warned'`)
		f.MustExec(t, `UPDATE reconciliation_items SET governed = TRUE WHERE org_id IN ('b','repaired')`)
		f.MustExec(t, `UPDATE reconciliation_runs SET status = 'incomplete' WHERE id <> 'open'`)
		f.MustExec(t, `UPDATE reconciliation_runs SET started_at = ? WHERE id = 'young'`, now.Add(time.Hour))
		before := map[string]counts{}
		for _, id := range []string{"old", "open", "young"} {
			before[id] = f.counts(t, id)
		}
		for range 2 {
			if err := f.store.Trim(t.Context(), now.Add(time.Minute), now.Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			for id, want := range before {
				if diff := cmp.Diff(want, f.counts(t, id), anyOrder); diff != "" {
					t.Errorf("%s: %s", id, diff)
				}
			}
			kept := f.selectStrings(t, `SELECT CONCAT(r.id, ' ', i.org_id) FROM reconciliation_items i JOIN reconciliation_runs r ON r.run_key = i.run_key ORDER BY 1`)
			want := []string{"old pending", "old repaired", "old warned", "old withheld", "open a", "young a"}
			if diff := cmp.Diff(want, kept); diff != "" {
				t.Error(diff)
			}
		}
		if !f.run(t, "old").Trimmed || f.run(t, "open").Trimmed || f.run(t, "young").Trimmed {
			t.Error("the wrong runs are marked as trimmed")
		}
	})
}

// A redrive may decide that an organization that was in error is in sync.
func TestItemDecidedAfterTrimCountsOnce(t *testing.T) {
	f := onServer(t)
	items := []billing.Item{{RunID: "r", OrgID: "failed", Outcome: billing.OutcomeError, Reason: billing.ReasonStripeUnavailable}}
	for i := range 2*mysqlstore.TrimBatch + 1 {
		items = append(items, billing.Item{RunID: "r", OrgID: fmt.Sprintf("org-%05d", i), Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync})
	}
	f.addItems(t, items...)
	f.MustExec(t, `UPDATE reconciliation_runs SET status = 'completed_with_errors'`)
	trim := func() {
		t.Helper()
		if err := f.store.Trim(t.Context(), now.Add(time.Minute), now.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	trim()
	if err := f.store.Decide(t.Context(), billing.Item{RunID: "r", OrgID: "failed", Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync, SubscriptionID: "sub"}, false, now); err != nil {
		t.Fatal(err)
	}
	want := counts{
		Tallies: []billing.Tally{{Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync, Items: len(items)}},
		Items:   len(items), Subscriptions: 1,
	}
	for range 2 {
		if diff := cmp.Diff(want, f.counts(t, "r"), anyOrder); diff != "" {
			t.Error(diff)
		}
		trim()
	}
	if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_items`); n != 0 {
		t.Errorf("%d items are left, want none", n)
	}
}

// Three in ten of the items have a warning, so Trim keeps them.
func TestTrimReadsRemainingItemsOnce(t *testing.T) {
	f := onServer(t)
	const total = 6 * mysqlstore.TrimBatch
	var items []billing.Item
	for i := range total {
		items = append(items, billing.Item{RunID: "r", OrgID: fmt.Sprintf("org-%05d", i), Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync})
	}
	f.addItems(t, items...)
	f.MustExec(t, `UPDATE reconciliation_items SET warnings = '[]' WHERE org_id LIKE '%0' OR org_id LIKE '%5' OR org_id LIKE '%7'`)
	f.MustExec(t, `UPDATE reconciliation_runs SET status = 'completed'`)
	store, _ := f.singleConnection(t)
	if n := rowsRead(t, store, func() error { return store.Trim(t.Context(), now.Add(time.Minute), now.Add(time.Minute)) }); n > 3*total {
		t.Errorf("Trim read %d rows for %d items", n, total)
	}
	if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_items`); n != total*3/10 {
		t.Errorf("%d items are left, want %d", n, total*3/10)
	}
}

// The run is reopened while Trim waits for its row.
func TestTrimStopsIfTheRunIsReopened(t *testing.T) {
	f := onServer(t)
	f.addItems(t, billing.Item{RunID: "r", OrgID: "a", Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync})
	f.MustExec(t, `UPDATE reconciliation_runs SET status = 'incomplete'`)
	reopening := f.lock(t, `UPDATE reconciliation_runs SET status = 'enumerating'`)
	store, connection := f.singleConnection(t)
	trimmed := make(chan error, 1)
	go func() { trimmed <- store.Trim(t.Context(), now.Add(time.Minute), now.Add(time.Minute)) }()
	f.awaitStatement(t, connection, "SELECT id FROM reconciliation_runs WHERE id =")
	if err := reopening.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-trimmed; err != nil {
		t.Fatal(err)
	}
	if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_items`); n != 1 || f.run(t, "r").Trimmed {
		t.Errorf("%d items are left, want 1; the run is trimmed: %v, want false", n, f.run(t, "r").Trimmed)
	}
}
