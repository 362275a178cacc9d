package billing_test

import (
	"errors"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// TestMain gives every property 1,000 attempts instead of rapid's 100; with -short rapid makes a fifth of them.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		if err := flag.Set("rapid.checks", "1000"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

const (
	org      = "0a4f6c1e-0000-4000-8000-00000000000a"
	otherOrg = "0a4f6c1e-0000-4000-8000-00000000000b"
)

var (
	created     = time.Date(2026, time.January, 10, 9, 30, 0, 0, time.UTC)
	periodStart = time.Date(2026, time.November, 10, 9, 30, 0, 0, time.UTC)
	periodEnd   = time.Date(2026, time.December, 10, 9, 30, 0, 0, time.UTC)
	trialEnd    = time.Date(2026, time.January, 24, 9, 30, 0, 0, time.UTC)
	canceledAt  = time.Date(2026, time.November, 12, 8, 0, 0, 0, time.UTC)
	endedAt     = time.Date(2026, time.November, 12, 8, 0, 1, 0, time.UTC)
	readAt      = time.Date(2026, time.November, 22, 3, 0, 0, 0, time.UTC)

	rules = billing.Rules{Prices: map[string]billing.Tier{
		"price_starter": billing.TierStarter, "price_pro": billing.TierPro, "price_max": billing.TierMax,
	}}
)

func ptr[T any](v T) *T { return &v }

// subscription returns one of customer cus_1 at price_pro, with changes.
func subscription(id string, status billing.Status, changes ...func(*billing.Subscription)) billing.Subscription {
	s := billing.Subscription{
		ID: id, CustomerID: "cus_1", Status: status, Items: []billing.SubscriptionItem{{PriceID: "price_pro"}},
		Created: created, CurrentPeriodStart: periodStart, CurrentPeriodEnd: periodEnd,
	}
	for _, change := range changes {
		change(&s)
	}
	return s
}

func ofOrg(id string) func(*billing.Subscription) {
	return func(s *billing.Subscription) { s.OrgID = id }
}

func createdAt(at time.Time) func(*billing.Subscription) {
	return func(s *billing.Subscription) { s.Created = at }
}

// organization returns one that agrees with an active subscription of cus_1 at price_pro.
func organization(changes ...func(*billing.Organization)) billing.Organization {
	o := billing.Organization{ID: org, CustomerID: ptr("cus_1"), Status: "active", Tier: "pro", UpdatedAt: created}
	for _, change := range changes {
		change(&o)
	}
	return o
}

// row returns one that agrees with the active subscription id of cus_1 at price_pro.
func row(id, subscriptionID string, changes ...func(*billing.Row)) billing.Row {
	r := billing.Row{
		ID: id, SubscriptionID: ptr(subscriptionID), CustomerID: ptr("cus_1"), PriceID: ptr("price_pro"),
		Tier: "pro", Status: "active", CurrentPeriodStart: ptr(periodStart), CurrentPeriodEnd: ptr(periodEnd),
		CancelAtPeriodEnd: ptr(false), CreatedAt: created, UpdatedAt: created,
	}
	for _, change := range changes {
		change(&r)
	}
	return r
}

// recorded returns a record with one row, in sync with the active subscription id.
func recorded(id string, changes ...func(*billing.Row)) billing.Record {
	return billing.Record{Org: organization(), Rows: []billing.Row{row("row_1", id, changes...)}}
}

// customerOnly returns an organization on the free tier that has a customer and no row.
func customerOnly() billing.Record {
	return billing.Record{Org: billing.Organization{ID: org, CustomerID: ptr("cus_1"), Status: "incomplete", Tier: "free"}}
}

func truth(subs ...billing.Subscription) billing.Truth {
	return billing.Truth{Subscriptions: subs, ReadAt: readAt}
}

func claimed(t billing.Truth, claims billing.Claims) billing.Truth {
	t.Claims = claims
	return t
}

func recordedElsewhere(ids ...string) billing.Claims {
	c := billing.Claims{RecordedBy: map[string][]string{}}
	for _, id := range ids {
		c.RecordedBy[id] = []string{otherOrg}
	}
	return c
}

// shared returns claims of two organizations that have the customer.
func shared(customer string) billing.Claims {
	return billing.Claims{SharedCustomers: map[string][]string{customer: {org, otherOrg}}}
}

// existing returns the claims of a case-insensitive database that has these organizations.
func existing(ids ...string) billing.Claims {
	c := billing.Claims{Named: map[string]string{}}
	for _, id := range ids {
		for _, spelled := range billing.Spellings([]string{id}) {
			c.Named[spelled] = id
		}
	}
	return c
}

func warn(codes ...billing.WarningCode) []billing.Warning {
	var all []billing.Warning
	for _, code := range codes {
		all = append(all, billing.Warning{Code: code})
	}
	return all
}

// samePlan compares whole plans, but only the codes of their warnings.
var samePlan = cmp.Options{cmpopts.EquateEmpty(), cmpopts.IgnoreFields(billing.Warning{}, "Message")}

func mustPlan(t testing.TB, r billing.Rules, truth billing.Truth, record billing.Record) billing.Plan {
	t.Helper()
	plan, err := r.Plan(truth, record)
	if err != nil {
		t.Fatalf("Plan() = %v", err)
	}
	return plan
}

// reasonOf returns the error's reason. The error must be a permanent failure with a message.
func reasonOf(t interface {
	Helper()
	Fatalf(string, ...any)
}, err error,
) billing.Reason {
	t.Helper()
	if err == nil {
		return ""
	}
	f, ok := errors.AsType[*billing.Failure](err)
	if !ok || f.Class != billing.Permanent || f.Message == "" {
		t.Fatalf("Plan() = %#v, want a permanent failure with a message", err)
	}
	return f.Reason
}

func changeOf(plan billing.Plan, field string) (billing.Change, bool) {
	for _, c := range plan.Changes {
		if c.Field == field {
			return c, true
		}
	}
	return billing.Change{}, false
}
