package chaos_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// hostile is a text that no program may interpret as SQL, HTML or a format.
const hostile = `Robert'); DROP TABLE subscriptions;-- <script>alert("x")</script> ${jndi:ldap://example.com/a} %s %n`

// population is the organizations of a round.
type population struct {
	eligible       map[string]bool           // organizations that every run lists
	named          map[string]bool           // those that only a sweep finds
	unreconcilable map[string]billing.Reason // those that must end in error, and why
	subscriptions  []orgSubscription         // those that may change in Stripe
}

// orgSubscription is a subscription of an organization.
type orgSubscription struct{ org, subscription string }

// populate fills the tables and Stripe with a demonstration's organizations, some that cannot be reconciled, and some with
// hostile texts.
func populate(ctx context.Context, db *sql.DB, stripe *stripetest.Server, o demo.Options) (p population, err error) {
	p = population{eligible: map[string]bool{}, named: map[string]bool{}, unreconcilable: map[string]billing.Reason{}}
	if _, err := demo.Populate(ctx, db, stripe, o); err != nil {
		return p, err
	}
	for i := range o.Orgs {
		if e := demo.Expect(o, i); e.Listed {
			p.eligible[e.OrgID] = true
		}
	}
	err = each(ctx, db, func(rows *sql.Rows) error {
		var s orgSubscription
		err := rows.Scan(&s.org, &s.subscription)
		p.subscriptions = append(p.subscriptions, s)
		return err
	}, `SELECT org_id, stripe_subscription_id FROM subscriptions s JOIN organizations o ON o.id = org_id
		WHERE stripe_subscription_id IS NOT NULL AND is_deleted = 0 ORDER BY s.id`)
	if err != nil {
		return p, err
	}
	p.subscriptions = slices.DeleteFunc(p.subscriptions, func(s orgSubscription) bool {
		sub, exists := stripe.Subscription(s.subscription)
		return !exists || sub.Metadata["orgId"] != s.org
	})
	err = p.addUnusual(ctx, db, stripe, o.Now)
	return p, err
}

// unusual is an organization with an unusual subscription in Stripe.
type unusual struct {
	name        string
	reason      billing.Reason // the reason of its error; "" if it can be reconciled
	hasCustomer bool           // if false, only metadata connects it with its subscription
	change      func(*stripetest.Subscription)
}

var unusuals = []unusual{
	{"unknown status", billing.ReasonUnknownStatus, true, func(s *stripetest.Subscription) { s.Status = "frozen" }},
	{"unknown price", billing.ReasonTierUnresolved, true, func(s *stripetest.Subscription) {
		s.PriceID = "price_not_configured"
		delete(s.Metadata, "tier")
	}},
	{"date that no column can hold", billing.ReasonInvalidSubscription, true, func(s *stripetest.Subscription) {
		s.CurrentPeriodEnd = time.Date(2100, time.January, 1, 0, 0, 0, 0, time.UTC).Unix()
	}},
	{"text in place of a date", billing.ReasonInvalidSubscription, true, func(s *stripetest.Subscription) {
		s.Override = map[string]any{"current_period_end": hostile}
	}},
	{"subscription that another row records", billing.ReasonSubscriptionConflict, true, func(*stripetest.Subscription) {}},
	{"hostile texts", "", true, func(s *stripetest.Subscription) { s.Metadata["note"], s.Metadata["tier"] = hostile, hostile }},
	{"a mebibyte", "", true, func(s *stripetest.Subscription) {
		s.Override = map[string]any{"description": strings.Repeat("x", 1<<20)}
	}},
	{"connected only by metadata", "", false, func(*stripetest.Subscription) {}},
}

func (p *population) addUnusual(ctx context.Context, db *sql.DB, stripe *stripetest.Server, now time.Time) error {
	var orgs []appschema.Organization
	var rows []appschema.Subscription
	for i, u := range unusuals {
		id := fmt.Sprintf("0dd00000-0000-4000-8000-%012d", i)
		customer, subscription := fmt.Sprintf("cus_odd%d", i), fmt.Sprintf("sub_odd%d", i)
		org := appschema.Organization{ID: id, Name: hostile, CreatedBy: hostile, StripeCustomerID: &customer}
		if u.hasCustomer {
			p.eligible[id] = true
		} else {
			org.StripeCustomerID = nil
			p.named[id] = true
		}
		sub := stripetest.Subscription{
			ID: subscription, CustomerID: customer, Status: "active", PriceID: priceOf("PRO"), Created: now.Unix() - 100,
			Metadata: map[string]string{"orgId": id, "tier": "pro"},
		}
		u.change(&sub)
		stripe.PutSubscription(sub)
		orgs = append(orgs, org)
		if u.reason == "" {
			continue
		}
		p.unreconcilable[id] = u.reason
		if u.reason == billing.ReasonSubscriptionConflict {
			other := fmt.Sprintf("0ddffff0-0000-4000-8000-%012d", i)
			orgs = append(orgs, appschema.Organization{ID: other, Name: hostile, CreatedBy: hostile})
			rows = append(rows, appschema.Subscription{ID: other, OrgID: other, StripeSubscriptionID: &subscription})
			p.eligible[other] = true
		}
	}
	if err := appschema.InsertOrganizations(ctx, db, orgs); err != nil {
		return err
	}
	return appschema.InsertSubscriptions(ctx, db, rows)
}

// priceOf returns the monthly price of a tier.
func priceOf(tier string) string {
	first, _, _ := strings.Cut(demo.Prices()["STRIPE_PRICE_ID_"+tier], ",")
	return first
}
