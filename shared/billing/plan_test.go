package billing_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// insertOfActive is what inserting the row of an active subscription writes to subscriptions.
func insertOfActive(id string) []billing.Change {
	return []billing.Change{
		{Field: billing.FieldSubscriptionID, To: id},
		{Field: billing.FieldCustomerID, To: "cus_1"},
		{Field: billing.FieldPriceID, To: "price_pro"},
		{Field: billing.FieldPlanTier, To: "pro"},
		{Field: billing.FieldStatus, To: "active"},
		{Field: billing.FieldCurrentPeriodStart, To: periodStart},
		{Field: billing.FieldCurrentPeriodEnd, To: periodEnd},
		{Field: billing.FieldCancelAtPeriodEnd, To: false},
	}
}

func TestEachSituationHasItsOutcomeAndChanges(t *testing.T) {
	paid := customerOnly()
	paid.Org.Tier, paid.Org.Status = "pro", "active"
	deleted := recorded("sub_1")
	deleted.Org.Deleted = true

	tests := map[string]struct {
		rules  *billing.Rules
		truth  billing.Truth
		record billing.Record
		want   billing.Plan
		reason billing.Reason // of the error
	}{
		"organization deleted": {
			truth: truth(subscription("sub_1", "canceled")), record: deleted,
			want: billing.Plan{Outcome: "skipped", Reason: "organization_deleted"},
		},
		"no stripe identity": {
			record: billing.Record{Org: billing.Organization{ID: org, Tier: "free", Status: "incomplete"}},
			want:   billing.Plan{Outcome: "skipped", Reason: "no_stripe_identity"},
		},
		"no stripe identity with empty ids": {
			record: billing.Record{
				Org:  billing.Organization{ID: org, CustomerID: ptr(""), Tier: "free", Status: "incomplete"},
				Rows: []billing.Row{{ID: "row_1", SubscriptionID: ptr(""), CustomerID: ptr(""), Tier: "free", Status: "incomplete"}},
			},
			want: billing.Plan{Outcome: "skipped", Reason: "no_stripe_identity"},
		},
		"no stripe identity on a paid tier": {
			record: billing.Record{Org: billing.Organization{ID: org, Tier: "max", Status: "active"}},
			want:   billing.Plan{Outcome: "skipped", Reason: "no_stripe_identity", Warnings: warn("paid_without_subscription")},
		},
		"no stripe identity but named by metadata": {
			truth:  truth(subscription("sub_1", "active", ofOrg(org))),
			record: billing.Record{Org: billing.Organization{ID: org, Tier: "free", Status: "incomplete"}},
			want: billing.Plan{
				Outcome: "synced", Reason: "row_inserted", GoverningID: "sub_1", Insert: true,
				Changes: append(insertOfActive("sub_1"),
					billing.Change{Field: billing.FieldOrgCustomerID, To: "cus_1"},
					billing.Change{Field: billing.FieldOrgTier, From: "free", To: "pro"},
					billing.Change{Field: billing.FieldOrgStatus, From: "incomplete", To: "active"},
				),
			},
		},
		"customer without any subscription": {
			truth: truth(), record: customerOnly(),
			want: billing.Plan{Outcome: "skipped", Reason: "no_subscription"},
		},
		"customer without any subscription on a paid tier": {
			truth: truth(), record: paid,
			want: billing.Plan{Outcome: "skipped", Reason: "no_subscription", Warnings: warn("paid_without_subscription")},
		},
		"customer missing": {
			truth: billing.Truth{CustomerMissing: true, ReadAt: readAt}, record: customerOnly(),
			want: billing.Plan{Outcome: "skipped", Reason: "customer_missing"},
		},
		"customer missing on a paid tier": {
			truth: billing.Truth{CustomerMissing: true, ReadAt: readAt}, record: paid,
			want: billing.Plan{Outcome: "skipped", Reason: "customer_missing", Warnings: warn("paid_without_subscription")},
		},
		"customer missing but its recorded subscription still readable": {
			truth: billing.Truth{CustomerMissing: true, ReadAt: readAt, Subscriptions: []billing.Subscription{
				subscription("sub_1", "canceled", func(s *billing.Subscription) { s.CanceledAt, s.EndedAt = canceledAt, endedAt }),
			}},
			record: recorded("sub_1"),
			want: billing.Plan{
				Outcome: "synced", Reason: "repaired", GoverningID: "sub_1", RowID: "row_1",
				Changes: []billing.Change{
					{Field: billing.FieldPlanTier, From: "pro", To: "free"},
					{Field: billing.FieldStatus, From: "active", To: "canceled"},
					{Field: billing.FieldCanceledAt, To: canceledAt},
					{Field: billing.FieldEndedAt, To: endedAt},
					{Field: billing.FieldOrgTier, From: "pro", To: "free"},
					{Field: billing.FieldOrgStatus, From: "active", To: "canceled"},
				},
			},
		},
		"recorded subscription missing and no other candidate": {
			truth: truth(), record: recorded("sub_gone"),
			want: billing.Plan{
				Outcome: "synced", Reason: "subscription_missing", RowID: "row_1",
				Changes: []billing.Change{
					{Field: billing.FieldPlanTier, From: "pro", To: "free"},
					{Field: billing.FieldStatus, From: "active", To: "canceled"},
					{Field: billing.FieldEndedAt, To: readAt},
					{Field: billing.FieldOrgTier, From: "pro", To: "free"},
					{Field: billing.FieldOrgStatus, From: "active", To: "canceled"},
				},
			},
		},
		"recorded subscription and customer missing": {
			truth: billing.Truth{CustomerMissing: true, ReadAt: readAt}, record: recorded("sub_gone"),
			want: billing.Plan{
				Outcome: "synced", Reason: "subscription_missing", RowID: "row_1",
				Changes: []billing.Change{
					{Field: billing.FieldPlanTier, From: "pro", To: "free"},
					{Field: billing.FieldStatus, From: "active", To: "canceled"},
					{Field: billing.FieldEndedAt, To: readAt},
					{Field: billing.FieldOrgTier, From: "pro", To: "free"},
					{Field: billing.FieldOrgStatus, From: "active", To: "canceled"},
				},
			},
		},
		"recorded subscription missing keeps the date it ended": {
			truth: truth(), record: recorded("sub_gone", func(r *billing.Row) { r.EndedAt = ptr(endedAt) }),
			want: billing.Plan{
				Outcome: "synced", Reason: "subscription_missing", RowID: "row_1",
				Changes: []billing.Change{
					{Field: billing.FieldPlanTier, From: "pro", To: "free"},
					{Field: billing.FieldStatus, From: "active", To: "canceled"},
					{Field: billing.FieldOrgTier, From: "pro", To: "free"},
					{Field: billing.FieldOrgStatus, From: "active", To: "canceled"},
				},
			},
		},
		"recorded subscription missing and already ended here": {
			truth: truth(),
			record: billing.Record{
				Org: organization(func(o *billing.Organization) { o.Tier, o.Status = "free", "canceled" }),
				Rows: []billing.Row{row("row_1", "sub_gone", func(r *billing.Row) {
					r.Tier, r.Status, r.EndedAt = "free", "canceled", ptr(endedAt)
				})},
			},
			want: billing.Plan{Outcome: "skipped", Reason: "in_sync", RowID: "row_1"},
		},
		"recorded subscription missing and the customer has another": {
			truth: truth(subscription("sub_2", "active")), record: recorded("sub_gone"),
			want: billing.Plan{
				Outcome: "synced", Reason: "repaired", GoverningID: "sub_2", RowID: "row_1",
				Changes: []billing.Change{{Field: billing.FieldSubscriptionID, From: "sub_gone", To: "sub_2"}},
			},
		},
		"recorded subscription missing and the customer's others belong to another organization": {
			truth:  claimed(truth(subscription("sub_2", "active")), recordedElsewhere("sub_2")),
			record: recorded("sub_gone", func(r *billing.Row) { r.EndedAt = ptr(endedAt) }),
			want: billing.Plan{
				Outcome: "synced", Reason: "subscription_missing", RowID: "row_1",
				Changes: []billing.Change{
					{Field: billing.FieldPlanTier, From: "pro", To: "free"},
					{Field: billing.FieldStatus, From: "active", To: "canceled"},
					{Field: billing.FieldOrgTier, From: "pro", To: "free"},
					{Field: billing.FieldOrgStatus, From: "active", To: "canceled"},
				},
			},
		},
		"in sync": {
			truth: truth(subscription("sub_1", "active")), record: recorded("sub_1"),
			want: billing.Plan{Outcome: "skipped", Reason: "in_sync", GoverningID: "sub_1", RowID: "row_1"},
		},
		"repaired": {
			truth: truth(subscription("sub_1", "past_due", func(s *billing.Subscription) {
				s.Items, s.CancelAtPeriodEnd = []billing.SubscriptionItem{{PriceID: "price_max"}}, true
				s.TrialEnd, s.CanceledAt = trialEnd, canceledAt
				s.CurrentPeriodEnd = periodEnd.Add(24 * time.Hour)
			})),
			record: recorded("sub_1"),
			want: billing.Plan{
				Outcome: "synced", Reason: "repaired", GoverningID: "sub_1", RowID: "row_1",
				Changes: []billing.Change{
					{Field: billing.FieldPriceID, From: "price_pro", To: "price_max"},
					{Field: billing.FieldPlanTier, From: "pro", To: "max"},
					{Field: billing.FieldStatus, From: "active", To: "past_due"},
					{Field: billing.FieldCurrentPeriodEnd, From: periodEnd, To: periodEnd.Add(24 * time.Hour)},
					{Field: billing.FieldTrialEnd, To: trialEnd},
					{Field: billing.FieldCancelAtPeriodEnd, From: false, To: true},
					{Field: billing.FieldCanceledAt, To: canceledAt},
					{Field: billing.FieldOrgTier, From: "pro", To: "max"},
					{Field: billing.FieldOrgStatus, From: "active", To: "past_due"},
					{Field: billing.FieldOrgTrialEndsAt, To: trialEnd},
				},
			},
		},
		"governing subscription but no row": {
			truth: truth(subscription("sub_1", "active")), record: customerOnly(),
			want: billing.Plan{
				Outcome: "synced", Reason: "row_inserted", GoverningID: "sub_1", Insert: true,
				Changes: append(insertOfActive("sub_1"),
					billing.Change{Field: billing.FieldOrgTier, From: "free", To: "pro"},
					billing.Change{Field: billing.FieldOrgStatus, From: "incomplete", To: "active"},
				),
			},
		},
		"canceled subscription but no row": {
			truth: truth(subscription("sub_1", "canceled")), record: paid,
			want: billing.Plan{
				Outcome: "synced", Reason: "row_inserted", GoverningID: "sub_1", Insert: true,
				Changes: []billing.Change{
					{Field: billing.FieldSubscriptionID, To: "sub_1"},
					{Field: billing.FieldCustomerID, To: "cus_1"},
					{Field: billing.FieldPriceID, To: "price_pro"},
					{Field: billing.FieldPlanTier, To: "free"},
					{Field: billing.FieldStatus, To: "canceled"},
					{Field: billing.FieldCurrentPeriodStart, To: periodStart},
					{Field: billing.FieldCurrentPeriodEnd, To: periodEnd},
					{Field: billing.FieldCancelAtPeriodEnd, To: false},
					{Field: billing.FieldOrgTier, From: "pro", To: "free"},
					{Field: billing.FieldOrgStatus, From: "active", To: "canceled"},
				},
			},
		},
		"conflict because the governing subscription stands on another organization's row": {
			truth:  claimed(truth(subscription("sub_1", "active", ofOrg(org))), recordedElsewhere("sub_1")),
			record: customerOnly(), reason: "subscription_conflict",
			want: billing.Plan{GoverningID: "sub_1"},
		},
		"conflict because metadata gives the only candidate to another organization": {
			truth:  claimed(truth(subscription("sub_1", "active", ofOrg(otherOrg))), existing(otherOrg)),
			record: customerOnly(), reason: "subscription_conflict",
		},
		"unknown status": {
			truth: truth(subscription("sub_1", "suspended")), record: recorded("sub_1"), reason: "unknown_status",
		},
		"tier unresolved": {
			rules: &billing.Rules{}, truth: truth(subscription("sub_1", "active")), record: recorded("sub_1"),
			reason: "tier_unresolved",
			want:   billing.Plan{GoverningID: "sub_1"},
		},
		"error keeps the warnings found": {
			truth: truth(
				subscription("sub_1", "active", of()),
				subscription("sub_2", "past_due")),
			record: billing.Record{Org: organization(), Rows: []billing.Row{row("row_1", "sub_1"), row("row_2", "sub_0")}},
			want:   billing.Plan{Warnings: warn("multiple_live_subscriptions", "multiple_subscription_rows")},
			reason: "invalid_subscription",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := rules
			if tt.rules != nil {
				r = *tt.rules
			}
			got, err := r.Plan(tt.truth, tt.record)
			if reason := reasonOf(t, err); reason != tt.reason {
				t.Fatalf("Plan() = %v, want reason %q", err, tt.reason)
			}
			if diff := cmp.Diff(tt.want, got, samePlan); diff != "" {
				t.Errorf("Plan() (-want +got)\n%s", diff)
			}
		})
	}
}

func TestPlanWithoutSubscriptionNamesThePaidTier(t *testing.T) {
	free := billing.Organization{ID: org, CustomerID: ptr("cus_1"), Tier: "free", Status: "incomplete"}
	paid := free
	paid.Tier = "pro"
	tests := map[string]billing.Record{
		"of the organization": {Org: paid},
		"of a row": {Org: free, Rows: []billing.Row{
			{ID: "row_1", Tier: "free", Status: "canceled"}, {ID: "row_2", Tier: "pro", Status: "active"},
		}},
	}
	for name, record := range tests {
		t.Run(name, func(t *testing.T) {
			plan := mustPlan(t, rules, truth(), record)
			assertWarning(t, plan, billing.WarnPaidWithoutSubscription, "tier pro ", "complimentary")
		})
	}
}

// The older row grants the access, the newer one is a checkout that was never finished.
func TestAMissingSubscriptionEndsTheRowThatRecordsIt(t *testing.T) {
	later := func(r *billing.Row) { r.CreatedAt = created.Add(time.Hour) }
	record := recorded("sub_gone")
	record.Rows = append(record.Rows, row("row_2", "", later, func(r *billing.Row) { r.SubscriptionID, r.Tier, r.Status = nil, "free", "incomplete" }))
	plan := mustPlan(t, rules, truth(), record)
	if plan.RowID != "row_1" || plan.Reason != billing.ReasonSubscriptionMissing || !lowers(plan) {
		t.Errorf("%+v", plan)
	}
	record.Rows = append(record.Rows, row("row_3", "sub_gone_too", later))
	if plan := mustPlan(t, rules, truth(), record); plan.RowID != "row_3" {
		t.Errorf("of two that record one the latest is %s", plan.RowID)
	}
}
