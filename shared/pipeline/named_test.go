package pipeline_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// newFixtureIn returns a fixture whose application's tables have this collation.
func newFixtureIn(t *testing.T, collation string) *fixture {
	t.Helper()
	f := newFixture(t)
	f.DB.Collate(t, collation)
	return f
}

var collations = []string{"utf8mb4_unicode_ci", "utf8mb4_bin", "utf8mb4_0900_ai_ci", "utf8mb4_0900_bin", "latin1_swedish_ci", "latin1_bin"}

// namedUnder adds an active subscription of the customer "cus_ID" to Stripe. Its metadata has this orgId.
func (f *fixture) namedUnder(id, orgID string) {
	f.Sub(id, func(s *stripetest.Subscription) {
		s.ID, s.Metadata = "sub_named_"+strings.TrimSpace(orgID), map[string]string{"orgId": orgID}
	})
}

// reconcileAll executes a full run, one organization after the other in the order of their ids. It returns the reason
// and the governing subscription of each organization, and the orphans.
func (f *fixture) reconcileAll() (reasons map[string]string, orphans []billing.Orphan) {
	f.Helper()
	ids := f.swept()
	reasons = map[string]string{}
	for _, id := range ids {
		f.deliver(f.Reconciler(nil), scheduledID, id)
		item := f.Item(scheduledID, id)
		reasons[id] = string(item.Reason) + " " + item.SubscriptionID
	}
	orphans, _, err := f.Store.Orphans(f.Context(), scheduledID)
	if err != nil {
		f.Fatal(err)
	}
	return reasons, orphans
}

// ULIDs, and the GUIDs of some platforms, are in upper case. Metadata may spell them in lower case.
func TestMetadataNamesOrganizationInAnyCollation(t *testing.T) {
	for _, collation := range collations {
		for name, ids := range map[string]struct{ payer, other, spelled string }{
			"upper case":             {"01J9ZK3V8QA", "01J9ZK3V8QB", "01J9ZK3V8QB"},
			"metadata in lower case": {"01J9ZK3V8QA", "01J9ZK3V8QB", " 01j9zk3v8qb"},
			"metadata in upper case": {"01j9zk3v8qa", "01j9zk3v8qb", "01J9ZK3V8QB "},
			"mixed case":             {"5e1F-a", "5e1F-b", "5e1F-b"},
		} {
			t.Run(collation+"/"+name, func(t *testing.T) {
				f := newFixtureIn(t, collation)
				f.Subscriber(ids.payer)
				f.Org(ids.other, withoutCustomer, free)
				f.namedUnder(ids.payer, ids.spelled)
				reasons, orphans := f.reconcileAll()
				want := map[string]string{ids.payer: "in_sync ", ids.other: "row_inserted sub_named_" + strings.TrimSpace(ids.spelled)}
				if diff := cmp.Diff(want, reasons); diff != "" || len(orphans) != 0 {
					t.Errorf("orphans %v; (-want +got)\n%s", orphans, diff)
				}
			})
		}
	}
}

// The subscription belongs to the organization that its metadata names, even if the organization of the paying customer
// has no other subscription. It is not an orphan, even if no organization has its customer.
func TestSubscriptionOfCustomerBelongsToOrganizationThatMetadataNames(t *testing.T) {
	const payer, other, third = "01J9ZK3V8QA", "01J9ZK3V8QB", "01J9ZK3V8QC"
	for _, collation := range collations {
		t.Run(collation, func(t *testing.T) {
			f := newFixtureIn(t, collation)
			f.Org(payer, free)
			f.Org(other, withoutCustomer, free)
			f.Org(third, withoutCustomer, free)
			f.namedUnder(payer, other)
			f.namedUnder("without-organization", third)
			reasons, orphans := f.reconcileAll()
			want := map[string]string{payer: "subscription_conflict ", other: "row_inserted sub_named_" + other, third: "row_inserted sub_named_" + third}
			if diff := cmp.Diff(want, reasons); diff != "" || len(orphans) != 0 {
				t.Errorf("orphans %v; (-want +got)\n%s", orphans, diff)
			}
		})
	}
}

// In a case-sensitive collation, two ids that differ only in case are two organizations.
func TestIDsThatDifferOnlyInCaseAreTwoOrganizationsInCaseSensitiveCollation(t *testing.T) {
	for _, collation := range []string{"utf8mb4_bin", "utf8mb4_0900_bin", "latin1_bin"} {
		t.Run(collation, func(t *testing.T) {
			f := newFixtureIn(t, collation)
			f.Subscriber("abc-1")
			f.Subscriber("ABC-1")
			f.Org("abc-2", withoutCustomer, free)
			f.Org("ABC-2", withoutCustomer, free)
			f.Org("aBc-3", withoutCustomer, free)
			f.namedUnder("abc-1", "ABC-2")
			f.namedUnder("ABC-1", "abc-2")
			f.Sub("abc-3", func(s *stripetest.Subscription) { s.Metadata = map[string]string{"orgId": "abC-3"} }) // an orphan
			reasons, orphans := f.reconcileAll()
			want := map[string]string{
				"abc-1": "in_sync ", "ABC-1": "in_sync ",
				"abc-2": "row_inserted sub_named_abc-2", "ABC-2": "row_inserted sub_named_ABC-2",
			}
			if diff := cmp.Diff(want, reasons); diff != "" || len(orphans) != 1 || orphans[0].SubscriptionID != "sub_abc-3" {
				t.Errorf("orphans %v; (-want +got)\n%s", orphans, diff)
			}
		})
	}
}

// In a case-insensitive collation they are one organization, in whatever case the row and metadata spell its id.
func TestRowWithOrganizationIDInAnotherCaseIsFound(t *testing.T) {
	for _, collation := range []string{"utf8mb4_unicode_ci", "utf8mb4_0900_ai_ci", "latin1_swedish_ci"} {
		t.Run(collation, func(t *testing.T) {
			f := newFixtureIn(t, collation)
			f.Org("AbC-1")
			f.Row("AbC-1", func(s *appschema.Subscription) { s.OrgID = "aBc-1" })
			f.Sub("AbC-1", canceled)
			f.namedUnder("AbC-1", "ABc-1")
			reasons, orphans := f.reconcileAll()
			if diff := cmp.Diff(map[string]string{"AbC-1": "repaired sub_named_ABc-1"}, reasons); diff != "" || len(orphans) != 0 {
				t.Errorf("orphans %v; (-want +got)\n%s", orphans, diff)
			}
		})
	}
}
