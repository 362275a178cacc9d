package billing_test

import (
	"fmt"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// The tiers are in ascending order; the unknown one ranks above them all.
func TestLoweringATierLowersAccess(t *testing.T) {
	tiers := []string{"free", "starter", "pro", "max", "gold"}
	for _, field := range []string{"subscriptions.plan_tier", "organizations.subscription_tier"} {
		for i, from := range tiers {
			for j, to := range tiers[:4] { // nothing ever writes a tier it does not know
				t.Run(fmt.Sprintf("%s %s to %s", field, from, to), func(t *testing.T) {
					assertLowers(t, j < i, billing.Change{Field: field, From: from, To: to})
				})
			}
		}
	}
}

func TestLeavingALiveStatusLowersAccess(t *testing.T) {
	live := map[string]bool{
		"active": true, "trialing": true, "past_due": true,
		"unpaid": false, "incomplete": false, "incomplete_expired": false, "canceled": false, "dormant": false, "": false,
	}
	for _, field := range []string{"subscriptions.status", "organizations.subscription_status"} {
		for from, hadAccess := range live {
			for to, hasAccess := range live {
				t.Run(fmt.Sprintf("%s %q to %q", field, from, to), func(t *testing.T) {
					assertLowers(t, hadAccess && !hasAccess, billing.Change{Field: field, From: from, To: to})
				})
			}
		}
	}
}

func TestOneLoweredTierOrLostStatusLowersAccess(t *testing.T) {
	tests := map[string]struct {
		changes []billing.Change
		want    bool
	}{
		"no change": {nil, false},
		"other columns": {[]billing.Change{
			{Field: billing.FieldSubscriptionID, From: "max", To: "free"},
			{Field: billing.FieldCustomerID, From: "active", To: "canceled"},
			{Field: billing.FieldPriceID, From: "price_max", To: "price_starter"},
			{Field: billing.FieldOrgCustomerID, From: "active", To: nil},
			{Field: billing.FieldCancelAtPeriodEnd, From: false, To: true},
			{Field: billing.FieldCurrentPeriodEnd, From: periodEnd, To: periodStart},
			{Field: billing.FieldEndedAt, To: endedAt},
		}, false},
		"tier raised in one table and lowered in the other": {[]billing.Change{
			{Field: billing.FieldPlanTier, From: "free", To: "pro"}, {Field: billing.FieldOrgTier, From: "max", To: "pro"},
		}, true},
		"tier raised and status lost": {[]billing.Change{
			{Field: billing.FieldPlanTier, From: "free", To: "pro"}, {Field: billing.FieldOrgStatus, From: "past_due", To: "incomplete"},
		}, true},
		"row inserted on the free tier": {[]billing.Change{
			{Field: billing.FieldPlanTier, To: "free"}, {Field: billing.FieldStatus, To: "canceled"},
		}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { assertLowers(t, tt.want, tt.changes...) })
	}
}

func lowers(plan billing.Plan) bool { return rules.Tiers.LowersAccess(plan.Changes) }

func assertLowers(t *testing.T, want bool, changes ...billing.Change) {
	t.Helper()
	if got := lowers(billing.Plan{Changes: changes}); got != want {
		t.Errorf("LowersAccess() = %t, want %t", got, want)
	}
}
