package pipeline_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// usual is what happens to subscriptions on a day, by how often.
var usual = []struct {
	change string
	of100  int
}{{"renewed", 70}, {"max", 6}, {"starter", 6}, {"to end", 8}, {"past due", 5}, {"canceled", 5}}

func usualChange(random *rand.Rand) string {
	n := random.IntN(100)
	for _, u := range usual {
		if n -= u.of100; n < 0 {
			return u.change
		}
	}
	panic("they are not 100")
}

// fingerprints are sums of what is compared of each organization and of its row.
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

func (f *fixture) addFingerprints(sums map[string][2]uint32, place int, query string) {
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
		of := sums[id]
		of[place] = sum
		sums[id] = of
	}
	if err := rows.Err(); err != nil {
		f.Fatal(err)
	}
}

// TestMissedWebhooksAreRepairedWithinTheHour: a day of a business with 1,000 customers, or MISSED_ORGS, whose webhook
// handles all events but 40: for half of those the endpoint is down, for half the handler fails.
func TestMissedWebhooksAreRepairedWithinTheHour(t *testing.T) {
	const missedWebhooks, day = 40, 24
	orgs := fromEnvironment(t, "MISSED_ORGS", 1000)
	const changesAnHour = 60
	f := newFixture(t)
	ids := make([]string, orgs)
	for i := range ids {
		ids[i] = fmt.Sprintf("org-%04d", i)
	}
	f.Subscribers(ids...)
	f.enumerate(f.Enumerator(nil), scheduled)
	f.finish(scheduledID)
	f.Clock.Advance(2 * time.Minute) // the catch-up is due 2 minutes past the hour

	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	drop := map[int]bool{}
	for len(drop) < missedWebhooks {
		drop[random.IntN(day*changesAnHour)] = true
	}
	missed := map[string]time.Time{} // whom a catch-up has yet to repair, and since when
	repaired, written, named, reads, pages, listed := 0, 0, 0, 0, 0, 0
	for hour := range day + 1 {
		for i := range changesAnHour {
			f.Clock.Advance(time.Minute)
			n := hour*changesAnHour + i
			if hour == day {
				continue
			}
			id := ids[random.IntN(orgs)]
			sub, _ := f.Stripe.Subscription("sub_" + id)
			if _, waits := missed[id]; waits || sub.Status == "canceled" {
				continue
			}
			down := n%2 == 0
			f.change(id, drop[n] && down, changes[usualChange(random)])
			if drop[n] {
				missed[id] = f.Clock.Now()
				continue
			}
			f.handled(id)
		}
		before := f.fingerprints()
		s := f.catchUp()
		_, run := f.due()
		w := f.Run(run).Window
		changed := map[string]bool{}
		for id, sum := range f.fingerprints() {
			if before[id] != sum {
				changed[id] = true
			}
		}
		for id, since := range missed {
			if since.After(w.To) {
				continue
			}
			delete(missed, id)
			repaired++
			if e, err := f.Reconciler(nil).Explain(t.Context(), id); err != nil || len(e.Plan.Changes) > 0 {
				t.Errorf("seed %d, hour %d: %s is not repaired: %+v, %v", seed, hour, id, e.Plan, err)
			}
			if changed[id] { // else another event led to it before, or what was missed had changed nothing that is compared
				written++
			}
			delete(changed, id)
		}
		for id := range missed { // those whose webhook still has its chance may be repaired before, by another event
			delete(changed, id)
		}
		if len(changed) > 0 || s.Errors+s.Pending > 0 {
			t.Errorf("seed %d, hour %d: others were touched: %v, %+v", seed, hour, changed, s)
		}
		events := 0
		for _, e := range f.Stripe.Events() {
			if e.Created >= w.From.Unix() && e.Created <= w.To.Unix() {
				events++
			}
		}
		used := f.Run(run).Usage
		ofLog := 1 + (events+99)/100
		if events == 0 {
			ofLog = 2
		}
		pages, listed, named = pages+ofLog, listed+events, named+s.TotalOrganizations
		reads += int(used.List+used.Retrieve+used.Other) - ofLog
	}
	if written < repaired/2 {
		t.Errorf("seed %d: of %d only %d were written", seed, repaired, written)
	}
	if len(missed) > 0 {
		t.Errorf("seed %d: nobody has looked at %v", seed, missed)
	}
	ratio := float64(reads) / float64(named)
	t.Logf("seed %d: %d missed webhooks repaired; %d events listed in %d pages by %d catch-ups; %d organizations named and %d times read, %.2f each", seed, repaired, listed, pages, day+1, named, reads, ratio)
	if ratio > 1.2 {
		t.Errorf("seed %d: %.2f requests for each organization that is named", seed, ratio)
	}

	f.Clock.Advance(time.Hour)
	req, id := f.due()
	req.Strategy = billing.StrategySweep
	full := f.enumerate(f.Enumerator(nil), req)
	if s := f.finish(full.RunID); s.TotalOrganizations != orgs || s.Skipped != orgs {
		t.Errorf("seed %d: the sweep after %s found %+v", seed, id, s)
	}
}
