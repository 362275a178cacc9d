package mysqlstore_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func (f *fixture) toArchive(t *testing.T) []string {
	t.Helper()
	runs, err := f.store.RunsToArchive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, run := range runs {
		ids = append(ids, run.ID)
	}
	return ids
}

func wantIDs(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestClosedFullRunsNeedArchivingUntilTheirLatestRevisionIsArchived(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		for n, run := range []billing.Run{
			{ID: "earlier"}, {ID: "dry", DryRun: true}, {ID: "one", OrgID: "a"}, {ID: "catch-up", Strategy: billing.StrategyEvents}, {ID: "open"}, {ID: "unsummed"},
		} {
			given := newRun(run.ID)
			given.OrgID, given.DryRun, given.StartedAt = run.OrgID, run.DryRun, now.Add(time.Duration(n)*time.Hour)
			if run.Strategy != "" {
				given.Strategy = run.Strategy
			}
			f.setStatus(t, given, billing.RunCompleted)
		}
		f.MustExec(t, `UPDATE reconciliation_runs SET summary = '{}', summary_revision = 1 WHERE id <> 'unsummed'`)
		f.MustExec(t, `UPDATE reconciliation_runs SET status = 'running' WHERE id = 'open'`)
		wantIDs(t, "at first, the latest first", f.toArchive(t), "dry", "earlier")

		lease := billing.Lease{RunID: "dry", Owner: "me", End: now.Add(billing.ArchiveLeaseTTL)}
		start := func(l billing.Lease, at time.Time) bool {
			t.Helper()
			ok, err := f.store.AcquireArchiveLease(t.Context(), l, at)
			if err != nil {
				t.Fatal(err)
			}
			return ok
		}
		end := func(l billing.Lease, revision int) {
			t.Helper()
			if err := f.store.ReleaseArchiveLease(t.Context(), l, revision); err != nil {
				t.Fatal(err)
			}
		}
		other := lease
		other.Owner = "other"
		if !start(lease, now) || start(other, now.Add(time.Minute)) {
			t.Error("two write the reports of a run at once")
		}
		wantIDs(t, "one that is tried waits behind others", f.toArchive(t), "earlier", "dry")
		end(other, 1) // it has no lease
		end(lease, 0) // nothing was written
		wantIDs(t, "nothing was written", f.toArchive(t), "earlier", "dry")
		if !start(other, now.Add(2*time.Minute)) {
			t.Error("the lease was not given back")
		}
		end(other, 1)
		wantIDs(t, "one is archived", f.toArchive(t), "earlier")
		f.MustExec(t, `UPDATE reconciliation_runs SET summary_revision = 2 WHERE id = 'dry'`)
		wantIDs(t, "it was amended", f.toArchive(t), "earlier", "dry")

		lease.End = now.Add(time.Hour)
		if !start(lease, now.Add(50*time.Minute)) || !start(other, now.Add(time.Hour+time.Second)) {
			t.Error("the lease of somebody who died is not taken over")
		}
		end(lease, 2) // it lived after all, too late
		wantIDs(t, "the later one is at it", f.toArchive(t), "earlier", "dry")
		end(other, 2)
		wantIDs(t, "at last", f.toArchive(t), "earlier")
	})
}

func TestPruneDeletesArchiveRows(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.setStatus(t, newRun("old"), billing.RunStopped)
		if _, err := f.store.AcquireArchiveLease(t.Context(), billing.Lease{RunID: "old", Owner: "me", End: now}, now); err != nil {
			t.Fatal(err)
		}
		if n, err := f.store.Prune(t.Context(), now.Add(time.Hour)); n != 1 || err != nil {
			t.Fatalf("pruned %d, %v", n, err)
		}
		wantIDs(t, "left", f.selectStrings(t, `SELECT run_id FROM reconciliation_archives`))
	})
}
