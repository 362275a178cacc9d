package billing_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func TestTierStatusAndSubscriptionIDGrantAccess(t *testing.T) {
	var access []string
	for _, field := range billing.Fields() {
		if billing.GrantsAccess(field) {
			access = append(access, field)
		}
	}
	want := []string{
		"subscriptions.stripe_subscription_id", "subscriptions.plan_tier", "subscriptions.status",
		"organizations.subscription_tier", "organizations.subscription_status",
	}
	if diff := cmp.Diff(want, access); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if billing.GrantsAccess("organizations.name") {
		t.Error("a column that is not compared grants access")
	}
}

func TestDriftIsCountedInOrganizations(t *testing.T) {
	item := func(outcome billing.Outcome, fields string, warnings ...billing.WarningCode) billing.Item {
		i := billing.Item{Outcome: outcome}
		for _, f := range strings.Fields(fields) {
			i.Changes = append(i.Changes, billing.Change{Field: f})
		}
		for _, code := range warnings {
			i.Warnings = append(i.Warnings, billing.Warning{Code: code})
		}
		return i
	}
	const tier, ended, status = billing.FieldPlanTier, billing.FieldEndedAt, billing.FieldOrgStatus
	var got billing.Drift
	withheld := item(billing.OutcomeError, status+" "+ended)
	withheld.Reason = billing.ReasonWithheld
	for _, i := range []billing.Item{
		withheld,
		item(billing.OutcomeSynced, tier+" "+ended+" "+tier), // repaired twice
		item(billing.OutcomeDrifted, status),
		item(billing.OutcomeSynced, ended, billing.WarnTierMetadataMismatch, billing.WarnMultipleRows, billing.WarnTierMetadataMismatch),
		item(billing.OutcomeSynced, ""),
		item(billing.OutcomeError, tier, billing.WarnTierMetadataMismatch), // whether it differs is not known
		item(billing.OutcomeSkipped, "", billing.WarnTierMetadataMismatch),
		item(billing.OutcomeSkipped, "", billing.WarnMultipleLive),
	} {
		got.Add(i, nil)
	}
	want := billing.Drift{
		ByField: map[string]int{tier: 1, ended: 3, status: 2}, Access: 3, Detail: 1,
		Warnings: map[billing.WarningCode]int{billing.WarnTierMetadataMismatch: 3, billing.WarnMultipleRows: 1, billing.WarnMultipleLive: 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAccessThatMovedIsCountedWithTheFirstOrganizations(t *testing.T) {
	tier := func(from, to any) []billing.Change {
		return []billing.Change{{Field: billing.FieldOrgTier, From: from, To: to}}
	}
	inserted := billing.Change{Field: billing.FieldPlanTier, To: "starter"}
	status := func(from, to any) []billing.Change {
		return []billing.Change{{Field: billing.FieldStatus, From: from, To: to}}
	}
	var got billing.Drift
	for n, i := range []billing.Item{
		{Outcome: "synced", Changes: tier("free", "pro")},
		{Outcome: "drifted", Changes: status("canceled", "active")},
		{Outcome: "synced", Changes: append(tier("free", "starter"), inserted)},
		{Outcome: "synced", Changes: append(status("incomplete", "trialing"), inserted)},
		{Outcome: "synced", Changes: tier("max", "pro")},
		{Outcome: "synced", Changes: append(tier("free", "pro"), status("active", "canceled")...)}, // as the guard counts it
		{Outcome: "synced", Changes: tier("gold", "max")},                                          // unknown ranks highest
		// Neither:
		{Outcome: "synced", Changes: append(status(nil, "active"), inserted)}, // the organization has the tier already
		{Outcome: "synced", Changes: status("active", "past_due")},
		{Outcome: "synced", Changes: []billing.Change{{Field: billing.FieldPriceID, From: "price_1", To: "price_2"}}},
		{Outcome: "error", Reason: "withheld", Changes: tier("max", "free")},
		{Outcome: "skipped"},
	} {
		i.OrgID = fmt.Sprint(n)
		got.Add(i, nil)
	}
	want := billing.AccessChanges{
		Raised:  billing.Affected{Organizations: 4, First: []string{"0", "1", "2", "3"}},
		Lowered: billing.Affected{Organizations: 3, First: []string{"4", "5", "6"}},
	}
	if diff := cmp.Diff(want, got.AccessChanges); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for range 1000 {
		got.Add(billing.Item{Outcome: "synced", Changes: tier("free", "pro")}, nil)
	}
	if raised := got.AccessChanges.Raised; raised.Organizations != 1004 || len(raised.First) != 10 {
		t.Errorf("of 1004 organizations %d are counted and %d named", raised.Organizations, len(raised.First))
	}
}
