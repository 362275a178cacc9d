package billing

import (
	"fmt"
	"slices"
)

// Plan is the result of comparing one organization, and the changes to write.
type Plan struct {
	Outcome     Outcome // OutcomeSynced if there are changes, else OutcomeSkipped
	Reason      Reason
	GoverningID string // the Stripe subscription that governs; "" if none does
	RowID       string // the subscriptions row to update, if there is one
	Insert      bool   // insert a subscriptions row
	Changes     []Change
	Warnings    []Warning
}

// Plan compares truth and record. Its error is always a permanent [Failure]; the plan then has no changes, only the
// warnings so far and the governing subscription if it is known.
func (r Rules) Plan(t Truth, rec Record) (Plan, error) {
	if rec.Org.Deleted {
		return skip(ReasonOrganizationDeleted), nil
	}
	if err := rec.validate(); err != nil {
		return Plan{}, err
	}
	found := candidates(t, rec)
	if err := t.checkMode(found); err != nil {
		return Plan{}, err
	}
	if len(found) == 0 {
		return r.planWithoutCandidate(t, rec)
	}
	plan := Plan{Warnings: warnings(found, rec)}
	sub, err := governing(found, rec)
	if err != nil {
		return plan, err
	}
	listed := r.listedTiers(sub.Items)
	sub.PriceID = r.decidingPrice(sub, listed, rec)
	if err := validate(sub); err != nil {
		return plan, err
	}
	if other := t.Claims.sharedWith(sub, rec); other != "" {
		return plan, permanent(ReasonSubscriptionConflict,
			"subscription %s may belong to this organization or to %s, which both have its customer %s; set its metadata.orgId in Stripe", sub.ID, other, sub.CustomerID)
	}
	plan.GoverningID = sub.ID
	if err := t.checkOwner(sub, rec); err != nil {
		return plan, err
	}
	tier, err := r.grant(sub, listed, rec)
	if err != nil {
		return plan, err
	}
	plan.Warnings = append(append(plan.Warnings, r.tierWarnings(sub, listed)...), billingWarnings(sub)...)
	return plan.towards(sub, tier, &rec), nil
}

// planWithoutCandidate plans for an organization without a candidate in Stripe.
func (r Rules) planWithoutCandidate(t Truth, rec Record) (Plan, error) {
	if len(rec.RecordedIDs()) > 0 {
		return r.planMissing(t, rec), nil
	}
	if others, all := allOfOthers(t, rec); all {
		s := slices.MinFunc(others, compareIDs)
		return Plan{}, permanent(ReasonSubscriptionConflict,
			"every subscription of customer %s belongs to another organization (%s, for example); decide whose it is and correct metadata.orgId in Stripe, or this organization's stripe_customer_id", s.CustomerID, s.ID)
	}
	plan := skip(ReasonNoSubscription)
	switch {
	case !rec.HasStripeIdentity():
		plan.Reason = ReasonNoStripeIdentity
	case t.CustomerMissing:
		plan.Reason = ReasonCustomerMissing
	}
	if tier := rec.highestTier(r.Tiers); tier != r.Tiers.Lowest() {
		plan.Warnings = append(plan.Warnings, Warning{Code: WarnPaidWithoutSubscription, Message: fmt.Sprintf(
			"the record grants tier %s but Stripe has no subscription for this organization; end the access by hand or note it as complimentary", tier)})
	}
	return plan, nil
}

// allOfOthers returns the customers' subscriptions, and whether there are any and all belong to other organizations.
func allOfOthers(t Truth, rec Record) (subs []Subscription, all bool) {
	subs = slices.DeleteFunc(slices.Clone(t.Subscriptions), func(s Subscription) bool { return t.isUnrelated(s, rec) })
	ambiguous := slices.ContainsFunc(subs, func(s Subscription) bool { return !t.Claims.ofOther(s, rec.Org.ID) })
	return subs, len(subs) > 0 && !ambiguous
}

// planMissing ends the access of an organization whose recorded subscriptions do not exist in Stripe. Canceled
// subscriptions do exist there, so this is unusual.
func (r Rules) planMissing(t Truth, rec Record) Plan {
	row := rec.lastRecorded()
	plan := Plan{RowID: row.ID, Warnings: warnings(nil, rec)}
	changes := diff(row, &rec.Org, &Subscription{Status: StatusCanceled, EndedAt: t.ReadAt}, r.Tiers.Lowest())
	return plan.with(slices.DeleteFunc(changes, func(c Change) bool {
		group := GroupOf(c.Field)
		return group != GroupTier && group != GroupStatus && (c.Field != FieldEndedAt || c.From != nil)
	}), ReasonSubscriptionMissing)
}

// towards plans the changes that make the record match the governing subscription.
func (p Plan) towards(s *Subscription, tier Tier, rec *Record) Plan {
	row := rec.rowFor(s.ID)
	changes := diff(row, &rec.Org, s, tier)
	if row == nil {
		p.Insert = true
		return p.with(changes, ReasonRowInserted)
	}
	p.RowID = row.ID
	return p.with(changes, ReasonRepaired)
}

func (p Plan) with(changes []Change, reason Reason) Plan {
	p.Changes = changes
	p.Outcome, p.Reason = OutcomeSynced, reason
	if len(changes) == 0 {
		p.Outcome, p.Reason = OutcomeSkipped, ReasonInSync
	}
	return p
}

// LowersAccess reports whether the changes lower a tier in either table, or change a status from active, trialing or
// past_due to another.
func (t Tiers) LowersAccess(changes []Change) bool {
	for _, c := range changes {
		from, known := c.From.(string)
		to, _ := c.To.(string)
		if !known {
			continue // NULL, or a new row: there was nothing to lose
		}
		group := GroupOf(c.Field)
		if group == GroupTier && t.rank(Tier(to)) < t.rank(Tier(from)) {
			return true
		}
		if group == GroupStatus && Status(from).Live() && !Status(to).Live() {
			return true
		}
	}
	return false
}

// RaisesAccess reports whether the changes raise a tier in either table, or change a status to active, trialing or
// past_due from another. A new row alone raises nothing: the organization's own columns say what it had. Changes may
// both raise and lower.
func (t Tiers) RaisesAccess(changes []Change) bool {
	for _, c := range changes {
		from, known := c.From.(string)
		to, given := c.To.(string)
		if !known || !given {
			continue
		}
		group := GroupOf(c.Field)
		if group == GroupTier && t.rank(Tier(to)) > t.rank(Tier(from)) {
			return true
		}
		if group == GroupStatus && !Status(from).Live() && Status(to).Live() {
			return true
		}
	}
	return false
}

func skip(reason Reason) Plan { return Plan{Outcome: OutcomeSkipped, Reason: reason} }

func warnings(found []Subscription, rec Record) []Warning {
	var all []Warning
	if w, ok := multipleLive(found); ok {
		all = append(all, w)
	}
	if len(rec.Rows) > 1 {
		all = append(all, Warning{Code: WarnMultipleRows, Message: fmt.Sprintf(
			"the organization has %d subscriptions rows; only one was compared, remove the others", len(rec.Rows))})
	}
	return all
}

// SearchUnavailable is the warning for a plan that lowers access on an account without Stripe's search.
func SearchUnavailable() Warning {
	return Warning{Code: WarnSearchUnavailable, Message: "the Stripe account has no search, so a subscription that only metadata.orgId connects with this organization would not have been found; " +
		"look for one in Stripe's dashboard if the customer complains"}
}
