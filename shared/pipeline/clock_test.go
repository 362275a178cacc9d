package pipeline_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

const (
	clockRounds     = 30 // rounds of TestClockJumpsLoseNothing
	clockDisturbed  = 12 // invocations of a round while clocks jump
	clockRightTicks = 8  // ticks, 15 minutes apart, within which the run must end after the clocks are right
)

// TestClockJumpsLoseNothing runs enumerators, workers and aggregators whose clocks jump independently, and kills them.
// After the clocks are right again, the schedules and the operator bring the run to the same end as a run without
// faults. CLOCK_SEED repeats a test.
func TestClockJumpsLoseNothing(t *testing.T) {
	seed := clockSeed(t)
	t.Logf("CLOCK_SEED=%d", seed)
	f := newFixture(t)
	// Only metadata names one organization. If the sweep is abandoned, the next run reconciles it.
	f.seed(slices.DeleteFunc(slices.Clone(situations), func(s situation) bool { return s.id == "of-another-by-metadata" }))
	f.spread(350) // subscriptions of no organization, so that the sweep has several pages
	f.copyTables()
	want := map[billing.Strategy]runEnd{}
	strategies := []billing.Strategy{billing.StrategySweep, billing.StrategyRetrieve} // the strategies of full runs
	for _, strategy := range strategies {
		want[strategy] = f.undisturbed(strategy)
	}
	counts := map[string]int{}
	for n := range uint64(clockRounds) {
		r := &clockRound{fixture: f, rand: rand.New(rand.NewPCG(seed, n)), counts: counts}
		strategy := strategies[n%uint64(len(strategies))]
		r.begin(strategy)
		for range clockDisturbed {
			r.disturb()
		}
		r.finishWithRightClocks()
		if diff := cmp.Diff(want[strategy], r.runEnd()); diff != "" {
			t.Errorf("(-without faults +with wrong clocks)\n%s", diff)
		}
		if t.Failed() {
			t.Fatalf("round %d, strategy %s", n, strategy)
		}
	}
	t.Log(counts)
	for _, event := range []string{"enumerator killed", "worker killed", "aggregator killed", "open when clocks are right"} {
		if counts[event] == 0 {
			t.Errorf("no round had the event %q", event)
		}
	}
}

func clockSeed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("CLOCK_SEED")
	if text == "" {
		return rand.Uint64()
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return seed
}

// copyTables copies the application's tables for restoreTables.
func (f *fixture) copyTables() {
	f.Helper()
	for _, table := range []string{"organizations", "subscriptions"} {
		f.Exec(`CREATE TABLE copied_` + table + ` AS SELECT * FROM ` + table)
	}
}

func (f *fixture) restoreTables() {
	f.Helper()
	f.Exec(`DELETE FROM organizations`) // and their subscriptions
	for _, table := range []string{"organizations", "subscriptions"} {
		f.Exec(`INSERT INTO ` + table + ` SELECT * FROM copied_` + table)
	}
}

// runEnd is the result of a run: its status, its items and the application's tables, without times.
type runEnd struct {
	Status     billing.RunStatus
	Totals     []int // of the stored summary: all, synchronized, errors, skipped, pending
	Downgrades int
	Items      map[string]decided
	Rows       cells
}

func (f *fixture) runEnd() runEnd {
	f.Helper()
	run, s := f.Run(scheduledID), f.stored()
	end := runEnd{
		Status: run.Status, Downgrades: run.Downgrades, Items: f.decided(scheduledID), Rows: f.Cells().WithoutTimestamps(),
		Totals: []int{s.TotalOrganizations, s.Synchronized, s.Errors, s.Skipped, s.Pending},
	}
	for org, item := range end.Items {
		if item.Reason == billing.ReasonSubscriptionMissing { // its ended_at is the time of the worker's clock
			item.Changes = strings.Join(fieldsOf(f.Item(scheduledID, org).Changes), " ")
			end.Items[org] = item
			end.Rows[[3]string{org, "subscriptions:row-" + org, billing.FieldEndedAt}] = "some time"
		}
	}
	if s.TotalOrganizations != s.Synchronized+s.Errors+s.Skipped+s.Pending || s.Downgrades != run.Downgrades || len(end.Items) != run.Total {
		f.Errorf("%d items, run %+v\nsummary %+v", len(end.Items), run, s)
	}
	return end
}

// undisturbed returns the end of a run without faults, and restores the tables.
func (f *fixture) undisturbed(strategy billing.Strategy) runEnd {
	f.Helper()
	f.enumerate(f.Enumerator(nil), pipeline.Request{ScheduledFor: start, Strategy: strategy})
	f.deliver(f.Reconciler(nil), scheduledID, f.SentWork(scheduledID)...)
	f.progress(scheduledID)
	end := f.runEnd()
	if end.Status != billing.RunCompletedWithErrors || end.Downgrades < 5 || len(end.Items) < len(situations)-2 {
		f.Fatalf("the run without faults ended with %+v", end)
	}
	f.resetRuns()
	f.restoreTables()
	return end
}

// jumpingClock is a clock that often jumps when it is read, forward or backward, by milliseconds up to a day.
type jumpingClock struct {
	right func() time.Time

	mu   sync.Mutex
	rand *rand.Rand
	off  time.Duration
}

func (j *jumpingClock) Now() time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.rand.IntN(3) > 0 {
		unit := []time.Duration{time.Millisecond, time.Second, time.Minute, time.Hour, time.Hour, time.Hour}[j.rand.IntN(6)]
		j.off = time.Duration(j.rand.IntN(2*26)-26) * unit
	}
	return j.right().Add(j.off)
}

// clockRound is one run under jumping clocks.
type clockRound struct {
	*fixture

	rand    *rand.Rand
	request pipeline.Request
	waiting []string       // organizations whose message is in the work queue
	counts  map[string]int // event -> how often it happened in all rounds
}

func (r *clockRound) begin(strategy billing.Strategy) {
	r.resetRuns()
	r.restoreTables()
	r.request = pipeline.Request{ScheduledFor: start, Strategy: strategy}
	r.enumerateDisturbed(r.request)
}

// disturbance returns a jumping clock for one process, and a killer. The killer kills three of four processes, each at
// a random call.
func (r *clockRound) disturbance() (*jumpingClock, *testworld.Killer) {
	at := 0 // never
	if r.rand.IntN(4) > 0 {
		at = 1 + r.rand.IntN(1+r.rand.IntN(180))
	}
	return &jumpingClock{right: r.Clock.Now, rand: rand.New(rand.NewPCG(r.rand.Uint64(), 0))}, &testworld.Killer{At: at, After: r.rand.IntN(2) == 0}
}

// disturb advances the right clock and invokes one function with a jumping clock.
func (r *clockRound) disturb() {
	r.Clock.Advance(time.Duration(r.rand.Int64N(int64(10 * time.Minute))))
	switch r.rand.IntN(9) {
	case 0:
		r.enumerateDisturbed(r.request) // a second delivery
	case 1, 2, 3:
		r.enumerateDisturbed(pipeline.Request{ResumeAll: true})
	case 4, 5:
		r.aggregateDisturbed()
	default:
		r.workDisturbed()
	}
}

func (r *clockRound) enumerateDisturbed(req pipeline.Request) {
	r.Helper()
	clock, k := r.disturbance()
	e := r.Enumerator(k.Hooks())
	e.Now, e.Streams = clock.Now, 2
	if _, err := e.Run(r.Context(), req); err != nil && !errors.Is(err, testworld.ErrKilled) {
		r.Errorf("enumerator: %v", err)
	}
	r.count(k.Dead(), "enumerator killed")
}

func (r *clockRound) aggregateDisturbed() {
	r.Helper()
	clock, k := r.disturbance()
	k.At = min(k.At, 1+r.rand.IntN(25)) // an aggregator makes few calls
	a := r.Aggregator(k.Hooks())
	a.Now = clock.Now
	_, err := a.Tick(r.Context())
	if r.rand.IntN(2) == 0 {
		err = errors.Join(err, a.Progress(r.Context(), scheduledID))
	}
	if err != nil && !errors.Is(err, testworld.ErrKilled) {
		r.Errorf("aggregator: %v", err)
	}
	r.count(k.Dead(), "aggregator killed")
	r.count(r.Status(scheduledID) == billing.RunIncomplete, "closed too early")
}

func (r *clockRound) workDisturbed() {
	r.Helper()
	clock, k := r.disturbance()
	w := r.Reconciler(&hooks{Killer: k, Before: func(_ context.Context, call string) error {
		r.count(call == "begin DecideInSync", "decided from the snapshot")
		return nil
	}})
	w.Now = clock.Now
	r.takeMessages()
	r.deliverFirst(w, k, r.rand.IntN(len(r.waiting)+1))
	r.count(k.Dead(), "worker killed")
}

// takeMessages adds the messages that were sent since its last call, and shuffles all that wait.
func (r *clockRound) takeMessages() {
	r.Helper()
	r.waiting = append(r.waiting, r.SentWork(scheduledID)...)
	r.rand.Shuffle(len(r.waiting), func(i, j int) { r.waiting[i], r.waiting[j] = r.waiting[j], r.waiting[i] })
}

// deliverFirst delivers the first n messages to the worker. The messages that it returned come again. If it was killed,
// all of them come again. Otherwise a quarter of the others come twice.
func (r *clockRound) deliverFirst(w *pipeline.Reconciler, k *testworld.Killer, n int) {
	r.Helper()
	batch := r.waiting[:n]
	r.waiting = r.waiting[n:]
	for org, result := range r.deliver(w, scheduledID, batch...) {
		if k.Dead() || result.Disposition == pipeline.Redeliver || r.rand.IntN(4) == 0 {
			r.waiting = append(r.waiting, org)
		}
	}
}

// finishWithRightClocks ticks with right clocks and fails if the run does not end within clockRightTicks.
func (r *clockRound) finishWithRightClocks() {
	r.Helper()
	run := r.Run(scheduledID)
	r.count(run.Sweep == billing.SweepAbandoned, "sweep abandoned")
	r.count(run.Status.Open(), "open when clocks are right")
	if run.ID == "" { // every enumerator died before it opened the run, so the schedule tries again
		r.enumerate(r.Enumerator(nil), r.request)
	}
	for n := range clockRightTicks {
		r.Clock.Advance(15 * time.Minute)
		// The runbook of an incomplete run says to resume it. The operator does so after one to three ticks.
		if r.Status(scheduledID) == billing.RunIncomplete && (n > 1 || r.rand.IntN(2) == 0) {
			r.enumerate(r.Enumerator(nil), pipeline.Request{ResumeRun: scheduledID})
			r.count(true, "resumed")
		}
		r.enumerate(r.Enumerator(nil), pipeline.Request{ResumeAll: true})
		r.takeMessages()
		r.deliverFirst(r.Reconciler(nil), &testworld.Killer{}, len(r.waiting))
		r.progress(scheduledID)
		r.tick()
	}
	if run := r.Run(scheduledID); run.FinishedAt == nil {
		r.Fatalf("after %d ticks the run has not ended: %+v", clockRightTicks, run)
	}
}

func (r *clockRound) count(happened bool, event string) {
	if happened {
		r.counts[event]++
	}
}

func TestLeaseOfEnumeratorADayAheadIsTakenOver(t *testing.T) {
	f := newFixture(t)
	f.customersOnly(numbered(5)...)
	ahead := f.Enumerator(testworld.DyingAt("SendWork"))
	ahead.Now = f.Ahead(24 * time.Hour)
	if _, err := ahead.Run(t.Context(), scheduled); !errors.Is(err, testworld.ErrKilled) || !f.Leased() {
		t.Fatalf("the enumerator with the wrong clock ended with %v", err)
	}
	f.Clock.Advance(time.Second)
	f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeAll: true})
	if got := f.Status(scheduledID); got != billing.RunRunning {
		t.Errorf("the run is %s", got)
	}
	if diff := cmp.Diff(numbered(5), f.SentWork(scheduledID)); diff != "" {
		t.Error(diff)
	}
}

// A second enumerator takes the lease of one that is still alive.
func TestEnumeratorADayAheadLosesItsLeaseWithoutHarm(t *testing.T) {
	f := newFixture(t)
	f.customersOnly(numbered(5)...)
	takeOver := once(func() { f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeAll: true}) })
	ahead := f.Enumerator(&hooks{After: func(_ context.Context, call string) error {
		if call == "commit ListOrganizations" {
			takeOver()
		}
		return nil
	}})
	ahead.Now = f.Ahead(24 * time.Hour)
	if got := f.enumerate(ahead, scheduled); got.Done || got.Enqueued != 0 {
		t.Errorf("the enumerator that is a day ahead returned %+v", got)
	}
	if run := f.Run(scheduledID); run.Status != billing.RunRunning || run.Total != 5 {
		t.Errorf("%+v", run)
	}
	if diff := cmp.Diff(numbered(5), f.SentWork(scheduledID)); diff != "" {
		t.Error(diff)
	}
}

func TestSnapshotFromTheFutureIsNotUsed(t *testing.T) {
	for behind, requests := range map[time.Duration]int{30 * time.Second: 0, time.Hour: 1, 24 * time.Hour: 1} {
		f := newFixture(t)
		f.Subscriber("org-1")
		f.swept()
		f.Stripe.ResetCounts()
		w := f.Reconciler(nil)
		w.Now = f.Ahead(-behind)
		f.wantResult(f.deliver(w, scheduledID, "org-1")["org-1"], pipeline.Acknowledge, "")
		if n := f.Stripe.Requests().RetrieveSubscription; n != requests {
			t.Errorf("the worker's clock is %v behind the sweep: it read %d subscriptions, want %d", behind, n, requests)
		}
	}
}

// Otherwise its snapshot would count as fresh for a day too long.
func TestSweepBegunByEnumeratorADayAheadIsAbandoned(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	ahead := f.Enumerator(testworld.DyingAt("begin SaveSweepPage"))
	ahead.Now = f.Ahead(24 * time.Hour)
	if _, err := ahead.Run(t.Context(), scheduled); !errors.Is(err, testworld.ErrKilled) {
		t.Fatalf("the enumerator with the wrong clock ended with %v", err)
	}
	f.Clock.Advance(time.Second)
	f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeAll: true})
	if run := f.Run(scheduledID); run.Sweep != billing.SweepAbandoned || run.Status != billing.RunRunning {
		t.Errorf("the sweep is %q, the run is %s", run.Sweep, run.Status)
	}
}

func TestRunClosedTooEarlyCompletesWithItsLastItem(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.Subscriber("org-2")
	f.swept()
	f.deliver(f.Reconciler(nil), scheduledID, "org-1")
	f.closeAhead()
	f.deliver(f.Reconciler(nil), scheduledID, "org-2")
	f.progress(scheduledID)
	if s := f.stored(); s.Status != billing.RunCompleted || s.Skipped != 2 || f.Status(scheduledID) != billing.RunCompleted {
		t.Errorf("the run is %s, its summary %+v", f.Status(scheduledID), s)
	}
}

func TestRunClosedTooEarlyWhileSendingContinuesWhenResumed(t *testing.T) {
	for _, call := range []string{"SweepPage", "begin SaveSweepPage", "begin ListOrganizations", "SendWork", "MarkSent"} {
		t.Run(call, func(t *testing.T) {
			f := newFixture(t)
			for _, id := range numbered(5) {
				f.Subscriber(id)
			}
			closeTooEarly := once(f.closeAhead)
			e := f.Enumerator(&hooks{Before: func(_ context.Context, name string) error {
				if name == call {
					closeTooEarly()
				}
				return nil
			}})
			if got := f.enumerate(e, scheduled); got.Done {
				t.Errorf("%+v", got)
			}
			if got := f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeRun: scheduledID}); !got.Done || got.Enqueued != 5 {
				t.Errorf("the resumed enumeration returned %+v", got)
			}
			f.deliver(f.Reconciler(nil), scheduledID, f.SentWork(scheduledID)...)
			f.progress(scheduledID)
			if s := f.stored(); s.Status != billing.RunCompleted || s.Skipped != 5 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// closeAhead ticks an aggregator that is a day ahead. Its tick closes the scheduled run as incomplete.
func (f *fixture) closeAhead() {
	f.Helper()
	a := f.Aggregator(nil)
	a.Now = f.Ahead(24 * time.Hour)
	if _, err := a.Tick(f.Context()); err != nil {
		f.Error(err)
	}
	if got := f.Status(scheduledID); got != billing.RunIncomplete {
		f.Errorf("the run is %s", got)
	}
}

func TestClockYearsAheadPrunesNoHistory(t *testing.T) {
	f := newFixture(t)
	for _, id := range []string{"before", "last"} {
		f.OpenRun(id, numbered(1))
		f.decide(id, billing.OutcomeSkipped, numbered(1)...)
		f.progress(id)
		f.Clock.Advance(7 * 24 * time.Hour)
	}
	f.OpenRun("open", numbered(1))
	a := f.Aggregator(nil)
	a.Now = f.Ahead(3 * 365 * 24 * time.Hour)
	if got, err := a.Tick(t.Context()); err != nil || got.Pruned != 0 || f.CountRuns() != 3 {
		t.Errorf("the tick returned %+v, %v; %d runs are left, want 3", got, err, f.CountRuns())
	}
	if n := f.Count(`SELECT COUNT(*) FROM reconciliation_items`); n != 3 {
		t.Errorf("%d items are left, want 3", n)
	}
}
