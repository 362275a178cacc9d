package demo

import (
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// A Kind is what happened to an organization.
type Kind string

// A script makes an organization of its kind, and says what a reconciliation must find there.
type script struct {
	kind     Kind
	play     func(*specimen)
	reason   billing.Reason
	fields   []string // that change, sorted; empty where nothing does
	warnings []billing.WarningCode
	lowers   bool // the repair lowers access
	unlisted bool // no run lists the organization
	event    telling
}

// telling is whether Stripe's log of events has the latest change, and what became of the webhook.
type telling int

const (
	untold telling = iota // it has not: the change is long ago
	taken                 // every endpoint has taken the event
	missed                // some have, and others have not
)

// Organizations that are plainly in sync.
const (
	WithoutSubscription Kind = "without_subscription"
	Canceled            Kind = "canceled"
	Live                Kind = "live"
)

// rest is played over and over.
var rest = []script{
	{kind: Live, play: live, reason: billing.ReasonInSync, event: taken},
	{kind: WithoutSubscription, play: withoutSubscription, reason: billing.ReasonNoSubscription},
	{kind: Live, play: live, reason: billing.ReasonInSync},
	{kind: Canceled, play: canceled, reason: billing.ReasonInSync},
	{kind: Live, play: live, reason: billing.ReasonInSync},
	{kind: WithoutSubscription, play: withoutSubscription, reason: billing.ReasonNoSubscription},
	{kind: Live, play: live, reason: billing.ReasonInSync},
	{kind: Canceled, play: canceled, reason: billing.ReasonInSync},
	{kind: Live, play: live, reason: billing.ReasonInSync},
	{kind: WithoutSubscription, play: withoutSubscription, reason: billing.ReasonNoSubscription},
}

func live(s *specimen) {
	s.becomeCustomer()
	sub := s.anyLive()
	s.record(sub)
	s.hold(sub)
}

func (s *specimen) anyLive() stripetest.Subscription {
	switch n := s.random.IntN(100); {
	case n < 10:
		return s.trialing(s.anyPlan())
	case n < 16:
		return s.running(s.anyPlan(), billing.StatusPastDue)
	case n < 20:
		sub := s.running(s.anyPlan(), billing.StatusActive)
		cancelAtPeriodEnd(&sub, s.recently())
		return sub
	default:
		return s.running(s.anyPlan(), billing.StatusActive)
	}
}

// withoutSubscription: somebody who looked at the prices and left; half of them have a row.
func withoutSubscription(s *specimen) {
	s.becomeCustomer()
	if s.random.IntN(2) == 0 {
		row := s.emptyRow(s.org.CreatedAt)
		row.StripeCustomerID = &s.id.customer
		s.rows = append(s.rows, row)
	}
}

func canceled(s *specimen) {
	s.becomeCustomer()
	ended := s.daysAgo(5, 60)
	sub := s.runningAt(ended, s.anyPlan(), billing.StatusActive)
	cancel(&sub, ended)
	s.record(sub)
	s.hold(sub)
}
