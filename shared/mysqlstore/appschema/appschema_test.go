package appschema_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

func TestMain(m *testing.M) { mysqltest.Main(m) }

// onEach runs a test on a server with concurrency and on the in-process one.
func onEach(t *testing.T, test func(t *testing.T, db *mysqltest.DB)) {
	t.Run("server", func(t *testing.T) { test(t, mysqltest.New(t)) })
	t.Run("in process", func(t *testing.T) { test(t, mysqltest.InProcess(t)) })
}

func at(text string) time.Time {
	when, err := time.Parse(time.DateTime, text)
	if err != nil {
		panic(err)
	}
	return when
}

func organization(n int) appschema.Organization {
	return appschema.Organization{
		ID:                   fmt.Sprintf("00000000-0000-0000-0000-%012d", n),
		Name:                 "Müller & Söhne 🚀",
		CreatedBy:            "user_1",
		StripeCustomerID:     new("cus_1"),
		SubscriptionStatus:   "past_due",
		SubscriptionTier:     "max",
		TrialEndsAt:          new(at("2026-11-22 03:04:05")),
		LastBillingWarningAt: new(at("2026-11-23 03:04:05")),
		IsDeleted:            true,
		CreatedAt:            at("2025-01-01 00:00:00"),
		UpdatedAt:            at("2025-01-02 00:00:00"),
	}
}

func subscription(n int) appschema.Subscription {
	return appschema.Subscription{
		ID:                   fmt.Sprintf("10000000-0000-0000-0000-%012d", n),
		OrgID:                organization(n).ID,
		StripeSubscriptionID: new(fmt.Sprintf("sub_%d", n)),
		StripePriceID:        new("price_1"),
		StripeCustomerID:     new("cus_1"),
		PlanTier:             "pro",
		Status:               "incomplete_expired",
		CurrentPeriodStart:   new(at("2026-11-01 00:00:00")),
		CurrentPeriodEnd:     new(at("2026-12-01 00:00:00")),
		TrialEnd:             new(at("2026-11-08 00:00:00")),
		CancelAtPeriodEnd:    new(true),
		CanceledAt:           new(at("2026-11-09 00:00:00")),
		EndedAt:              new(at("2026-11-10 00:00:00")),
		CreatedAt:            at("2025-01-01 00:00:00"),
		UpdatedAt:            at("2025-01-02 00:00:00"),
	}
}

func TestRowsAreReadBackUnchanged(t *testing.T) {
	onEach(t, func(t *testing.T, db *mysqltest.DB) {
		bareOrganization := appschema.Organization{ID: "a", Name: "bare", CreatedBy: "u"}
		bareSubscription := appschema.Subscription{ID: "b", OrgID: "a"}
		mustInsert(t, db,
			[]appschema.Organization{organization(1), bareOrganization},
			[]appschema.Subscription{subscription(1), bareSubscription})

		organizations, err := appschema.Organizations(t.Context(), db.DB)
		if err != nil {
			t.Fatal(err)
		}
		subscriptions, err := appschema.Subscriptions(t.Context(), db.DB)
		if err != nil {
			t.Fatal(err)
		}

		bareOrganization.SubscriptionStatus, bareOrganization.SubscriptionTier = "incomplete", "free"
		bareSubscription.PlanTier, bareSubscription.Status = "free", "incomplete"
		for _, created := range []time.Time{organizations[1].CreatedAt, organizations[1].UpdatedAt, subscriptions[1].CreatedAt, subscriptions[1].UpdatedAt} {
			if age := time.Since(created); age < -2*time.Second || age > time.Minute {
				t.Errorf("a default time is %v ago", age)
			}
		}
		bareOrganization.CreatedAt, bareOrganization.UpdatedAt = organizations[1].CreatedAt, organizations[1].UpdatedAt
		bareSubscription.CreatedAt, bareSubscription.UpdatedAt = subscriptions[1].CreatedAt, subscriptions[1].UpdatedAt
		if diff := cmp.Diff([]appschema.Organization{organization(1), bareOrganization}, organizations); diff != "" {
			t.Errorf("organizations (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]appschema.Subscription{subscription(1), bareSubscription}, subscriptions); diff != "" {
			t.Errorf("subscriptions (-want +got):\n%s", diff)
		}
	})
}

func TestInsertSplitsManyRowsIntoStatements(t *testing.T) {
	onEach(t, func(t *testing.T, db *mysqltest.DB) {
		var organizations []appschema.Organization
		var subscriptions []appschema.Subscription
		for n := range 501 {
			organizations = append(organizations, organization(n))
			subscriptions = append(subscriptions, subscription(n))
		}
		mustInsert(t, db, organizations, subscriptions)
		for _, table := range []string{"organizations", "subscriptions"} {
			if got := mysqltest.Value[int](t, db, "SELECT COUNT(*) FROM "+table); got != 501 {
				t.Errorf("%d %s, want 501", got, table)
			}
		}
	})
}

func TestInsertReportsARefusedRow(t *testing.T) {
	onEach(t, func(t *testing.T, db *mysqltest.DB) {
		if err := appschema.InsertSubscriptions(t.Context(), db.DB, []appschema.Subscription{subscription(1)}); err == nil {
			t.Error("accepted a subscription without its organization")
		}
		wrong := organization(1)
		wrong.SubscriptionTier = "gold"
		if err := appschema.InsertOrganizations(t.Context(), db.DB, []appschema.Organization{wrong}); err == nil {
			t.Error("accepted an unknown tier")
		}
	})
}

func TestInsertOfNoRowsSucceeds(t *testing.T) {
	db := mysqltest.InProcess(t)
	mustInsert(t, db, nil, nil)
}

func TestCreateFailsIfTheTablesExist(t *testing.T) {
	onEach(t, func(t *testing.T, db *mysqltest.DB) {
		if err := appschema.Create(t.Context(), db.DB); err == nil {
			t.Error("created the tables a second time")
		}
	})
}

func TestChecksumChangesWithEveryColumn(t *testing.T) {
	onEach(t, func(t *testing.T, db *mysqltest.DB) {
		mustInsert(t, db, []appschema.Organization{organization(1)}, []appschema.Subscription{subscription(1)})
		seen := map[string]string{}
		remember := func(after string) {
			sum, err := appschema.Checksum(t.Context(), db.DB)
			if err != nil {
				t.Fatal(err)
			}
			if before, ok := seen[sum]; ok {
				t.Errorf("the same checksum after %q and after %q", before, after)
			}
			seen[sum] = after
		}
		remember("inserting")
		for _, change := range []string{
			"organizations SET updated_at = '2025-01-03 00:00:00'",
			"organizations SET stripe_customer_id = '', updated_at = updated_at",
			"organizations SET stripe_customer_id = NULL, updated_at = updated_at",
			"organizations SET last_billing_warning_at = NULL, updated_at = updated_at",
			"organizations SET is_deleted = 0, updated_at = updated_at",
			"subscriptions SET cancel_at_period_end = FALSE, updated_at = updated_at",
			"subscriptions SET cancel_at_period_end = NULL, updated_at = updated_at",
			"subscriptions SET ended_at = NULL, updated_at = updated_at",
			"subscriptions SET updated_at = '2025-01-03 00:00:00'",
		} {
			db.MustExec(t, "UPDATE "+change)
			remember(change)
		}

		first, err := appschema.Checksum(t.Context(), db.DB)
		if err != nil {
			t.Fatal(err)
		}
		again, err := appschema.Checksum(t.Context(), db.DB)
		if err != nil {
			t.Fatal(err)
		}
		if first != again {
			t.Error("the checksum differs though nothing changed")
		}
	})
}

func mustInsert(t *testing.T, db *mysqltest.DB, organizations []appschema.Organization, subscriptions []appschema.Subscription) {
	t.Helper()
	if err := appschema.InsertOrganizations(t.Context(), db.DB, organizations); err != nil {
		t.Fatal(err)
	}
	if err := appschema.InsertSubscriptions(t.Context(), db.DB, subscriptions); err != nil {
		t.Fatal(err)
	}
}
