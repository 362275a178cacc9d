package billing_test

import (
	"slices"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// FuzzTier holds whatever Stripe may say of status, price and metadata to the columns' ENUMs and
// to the promise that who pays is never put on the free tier and who does not never on a paid one.
func FuzzTier(f *testing.F) {
	var (
		rowStatuses = []any{"active", "trialing", "past_due", "canceled", "incomplete", "incomplete_expired", "unpaid"}
		orgStatuses = []any{"active", "trialing", "past_due", "incomplete", "canceled"}
		paid        = []any{"starter", "pro", "max"}
		unpaidFor   = []billing.Status{"canceled", "incomplete_expired", "incomplete", "paused"}
	)
	f.Fuzz(func(t *testing.T, status, price, metadata, defaultTier string) {
		r := billing.Rules{Prices: rules.Prices}
		if slices.Contains(paid, any(defaultTier)) { // the configuration takes no other
			r.DefaultTier = billing.Tier(defaultTier)
		}
		s := subscription("sub_1", billing.Status(status), func(s *billing.Subscription) {
			s.Items, s.MetadataTier = []billing.SubscriptionItem{{PriceID: price}}, metadata
		})
		record := billing.Record{Org: billing.Organization{ID: org, Tier: "free", Status: "dormant"}}
		plan, err := r.Plan(truth(s), record)
		if err != nil {
			switch reason := reasonOf(t, err); {
			case !s.Status.Known() && reason == billing.ReasonUnknownStatus:
			case s.Status.Known() && reason == billing.ReasonInvalidSubscription && (price == "" || len(price) > 120):
			case s.Status.Known() && reason == billing.ReasonTierUnresolved && r.DefaultTier == "" && !slices.Contains(unpaidFor, s.Status):
			default:
				t.Errorf("refused: %v", err)
			}
			return
		}
		tierOf := func(field string) any {
			c, ok := changeOf(plan, field)
			if !ok && field == billing.FieldOrgTier {
				return record.Org.Tier
			}
			return c.To
		}
		wanted := paid
		if slices.Contains(unpaidFor, s.Status) {
			wanted = []any{"free"}
		}
		for field, allowed := range map[string][]any{
			billing.FieldPlanTier: wanted, billing.FieldOrgTier: {tierOf(billing.FieldPlanTier)},
			billing.FieldStatus: rowStatuses, billing.FieldOrgStatus: orgStatuses,
		} {
			if got := tierOf(field); !slices.Contains(allowed, got) {
				t.Errorf("%s = %v, want one of %v", field, got, allowed)
			}
		}
	})
}

// FuzzPlan holds the plan of two subscriptions and a row with arbitrary texts and dates to what
// callers rely on: no panic, a permanent failure or a plan that leaves nothing to do.
func FuzzPlan(f *testing.F) {
	f.Fuzz(func(t *testing.T, id, customer, status, price, orgID, tier string, createdAt, periodEnd, trialEnd int64,
		otherID, otherStatus, owner, rowID, rowCustomer, rowTier, rowStatus string, customerMissing, withRow bool,
	) {
		if status == otherStatus && id == otherID && id == "" {
			t.Skip("two objects without an id")
		}
		s := situation{
			rules: billing.Rules{Prices: rules.Prices, DefaultTier: "starter"},
			truth: claimed(truth(
				subscription(id, billing.Status(status), func(s *billing.Subscription) {
					s.CustomerID, s.OrgID, s.MetadataTier = customer, orgID, tier
					s.Items = []billing.SubscriptionItem{{PriceID: price}}
					s.Created, s.CurrentPeriodEnd = time.Unix(createdAt, 0), time.Unix(periodEnd, 0)
					if trialEnd != 0 {
						s.TrialEnd = time.Unix(trialEnd, 0)
					}
				}),
				subscription(otherID, billing.Status(otherStatus), ofOrg(orgID)),
			), billing.Claims{
				RecordedBy: map[string][]string{otherID: {owner}}, Named: map[string]string{orgID: owner},
			}),
			record: billing.Record{Org: billing.Organization{ID: org, CustomerID: &rowCustomer, Tier: rowTier, Status: rowStatus}},
		}
		s.truth.CustomerMissing = customerMissing
		if withRow {
			s.record.Rows = []billing.Row{{ID: "row_1", SubscriptionID: &rowID, CustomerID: &rowCustomer, Tier: rowTier, Status: rowStatus}}
		}
		if err := checkPlan(s); err != nil {
			t.Error(err)
		}
		slices.Reverse(s.truth.Subscriptions)
		if err := checkPlan(s); err != nil {
			t.Errorf("in the other order: %v", err)
		}
	})
}
