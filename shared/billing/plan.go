package billing

import (
	"fmt"
	"slices"
)

// Plan is what to do for one organization.
type Plan struct {
	Outcome     Outcome // OutcomeSynced if there is something to write, else OutcomeSkipped
	Reason      Reason
	GoverningID string // the Stripe subscription that governs; "" if none does
	RowID       string // the subscriptions row to update; "" if one is to be inserted or none concerned
	Insert      bool   // a subscriptions row is to be inserted
	Changes     []Change
	Warnings    []Warning
}

// Plan compares truth and record. Its error is always a permanent [Failure]; the plan then has
// no changes, only the warnings found so far and the governing subscription where it is known.
func (r Rules) Plan(t Truth, rec Record) (Plan, error) {
	if rec.Org.Deleted {
		return skip(ReasonOrganizationDeleted), nil
	}
	if err := rec.validate(); err != nil {
		return Plan{}, err
	}
	found := candidates(t, rec)
	if err := t.wrongMode(found); err != nil {
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
	sub.PriceID = r.decidingPrice(sub, rec)
	if err := validate(sub); err != nil {
		return plan, err
	}
	if other := t.Claims.sharedWith(sub, rec); other != "" {
		return plan, permanent(ReasonSubscriptionConflict,
			"subscription %s may belong to this organization or to %s, both are known under its customer %s; set its metadata.orgId in Stripe", sub.ID, other, sub.CustomerID)
	}
	plan.GoverningID = sub.ID
	if err := t.disputed(sub, rec); err != nil {
		return plan, err
	}
	tier, err := r.grant(sub, rec)
	if err != nil {
		return plan, err
	}
	plan.Warnings = append(append(plan.Warnings, r.tierWarnings(sub)...), billingWarnings(sub)...)
	return plan.towards(&sub, tier, &rec), nil
}

// planWithoutCandidate decides where Stripe has no subscription for the organization.
func (r Rules) planWithoutCandidate(t Truth, rec Record) (Plan, error) {
	if len(rec.RecordedIDs()) > 0 {
		return r.planMissing(t, rec), nil
	}
	if theirs, all := allOfOthers(t, rec); all {
		s := slices.MinFunc(theirs, compareIDs)
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

// allOfOthers: its customers have subscriptions, and each is another organization's for certain.
func allOfOthers(t Truth, rec Record) (subs []Subscription, all bool) {
	subs = slices.DeleteFunc(slices.Clone(t.Subscriptions), func(s Subscription) bool { return t.isStrange(s, rec) })
	inDoubt := slices.ContainsFunc(subs, func(s Subscription) bool { return !t.Claims.ofOther(s, rec.Org.ID) })
	return subs, len(subs) > 0 && !inDoubt
}

// planMissing: Stripe knows none of the recorded subscriptions and no other candidate. Canceled
// subscriptions stay retrievable, so this is an anomaly: access ends, and the guard counts it.
func (r Rules) planMissing(t Truth, rec Record) Plan {
	row := rec.lastRecorded()
	plan := Plan{RowID: row.ID, Warnings: warnings(nil, rec)}
	changes := diff(row, &rec.Org, &Subscription{Status: StatusCanceled, EndedAt: t.ReadAt}, r.Tiers.Lowest())
	return plan.with(slices.DeleteFunc(changes, func(c Change) bool {
		group := GroupOf(c.Field)
		return group != GroupTier && group != GroupStatus && (c.Field != FieldEndedAt || c.From != nil)
	}), ReasonSubscriptionMissing)
}

// towards plans the changes that make the record say what the governing subscription says.
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

// LowersAccess reports whether the changes take something away: a tier in either table ranks
// lower than before, or a status leaves {active, trialing, past_due}.
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

// RaisesAccess reports whether the changes give something: a tier in either table ranks higher than
// before, or a status enters {active, trialing, past_due}. NULL, as in a new row, is the lowest tier and
// no status. Changes may raise and lower; the guard sees those that lower.
func (t Tiers) RaisesAccess(changes []Change) bool {
	for _, c := range changes {
		from, known := c.From.(string)
		to, given := c.To.(string)
		if !given {
			continue
		}
		if !known {
			from = string(t.Lowest())
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
