package pipeline

import (
	"context"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Explanation is what a worker sees of an organization, and what it would do.
type Explanation struct {
	Record billing.Record
	Truth  billing.Truth
	Choice billing.Choice
	Plan   billing.Plan
	Lowers bool // the plan lowers access
	// Refusal is why nothing can be planned; nil where there is a plan.
	Refusal *billing.Failure
}

// Explain reads one organization as a worker does, fresh from both sides, and plans. It writes
// nothing.
func (r *Reconciler) Explain(ctx context.Context, orgID string) (Explanation, error) {
	return retry(ctx, r.Retry, func() (Explanation, error) { return r.explain(ctx, orgID) })
}

func (r *Reconciler) explain(ctx context.Context, orgID string) (Explanation, error) {
	records, err := r.Store.Records(ctx, []string{orgID})
	if err != nil {
		return Explanation{}, err
	}
	for _, record := range records { // one at most, by the id as the database spells it
		truth, err := (&batch{Reconciler: r}).read(ctx, record, hints{})
		if err == nil {
			err = r.share(ctx, &truth, record)
		}
		if err != nil {
			return Explanation{}, err
		}
		e := Explanation{Record: record, Truth: truth, Choice: billing.Explain(truth, record)}
		if e.Plan, err = r.Rules.Plan(truth, record); err != nil {
			e.Refusal = billing.AsFailure(err)
		}
		e.Lowers = r.Rules.Tiers.LowersAccess(e.Plan.Changes)
		return e, nil
	}
	return Explanation{}, &billing.Failure{
		Class: billing.Permanent, Reason: billing.ReasonUnknownOrganization, Message: "there is no organization " + orgID + "; check the id",
	}
}
