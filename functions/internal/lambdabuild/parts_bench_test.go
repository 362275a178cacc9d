package lambdabuild_test

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/handler"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// inProcess runs the enumerator and the worker in this process, on a stack.
type inProcess struct {
	*stack

	enumerator pipeline.Enumerator
	worker     handler.Worker
}

func newInProcess(b *testing.B, orgs int, drift float64, limits stripetest.Options, rps float64) inProcess {
	b.Helper()
	s := newStackOn(b, demo.Options{Orgs: orgs, Drift: drift, Seed: 1, Now: time.Now().UTC().Truncate(time.Second)}, limits)
	store, err := mysqlstore.Open(b.Context(), mysqlstore.Config{Host: s.db.Host, Port: s.db.Port, User: s.db.User, Password: s.db.Password, Name: s.db.Name})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	})
	if _, err := store.Migrate(b.Context()); err != nil {
		b.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	stripe := stripesource.New(stripesource.Config{Key: s.stripe.Key(), BaseURL: s.stripe.URL(), RPS: rps, Log: log})
	work, results, dead := sqsqueue.New(s.queues, s.work), sqsqueue.New(s.queues, s.results), sqsqueue.New(s.queues, s.deadLetter)
	return inProcess{
		stack: s,
		enumerator: pipeline.Enumerator{
			Store: store, Stripe: stripe, Work: work, Progress: results, Free: billing.TierFree, Downgrades: func(n int) int { return n },
			RunDeadline: time.Hour, Now: time.Now, Log: log,
		},
		worker: handler.Worker{
			Reconciler: &pipeline.Reconciler{Store: store, Stripe: stripe, Rules: demoRules(), Parallel: 1, Now: time.Now, Log: log},
			Work:       work, DeadLetter: dead, Progress: results, MaxReceive: 12, Backoff: time.Second, Log: log,
		},
	}
}

func demoRules() billing.Rules {
	return billing.Rules{Prices: map[string]billing.Tier{}, DefaultTier: billing.TierPro} // the tier does not matter here
}

// enumerate starts a run and returns its work messages as a batch.
func (p inProcess) enumerate(b *testing.B, strategy billing.Strategy) (runID string, batch events.SQSEvent) {
	b.Helper()
	started, err := p.enumerator.Run(b.Context(), pipeline.Request{Strategy: strategy})
	if err != nil {
		b.Fatal(err)
	}
	return started.RunID, p.receive(p.work)
}

// BenchmarkSequentialLoop measures a single scheduled function that reads organizations from Stripe and writes them one
// after the other, at Stripe's pace. It handles BENCH_SEQUENTIAL of 1,000 organizations and extrapolates.
func BenchmarkSequentialLoop(b *testing.B) {
	const orgs = 1000
	some := setting(b, "BENCH_SEQUENTIAL", "50")[0]
	p := newInProcess(b, orgs, 0.01, stripetest.Options{Latency: stripeTakes, EndpointRate: stripeAllows, GlobalRate: 4 * stripeAllows}, 20)
	_, batch := p.enumerate(b, billing.StrategyRetrieve)
	b.ResetTimer()
	for b.Loop() {
		began := time.Now()
		for _, message := range batch.Records[:some] {
			if _, err := p.worker.Handle(b.Context(), events.SQSEvent{Records: []events.SQSMessage{message}}); err != nil {
				b.Fatal(err)
			}
		}
		each := time.Since(began).Seconds() / float64(some)
		b.ReportMetric(each, "s/org")
		for _, n := range []int{1000, 10_000, 100_000} {
			b.ReportMetric(each*float64(n), fmt.Sprintf("s/%d-extrapolated", n))
		}
	}
}

// BenchmarkFanOut sends the messages of 10,000 organizations.
func BenchmarkFanOut(b *testing.B) {
	const orgs = 10_000
	ids := make([]string, orgs)
	for i := range ids {
		ids[i] = fmt.Sprintf("0a4f6c1e-0000-4000-8000-%012d", i)
	}
	s := newStack(b, demo.Options{Seed: 1, Now: time.Now().UTC()})
	work := sqsqueue.New(s.queues, s.work)
	for b.Loop() {
		if err := work.SendWork(b.Context(), scheduledRun, ids); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(orgs*float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

// BenchmarkInSync measures a batch of organizations that are in sync by the snapshot, from the event to the response.
func BenchmarkInSync(b *testing.B) {
	p := newInProcess(b, workBatch, 0, stripetest.Options{}, 0)
	runID, batch := p.enumerate(b, billing.StrategySweep)
	orgs := float64(len(batch.Records))
	var before, after runtime.MemStats
	allocated, bytes := 0.0, 0.0
	for b.Loop() {
		b.StopTimer()
		p.db.MustExec(b, `UPDATE reconciliation_items SET outcome = 'pending' WHERE run_key = (SELECT run_key FROM reconciliation_runs WHERE id = ?)`, runID)
		runtime.ReadMemStats(&before)
		b.StartTimer()
		if _, err := p.worker.Handle(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		runtime.ReadMemStats(&after)
		allocated += float64(after.Mallocs - before.Mallocs)
		bytes += float64(after.TotalAlloc - before.TotalAlloc)
		b.StartTimer()
	}
	if n := p.undecided(); n > 0 {
		b.Errorf("%d organizations are undecided", n)
	}
	b.ReportMetric(allocated/float64(b.N)/orgs, "allocs/org")
	b.ReportMetric(bytes/float64(b.N)/orgs, "B/org")
	b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N)/orgs, "us/org")
}
