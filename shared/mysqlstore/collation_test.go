package mysqlstore_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

// collations are those that applications' tables may have. Not every server has all of them.
var collations = []string{
	"utf8mb4_0900_bin", "utf8mb4_0900_ai_ci", "utf8mb4_0900_as_cs", "utf8mb4_unicode_ci", "utf8mb4_general_ci", "utf8mb4_bin",
	"utf8mb3_general_ci", "utf8mb3_bin", "latin1_swedish_ci", "latin1_bin",
}

// inCollation runs a test with this collation of the application's tables and this default collation of the database.
func inCollation(t *testing.T, name, tables, database string, test func(t *testing.T, f *fixture)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		db := mysqltest.New(t)
		db.Collate(t, tables)
		db.CollateByDefault(t, database)
		test(t, newFixture(t, db))
	})
}

func TestRunWorksInAnyCollation(t *testing.T) {
	t.Parallel()
	for _, collation := range collations {
		inCollation(t, collation, collation, collation, wholeRun)
		inCollation(t, "default "+collation, "utf8mb4_unicode_ci", collation, wholeRun)
	}
}

// Every collation sorts white space before letters.
func TestPaddedIDsAreFoundInAnyCollation(t *testing.T) {
	t.Parallel()
	for _, collation := range collations {
		inCollation(t, collation, collation, collation, func(t *testing.T, f *fixture) {
			var subs []billing.Subscription
			want := map[string][]string{}
			for i, around := range []string{"%s", " %s", "\t%s", "\n%s", "\r\n %s", "%s ", "%s\t", "%s\n", " %s\r\n", "%s\u00a0"} {
				org, id := fmt.Sprintf("org-%d", i), fmt.Sprintf("sub_%d", i)
				f.addOrganizations(t, appschema.Organization{ID: org})
				f.addRows(t, appschema.Subscription{ID: "row-" + org, OrgID: org, StripeSubscriptionID: new(fmt.Sprintf(around, id))})
				subs, want[id] = append(subs, billing.Subscription{ID: id}), []string{org}
			}
			claims, err := f.store.Claims(t.Context(), subs)
			if diff := cmp.Diff(want, claims.RecordedBy); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func wholeRun(t *testing.T, f *fixture) {
	t.Helper()
	const named, spelled = "01J9ZK3V8Q", "5E1F-0A"
	f.addPaying(t, "paying", spelled)
	f.addOrganizations(t, appschema.Organization{ID: named}, appschema.Organization{ID: "nobody"})
	subs := []billing.Subscription{
		{ID: "sub_paying", CustomerID: "cus_paying", Status: billing.StatusActive, Created: old},
		{ID: "sub_" + spelled, CustomerID: "cus_" + spelled, Status: billing.StatusActive, OrgID: spelled, Created: old},
		{ID: "sub_named", CustomerID: "cus_paying", Status: billing.StatusActive, OrgID: " " + named + " ", Created: old},
		{ID: "sub_orphan", CustomerID: "cus_x", Status: billing.StatusActive, OrgID: "日本 Ü 🙂", Created: old},
	}
	f.swept(t, "run", subs...)
	if n, _, err := f.store.ListOrganizations(t.Context(), leaseOf("run"), "free", "", "", 10); n != 4 || err != nil {
		t.Fatalf("%d listed, %v", n, err)
	}
	if _, through, err := f.store.ListFromSnapshot(t.Context(), leaseOf("run"), ""); through != "" || err != nil {
		t.Fatal(through, err)
	}
	if got := f.item(t, "run", named).SubscriptionID; got != "sub_named" {
		t.Errorf("the item of the organization that metadata names leads to %q", got)
	}

	const odd = "日本 Ü 🙂" // which few of the character sets have
	if exists, err := f.store.OrganizationExists(t.Context(), odd); exists || err != nil {
		t.Errorf("%s exists: %t, %v", odd, exists, err)
	}
	records, err := f.store.Records(t.Context(), []string{"paying", spelled, named, odd})
	if err != nil || len(records) != 3 || len(records[spelled].Rows) != 1 {
		t.Fatalf("%+v, %v", records, err)
	}
	seen, _, err := f.store.Snapshot(t.Context(), "run", []billing.Record{records["paying"], records[spelled], records[named]})
	if err != nil || len(seen) != 3 {
		t.Errorf("%d subscriptions in the snapshot, %v", len(seen), err)
	}
	claims, err := f.store.Claims(t.Context(), subs)
	if err != nil {
		t.Fatal(err)
	}
	want := billing.Claims{
		RecordedBy: map[string][]string{"sub_paying": {"paying"}, "sub_" + spelled: {spelled}},
		Named:      map[string]string{spelled: spelled, named: named},
	}
	if diff := cmp.Diff(want, claims, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
	f.repair(t, f.store, records[spelled], billing.Plan{RowID: rowID(spelled), Changes: []billing.Change{
		{Field: billing.FieldPlanTier, From: "pro", To: "max"}, {Field: billing.FieldOrgTier, From: "pro", To: "max"},
	}})
	f.repair(t, f.store, records[named], billing.Plan{Insert: true, GoverningID: "sub_named", Changes: []billing.Change{
		{Field: billing.FieldSubscriptionID, To: "sub_named"}, {Field: billing.FieldPlanTier, To: "pro"}, {Field: billing.FieldStatus, To: "active"},
	}})
	if got := f.record(t, spelled); got.Org.Tier != "max" || got.Rows[0].Tier != "max" {
		t.Errorf("not repaired: %+v", got)
	}
	if got := f.record(t, named); len(got.Rows) != 1 || *got.Rows[0].SubscriptionID != "sub_named" {
		t.Errorf("no row: %+v", got)
	}
	if n, err := f.store.DecideInSync(t.Context(), "run", now, inSyncItems("paying"), now); n != 1 || err != nil {
		t.Errorf("%d decided, %v", n, err)
	}

	unclaimed, _, err := f.store.ListFromSnapshot(t.Context(), leaseOf("run"), "")
	if err != nil {
		t.Fatal(err)
	}
	orphans, err := f.store.FindOrphans(t.Context(), leaseOf("run"), unclaimed)
	if err != nil || len(orphans) != 1 || orphans[0].SubscriptionID != "sub_orphan" {
		t.Errorf("orphans %+v, %v", orphans, err)
	}
	var names []string
	err = f.store.EachReportItem(t.Context(), "run", func(i mysqlstore.ReportItem) error {
		names = append(names, i.OrgName)
		return nil
	}, billing.OutcomeSynced)
	slices.Sort(names)
	if diff := cmp.Diff([]string{"Name of " + named, "Name of " + spelled}, names); diff != "" || err != nil {
		t.Errorf("reported: %v, %s", err, diff)
	}
}

func (f *fixture) repair(t *testing.T, store *mysqlstore.Store, before billing.Record, plan billing.Plan) {
	t.Helper()
	item := billing.Item{RunID: "run", OrgID: before.Org.ID, Outcome: billing.OutcomeSynced, Reason: billing.ReasonRepaired, Changes: plan.Changes}
	if err := store.Apply(t.Context(), before, plan, item, false, now); err != nil {
		t.Errorf("repair %s: %v", before.Org.ID, err)
	}
}

// If a column and a value have different character sets, the server converts one of them. If it converted the column, it
// would read the whole table.
func TestNoCollationCausesATableScan(t *testing.T) {
	t.Parallel()
	for _, collation := range collations {
		inCollation(t, collation, collation, collation, readsByIndex)
	}
}

func readsByIndex(t *testing.T, f *fixture) {
	t.Helper()
	const many = 2000
	ids := orgIDs(many)
	slices.Sort(ids)
	f.addPaying(t, ids...)
	var subs []billing.Subscription
	for _, id := range ids[:5] {
		subs = append(subs, billing.Subscription{ID: "sub_" + id, CustomerID: "cus_" + id, OrgID: strings.ToUpper(id), Status: billing.StatusActive})
	}
	for i, odd := range []string{"ü", "日本", "🙂"} {
		subs = append(subs, billing.Subscription{ID: fmt.Sprint("sub_odd_", i), CustomerID: "cus_" + odd, OrgID: odd, Status: billing.StatusActive})
	}
	f.swept(t, "small", subs...)
	swept := slices.Clone(subs)
	for _, id := range ids[5:] {
		swept = append(swept, billing.Subscription{ID: "sub_" + id, CustomerID: "cus_" + id, OrgID: id, Status: billing.StatusCanceled})
	}
	f.swept(t, "run", swept...)
	for _, table := range []string{"organizations", "subscriptions", "reconciliation_snapshots"} {
		f.MustExec(t, `ANALYZE TABLE `+table)
	}
	store, _ := f.singleConnection(t)
	record := f.record(t, ids[0])
	page := func(through string) error {
		_, _, err := store.ListOrganizations(t.Context(), leaseOf("run"), "free", "", through, 20)
		return err
	}
	for _, read := range []struct {
		what string
		fn   func() error
	}{
		{"the first page", func() error { return page("") }},
		{"a page", func() error { return page(ids[many/2]) }},
		{"records", func() error {
			_, err := store.Records(t.Context(), append([]string{"ü", "日本"}, ids[:10]...))
			return err
		}},
		{"claims", func() error {
			_, err := store.Claims(t.Context(), subs)
			return err
		}},
		{"what is unclaimed", func() error {
			_, _, err := store.ListFromSnapshot(t.Context(), leaseOf("small"), "") // which reads the snapshot through
			return err
		}},
		{"one organization", func() error {
			_, err := store.OrganizationExists(t.Context(), ids[7])
			return err
		}},
		{"a repair", func() error {
			f.repair(t, store, record, billing.Plan{RowID: rowID(ids[0]), Changes: []billing.Change{{Field: billing.FieldPlanTier, From: "pro", To: "max"}, {Field: billing.FieldOrgTier, From: "pro", To: "max"}}})
			return nil
		}},
		{"a report", func() error {
			return store.EachReportItem(t.Context(), "run", func(mysqlstore.ReportItem) error { return nil }, billing.OutcomePending)
		}},
	} {
		if n := rowsRead(t, store, read.fn); n > many/4 {
			t.Errorf("%s: %d rows were read of %d organizations", read.what, n, many)
		}
	}
}

// In case-sensitive collations these are two organizations.
func TestIDsThatDifferOnlyInCaseAreNotConfused(t *testing.T) {
	t.Parallel()
	for _, collation := range []string{"utf8mb4_bin", "utf8mb4_0900_bin", "utf8mb4_0900_as_cs", "latin1_bin"} {
		inCollation(t, collation, collation, collation, func(t *testing.T, f *fixture) {
			ids := []string{"ABC", "abc"}
			f.addPaying(t, ids...)
			f.startRun(t, "run", 10)
			records, err := f.store.Records(t.Context(), ids)
			if err != nil {
				t.Fatal(err)
			}
			claims, err := f.store.Claims(t.Context(), []billing.Subscription{{ID: "sub_ABC", OrgID: "abc"}, {ID: "sub_abc", OrgID: "Abc"}})
			want := billing.Claims{RecordedBy: map[string][]string{"sub_ABC": {"ABC"}, "sub_abc": {"abc"}}, Named: map[string]string{"abc": "abc", "Abc": "abc"}}
			if diff := cmp.Diff(want, claims, cmpopts.EquateEmpty()); diff != "" || err != nil {
				t.Errorf("claims: %v, (-want +got)\n%s", err, diff)
			}
			names := map[string]string{}
			err = f.store.EachReportItem(t.Context(), "run", func(i mysqlstore.ReportItem) error {
				names[i.OrgID] = i.OrgName
				return nil
			}, billing.OutcomePending)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				if rows := records[id].Rows; len(rows) != 1 || *rows[0].SubscriptionID != "sub_"+id || names[id] != "Name of "+id {
					t.Errorf("%s has the name %q and the rows %+v", id, names[id], rows)
				}
			}
		})
	}
}
