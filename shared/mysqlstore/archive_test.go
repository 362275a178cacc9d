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
			{ID: "earlier"}, {ID: "dry", DryRun: true}, {ID: "one", OrgID: "a"}, {ID: "catch-up", Strategy: billing.StrategyEvents}, {ID: "open"}, {ID: "without-summary"},
		} {
			completed := newRun(run.ID)
			completed.OrgID, completed.DryRun, completed.StartedAt = run.OrgID, run.DryRun, now.Add(time.Duration(n)*time.Hour)
			if run.Strategy != "" {
				completed.Strategy = run.Strategy
			}
			f.setStatus(t, completed, billing.RunCompleted)
		}
		f.MustExec(t, `UPDATE reconciliation_runs SET summary = '{}', summary_revision = 1 WHERE id <> 'without-summary'`)
		f.MustExec(t, `UPDATE reconciliation_runs SET status = 'running' WHERE id = 'open'`)
		wantIDs(t, "before the first try, the latest run first", f.toArchive(t), "dry", "earlier")

		lease := billing.Lease{RunID: "dry", Owner: "me", End: now.Add(billing.ArchiveLeaseTTL)}
		acquire := func(l billing.Lease, at time.Time) bool {
			t.Helper()
			ok, err := f.store.AcquireArchiveLease(t.Context(), l, at)
			if err != nil {
				t.Fatal(err)
			}
			return ok
		}
		release := func(l billing.Lease, revision int) {
			t.Helper()
			if err := f.store.ReleaseArchiveLease(t.Context(), l, revision); err != nil {
				t.Fatal(err)
			}
		}
		other := lease
		other.Owner = "other"
		if !acquire(lease, now) || acquire(other, now.Add(time.Minute)) {
			t.Error("not exactly one of two aggregators has the lease")
		}
		wantIDs(t, "a run that was tried comes after the others", f.toArchive(t), "earlier", "dry")
		release(other, 1) // without the lease, this changes nothing
		release(lease, 0) // no report was written
		wantIDs(t, "after a try that wrote no report", f.toArchive(t), "earlier", "dry")
		if !acquire(other, now.Add(2*time.Minute)) {
			t.Error("the lease was not released")
		}
		release(other, 1)
		wantIDs(t, "after one run was archived", f.toArchive(t), "earlier")
		f.MustExec(t, `UPDATE reconciliation_runs SET summary_revision = 2 WHERE id = 'dry'`)
		wantIDs(t, "after its summary was amended", f.toArchive(t), "earlier", "dry")

		lease.End = now.Add(time.Hour)
		if !acquire(lease, now.Add(50*time.Minute)) || !acquire(other, now.Add(time.Hour+time.Second)) {
			t.Error("a lease that has ended was not taken over")
		}
		release(lease, 2) // the first owner releases it too late
		wantIDs(t, "while the second owner has the lease", f.toArchive(t), "earlier", "dry")
		release(other, 2)
		wantIDs(t, "after the second owner archived the revision", f.toArchive(t), "earlier")
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
		wantIDs(t, "archive rows after Prune", f.selectStrings(t, `SELECT run_id FROM reconciliation_archives`))
	})
}
