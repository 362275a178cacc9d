package mysqlstore_test

import (
	"cmp"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

func TestRecentRepairsAreFoundByOrganization(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a", "b", "c")
		f.startRun(t, "1", 9)
		f.startRun(t, "2", 0)
		for _, id := range []string{"a", "b"} {
			if err := f.apply(t, "1", f.record(t, id), upgrade(id)); err != nil {
				t.Fatal(err)
			}
		}
		wantFailure(t, f.apply(t, "2", f.record(t, "a"), downgrade("a")), billing.Permanent, billing.ReasonWithheld)
		item := f.item(t, "1", "a") // the follow-up repairs it again
		item.Changes = append(item.Changes, downgrade("a").Changes...)
		if err := f.store.Apply(t.Context(), f.record(t, "a"), downgrade("a"), item, true, now.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		want := []billing.Repair{
			{OrgID: "a", RunID: "1", At: now.Add(time.Minute), Changes: append(upgrade("a").Changes, downgrade("a").Changes...)},
			{OrgID: "b", RunID: "1", At: now, Changes: upgrade("b").Changes},
		}
		got, err := f.store.RecentRepairs(t.Context(), []string{"a", "b", "c", "unknown"}, now.Add(-time.Second))
		slices.SortFunc(got, func(a, b billing.Repair) int { return cmp.Compare(a.OrgID, b.OrgID) })
		if diff := gocmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
		if got, err := f.store.RecentRepairs(t.Context(), []string{"a", "b"}, now.Add(time.Second)); err != nil || len(got) != 1 {
			t.Errorf("repairs since a second later: %v, %v, want 1", got, err)
		}
		if got, err := f.store.RecentRepairs(t.Context(), nil, now); err != nil || len(got) != 0 {
			t.Errorf("repairs of no organization: %v, %v", got, err)
		}
		if err := f.store.PruneRepairs(t.Context(), now.Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_repairs`); n != 1 {
			t.Errorf("%d repairs are left, want 1", n)
		}
	})
}

func TestWithholdingRunIsTheRunThatDecidedLast(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		inError := func(run string, reason billing.Reason) billing.Item {
			return billing.Item{RunID: run, OrgID: "a", Outcome: billing.OutcomeError, Reason: reason}
		}
		f.addItems(t, inError("withheld", billing.ReasonWithheld), inError("not repeated", billing.ReasonNotRepeated), inError("dry", billing.ReasonWithheld),
			inError("one", billing.ReasonWithheld), inError("other", billing.ReasonTierUnresolved), pendingItem("pending", "a"))
		f.MustExec(t, `UPDATE reconciliation_runs SET dry_run = TRUE WHERE id = 'dry'`)
		f.MustExec(t, `UPDATE reconciliation_runs SET org_id = 'a' WHERE id = 'one'`)
		reasons := map[string]billing.Reason{"withheld": billing.ReasonWithheld, "not repeated": billing.ReasonNotRepeated}
		decidedAt := func(run string, minute int) {
			f.MustExec(t, `UPDATE reconciliation_items SET updated_at = ? WHERE run_key = ?`, now.Add(time.Duration(minute)*time.Minute), f.key(t, run))
		}
		for minute, run := range []string{"withheld", "not repeated", "dry", "one", "other", "pending"} {
			decidedAt(run, minute)
		}
		for minute, c := range []struct{ latest, want string }{{"other", "not repeated"}, {"withheld", "withheld"}, {"not repeated", "not repeated"}, {"dry", "not repeated"}, {"pending", "not repeated"}} {
			decidedAt(c.latest, 10+minute)
			want := billing.Withholding{RunID: c.want, Reason: reasons[c.want]}
			if got, err := f.store.WithholdingRun(t.Context(), "a", now.Add(-time.Hour)); err != nil || got != want {
				t.Errorf("with %s as the latest: %+v, %v, want %+v", c.latest, got, err, want)
			}
		}
		for org, since := range map[string]time.Time{"a": now.Add(time.Hour), "b": now.Add(-time.Hour)} {
			if got, err := f.store.WithholdingRun(t.Context(), org, since); err != nil || got != (billing.Withholding{}) {
				t.Errorf("%s since %s: %+v, %v", org, since, got, err)
			}
		}
	})
}

func TestWithholdingRunIsApprovedIfThatWasAfterItsDecisionAndItsLimitIsNotReached(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addItems(t, billing.Item{RunID: "run", OrgID: "a", Outcome: billing.OutcomeError, Reason: billing.ReasonWithheld})
		f.MustExec(t, `UPDATE reconciliation_items SET updated_at = ?`, now)
		for _, c := range []struct {
			at    time.Time
			limit int
			want  time.Time
		}{{now.Add(-time.Minute), 1, time.Time{}}, {now.Add(time.Minute), 0, time.Time{}}, {now.Add(time.Minute), 1, now.Add(time.Minute)}} {
			if ok, err := f.store.Approve(t.Context(), "run", billing.Approval{Limit: c.limit, By: "ops@desk", At: c.at}); err != nil || !ok {
				t.Fatal(ok, err)
			}
			got, err := f.store.WithholdingRun(t.Context(), "a", now.Add(-time.Hour))
			if err != nil || got.RunID != "run" || !got.ApprovedAt.Equal(c.want) {
				t.Errorf("%d approved at %s: %+v, %v, want %s", c.limit, c.at, got, err, c.want)
			}
		}
		f.MustExec(t, `UPDATE reconciliation_items SET reason = ?`, billing.ReasonNotRepeated) // no limit helps
		if got, err := f.store.WithholdingRun(t.Context(), "a", now.Add(-time.Hour)); err != nil || got != (billing.Withholding{RunID: "run", Reason: billing.ReasonNotRepeated}) {
			t.Errorf("%+v, %v", got, err)
		}
	})
}
