package pipeline_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

const settle = 10 * time.Minute

func (f *fixture) catchUpEnumerator(p *tap) *pipeline.Enumerator {
	e := f.enumerator(p)
	e.Settle = settle
	return e
}

// due is what the schedule of catch-ups asks for now, and the id of the run.
func (f *fixture) due() (pipeline.Request, string) {
	now := f.clock.Now()
	return pipeline.Request{ScheduledFor: now, Strategy: billing.StrategyEvents}, "events-" + now.UTC().Format(time.RFC3339)
}

// catchUp plays the catch-up that is due now to its end, and returns its summary.
func (f *fixture) catchUp() billing.Summary {
	f.Helper()
	req, id := f.due()
	f.enumerate(f.catchUpEnumerator(nil), req)
	return f.finish(id)
}

// finish has a worker and the aggregator bring what was sent of a run to its end.
func (f *fixture) finish(id string) billing.Summary {
	f.Helper()
	orgs := distinct(f.sentWork(id))
	worker := f.reconciler(nil)
	for len(orgs) > 0 {
		n := min(10, len(orgs))
		f.deliver(worker, id, orgs[:n]...)
		orgs = orgs[n:]
	}
	f.received(f.results)
	aggregator := f.aggregator(nil)
	if err := aggregator.Progress(f.Context(), id); err != nil {
		f.Fatal(err)
	}
	summary, err := aggregator.Summary(f.Context(), id)
	if err != nil {
		f.Fatal(err)
	}
	if summary.Status.Open() {
		f.Fatalf("run %s is still %s", id, summary.Status)
	}
	return summary
}

// change changes the organization's subscription in Stripe, whose endpoints take the event or not.
func (f *fixture) change(id string, missed bool, change func(*stripetest.Subscription)) {
	f.Helper()
	f.stripe.FailWebhooks(map[bool]int{true: 1}[missed])
	defer f.stripe.FailWebhooks(0)
	if !f.stripe.UpdateSubscription("sub_"+id, change) {
		f.Fatalf("there is no sub_%s", id)
	}
}

func TestACatchUpRepairsWhomEventsNameAndTouchesNobodyElse(t *testing.T) {
	f := newFixture(t)
	f.startQueues()
	for _, id := range []string{"recorded", "handled", "ignored", "unnamed", "deleted"} {
		f.inSync(id)
	}
	f.exec(`UPDATE subscriptions SET plan_tier = 'starter' WHERE org_id = 'unnamed'`) // drifted, but no event names it
	f.exec(`UPDATE organizations SET is_deleted = TRUE WHERE id = 'deleted'`)
	f.org("checkout", withoutCustomer, free) // the webhook of its checkout was missed
	f.org("customer", free)                  // and of this one nothing but the customer arrived
	f.org("Padded")                          // somebody pasted its id
	f.row("Padded", func(s *appschema.Subscription) {
		s.StripeSubscriptionID, s.StripeCustomerID = ptr(" sub_Padded\n"), nil
	})
	f.exec(`UPDATE organizations SET stripe_customer_id = NULL WHERE id = 'Padded'`)
	f.sub("Padded")
	f.clock.advance(time.Hour)
	f.stripe.FailWebhooks(2)
	f.stripe.CreateSubscription(stripetest.Subscription{
		ID: "sub_checkout", CustomerID: "cus_new", Status: "active", PriceID: "price_max", Metadata: map[string]string{"orgId": " CHECKOUT "},
		Created: created.Unix(), CurrentPeriodStart: periodStart.Unix(), CurrentPeriodEnd: periodEnd.Unix(),
	})
	f.stripe.FailWebhooks(0)
	f.sub("customer")
	f.change("customer", true, price("price_starter"))
	f.change("recorded", true, pastDue)
	f.change("recorded", true, canceled)
	f.change("Padded", true, price("price_max"))
	f.change("ignored", false, price("price_max")) // the webhook's handler ignored it
	f.change("handled", false, price("price_max"))
	f.exec(`UPDATE subscriptions SET plan_tier = 'max', stripe_price_id = 'price_max' WHERE org_id = 'handled'`)
	f.exec(`UPDATE organizations SET subscription_tier = 'max' WHERE id = 'handled'`)
	f.change("deleted", true, canceled)
	f.sub("stranger") // of another system that uses the same account
	f.change("stranger", true, pastDue)
	before := f.cells()
	f.clock.advance(20 * time.Minute)

	s := f.catchUp()

	_, id := f.due()
	if diff := cmp.Diff([]string{"Padded", "checkout", "customer", "handled", "ignored", "recorded"}, f.itemIDs(id)); diff != "" {
		t.Error("named:", diff)
	}
	if s.Status != billing.RunCompleted || s.Synchronized != 5 || s.Skipped != 1 || s.DriftByCause != (billing.DriftByCause{Pending: 4, NotPending: 1}) {
		t.Errorf("%+v", s)
	}
	causes := map[string]string{}
	for _, d := range s.Details {
		causes[d.OrgID] = fmt.Sprintf("%s %d", strings.TrimPrefix(d.Event.Type, "customer.subscription."), d.Event.PendingWebhooks)
		if !d.Event.Created.Equal(f.clock.Now().Add(-20*time.Minute)) || d.Event.ID == "" {
			t.Errorf("%s: %+v", d.OrgID, d.Event)
		}
	}
	want := map[string]string{"Padded": "updated 1", "checkout": "created 2", "customer": "updated 1", "ignored": "updated 0", "recorded": "deleted 1"}
	if diff := cmp.Diff(want, causes); diff != "" {
		t.Error("causes:", diff)
	}
	after := f.cells()
	if diff := cmp.Diff([]string{"Padded", "checkout", "customer", "ignored", "recorded"}, slices.Sorted(maps.Keys(after.withoutTimestamps().changedSince(before.withoutTimestamps())))); diff != "" {
		t.Error("changed:", diff)
	}
	if tier := mysqltest.Value[string](t, f.db, `SELECT plan_tier FROM subscriptions WHERE org_id = 'checkout' AND stripe_subscription_id = 'sub_checkout'`); tier != "max" {
		t.Errorf("the missed checkout's tier is %s", tier)
	}
	if n := len(f.metrics.lines(t, telemetry.MetricCatchUpAccessDrift, 5.0)); n != 1 {
		t.Errorf("%d lines tell of the drift: %v", n, f.metrics.lines(t, "", nil))
	}
	if n := mysqltest.Value[int](t, f.db, `SELECT COUNT(*) FROM reconciliation_events`); n != 0 {
		t.Errorf("%d events are left to look up", n)
	}
}
