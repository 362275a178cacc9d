package lambdabuild_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// BenchmarkCatchUp runs a catch-up of the deployed programs over BENCH_EVENTS events of as many of BENCH_ORGS
// organizations. One event in a hundred is of an unknown customer, for which the application's tables are scanned. It
// measures the enumerator's time, memory and rows read, and the time of the whole catch-up.
func BenchmarkCatchUp(b *testing.B) {
	for _, orgs := range setting(b, "BENCH_ORGS", "1000") {
		for _, events := range setting(b, "BENCH_EVENTS", "200") {
			b.Run(fmt.Sprintf("orgs=%d/events=%d", orgs, events), func(b *testing.B) {
				for b.Loop() {
					measureCatchUp(b, orgs, events)
				}
			})
		}
	}
}

func measureCatchUp(b *testing.B, orgs, events int) {
	b.Helper()
	b.StopTimer()
	defer b.StartTimer()
	now := time.Now().UTC().Truncate(time.Second)
	s := newStackOn(b, demo.Options{Orgs: orgs, Drift: 0.01, Plain: true, Seed: 1, Now: now}, stripetest.Options{})
	s.environ["EVENTS_SETTLE"] = "0s"
	s.addEvents(events, now)
	functions, stop := s.deploy(100)
	before := s.rowsRead()
	began := time.Now()
	runID := s.enumerateAll(functions["enumerator"], `{"strategy":"events","since":"`+now.Add(-time.Hour).Format(time.RFC3339)+`"}`)
	b.ReportMetric(time.Since(began).Seconds(), "s/enumerator")
	b.ReportMetric(float64(s.rowsRead()-before), "rows-read")
	s.awaitDecided(b.Context(), runID)
	b.ReportMetric(time.Since(began).Seconds(), "s/catch-up")
	s.awaitClosed(b.Context(), runID)
	cpu, peak := usage(b, functions)
	stop()
	drifted, requests := s.outcome(runID)
	named := mysqltest.Value[int](b, s.db, `SELECT total FROM reconciliation_runs WHERE id = ?`, runID)
	if named < events*9/10 {
		b.Errorf("%d events named only %d organizations", events, named)
	}
	b.ReportMetric(peak["enumerator"], "enumerator-peak-MiB")
	b.ReportMetric(cpu["enumerator"].Seconds(), "enumerator-cpu-s")
	b.ReportMetric(float64(drifted), "drifted")
	b.ReportMetric(float64(requests.List+requests.Retrieve+requests.Other)/float64(named), "requests/named")
}

// addEvents adds an event of each of some subscriptions to Stripe's event log, within the hour before now.
func (s *stack) addEvents(events int, now time.Time) {
	s.Helper()
	rows, err := s.db.QueryContext(s.Context(), `SELECT stripe_subscription_id FROM subscriptions WHERE stripe_subscription_id IS NOT NULL ORDER BY id LIMIT ?`, events)
	if err != nil {
		s.Fatal(err)
	}
	defer rows.Close()
	for n := 0; rows.Next(); n++ {
		var id string
		if err := rows.Scan(&id); err != nil {
			s.Fatal(err)
		}
		sub, ok := s.stripe.Subscription(id)
		if !ok {
			continue
		}
		if n%100 == 0 {
			sub.ID, sub.CustomerID, sub.Metadata = "sub_stranger"+id, "cus_stranger"+id, nil
		}
		s.stripe.AddEvent(stripetest.Event{Subscription: &sub, Created: now.Add(-time.Hour * time.Duration(events-n) / time.Duration(events)).Unix(), PendingWebhooks: n % 3})
	}
	if err := rows.Err(); err != nil {
		s.Fatal(err)
	}
}

// rowsRead returns how many rows the server's storage engine has read.
func (s *stack) rowsRead() int {
	s.Helper()
	return mysqltest.RowsRead(s.TB, s.db.DB, "GLOBAL")
}
