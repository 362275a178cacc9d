package testworld

import (
	"fmt"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

func changed[T any](v T, changes []func(*T)) T {
	for _, change := range changes {
		change(&v)
	}
	return v
}

// Organization returns an organization of the customer "cus_ID", in sync with a subscription of price_pro.
func Organization(id string, changes ...func(*appschema.Organization)) appschema.Organization {
	return changed(appschema.Organization{
		ID: id, Name: "Name of " + id, CreatedBy: "user-1", StripeCustomerID: new("cus_" + id),
		SubscriptionStatus: "active", SubscriptionTier: "pro", CreatedAt: Created, UpdatedAt: Created,
	}, changes)
}

// Row returns the organization's subscriptions row, of the subscription "sub_ID".
func Row(id string, changes ...func(*appschema.Subscription)) appschema.Subscription {
	return changed(appschema.Subscription{
		ID: "row-" + id, OrgID: id, StripeSubscriptionID: new("sub_" + id), StripePriceID: new("price_pro"), StripeCustomerID: new("cus_" + id),
		PlanTier: "pro", Status: "active", CurrentPeriodStart: new(PeriodStart), CurrentPeriodEnd: new(PeriodEnd),
		CancelAtPeriodEnd: new(false), CreatedAt: Created, UpdatedAt: Created,
	}, changes)
}

// Subscription returns the active subscription "sub_ID" of the customer "cus_ID", with price_pro.
func Subscription(id string, changes ...func(*stripetest.Subscription)) stripetest.Subscription {
	return changed(stripetest.Subscription{
		ID: "sub_" + id, CustomerID: "cus_" + id, Status: "active", PriceID: "price_pro",
		Created: Created.Unix(), CurrentPeriodStart: PeriodStart.Unix(), CurrentPeriodEnd: PeriodEnd.Unix(),
	}, changes)
}

// Org inserts an [Organization].
func (w *World) Org(id string, changes ...func(*appschema.Organization)) {
	w.Helper()
	w.insert([]appschema.Organization{Organization(id, changes...)}, nil)
}

// Row inserts a [Row].
func (w *World) Row(id string, changes ...func(*appschema.Subscription)) {
	w.Helper()
	w.insert(nil, []appschema.Subscription{Row(id, changes...)})
}

func (w *World) insert(orgs []appschema.Organization, rows []appschema.Subscription) {
	w.Helper()
	if err := appschema.InsertOrganizations(w.Context(), w.DB.DB, orgs); err != nil {
		w.Fatal(err)
	}
	if err := appschema.InsertSubscriptions(w.Context(), w.DB.DB, rows); err != nil {
		w.Fatal(err)
	}
}

// Sub adds a [Subscription] to Stripe.
func (w *World) Sub(id string, changes ...func(*stripetest.Subscription)) {
	w.Stripe.PutSubscription(Subscription(id, changes...))
}

// Subscriber adds an organization, its row and its subscription in Stripe. The changes apply to the subscription only.
func (w *World) Subscriber(id string, changes ...func(*stripetest.Subscription)) {
	w.Helper()
	w.Org(id)
	w.Row(id)
	w.Sub(id, changes...)
}

// Subscribers adds organizations that are in sync, many in a statement.
func (w *World) Subscribers(ids ...string) {
	w.Helper()
	const atOnce = 500
	for len(ids) > 0 {
		var orgs []appschema.Organization
		var rows []appschema.Subscription
		some := ids[:min(atOnce, len(ids))]
		ids = ids[len(some):]
		for _, id := range some {
			orgs, rows = append(orgs, Organization(id)), append(rows, Row(id))
			w.Sub(id)
		}
		w.insert(orgs, rows)
	}
}

// WithoutCustomer removes the organization's customer.
func WithoutCustomer(o *appschema.Organization) { o.StripeCustomerID = nil }

// Free puts the organization on the free tier.
func Free(o *appschema.Organization) { o.SubscriptionTier, o.SubscriptionStatus = "free", "canceled" }

// Canceled cancels the subscription two days before [Start].
func Canceled(s *stripetest.Subscription) {
	s.Status, s.CanceledAt, s.EndedAt = "canceled", Start.Add(-48*time.Hour).Unix(), Start.Add(-47*time.Hour).Unix()
}

// PastDue makes the subscription past_due.
func PastDue(s *stripetest.Subscription) { s.Status = "past_due" }

// Price gives the subscription this price.
func Price(id string) func(*stripetest.Subscription) {
	return func(s *stripetest.Subscription) { s.PriceID = id }
}

// Numbered returns n ids: "org-000", "org-001" and so on.
func Numbered(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("org-%03d", i)
	}
	return ids
}

// DryRun makes the run a dry run.
func DryRun(r *billing.Run) { r.DryRun = true }

// OpenRun opens a run over the organizations, in the state after its enumeration.
func (w *World) OpenRun(id string, orgIDs []string, changes ...func(*billing.Run)) {
	w.Helper()
	run := changed(billing.Run{
		ID: id, Strategy: billing.StrategyRetrieve, StartedAt: w.Now(), DeadlineAt: w.Now().Add(12 * time.Hour), DowngradeLimit: 100,
	}, changes)
	if _, err := w.Store.OpenRun(w.Context(), run); err != nil {
		w.Fatal(err)
	}
	for _, org := range orgIDs {
		w.Exec(`INSERT INTO reconciliation_items (run_key, org_id) VALUES ((SELECT run_key FROM reconciliation_runs WHERE id = ?),?)`, id, org)
	}
	w.Exec(`UPDATE reconciliation_runs SET status = 'running', listed = TRUE, total = ?, downgrade_limit = ? WHERE id = ?`, len(orgIDs), run.DowngradeLimit, id)
}
