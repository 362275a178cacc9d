package chaos_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

// application is the application that runs beside the reconciliation. Customers and support change subscriptions in
// Stripe. The application's webhook writes the events late, twice and out of order, each in several statements without
// a transaction.
type application struct {
	handler       testworld.Webhook
	stripe        *stripetest.Server
	subscriptions []orgSubscription

	mu       sync.Mutex
	random   *rand.Rand
	events   []stripetest.Subscription            // sent and not yet handled
	sent     []stripetest.Subscription            // all
	versions map[string][]stripetest.Subscription // all states of each subscription
	created  int                                  // new subscriptions
	handled  int                                  // events that the webhook handled
	changed  int                                  // changes in Stripe
}

func newApplication(db *sql.DB, stripe *stripetest.Server, subscriptions []orgSubscription, inStripe []billing.Subscription, seed uint64) *application {
	a := &application{
		handler: webhook(db), stripe: stripe, subscriptions: subscriptions, random: rand.New(rand.NewPCG(seed, 2)),
		versions: map[string][]stripetest.Subscription{},
	}
	for _, s := range inStripe {
		sub, _ := stripe.Subscription(s.ID)
		a.versions[sub.ID] = []stripetest.Subscription{sub}
	}
	return a
}

// live changes Stripe and handles events until ctx ends, two events at a time.
func (a *application) live(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() {
		for pause(ctx, a.upTo(60*time.Millisecond)) {
			a.changeStripe()
		}
	})
	for range 2 {
		all.Go(func() {
			for pause(ctx, a.upTo(30*time.Millisecond)) {
				a.webhook(ctx, true)
			}
		})
	}
	all.Wait()
}

// drain handles the remaining events: Stripe delivers an event until the endpoint accepts it.
func (a *application) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, phaseTimeout)
	defer cancel()
	for a.webhook(ctx, false) {
		if !pause(ctx, time.Millisecond) {
			return fmt.Errorf("the webhook has not handled all events: %w", ctx.Err())
		}
	}
	return nil
}

func (a *application) upTo(longest time.Duration) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Duration(a.random.Int64N(int64(longest)))
}

// stripeChanges are the changes that people make to subscriptions.
var stripeChanges = []func(*stripetest.Subscription){
	func(s *stripetest.Subscription) { s.Status = "active" },
	func(s *stripetest.Subscription) { s.Status = "past_due" },
	func(s *stripetest.Subscription) { s.Status = "unpaid" },
	func(s *stripetest.Subscription) {
		s.Status, s.CanceledAt, s.EndedAt = "canceled", s.Created+1, s.Created+1
	},
	func(s *stripetest.Subscription) { buy(s, "starter") },
	func(s *stripetest.Subscription) { buy(s, "pro") },
	func(s *stripetest.Subscription) { buy(s, "max") },
	func(s *stripetest.Subscription) { s.Status, s.TrialEnd = "trialing", s.CurrentPeriodEnd },
	func(s *stripetest.Subscription) {
		s.CurrentPeriodStart, s.CurrentPeriodEnd = s.CurrentPeriodEnd, s.CurrentPeriodEnd+30*86400
	},
	func(s *stripetest.Subscription) { s.CancelAtPeriodEnd = !s.CancelAtPeriodEnd },
}

func buy(s *stripetest.Subscription, tier string) {
	s.PriceID, s.Metadata["tier"] = priceOf(strings.ToUpper(tier)), tier
}

// changeStripe changes a subscription, or creates another one of its customer, and sends an event. One event in three
// is lost, and sometimes an old one is sent again.
func (a *application) changeStripe() {
	a.mu.Lock()
	defer a.mu.Unlock()
	sub, ok := a.stripe.Subscription(a.subscriptions[a.random.IntN(len(a.subscriptions))].subscription)
	if !ok {
		return
	}
	if sub.Status == "canceled" || a.random.IntN(12) == 0 { // a canceled subscription never changes again
		a.created++
		sub.ID, sub.Created = fmt.Sprintf("sub_new%d", a.created), sub.Created+int64(a.created)
		sub.Status, sub.CanceledAt, sub.EndedAt = "active", 0, 0
		a.subscriptions = append(a.subscriptions, orgSubscription{sub.Metadata["orgId"], sub.ID})
	} else {
		stripeChanges[a.random.IntN(len(stripeChanges))](&sub)
	}
	lost := a.random.IntN(3) == 0
	a.put(sub, lost)
	a.changed++
	a.versions[sub.ID] = append(a.versions[sub.ID], sub)
	a.sent = append(a.sent, sub)
	if !lost {
		a.events = append(a.events, sub)
	}
	if a.random.IntN(6) == 0 {
		a.events = append(a.events, a.sent[a.random.IntN(len(a.sent))])
	}
}

// put records the change in Stripe's log of events. Half of the lost events were not delivered; the other half were
// delivered, and their handler failed.
func (a *application) put(sub stripetest.Subscription, lost bool) {
	if lost && a.random.IntN(2) == 0 {
		a.stripe.FailWebhooks(1)
		defer a.stripe.FailWebhooks(0)
	}
	if _, exists := a.stripe.Subscription(sub.ID); exists {
		a.stripe.PutSubscription(sub)
	} else {
		a.stripe.CreateSubscription(sub)
	}
}

// webhook handles one event, if there is one. An event that fails is delivered again.
func (a *application) webhook(ctx context.Context, slowly bool) bool {
	a.mu.Lock()
	if len(a.events) == 0 {
		a.mu.Unlock()
		return false
	}
	i := a.random.IntN(len(a.events)) // out of order
	sub := a.events[i]
	a.events = append(a.events[:i:i], a.events[i+1:]...)
	a.mu.Unlock()
	between := time.Duration(0)
	if slowly {
		between = a.upTo(25 * time.Millisecond)
	}
	err := a.handle(context.WithoutCancel(ctx), sub, func() { pause(ctx, between) })
	a.mu.Lock()
	defer a.mu.Unlock()
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok && e.Number == 1062 {
		err = nil // another row has the subscription, so the application drops the event
	}
	if err != nil {
		a.events = append(a.events, sub)
		return true
	}
	a.handled++
	return true
}

func (a *application) handle(ctx context.Context, sub stripetest.Subscription, between func()) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return a.handler.Handle(ctx, sub.Metadata["orgId"], sub, between)
}

// webhook is the handler of an application with the demonstration's prices.
func webhook(db *sql.DB) testworld.Webhook {
	tiers := map[string]string{}
	for name, prices := range demo.Prices() {
		for price := range strings.SplitSeq(prices, ",") {
			tiers[price] = strings.ToLower(strings.TrimPrefix(name, "STRIPE_PRICE_ID_"))
		}
	}
	return testworld.Webhook{DB: db, Tiers: tiers}
}

// pause waits and reports false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
