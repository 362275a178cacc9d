package pipeline

import (
	"context"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Explanation is what a worker sees of an organization and what it would do.
type Explanation struct {
	Record       billing.Record
	Truth        billing.Truth
	Choice       billing.Choice
	Plan         billing.Plan
	LowersAccess bool // the plan lowers access
	// Refusal is why there is no plan; nil if there is one.
	Refusal *billing.Failure
	// Withheld is why a run over this organization alone would not carry out the plan, whatever its limit; nil if it
	// would.
	Withheld *billing.Failure
}

// Explain reads one organization from the database and from Stripe, as a worker does, and plans. It writes nothing.
func (r *Reconciler) Explain(ctx context.Context, orgID string) (Explanation, error) {
	return retry(ctx, r.Retry, func() (Explanation, error) { return r.explain(ctx, orgID) })
}

func (r *Reconciler) explain(ctx context.Context, orgID string) (Explanation, error) {
	records, err := r.Store.Records(ctx, []string{orgID})
	if err != nil {
		return Explanation{}, err
	}
	for _, record := range records { // one at most; its id is as the database spells it
		b := &batch{Reconciler: r}
		t := &task{work: billing.Work{OrgID: record.Org.ID}, run: billing.Run{OrgID: record.Org.ID}, record: record, exists: true, lookUpAlone: true}
		plan, err := b.plan(ctx, t)
		if err != nil && billing.AsFailure(err).Class != billing.Permanent {
			return Explanation{}, err
		}
		var held *billing.Failure
		if err == nil && len(plan.Changes) > 0 {
			var guardErr error
			if plan, held, guardErr = b.guard(ctx, t, plan); guardErr != nil {
				return Explanation{}, guardErr
			}
		}
		e := Explanation{Record: record, Truth: t.truth, Choice: billing.Explain(t.truth, record), Plan: plan, Withheld: held}
		if err != nil {
			e.Refusal = billing.AsFailure(err)
		}
		e.LowersAccess = r.lowers(e.Plan)
		return e, nil
	}
	return Explanation{}, &billing.Failure{
		Class: billing.Permanent, Reason: billing.ReasonUnknownOrganization, Message: "there is no organization " + orgID + "; check the id",
	}
}
