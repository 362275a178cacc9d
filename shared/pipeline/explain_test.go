package pipeline_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
)

func TestExplainShowsTheWorkersPlanAndWritesNothing(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.Sub("org-1", price("price_max"))
	before, err := appschema.Checksum(t.Context(), f.DB.DB)
	if err != nil {
		t.Fatal(err)
	}
	e, err := f.Reconciler(nil).Explain(t.Context(), "ORG-1") // MySQL compares ids without regard to case
	if err != nil || e.Refusal != nil {
		t.Fatalf("%v, %v", err, e.Refusal)
	}
	if e.Record.Org.ID != "org-1" || len(e.Truth.Subscriptions) != 1 || e.Choice.GoverningID != e.Plan.GoverningID || e.Plan.Outcome != billing.OutcomeSynced {
		t.Errorf("%+v", e)
	}
	after, err := appschema.Checksum(t.Context(), f.DB.DB)
	if err != nil || after != before {
		t.Errorf("the application's tables changed, %v", err)
	}
	if n := f.Count(`SELECT COUNT(*) FROM reconciliation_items`); n != 0 {
		t.Errorf("%d items were written, want none", n)
	}
}

func TestExplainReturnsTheReasonIfNothingCanBePlanned(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.Sub("org-1", price("price_of_nothing"))
	e, err := f.Reconciler(nil).Explain(t.Context(), "org-1")
	if err != nil || e.Refusal == nil || e.Refusal.Reason != billing.ReasonTierUnresolved || e.Choice.GoverningID == "" {
		t.Errorf("%+v, %v", e, err)
	}
	_, err = f.Reconciler(nil).Explain(t.Context(), "unknown")
	if diff := cmp.Diff(billing.ReasonUnknownOrganization, billing.AsFailure(err).Reason); diff != "" {
		t.Errorf("%v", err)
	}
}
