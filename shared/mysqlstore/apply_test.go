package mysqlstore_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

var outcomes = []billing.Outcome{
	billing.OutcomePending, billing.OutcomeError, billing.OutcomeSynced, billing.OutcomeDrifted, billing.OutcomeSkipped,
}

// upgrade and downgrade return plans for an organization that addPaying created.
func upgrade(id string) billing.Plan {
	return planFor(id, billing.Change{Field: billing.FieldOrgTier, From: "pro", To: "max"}, billing.Change{Field: billing.FieldPlanTier, From: "pro", To: "max"})
}

func downgrade(id string) billing.Plan {
	return planFor(id, billing.Change{Field: billing.FieldOrgTier, From: "pro", To: "free"}, billing.Change{Field: billing.FieldPlanTier, From: "pro", To: "free"})
}

func planFor(id string, changes ...billing.Change) billing.Plan {
	return billing.Plan{
		Outcome: billing.OutcomeSynced, Reason: billing.ReasonRepaired, GoverningID: "sub_" + id, RowID: rowID(id), Changes: changes,
	}
}

func itemOf(runID, orgID string, plan billing.Plan) billing.Item {
	return billing.Item{
		RunID: runID, OrgID: orgID, Outcome: plan.Outcome, Reason: plan.Reason, Changes: plan.Changes, Warnings: plan.Warnings,
	}
}

func (f *fixture) apply(t *testing.T, runID string, before billing.Record, plan billing.Plan) error {
	t.Helper()
	return f.store.Apply(t.Context(), before, plan, itemOf(runID, before.Org.ID, plan), false, now)
}

func TestOutcomeChangesOnlyFromPendingAndError(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		for _, from := range outcomes {
			for _, to := range outcomes[1:] {
				runID := fmt.Sprintf("%s to %s", from, to)
				f.openRun(t, newRun(runID))
				f.addItems(t, billing.Item{RunID: runID, OrgID: "a", Outcome: from, Reason: "before"})
				item := billing.Item{RunID: runID, OrgID: "a", Outcome: to, Reason: "after"}
				before := f.state(t)
				err := f.store.Decide(t.Context(), item, true, now)
				if from != billing.OutcomePending && from != billing.OutcomeError {
					if !errors.Is(err, billing.ErrAlreadyDecided) {
						t.Errorf("%s: got %v, want ErrAlreadyDecided", runID, err)
					}
					f.requireUnchanged(t, before)
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", runID, err)
				}
				item.Revision = 1
				if diff := cmp.Diff(item, f.item(t, runID, "a")); diff != "" {
					t.Errorf("%s (-want +got):\n%s", runID, diff)
				}
			}
		}
		if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_items WHERE revision = 1 AND updated_at = ?`, now); n != 8 {
			t.Errorf("%d items have the time of their outcome, want 8", n)
		}
	})
}

func TestUnknownItemIsNotDecided(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a")
		f.openRun(t, newRun("r"))
		before := f.state(t)
		err := f.store.Decide(t.Context(), billing.Item{RunID: "r", OrgID: "a", Outcome: billing.OutcomeSkipped}, true, now)
		if !errors.Is(err, billing.ErrAlreadyDecided) {
			t.Errorf("Decide: %v", err)
		}
		if err := f.apply(t, "r", f.record(t, "a"), upgrade("a")); !errors.Is(err, billing.ErrAlreadyDecided) {
			t.Errorf("Apply: %v", err)
		}
		f.requireUnchanged(t, before)
	})
}

func TestDryRunCountsDowngradesBeyondTheLimit(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, orgIDs(5)...)
		f.startRun(t, "r", 2)
		for i, id := range orgIDs(5) {
			item := billing.Item{RunID: "r", OrgID: id, Outcome: billing.OutcomeDrifted}
			if err := f.store.Decide(t.Context(), item, i > 0, now); err != nil {
				t.Fatal(err)
			}
		}
		if got := f.run(t, "r").Downgrades; got != 4 {
			t.Errorf("the run counts %d downgrades, want 4", got)
		}
	})
}

func TestOutcomeIsRecordedWithAnyErrorText(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		for name, text := range map[string]string{
			"long":                         strings.Repeat("é", 70_000),
			"not UTF-8":                    "broken \xff\xfe end",
			"four-byte character":          "🚀 and 'quotes' and \\",
			"a character across the limit": strings.Repeat("x", 65_534) + "é",
		} {
			f.openRun(t, newRun("run "+name))
			f.addItems(t, pendingItem(name, "a"))
			item := billing.Item{RunID: name, OrgID: "a", Outcome: billing.OutcomeError, Error: text}
			if err := f.store.Decide(t.Context(), item, false, now); err != nil {
				t.Errorf("%s: %.300v", name, err)
				continue
			}
			if got := f.item(t, name, "a").Error; got == "" || !strings.HasPrefix(text, got[:5]) {
				t.Errorf("%s: the stored error is %.100q", name, got)
			}
			if ok, err := f.store.StopRun(t.Context(), "run "+name, billing.ReasonInternal, text, now); !ok || err != nil {
				t.Errorf("%s: stopped %v, %.300v", name, ok, err)
			}
		}
	})
}

func TestApplyWritesEveryColumn(t *testing.T) {
	full := []billing.Change{
		{Field: billing.FieldSubscriptionID, To: "sub_new"},
		{Field: billing.FieldCustomerID, To: "cus_row"},
		{Field: billing.FieldPriceID, To: "price_new"},
		{Field: billing.FieldPlanTier, To: "starter"},
		{Field: billing.FieldStatus, To: "unpaid"},
		{Field: billing.FieldCurrentPeriodStart, To: *at(1)},
		{Field: billing.FieldCurrentPeriodEnd, To: *at(2)},
		{Field: billing.FieldTrialEnd, To: *at(3)},
		{Field: billing.FieldCancelAtPeriodEnd, To: true},
		{Field: billing.FieldCanceledAt, To: *at(4)},
		{Field: billing.FieldEndedAt, To: *at(5)},
		{Field: billing.FieldOrgCustomerID, To: "cus_org"},
		{Field: billing.FieldOrgTier, To: "max"},
		{Field: billing.FieldOrgStatus, To: "past_due"},
		{Field: billing.FieldOrgTrialEndsAt, To: *at(6)},
	}
	row := billing.Row{
		SubscriptionID: new("sub_new"), CustomerID: new("cus_row"), PriceID: new("price_new"), Tier: "starter", Status: "unpaid",
		CurrentPeriodStart: at(1), CurrentPeriodEnd: at(2), TrialEnd: at(3), CancelAtPeriodEnd: new(true), CanceledAt: at(4), EndedAt: at(5),
	}
	org := billing.Organization{ID: "a", CustomerID: new("cus_org"), Tier: "max", Status: "past_due", TrialEndsAt: at(6)}

	onEach(t, func(t *testing.T, f *fixture) {
		f.addOrganizations(t, appschema.Organization{ID: "a", LastBillingWarningAt: at(9)})
		f.startRun(t, "first", 0)
		f.addItems(t, pendingItem("first", "a"), pendingItem("second", "a"), pendingItem("third", "a"))

		// Insert.
		if err := f.apply(t, "first", f.record(t, "a"), billing.Plan{GoverningID: "sub_new", Insert: true, Changes: full, Outcome: billing.OutcomeSynced}); err != nil {
			t.Fatal(err)
		}
		inserted := f.record(t, "a")
		wantRecord(t, "inserted", billing.Record{Org: org, Rows: []billing.Row{row}}, inserted)

		// Update to NULL where NULL is allowed.
		var empty []billing.Change
		for _, c := range full {
			if c.Field != billing.FieldPlanTier && c.Field != billing.FieldStatus && c.Field != billing.FieldOrgTier && c.Field != billing.FieldOrgStatus {
				empty = append(empty, billing.Change{Field: c.Field, From: c.To})
			}
		}
		id := inserted.Rows[0].ID
		if err := f.apply(t, "second", inserted, billing.Plan{RowID: id, Changes: empty, Outcome: billing.OutcomeSynced}); err != nil {
			t.Fatal(err)
		}
		nulls := f.record(t, "a")
		wantRecord(t, "NULL", billing.Record{
			Org:  billing.Organization{ID: "a", Tier: "max", Status: "past_due"},
			Rows: []billing.Row{{Tier: "starter", Status: "unpaid"}},
		}, nulls)

		// Update.
		if err := f.apply(t, "third", nulls, billing.Plan{RowID: id, Changes: full, Outcome: billing.OutcomeSynced}); err != nil {
			t.Fatal(err)
		}
		wantRecord(t, "updated", billing.Record{Org: org, Rows: []billing.Row{row}}, f.record(t, "a"))

		organizations, err := appschema.Organizations(t.Context(), f.DB.DB)
		if err != nil {
			t.Fatal(err)
		}
		if o := organizations[0]; o.Name != "Name of a" || o.CreatedBy != "user" || !o.CreatedAt.Equal(old) || !o.LastBillingWarningAt.Equal(*at(9)) || o.IsDeleted {
			t.Errorf("Apply changed another column: %+v", o)
		}
	})
}

// wantRecord compares records without row ids and times of writing.
func wantRecord(t *testing.T, what string, want, got billing.Record) {
	t.Helper()
	got.Org.UpdatedAt, got.Rows = time.Time{}, slices.Clone(got.Rows)
	for i := range got.Rows {
		got.Rows[i].ID, got.Rows[i].CreatedAt, got.Rows[i].UpdatedAt = "", time.Time{}, time.Time{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestApplyWritesOnlyTheTablesAndColumnsOfThePlan(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "org", "row", "other")
		f.startRun(t, "r", 0)
		for id, change := range map[string]billing.Change{
			"org": {Field: billing.FieldOrgTrialEndsAt, To: *at(1)},
			"row": {Field: billing.FieldPriceID, From: "price_pro", To: "price_max"},
		} {
			before := f.record(t, id)
			if err := f.apply(t, "r", before, planFor(id, change)); err != nil {
				t.Fatal(err)
			}
			after, want := f.record(t, id), before
			want.Rows = append([]billing.Row(nil), before.Rows...)
			if id == "org" {
				want.Org.TrialEndsAt, want.Org.UpdatedAt = at(1), after.Org.UpdatedAt
			} else {
				want.Rows[0].PriceID, want.Rows[0].UpdatedAt = new("price_max"), after.Rows[0].UpdatedAt
			}
			if diff := cmp.Diff(want, after); diff != "" {
				t.Errorf("%s (-want +got):\n%s", id, diff)
			}
			if after.Org.UpdatedAt.After(old) == after.Rows[0].UpdatedAt.After(old) {
				t.Errorf("%s: the organization was written at %v, the row at %v, want exactly one of them written now", id, after.Org.UpdatedAt, after.Rows[0].UpdatedAt)
			}
			if item := f.item(t, "r", id); item.Outcome != billing.OutcomeSynced || item.Revision != 1 || len(item.Changes) != 1 {
				t.Errorf("%s: %+v", id, item)
			}
		}
		if other := f.record(t, "other"); !other.Org.UpdatedAt.Equal(old) || !other.Rows[0].UpdatedAt.Equal(old) {
			t.Errorf("Apply wrote another organization: %+v", other)
		}
	})
}

func TestInsertedRowHasTheSameIDEveryTime(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addOrganizations(t, appschema.Organization{ID: "a"}, appschema.Organization{ID: "b"})
		insert := func(runID, orgID, sub string) string {
			t.Helper()
			f.addItems(t, pendingItem(runID, orgID))
			plan := billing.Plan{GoverningID: sub, Insert: true, Outcome: billing.OutcomeSynced, Changes: []billing.Change{{Field: billing.FieldSubscriptionID, To: sub}}}
			if err := f.apply(t, runID, f.record(t, orgID), plan); err != nil {
				t.Fatal(err)
			}
			id := mysqltest.Value[string](t, f.DB, `SELECT id FROM subscriptions WHERE stripe_subscription_id = ? AND org_id = ?`, sub, orgID)
			f.MustExec(t, `DELETE FROM subscriptions`)
			return id
		}
		first := insert("1", "a", "sub_1")
		if len(first) != 36 || first != insert("2", "a", "sub_1") {
			t.Error("the same row got another id")
		}
		if first == insert("3", "a", "sub_2") || first == insert("4", "b", "sub_1") {
			t.Error("another row got the same id")
		}
	})
}

func TestApplyRefusesDecidedItem(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a")
		for _, from := range outcomes {
			runID := "was " + string(from)
			f.openRun(t, newRun(runID))
			f.addItems(t, billing.Item{RunID: runID, OrgID: "a", Outcome: from})
			final := billing.Item{Outcome: from}.Final()
			before := f.state(t)
			err := f.apply(t, runID, f.record(t, "a"), planFor("a", billing.Change{Field: billing.FieldPriceID, To: runID}))
			if final {
				if !errors.Is(err, billing.ErrAlreadyDecided) {
					t.Errorf("%s: got %v, want ErrAlreadyDecided", runID, err)
				}
				f.requireUnchanged(t, before)
			} else if err != nil {
				t.Errorf("%s: %v", runID, err)
			}
		}
	})
}

func TestApplyRefusesChangedRecord(t *testing.T) {
	const keepOrg, keepRow = `UPDATE organizations SET updated_at = updated_at, `, `UPDATE subscriptions SET updated_at = updated_at, `
	onEach(t, func(t *testing.T, f *fixture) {
		statements := map[string]bool{ // statement of another writer -> whether Apply must refuse
			keepOrg + `name = 'other' WHERE id = ?`:                                                     false,
			keepOrg + `last_billing_warning_at = NOW() WHERE id = ?`:                                    false,
			keepOrg + `stripe_customer_id = 'x' WHERE id = ?`:                                           true,
			keepOrg + `stripe_customer_id = '' WHERE id = ?`:                                            true,
			keepOrg + `stripe_customer_id = NULL WHERE id = ?`:                                          true,
			keepOrg + `subscription_status = 'past_due' WHERE id = ?`:                                   true,
			keepOrg + `subscription_tier = 'max' WHERE id = ?`:                                          true,
			keepOrg + `trial_ends_at = '2026-01-01 00:00:00' WHERE id = ?`:                              true,
			keepOrg + `is_deleted = 1 WHERE id = ?`:                                                     true,
			`UPDATE organizations SET updated_at = '2026-01-02 03:04:06' WHERE id = ?`:                  true,
			`UPDATE subscriptions SET updated_at = '2026-01-02 03:04:06' WHERE org_id = ?`:              true,
			keepRow + `stripe_subscription_id = NULL WHERE org_id = ?`:                                  true,
			keepRow + `stripe_subscription_id = 'x' WHERE org_id = ?`:                                   true,
			keepRow + `stripe_customer_id = 'x' WHERE org_id = ?`:                                       true,
			keepRow + `stripe_price_id = 'x' WHERE org_id = ?`:                                          true,
			keepRow + `plan_tier = 'max' WHERE org_id = ?`:                                              true,
			keepRow + `status = 'unpaid' WHERE org_id = ?`:                                              true,
			keepRow + `cancel_at_period_end = TRUE WHERE org_id = ?`:                                    true,
			keepRow + `cancel_at_period_end = NULL WHERE org_id = ?`:                                    true,
			keepRow + `created_at = '2026-01-01 00:00:00' WHERE org_id = ?`:                             true,
			`DELETE FROM subscriptions WHERE org_id = ?`:                                                true,
			`DELETE FROM organizations WHERE id = ?`:                                                    true,
			`INSERT INTO subscriptions (id, org_id) SELECT 'added', id FROM organizations WHERE id = ?`: true,
		}
		for _, column := range []string{"current_period_start", "current_period_end", "trial_end", "canceled_at", "ended_at"} {
			statements[keepRow+column+` = '2026-01-01 00:00:00' WHERE org_id = ?`] = true
		}
		f.openRun(t, newRun("r"))
		n := 0
		for statement, refused := range statements {
			n++
			id := fmt.Sprintf("org-%d", n)
			f.addPaying(t, id)
			f.addItems(t, pendingItem("r", id))
			read := f.record(t, id)
			f.MustExec(t, statement, id)
			before := f.state(t)
			err := f.apply(t, "r", read, upgrade(id))
			if !refused {
				if err != nil {
					t.Errorf("%s: %v", statement, err)
				}
				continue
			}
			if !errors.Is(err, billing.ErrRecordChanged) {
				t.Errorf("%s: got %v, want ErrRecordChanged", statement, err)
			}
			f.requireUnchanged(t, before)
		}
	})
}

func TestSubscriptionOfAnotherOrganizationsRowIsConflict(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a", "b")
		f.addOrganizations(t, appschema.Organization{ID: "without-row", StripeCustomerID: new("cus")})
		f.startRun(t, "r", 0)
		taken := []billing.Change{{Field: billing.FieldOrgTier, From: "free", To: "max"}, {Field: billing.FieldSubscriptionID, To: "sub_b"}}
		before := f.state(t)
		for id, plan := range map[string]billing.Plan{
			"a":           planFor("a", taken...),
			"without-row": {GoverningID: "sub_b", Insert: true, Changes: taken, Outcome: billing.OutcomeSynced},
		} {
			plan.GoverningID = "sub_b"
			err := f.apply(t, "r", f.record(t, id), plan)
			wantFailure(t, err, billing.Permanent, billing.ReasonSubscriptionConflict)
			if !strings.Contains(err.Error(), "sub_b") {
				t.Errorf("the message does not name the subscription: %v", err)
			}
			f.requireUnchanged(t, before)
		}
	})
}

// The column is unique, so the living organization's padded id cannot be corrected while the deleted one's row has it.
func TestConflictWithADeletedOrganizationsRowNamesTheDeletedOrganization(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addOrganizations(t, appschema.Organization{ID: "deleted", IsDeleted: true}, appschema.Organization{ID: "a"})
		f.addRows(t, appschema.Subscription{ID: "row-deleted", OrgID: "deleted", StripeSubscriptionID: new("sub_1")},
			appschema.Subscription{ID: rowID("a"), OrgID: "a", StripeSubscriptionID: new(" sub_1")})
		f.startRun(t, "r", 0)
		before := f.state(t)
		err := f.apply(t, "r", f.record(t, "a"), billing.Plan{
			GoverningID: "sub_1", RowID: rowID("a"), Outcome: billing.OutcomeSynced,
			Changes: []billing.Change{{Field: billing.FieldSubscriptionID, From: " sub_1", To: "sub_1"}},
		})
		wantFailure(t, err, billing.Permanent, billing.ReasonSubscriptionConflict)
		if !strings.Contains(err.Error(), "organization deleted, which is deleted") {
			t.Errorf("the message does not say that the row's organization is deleted: %v", err)
		}
		f.requireUnchanged(t, before)
	})
}

// A webhook inserts a row of the organization after Apply locked its rows. Without a foreign key nothing prevents that.
func TestDuplicateKeyWithANewRowOfTheOrganizationIsErrRecordChanged(t *testing.T) {
	insert := billing.Plan{GoverningID: "sub_new", Insert: true, Outcome: billing.OutcomeSynced, Changes: []billing.Change{
		{Field: billing.FieldSubscriptionID, To: "sub_new"}, {Field: billing.FieldPriceID, To: "pause"},
	}}
	for name, c := range map[string]struct {
		schema  string
		webhook string
	}{
		"the same subscription":                               {`DO 0`, `INSERT INTO subscriptions (id, org_id, stripe_subscription_id) VALUES ('hook', 'a', 'sub_new')`},
		"another subscription, one row for each organization": {`ALTER TABLE subscriptions ADD UNIQUE (org_id)`, `INSERT INTO subscriptions (id, org_id, stripe_subscription_id) VALUES ('hook', 'a', 'sub_other')`},
	} {
		t.Run(name, func(t *testing.T) {
			f := onServer(t)
			f.addOrganizations(t, appschema.Organization{ID: "a", StripeCustomerID: new("cus_a")})
			f.startRun(t, "r", 0)
			f.MustExec(t, c.schema)
			f.MustExec(t, `ALTER TABLE subscriptions DROP FOREIGN KEY fk_subscriptions_org`)
			resume := f.pauseInserts(t)
			record := f.record(t, "a")
			store, connection := f.singleConnection(t)
			result := make(chan error, 1)
			go func() { result <- store.Apply(t.Context(), record, insert, itemOf("r", "a", insert), false, now) }()
			f.awaitStatement(t, connection, pausedInsert)
			f.MustExec(t, c.webhook)
			before := f.state(t)
			resume()
			if err := <-result; !errors.Is(err, billing.ErrRecordChanged) {
				t.Errorf("got %v, want ErrRecordChanged", err)
			}
			f.requireUnchanged(t, before)
		})
	}
}

func TestConflictOfIDsThatAreEqualInTheCollationNamesTheCollation(t *testing.T) {
	f := onServer(t)
	f.addPaying(t, "a", "b")
	f.addOrganizations(t, appschema.Organization{ID: "without-row"})
	f.addRows(t, appschema.Subscription{ID: "second", OrgID: "a", PlanTier: "free", Status: "canceled"})
	f.startRun(t, "r", 0)
	f.addItems(t, pendingItem("r", "without-row"))
	change := billing.Change{Field: billing.FieldSubscriptionID, To: "sub_B"}
	own := billing.Change{Field: billing.FieldSubscriptionID, To: "sub_A"}
	before := f.state(t)
	for name, c := range map[string]struct {
		orgID string
		plan  billing.Plan
		names []string
	}{
		"another organization's row": {"a", billing.Plan{GoverningID: "sub_B", RowID: rowID("a"), Changes: []billing.Change{change}}, []string{"sub_B", "sub_b", "organization b", "collation"}},
		"a row to insert":            {"without-row", billing.Plan{GoverningID: "sub_B", Insert: true, Changes: []billing.Change{change}}, []string{"sub_B", "sub_b", "organization b", "collation"}},
		"its own other row":          {"a", billing.Plan{GoverningID: "sub_A", RowID: "second", Changes: []billing.Change{own}}, []string{"sub_A", "sub_a", "organization a", "collation"}},
	} {
		err := f.apply(t, "r", f.record(t, c.orgID), c.plan)
		wantFailure(t, err, billing.Permanent, billing.ReasonSubscriptionConflict)
		for _, part := range c.names {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: the message does not name %s: %v", name, part, err)
			}
		}
		f.requireUnchanged(t, before)
	}
}

func TestFollowUpRequiresTheRevisionThatItRead(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a")
		f.startRun(t, "r", 5)
		if err := f.apply(t, "r", f.record(t, "a"), downgrade("a")); err != nil {
			t.Fatal(err)
		}
		item := f.item(t, "r", "a")
		restore := planFor("a", billing.Change{Field: billing.FieldOrgTier, From: "free", To: "pro"})
		item.Changes = append(item.Changes, restore.Changes...)
		record := f.record(t, "a")
		stale := item
		stale.Revision--
		before := f.state(t)
		if err := f.store.Apply(t.Context(), record, restore, stale, true, now); !errors.Is(err, billing.ErrAlreadyDecided) {
			t.Errorf("with an earlier revision: got %v, want ErrAlreadyDecided", err)
		}
		f.requireUnchanged(t, before)

		if err := f.store.Apply(t.Context(), record, restore, item, true, now); err != nil {
			t.Fatal(err)
		}
		item.Revision = 2
		if diff := cmp.Diff(item, f.item(t, "r", "a")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if got := f.record(t, "a").Org.Tier; got != "pro" {
			t.Errorf("the tier is %s, want pro", got)
		}
		if err := f.store.Apply(t.Context(), f.record(t, "a"), downgrade("a"), item, true, now); err != nil {
			t.Errorf("a second follow-up: %v", err)
		}
	})
}

func TestWithheldChangesAreKeptUntilTheNextPlan(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addItems(t, pendingItem("r", "a"))
		changesAfter := func(outcome billing.Outcome, reason billing.Reason, changes ...billing.Change) []billing.Change {
			t.Helper()
			item := billing.Item{RunID: "r", OrgID: "a", Outcome: outcome, Reason: reason, Changes: changes}
			if err := f.store.Decide(t.Context(), item, false, now); err != nil {
				t.Fatal(err)
			}
			return f.item(t, "r", "a").Changes
		}
		withheld, other := downgrade("a").Changes, upgrade("a").Changes
		changesAfter(billing.OutcomeError, billing.ReasonWithheld, withheld...)
		if diff := cmp.Diff(withheld, changesAfter(billing.OutcomeError, billing.ReasonStripeUnavailable)); diff != "" {
			t.Errorf("after another error (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(other, changesAfter(billing.OutcomeError, billing.ReasonWithheld, other...)); diff != "" {
			t.Errorf("after another withheld plan (-want +got):\n%s", diff)
		}
		if got := changesAfter(billing.OutcomeSkipped, billing.ReasonInSync); len(got) > 0 {
			t.Errorf("the organization is in sync, but its item has the changes %v", got)
		}
	})
}

func TestOrganizationCountsOnceAsDowngrade(t *testing.T) {
	toStarter := func(id string) billing.Plan {
		return planFor(id, billing.Change{Field: billing.FieldOrgTier, From: "pro", To: "starter"})
	}
	toFree := func(id string) billing.Plan {
		return planFor(id, billing.Change{Field: billing.FieldOrgTier, From: "starter", To: "free"})
	}
	for name, test := range map[string]struct {
		first  func(id string) billing.Plan
		limit  int
		want   int
		reason billing.Reason
	}{
		"lowered by the repair and the follow-up": {first: toStarter, limit: 1, want: 1},
		"lowered by the follow-up only":           {first: upgrade, limit: 1, want: 1},
		"lowered by the follow-up over the limit": {first: upgrade, limit: 0, want: 0, reason: billing.ReasonWithheld},
	} {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, f *fixture) {
				f.addPaying(t, "a")
				f.startRun(t, "r", test.limit)
				if err := f.apply(t, "r", f.record(t, "a"), test.first("a")); err != nil {
					t.Fatal(err)
				}
				item, plan := f.item(t, "r", "a"), toFree("a")
				item.Changes = append(item.Changes, plan.Changes...)
				before := f.state(t)
				err := f.store.Apply(t.Context(), f.record(t, "a"), plan, item, true, now)
				if test.reason != "" {
					wantFailure(t, err, billing.Permanent, test.reason)
					f.requireUnchanged(t, before)
				} else if err != nil {
					t.Error(err)
				}
				if got := f.run(t, "r").Downgrades; got != test.want {
					t.Errorf("the run counts %d downgrades, want %d", got, test.want)
				}
			})
		})
	}
}

func TestFollowUpIsRefusedWithoutARepair(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a")
		for _, from := range outcomes {
			if from == billing.OutcomeSynced {
				continue
			}
			runID := "was " + string(from)
			f.addItems(t, billing.Item{RunID: runID, OrgID: "a", Outcome: from})
			err := f.store.Apply(t.Context(), f.record(t, "a"), upgrade("a"), itemOf(runID, "a", upgrade("a")), true, now)
			if !errors.Is(err, billing.ErrAlreadyDecided) {
				t.Errorf("%s: got %v, want ErrAlreadyDecided", runID, err)
			}
		}
	})
}

func TestGuardWithholdsDowngradesBeyondTheLimit(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a", "b", "c")
		f.startRun(t, "r", 1)
		if err := f.apply(t, "r", f.record(t, "a"), downgrade("a")); err != nil {
			t.Fatal(err)
		}
		before := f.state(t)
		err := f.apply(t, "r", f.record(t, "b"), downgrade("b"))
		wantFailure(t, err, billing.Permanent, billing.ReasonWithheld)
		f.requireUnchanged(t, before)
		if err := f.apply(t, "r", f.record(t, "c"), upgrade("c")); err != nil {
			t.Errorf("an upgrade: %v", err)
		}
		if got := f.run(t, "r").Downgrades; got != 1 {
			t.Errorf("the run counts %d downgrades, want 1", got)
		}

		f.MustExec(t, `UPDATE reconciliation_runs SET downgrade_limit = 2`)
		if err := f.apply(t, "r", f.record(t, "b"), downgrade("b")); err != nil {
			t.Errorf("after the limit was raised: %v", err)
		}
	})
}

func TestValueThatTheColumnCannotHoldIsRefused(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a")
		f.startRun(t, "r", 9)
		before := f.state(t)
		for _, wrong := range []billing.Change{
			{Field: billing.FieldStatus, To: "paused"},
			{Field: billing.FieldStatus, To: ""},
			{Field: billing.FieldOrgStatus, To: "unpaid"},
			{Field: billing.FieldPlanTier, To: "gold"},
			{Field: billing.FieldOrgTier, To: nil},
			{Field: billing.FieldPriceID, To: strings.Repeat("x", 121)},
			{Field: billing.FieldEndedAt, To: time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)},
			{Field: billing.FieldEndedAt, To: time.Unix(0, 0).UTC()},
		} {
			err := f.apply(t, "r", f.record(t, "a"), planFor("a", wrong))
			if f.Concurrent { // the server in this process has other numbers for most errors
				wantFailure(t, err, billing.Permanent, billing.ReasonDatabaseRefused)
			} else if err == nil {
				t.Errorf("%s was set to %v without an error", wrong.Field, wrong.To)
			}
			f.requireUnchanged(t, before)
		}
	})
}

// Each case is a reason for which the application's tables may refuse a row. A second error number is MariaDB's.
func TestPermanentlyRefusedRowFailsItsOrganization(t *testing.T) {
	t.Parallel()
	price := billing.Change{Field: billing.FieldPriceID, From: "price_pro", To: "price_max"}
	tier := billing.Change{Field: billing.FieldOrgTier, From: "pro", To: "max"}
	for name, c := range map[string]struct {
		schema []string
		plan   billing.Plan
		table  string
		errors []string // MySQL's error, or MariaDB's
	}{
		"a trigger's veto": {
			[]string{`CREATE TRIGGER veto BEFORE UPDATE ON subscriptions FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'prices are\n frozen'`},
			planFor("a", price), "subscriptions",
			[]string{"1644 (45000): prices are frozen"},
		},
		"a trigger's veto with its own error number": {
			[]string{`CREATE TRIGGER veto BEFORE UPDATE ON organizations FOR EACH ROW SIGNAL SQLSTATE '45001' SET MYSQL_ERRNO = 20017, MESSAGE_TEXT = 'frozen'`},
			planFor("a", tier), "organizations",
			[]string{"20017 (45001): frozen"},
		},
		"a trigger that writes its own table": {
			[]string{`CREATE TRIGGER own BEFORE UPDATE ON subscriptions FOR EACH ROW UPDATE subscriptions SET status = 'unpaid'`},
			planFor("a", price), "subscriptions",
			[]string{"1442"},
		},
		"a column without a default": {
			[]string{`ALTER TABLE subscriptions ADD seats INT NOT NULL`},
			billing.Plan{GoverningID: "sub_new", Insert: true, Outcome: billing.OutcomeSynced, Changes: []billing.Change{{Field: billing.FieldSubscriptionID, To: "sub_new"}}},
			"subscriptions",
			[]string{"1364 (HY000): Field 'seats'"},
		},
		"an ENUM without the value": {
			[]string{`ALTER TABLE subscriptions MODIFY plan_tier ENUM('free','pro') NOT NULL DEFAULT 'free'`},
			planFor("a", billing.Change{Field: billing.FieldPlanTier, From: "pro", To: "max"}),
			"subscriptions",
			[]string{"1265 (01000): Data truncated for column 'plan_tier'"},
		},
		"an INT column": {
			[]string{`UPDATE subscriptions SET stripe_price_id = NULL`, `ALTER TABLE subscriptions MODIFY stripe_price_id INT NULL`},
			planFor("a", price), "subscriptions",
			[]string{"1366"},
		},
		"a CHECK constraint": {
			[]string{`ALTER TABLE subscriptions ADD CONSTRAINT cheap CHECK (stripe_price_id <> 'price_max')`},
			planFor("a", price), "subscriptions",
			[]string{"3819", "4025"},
		},
		"a JSON column": {
			[]string{`UPDATE subscriptions SET stripe_price_id = NULL`, `ALTER TABLE subscriptions MODIFY stripe_price_id JSON NULL`},
			planFor("a", price), "subscriptions",
			[]string{"3140", "4025"},
		},
		"a generated column": {
			[]string{`ALTER TABLE subscriptions DROP ended_at`, `ALTER TABLE subscriptions ADD ended_at TIMESTAMP AS (canceled_at) STORED`},
			planFor("a", billing.Change{Field: billing.FieldEndedAt, To: *at(1)}),
			"subscriptions",
			[]string{"3105", "1906"},
		},
		"a foreign key to a missing row": {
			[]string{
				`CREATE TABLE prices (id VARCHAR(120) PRIMARY KEY)`, `INSERT INTO prices VALUES ('price_pro')`,
				`ALTER TABLE subscriptions ADD FOREIGN KEY (stripe_price_id) REFERENCES prices (id)`,
			},
			planFor("a", price), "subscriptions",
			[]string{"1452"},
		},
		"a foreign key from an existing row": {
			[]string{
				`ALTER TABLE subscriptions ADD UNIQUE (stripe_customer_id)`,
				`CREATE TABLE invoices (customer VARCHAR(120), FOREIGN KEY (customer) REFERENCES subscriptions (stripe_customer_id))`,
				`INSERT INTO invoices VALUES ('cus_a')`,
			},
			planFor("a", billing.Change{Field: billing.FieldCustomerID, From: "cus_a", To: "cus_new"}),
			"subscriptions",
			[]string{"1451"},
		},
		"another unique key, without a governing subscription": {
			[]string{`UPDATE subscriptions SET stripe_subscription_id = '' WHERE org_id = 'b'`, `ALTER TABLE organizations ADD UNIQUE (stripe_customer_id)`},
			billing.Plan{RowID: rowID("a"), Outcome: billing.OutcomeSynced, Changes: []billing.Change{{Field: billing.FieldOrgCustomerID, From: "cus_a", To: "cus_b"}}},
			"organizations",
			[]string{"1062 (23000): Duplicate entry 'cus_b'"},
		},
		"another unique key, with an inserted row": {
			[]string{`ALTER TABLE organizations ADD UNIQUE (stripe_customer_id)`, `DELETE FROM subscriptions WHERE org_id = 'a'`},
			billing.Plan{Insert: true, GoverningID: "sub_new", Outcome: billing.OutcomeSynced, Changes: []billing.Change{
				{Field: billing.FieldSubscriptionID, To: "sub_new"}, {Field: billing.FieldOrgCustomerID, From: "cus_a", To: "cus_b"},
			}},
			"organizations",
			[]string{"1062 (23000): Duplicate entry 'cus_b'"},
		},
		"another unique key": {
			[]string{`ALTER TABLE organizations ADD UNIQUE (stripe_customer_id)`},
			planFor("a", price, billing.Change{Field: billing.FieldOrgCustomerID, From: "cus_a", To: "cus_b"}),
			"organizations",
			[]string{"1062 (23000): Duplicate entry 'cus_b'"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := onServer(t)
			f.addPaying(t, "a", "b")
			f.startRun(t, "r", 0)
			for _, statement := range c.schema {
				f.MustExec(t, statement)
			}
			before := f.state(t)
			err := f.apply(t, "r", f.record(t, "a"), c.plan)
			wantFailure(t, err, billing.Permanent, billing.ReasonDatabaseRefused)
			for _, part := range []string{"organization a ", "table " + c.table} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the message does not name %s: %v", part, err)
				}
			}
			if !slices.ContainsFunc(c.errors, func(text string) bool { return strings.Contains(err.Error(), text) }) {
				t.Errorf("got %v, want one of %q", err, c.errors)
			}
			f.requireUnchanged(t, before)
		})
	}
}

// hostile are texts that would break a concatenated statement.
var hostile = []string{
	`'; DROP TABLE organizations; --`, `" OR "1"="1`, `a\' b\\`, `%_`, "é🚀ß漢", "nul\x00inside", "line\nbreak\r\x1a", "`tick`", `?`, `\`,
}

func TestHostileTextIsStoredUnchanged(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		for i, text := range hostile {
			orgID, runID := text, "run"+text
			f.addOrganizations(t, appschema.Organization{ID: orgID, StripeCustomerID: new("cus" + text)})
			run := newRun(runID)
			run.OrgID, run.RequestID = orgID, "request"+text
			run = f.openRun(t, run)
			if diff := cmp.Diff("request"+text, f.run(t, runID).RequestID); diff != "" {
				t.Errorf("request id (-want +got):\n%s", diff)
			}
			lease := billing.Lease{RunID: runID, Owner: "owner" + text, End: until}
			f.lease(t, lease)
			if n, through, err := f.store.ListOrganizations(t.Context(), lease, "free", run.OrgID, "", 10); n != 1 || through != orgID || err != nil {
				t.Fatalf("%q: listed %d through %q, %v", text, n, through, err)
			}
			if ids, err := f.store.PendingAfter(t.Context(), runID, "", 10); len(ids) != 1 || ids[0] != orgID || err != nil {
				t.Errorf("%q: pending %q, %v", text, ids, err)
			}
			plan := billing.Plan{
				GoverningID: "sub" + text, Insert: true, Outcome: billing.OutcomeSynced, Reason: billing.Reason("r" + text),
				Changes: []billing.Change{
					{Field: billing.FieldSubscriptionID, To: "sub" + text},
					{Field: billing.FieldPriceID, To: text},
					{Field: billing.FieldOrgCustomerID, From: "cus" + text, To: text},
				},
				Warnings: []billing.Warning{{Code: "w", Message: text}},
			}
			if err := f.apply(t, runID, f.record(t, orgID), plan); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			record, item := f.record(t, orgID), f.item(t, runID, orgID)
			if len(record.Rows) != 1 || *record.Rows[0].SubscriptionID != "sub"+text || *record.Rows[0].PriceID != text || *record.Org.CustomerID != text {
				t.Errorf("%q: %+v", text, record)
			}
			want := itemOf(runID, orgID, plan)
			want.Revision = 1
			if diff := cmp.Diff(want, item); diff != "" {
				t.Errorf("%q (-want +got):\n%s", text, diff)
			}
			claims, err := f.store.Claims(t.Context(), []billing.Subscription{{ID: "sub" + text}})
			if err != nil || !slices.Equal(claims.RecordedBy["sub"+text], []string{orgID}) {
				t.Errorf("%q: %v, %v", text, claims, err)
			}
			if ok, err := f.store.StopRun(t.Context(), runID, "why", text, now); !ok || err != nil {
				t.Errorf("%q: %v, %v", text, ok, err)
			}
			if got := f.run(t, runID).StatusMessage; got != text {
				t.Errorf("the stop message is %q, want %q", got, text)
			}
			if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_runs`); n != i+1 {
				t.Fatalf("%d runs, want %d", n, i+1)
			}
		}
	})
}
