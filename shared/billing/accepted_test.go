package billing_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func TestOnlyWhatAPersonDecidesCanBeAccepted(t *testing.T) {
	for code, want := range map[string]bool{
		string(billing.ReasonTierUnresolved): true, string(billing.ReasonOtherMode): true, string(billing.WarnPaidWithoutSubscription): true,
		string(billing.ReasonWithheld): false, string(billing.ReasonNotRepeated): false, string(billing.ReasonStripeUnavailable): false, string(billing.ReasonInSync): false, string(billing.ReasonStripeUnauthorized): false, "unheard_of": false, "": false,
	} {
		if got := billing.Acceptable(code); got != want {
			t.Errorf("%q: %t", code, got)
		}
	}
}

func TestAcceptedErrorsAreCountedSeparatelyAndTotalsStay(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	accepted := func(codes ...string) (all []billing.Acceptance) {
		for _, code := range codes {
			all = append(all, billing.Acceptance{Code: code, At: at})
		}
		return all
	}
	rows := billing.Warning{Code: billing.WarnMultipleRows}
	paid := billing.Warning{Code: billing.WarnPaidWithoutSubscription}
	items := []billing.Item{
		{OrgID: "1", Outcome: billing.OutcomeError, Reason: billing.ReasonTierUnresolved, Warnings: []billing.Warning{rows, rows}, Accepted: accepted("tier_unresolved")},
		{OrgID: "2", Outcome: billing.OutcomeError, Reason: billing.ReasonOtherMode, Accepted: accepted("other_mode")},
		{OrgID: "3", Outcome: billing.OutcomeSkipped, Reason: billing.ReasonNoSubscription, Warnings: []billing.Warning{paid, rows}, Accepted: accepted("paid_without_subscription", "tier_unresolved")},
	}
	var drift billing.Drift
	tallies := []billing.Tally{}
	for _, i := range items {
		drift.Add(i, billing.DefaultTiers)
		tallies = append(tallies, billing.Tally{Outcome: i.Outcome, Reason: i.Reason, Items: 1})
	}
	s := billing.Summarize(billing.Run{}, tallies, drift, items)
	if s.TotalOrganizations != 3 || s.Errors != 2 || s.Skipped != 1 || s.AcceptedErrors != 2 || s.Drifted() != 0 {
		t.Errorf("%+v", s)
	}
	if diff := cmp.Diff(map[string]int{"tier_unresolved": 1, "other_mode": 1, "paid_without_subscription": 1}, s.Accepted); diff != "" {
		t.Errorf("accepted (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[billing.WarningCode]int{billing.WarnMultipleRows: 2}, s.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	if s.FinalStatus() != billing.RunCompleted {
		t.Errorf("the run ends %s", s.FinalStatus())
	}
	items[1].Accepted = nil
	drift = billing.Drift{}
	for _, i := range items {
		drift.Add(i, billing.DefaultTiers)
	}
	if s = billing.Summarize(billing.Run{}, tallies, drift, items); s.FinalStatus() != billing.RunCompletedWithErrors || s.Unaccepted(billing.ReasonOtherMode) != 1 {
		t.Errorf("with one that is not accepted: %+v", s)
	}
}

func TestAnAcceptanceHoldsUntilItsTime(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		until *time.Time
		want  bool
	}{{nil, true}, {ptr(at.Add(time.Second)), true}, {ptr(at), false}, {ptr(at.Add(-time.Hour)), false}} {
		if got := (billing.Acceptance{Until: c.until}).InForce(at); got != c.want {
			t.Errorf("until %v: %t", c.until, got)
		}
	}
}
