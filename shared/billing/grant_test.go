package billing_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// of sets the items of a subscription by their prices; a price's product is named like it.
func of(prices ...string) func(*billing.Subscription) {
	return func(s *billing.Subscription) {
		s.Items = nil
		for _, id := range prices {
			s.Items = append(s.Items, billing.SubscriptionItem{PriceID: id, ProductID: "prod_of_" + id})
		}
	}
}

// metered makes the items of these prices paid by use.
func metered(prices ...string) func(*billing.Subscription) {
	return func(s *billing.Subscription) {
		for i := range s.Items {
			s.Items[i].Metered = s.Items[i].Metered || slices.Contains(prices, s.Items[i].PriceID)
		}
	}
}

func tierInMetadata(tier string) func(*billing.Subscription) {
	return func(s *billing.Subscription) { s.MetadataTier = tier }
}

// recordedAt is in sync with the active subscription sub_1 of this price, but for tier and price.
func recordedAt(tier, price string) billing.Record {
	record := recorded("sub_1", func(r *billing.Row) { r.Tier, r.PriceID = tier, &price })
	record.Org.Tier = tier
	return record
}

func withRules(change func(*billing.Rules)) billing.Rules {
	r := rules
	r.Prices, r.Products = maps.Clone(r.Prices), map[string]billing.Tier{}
	change(&r)
	return r
}

// The cases come from reports about real accounts.
func TestTierOfSubscriptionsFromRealAccountsIsNeverGuessedDownwards(t *testing.T) {
	withDefault := withRules(func(r *billing.Rules) { r.DefaultTier = "starter" })
	tests := map[string]struct {
		rules    billing.Rules
		sub      billing.Subscription
		record   billing.Record
		want     string // the tier in both tables, "in sync" or the reason
		price    string // written; "" leaves the record's
		lowers   bool
		warnings []billing.WarningCode
	}{
		"a metered item in front of the plan, with DEFAULT_TIER": {
			rules: withDefault, sub: subscription("sub_1", "active", of("price_use", "price_pro"), metered("price_use")), record: recordedAt("pro", "price_pro"), want: "in sync",
		},
		"a metered item in front of the plan, with metadata.tier": {
			rules: rules, sub: subscription("sub_1", "active", of("price_use", "price_pro"), metered("price_use"), tierInMetadata("starter")), record: recordedAt("pro", "price_pro"),
			want: "in sync", warnings: []billing.WarningCode{billing.WarnTierMetadataMismatch},
		},
		"two plans": {
			rules: rules, sub: subscription("sub_1", "active", of("price_starter", "price_max")), record: recordedAt("starter", "price_starter"),
			want: "max", price: "price_max", warnings: []billing.WarningCode{billing.WarnSeveralTiers},
		},
		"the plan is the eleventh item": {
			rules: withDefault, sub: subscription("sub_1", "active", of("a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", "a10", "price_pro")), record: recordedAt("pro", "price_pro"), want: "in sync",
		},
		"moved to a price that is not listed, with DEFAULT_TIER": {
			rules: withDefault, sub: subscription("sub_1", "active", of("price_new")), record: recordedAt("pro", "price_pro"), want: "tier_unresolved",
		},
		"a price that is not listed, DEFAULT_TIER is what the record has": {
			rules: withDefault, sub: subscription("sub_1", "active", of("price_new")), record: recordedAt("starter", "price_new"), want: "in sync",
		},
		"a price that is not listed, DEFAULT_TIER is more than the record has": {
			rules: withDefault, sub: subscription("sub_1", "active", of("price_new")), record: recordedAt("free", "price_new"), want: "starter",
		},
		"a price that is not listed, DEFAULT_TIER is less than the row alone has": {
			rules: withDefault, sub: subscription("sub_1", "active", of("price_new")),
			record: billing.Record{Org: organization(func(o *billing.Organization) { o.Tier = "starter" }), Rows: recordedAt("pro", "price_pro").Rows}, want: "tier_unresolved",
		},
		"a licensed item that no list has beside a lower plan": {
			rules: rules, sub: subscription("sub_1", "active", of("price_new", "price_starter")), record: recordedAt("max", "price_max"), want: "tier_unresolved",
		},
		"a listed add-on beside a lower plan": {
			rules: withRules(func(r *billing.Rules) { r.Prices["price_seats"] = billing.Addon }), sub: subscription("sub_1", "active", of("price_seats", "price_starter")),
			record: recordedAt("max", "price_max"), want: "starter", price: "price_starter", lowers: true,
		},
		"a listed add-on behind a lower plan": {
			rules: withRules(func(r *billing.Rules) { r.Prices["price_seats"] = billing.Addon }), sub: subscription("sub_1", "active", of("price_starter", "price_seats")),
			record: recordedAt("max", "price_max"), want: "starter", price: "price_starter", lowers: true,
		},
		"an add-on listed by its product beside a lower plan": {
			rules: withRules(func(r *billing.Rules) { r.Products["prod_of_price_seats"] = billing.Addon }), sub: subscription("sub_1", "active", of("price_seats", "price_starter")),
			record: recordedAt("max", "price_max"), want: "starter", price: "price_starter", lowers: true,
		},
		"a metered item beside a lower plan": {
			rules: rules, sub: subscription("sub_1", "active", of("price_use", "price_starter"), metered("price_use")), record: recordedAt("max", "price_max"),
			want: "starter", price: "price_starter", lowers: true,
		},
		"a licensed item that no list has beside a higher plan": {
			rules: rules, sub: subscription("sub_1", "active", of("price_new", "price_max")), record: recordedAt("pro", "price_pro"), want: "max", price: "price_max",
		},
		"metadata.tier below the record, where prices are listed": {
			rules: rules, sub: subscription("sub_1", "active", of("price_new"), tierInMetadata("starter")), record: recordedAt("pro", "price_pro"), want: "tier_unresolved",
		},
		"metadata.tier below the record, where nothing is listed": {
			rules: billing.Rules{}, sub: subscription("sub_1", "active", of("price_new"), tierInMetadata("starter")), record: recordedAt("pro", "price_new"), want: "starter", lowers: true,
		},
		"paused: the trial ended without a card": {
			rules: rules, sub: subscription("sub_1", "paused", of("price_pro")), record: recordedAt("pro", "price_pro"), want: "free", lowers: true,
		},
		"ended, without items": {
			rules: rules, sub: subscription("sub_1", "canceled", of(), func(s *billing.Subscription) { s.EndedAt = endedAt }), record: recordedAt("pro", "price_pro"), want: "free", lowers: true,
		},
		"ended, without items and without a recorded price": {
			rules: rules, sub: subscription("sub_1", "canceled", of(), func(s *billing.Subscription) { s.EndedAt = endedAt }),
			record: recorded("sub_1", func(r *billing.Row) { r.PriceID = nil }), want: "free", lowers: true,
		},
		"active, without items": {
			rules: rules, sub: subscription("sub_1", "active", of(), tierInMetadata("pro")), record: recordedAt("pro", "price_pro"), want: "invalid_subscription",
		},
		"an add-on in front of the item that metadata.tier is about": {
			rules: withRules(func(r *billing.Rules) { r.Prices["price_seats"] = billing.Addon }), sub: subscription("sub_1", "active", of("price_seats", "price_new"), tierInMetadata("max")),
			record: recordedAt("pro", "price_pro"), want: "max", price: "price_new",
		},
		"of several items that would do the recorded one": {
			rules: withRules(func(r *billing.Rules) { r.Prices["price_pro_yearly"] = "pro" }), sub: subscription("sub_1", "active", of("price_pro", "price_pro_yearly")),
			record: recordedAt("pro", "price_pro_yearly"), want: "in sync",
		},
		"ends on a date without the flag": {
			rules: rules, sub: subscription("sub_1", "active", of("price_pro"), func(s *billing.Subscription) { s.CancelAt = periodEnd.Add(time.Hour) }), record: recordedAt("pro", "price_pro"),
			want: "in sync", warnings: []billing.WarningCode{billing.WarnCancellationScheduled},
		},
		"ends on a date with the flag": {
			rules: rules, sub: subscription("sub_1", "active", of("price_pro"), func(s *billing.Subscription) { s.CancelAt, s.CancelAtPeriodEnd = periodEnd, true }),
			record: recorded("sub_1", func(r *billing.Row) { r.CancelAtPeriodEnd = ptr(true) }), want: "in sync",
		},
		"collection is paused": {
			rules: rules, sub: subscription("sub_1", "active", of("price_pro"), func(s *billing.Subscription) { s.CollectionPaused = true }), record: recordedAt("pro", "price_pro"),
			want: "in sync", warnings: []billing.WarningCode{billing.WarnCollectionPaused},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			plan, err := test.rules.Plan(truth(test.sub), test.record)
			if got := summarized(plan, reasonOf(t, err)); got != test.want {
				t.Errorf("%s, want %s: %v, %v", got, test.want, plan.Changes, err)
			}
			if price, changed := changeOf(plan, billing.FieldPriceID); changed != (test.price != "") || changed && price.To != test.price {
				t.Errorf("price %v, want %q", price.To, test.price)
			}
			if lowers := test.rules.Tiers.LowersAccess(plan.Changes); lowers != test.lowers {
				t.Errorf("lowers access: %t", lowers)
			}
			var codes []billing.WarningCode
			for _, w := range plan.Warnings {
				codes = append(codes, w.Code)
			}
			if diff := cmp.Diff(test.warnings, codes); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

// summarized is the tier that both tables get, "in sync" or why nothing is planned.
func summarized(plan billing.Plan, refused billing.Reason) string {
	if refused != "" {
		return string(refused)
	}
	if len(plan.Changes) == 0 {
		return "in sync"
	}
	row, _ := changeOf(plan, billing.FieldPlanTier)
	org, _ := changeOf(plan, billing.FieldOrgTier)
	if row.To != org.To {
		return "two different tiers"
	}
	tier, _ := row.To.(string)
	return tier
}

func TestTheOrderOfTheItemsChangesNothing(t *testing.T) {
	prices := []string{"price_starter", "price_use", "price_max", "price_pro"}
	for range 24 {
		prices = append(prices[1:], prices[0])
		prices[0], prices[1] = prices[1], prices[0]
		plan := mustPlan(t, rules, truth(subscription("sub_1", "active", of(prices...), metered("price_use"))), recordedAt("max", "price_max"))
		if len(plan.Changes) > 0 {
			t.Errorf("%v: %v", prices, plan.Changes)
		}
	}
}

func TestRecordedIDsAreComparedWithoutTheWhiteSpaceAroundThem(t *testing.T) {
	record := recordedAt("pro", "price_pro")
	record.Rows[0].SubscriptionID, record.Rows[0].CustomerID, record.Org.CustomerID = ptr(" sub_1\n"), ptr("\tcus_1"), ptr("cus_1 ")
	if ids, customers := record.RecordedIDs(), record.CustomerIDs(); !slices.Equal(ids, []string{"sub_1"}) || !slices.Equal(customers, []string{"cus_1"}) {
		t.Errorf("%q, %q", ids, customers)
	}
	plan := mustPlan(t, rules, truth(subscription("sub_1", "active", of("price_pro"))), record)
	if plan.Insert || rules.Tiers.LowersAccess(plan.Changes) || len(plan.Changes) != 3 {
		t.Errorf("%+v", plan)
	}
}
