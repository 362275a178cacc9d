package chaos_test

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/lambdasource"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/runtimeapi"
)

const (
	loadWorkers = 8
	loadBatch   = 100
	// warmRuns are one of each strategy. After them every process has done all that it does; only
	// what comes later is growth. As many runs follow at least, however long they take.
	warmRuns = 2
	// Beyond what it uses then, a process may take up so much more: at the 400% of wire its heap grows
	// to five times what lives in it before garbage is collected, and the pools have room left.
	moreMiB         = 40
	moreFiles       = 12
	moreThreads     = 10 // Go hardly ever gives one back
	moreConnections = 12 // of all functions to the database
	// steadyMiB is how much a process may go on growing in a long load: a leak of 3 MiB a minute is
	// more in ten.
	steadyMiB = 5
	// maxGoroutines of an idle process, besides those that wait on its connections: eight are the
	// runtime's, one is main and two are the database pool's; the rest is in case.
	maxGoroutines = 11 + 2
)

// use is what a process has.
type use struct {
	memory         int // MiB
	files, threads int
}

func (u use) grewFrom(early use) bool {
	return u.memory > early.memory+moreMiB || u.files > early.files+moreFiles || u.threads > early.threads+moreThreads
}

// growsSteadily: even the least of the last third is more than the most of the first. It takes a
// dozen runs to tell.
func growsSteadily(memory []int) bool {
	third := len(memory) / 3
	return third >= 4 && slices.Min(memory[len(memory)-third:]) > slices.Max(memory[:third])+steadyMiB
}

// TestLoadLeavesNothingBehind: for CHAOS_LOAD, eight workers with batches of a hundred organizations
// reconcile run after run while Stripe changes, and the aggregator closes each. The same processes
// live on, and their memory, files, threads, connections and goroutines stay.
func TestLoadLeavesNothingBehind(t *testing.T) {
	r, lasts := loaded(t)
	fullBatches, end := r.pumpFull(t)
	defer end()

	began, runs := time.Now(), 0
	for ; runs < warmRuns; runs++ {
		r.loadRun(t, runs)
	}
	early, connections := r.used(t), r.connections(t)
	var before, late map[string]use
	memory := map[string][]int{} // of each process, after each run
	for ; runs < 2*warmRuns || time.Since(began) < lasts; runs++ {
		r.loadRun(t, runs)
		before, late = late, r.used(t)
		for p, u := range late {
			memory[p] = append(memory[p], u.memory)
		}
	}
	t.Logf("%d runs of %d organizations in %v, %d full batches, %d connections to the database early and %d late",
		runs, r.Orgs, time.Since(began).Round(time.Second), fullBatches.Load(), connections, r.connections(t))

	if fullBatches.Load() == 0 {
		t.Errorf("no batch had %d organizations", loadBatch)
	}
	if len(early) != loadWorkers+2 || len(late) != len(early) {
		t.Errorf("%d processes early and %d late, want %d workers, an enumerator and an aggregator", len(early), len(late), loadWorkers)
	}
	for _, p := range slices.Sorted(maps.Keys(early)) {
		t.Logf("%s: %+v early, %+v late, %d MiB at most", p, early[p], late[p], slices.Max(memory[p]))
		if _, lives := late[p]; !lives {
			t.Errorf("%s has died", p)
		}
		// In both: memory that a large answer took for a moment is no growth.
		if before[p].grewFrom(early[p]) && late[p].grewFrom(early[p]) {
			t.Errorf("%s grew from %+v to %+v", p, early[p], late[p])
		}
		if growsSteadily(memory[p]) {
			t.Errorf("%s goes on growing, in MiB after each run: %v", p, memory[p])
		}
	}
	if n := r.connections(t); n > connections+moreConnections {
		t.Errorf("connections to the database grew from %d to %d", connections, n)
	}
	r.nothingIsLeft(t)
	for name, f := range r.functions() {
		for _, p := range f.Processes() {
			if n := r.goroutines(t, p); n < 3 || n > maxGoroutines {
				t.Errorf("an idle %s has %d goroutines besides those of its connections, want at most %d", name, n, maxGoroutines)
			}
		}
	}
}

// loaded is a round without faults, and how long it lasts.
func loaded(t *testing.T) (*round, time.Duration) {
	t.Helper()
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
	with.Orgs, with.Workers, with.RPS, with.MaxReceive, with.Downgrades = 1600, 1, 100, 12, "100%" // each worker thinks that it is the only one
	r := newRound(t, s, seed, with)
	r.calm.Store(true)
	if err := r.relax(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r, lasts
}

// pumpFull feeds workers and aggregator, and changes Stripe, until it is told to end; it counts the
// batches that were full.
func (r *round) pumpFull(t *testing.T) (full *atomic.Int32, end func()) {
	t.Helper()
	full = &atomic.Int32{}
	work := func(ctx context.Context, batch events.SQSEvent) (events.SQSEventResponse, error) {
		if len(batch.Records) == loadBatch {
			full.Add(1)
		}
		return r.work(ctx, batch)
	}
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	problems := make(chan error, 2)
	for _, source := range []*lambdasource.Source{
		{Queue: r.urls.work, Handler: work, MaxConcurrency: loadWorkers, BatchSize: loadBatch, BatchWindow: time.Second},
		{Queue: r.urls.results, Handler: r.aggregate},
	} {
		source.Client, source.Timeout, source.Log = r.queues, calmTimeout, discard()
		all.Go(func() { problems <- source.Run(ctx) })
	}
	all.Go(func() { r.app.live(ctx) })
	return full, func() {
		stop()
		all.Wait()
		if err := errors.Join(<-problems, <-problems); err != nil {
			t.Error(err)
		}
	}
}

// loadRun plays a run until it is closed and nothing of it is left to do. The tick comes when the
// aggregator has nothing else to do, so that one process is enough for both.
func (r *round) loadRun(t *testing.T, number int) {
	t.Helper()
	strategies := billing.Strategies()
	if !r.invoke(t.Context(), r.cast().enumerator, `{"strategy":"`+string(strategies[number%len(strategies)])+`"}`) {
		t.Fatalf("run %d does not start:\n%.5000s", number, r.printed.String())
	}
	if err := r.awaitQuiet(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !r.invoke(t.Context(), r.cast().aggregator, `{"tick":true}`) {
		t.Fatalf("the tick after run %d fails:\n%.5000s", number, r.printed.String())
	}
}

// nothingIsLeft: every run is closed, its snapshot removed and its organizations decided.
func (r *round) nothingIsLeft(t *testing.T) {
	t.Helper()
	for what, query := range map[string]string{
		"runs are open":                        `SELECT COUNT(*) FROM reconciliation_runs WHERE status NOT IN ('completed','completed_with_errors')`,
		"subscriptions are still in snapshots": `SELECT COUNT(*) FROM reconciliation_snapshots`,
		"organizations are pending or in error": `SELECT COUNT(*) FROM reconciliation_items
			WHERE outcome IN ('pending','error') AND org_id NOT LIKE '0dd00000%'`,
	} {
		if n := r.count1(t, query); n > 0 {
			t.Errorf("%d %s", n, what)
		}
	}
}

func (r *round) functions() map[string]*runtimeapi.Function {
	return map[string]*runtimeapi.Function{"enumerator": r.cast().enumerator, "worker": r.cast().workers[0], "aggregator": r.cast().aggregator}
}

func (r *round) count1(t *testing.T, query string) (n int) {
	t.Helper()
	if err := r.db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// connections to the database, of all functions.
func (r *round) connections(t *testing.T) int {
	t.Helper()
	return r.count1(t, `SELECT COUNT(*) FROM information_schema.processlist WHERE user = '`+systemAccount+`'`)
}

// used is what each process has, by its function's name and its id.
func (r *round) used(t *testing.T) map[string]use {
	t.Helper()
	all := map[string]use{}
	for name, f := range r.functions() {
		for _, p := range f.Processes() {
			all[name+" "+strconv.Itoa(p.PID())] = usedBy(t, p)
		}
	}
	return all
}

// usedBy reads it from /proc: https://man7.org/linux/man-pages/man5/proc.5.html
func usedBy(t *testing.T, p *runtimeapi.Process) use {
	t.Helper()
	status, err := os.ReadFile(filepath.Join(processFolder(p), "status"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(filepath.Join(processFolder(p), "fd"))
	if err != nil {
		t.Fatal(err)
	}
	return use{statusNumber(t, string(status), "VmRSS:") / 1024, len(files), statusNumber(t, string(status), "Threads:")}
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

// goroutines ends the process with a signal at which Go prints what they all do, and counts those
// that do not wait on a connection: their number goes with the connections'.
func (r *round) goroutines(t *testing.T, p *runtimeapi.Process) int {
	t.Helper()
	before := len(r.printed.String())
	if err := syscall.Kill(p.PID(), syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); p.Alive(); {
		if time.Now().After(deadline) {
			t.Fatalf("process %d does not end", p.PID())
		}
		pause(t.Context(), time.Millisecond)
	}
	printed := r.printed.String()[before:]
	n := strings.Count(printed, "\ngoroutine ")
	for _, connection := range []string{"net/http.(*Transport).dialConn", "github.com/go-sql-driver/mysql.(*mysqlConn).startWatcher"} {
		n -= strings.Count(printed, "\ncreated by "+connection+" ")
	}
	return n
}

func TestLeakDetectionIgnoresGarbage(t *testing.T) {
	leak, garbage := make([]int, 200), make([]int, 200) // runs of 3 s
	for i := range leak {
		leak[i], garbage[i] = 30+i*3/20+3*(i%2), 30+20*(i%2)
	}
	if !growsSteadily(leak) || growsSteadily(garbage) || growsSteadily(leak[:8]) {
		t.Error("3 MiB a minute are a leak, what comes and goes is not, and eight runs do not tell")
	}
}
