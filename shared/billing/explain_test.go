package billing_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func TestExplainSaysWhyASubscriptionGoverns(t *testing.T) {
	newer := created.Add(time.Hour)
	deleted := recorded("sub_1")
	deleted.Org.Deleted = true
	for name, c := range map[string]struct {
		truth      billing.Truth
		record     billing.Record
		governs    string
		why        string
		considered map[string]string // "+" marks candidates
	}{
		"recorded and active": {
			truth(subscription("sub_1", "active"), subscription("sub_2", "active", createdAt(newer))), recorded("sub_1"),
			"sub_1", "it is recorded and active: nothing competes with that",
			map[string]string{"sub_1": "+a subscriptions row records it", "sub_2": "+it is of customer cus_1"},
		},
		"alone": {
			truth(subscription("sub_1", "past_due")), customerOnly(),
			"sub_1", "it is the only candidate",
			map[string]string{"sub_1": "+it is of customer cus_1"},
		},
		"by status": {
			truth(subscription("sub_1", "canceled", createdAt(newer)), subscription("sub_2", "past_due", ofOrg(org))), recorded("sub_1"),
			"sub_2", "of 2 candidates, past_due comes before canceled",
			map[string]string{"sub_1": "+a subscriptions row records it", "sub_2": "+its metadata.orgId names this organization"},
		},
		"by age": {
			truth(subscription("sub_1", "canceled"), subscription("sub_2", "canceled", createdAt(newer)), subscription("sub_3", "incomplete_expired")), customerOnly(),
			"sub_2", "of 3 candidates, those that are canceled come first, and it is the newest of them",
			map[string]string{"sub_1": "+it is of customer cus_1", "sub_2": "+it is of customer cus_1", "sub_3": "+it is of customer cus_1"},
		},
		"by id": {
			truth(subscription("sub_2", "unpaid"), subscription("sub_1", "unpaid")), customerOnly(),
			"sub_1", "of 2 candidates, those that are unpaid come first; of those created last it has the lowest id",
			map[string]string{"sub_1": "+it is of customer cus_1", "sub_2": "+it is of customer cus_1"},
		},
		"others' are no candidates": {
			claimed(truth(subscription("sub_1", "active"), subscription("sub_2", "active", ofOrg(otherOrg))), billing.Claims{
				RecordedBy: map[string][]string{"sub_1": {otherOrg}}, Named: existing(otherOrg).Named,
			}), customerOnly(),
			"", "every subscription there is belongs to another organization",
			map[string]string{
				"sub_1": "the row of another organization records it: " + otherOrg, "sub_2": "its metadata.orgId names organization " + otherOrg,
			},
		},
		"like ours": {
			truth(subscription("sub_1", "active", ofOrg("NOBODY"))),
			billing.Record{Org: billing.Organization{ID: "nobody"}},
			"", "no subscription is certain to be this organization's, and those in doubt grant nothing",
			map[string]string{"sub_1": `its metadata.orgId is "NOBODY", which is not this organization's id, and its customer is not this organization's either`},
		},
		"in doubt": {
			claimed(truth(subscription("sub_1", "canceled")), shared("cus_1")), customerOnly(),
			"", "no subscription is certain to be this organization's, and those in doubt grant nothing",
			map[string]string{"sub_1": "it is canceled, and organization " + otherOrg + " is known under its customer too: it is left to neither"},
		},
		"in doubt, the recorded one missing": {
			claimed(truth(subscription("sub_1", "incomplete", ofOrg("nobody")), subscription("sub_2", "active", ofOrg(otherOrg))), billing.Claims{
				SharedCustomers: shared("cus_1").SharedCustomers, Named: existing(otherOrg).Named,
			}), recorded("sub_gone"),
			"", "no subscription is certain to be this organization's, and those in doubt grant nothing",
			map[string]string{
				"sub_1": "it is incomplete, and organization " + otherOrg + " is known under its customer too: it is left to neither",
				"sub_2": "its metadata.orgId names organization " + otherOrg,
			},
		},
		"unknown status": {
			truth(subscription("sub_1", "suspended")), customerOnly(),
			"", `subscription sub_1 has status "suspended", which this version does not know; nothing was written`,
			map[string]string{"sub_1": "+it is of customer cus_1"},
		},
		"missing":          {truth(), recorded("sub_1"), "", "Stripe does not know the recorded subscription, and there is no other", nil},
		"no subscription":  {truth(), customerOnly(), "", "the customer has no subscription", nil},
		"no identity":      {truth(), billing.Record{Org: billing.Organization{ID: org}}, "", "the record names neither a subscription nor a customer", nil},
		"customer missing": {billing.Truth{CustomerMissing: true}, customerOnly(), "", "the customer does not exist in Stripe, or was deleted there", nil},
		"deleted":          {truth(), deleted, "", "the organization is deleted: nothing of it is compared", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := billing.Explain(c.truth, c.record)
			if got.GoverningID != c.governs || got.Why != c.why {
				t.Errorf("governs %q because %q; want %q because %q", got.GoverningID, got.Why, c.governs, c.why)
			}
			considered := map[string]string{}
			for _, s := range got.Considered {
				mark := ""
				if s.Candidate {
					mark = "+"
				}
				considered[s.Subscription.ID] = mark + s.Why
			}
			if len(c.considered) == 0 {
				c.considered = map[string]string{}
			}
			if diff := cmp.Diff(c.considered, considered); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestExplainNamesTheSubscriptionThatThePlanUses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSituation().Draw(t, "situation")
		choice := billing.Explain(s.truth, s.record)
		plan, err := s.plan()
		if err == nil && choice.GoverningID != plan.GoverningID {
			t.Errorf("explained %q, planned %q", choice.GoverningID, plan.GoverningID)
		}
		if plan.GoverningID != "" && choice.GoverningID != plan.GoverningID {
			t.Errorf("explained %q, refused %q", choice.GoverningID, plan.GoverningID)
		}
		seen := map[string]bool{}
		for _, c := range choice.Considered {
			if seen[c.Subscription.ID] || c.Why == "" {
				t.Errorf("%s is considered twice, or without a reason", c.Subscription.ID)
			}
			seen[c.Subscription.ID] = true
		}
		for _, sub := range s.truth.Subscriptions {
			if !s.record.Org.Deleted && !seen[sub.ID] {
				t.Errorf("%s is not considered", sub.ID)
			}
		}
		if choice.Why == "" {
			t.Error("no reason")
		}
	})
}
