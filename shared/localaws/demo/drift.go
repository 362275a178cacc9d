package demo

import (
	"slices"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// Kinds of drift, as the package's documentation explains them.
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

// drifts is cycled through. Those that lower access are spread over it, so that they are at most
// 5 in 20 of any number of organizations.
var drifts = []script{
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
	because(billing.ReasonRowInserted, repaired(RowMissing, rowMissing, wholeRow(), []string{billing.FieldOrgTier, billing.FieldOrgStatus})),
	handled(repaired(OrgCustomerMissing, orgCustomerMissing, []string{billing.FieldOrgCustomerID})),
	lowered(repaired(Unpaid, becomes(billing.StatusUnpaid), statusFields)),
	repaired(AbandonedCheckout, abandonedCheckout, tierFields, statusFields, periodFields, []string{billing.FieldSubscriptionID}),
	repaired(IntervalChanged, intervalChanged, periodFields, []string{billing.FieldPriceID}),
	handled(repaired(OrganizationStale, organizationStale, []string{billing.FieldOrgTier, billing.FieldOrgStatus})),
	lowered(repaired(Paused, becomes(billing.StatusPaused), tierFields, statusFields)),
	repaired(CheckoutExpired, checkoutExpired, statusFields, []string{billing.FieldEndedAt}),
	repaired(Resumed, resumed, tierFields, statusFields, endFields),
	because(billing.ReasonSubscriptionMissing, never(lowered(repaired(SubscriptionMissing, subscriptionMissing,
		tierFields, statusFields, []string{billing.FieldEndedAt})))),
}

// wholeRow are the columns of a row that is inserted for an active subscription: the rest stay NULL.
func wholeRow() (fields []string) {
	for _, c := range billing.ColumnsOf(billing.TableSubscriptions) {
		if !c.Null {
			fields = append(fields, c.Field)
		}
	}
	return fields
}

// Drifts returns the kinds of drift, in the order in which they are dealt out.
func Drifts() []Kind { return kindsOf(drifts) }

func kindsOf(scripts []script) []Kind {
	var kinds []Kind
	for _, s := range scripts {
		if !slices.Contains(kinds, s.kind) {
			kinds = append(kinds, s.kind)
		}
	}
	return kinds
}

func repaired(kind Kind, play func(*specimen), fields ...[]string) script {
	all := slices.Concat(fields...)
	slices.Sort(all)
	return script{kind: kind, play: play, reason: billing.ReasonRepaired, fields: all, event: missed}
}

// handled: the webhook came, and the application did half of what it says.
func handled(s script) script {
	s.event = taken
	return s
}

// never: Stripe knows of no event.
func never(s script) script {
	s.event = untold
	return s
}

func lowered(s script) script {
	s.lowers = true
	return s
}

func because(reason billing.Reason, s script) script {
	s.reason = reason
	return s
}

// recorded is a customer whose active subscription the database knows; what happens to it
// afterwards, the database misses.
func (s *specimen) recorded(p plan) stripetest.Subscription {
	s.becomeCustomer()
	sub := s.running(p, billing.StatusActive)
	s.record(sub)
	return sub
}

// becomes a status that the database misses.
func becomes(status billing.Status) func(*specimen) {
	return func(s *specimen) {
		sub := s.recorded(s.anyPlan())
		sub.Status = string(status)
		s.hold(sub)
	}
}

// twoTiers returns a tier and a higher one.
func (s *specimen) twoTiers() (low, high billing.Tier) {
	i := s.random.IntN(len(tiers) - 1)
	return tiers[i], tiers[i+1+s.random.IntN(len(tiers)-1-i)]
}

func missedUpgrade(s *specimen) {
	low, high := s.twoTiers()
	every := s.anyInterval()
	sub := s.recorded(plan{low, every})
	choose(&sub, plan{high, every})
	s.hold(sub)
}

func missedDowngrade(s *specimen) {
	low, high := s.twoTiers()
	every := s.anyInterval()
	sub := s.recorded(plan{high, every})
	choose(&sub, plan{low, every})
	s.hold(sub)
}

func intervalChanged(s *specimen) {
	tier := s.anyPlan().tier
	sub := s.recorded(plan{tier, monthly})
	choose(&sub, plan{tier, yearly})
	period(&sub, s.recently(), yearly) // a new interval starts at once
	s.hold(sub)
}

func paymentRecovered(s *specimen) {
	s.becomeCustomer()
	sub := s.running(s.anyPlan(), billing.StatusPastDue)
	s.record(sub)
	sub.Status = string(billing.StatusActive)
	s.hold(sub)
}

func renewalMissed(s *specimen) {
	s.becomeCustomer()
	p := s.anyPlan()
	sub := s.running(p, billing.StatusActive)
	start := time.Unix(sub.CurrentPeriodStart, 0).UTC()
	before := start.AddDate(0, -p.every.months, 0)
	sub.Created = min(sub.Created, before.Unix())
	old := sub
	period(&old, before, p.every)
	s.record(old)
	s.hold(sub)
}

func cancellationPlanned(s *specimen) {
	sub := s.recorded(s.anyPlan())
	cancelAtPeriodEnd(&sub, s.recently())
	s.hold(sub)
}

func canceledInStripe(s *specimen) {
	sub := s.recorded(s.anyPlan())
	cancel(&sub, s.recently())
	s.hold(sub)
}

func trialEnded(s *specimen) {
	s.becomeCustomer()
	p := s.anyPlan()
	sub := s.subscription(p, billing.StatusTrialing)
	s.tryFrom(&sub, s.daysAgo(trialDays+1, trialDays+20))
	s.record(sub)
	sub.Status = string(billing.StatusActive)
	period(&sub, time.Unix(sub.TrialEnd, 0).UTC(), p.every)
	s.hold(sub)
}

func trialExtended(s *specimen) {
	s.becomeCustomer()
	sub := s.trialing(s.anyPlan())
	s.record(sub)
	sub.TrialEnd = time.Unix(sub.TrialEnd, 0).Add(trialDays * day).Unix()
	sub.CurrentPeriodEnd = sub.TrialEnd
	s.hold(sub)
}

func replaced(s *specimen) {
	canceled(s)
	other := plan{billing.TierPro, monthly}
	if other.price() == s.subscriptions[0].PriceID {
		other.tier = billing.TierMax
	}
	s.hold(s.started(s.daysAgo(1, 5), other, billing.StatusActive))
}

func rowMissing(s *specimen) {
	s.becomeCustomer()
	s.hold(s.running(s.anyPlan(), billing.StatusActive))
}

func orgCustomerMissing(s *specimen) {
	s.hold(s.recorded(s.anyPlan()))
	s.org.StripeCustomerID = nil
}

func organizationStale(s *specimen) {
	s.hold(s.recorded(s.anyPlan()))
	s.org.SubscriptionTier, s.org.SubscriptionStatus = string(billing.TierFree), string(billing.StatusIncomplete)
}

// abandonedCheckout: the first attempt at paying failed, the second one made a subscription of
// its own.
func abandonedCheckout(s *specimen) {
	s.becomeCustomer()
	p := s.anyPlan()
	paid := s.recently()
	failed := paid.Add(-time.Minute - s.seconds(30*time.Minute)) // Stripe gives it up after 23 hours
	first := s.started(failed, p, billing.StatusIncomplete)
	s.record(first)
	s.hold(first, s.started(paid, p, billing.StatusActive))
}

// checkoutExpired: Stripe gives up an unpaid first invoice after 23 hours.
func checkoutExpired(s *specimen) {
	s.becomeCustomer()
	sub := s.started(s.daysAgo(1, 30), s.anyPlan(), billing.StatusIncomplete)
	s.record(sub)
	sub.Status = string(billing.StatusIncompleteExpired)
	sub.EndedAt = sub.Created + int64(23*time.Hour/time.Second)
	s.hold(sub)
}

// resumed: the record took an end for final that was taken back.
func resumed(s *specimen) {
	s.becomeCustomer()
	sub := s.running(s.anyPlan(), billing.StatusActive)
	old := sub
	cancel(&old, s.recently())
	s.record(old)
	s.hold(sub)
}

func subscriptionMissing(s *specimen) { s.recorded(s.anyPlan()) }
