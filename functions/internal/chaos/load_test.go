package chaos_test

import (
	"context"
	"database/sql"
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
	// warmUpRuns are one run of each strategy. Growth is measured after them, over at least as many runs.
	warmUpRuns = 2
	// The growth that a process may have after that. At a GC percentage of 400 the heap grows to five times the live
	// heap, and the pools may still grow.
	moreMiB         = 40
	moreFiles       = 12
	moreThreads     = 10 // Go rarely ends a thread
	moreConnections = 12 // connections of all functions to the database
	// steadyMiB is the steady growth that a process may have in a long load: a leak of 3 MiB a minute exceeds it in ten
	// minutes.
	steadyMiB = 5
	// maxGoroutines is the limit for an idle process, without the goroutines of its connections: eight belong to the
	// runtime, one is main, two belong to the database pool, and the rest is reserve.
	maxGoroutines = 11 + 2
)

// use is a process's resource usage.
type use struct {
	memory         int // MiB
	files, threads int
}

func (u use) grewFrom(early use) bool {
	return u.memory > early.memory+moreMiB || u.files > early.files+moreFiles || u.threads > early.threads+moreThreads
}

// growsSteadily reports whether the minimum of the last third exceeds the maximum of the first. It needs a dozen runs.
func growsSteadily(memory []int) bool {
	third := len(memory) / 3
	return third >= 4 && slices.Min(memory[len(memory)-third:]) > slices.Max(memory[:third])+steadyMiB
}

// TestLoadLeavesNothingBehind runs eight workers with batches of a hundred organizations for CHAOS_LOAD, run after run,
// while Stripe changes. The memory, files, threads, connections and goroutines of the processes must not grow.
func TestLoadLeavesNothingBehind(t *testing.T) {
	r, duration := loaded(t)
	fullBatches, end := r.pumpAndChangeStripe(t)
	defer end()

	began, runs := time.Now(), 0
	for ; runs < warmUpRuns; runs++ {
		r.loadRun(t, runs)
	}
	early, connections := r.used(t), r.connections(t)
	var previous, late map[string]use
	memory := map[string][]int{} // process -> MiB after each run
	for ; runs < 2*warmUpRuns || time.Since(began) < duration; runs++ {
		r.loadRun(t, runs)
		previous, late = late, r.used(t)
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
		if _, isAlive := late[p]; !isAlive {
			t.Errorf("%s has died", p)
		}
		// The last two runs must show the growth, because the memory of one large answer is not growth.
		if previous[p].grewFrom(early[p]) && late[p].grewFrom(early[p]) {
			t.Errorf("%s grew from %+v to %+v", p, early[p], late[p])
		}
		if growsSteadily(memory[p]) {
			t.Errorf("the memory of %s grows steadily, in MiB after each run: %v", p, memory[p])
		}
	}
	if n := r.connections(t); n > connections+moreConnections {
		t.Errorf("connections to the database grew from %d to %d", connections, n)
	}
	r.wantAllRunsDone(t)
	for name, f := range r.functions() {
		for _, p := range f.Processes() {
			if n := r.goroutines(t, p); n < 3 || n > maxGoroutines {
				t.Errorf("an idle %s has %d goroutines besides those of its connections, want at most %d", name, n, maxGoroutines)
			}
		}
	}
}

// loaded returns a round without faults, and the duration of the load.
func loaded(t *testing.T) (*round, time.Duration) {
	t.Helper()
	s := prepared(t)
	duration := 6 * time.Second
	if text := os.Getenv("CHAOS_LOAD"); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	seed := number(t, "CHAOS_SEED", randomSeed())
	with := drawSettings(rand.New(rand.NewPCG(seed, 0)))
	with.Orgs, with.Workers, with.RPS, with.MaxReceive, with.Downgrades = 1600, 1, 100, 12, "100%" // WORKER_CONCURRENCY=1: each worker may use the whole rate
	r := newRound(t, s, seed, with)
	r.faultsOver.Store(true)
	if err := r.restoreLimits(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r, duration
}

// pumpAndChangeStripe feeds the workers and the aggregator and changes Stripe until end is called. It counts the full
// batches.
func (r *round) pumpAndChangeStripe(t *testing.T) (fullBatches *atomic.Int32, end func()) {
	t.Helper()
	fullBatches = &atomic.Int32{}
	work := func(ctx context.Context, batch events.SQSEvent) (events.SQSEventResponse, error) {
		if len(batch.Records) == loadBatch {
			fullBatches.Add(1)
		}
		return r.handleWork(ctx, batch)
	}
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	problems := make(chan error, 2)
	for _, source := range []*lambdasource.Source{
		{Queue: r.urls.work, Handler: work, MaxConcurrency: loadWorkers, BatchSize: loadBatch, BatchWindow: time.Second},
		{Queue: r.urls.results, Handler: r.handleProgress},
	} {
		source.Client, source.Timeout, source.Log = r.queues, relaxedTimeout, discard()
		all.Go(func() { problems <- source.Run(ctx) })
	}
	all.Go(func() { r.app.live(ctx) })
	return fullBatches, func() {
		stop()
		all.Wait()
		if err := errors.Join(<-problems, <-problems); err != nil {
			t.Error(err)
		}
	}
}

// loadRun plays a run until it is closed and its work is done. It sends the tick while the aggregator is idle, so that
// one process is enough.
func (r *round) loadRun(t *testing.T, number int) {
	t.Helper()
	strategies := billing.Strategies()
	if !r.enumerate(t.Context(), `{"strategy":"`+string(strategies[number%len(strategies)])+`"}`) {
		t.Fatalf("run %d does not start:\n%.5000s", number, r.printed.String())
	}
	if err := r.awaitQuiet(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !r.invoke(t.Context(), r.deployment().aggregator, `{"tick":true}`) {
		t.Fatalf("the tick after run %d fails:\n%.5000s", number, r.printed.String())
	}
}

// wantAllRunsDone checks that every run is closed, its snapshot deleted and every organization decided.
func (r *round) wantAllRunsDone(t *testing.T) {
	t.Helper()
	for problem, query := range map[string]string{
		"runs are open":                        `SELECT COUNT(*) FROM reconciliation_runs WHERE status NOT IN ('completed','completed_with_errors')`,
		"subscriptions are still in snapshots": `SELECT COUNT(*) FROM reconciliation_snapshots`,
	} {
		if n := r.countRows(t, query); n > 0 {
			t.Errorf("%d %s", n, problem)
		}
	}
	for _, item := range r.undecided(t) {
		t.Error(item)
	}
}

// undecided returns the organizations that are pending or in error, each with its reason. It leaves out those with the
// error not_repeated, because the application's late webhooks undo some repairs.
func (r *round) undecided(t *testing.T) (items []string) {
	t.Helper()
	err := each(t.Context(), r.db, func(rows *sql.Rows) error {
		var run, org, outcome, reason, detail string
		err := rows.Scan(&run, &org, &outcome, &reason, &detail)
		items = append(items, strings.Join([]string{run, org, outcome, reason, detail}, " "))
		return err
	}, `SELECT r.id, i.org_id, i.outcome, i.reason, COALESCE(i.error, '')
		FROM reconciliation_items i JOIN reconciliation_runs r ON r.run_key = i.run_key
		WHERE i.outcome IN ('pending','error') AND i.org_id NOT LIKE '0dd00000%' AND i.reason <> 'not_repeated'`)
	if err != nil {
		t.Fatal(err)
	}
	return items
}

func (r *round) functions() map[string]*runtimeapi.Function {
	return map[string]*runtimeapi.Function{"enumerator": r.deployment().enumerator, "worker": r.deployment().workers[0], "aggregator": r.deployment().aggregator}
}

func (r *round) countRows(t *testing.T, query string) (n int) {
	t.Helper()
	if err := r.db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// connections counts all functions' connections to the database.
func (r *round) connections(t *testing.T) int {
	t.Helper()
	return r.countRows(t, `SELECT COUNT(*) FROM information_schema.processlist WHERE user = '`+systemAccount+`'`)
}

// used returns the usage of each process, by function and process id.
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

// usedBy reads a process's usage from /proc. https://man7.org/linux/man-pages/man5/proc.5.html
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

// goroutines ends the process with SIGQUIT, at which Go prints all goroutines, and counts those that do not wait on a
// connection.
func (r *round) goroutines(t *testing.T, p *runtimeapi.Process) int {
	t.Helper()
	before := len(r.printed.String())
	if err := syscall.Kill(p.PID(), syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(phaseTimeout); p.Alive(); {
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
		t.Error("growsSteadily must detect a leak of 3 MiB a minute, ignore garbage, and not decide after eight runs")
	}
}
