package mysqlstore_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
)

// at returns a time on this day. Each column gets another day, so that a test notices when two are confused.
func at(day int) *time.Time { return new(time.Date(2026, 10, day, 12, 30, 15, 0, time.UTC)) }

func TestRecordHasEveryColumn(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addOrganizations(t, appschema.Organization{
			ID: "a", StripeCustomerID: new("cus_org"), SubscriptionStatus: "past_due", SubscriptionTier: "max",
			TrialEndsAt: at(1), LastBillingWarningAt: at(2), IsDeleted: true, Name: "n", CreatedBy: "c", CreatedAt: *at(3), UpdatedAt: *at(4),
		})
		f.addRows(t, appschema.Subscription{
			ID: "row", OrgID: "a", StripeSubscriptionID: new("sub"), StripePriceID: new("price"), StripeCustomerID: new("cus_row"),
			PlanTier: "starter", Status: "unpaid", CurrentPeriodStart: at(5), CurrentPeriodEnd: at(6), TrialEnd: at(7), CancelAtPeriodEnd: new(true),
			CanceledAt: at(8), EndedAt: at(9), CreatedAt: *at(10), UpdatedAt: *at(11),
		})
		want := billing.Record{
			Org: billing.Organization{
				ID: "a", CustomerID: new("cus_org"), Status: "past_due", Tier: "max", TrialEndsAt: at(1), Deleted: true, UpdatedAt: *at(4),
			},
			Rows: []billing.Row{{
				ID: "row", SubscriptionID: new("sub"), CustomerID: new("cus_row"), PriceID: new("price"), Tier: "starter", Status: "unpaid",
				CurrentPeriodStart: at(5), CurrentPeriodEnd: at(6), TrialEnd: at(7), CancelAtPeriodEnd: new(true),
				CanceledAt: at(8), EndedAt: at(9), CreatedAt: *at(10), UpdatedAt: *at(11),
			}},
		}
		if diff := cmp.Diff(want, f.record(t, "a")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestRecordDistinguishesNullAndEmpty(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addOrganizations(t, appschema.Organization{ID: "null"}, appschema.Organization{ID: "empty", StripeCustomerID: new("")})
		f.addRows(t,
			appschema.Subscription{ID: "r1", OrgID: "null"},
			appschema.Subscription{
				ID: "r2", OrgID: "empty", StripeSubscriptionID: new(""), StripePriceID: new(""), StripeCustomerID: new(""), CancelAtPeriodEnd: new(false),
			})
		null := billing.Record{
			Org:  billing.Organization{ID: "null", Status: "incomplete", Tier: "free", UpdatedAt: old},
			Rows: []billing.Row{{ID: "r1", Status: "incomplete", Tier: "free", CreatedAt: old, UpdatedAt: old}},
		}
		empty := billing.Record{
			Org: billing.Organization{ID: "empty", CustomerID: new(""), Status: "incomplete", Tier: "free", UpdatedAt: old},
			Rows: []billing.Row{{
				ID: "r2", SubscriptionID: new(""), CustomerID: new(""), PriceID: new(""), CancelAtPeriodEnd: new(false),
				Status: "incomplete", Tier: "free", CreatedAt: old, UpdatedAt: old,
			}},
		}
		for _, want := range []billing.Record{null, empty} {
			if diff := cmp.Diff(want, f.record(t, want.Org.ID)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", want.Org.ID, diff)
			}
		}
	})
}

func TestManyRecordsAreRead(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		ids := orgIDs(150)
		f.addPaying(t, ids...)
		f.addOrganizations(t, appschema.Organization{ID: "without-row"})
		f.addRows(t,
			appschema.Subscription{ID: "zz", OrgID: ids[3]},
			appschema.Subscription{ID: "aa", OrgID: ids[3]})

		records, err := f.store.Records(t.Context(), append([]string{"unknown", "without-row", ids[3]}, ids...))
		if err != nil {
			t.Fatal(err)
		}
		if len(records) != len(ids)+1 {
			t.Errorf("%d records, want %d", len(records), len(ids)+1)
		}
		for _, id := range ids {
			rows := records[id].Rows
			if id == ids[3] {
				if len(rows) != 3 || rows[0].ID != "aa" || rows[1].ID != rowID(id) || rows[2].ID != "zz" {
					t.Errorf("several rows are not ordered by id: %v", rows)
				}
				continue
			}
			if len(rows) != 1 || *rows[0].SubscriptionID != "sub_"+id || *records[id].Org.CustomerID != "cus_"+id {
				t.Errorf("%s: %+v", id, records[id])
			}
		}
		if record, ok := records["without-row"]; !ok || record.Rows != nil {
			t.Errorf("the record without rows: %v, %+v", ok, record)
		}
	})
}

func TestReadsWithoutIDsReturnNothing(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		records, err := f.store.Records(t.Context(), nil)
		if len(records) != 0 || err != nil {
			t.Errorf("records %v, %v", records, err)
		}
		items, err := f.store.Items(t.Context(), nil)
		if len(items) != 0 || err != nil {
			t.Errorf("items %v, %v", items, err)
		}
		claims, err := f.store.Claims(t.Context(), nil)
		if len(claims.RecordedBy) != 0 || len(claims.Named) != 0 || err != nil {
			t.Errorf("claims %v, %v", claims, err)
		}
	})
}

// The foreign key follows the column's collation, so a row may have its organization's id in another case.
func TestRowWithItsOrganizationsIDInAnotherCaseIsInTheRecord(t *testing.T) {
	f := onServer(t)
	f.addPaying(t, "abc-def")
	if _, err := f.ExecContext(t.Context(), `UPDATE subscriptions SET org_id = 'ABC-DEF'`); err != nil {
		t.Skipf("this server's default collation is case-sensitive: %v", err)
	}
	if rows := f.record(t, "abc-def").Rows; len(rows) != 1 || rows[0].ID != rowID("abc-def") {
		t.Errorf("the rows are %+v, want one", rows)
	}
}

func TestItemsAreReadBackAsDecided(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addItems(t, pendingItem("r", "a"), pendingItem("r", "b"), pendingItem("other", "a"))
		want := billing.Item{
			RunID: "r", OrgID: "a", Outcome: billing.OutcomeDrifted, Reason: billing.ReasonRepaired,
			Changes: []billing.Change{
				{Field: billing.FieldPlanTier, From: "free", To: "pro"},
				{Field: billing.FieldCancelAtPeriodEnd, From: nil, To: true},
				{Field: billing.FieldEndedAt, From: time.Date(2026, 10, 1, 12, 30, 15, 0, time.UTC), To: nil},
			},
			Warnings: []billing.Warning{{Code: billing.WarnMultipleRows, Message: "two"}}, Error: "e", Revision: 1,
		}
		decided := want
		decided.Revision = 0
		if err := f.store.Decide(t.Context(), decided, false, now); err != nil {
			t.Fatal(err)
		}
		items, err := f.store.Items(t.Context(), []billing.Work{
			{RunID: "r", OrgID: "a"},
			{RunID: "r", OrgID: "b"},
			{RunID: "other", OrgID: "a"},
			{RunID: "other", OrgID: "b"},
			{RunID: "R", OrgID: "a"},
			{RunID: "r", OrgID: "A"},
		})
		if err != nil {
			t.Fatal(err)
		}
		all := map[billing.Work]billing.Item{
			{RunID: "r", OrgID: "a"}:     want,
			{RunID: "r", OrgID: "b"}:     pendingItem("r", "b"),
			{RunID: "other", OrgID: "a"}: pendingItem("other", "a"),
		}
		if diff := cmp.Diff(all, items); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestManyItemsAreRead(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		var items []billing.Item
		var work []billing.Work
		for i := range 600 {
			runID := fmt.Sprintf("run-%d", i%3)
			items = append(items, pendingItem(runID, orgID(i)))
			work = append(work, billing.Work{RunID: runID, OrgID: orgID(i)}, billing.Work{RunID: "unknown", OrgID: orgID(i)})
		}
		f.addItems(t, items...)
		got, err := f.store.Items(t.Context(), work)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(items) {
			t.Errorf("%d items, want %d", len(got), len(items))
		}
	})
}

func TestClaimsNameRecordingAndNamedOrganizations(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "mine", "theirs")
		f.addOrganizations(t, appschema.Organization{ID: "deleted", IsDeleted: true}, appschema.Organization{ID: "bare"})
		f.addRows(t, appschema.Subscription{ID: "row", OrgID: "deleted", StripeSubscriptionID: new("sub_deleted")})
		claims, err := f.store.Claims(t.Context(), []billing.Subscription{
			{ID: "sub_mine", OrgID: "mine"},
			{ID: "sub_theirs"},
			{ID: "sub_deleted"},
			{ID: "sub_free", OrgID: " bare "},
			{ID: "sub_x", OrgID: "deleted"},
			{ID: "sub_y", OrgID: "unknown"},
			{ID: "sub_z", OrgID: "   "},
		})
		if err != nil {
			t.Fatal(err)
		}
		want := billing.Claims{
			RecordedBy: map[string][]string{"sub_mine": {"mine"}, "sub_theirs": {"theirs"}, "sub_deleted": {"deleted"}},
			Deleted:    map[string]bool{"deleted": true},
			Named:      map[string]string{"mine": "mine", "bare": "bare", "deleted": "deleted"},
		}
		if diff := cmp.Diff(want, claims); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// Only the application's columns have padded ids. The ids that are searched for are trimmed.
func TestPaddedIDsAreFound(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addOrganizations(t, appschema.Organization{ID: "a", StripeCustomerID: new("\tcus_1\n")}, appschema.Organization{ID: "b"}, appschema.Organization{ID: "c"}, appschema.Organization{ID: "d"})
		f.addRows(t,
			appschema.Subscription{ID: "row-a", OrgID: "a", StripeSubscriptionID: new(" sub_1")},
			appschema.Subscription{ID: "row-b", OrgID: "b", StripeSubscriptionID: new("\r\nsub_2\t"), StripeCustomerID: new("cus_1 ")},
			appschema.Subscription{ID: "row-c", OrgID: "c", StripeSubscriptionID: new("sub_3\u00a0"), StripeCustomerID: new("\u00a0cus_1")},
			appschema.Subscription{ID: "row-d", OrgID: "d", StripeSubscriptionID: new("sub_33"), StripeCustomerID: new("cus_11")},
		)
		claims, err := f.store.Claims(t.Context(), []billing.Subscription{{ID: "sub_1"}, {ID: "sub_2"}, {ID: "sub_3"}, {ID: "sub_"}, {ID: "sub%"}, {ID: "s!"}})
		want := map[string][]string{"sub_1": {"a"}, "sub_2": {"b"}, "sub_3": {"c"}}
		if diff := cmp.Diff(want, claims.RecordedBy); err != nil || diff != "" {
			t.Errorf("%v; recorded by (-want +got):\n%s", err, diff)
		}
		shared, err := f.store.SharedCustomers(t.Context(), []string{"cus_1"})
		if diff := cmp.Diff(map[string][]string{"cus_1": {"a", "b", "c"}}, shared); err != nil || diff != "" {
			t.Errorf("%v; shared (-want +got):\n%s", err, diff)
		}
		f.sweeping(t, "run")
		orphans, err := f.store.FindOrphans(t.Context(), leaseOf("run"), []billing.Orphan{{SubscriptionID: "sub_a", CustomerID: "cus_1"}, {SubscriptionID: "sub_3", CustomerID: "cus_x"}, {SubscriptionID: "sub_b", CustomerID: "cus_y"}})
		if err != nil || len(orphans) != 1 || orphans[0].SubscriptionID != "sub_b" {
			t.Errorf("%v; orphans %+v", err, orphans)
		}
	})
}

func TestRecordNamesAnotherOrganizationThatRecordsItsSubscription(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.MustExec(t, `ALTER TABLE subscriptions DROP INDEX stripe_subscription_id`)
		f.addOrganizations(t, appschema.Organization{ID: "a"}, appschema.Organization{ID: "b"}, appschema.Organization{ID: "c"}, appschema.Organization{ID: "alone"},
			appschema.Organization{ID: "aa-deleted", IsDeleted: true}, appschema.Organization{ID: "beside-deleted"})
		f.addRows(t,
			appschema.Subscription{ID: "row-a", OrgID: "a", StripeSubscriptionID: new("sub_1\n")},
			appschema.Subscription{ID: "row-b", OrgID: "b", StripeSubscriptionID: new("sub_1")},
			appschema.Subscription{ID: "row-c", OrgID: "c", StripeSubscriptionID: new("sub_1")},
			appschema.Subscription{ID: "row-deleted", OrgID: "aa-deleted", StripeSubscriptionID: new("sub_1")},
			appschema.Subscription{ID: "row-deleted-3", OrgID: "aa-deleted", StripeSubscriptionID: new("sub_3")},
			appschema.Subscription{ID: "row-beside", OrgID: "beside-deleted", StripeSubscriptionID: new("sub_3")},
			appschema.Subscription{ID: "row-alone", OrgID: "alone", StripeSubscriptionID: new("sub_2")},
			appschema.Subscription{ID: "row-capitals", OrgID: "c", StripeSubscriptionID: new("SUB_2")},
			appschema.Subscription{ID: "row-twice", OrgID: "alone", StripeSubscriptionID: new("sub_2")},
		)
		records, err := f.store.Records(t.Context(), []string{"a", "b", "c", "alone", "beside-deleted"})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]map[string]string{}
		for id, record := range records {
			got[id] = record.OtherOwners
		}
		want := map[string]map[string]string{"a": nil, "b": {"sub_1": "c"}, "c": {"sub_1": "b"}, "alone": nil, "beside-deleted": nil}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestSharedCustomersReturnsTheOrganizationsOfEachCustomer(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addOrganizations(t,
			appschema.Organization{ID: "mine", StripeCustomerID: new("cus_mine")}, appschema.Organization{ID: "by-row"},
			appschema.Organization{ID: "zz-by-org", StripeCustomerID: new("cus_two")}, appschema.Organization{ID: "by-org", StripeCustomerID: new("cus_two")},
			appschema.Organization{ID: "deleted", StripeCustomerID: new("cus_deleted"), IsDeleted: true},
		)
		f.addRows(t,
			appschema.Subscription{ID: "row-1", OrgID: "mine", StripeCustomerID: new("cus_mine")},
			appschema.Subscription{ID: "row-2", OrgID: "by-row", StripeCustomerID: new("cus_mine")},
			appschema.Subscription{ID: "row-3", OrgID: "mine", StripeCustomerID: new("cus_my_row")},
			appschema.Subscription{ID: "row-4", OrgID: "deleted", StripeCustomerID: new("cus_my_row")},
		)
		got, err := f.store.SharedCustomers(t.Context(), []string{"cus_mine", "cus_my_row", "cus_two", "cus_deleted", "cus_unknown"})
		if err != nil {
			t.Fatal(err)
		}
		want := map[string][]string{"cus_mine": {"by-row", "mine"}, "cus_my_row": {"mine"}, "cus_two": {"by-org", "zz-by-org"}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if f.Concurrent { // the application's tables may have different collations
			f.MustExec(t, `ALTER TABLE subscriptions MODIFY stripe_customer_id VARCHAR(120) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci NULL`)
			f.MustExec(t, `ALTER TABLE organizations MODIFY stripe_customer_id VARCHAR(120) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL`)
			again, err := f.store.SharedCustomers(t.Context(), []string{"cus_mine", "cus_my_row", "cus_two", "cus_deleted", "cus_unknown"})
			if diff := cmp.Diff(got, again); err != nil || diff != "" {
				t.Errorf("%v %s", err, diff)
			}
		}
		if got, err := f.store.SharedCustomers(t.Context(), nil); len(got) != 0 || err != nil {
			t.Errorf("without customers: %v, %v", got, err)
		}
	})
}

func TestMetadataFindsAnOrganizationInAnotherCase(t *testing.T) {
	f := onServer(t)
	id := strings.ToUpper(orgID(7))
	f.addOrganizations(t, appschema.Organization{ID: id})
	if exists, err := f.store.OrganizationExists(t.Context(), strings.ToLower(id)); err != nil || !exists {
		t.Skipf("this server's default collation is case-sensitive (%v)", err)
	}
	claims, err := f.store.Claims(t.Context(), []billing.Subscription{{ID: "sub", OrgID: " " + orgID(7) + " "}})
	if err != nil {
		t.Fatal(err)
	}
	if claims.Named[orgID(7)] != id {
		t.Errorf("the named organizations are %v, want %s", claims.Named, id)
	}
}
