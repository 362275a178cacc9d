package mysqlstore_test

import (
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

var until = now.Add(time.Minute)

// sweeping opens a run, takes its lease and begins its sweep.
func (f *fixture) sweeping(t *testing.T, id string) {
	t.Helper()
	f.openRun(t, newRun(id))
	f.lease(t, leaseOf(id))
	if err := f.store.BeginSweep(t.Context(), leaseOf(id), now); err != nil {
		t.Fatal(err)
	}
}

// swept opens a run whose complete snapshot has these subscriptions.
func (f *fixture) swept(t *testing.T, id string, subs ...billing.Subscription) {
	t.Helper()
	f.sweeping(t, id)
	f.storePage(t, id, billing.Range{}, billing.Page{Subscriptions: subs})
	if err := f.store.FinishSweep(t.Context(), leaseOf(id), billing.SweepComplete); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) storePage(t *testing.T, id string, of billing.Range, page billing.Page, rest ...billing.Range) {
	t.Helper()
	if err := f.store.SaveSweepPage(t.Context(), leaseOf(id), of, page, rest); err != nil {
		t.Fatal(err)
	}
}

// ranges returns the remaining ranges of the run called "run".
func (f *fixture) ranges(t *testing.T) []billing.Range {
	t.Helper()
	ranges, err := f.store.RemainingRanges(t.Context(), "run")
	if err != nil {
		t.Fatal(err)
	}
	return ranges
}

func (f *fixture) snapshotSize(t *testing.T, id string) int {
	t.Helper()
	var n int
	if err := f.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM reconciliation_snapshots WHERE run_key = (SELECT run_key FROM reconciliation_runs WHERE id = ?)`, id).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSweepIsSavedPageByPage(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.sweeping(t, "run")
		if got := f.ranges(t); !slices.Equal(got, []billing.Range{{}}) {
			t.Fatalf("the ranges of a new sweep are %+v", got)
		}
		newer, older := billing.Range{From: 50, StartingAfter: "sub_2"}, billing.Range{Before: 50}
		page := billing.Page{Subscriptions: []billing.Subscription{{ID: "sub_1"}, {ID: "sub_2"}}, More: true}
		f.storePage(t, "run", billing.Range{}, page, newer, older)
		if diff := cmp.Diff([]billing.Range{newer, older}, f.ranges(t), cmpopts.SortSlices(func(a, b billing.Range) bool { return a.Before < b.Before })); diff != "" {
			t.Error(diff)
		}
		if err := f.store.FinishSweep(t.Context(), leaseOf("run"), billing.SweepComplete); !errors.Is(err, billing.ErrLeaseLost) {
			t.Errorf("FinishSweep with remaining ranges: got %v, want ErrLeaseLost", err)
		}
		f.storePage(t, "run", newer, billing.Page{})
		f.storePage(t, "run", older, billing.Page{Subscriptions: page.Subscriptions[1:]}) // stored twice
		if got := f.ranges(t); len(got) != 0 || f.snapshotSize(t, "run") != 2 {
			t.Errorf("remaining ranges %+v, want none; %d subscriptions in the snapshot, want 2", got, f.snapshotSize(t, "run"))
		}
		if err := f.store.FinishSweep(t.Context(), leaseOf("run"), billing.SweepComplete); err != nil {
			t.Fatal(err)
		}
		if run := f.run(t, "run"); run.Sweep != billing.SweepComplete || run.SweptFrom == nil || !run.SweptFrom.Equal(now) {
			t.Errorf("the sweep is %q and began at %v", run.Sweep, run.SweptFrom)
		}
	})
}

func TestSweepPageOfALostLeaseIsNotSaved(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.sweeping(t, "run")
		f.MustExec(t, `UPDATE reconciliation_runs SET lease_owner = 'another'`)
		for name, err := range map[string]error{
			"page": f.store.SaveSweepPage(t.Context(), leaseOf("run"), billing.Range{}, billing.Page{Subscriptions: []billing.Subscription{{ID: "sub"}}}, nil),
			"end":  f.store.FinishSweep(t.Context(), leaseOf("run"), billing.SweepAbandoned),
			"new beginning": func() error {
				f.MustExec(t, `INSERT INTO reconciliation_snapshots (run_key, subscription_id, customer_hash, customer_id, org_id, status, price_id, metadata_tier)
					SELECT run_key, 'theirs', 0, '', '', '', '', '' FROM reconciliation_runs`)
				return f.store.BeginSweep(t.Context(), leaseOf("run"), now.Add(time.Hour))
			}(),
			"orphans": f.store.SaveOrphans(t.Context(), leaseOf("run"), []billing.Orphan{{SubscriptionID: "sub"}}, 1),
			"listing": func() error {
				_, _, err := f.store.ListFromSnapshot(t.Context(), leaseOf("run"), "")
				return err
			}(),
		} {
			if !errors.Is(err, billing.ErrLeaseLost) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, total, err := f.store.Orphans(t.Context(), "run"); total != 0 || err != nil {
			t.Errorf("%d orphans, %v", total, err)
		}
		run := f.run(t, "run")
		if !run.SweptFrom.Equal(now) || run.Sweep != billing.SweepOpen || len(f.ranges(t)) != 1 || f.snapshotSize(t, "run") != 1 {
			t.Errorf("%+v, %+v, %d subscriptions", run, f.ranges(t), f.snapshotSize(t, "run"))
		}
	})
}

func TestRestartedSweepHasAnEmptySnapshot(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		subs := make([]billing.Subscription, 2500)
		for i := range subs {
			subs[i].ID = fmt.Sprintf("sub_%04d", i)
		}
		f.swept(t, "run", subs...)
		f.swept(t, "other", billing.Subscription{ID: "sub"})
		later := now.Add(time.Hour)
		if err := f.store.BeginSweep(t.Context(), leaseOf("run"), later); err != nil {
			t.Fatal(err)
		}
		run := f.run(t, "run")
		if run.Sweep != billing.SweepOpen || !run.SweptFrom.Equal(later) || f.snapshotSize(t, "run") != 0 || len(f.ranges(t)) != 1 {
			t.Errorf("%+v, %d subscriptions, %+v", run, f.snapshotSize(t, "run"), f.ranges(t))
		}
		if f.snapshotSize(t, "other") != 1 {
			t.Error("another run's snapshot was removed")
		}
	})
}

func TestSnapshotIsReadBackUnchanged(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		whole := billing.Subscription{
			ID: "sub_whole", CustomerID: "cus_whole", Status: billing.StatusTrialing, PriceID: "price", OrgID: "Org-Whole", MetadataTier: " Pro ",
			Created: now, CurrentPeriodStart: now.Add(time.Second), CurrentPeriodEnd: time.Unix(math.MaxUint32, 0).UTC(),
			TrialEnd: time.Unix(1, 0).UTC(), CanceledAt: time.Unix(0, 0).UTC(), EndedAt: now.Add(2 * time.Second), CancelAtPeriodEnd: true,
			CancelAt: now.Add(3 * time.Second), CollectionPaused: true, Items: []billing.SubscriptionItem{{PriceID: "price", ProductID: "prod"}},
		}
		wide := billing.Subscription{
			ID: strings.Repeat("i", 255), CustomerID: "cus_whole", Status: billing.Status(strings.Repeat("s", 255)), PriceID: strings.Repeat("p", 255),
			OrgID: strings.Repeat("ü", 500), MetadataTier: strings.Repeat("ü", 500), MoreItems: true,
		}
		for range 10 {
			wide.Items = append(wide.Items, billing.SubscriptionItem{PriceID: wide.PriceID, ProductID: strings.Repeat("ü", 255), Metered: true})
		}
		bare := billing.Subscription{ID: "sub_bare", CustomerID: "cus_whole", Unreadable: true}
		early := billing.Subscription{ID: "sub_early", CustomerID: "cus_whole", TrialEnd: time.Unix(-1, 0).UTC()}
		late := billing.Subscription{ID: "sub_late", CustomerID: "cus_whole", CurrentPeriodEnd: time.Unix(math.MaxInt64/2, 0).UTC()}
		f.swept(t, "run", whole, wide, bare, early, late)
		got, _, err := f.store.Snapshot(t.Context(), "run", []billing.Record{{Org: billing.Organization{ID: "x", CustomerID: new("cus_whole")}}})
		if err != nil {
			t.Fatal(err)
		}
		byID := cmpopts.SortSlices(func(a, b billing.Subscription) bool { return a.ID < b.ID })
		if diff := cmp.Diff([]billing.Subscription{whole, wide, bare, early, late}, got, byID); diff != "" {
			t.Error(diff)
		}
	})
}

// The usual items take almost no space, and all items are read back unchanged.
func TestSnapshotStoresItemsCompactly(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		for name, test := range map[string]struct {
			price string
			items []billing.SubscriptionItem
			more  string
		}{
			"nothing":                {"", nil, "NULL"},
			"price":                  {"price_1", []billing.SubscriptionItem{{PriceID: "price_1"}}, "NULL"},
			"price and product":      {"price_1", []billing.SubscriptionItem{{PriceID: "price_1", ProductID: "prod_1"}}, `{"items":[{"product":"prod_1"}]}`},
			"metered":                {"price_1", []billing.SubscriptionItem{{PriceID: "price_1", Metered: true}}, `{"items":[{"metered":true}]}`},
			"an item without price":  {"", []billing.SubscriptionItem{{}}, `{"items":[{}]}`},
			"a product, no price":    {"", []billing.SubscriptionItem{{ProductID: "prod_1"}}, `{"items":[{"product":"prod_1"}]}`},
			"two, one without price": {"price_1", []billing.SubscriptionItem{{PriceID: "price_1"}, {}}, `{"items":[{"price":"price_1"},{}]}`},
			"the same twice":         {"price_1", []billing.SubscriptionItem{{PriceID: "price_1"}, {PriceID: "price_1"}}, `{"items":[{"price":"price_1"},{"price":"price_1"}]}`},
		} {
			t.Run(name, func(t *testing.T) {
				run := strings.ReplaceAll(name, " ", "-")
				sub := billing.Subscription{ID: "sub", CustomerID: "cus", PriceID: test.price, Items: test.items}
				f.swept(t, run, sub)
				got, _, err := f.store.Snapshot(t.Context(), run, []billing.Record{{Org: billing.Organization{ID: "x", CustomerID: new("cus")}}})
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff([]billing.Subscription{sub}, got); diff != "" {
					t.Error(diff)
				}
				more := mysqltest.Value[string](t, f.DB, `SELECT COALESCE(n.more, 'NULL') FROM reconciliation_snapshots n JOIN reconciliation_runs r ON r.run_key = n.run_key WHERE r.id = ?`, run)
				if more != test.more {
					t.Errorf("kept as %s, want %s", more, test.more)
				}
			})
		}
	})
}

// During a deployment, workers of two versions read one snapshot.
func TestSnapshotJSONFieldNamesAreStable(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.sweeping(t, "run")
		f.storePage(t, "run", billing.Range{}, billing.Page{Subscriptions: []billing.Subscription{
			{ID: "sub_plain", CustomerID: "cus_1", Status: billing.StatusActive, Created: now, CurrentPeriodStart: now, CurrentPeriodEnd: now},
			{
				ID: "sub_rare", Status: billing.StatusCanceled, Created: time.Unix(-1, 0), CurrentPeriodStart: time.Unix(1<<32, 0), CurrentPeriodEnd: time.Unix(-2, 0),
				TrialEnd: time.Unix(3, 0), CanceledAt: time.Unix(4, 0), EndedAt: time.Unix(5, 0), CancelAtPeriodEnd: true, Unreadable: true,
			},
		}})
		more := func(id string) sql.NullString {
			return mysqltest.Value[sql.NullString](t, f.DB, `SELECT more FROM reconciliation_snapshots WHERE subscription_id = ?`, id)
		}
		if plain := more("sub_plain"); plain.Valid {
			t.Errorf("sub_plain has %s", plain.String)
		}
		want := `{"created":-1,"start":4294967296,"end":-2,"trialEnd":3,"canceled":4,"ended":5,"cancelAtPeriodEnd":true,"unreadable":true}`
		if rare := more("sub_rare"); rare.String != want {
			t.Errorf("sub_rare has %s, want %s", rare.String, want)
		}
	})
}

func TestSweepPageReadAgainReplacesTheFirst(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		at := func(day int) time.Time { return now.AddDate(0, 0, day) }
		before := billing.Subscription{
			ID: "sub", CustomerID: "cus", Status: billing.StatusActive, PriceID: "price_1", OrgID: "a", MetadataTier: "pro", Created: at(0),
			CurrentPeriodStart: at(1), CurrentPeriodEnd: at(2), TrialEnd: at(3), CanceledAt: at(4), EndedAt: at(5), CancelAtPeriodEnd: true, Unreadable: true,
			CancelAt: at(5), CollectionPaused: true, Items: []billing.SubscriptionItem{{PriceID: "price_1"}, {PriceID: "price_0"}}, MoreItems: true,
		}
		after := billing.Subscription{
			ID: "sub", CustomerID: "cus_2", Status: billing.StatusCanceled, PriceID: "price_2", OrgID: "b", MetadataTier: "max", Created: at(6),
			CurrentPeriodStart: at(7), CurrentPeriodEnd: at(8), TrialEnd: at(9), CanceledAt: at(10), EndedAt: at(11),
			Items: []billing.SubscriptionItem{{PriceID: "price_2"}},
		}
		f.sweeping(t, "run")
		f.storePage(t, "run", billing.Range{}, billing.Page{Subscriptions: []billing.Subscription{before}, More: true}, billing.Range{})
		f.storePage(t, "run", billing.Range{}, billing.Page{Subscriptions: []billing.Subscription{after}})
		got, _, err := f.store.Snapshot(t.Context(), "run", []billing.Record{{Org: billing.Organization{ID: "b"}}})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]billing.Subscription{after}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestSnapshotReturnsEachSubscriptionOfAnOrganizationOnce(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.swept(t, "other", billing.Subscription{ID: "sub_a", CustomerID: "of another run"})
		f.swept(
			t, "run",
			billing.Subscription{ID: "sub_a", CustomerID: "cus_a", OrgID: " A "},
			billing.Subscription{ID: "sub_by_customer", CustomerID: "cus_a"},
			billing.Subscription{ID: "sub_by_metadata", CustomerID: "cus_x", OrgID: "a"},
			billing.Subscription{ID: "sub_of_b", CustomerID: "cus_b"},
			billing.Subscription{ID: "sub_of_nobody", CustomerID: "cus_y"},
			billing.Subscription{ID: "sub_without_customer"},
		)
		records := []billing.Record{
			{Org: billing.Organization{ID: "A", CustomerID: new("cus_a")}, Rows: []billing.Row{{SubscriptionID: new("sub_a"), CustomerID: new("cus_a")}}},
			{Org: billing.Organization{ID: "b"}, Rows: []billing.Row{{SubscriptionID: new("sub_gone")}, {CustomerID: new("cus_b")}}},
			{Org: billing.Organization{ID: "c", CustomerID: new("")}},
		}
		subs, _, err := f.store.Snapshot(t.Context(), "run", records)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range subs {
			got = append(got, s.ID+" "+s.CustomerID)
		}
		slices.Sort(got)
		if diff := cmp.Diff([]string{"sub_a cus_a", "sub_by_customer cus_a", "sub_by_metadata cus_x", "sub_of_b cus_b"}, got); diff != "" {
			t.Error(diff)
		}
		if subs, _, err := f.store.Snapshot(t.Context(), "run", nil); len(subs) != 0 || err != nil {
			t.Errorf("of nobody: %v, %v", subs, err)
		}
	})
}

func TestSnapshotListsOrganizationsThatOnlyMetadataNames(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "b-paying", "f-recorded")
		f.addOrganizations(t, appschema.Organization{ID: "A-named"}, appschema.Organization{ID: "c-nobody"},
			appschema.Organization{ID: "d-deleted", IsDeleted: true}, appschema.Organization{ID: "e-customer", StripeCustomerID: new("cus")})
		f.swept(t, "other", billing.Subscription{ID: "sub", OrgID: "c-nobody"})
		f.swept(
			t, "run",
			billing.Subscription{ID: "sub_2", OrgID: " a-NAMED ", Status: billing.StatusActive, Created: old}, billing.Subscription{ID: "sub_1", OrgID: "A-named", Created: now},
			billing.Subscription{ID: strings.Repeat("s", 255), OrgID: "e-customer", Status: billing.StatusActive},
			billing.Subscription{ID: "sub_3", OrgID: "b-paying"}, billing.Subscription{ID: "sub_b-paying", OrgID: "b-paying", Status: billing.StatusActive},
			billing.Subscription{ID: "sub_f-recorded", OrgID: "f-recorded"}, billing.Subscription{ID: "sub_4", OrgID: "d-deleted"}, billing.Subscription{ID: "sub_5", OrgID: "unknown"},
		)
		n, through, err := f.store.ListOrganizations(t.Context(), leaseOf("run"), "free", "", "", 10)
		if err != nil || n != 5 || through != "f-recorded" {
			t.Fatalf("%d through %s, %v", n, through, err)
		}
		for range 2 { // a response may be lost
			if _, through, err := f.store.ListFromSnapshot(t.Context(), leaseOf("run"), ""); through != "" || err != nil {
				t.Fatal(through, err)
			}
		}
		got := map[string]string{}
		for _, id := range []string{"A-named", "b-paying", "e-customer", "f-recorded"} {
			got[id] = f.item(t, "run", id).SubscriptionID
		}
		// The items lead to what names them when the snapshot is gone, the live one before others, and
		// not to what their own row records.
		if diff := cmp.Diff(map[string]string{"A-named": "sub_2", "b-paying": "sub_3", "e-customer": "", "f-recorded": ""}, got); diff != "" {
			t.Error(diff)
		}
		if n, err := f.store.CountGoverned(t.Context(), "run"); n != 0 || err != nil {
			t.Errorf("%d subscriptions govern before anything is decided, %v", n, err)
		}
	})
}

// Organizations are listed during the sweep, and the webhook writes meanwhile.
func TestSnapshotListsAnOrganizationWhoseRowIsNewerThanTheListing(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		const id = "ä23456789012345678901234567890123456" // 36 characters
		f.addOrganizations(t, appschema.Organization{ID: id}, appschema.Organization{ID: "z-deleted", IsDeleted: true})
		f.swept(t, "run", billing.Subscription{ID: "sub", OrgID: id}, billing.Subscription{ID: "sub_z", OrgID: "z-deleted"})
		if n, _, err := f.store.ListOrganizations(t.Context(), leaseOf("run"), "free", "", "", 10); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		f.addRows(t, appschema.Subscription{ID: "row", OrgID: id, StripeSubscriptionID: new("sub")},
			appschema.Subscription{ID: "row-z", OrgID: "z-deleted", StripeSubscriptionID: new("sub_z")})
		if _, _, err := f.store.ListFromSnapshot(t.Context(), leaseOf("run"), ""); err != nil {
			t.Fatal(err)
		}
		if ids := f.selectStrings(t, `SELECT org_id FROM reconciliation_items`); !slices.Equal(ids, []string{id}) {
			t.Errorf("the listed organizations are %v, want %s", ids, id)
		}
	})
}

// The pages are in the order of ids, not of status and age.
func TestItemStoresTheGoverningSubscriptionOfSeveralPages(t *testing.T) {
	f := onServer(t)
	f.addOrganizations(t, appschema.Organization{ID: "a"}, appschema.Organization{ID: "b"})
	subs := numberedSubscriptions(2*mysqlstore.SnapshotPage + 1)
	for i := range subs {
		subs[i].OrgID, subs[i].Status, subs[i].Created = "a", billing.StatusCanceled, now
	}
	subs[10].Status = billing.StatusActive
	subs[len(subs)-1].OrgID = "b"
	f.swept(t, "run", subs...)
	pages := 0
	for after, more := "", true; more; pages++ {
		var err error
		if _, after, err = f.store.ListFromSnapshot(t.Context(), leaseOf("run"), after); err != nil {
			t.Fatal(err)
		}
		more = after != ""
	}
	if a, b := f.item(t, "run", "a"), f.item(t, "run", "b"); a.SubscriptionID != subs[10].ID || b.SubscriptionID != subs[len(subs)-1].ID || pages != 3 {
		t.Errorf("the items have the subscriptions %s and %s, %d pages", a.SubscriptionID, b.SubscriptionID, pages)
	}
}

func TestOrphansAreLiveAndUnclaimed(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a")
		f.addOrganizations(t, appschema.Organization{ID: "deleted", StripeCustomerID: new("cus_deleted"), IsDeleted: true})
		f.addRows(t, appschema.Subscription{ID: "row-deleted", OrgID: "deleted", StripeSubscriptionID: new("sub_of_deleted"), StripeCustomerID: new("cus_of_deleted_row")})
		f.addOrganizations(t, appschema.Organization{ID: "b", StripeCustomerID: new("cus_of_org")})
		f.addRows(t, appschema.Subscription{ID: "row-b", OrgID: "b", StripeCustomerID: new("cus_of_row")},
			appschema.Subscription{ID: "row-p", OrgID: "b", StripeSubscriptionID: new("sub_p\n")})
		live := func(id, customer, org string, status billing.Status) billing.Subscription {
			return billing.Subscription{ID: id, CustomerID: customer, OrgID: org, Status: status}
		}
		f.swept(
			t, "run",
			live("sub_a", "cus_x", "", billing.StatusActive),                // recorded
			live("sub_1", "cus_of_org", "", billing.StatusActive),           // an organization's customer
			live("sub_2", "cus_of_row", "", billing.StatusActive),           // a row's customer
			live("sub_3", "cus_x", " A ", billing.StatusActive),             // named
			live("sub_4", "cus_x", "", billing.StatusCanceled),              // ended
			live("sub_5", "cus_x", "", billing.StatusUnpaid),                // no access
			live("sub_p", "cus_x", "", billing.StatusActive),                // recorded with white space
			live("sub_o1", "cus_x", "", billing.StatusActive),               // orphan
			live("sub_o2", "cus_x", "gone", billing.StatusTrialing),         // names nobody
			live("sub_o3", "cus_deleted", "deleted", billing.StatusPastDue), // whose organization is deleted
			live("sub_o4", "cus_of_deleted_row", "", billing.StatusActive),  // a row's customer, of a deleted one
			live("sub_of_deleted", "cus_z", "", billing.StatusActive),
		)
		unclaimed, through, err := f.store.ListFromSnapshot(t.Context(), leaseOf("run"), "")
		if err != nil || through != "" {
			t.Fatal(through, err)
		}
		orphans, err := f.store.FindOrphans(t.Context(), leaseOf("run"), unclaimed)
		if err != nil {
			t.Fatal(err)
		}
		want := []billing.Orphan{
			{SubscriptionID: "sub_o1", CustomerID: "cus_x", Status: billing.StatusActive},
			{SubscriptionID: "sub_o2", CustomerID: "cus_x", Status: billing.StatusTrialing, OrgID: "gone"},
			{SubscriptionID: "sub_o3", CustomerID: "cus_deleted", Status: billing.StatusPastDue, OrgID: "deleted"},
			{SubscriptionID: "sub_o4", CustomerID: "cus_of_deleted_row", Status: billing.StatusActive},
			{SubscriptionID: "sub_of_deleted", CustomerID: "cus_z", Status: billing.StatusActive},
		}
		if diff := cmp.Diff(want, orphans); diff != "" {
			t.Error(diff)
		}
		if err := f.store.SaveOrphans(t.Context(), leaseOf("run"), orphans[:2], 5); err != nil {
			t.Fatal(err)
		}
		first, total, err := f.store.Orphans(t.Context(), "run")
		if diff := cmp.Diff(want[:2], first); diff != "" || total != 5 || err != nil {
			t.Errorf("%d, %v; %s", total, err, diff)
		}
	})
}

// The workers need not look for other owners of a customer that is one organization's.
func TestSnapshotTellsWhoAloneHasTheCustomerOfAnUnclaimedSubscription(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		customerOf := func(id, customer string) appschema.Organization {
			return appschema.Organization{ID: id, StripeCustomerID: &customer}
		}
		deleted := customerOf("a-deleted", "cus_a")
		deleted.IsDeleted = true
		f.addOrganizations(t, customerOf("a", "cus_a"), deleted, customerOf("b", "cus_b"), customerOf("c", "cus_shared"), customerOf("d", "cus_shared"), appschema.Organization{ID: "e"})
		f.addRows(t, appschema.Subscription{ID: "row-e", OrgID: "e", StripeCustomerID: new(" cus_e")})
		live := func(customer string) billing.Subscription {
			return billing.Subscription{ID: "sub_of_" + customer, CustomerID: customer, Status: billing.StatusActive, PriceID: "price", TrialEnd: old}
		}
		subs := []billing.Subscription{live("cus_a"), live("cus_b"), live("cus_e"), live("cus_shared"), live("cus_x")}
		f.swept(t, "run", subs...)
		var records []billing.Record
		for _, sub := range subs {
			records = append(records, billing.Record{Org: billing.Organization{CustomerID: &sub.CustomerID}})
		}
		listed := func() (owners map[string]string) {
			t.Helper()
			unclaimed, _, err := f.store.ListFromSnapshot(t.Context(), leaseOf("run"), "")
			if err != nil {
				t.Fatal(err)
			}
			orphans, err := f.store.FindOrphans(t.Context(), leaseOf("run"), unclaimed)
			if err != nil || len(orphans) != 1 || orphans[0].CustomerID != "cus_x" {
				t.Errorf("orphans %+v, %v", orphans, err)
			}
			got, owners, err := f.store.Snapshot(t.Context(), "run", records)
			for i := range subs {
				subs[i].Items = []billing.SubscriptionItem{{PriceID: "price"}}
			}
			byID := cmpopts.SortSlices(func(a, b billing.Subscription) bool { return a.ID < b.ID })
			if diff := cmp.Diff(subs, got, byID); diff != "" || err != nil {
				t.Errorf("%v (-want +got)\n%s", err, diff)
			}
			return owners
		}
		if diff := cmp.Diff(map[string]string{"cus_a": "a", "cus_b": "b", "cus_e": "e"}, listed()); diff != "" {
			t.Error(diff)
		}
		f.addOrganizations(t, customerOf("b2", "cus_b")) // before the listing is repeated
		if diff := cmp.Diff(map[string]string{"cus_a": "a", "cus_e": "e"}, listed()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestOrphansAreFoundPageByPage(t *testing.T) {
	f := onServer(t)
	const n = 4100
	subs := make([]billing.Subscription, n)
	for i := range subs {
		subs[i] = billing.Subscription{ID: fmt.Sprintf("sub_%04d", i), CustomerID: "cus", Status: billing.StatusActive}
	}
	f.sweeping(t, "run")
	for chunk := range slices.Chunk(subs, 100) {
		f.storePage(t, "run", billing.Range{}, billing.Page{Subscriptions: chunk, More: true}, billing.Range{})
	}
	total, pages := 0, 0
	for after, more := "", true; more; pages++ {
		orphans, through, err := f.store.ListFromSnapshot(t.Context(), leaseOf("run"), after)
		if err != nil {
			t.Fatal(err)
		}
		total += len(orphans)
		after, more = through, through != ""
	}
	if total != n || pages < 2 {
		t.Errorf("%d orphans on %d pages, want %d on several", total, pages, n)
	}
}

func inSyncItems(orgIDs ...string) []billing.Item {
	var items []billing.Item
	for _, id := range orgIDs {
		items = append(items, billing.Item{OrgID: id, Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync, SubscriptionID: "sub_" + id})
	}
	return items
}

func TestDecideInSyncDecidesPendingItemsOnly(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a", "b", "c", "d")
		f.swept(t, "run")
		if _, _, err := f.store.ListOrganizations(t.Context(), leaseOf("run"), "free", "", "", 10); err != nil {
			t.Fatal(err)
		}
		f.MustExec(t, `UPDATE reconciliation_items SET outcome = 'synced', reason = 'repaired' WHERE org_id = 'c'`)
		f.MustExec(t, `UPDATE reconciliation_items SET outcome = 'error', reason = 'withheld' WHERE org_id = 'd'`)
		items := inSyncItems("a", "b", "c", "d", "unknown")
		items[1].Warnings = []billing.Warning{{Code: billing.WarnMultipleRows, Message: "two"}}
		n, err := f.store.DecideInSync(t.Context(), "run", now, items, now)
		if err != nil || n != 2 {
			t.Fatalf("%d items were decided, want 2, %v", n, err)
		}
		want := map[string]billing.Item{
			"a": {RunID: "run", OrgID: "a", Outcome: "skipped", Reason: "in_sync", Revision: 1},
			"b": {RunID: "run", OrgID: "b", Outcome: "skipped", Reason: "in_sync", SubscriptionID: "sub_b", Revision: 1, Warnings: items[1].Warnings},
			"c": {RunID: "run", OrgID: "c", Outcome: "synced", Reason: "repaired"},
			"d": {RunID: "run", OrgID: "d", Outcome: "error", Reason: "withheld"},
		}
		for id, item := range want {
			if diff := cmp.Diff(item, f.item(t, "run", id)); diff != "" {
				t.Errorf("%s: %s", id, diff)
			}
		}
	})
}

func TestOutdatedSnapshotDecidesNothing(t *testing.T) {
	for name, change := range map[string]string{
		"closed":          `UPDATE reconciliation_runs SET status = 'incomplete'`,
		"stopped":         `UPDATE reconciliation_runs SET status = 'stopped'`,
		"swept again":     `UPDATE reconciliation_sweeps SET began_at = began_at + INTERVAL 1 HOUR`,
		"being swept":     `UPDATE reconciliation_sweeps SET state = ''`,
		"sweep abandoned": `UPDATE reconciliation_sweeps SET state = 'abandoned'`,
		"reopened":        `DELETE FROM reconciliation_sweeps`,
		"pruned":          `DELETE FROM reconciliation_runs`,
	} {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, f *fixture) {
				f.addPaying(t, "a")
				f.swept(t, "run")
				if _, _, err := f.store.ListOrganizations(t.Context(), leaseOf("run"), "free", "", "", 10); err != nil {
					t.Fatal(err)
				}
				f.MustExec(t, change)
				n, err := f.store.DecideInSync(t.Context(), "run", now, inSyncItems("a"), now)
				if outcome := mysqltest.Value[billing.Outcome](t, f.DB, `SELECT outcome FROM reconciliation_items`); n != 0 || err != nil || outcome != billing.OutcomePending {
					t.Errorf("%d items were decided, %v; the outcome is %s", n, err, outcome)
				}
			})
		})
	}
}

func TestSnapshotIsDeletedOnlyAfterItsRunIsClosed(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.swept(t, "run", billing.Subscription{ID: "sub_1"}, billing.Subscription{ID: "sub_2"})
		for _, status := range []billing.RunStatus{billing.RunEnumerating, billing.RunRunning} {
			f.MustExec(t, `UPDATE reconciliation_runs SET status = ?`, status)
			ids, err := f.store.ClosedRunsWithSnapshot(t.Context())
			if err != nil || len(ids) != 0 {
				t.Errorf("%s: %v, %v", status, ids, err)
			}
			if err := f.store.DeleteSnapshot(t.Context(), "run"); err != nil || f.snapshotSize(t, "run") != 2 {
				t.Errorf("%s: %d left, %v", status, f.snapshotSize(t, "run"), err)
			}
		}
		f.MustExec(t, `UPDATE reconciliation_runs SET status = 'completed'`)
		ids, err := f.store.ClosedRunsWithSnapshot(t.Context())
		if err != nil || !slices.Equal(ids, []string{"run"}) {
			t.Errorf("%v, %v", ids, err)
		}
		if err := f.store.DeleteSnapshot(t.Context(), "run"); err != nil || f.snapshotSize(t, "run") != 0 {
			t.Errorf("%d left, %v", f.snapshotSize(t, "run"), err)
		}
		if ids, err := f.store.ClosedRunsWithSnapshot(t.Context()); len(ids) != 0 || err != nil {
			t.Errorf("%v, %v", ids, err)
		}
	})
}

// numberedSubscriptions returns n subscriptions.
func numberedSubscriptions(n int) []billing.Subscription {
	subs := make([]billing.Subscription, n)
	for i := range subs {
		subs[i].ID = fmt.Sprintf("sub_%05d", i)
	}
	return subs
}

// The snapshot must stay, because the new sweep may write to it.
func TestDeleteSnapshotWaitsForAReopeningTransactionAndDeletesNothing(t *testing.T) {
	f := onServer(t)
	f.swept(t, "run", numberedSubscriptions(10)...)
	f.MustExec(t, `UPDATE reconciliation_runs SET status = 'stopped'`)
	reopening := f.lock(t, `UPDATE reconciliation_runs SET status = 'enumerating'`)
	store, connection := f.singleConnection(t)
	dropped := make(chan error, 1)
	go func() { dropped <- store.DeleteSnapshot(t.Context(), "run") }()
	f.awaitStatement(t, connection, "SELECT id FROM reconciliation_runs")
	if err := reopening.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-dropped; err != nil || f.snapshotSize(t, "run") != 10 {
		t.Errorf("%d of 10 subscriptions are left, %v", f.snapshotSize(t, "run"), err)
	}
}

// The run is reopened while the second of three batches is deleted.
func TestDeleteSnapshotStopsIfTheRunIsReopened(t *testing.T) {
	f := onServer(t)
	const batch = mysqlstore.PruneBatch
	f.swept(t, "run", numberedSubscriptions(3*batch)...)
	f.MustExec(t, `UPDATE reconciliation_runs SET status = 'stopped'`)
	row := f.lock(t, fmt.Sprintf(`UPDATE reconciliation_snapshots SET status = 'x' WHERE run_key = %d AND subscription_id = 'sub_%05d'`, f.key(t, "run"), batch+batch/2))
	dropper, dropping := f.singleConnection(t)
	dropped := make(chan error, 1)
	go func() { dropped <- dropper.DeleteSnapshot(t.Context(), "run") }()
	for deadline := time.Now().Add(patience); f.snapshotSize(t, "run") > 2*batch; {
		if time.Now().After(deadline) {
			t.Fatal("the first batch was not deleted")
		}
	}
	f.awaitStatement(t, dropping, "DELETE n FROM reconciliation_snapshots")
	opener, opening := f.singleConnection(t)
	reopened := make(chan error, 1)
	go func() {
		_, err := opener.Reopen(t.Context(), "run", "", until)
		reopened <- err
	}()
	f.awaitStatement(t, opening, "UPDATE reconciliation_runs")
	if err := row.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-dropped, <-reopened); err != nil {
		t.Fatal(err)
	}
	if run := f.run(t, "run"); run.Status != billing.RunEnumerating || f.snapshotSize(t, "run") != batch {
		t.Errorf("the run is %s, %d subscriptions are left, want %d", run.Status, f.snapshotSize(t, "run"), batch)
	}
}

func TestReopenedRunIsSweptAgain(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a")
		f.swept(t, "run")
		if _, _, err := f.store.ListOrganizations(t.Context(), leaseOf("run"), "free", "", "", 10); err != nil {
			t.Fatal(err)
		}
		f.MustExec(t, `UPDATE reconciliation_runs SET status = 'stopped'`)
		reopened, err := f.store.Reopen(t.Context(), "run", "", until)
		if err != nil || !reopened {
			t.Fatal(reopened, err)
		}
		if run := f.run(t, "run"); run.Sweep != billing.SweepOpen || run.SweptFrom != nil {
			t.Errorf("%+v", run)
		}
	})
}

func TestPruneDeletesTheSweep(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.swept(t, "run", billing.Subscription{ID: "sub"})
		f.MustExec(t, `UPDATE reconciliation_runs SET status = 'stopped'`)
		if n, err := f.store.Prune(t.Context(), now.Add(time.Hour)); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		for _, table := range []string{"runs", "sweeps", "ranges", "snapshots"} {
			var n int
			if err := f.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM reconciliation_`+table).Scan(&n); err != nil || n != 0 {
				t.Errorf("reconciliation_%s has %d rows, want none, %v", table, n, err)
			}
		}
	})
}

func TestCountSweptGrowsWithTheSweep(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.swept(t, "other", billing.Subscription{ID: "sub_of_another_run"})
		f.sweeping(t, "run")
		for n, id := range []string{"sub_1", "sub_2"} {
			if got, err := f.store.CountSwept(t.Context(), "run"); err != nil || got != n {
				t.Errorf("CountSwept() = %d, %v, want %d", got, err, n)
			}
			f.storePage(t, "run", billing.Range{}, billing.Page{Subscriptions: []billing.Subscription{{ID: id}}}, billing.Range{})
		}
		if got, err := f.store.CountSwept(t.Context(), "unknown"); err != nil || got != 0 {
			t.Errorf("for an unknown run: %d, %v", got, err)
		}
	})
}
