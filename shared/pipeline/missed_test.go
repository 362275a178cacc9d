package pipeline_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// usualChanges are the changes of a usual day, with the share of each in percent.
var usualChanges = []struct {
	name    string
	percent int
}{{"renewed", 70}, {"max", 6}, {"starter", 6}, {"cancel at period end toggled", 8}, {"past due", 5}, {"canceled", 5}}

func usualChange(random *rand.Rand) string {
	n := random.IntN(100)
	for _, c := range usualChanges {
		if n -= c.percent; n < 0 {
			return c.name
		}
	}
	panic("the percentages of usualChanges are less than 100 in all")
}

// fingerprints returns, by organization, a checksum of the compared columns of the organization and one of its row's.
func (f *fixture) fingerprints() map[string][2]uint32 {
	f.Helper()
	sums := map[string][2]uint32{}
	for i, query := range []string{
		`SELECT id, CRC32(CONCAT_WS('|', COALESCE(stripe_customer_id, ''), subscription_status, subscription_tier, COALESCE(trial_ends_at, ''))) FROM organizations`,
		`SELECT org_id, CRC32(CONCAT_WS('|', id, COALESCE(stripe_subscription_id, ''), COALESCE(stripe_customer_id, ''), COALESCE(stripe_price_id, ''), plan_tier, status,
			COALESCE(current_period_start, ''), COALESCE(current_period_end, ''), COALESCE(trial_end, ''), cancel_at_period_end, COALESCE(canceled_at, ''), COALESCE(ended_at, '')))
			FROM subscriptions`,
	} {
		f.addFingerprints(sums, i, query)
	}
	return sums
}

func (f *fixture) addFingerprints(sums map[string][2]uint32, index int, query string) {
	f.Helper()
	rows, err := f.DB.QueryContext(f.Context(), query)
	if err != nil {
		f.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var sum uint32
		if err := rows.Scan(&id, &sum); err != nil {
			f.Fatal(err)
		}
		pair := sums[id]
		pair[index] = sum
		sums[id] = pair
	}
	if err := rows.Err(); err != nil {
		f.Fatal(err)
	}
}

// TestMissedWebhooksAreRepairedWithinTheHour simulates a day of an application with 1,000 organizations (MISSED_ORGS
// changes that). Its webhook misses 40 events: for half of them the endpoint is down, for half the handler fails. The
// test also checks how many requests the catch-ups send.
func TestMissedWebhooksAreRepairedWithinTheHour(t *testing.T) {
	const missedWebhooks, hoursADay, changesAnHour = 40, 24, 60
	orgs := fromEnvironment(t, "MISSED_ORGS", 1000)
	f := newFixture(t)
	ids := make([]string, orgs)
	for i := range ids {
		ids[i] = fmt.Sprintf("org-%04d", i)
	}
	f.Subscribers(ids...)
	f.enumerate(f.Enumerator(nil), scheduled)
	f.finish(scheduledID)
	f.Clock.Advance(2 * time.Minute) // catch-ups start 2 minutes past the hour

	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	isMissed := map[int]bool{} // by the number of the change
	for len(isMissed) < missedWebhooks {
		isMissed[random.IntN(hoursADay*changesAnHour)] = true
	}
	unrepaired := map[string]time.Time{} // organization -> when the webhook missed its event
	repaired, written, named, reads, pages, listed := 0, 0, 0, 0, 0, 0
	for hour := range hoursADay + 1 {
		for i := range changesAnHour {
			f.Clock.Advance(time.Minute)
			n := hour*changesAnHour + i
			if hour == hoursADay { // the day is over, only its last catch-up follows
				continue
			}
			id := ids[random.IntN(orgs)]
			sub, _ := f.Stripe.Subscription("sub_" + id)
			if _, waits := unrepaired[id]; waits || sub.Status == "canceled" {
				continue
			}
			endpointIsDown := isMissed[n] && n%2 == 0
			f.change(id, endpointIsDown, changes[usualChange(random)])
			if isMissed[n] {
				unrepaired[id] = f.Clock.Now()
				continue
			}
			f.webhookHandles(id)
		}
		before := f.fingerprints()
		s := f.catchUp()
		_, run := f.dueCatchUp()
		window := f.Run(run).Window
		changed := map[string]bool{}
		for id, sum := range f.fingerprints() {
			if before[id] != sum {
				changed[id] = true
			}
		}
		for id, missedAt := range unrepaired {
			if missedAt.After(window.To) {
				continue
			}
			delete(unrepaired, id)
			repaired++
			if e, err := f.Reconciler(nil).Explain(t.Context(), id); err != nil || len(e.Plan.Changes) > 0 {
				t.Errorf("seed %d, hour %d: %s is not repaired: %+v, %v", seed, hour, id, e.Plan, err)
			}
			// An earlier catch-up may have repaired it because of another event, or the missed event changed no
			// compared column.
			if changed[id] {
				written++
			}
			delete(changed, id)
		}
		// The other unrepaired ones are not due yet, but another event may have led to their repair.
		for id := range unrepaired {
			delete(changed, id)
		}
		if len(changed) > 0 || s.Errors+s.Pending > 0 {
			t.Errorf("seed %d, hour %d: the catch-up changed other organizations: %v, %+v", seed, hour, changed, s)
		}
		events := 0
		for _, e := range f.Stripe.Events() {
			if e.Created >= window.From.Unix() && e.Created <= window.To.Unix() {
				events++
			}
		}
		used := f.Run(run).Usage
		eventRequests := 1 + (events+99)/100
		if events == 0 {
			eventRequests = 2
		}
		pages, listed, named = pages+eventRequests, listed+events, named+s.TotalOrganizations
		reads += int(used.List+used.Retrieve+used.Other) - eventRequests
	}
	if written < repaired/2 {
		t.Errorf("seed %d: the catch-ups wrote only %d of %d repaired organizations", seed, written, repaired)
	}
	if len(unrepaired) > 0 {
		t.Errorf("seed %d: no catch-up repaired %v", seed, unrepaired)
	}
	ratio := float64(reads) / float64(named)
	t.Logf("seed %d: %d missed webhooks repaired; %d catch-ups listed %d events with %d requests; they read %d named organizations with %d requests, %.2f for each",
		seed, repaired, hoursADay+1, listed, pages, named, reads, ratio)
	if ratio > 1.2 {
		t.Errorf("seed %d: %.2f requests for each named organization", seed, ratio)
	}

	f.Clock.Advance(time.Hour)
	req, _ := f.dueCatchUp()
	req.Strategy = billing.StrategySweep
	full := f.enumerate(f.Enumerator(nil), req)
	if s := f.finish(full.RunID); s.TotalOrganizations != orgs || s.Skipped != orgs {
		t.Errorf("seed %d: after the day a full run found %+v", seed, s)
	}
}
