package demo

import "github.com/pixell-global/subscription-reconciliation/shared/billing"

// Situations that are no drift, as the package's documentation explains them.
const (
	NoStripeIdentity        Kind = "no_stripe_identity"
	CustomerDeleted         Kind = "customer_deleted"
	CustomerMissing         Kind = "customer_missing"
	PaidWithoutSubscription Kind = "paid_without_subscription"
	SharedCustomer          Kind = "shared_customer"
	TwoLive                 Kind = "two_live"
	TwoRows                 Kind = "two_rows"
	TierMismatch            Kind = "tier_mismatch"
	Deleted                 Kind = "deleted"
	NoTrace                 Kind = "no_trace"
)

// situations is played as a whole; the second sharedCustomer needs the one before it.
var situations = []script{
	{kind: NoStripeIdentity, play: noStripeIdentity, reason: billing.ReasonNoStripeIdentity},
	{kind: CustomerDeleted, play: customerDeleted, reason: billing.ReasonCustomerMissing},
	{kind: CustomerMissing, play: customerMissing, reason: billing.ReasonCustomerMissing},
	{
		kind: PaidWithoutSubscription, play: paidWithoutSubscription, reason: billing.ReasonNoSubscription,
		warnings: []billing.WarningCode{billing.WarnPaidWithoutSubscription},
	},
	{kind: SharedCustomer, play: live, reason: billing.ReasonInSync},
	{kind: SharedCustomer, play: sharesCustomer, reason: billing.ReasonInSync},
	{kind: TwoLive, play: twoLive, reason: billing.ReasonInSync, warnings: []billing.WarningCode{billing.WarnMultipleLive}},
	{kind: TwoRows, play: twoRows, reason: billing.ReasonInSync, warnings: []billing.WarningCode{billing.WarnMultipleRows}},
	{kind: TierMismatch, play: tierMismatch, reason: billing.ReasonInSync, warnings: []billing.WarningCode{billing.WarnTierMetadataMismatch}},
	{kind: Deleted, play: deleted, unlisted: true},
	{kind: NoTrace, play: noTrace, unlisted: true},
}

// EdgeCases returns the kinds of situations that are no drift.
func EdgeCases() []Kind { return kindsOf(situations) }

func noStripeIdentity(s *specimen) { s.rows = append(s.rows, s.emptyRow(s.org.CreatedAt)) }

func customerDeleted(s *specimen) {
	withoutSubscription(s)
	s.customer.Deleted = true
}

func customerMissing(s *specimen) {
	withoutSubscription(s)
	s.customer = nil
}

func paidWithoutSubscription(s *specimen) {
	s.becomeCustomer()
	s.org.SubscriptionTier, s.org.SubscriptionStatus = string(billing.TierPro), string(billing.StatusActive)
}

// sharesCustomer: the organization before pays for this one too.
func sharesCustomer(s *specimen) {
	s.id.customer = identityOf(s.seed, s.i-1).customer
	sub := s.running(s.anyPlan(), billing.StatusActive)
	s.record(sub)
	s.hold(sub)
}

func twoLive(s *specimen) {
	s.becomeCustomer()
	newer := s.running(s.anyPlan(), billing.StatusPastDue)
	older := s.runningAt(s.now, s.anyPlan(), billing.StatusPastDue)
	older.Created = min(older.Created, newer.Created-1)
	s.record(newer)
	s.hold(older, newer)
}

func twoRows(s *specimen) {
	canceled(s)
	sub := s.started(s.daysAgo(1, 5), s.anyPlan(), billing.StatusActive)
	s.record(sub)
	s.hold(sub)
}

func tierMismatch(s *specimen) {
	sub := s.recorded(plan{billing.TierPro, s.anyInterval()})
	sub.Metadata["tier"] = string(billing.TierStarter)
	s.hold(sub)
}

func deleted(s *specimen) {
	canceledInStripe(s)
	s.org.IsDeleted = true
}

// noTrace: what the customer pays for leads to no organization.
func noTrace(s *specimen) {
	orphan := s.running(s.anyPlan(), billing.StatusActive)
	delete(orphan.Metadata, "orgId")
	s.hold(orphan)
}
