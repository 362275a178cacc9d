package lambdabuild_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/lambdasource"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/runtimeapi"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

const (
	// stripeAllows is the fake Stripe's limit for each endpoint, in requests a second, as Stripe's. The limit of all
	// endpoints together is four times as high. https://docs.stripe.com/rate-limits
	stripeAllows = 25.0
	// stripeTakes is the latency of Stripe's responses.
	stripeTakes   = 120 * time.Millisecond
	workersAtOnce = 10
	workBatch     = 100
)

// setting reads a list of numbers from the environment. The defaults are small, because the full table takes hours.
func setting(b *testing.B, name, defaultValue string) []int {
	b.Helper()
	text := os.Getenv(name)
	if text == "" {
		text = defaultValue
	}
	var all []int
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil {
			b.Fatalf("%s: %v", name, err)
		}
		all = append(all, n)
	}
	return all
}

// BenchmarkRunAtStripesPace runs the deployed programs against a Stripe with the latency and the limits of the real one,
// and compares them with the ideal: the sweep's pages, then the workers' requests to the endpoint that they use most, one
// after the other at the configured rate. BENCH_ORGS, BENCH_RPS and BENCH_STRATEGIES set the organizations, the requests a
// second and the strategies.
func BenchmarkRunAtStripesPace(b *testing.B) {
	strategies := strings.Split(os.Getenv("BENCH_STRATEGIES"), ",")
	if strategies[0] == "" {
		strategies = []string{"sweep"}
	}
	for _, orgs := range setting(b, "BENCH_ORGS", "1000") {
		for _, rps := range setting(b, "BENCH_RPS", "20") {
			for _, strategy := range strategies {
				b.Run(fmt.Sprintf("orgs=%d/rps=%d/%s", orgs, rps, strategy), func(b *testing.B) {
					for b.Loop() {
						r := measure(b, orgs, strategy, rps, stripetest.Options{
							Latency: stripeTakes, EndpointRate: stripeAllows, GlobalRate: 4 * stripeAllows,
						})
						ideal := r.ideal(rps)
						b.ReportMetric(r.wall.Seconds(), "s/run")
						b.ReportMetric(ideal, "s/ideal")
						b.ReportMetric(r.wall.Seconds()/ideal, "times-ideal")
						r.report(b)
					}
				})
			}
		}
	}
}

// BenchmarkRunAtFullSpeed runs the deployed programs against a Stripe without limits, at the highest rate that can be
// configured (100 a second). It measures organizations per second of the programs' processor time, and the memory of the
// largest process of each function.
func BenchmarkRunAtFullSpeed(b *testing.B) {
	for _, orgs := range setting(b, "BENCH_ORGS", "1000") {
		b.Run(fmt.Sprintf("orgs=%d", orgs), func(b *testing.B) {
			for b.Loop() {
				r := measure(b, orgs, "sweep", 100, stripetest.Options{})
				b.ReportMetric(r.wall.Seconds(), "s/run")
				b.ReportMetric(float64(orgs)/(r.cpu["enumerator"]+r.cpu["worker"]).Seconds(), "orgs/cpu-s")
				for _, name := range []string{"enumerator", "worker", "aggregator"} {
					b.ReportMetric(1e6*r.cpu[name].Seconds()/float64(orgs), name+"-cpu-us/org")
					b.ReportMetric(r.peakMiB[name], name+"-peak-MiB")
				}
				r.report(b)
			}
		})
	}
}

// measured is the result of a run.
type measured struct {
	orgs, drifted int
	pages         float64 // the number of pages that a sweep of all subscriptions needs
	customerLists int64   // requests for the subscriptions of a customer
	wall          time.Duration
	requests      billing.Usage
	rowsRead      int                      // by the database server, including this benchmark's queries
	cpu           map[string]time.Duration // function -> processor time of all its processes
	peakMiB       map[string]float64       // function -> memory of its largest process
}

// ideal returns the least time in seconds that the run's requests take: first the sweep's pages, then the requests to the
// endpoint that the workers use most. It counts the run's own requests: customer-lists and retrieved show if they grow.
func (m measured) ideal(rps int) float64 {
	return (m.pages + float64(max(m.requests.Retrieve, m.customerLists))) / float64(rps)
}

func (m measured) report(b *testing.B) {
	b.Helper()
	requests := float64(m.requests.List + m.requests.Retrieve + m.requests.Other)
	b.ReportMetric(requests/float64(m.orgs), "requests/org")
	b.ReportMetric((requests-m.pages)/float64(m.drifted), "further-requests/drifted")
	b.ReportMetric(float64(m.requests.Retrieve), "retrieved")
	b.ReportMetric(float64(m.customerLists), "customer-lists")
	b.ReportMetric(float64(m.requests.Throttled), "throttled")
	b.ReportMetric(float64(m.rowsRead)/float64(m.orgs), "rows-read/org")
}

// measure runs the deployed programs over the organizations, of which one in a hundred drifted. With BENCH_UNNAMED no
// subscription's metadata names its organization.
func measure(b *testing.B, orgs int, strategy string, rps int, limits stripetest.Options) measured {
	b.Helper()
	b.StopTimer()
	defer b.StartTimer()
	s := newStackOn(b, demo.Options{
		Orgs: orgs, Drift: 0.01, Plain: true, Unnamed: os.Getenv("BENCH_UNNAMED") != "", Seed: 1, Now: time.Now().UTC().Truncate(time.Second),
	}, limits)
	var customerLists atomic.Int64
	s.stripe.Before(func(r *http.Request) {
		if r.URL.Query().Has("customer") {
			customerLists.Add(1)
		}
	})
	functions, stop := s.deploy(rps)
	before, began := s.rowsRead(), time.Now()
	runID := s.enumerateAll(functions["enumerator"], `{"strategy":"`+strategy+`"}`)
	s.awaitDecided(b.Context(), runID)
	m := measured{orgs: orgs, wall: time.Since(began)}
	if strategy == "sweep" {
		m.pages = math.Ceil(float64(s.population.Subscriptions) / 100)
	}
	s.awaitClosed(b.Context(), runID)
	m.rowsRead = s.rowsRead() - before
	m.cpu, m.peakMiB = usage(b, functions)
	stop()
	m.drifted, m.requests = s.outcome(runID)
	m.customerLists = customerLists.Load()
	return m
}

// deploy starts the functions and their event sources; stop ends them.
func (s *stack) deploy(rps int) (functions map[string]*runtimeapi.Function, stop func()) {
	s.Helper()
	s.environ["STRIPE_RPS"], s.environ["WORKER_CONCURRENCY"] = strconv.Itoa(rps), strconv.Itoa(workersAtOnce)
	s.timeout = 15 * time.Minute // Lambda's longest
	functions = map[string]*runtimeapi.Function{}
	for _, name := range []string{"enumerator", "worker", "aggregator"} {
		functions[name] = s.function(name)
	}
	ctx, cancel := context.WithCancel(s.Context())
	var sources sync.WaitGroup
	for _, source := range []*lambdasource.Source{
		{Queue: s.work, Handler: functions["worker"].HandleSQS, MaxConcurrency: workersAtOnce, BatchSize: workBatch, BatchWindow: time.Second},
		{Queue: s.results, Handler: functions["aggregator"].HandleSQS, BatchSize: 100, BatchWindow: time.Second},
	} {
		source.Client, source.Timeout, source.Log = s.queues, s.timeout, slog.New(slog.DiscardHandler)
		sources.Go(func() {
			if err := source.Run(ctx); err != nil {
				s.Error(err)
			}
		})
	}
	return functions, func() {
		cancel()
		sources.Wait()
	}
}

// enumerateAll invokes the enumerator with the event, then to resume, until it is done. It returns the run's id.
func (s *stack) enumerateAll(f *runtimeapi.Function, event string) string {
	s.Helper()
	for {
		var answer struct {
			RunID string
			Done  bool
		}
		if err := json.Unmarshal([]byte(s.invoke(f, event)), &answer); err != nil {
			s.Fatal(err)
		}
		if answer.Done {
			return answer.RunID
		}
		event = `{"resume":true}`
	}
}

func (s *stack) awaitDecided(ctx context.Context, runID string) {
	s.Helper()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for pending := 1; pending > 0; <-poll.C {
		err := s.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM (SELECT 1 FROM reconciliation_items WHERE run_key = (SELECT run_key FROM reconciliation_runs WHERE id = ?) AND outcome = 'pending' LIMIT 1) p`, runID).Scan(&pending)
		if err != nil {
			s.Fatal(err)
		}
	}
}

func (s *stack) outcome(runID string) (drifted int, requests billing.Usage) {
	s.Helper()
	drifted = mysqltest.Value[int](s.TB, s.db, `SELECT COUNT(*) FROM reconciliation_items WHERE run_key = (SELECT run_key FROM reconciliation_runs WHERE id = ?) AND outcome = 'synced'`, runID)
	if errors := mysqltest.Value[int](s.TB, s.db, `SELECT COUNT(*) FROM reconciliation_items WHERE run_key = (SELECT run_key FROM reconciliation_runs WHERE id = ?) AND outcome = 'error'`, runID); errors > 0 {
		s.Errorf("%d organizations are in error", errors)
	}
	err := s.db.QueryRowContext(s.Context(), `SELECT stripe_list, stripe_retrieve, stripe_other, stripe_throttled FROM reconciliation_runs WHERE id = ?`, runID).
		Scan(&requests.List, &requests.Retrieve, &requests.Other, &requests.Throttled)
	if err != nil {
		s.Fatal(err)
	}
	return drifted, requests
}

// usage returns the usage of the running processes, as Linux counts it.
// https://man7.org/linux/man-pages/man5/proc.5.html
func usage(b *testing.B, functions map[string]*runtimeapi.Function) (cpu map[string]time.Duration, peakMiB map[string]float64) {
	b.Helper()
	cpu, peakMiB = map[string]time.Duration{}, map[string]float64{}
	for name, f := range functions {
		for _, p := range f.Processes() {
			folder := fmt.Sprintf("/proc/%d/", p.PID())
			cpu[name] += processorTime(b, folder+"stat")
			peakMiB[name] = max(peakMiB[name], peak(b, folder+"status"))
		}
	}
	return cpu, peakMiB
}

func processorTime(b *testing.B, file string) time.Duration {
	b.Helper()
	const perSecond = 100 // USER_HZ, the same on every Linux
	_, rest, _ := strings.Cut(read(b, file), ") ")
	fields := strings.Fields(rest) // from the third field on
	ticks := 0
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / perSecond
}

func peak(b *testing.B, file string) float64 {
	b.Helper()
	_, rest, _ := strings.Cut(read(b, file), "VmHWM:")
	kiB, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kiB / 1024
}

func read(b *testing.B, file string) string {
	b.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		b.Skipf("this system does not report the usage of processes: %v", err)
	}
	return string(text)
}
