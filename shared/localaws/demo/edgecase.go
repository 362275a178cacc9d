package demo

import "github.com/pixell-global/subscription-reconciliation/shared/billing"

// Edge cases without drift. The package's documentation explains them.
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

// edgeCases occur as a whole set; the second sharedCustomer needs the first.
var edgeCases = []scenario{
	{kind: NoStripeIdentity, build: noStripeIdentity, reason: billing.ReasonNoStripeIdentity},
	{kind: CustomerDeleted, build: customerDeleted, reason: billing.ReasonCustomerMissing},
	{kind: CustomerMissing, build: customerMissing, reason: billing.ReasonCustomerMissing},
	{
		kind: PaidWithoutSubscription, build: paidWithoutSubscription, reason: billing.ReasonNoSubscription,
		warnings: []billing.WarningCode{billing.WarnPaidWithoutSubscription},
	},
	{kind: SharedCustomer, build: live, reason: billing.ReasonInSync},
	{kind: SharedCustomer, build: sharesCustomer, reason: billing.ReasonInSync},
	{kind: TwoLive, build: twoLive, reason: billing.ReasonInSync, warnings: []billing.WarningCode{billing.WarnMultipleLive}},
	{kind: TwoRows, build: twoRows, reason: billing.ReasonInSync, warnings: []billing.WarningCode{billing.WarnMultipleRows}},
	{kind: TierMismatch, build: tierMismatch, reason: billing.ReasonInSync, warnings: []billing.WarningCode{billing.WarnTierMetadataMismatch}},
	{kind: Deleted, build: deleted, unlisted: true},
	{kind: NoTrace, build: noTrace, unlisted: true},
}

// EdgeCases returns the kinds of edge cases.
func EdgeCases() []Kind { return kindsOf(edgeCases) }

func noStripeIdentity(s *organization) { s.rows = append(s.rows, s.emptyRow(s.org.CreatedAt)) }

func customerDeleted(s *organization) {
	withoutSubscription(s)
	s.customer.Deleted = true
}

func customerMissing(s *organization) {
	withoutSubscription(s)
	s.customer = nil
}

func paidWithoutSubscription(s *organization) {
	s.becomeCustomer()
	s.org.SubscriptionTier, s.org.SubscriptionStatus = string(billing.TierPro), string(billing.StatusActive)
}

// sharesCustomer: the previous organization's customer pays for this one too.
func sharesCustomer(s *organization) {
	s.id.customer = identityOf(s.seed, s.i-1).customer
	sub := s.running(s.anyPlan(), billing.StatusActive)
	s.record(sub)
	s.addToStripe(sub)
}

func twoLive(s *organization) {
	s.becomeCustomer()
	newer := s.running(s.anyPlan(), billing.StatusPastDue)
	older := s.runningAt(s.now, s.anyPlan(), billing.StatusPastDue)
	older.Created = min(older.Created, newer.Created-1)
	s.record(newer)
	s.addToStripe(older, newer)
}

func twoRows(s *organization) {
	canceled(s)
	sub := s.started(s.daysAgo(1, 5), s.anyPlan(), billing.StatusActive)
	s.record(sub)
	s.addToStripe(sub)
}

func tierMismatch(s *organization) {
	sub := s.recorded(plan{billing.TierPro, s.anyInterval()})
	sub.Metadata["tier"] = string(billing.TierStarter)
	s.addToStripe(sub)
}

func deleted(s *organization) {
	canceledInStripe(s)
	s.org.IsDeleted = true
}

// noTrace: neither row, customer nor metadata connects the subscription with an organization.
func noTrace(s *organization) {
	orphan := s.running(s.anyPlan(), billing.StatusActive)
	delete(orphan.Metadata, "orgId")
	s.addToStripe(orphan)
}
