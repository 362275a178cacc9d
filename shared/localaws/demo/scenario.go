package demo

import (
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// A Kind is a kind of drift, an edge case, or a way to be in sync.
type Kind string

// A scenario builds an organization of its kind and has the expected result of a reconciliation.
type scenario struct {
	kind     Kind
	build    func(*organization)
	reason   billing.Reason
	fields   []string // that change, sorted
	warnings []billing.WarningCode
	lowers   bool // the repair lowers access
	unlisted bool // no run lists the organization
	event    eventState
}

// eventState is whether Stripe has an event of the latest change, and whether its webhooks were delivered.
type eventState int

const (
	noEvent   eventState = iota // the change is long ago
	delivered                   // every endpoint accepted the event
	missed                      // an endpoint may not have accepted it
)

// Organizations in sync.
const (
	WithoutSubscription Kind = "without_subscription"
	Canceled            Kind = "canceled"
	Live                Kind = "live"
)

// inSync scenarios are assigned in turn.
var inSync = []scenario{
	{kind: Live, build: live, reason: billing.ReasonInSync, event: delivered},
	{kind: WithoutSubscription, build: withoutSubscription, reason: billing.ReasonNoSubscription},
	{kind: Live, build: live, reason: billing.ReasonInSync},
	{kind: Canceled, build: canceled, reason: billing.ReasonInSync},
	{kind: Live, build: live, reason: billing.ReasonInSync},
	{kind: WithoutSubscription, build: withoutSubscription, reason: billing.ReasonNoSubscription},
	{kind: Live, build: live, reason: billing.ReasonInSync},
	{kind: Canceled, build: canceled, reason: billing.ReasonInSync},
	{kind: Live, build: live, reason: billing.ReasonInSync},
	{kind: WithoutSubscription, build: withoutSubscription, reason: billing.ReasonNoSubscription},
}

func live(s *organization) {
	s.becomeCustomer()
	sub := s.anyLive()
	s.record(sub)
	s.addToStripe(sub)
}

func (s *organization) anyLive() stripetest.Subscription {
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

// withoutSubscription: a customer who never subscribed; half of them have a row.
func withoutSubscription(s *organization) {
	s.becomeCustomer()
	if s.random.IntN(2) == 0 {
		row := s.emptyRow(s.org.CreatedAt)
		row.StripeCustomerID = &s.id.customer
		s.rows = append(s.rows, row)
	}
}

func canceled(s *organization) {
	s.becomeCustomer()
	ended := s.daysAgo(5, 60)
	sub := s.runningAt(ended, s.anyPlan(), billing.StatusActive)
	cancel(&sub, ended)
	s.record(sub)
	s.addToStripe(sub)
}
