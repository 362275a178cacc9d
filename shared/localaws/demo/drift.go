package demo

import (
	"slices"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// Kinds of drift. The package's documentation explains them.
const (
	MissedUpgrade       Kind = "missed_upgrade"
	PaymentRecovered    Kind = "payment_recovered"
	RenewalMissed       Kind = "renewal_missed"
	MissedDowngrade     Kind = "missed_downgrade"
	CancelAtPeriodEnd   Kind = "cancel_at_period_end"
	TrialEnded          Kind = "trial_ended"
	TrialExtended       Kind = "trial_extended"
	PaymentFailed       Kind = "payment_failed"
	CanceledInStripe    Kind = "canceled_in_stripe"
	Replaced            Kind = "replaced"
	RowMissing          Kind = "row_missing"
	OrgCustomerMissing  Kind = "org_customer_missing"
	Unpaid              Kind = "unpaid"
	AbandonedCheckout   Kind = "abandoned_checkout"
	IntervalChanged     Kind = "interval_changed"
	OrganizationStale   Kind = "organization_stale"
	Paused              Kind = "paused"
	CheckoutExpired     Kind = "checkout_expired"
	Resumed             Kind = "resumed"
	SubscriptionMissing Kind = "subscription_missing"
)

// Columns that change together.
var (
	tierFields   = billing.FieldsOf(billing.GroupTier)
	statusFields = billing.FieldsOf(billing.GroupStatus)
	periodFields = billing.FieldsOf(billing.GroupPeriod)
	endFields    = []string{billing.FieldCanceledAt, billing.FieldEndedAt}
)

// drifts are assigned in turn. Those that lower access are spread over the list, so that they are at most 5 in 20 of
// any number of organizations.
var drifts = []scenario{
	repaired(MissedUpgrade, missedUpgrade, tierFields, []string{billing.FieldPriceID}),
	repaired(PaymentRecovered, paymentRecovered, statusFields),
	repaired(RenewalMissed, renewalMissed, periodFields),
	lowered(repaired(MissedDowngrade, missedDowngrade, tierFields, []string{billing.FieldPriceID})),
	repaired(CancelAtPeriodEnd, cancellationPlanned, []string{billing.FieldCancelAtPeriodEnd, billing.FieldCanceledAt}),
	repaired(TrialEnded, trialEnded, statusFields, periodFields),
	repaired(TrialExtended, trialExtended, []string{billing.FieldTrialEnd, billing.FieldOrgTrialEndsAt, billing.FieldCurrentPeriodEnd}),
	repaired(PaymentFailed, becomes(billing.StatusPastDue), statusFields),
	lowered(repaired(CanceledInStripe, canceledInStripe, tierFields, statusFields, endFields)),
	repaired(Replaced, replaced, tierFields, statusFields, periodFields, endFields,
		[]string{billing.FieldSubscriptionID, billing.FieldPriceID}),
	withReason(billing.ReasonRowInserted, repaired(RowMissing, rowMissing, wholeRow(), []string{billing.FieldOrgTier, billing.FieldOrgStatus})),
	halfHandled(repaired(OrgCustomerMissing, orgCustomerMissing, []string{billing.FieldOrgCustomerID})),
	lowered(repaired(Unpaid, becomes(billing.StatusUnpaid), statusFields)),
	repaired(AbandonedCheckout, abandonedCheckout, tierFields, statusFields, periodFields, []string{billing.FieldSubscriptionID}),
	repaired(IntervalChanged, intervalChanged, periodFields, []string{billing.FieldPriceID}),
	halfHandled(repaired(OrganizationStale, organizationStale, []string{billing.FieldOrgTier, billing.FieldOrgStatus})),
	lowered(repaired(Paused, becomes(billing.StatusPaused), tierFields, statusFields)),
	repaired(CheckoutExpired, checkoutExpired, statusFields, []string{billing.FieldEndedAt}),
	repaired(Resumed, resumed, tierFields, statusFields, endFields),
	withReason(billing.ReasonSubscriptionMissing, withoutEvent(lowered(repaired(SubscriptionMissing, subscriptionMissing,
		tierFields, statusFields, []string{billing.FieldEndedAt})))),
}

// wholeRow returns the columns that are set in the inserted row of an active subscription.
func wholeRow() (fields []string) {
	for _, c := range billing.ColumnsOf(billing.TableSubscriptions) {
		if !c.Null {
			fields = append(fields, c.Field)
		}
	}
	return fields
}

// Drifts returns the kinds of drift, in the order in which they are assigned.
func Drifts() []Kind { return kindsOf(drifts) }

func kindsOf(scenarios []scenario) []Kind {
	var kinds []Kind
	for _, s := range scenarios {
		if !slices.Contains(kinds, s.kind) {
			kinds = append(kinds, s.kind)
		}
	}
	return kinds
}

func repaired(kind Kind, build func(*organization), fields ...[]string) scenario {
	all := slices.Concat(fields...)
	slices.Sort(all)
	return scenario{kind: kind, build: build, reason: billing.ReasonRepaired, fields: all, event: missed}
}

// halfHandled: the webhook was delivered, and the application applied half of it.
func halfHandled(s scenario) scenario {
	s.event = delivered
	return s
}

// withoutEvent: Stripe has no event of the change.
func withoutEvent(s scenario) scenario {
	s.event = noEvent
	return s
}

func lowered(s scenario) scenario {
	s.lowers = true
	return s
}

func withReason(reason billing.Reason, s scenario) scenario {
	s.reason = reason
	return s
}

// recorded returns an active subscription that the database has. Later changes of it are drift.
func (s *organization) recorded(p plan) stripetest.Subscription {
	s.becomeCustomer()
	sub := s.running(p, billing.StatusActive)
	s.record(sub)
	return sub
}

// becomes returns a build function: the subscription's status changed, and the database missed it.
func becomes(status billing.Status) func(*organization) {
	return func(s *organization) {
		sub := s.recorded(s.anyPlan())
		sub.Status = string(status)
		s.addToStripe(sub)
	}
}

// twoTiers returns a tier and a higher one.
func (s *organization) twoTiers() (low, high billing.Tier) {
	i := s.random.IntN(len(tiers) - 1)
	return tiers[i], tiers[i+1+s.random.IntN(len(tiers)-1-i)]
}

func missedUpgrade(s *organization) {
	low, high := s.twoTiers()
	s.changeTier(low, high)
}

func missedDowngrade(s *organization) {
	low, high := s.twoTiers()
	s.changeTier(high, low)
}

func (s *organization) changeTier(from, to billing.Tier) {
	every := s.anyInterval()
	sub := s.recorded(plan{from, every})
	choose(&sub, plan{to, every})
	s.addToStripe(sub)
}

func intervalChanged(s *organization) {
	tier := s.anyPlan().tier
	sub := s.recorded(plan{tier, monthly})
	choose(&sub, plan{tier, yearly})
	period(&sub, s.recently(), yearly) // a new interval starts at once
	s.addToStripe(sub)
}

func paymentRecovered(s *organization) {
	s.becomeCustomer()
	sub := s.running(s.anyPlan(), billing.StatusPastDue)
	s.record(sub)
	sub.Status = string(billing.StatusActive)
	s.addToStripe(sub)
}

func renewalMissed(s *organization) {
	s.becomeCustomer()
	p := s.anyPlan()
	sub := s.running(p, billing.StatusActive)
	start := time.Unix(sub.CurrentPeriodStart, 0).UTC()
	before := start.AddDate(0, -p.every.months, 0)
	sub.Created = min(sub.Created, before.Unix())
	old := sub
	period(&old, before, p.every)
	s.record(old)
	s.addToStripe(sub)
}

func cancellationPlanned(s *organization) {
	sub := s.recorded(s.anyPlan())
	cancelAtPeriodEnd(&sub, s.recently())
	s.addToStripe(sub)
}

func canceledInStripe(s *organization) {
	sub := s.recorded(s.anyPlan())
	cancel(&sub, s.recently())
	s.addToStripe(sub)
}

func trialEnded(s *organization) {
	s.becomeCustomer()
	p := s.anyPlan()
	sub := s.subscription(p, billing.StatusTrialing)
	s.tryFrom(&sub, s.daysAgo(trialDays+1, trialDays+20))
	s.record(sub)
	sub.Status = string(billing.StatusActive)
	period(&sub, time.Unix(sub.TrialEnd, 0).UTC(), p.every)
	s.addToStripe(sub)
}

func trialExtended(s *organization) {
	s.becomeCustomer()
	sub := s.trialing(s.anyPlan())
	s.record(sub)
	sub.TrialEnd = time.Unix(sub.TrialEnd, 0).Add(trialDays * day).Unix()
	sub.CurrentPeriodEnd = sub.TrialEnd
	s.addToStripe(sub)
}

func replaced(s *organization) {
	canceled(s)
	other := plan{billing.TierPro, monthly}
	if other.price() == s.subscriptions[0].PriceID {
		other.tier = billing.TierMax
	}
	s.addToStripe(s.started(s.daysAgo(1, 5), other, billing.StatusActive))
}

func rowMissing(s *organization) {
	s.becomeCustomer()
	s.addToStripe(s.running(s.anyPlan(), billing.StatusActive))
}

func orgCustomerMissing(s *organization) {
	s.addToStripe(s.recorded(s.anyPlan()))
	s.org.StripeCustomerID = nil
}

func organizationStale(s *organization) {
	s.addToStripe(s.recorded(s.anyPlan()))
	s.org.SubscriptionTier, s.org.SubscriptionStatus = string(billing.TierFree), string(billing.StatusIncomplete)
}

// abandonedCheckout: the first payment failed, and the second checkout created another subscription.
func abandonedCheckout(s *organization) {
	s.becomeCustomer()
	p := s.anyPlan()
	paid := s.recently()
	failed := paid.Add(-time.Minute - s.seconds(30*time.Minute)) // it expires after 23 hours
	first := s.started(failed, p, billing.StatusIncomplete)
	s.record(first)
	s.addToStripe(first, s.started(paid, p, billing.StatusActive))
}

// checkoutExpired: a subscription with an unpaid first invoice expires after 23 hours.
func checkoutExpired(s *organization) {
	s.becomeCustomer()
	sub := s.started(s.daysAgo(1, 30), s.anyPlan(), billing.StatusIncomplete)
	s.record(sub)
	sub.Status = string(billing.StatusIncompleteExpired)
	sub.EndedAt = sub.Created + int64(23*time.Hour/time.Second)
	s.addToStripe(sub)
}

// resumed: the record has a cancellation that was reverted.
func resumed(s *organization) {
	s.becomeCustomer()
	sub := s.running(s.anyPlan(), billing.StatusActive)
	old := sub
	cancel(&old, s.recently())
	s.record(old)
	s.addToStripe(sub)
}

func subscriptionMissing(s *organization) { s.recorded(s.anyPlan()) }
