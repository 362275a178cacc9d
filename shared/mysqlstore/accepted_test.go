package mysqlstore_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func (f *fixture) accept(t *testing.T, all ...billing.Acceptance) {
	t.Helper()
	for i := range all {
		all[i].By, all[i].At = "ops@desk", now
	}
	if err := f.store.Accept(t.Context(), all); err != nil {
		t.Fatal(err)
	}
}

func TestAcceptancesAreStoredReplacedAndDeleted(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		until := now.Add(time.Hour)
		long := strings.Repeat("é", billing.MaxWhyLength+1)
		f.accept(t, billing.Acceptance{OrgID: "b", Code: "withheld", Why: "old"}, billing.Acceptance{OrgID: "a", Code: "several_tiers", Why: long})
		f.accept(t, billing.Acceptance{OrgID: "b", Code: "withheld", Why: "new", Until: &until}, billing.Acceptance{OrgID: "b", Code: "other_mode", Why: "x"})
		f.accept(t)
		want := []billing.Acceptance{
			{OrgID: "a", Code: "several_tiers", Why: long[:2*billing.MaxWhyLength], By: "ops@desk", At: now},
			{OrgID: "b", Code: "other_mode", Why: "x", By: "ops@desk", At: now},
			{OrgID: "b", Code: "withheld", Why: "new", By: "ops@desk", At: now, Until: &until},
		}
		got, err := f.store.Accepted(t.Context())
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
		for _, c := range []struct {
			org, code string
			want      int
		}{{"b", "several_tiers", 0}, {"b", "withheld", 1}, {"b", "", 1}, {"b", "", 0}, {"a", "", 1}} {
			if n, err := f.store.DeleteAccepted(t.Context(), c.org, c.code); err != nil || n != c.want {
				t.Errorf("%s %s: deleted %d, %v, want %d", c.org, c.code, n, err, c.want)
			}
		}
	})
}

func TestAcceptanceCountsForRunsThatStartBeforeItExpires(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addItems(t,
			billing.Item{RunID: "r", OrgID: "a", Outcome: billing.OutcomeError, Reason: billing.ReasonTierUnresolved},
			billing.Item{RunID: "r", OrgID: "b", Outcome: billing.OutcomeError, Reason: billing.ReasonTierUnresolved},
			billing.Item{RunID: "r", OrgID: "c", Outcome: billing.OutcomeSkipped, Reason: billing.ReasonNoSubscription},
			billing.Item{RunID: "r", OrgID: "d", Outcome: billing.OutcomeError, Reason: billing.ReasonUnknownStatus})
		f.MustExec(t, `UPDATE reconciliation_items SET warnings = '[{"code":"paid_without_subscription"}]' WHERE org_id = 'c'`)
		afterStart, atStart := now.Add(time.Second), now // the run starts now
		f.accept(t, billing.Acceptance{OrgID: "a", Code: "tier_unresolved", Why: "y", Until: &afterStart}, billing.Acceptance{OrgID: "b", Code: "tier_unresolved", Why: "y", Until: &atStart},
			billing.Acceptance{OrgID: "c", Code: "paid_without_subscription", Why: "y"}, billing.Acceptance{OrgID: "d", Code: "tier_unresolved", Why: "y"})
		drift, err := f.store.Drift(t.Context(), "r")
		if diff := cmp.Diff(map[string]int{"tier_unresolved": 1, "paid_without_subscription": 1}, drift.Accepted); err != nil || diff != "" || drift.AcceptedErrors != 1 || len(drift.Warnings) != 0 {
			t.Errorf("%v, %+v (-want +got):\n%s", err, drift, diff)
		}
		run := f.run(t, "r")
		for org, want := range map[string]bool{"a": true, "b": false, "c": false, "d": true, "e": false} {
			if got, err := f.store.IsAccepted(t.Context(), run, org, "tier_unresolved"); err != nil || got != want {
				t.Errorf("the error of %s is accepted: %t, want %t, %v", org, got, want, err)
			}
		}
		notable, err := f.store.Notable(t.Context(), "r", 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range notable {
			if want := i.OrgID == "a" || i.OrgID == "c"; (len(i.Accepted) == 1) != want {
				t.Errorf("%s: %+v", i.OrgID, i.Accepted)
			}
		}
	})
}

func TestLatestItemIsTheItemDecidedLast(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addItems(t,
			billing.Item{RunID: "1", OrgID: "a", Outcome: billing.OutcomeError, Reason: billing.ReasonTierUnresolved},
			billing.Item{RunID: "2", OrgID: "a", Outcome: billing.OutcomeError, Reason: billing.ReasonWithheld}, pendingItem("3", "a"))
		f.MustExec(t, `UPDATE reconciliation_items SET updated_at = ? WHERE reason = 'withheld'`, now.Add(24*365*time.Hour))
		if item, found, err := f.store.LatestItem(t.Context(), "a"); err != nil || !found || item.RunID != "2" || item.Reason != billing.ReasonWithheld {
			t.Errorf("%+v, %t, %v", item, found, err)
		}
		if _, found, err := f.store.LatestItem(t.Context(), "b"); err != nil || found {
			t.Errorf("found %t, %v", found, err)
		}
	})
}
