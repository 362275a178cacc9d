package stripesource_test

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// BenchmarkSharingStripesLimit runs four workers that read two endpoints as fast as their limiters allow, from a
// Stripe that allows 25 requests a second for each endpoint and 100 in all, while other clients use a third
// of both. It reports the share of refused requests, and how much of the rest of the limit
// the workers used. BENCH_SECONDS is the duration (3).
// https://docs.stripe.com/rate-limits
func BenchmarkSharingStripesLimit(b *testing.B) {
	const limit, rps, workers, streams = 25.0, 20.0, 4, 2
	d := benchSeconds(b)
	for b.Loop() {
		fake := serve(b, stripetest.Options{Latency: 120 * time.Millisecond, EndpointRate: limit, GlobalRate: 4 * limit})
		putMany(fake, 10)
		ctx, stop := context.WithCancel(b.Context()) // without a deadline, which the limiter would consider
		time.AfterFunc(d, stop)
		var ours traffic
		var wait sync.WaitGroup
		for range workers {
			client := newClient(fake, func(c *stripesource.Config) { c.RPS = rps / workers })
			for range streams {
				wait.Go(func() {
					ours.keepAsking(ctx, b, func(ctx context.Context) error { _, _, err := client.Subscription(ctx, "sub_000"); return err })
				})
				wait.Go(func() {
					ours.keepAsking(ctx, b, func(ctx context.Context) error { _, err := client.SweepPage(ctx, billing.Range{}); return err })
				})
			}
		}
		var beside, elsewhere traffic
		for path, t := range map[string]*traffic{
			"/v1/subscriptions/sub_000": &beside, "/v1/subscriptions": &beside, "/v1/account": &elsewhere, "/v1/customers/cus_1": &elsewhere,
		} {
			wait.Go(func() { t.arrive(ctx, b, limit/3, fake, path) })
		}
		wait.Wait()
		answered, refused := float64(ours.answered.Load()), float64(ours.refused.Load())
		// Each of the two endpoints starts with the tokens of one second.
		left := 2*limit*(d.Seconds()+1) - float64(beside.answered.Load())
		b.ReportMetric(100*refused/(answered+refused), "%429")
		b.ReportMetric(100*answered/left, "%used")
		b.ReportMetric(answered/d.Seconds(), "answers/s")
		b.ReportMetric(float64(beside.refused.Load()+elsewhere.refused.Load()), "others-refused")
	}
}

func benchSeconds(b *testing.B) time.Duration {
	b.Helper()
	text := os.Getenv("BENCH_SECONDS")
	if text == "" {
		return 3 * time.Second
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		b.Fatalf("BENCH_SECONDS is %q, want a number of seconds", text)
	}
	return time.Duration(n) * time.Second
}

// traffic counts requests.
type traffic struct{ answered, refused atomic.Int64 }

// keepAsking sends a request after each response, until ctx ends.
func (t *traffic) keepAsking(ctx context.Context, b *testing.B, ask func(context.Context) error) {
	b.Helper()
	for {
		err := ask(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			t.answered.Add(1)
		case billing.AsFailure(err).Class == billing.Throttled:
			t.refused.Add(1)
		default:
			b.Error(err)
			return
		}
	}
}

// arrive sends requests at random times, at an average rate, without waiting for responses.
func (t *traffic) arrive(ctx context.Context, b *testing.B, perSecond float64, fake *stripetest.Server, path string) {
	b.Helper()
	var wait sync.WaitGroup
	defer wait.Wait()
	random := rand.New(rand.NewPCG(1, uint64(len(path))))
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(random.ExpFloat64() / perSecond * float64(time.Second))):
			wait.Go(func() { t.ask(ctx, b, fake, path) })
		}
	}
}

func (t *traffic) ask(ctx context.Context, b *testing.B, fake *stripetest.Server, path string) {
	b.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fake.URL()+path, http.NoBody)
	if err != nil {
		b.Error(err)
		return
	}
	request.SetBasicAuth(fake.Key(), "")
	response, err := http.DefaultClient.Do(request)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		b.Error(err)
		return
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(io.Discard, response.Body); err != nil && ctx.Err() == nil {
		b.Error(err)
	}
	switch response.StatusCode {
	case http.StatusOK:
		t.answered.Add(1)
	case http.StatusTooManyRequests:
		t.refused.Add(1)
	default:
		b.Errorf("%s: status %d", path, response.StatusCode)
	}
}
