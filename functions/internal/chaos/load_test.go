package chaos_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/lambdasource"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/runtimeapi"
)

const (
	loadWorkers = 8
	loadBatch   = 100
	// Beyond what they use after the first third, processes may take up so much more.
	moreMemory  = 1.3
	moreMiB     = 8
	moreFiles   = 8
	moreThreads = 8
	// maxGoroutines of a worker that has nothing to do: the runtime's, the driver's and HTTP's
	// connections, two for each.
	maxGoroutines = 120
)

// use is the most that one of the workers has.
type use struct {
	memory         float64 // MiB
	files, threads int
	connections    int // of all functions to the database
}

// TestLoadLeavesNothingBehind: for CHAOS_LOAD, eight workers with batches of a hundred organizations
// reconcile run after run while Stripe changes; memory, files, connections and goroutines stay.
func TestLoadLeavesNothingBehind(t *testing.T) {
	s := prepared(t)
	lasts := 6 * time.Second
	if text := os.Getenv("CHAOS_LOAD"); text != "" {
		var err error
		if lasts, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	seed := number(t, "CHAOS_SEED", anySeed())
	with := drawSettings(rand.New(rand.NewPCG(seed, 0)))
	with.Orgs, with.Workers, with.RPS, with.MaxReceive, with.Downgrades = 800, 1, 100, 12, "100%" // each worker thinks that it is the only one
	r := newRound(t, s, seed, with)
	r.calm.Store(true)
	if err := r.relax(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	source := &lambdasource.Source{
		Queue: r.urls.work, Client: r.queues, Handler: r.work, MaxConcurrency: loadWorkers, BatchSize: loadBatch,
		BatchWindow: time.Second, Timeout: calmTimeout, Log: discard(),
	}
	ended := make(chan error, 2)
	go func() { ended <- source.Run(ctx) }()
	go func() {
		r.app.live(ctx)
		ended <- nil
	}()
	defer func() {
		stop()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}()

	began, runs := time.Now(), 0
	var early, late use
	for time.Since(began) < lasts {
		strategy := billing.Strategies()[runs%2]
		runs++
		if !r.invoke(ctx, r.cast().enumerator, `{"strategy":"`+string(strategy)+`"}`) {
			t.Fatalf("run %d does not start:\n%.5000s", runs, r.printed.String())
		}
		if err := r.awaitDecided(ctx); err != nil {
			t.Fatal(err)
		}
		late = r.used(t)
		if time.Since(began) < lasts/3 {
			early = late
		}
	}
	if early == (use{}) {
		early = late // there was one run only
	}
	t.Logf("%d runs of %d organizations in %v by %d processes: %+v after a third, %+v at the end", runs, with.Orgs, time.Since(began).Round(time.Second), len(r.cast().workers[0].Processes()), early, late)
	if late.memory > early.memory*moreMemory+moreMiB || late.files > early.files+moreFiles || late.connections > early.connections+moreFiles || late.threads > early.threads+moreThreads {
		t.Errorf("workers grew from %+v to %+v", early, late)
	}
	if n := r.count1(t, `SELECT COUNT(*) FROM reconciliation_items WHERE outcome IN ('pending','error') AND org_id NOT LIKE '0dd00000%'`); n > 0 {
		t.Errorf("%d organizations are pending or in error", n)
	}
	for _, p := range r.cast().workers[0].Processes() {
		if n := r.goroutines(t, p); n < 3 || n > maxGoroutines {
			t.Errorf("an idle worker has %d goroutines, at most %d are its share", n, maxGoroutines)
		}
	}
}

// awaitDecided waits until nothing is pending.
func (r *round) awaitDecided(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		var pending int
		err := r.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM reconciliation_items WHERE outcome = 'pending'`).Scan(&pending)
		if err != nil || pending == 0 {
			return err
		}
		if !pause(ctx, 50*time.Millisecond) {
			return ctx.Err()
		}
	}
}

func (r *round) count1(t *testing.T, query string) (n int) {
	t.Helper()
	if err := r.db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// used reads it from /proc: https://man7.org/linux/man-pages/man5/proc.5.html
func (r *round) used(t *testing.T) use {
	t.Helper()
	u := use{connections: r.count1(t, `SELECT COUNT(*) FROM information_schema.processlist WHERE user = '`+systemAccount+`'`)}
	for _, p := range r.cast().workers[0].Processes() {
		folder := processFolder(p)
		status, err := os.ReadFile(filepath.Join(folder, "status"))
		if err != nil {
			t.Fatal(err)
		}
		files, err := os.ReadDir(filepath.Join(folder, "fd"))
		if err != nil {
			t.Fatal(err)
		}
		u.memory = max(u.memory, float64(statusNumber(t, string(status), "VmRSS:"))/1024)
		u.threads = max(u.threads, statusNumber(t, string(status), "Threads:"))
		u.files = max(u.files, len(files))
	}
	return u
}

func statusNumber(t *testing.T, status, name string) int {
	t.Helper()
	_, rest, _ := strings.Cut(status, name)
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// goroutines ends the process with a signal at which Go prints what they all do, and counts them.
func (r *round) goroutines(t *testing.T, p *runtimeapi.Process) int {
	t.Helper()
	printed := len(r.printed.String())
	if err := syscall.Kill(p.PID(), syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); p.Alive(); {
		if time.Now().After(deadline) {
			t.Fatal("a worker does not end")
		}
		pause(t.Context(), time.Millisecond)
	}
	return strings.Count(r.printed.String()[printed:], "\ngoroutine ")
}
