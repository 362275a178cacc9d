package billing_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func TestMetadataNamesTheOrganizationThatItSpells(t *testing.T) {
	apart := func(ids ...string) (all []billing.Identity) {
		for _, id := range ids {
			all = append(all, billing.Identity{ID: id})
		}
		return all
	}
	oneOf := func(id string) []billing.Identity { return []billing.Identity{{ID: id, CaseInsensitive: true}} }
	for name, c := range map[string]struct {
		named string
		found []billing.Identity
		want  string
	}{
		"as spelled":                                  {"01J9ZK", apart("01J9ZK"), "01J9ZK"},
		"typed in capitals":                           {"5E1F-0A", apart("5e1f-0a"), "5e1f-0a"},
		"typed in small letters":                      {"01j9zk", apart("01J9ZK"), "01J9ZK"},
		"the one as spelled before another":           {"aB", apart("ab", "aB", "AB"), "aB"},
		"in capitals, the one as spelled":             {"AB", apart("ab", "AB"), "AB"},
		"in small letters, the one as spelled":        {"ab", apart("AB", "ab"), "ab"},
		"small letters before capitals":               {"aB", apart("AB", "ab"), "ab"},
		"mixed, and nobody's":                         {"ab", apart("aB", "Ab"), ""},
		"the only one in a case-insensitive database": {"AB-c", oneOf("aB-C"), "aB-C"},
		"nobody in a case-insensitive database":       {"AB-d", oneOf("aB-C"), ""},
		"equal in the database but for accents":       {"resume", oneOf("Résumé"), ""},
		"another's in a case-sensitive database":      {"ABc", apart("aBc"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // whatever the order
				if got := billing.Named([]string{c.named}, c.found)[c.named]; got.ID != c.want {
					t.Errorf("%s names %q, want %q", c.named, got.ID, c.want)
				}
				slices.Reverse(c.found)
			}
		})
	}
}

func TestSpellingsAreLookedUpOnceEach(t *testing.T) {
	got := billing.Spellings([]string{"aB", "ab", "12-3", "", "aB"})
	if diff := cmp.Diff([]string{"aB", "ab", "AB", "12-3"}, got); diff != "" {
		t.Error(diff)
	}
}

// In a case-sensitive database the ids of two organizations may differ only in case.
func TestSubscriptionIsNotGivenToAnOrganizationWithASimilarID(t *testing.T) {
	const capitals, small, mixed = "01J9ZK", "01j9zk", "01j9Zk"
	record := func(id string, customer *string) billing.Record {
		return billing.Record{Org: billing.Organization{ID: id, CustomerID: customer, Status: "incomplete", Tier: "free"}}
	}
	of := func(orgID, customer string) billing.Subscription {
		return subscription("sub_1", "active", ofOrg(orgID), func(s *billing.Subscription) { s.CustomerID = customer })
	}
	both := billing.Claims{Named: map[string]string{capitals: capitals, small: small}}
	for name, c := range map[string]struct {
		truth  billing.Truth
		record billing.Record
		want   string // governing id, or the reason
	}{
		"its own":                        {claimed(truth(of(" "+capitals+" ", "cus_x")), both), record(capitals, nil), "sub_1"},
		"the other's":                    {claimed(truth(of(capitals, "cus_x")), both), record(small, nil), "no_stripe_identity"},
		"the other's under its customer": {claimed(truth(of(capitals, "cus_1")), both), record(small, ptr("cus_1")), "subscription_conflict"},
		"nobody's":                       {truth(of("01J9zk", "cus_x")), record(mixed, nil), "no_stripe_identity"},
		"nobody's under its customer":    {truth(of("01J9zk", "cus_1")), record(mixed, ptr("cus_1")), "sub_1"},
		"on the other's row": {
			claimed(truth(of("", "cus_1")), billing.Claims{RecordedBy: map[string][]string{"sub_1": {capitals}}}), record(small, ptr("cus_1")), "subscription_conflict",
		},
	} {
		t.Run(name, func(t *testing.T) {
			plan, err := rules.Plan(c.truth, c.record)
			got := plan.GoverningID
			if got == "" {
				got = string(plan.Reason) + string(reasonOf(t, err))
			}
			if got != c.want {
				t.Errorf("got %s, want %s (%v)", got, c.want, err)
			}
		})
	}
}
