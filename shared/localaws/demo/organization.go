package demo

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

const (
	day       = 24 * time.Hour
	trialDays = 14
)

// An organization has its rows in the database and its objects in Stripe.
type organization struct {
	id     identity
	seed   uint64
	i      int
	now    time.Time
	random *rand.Rand

	org           appschema.Organization
	rows          []appschema.Subscription
	customer      *stripetest.Customer // nil: Stripe has none, or another organization's
	subscriptions []stripetest.Subscription
	event         *stripetest.Event // of the latest change
}

// newOrganization returns an organization without a customer, which is older than any subscription.
func newOrganization(o Options, i int) *organization {
	id := identityOf(o.Seed, i)
	s := &organization{id: id, seed: o.Seed, i: i, now: o.Now.UTC().Truncate(time.Second), random: id.random}
	created := s.daysAgo(800, 1000)
	s.org = appschema.Organization{
		ID: id.org, Name: s.name(), CreatedBy: newStripeID(s.random, "user_", 16),
		SubscriptionStatus: string(billing.StatusIncomplete), SubscriptionTier: string(billing.TierFree),
		CreatedAt: created, UpdatedAt: created,
	}
	return s
}

func (s *organization) name() string {
	first := []string{"Amber", "Birch", "Cobalt", "Delta", "Ember", "Fjord", "Granite", "Harbor", "Indigo", "Juniper", "Köln", "Lumen"}
	second := []string{"Analytics", "Bakery", "Clinic", "Design", "Energy", "Freight", "Games", "Insurance", "Labs", "Media", "Software", "Studio"}
	return fmt.Sprintf("%s %s %d", first[s.random.IntN(len(first))], second[s.random.IntN(len(second))], s.i)
}

// daysAgo returns a random time, at least from and less than to days ago.
func (s *organization) daysAgo(from, to int) time.Time { return s.daysBefore(s.now, from, to) }

// recently returns a random time in the last day, which is in every current period.
func (s *organization) recently() time.Time { return s.now.Add(-time.Hour - s.seconds(20*time.Hour)) }

func (s *organization) daysBefore(t time.Time, from, to int) time.Time {
	return t.Add(-time.Duration(from)*day - s.seconds(time.Duration(to-from)*day))
}

// seconds returns a random number of whole seconds less than the limit.
func (s *organization) seconds(limit time.Duration) time.Duration {
	return time.Duration(s.random.Int64N(int64(limit/time.Second))) * time.Second
}

func (s *organization) anyPlan() plan {
	return plan{tiers[s.random.IntN(len(tiers))], s.anyInterval()}
}

func (s *organization) anyInterval() interval {
	if s.random.IntN(4) == 0 {
		return yearly
	}
	return monthly
}

// becomeCustomer adds a customer in Stripe and records it in the organization.
func (s *organization) becomeCustomer() {
	s.org.StripeCustomerID = &s.id.customer
	s.customer = &stripetest.Customer{ID: s.id.customer, Name: s.org.Name, Created: s.org.CreatedAt.Unix()}
}

// subscription returns a new subscription, which is neither in the database nor in Stripe.
func (s *organization) subscription(p plan, status billing.Status) stripetest.Subscription {
	sub := stripetest.Subscription{
		ID: newStripeID(s.random, "sub_1", 23), CustomerID: s.id.customer, Status: string(status),
		Metadata: map[string]string{"orgId": s.id.org},
	}
	choose(&sub, p)
	return sub
}

// started returns a subscription in its first period.
func (s *organization) started(start time.Time, p plan, status billing.Status) stripetest.Subscription {
	sub := s.subscription(p, status)
	sub.Created = start.Unix()
	period(&sub, start, p.every)
	return sub
}

// running returns a subscription whose current period contains now.
func (s *organization) running(p plan, status billing.Status) stripetest.Subscription {
	return s.runningAt(s.now, p, status)
}

func (s *organization) runningAt(now time.Time, p plan, status billing.Status) stripetest.Subscription {
	start := s.daysBefore(now, 1, 27*p.every.months)
	sub := s.started(start, p, status)
	past := s.random.IntN(24/p.every.months) * p.every.months
	sub.Created = start.AddDate(0, -past, 0).Unix()
	return sub
}

// trialing returns a subscription in its trial.
func (s *organization) trialing(p plan) stripetest.Subscription {
	sub := s.subscription(p, billing.StatusTrialing)
	s.tryFrom(&sub, s.daysAgo(1, trialDays-1))
	return sub
}

// tryFrom makes the trial the current period.
func (s *organization) tryFrom(sub *stripetest.Subscription, start time.Time) {
	sub.Created, sub.TrialStart, sub.CurrentPeriodStart = start.Unix(), start.Unix(), start.Unix()
	sub.TrialEnd = start.Add(trialDays * day).Unix()
	sub.CurrentPeriodEnd = sub.TrialEnd
}

func choose(sub *stripetest.Subscription, p plan) {
	sub.PriceID = p.price()
	sub.Metadata["tier"] = string(p.tier)
}

func period(sub *stripetest.Subscription, start time.Time, every interval) {
	sub.CurrentPeriodStart, sub.CurrentPeriodEnd = start.Unix(), start.AddDate(0, every.months, 0).Unix()
}

func cancel(sub *stripetest.Subscription, at time.Time) {
	sub.Status = string(billing.StatusCanceled)
	sub.CanceledAt, sub.EndedAt = at.Unix(), at.Unix()
}

func cancelAtPeriodEnd(sub *stripetest.Subscription, at time.Time) {
	sub.CancelAtPeriodEnd, sub.CanceledAt = true, at.Unix()
}

// record adds the rows that the application's webhook handler would write.
func (s *organization) record(sub stripetest.Subscription) {
	tier := sub.Metadata["tier"]
	if status := billing.Status(sub.Status); status == billing.StatusCanceled || status == billing.StatusIncomplete {
		tier = string(billing.TierFree)
	}
	written := time.Unix(max(sub.CurrentPeriodStart, sub.CanceledAt), 0).UTC()
	row := s.emptyRow(time.Unix(sub.Created, 0).UTC())
	row.StripeSubscriptionID, row.StripePriceID, row.StripeCustomerID = &sub.ID, &sub.PriceID, &sub.CustomerID
	row.PlanTier, row.Status = tier, sub.Status
	row.CurrentPeriodStart, row.CurrentPeriodEnd = timestamp(sub.CurrentPeriodStart), timestamp(sub.CurrentPeriodEnd)
	row.TrialEnd, row.CanceledAt, row.EndedAt = timestamp(sub.TrialEnd), timestamp(sub.CanceledAt), timestamp(sub.EndedAt)
	row.CancelAtPeriodEnd = &sub.CancelAtPeriodEnd
	row.UpdatedAt = written
	s.rows = append(s.rows, row)

	s.org.StripeCustomerID = &sub.CustomerID
	s.org.SubscriptionTier, s.org.SubscriptionStatus = tier, sub.Status
	s.org.TrialEndsAt = timestamp(sub.TrialEnd)
	s.org.UpdatedAt = written
}

// emptyRow returns a subscriptions row without ids of Stripe.
func (s *organization) emptyRow(created time.Time) appschema.Subscription {
	return appschema.Subscription{
		ID: newUUID(s.random), OrgID: s.org.ID,
		PlanTier: string(billing.TierFree), Status: string(billing.StatusIncomplete),
		CancelAtPeriodEnd: new(false), CreatedAt: created, UpdatedAt: created,
	}
}

// timestamp returns nil for Stripe's null.
func timestamp(seconds int64) *time.Time {
	if seconds == 0 {
		return nil
	}
	return new(time.Unix(seconds, 0).UTC())
}

// addToStripe adds copies of the subscriptions to Stripe.
func (s *organization) addToStripe(subs ...stripetest.Subscription) {
	s.subscriptions = append(s.subscriptions, subs...)
}

// addEvent adds a Stripe event of the latest change. Half of the missed webhooks are pending at an endpoint.
func (s *organization) addEvent(t eventState) {
	if t == noEvent {
		return
	}
	sub := s.subscriptions[len(s.subscriptions)-1]
	at := max(s.recently().Unix(), sub.Created)
	s.event = &stripetest.Event{Type: "customer.subscription.updated", Created: at, Subscription: &sub}
	switch {
	case sub.Status == string(billing.StatusCanceled):
		s.event.Type = "customer.subscription.deleted"
	case !s.records(sub.ID):
		s.event.Type = "customer.subscription.created"
	}
	if t == missed {
		s.event.PendingWebhooks = s.random.IntN(2)
	}
}

func (s *organization) records(subscriptionID string) bool {
	return slices.ContainsFunc(s.rows, func(row appschema.Subscription) bool {
		return row.StripeSubscriptionID != nil && *row.StripeSubscriptionID == subscriptionID
	})
}

func (s *organization) putInto(stripe *stripetest.Server) {
	if s.customer != nil {
		stripe.PutCustomer(*s.customer)
	}
	for _, sub := range s.subscriptions {
		stripe.PutSubscription(sub)
	}
	if s.event != nil {
		stripe.AddEvent(*s.event)
	}
}
