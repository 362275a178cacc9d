package mysqlstore_test

import (
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
)

func TestLatestRunIsTheRunStartedLast(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		if _, found, err := f.store.LatestRun(t.Context()); err != nil || found {
			t.Errorf("without a run: found %t, %v", found, err)
		}
		for i, id := range []string{"b", "c", "a"} {
			at := now.Add(-time.Duration(i) * time.Hour)
			if _, err := f.store.OpenRun(t.Context(), billing.Run{ID: id, DryRun: i == 0, StartedAt: at, DeadlineAt: at}); err != nil {
				t.Fatal(err)
			}
		}
		if run, found, err := f.store.LatestRun(t.Context()); err != nil || !found || run.ID != "b" || !run.DryRun {
			t.Errorf("%+v, found %t, %v", run, found, err)
		}
	})
}

func TestStoredSummaryIsReadBackUnchanged(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.MustExec(t, `INSERT INTO reconciliation_runs (id, status, dry_run, strategy, started_at, deadline_at) VALUES ('run-1','running',FALSE,'retrieve',?,?)`, now, now)
		for _, id := range []string{"run-1", "unknown"} {
			if _, found, err := f.store.StoredSummary(t.Context(), id); err != nil || found {
				t.Errorf("%s: found %t, %v", id, found, err)
			}
		}
		want := billing.Summary{RunID: "run-1", Status: billing.RunCompletedWithErrors, TotalOrganizations: 3, Errors: 1, Skipped: 2, StartedAt: now}
		if closed, err := f.store.CloseRun(t.Context(), billing.End{Summary: want, Baseline: billing.Baseline{}}, billing.RunRunning); err != nil || !closed {
			t.Fatalf("closed %t, %v", closed, err)
		}
		got, found, err := f.store.StoredSummary(t.Context(), "run-1")
		if diff := cmp.Diff(want, got); err != nil || !found || diff != "" {
			t.Errorf("found %t, %v\n%s", found, err, diff)
		}
	})
}

func TestSimilarOrganizationsAreFoundByIDAndName(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addOrganizations(t,
			appschema.Organization{ID: "0a4f6c1e-aaaa", Name: "Zebra 50% off", CreatedBy: "u", SubscriptionStatus: "active", SubscriptionTier: "free"},
			appschema.Organization{ID: "0a4f6c1e-bbbb", Name: "Acme", CreatedBy: "u", SubscriptionStatus: "active", SubscriptionTier: "free"},
			appschema.Organization{ID: "ffff", Name: "Not 0a4f6c1e-aaab", CreatedBy: "u", SubscriptionStatus: "active", SubscriptionTier: "free"},
			appschema.Organization{ID: "0a4f6c1e-gone", Name: "Acme, gone", CreatedBy: "u", IsDeleted: true, SubscriptionStatus: "active", SubscriptionTier: "free"},
		)
		for text, want := range map[string][]string{
			"0a4f6c1e-aaab": {"0a4f6c1e-bbbb", "0a4f6c1e-aaaa", "ffff"}, // similar ids come first, in the order of names
			"acme":          {"0a4f6c1e-bbbb"},
			"50% off":       {"0a4f6c1e-aaaa"},
			"%":             {"0a4f6c1e-aaaa"},
			"_":             nil,
			"ff":            {"ffff", "0a4f6c1e-aaaa"},
		} {
			similar, err := f.store.SimilarOrganizations(t.Context(), text, 5)
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, o := range similar {
				ids = append(ids, o.ID)
			}
			if diff := cmp.Diff(want, ids); diff != "" {
				t.Errorf("%q: %s", text, diff)
			}
		}
		similar, err := f.store.SimilarOrganizations(t.Context(), "0a4f6c1e", 1)
		if diff := cmp.Diff([]mysqlstore.NamedOrganization{{ID: "0a4f6c1e-bbbb", Name: "Acme"}}, similar); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	})
}

func TestOrganizationIsFoundByIDCustomerSubscriptionOrName(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		organization := func(id, name, customer string, deleted bool) appschema.Organization {
			return appschema.Organization{ID: id, Name: name, CreatedBy: "u", StripeCustomerID: &customer, IsDeleted: deleted, SubscriptionStatus: "active", SubscriptionTier: "free"}
		}
		f.addOrganizations(t,
			organization("a", "Acme", "cus_a", false), organization("b", "Twin", "cus_shared", false), organization("c", "Twin", "cus_shared", false),
			organization("gone", "Gone", "cus_gone", true), organization("Acme", "An id that is a name", "cus_odd", false),
		)
		for _, row := range [][3]string{{"1", "a", "sub_a"}, {"2", "a", "sub_a2"}, {"3", "gone", "sub_gone"}} {
			f.MustExec(t, `INSERT INTO subscriptions (id, org_id, stripe_subscription_id, stripe_customer_id) VALUES (?,?,?,'cus_of_row')`, row[0], row[1], row[2])
		}
		acme := []mysqlstore.NamedOrganization{{ID: "a", Name: "Acme"}}
		for text, want := range map[string]mysqlstore.Found{
			"a":          {By: mysqlstore.ByID, Organizations: acme},
			"gone":       {By: mysqlstore.ByID, Organizations: []mysqlstore.NamedOrganization{{ID: "gone", Name: "Gone"}}}, // an id is found although the organization is deleted
			"Acme":       {By: mysqlstore.ByID, Organizations: []mysqlstore.NamedOrganization{{ID: "Acme", Name: "An id that is a name"}}},
			"cus_a":      {By: mysqlstore.ByCustomer, Organizations: acme},
			"cus_of_row": {By: mysqlstore.ByCustomer, Organizations: acme},
			"cus_shared": {By: mysqlstore.ByCustomer, Organizations: []mysqlstore.NamedOrganization{{ID: "b", Name: "Twin"}, {ID: "c", Name: "Twin"}}},
			"cus_gone":   {},
			"sub_a2":     {By: mysqlstore.BySubscription, Organizations: acme},
			"sub_gone":   {},
			"Twin":       {By: mysqlstore.ByName, Organizations: []mysqlstore.NamedOrganization{{ID: "b", Name: "Twin"}, {ID: "c", Name: "Twin"}}},
			"Twi":        {},
			"%":          {},
		} {
			found, err := f.store.FindOrganizations(t.Context(), text, 5)
			if diff := cmp.Diff(want, found); err != nil || diff != "" {
				t.Errorf("%q: %v %s", text, err, diff)
			}
		}
	})
}

func TestNamesAreLeftOutIfTheLoginMayNotReadThem(t *testing.T) {
	f := onServer(t)
	f.addOrganizations(t, appschema.Organization{ID: "a", Name: "Acme", CreatedBy: "u", SubscriptionStatus: "active", SubscriptionTier: "free"})
	restricted := f.login(t, "SELECT (id, is_deleted, stripe_customer_id) ON organizations", "SELECT ON subscriptions")
	for name, c := range map[string]struct {
		store *mysqlstore.Store
		want  map[string]string
	}{"all rights": {f.store, map[string]string{"a": "Acme"}}, "no right to the column": {restricted, nil}} {
		if got, err := c.store.OrganizationNames(t.Context(), []string{"a", "unknown"}); err != nil || !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if found, err := restricted.FindOrganizations(t.Context(), "Acme", 5); err != nil || found.By != "" {
		t.Errorf("without the right to read names, a name found %+v, %v", found, err)
	}
	f.MustExec(t, `ALTER TABLE organizations DROP COLUMN name`)
	if got, err := f.store.OrganizationNames(t.Context(), []string{"a"}); err != nil || len(got) > 0 {
		t.Errorf("without the column: %v, %v", got, err)
	}
}

func TestUnfinishedRunsAreThoseWithPendingOrFailedItems(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		for i, r := range []struct {
			id     string
			dryRun bool
		}{{"clean", false}, {"dry", true}, {"failed", false}, {"pending", false}} {
			f.MustExec(t, `INSERT INTO reconciliation_runs (id, status, dry_run, strategy, started_at, deadline_at) VALUES (?,'running',?,'retrieve',?,?)`,
				r.id, r.dryRun, now.Add(time.Duration(i)*time.Hour), now)
		}
		for _, item := range []struct {
			run, org, outcome string
			decided           int
		}{
			{"clean", "a", "synced", 1},
			{"dry", "a", "error", 1},
			{"failed", "a", "error", 2},
			{"failed", "b", "skipped", 1},
			{"failed", "c", "pending", 0},
			{"pending", "a", "pending", 0},
		} {
			f.MustExec(t, `INSERT INTO reconciliation_items (run_key, org_id, outcome, revision, updated_at) VALUES ((SELECT run_key FROM reconciliation_runs WHERE id = ?),?,?,?,?)`, item.run, item.org, item.outcome, item.decided, now)
		}
		runs, err := f.store.UnfinishedRuns(t.Context())
		if diff := cmp.Diff([]string{"pending", "failed"}, runs); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
		decided, err := f.store.CountDecisions(t.Context(), runs)
		if diff := cmp.Diff(map[string]int{"failed": 3, "pending": 0}, decided); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
		if none, err := f.store.CountDecisions(t.Context(), nil); err != nil || len(none) != 0 {
			t.Errorf("%v, %v", none, err)
		}
	})
}
