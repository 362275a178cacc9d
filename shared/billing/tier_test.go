package billing_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// written is what a plan for an organization without a row writes as tiers and statuses. The
// organization's status is one that no subscription maps to, so it must be a change.
type written struct{ RowTier, OrgTier, RowStatus, OrgStatus any }

func writtenFor(t *testing.T, r billing.Rules, s billing.Subscription) written {
	t.Helper()
	record := billing.Record{Org: billing.Organization{ID: org, CustomerID: ptr("cus_1"), Tier: string(r.Tiers.Lowest()), Status: "dormant"}}
	plan := mustPlan(t, r, truth(s), record)
	to := func(field string) any {
		c, ok := changeOf(plan, field)
		if !ok && field == billing.FieldOrgTier {
			return record.Org.Tier
		}
		if !ok {
			t.Errorf("%s is not written", field)
		}
		return c.To
	}
	return written{to(billing.FieldPlanTier), to(billing.FieldOrgTier), to(billing.FieldStatus), to(billing.FieldOrgStatus)}
}

func TestStatusBecomesColumns(t *testing.T) {
	tests := map[billing.Status]written{
		"active":             {"pro", "pro", "active", "active"},
		"trialing":           {"pro", "pro", "trialing", "trialing"},
		"past_due":           {"pro", "pro", "past_due", "past_due"},
		"unpaid":             {"pro", "pro", "unpaid", "past_due"},
		"paused":             {"free", "free", "incomplete", "incomplete"},
		"incomplete":         {"free", "free", "incomplete", "incomplete"},
		"canceled":           {"free", "free", "canceled", "canceled"},
		"incomplete_expired": {"free", "free", "incomplete_expired", "canceled"},
	}
	for status, want := range tests {
		t.Run(string(status), func(t *testing.T) {
			if !status.Known() {
				t.Errorf("Known() = false")
			}
			got := writtenFor(t, rules, subscription("sub_1", status))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("written (-want +got)\n%s", diff)
			}
		})
	}
}

func TestPriceDecidesTheTierBeforeMetadataAndDefault(t *testing.T) {
	prices := rules.Prices
	tests := map[string]struct {
		rules           billing.Rules
		status          billing.Status
		price, metadata string
		want            billing.Tier // "" is tier_unresolved
	}{
		"price before metadata and default":          {billing.Rules{Prices: prices, DefaultTier: "starter"}, "active", "price_pro", "max", "pro"},
		"metadata before default":                    {billing.Rules{Prices: prices, DefaultTier: "starter"}, "active", "price_x", "max", "max"},
		"default":                                    {billing.Rules{Prices: prices, DefaultTier: "starter"}, "active", "price_x", "", "starter"},
		"metadata without any price configured":      {billing.Rules{}, "active", "price_x", "starter", "starter"},
		"metadata in capitals and with spaces":       {billing.Rules{}, "active", "price_x", " Pro\t", "pro"},
		"price ids are compared exactly":             {billing.Rules{Prices: prices}, "active", "PRICE_PRO", "", ""},
		"unknown metadata falls to the default":      {billing.Rules{DefaultTier: "starter"}, "active", "price_x", "enterprise", "starter"},
		"unknown metadata alone":                     {billing.Rules{}, "active", "price_x", "enterprise", ""},
		"nothing":                                    {billing.Rules{}, "active", "price_x", "", ""},
		"free in metadata falls to the default":      {billing.Rules{DefaultTier: "starter"}, "active", "price_x", "free", "starter"},
		"free in metadata alone, active":             {billing.Rules{}, "active", "price_x", "free", ""},
		"free in metadata alone, past_due":           {billing.Rules{}, "past_due", "price_x", " free ", ""},
		"price before free in metadata":              {billing.Rules{Prices: prices}, "active", "price_max", "free", "max"},
		"paused is free whatever the price":          {billing.Rules{Prices: prices, DefaultTier: "max"}, "paused", "price_max", "max", "free"},
		"unpaid without any tier":                    {billing.Rules{Prices: prices}, "unpaid", "price_x", "", ""},
		"canceled needs no tier":                     {billing.Rules{}, "canceled", "price_x", "", "free"},
		"canceled is free whatever the price":        {billing.Rules{Prices: prices, DefaultTier: "max"}, "canceled", "price_max", "max", "free"},
		"incomplete is free whatever the price":      {billing.Rules{Prices: prices, DefaultTier: "max"}, "incomplete", "price_max", "max", "free"},
		"incomplete_expired is free, whatever price": {billing.Rules{Prices: prices, DefaultTier: "max"}, "incomplete_expired", "price_max", "max", "free"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := subscription("sub_1", tt.status, func(s *billing.Subscription) {
				s.Items, s.MetadataTier = []billing.SubscriptionItem{{PriceID: tt.price}}, tt.metadata
			})
			if tt.want == "" {
				plan, err := tt.rules.Plan(truth(s), recorded("sub_1"))
				if got := reasonOf(t, err); got != "tier_unresolved" || len(plan.Changes) > 0 {
					t.Errorf("Plan() = %+v, %v, want tier_unresolved", plan, err)
				}
				return
			}
			got := writtenFor(t, tt.rules, s)
			if got.RowTier != string(tt.want) || got.OrgTier != string(tt.want) {
				t.Errorf("tiers = %v and %v, want %s in both tables", got.RowTier, got.OrgTier, tt.want)
			}
		})
	}
}

func TestMetadataThatDisagreesWithThePriceGivesAWarning(t *testing.T) {
	tests := map[string]struct {
		status          billing.Status
		price, metadata string
		want            bool
	}{
		"metadata says less":                       {"active", "price_max", "starter", true},
		"metadata says more":                       {"active", "price_starter", "max", true},
		"metadata says free":                       {"active", "price_pro", "Free ", true},
		"past_due":                                 {"past_due", "price_pro", "max", true},
		"trialing":                                 {"trialing", "price_pro", "max", true},
		"unpaid, whose price decides as well":      {"unpaid", "price_pro", "max", true},
		"paused is free whatever they say":         {"paused", "price_pro", "max", false},
		"they agree":                               {"active", "price_pro", "pro", false},
		"they agree but for case and spaces":       {"active", "price_pro", " PRO ", false},
		"no metadata":                              {"active", "price_pro", "", false},
		"metadata names no tier":                   {"active", "price_pro", "enterprise", false},
		"price not configured":                     {"active", "price_x", "max", false},
		"canceled is free whatever they say":       {"canceled", "price_pro", "max", false},
		"incomplete is free whatever they say":     {"incomplete", "price_pro", "max", false},
		"an expired checkout is free, as they are": {"incomplete_expired", "price_pro", "max", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			plan := mustPlan(t, rules, truth(subscription("sub_1", tt.status, func(s *billing.Subscription) {
				s.Items, s.MetadataTier = []billing.SubscriptionItem{{PriceID: tt.price}}, tt.metadata
			})), recorded("sub_1"))
			if !tt.want {
				if len(plan.Warnings) > 0 {
					t.Errorf("warnings = %+v, want none", plan.Warnings)
				}
				return
			}
			assertWarning(t, plan, billing.WarnTierMetadataMismatch, "sub_1", tt.price, "webhook", "correct the metadata in Stripe")
		})
	}
}

func TestMetadataOfASubscriptionThatDoesNotGovernGivesNoWarning(t *testing.T) {
	other := subscription("sub_2", "past_due", func(s *billing.Subscription) { s.MetadataTier = "max" })
	plan := mustPlan(t, rules, truth(subscription("sub_1", "active"), other), recorded("sub_1"))
	if diff := cmp.Diff(warn(billing.WarnMultipleLive), plan.Warnings, samePlan); diff != "" {
		t.Errorf("warnings (-want +got)\n%s", diff)
	}
}

// The tiers have other names and ranks than the default ones, and a price is listed for the lowest.
func TestTiersComeFromTheConfiguration(t *testing.T) {
	r := billing.Rules{
		Tiers:    billing.Tiers{"None", "max", "Team"},
		Prices:   map[string]billing.Tier{"price_0": "None", "price_team": "Team"},
		Products: map[string]billing.Tier{"prod_max": "max", "prod_team": "Team"},
	}
	tests := map[string]struct {
		status                   billing.Status
		price, product, metadata string
		want                     billing.Tier // "" is tier_unresolved
	}{
		"by price":                         {"active", "price_team", "", "", "Team"},
		"by product":                       {"active", "price_x", "prod_max", "", "max"},
		"price before product":             {"active", "price_team", "prod_max", "", "Team"},
		"product before metadata":          {"active", "price_x", "prod_max", "Team", "max"},
		"a price of nothing":               {"active", "price_0", "prod_team", "", "None"},
		"metadata in other case":           {"active", "price_x", "prod_x", " TEAM", "Team"},
		"metadata of a tier that was":      {"active", "price_x", "prod_x", "pro", ""},
		"the lowest in metadata":           {"active", "price_x", "prod_x", "none", ""},
		"nothing":                          {"active", "price_x", "", "", ""},
		"canceled, whatever the product":   {"canceled", "price_x", "prod_team", "", "None"},
		"product ids are compared exactly": {"active", "price_x", "PROD_MAX", "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := subscription("sub_1", tt.status, func(s *billing.Subscription) {
				s.Items, s.MetadataTier = []billing.SubscriptionItem{{PriceID: tt.price, ProductID: tt.product}}, tt.metadata
			})
			if tt.want == "" {
				_, err := r.Plan(truth(s), recorded("sub_1"))
				if reasonOf(t, err) != billing.ReasonTierUnresolved {
					t.Errorf("Plan() = %v", err)
				}
				return
			}
			if got := writtenFor(t, r, s); got.RowTier != string(tt.want) || got.OrgTier != string(tt.want) {
				t.Errorf("tiers = %v and %v, want %s in both tables", got.RowTier, got.OrgTier, tt.want)
			}
		})
	}
	lost := billing.Change{Field: billing.FieldPlanTier, From: "Team", To: "max"}
	if !r.Tiers.LowersAccess([]billing.Change{lost}) || billing.DefaultTiers.LowersAccess([]billing.Change{{Field: lost.Field, From: "pro", To: "max"}}) {
		t.Error("the rank is not that of the list")
	}
	gone := mustPlan(t, r, truth(), recorded("sub_gone"))
	if c, ok := changeOf(gone, billing.FieldOrgTier); !ok || c.To != "None" {
		t.Errorf("a missing subscription ends in %+v", gone.Changes)
	}
	assertWarning(t, mustPlan(t, r, truth(), customerOnly()), billing.WarnPaidWithoutSubscription, "tier free") // which is none of them
	s := subscription("sub_1", "active", func(s *billing.Subscription) {
		s.Items, s.MetadataTier = []billing.SubscriptionItem{{PriceID: "price_x", ProductID: "prod_max"}}, "None"
	})
	assertWarning(t, mustPlan(t, r, truth(s), recorded("sub_1")), billing.WarnTierMetadataMismatch, "product prod_max is tier max but metadata.tier says None")
}
