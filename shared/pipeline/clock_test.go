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
	clockRounds  = 30 // of the property
	clockTrouble = 12 // steps of a round while clocks jump
	clockTicks   = 8  // of a quarter of an hour, within which a run is at its end once clocks are right
)

// TestClockJumpsLoseNothing: the steps' clocks jump, each by itself, and the steps die. Once
// the clocks are right, the schedules and the operator bring the run to the end that it has without
// all that. CLOCK_SEED repeats a test.
func TestClockJumpsLoseNothing(t *testing.T) {
	seed := clockSeed(t)
	t.Logf("CLOCK_SEED=%d", seed)
	f := newFixture(t)
	// Only metadata names one organization. If the sweep is abandoned, the next run reconciles it.
	f.seed(slices.DeleteFunc(slices.Clone(situations), func(s situation) bool { return s.id == "of-another-by-metadata" }))
	f.spread(350) // of nobody: the sweep takes some pages
	f.keepTables()
	want := map[billing.Strategy]clockEnd{}
	strategies := []billing.Strategy{billing.StrategySweep, billing.StrategyRetrieve} // of runs over all organizations
	for _, strategy := range strategies {
		want[strategy] = f.undisturbed(strategy)
	}
	ends := map[string]int{}
	for n := range uint64(clockRounds) {
		r := &clockRound{fixture: f, rand: rand.New(rand.NewPCG(seed, n)), ends: ends}
		strategy := strategies[n%uint64(len(strategies))]
		r.begin(strategy)
		for range clockTrouble {
			r.trouble()
		}
		r.setRight()
		if diff := cmp.Diff(want[strategy], r.clockEnd()); diff != "" {
			t.Errorf("-undisturbed +with wrong clocks:\n%s", diff)
		}
		if t.Failed() {
			t.Fatalf("in round %d, %s", n, strategy)
		}
	}
	t.Log(ends)
	for _, what := range []string{"enumerator killed", "worker killed", "aggregator killed", "open when clocks are right"} {
		if ends[what] == 0 {
			t.Errorf("never: %s", what)
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

// keepTables keeps a copy of the application's tables for restoreTables.
func (f *fixture) keepTables() {
	f.Helper()
	for _, table := range []string{"organizations", "subscriptions"} {
		f.Exec(`CREATE TABLE kept_` + table + ` AS SELECT * FROM ` + table)
	}
}

func (f *fixture) restoreTables() {
	f.Helper()
	f.Exec(`DELETE FROM organizations`) // and their subscriptions
	for _, table := range []string{"organizations", "subscriptions"} {
		f.Exec(`INSERT INTO ` + table + ` SELECT * FROM kept_` + table)
	}
}

// clockEnd is what a run leaves, but for what tells the time.
type clockEnd struct {
	Status     billing.RunStatus
	Totals     []int // of the stored summary: all, synchronized, errors, skipped, pending
	Downgrades int
	Items      map[string]decided
	Rows       cells
}

func (f *fixture) clockEnd() clockEnd {
	f.Helper()
	run, s := f.Run(scheduledID), f.stored()
	end := clockEnd{
		Status: run.Status, Downgrades: run.Downgrades, Items: f.decided(scheduledID), Rows: f.Cells().WithoutTimestamps(),
		Totals: []int{s.TotalOrganizations, s.Synchronized, s.Errors, s.Skipped, s.Pending},
	}
	for org, item := range end.Items {
		if item.Reason == billing.ReasonSubscriptionMissing { // it ended when that was found out
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

// undisturbed returns how a run ends that nothing happens to.
func (f *fixture) undisturbed(strategy billing.Strategy) clockEnd {
	f.Helper()
	f.enumerate(f.Enumerator(nil), pipeline.Request{ScheduledFor: start, Strategy: strategy})
	f.deliver(f.Reconciler(nil), scheduledID, f.SentWork(scheduledID)...)
	f.progress(scheduledID)
	end := f.clockEnd()
	if end.Status != billing.RunCompletedWithErrors || end.Downgrades < 5 || len(end.Items) < len(situations)-2 {
		f.Fatalf("a run without trouble: %+v", end)
	}
	f.resetRuns()
	f.restoreTables()
	return end
}

// jumpy is a clock that jumps when it is asked: by a millisecond, by a day, and by all between, to
// and fro.
type jumpy struct {
	right func() time.Time

	mu   sync.Mutex
	rand *rand.Rand
	off  time.Duration
}

func (j *jumpy) Now() time.Time {
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
	ends    map[string]int // how often something came to pass
}

func (r *clockRound) begin(strategy billing.Strategy) {
	r.resetRuns()
	r.restoreTables()
	r.request = pipeline.Request{ScheduledFor: start, Strategy: strategy}
	r.enumerateWrongly(r.request)
}

// wrong is the clock of one process, and what kills it, mostly.
func (r *clockRound) wrong() (*jumpy, *testworld.Killer) {
	at := 0 // never
	if r.rand.IntN(4) > 0 {
		at = 1 + r.rand.IntN(1+r.rand.IntN(180))
	}
	return &jumpy{right: r.Clock.Now, rand: rand.New(rand.NewPCG(r.rand.Uint64(), 0))}, &testworld.Killer{At: at, After: r.rand.IntN(2) == 0}
}

// trouble lets time pass and one process go wrong.
func (r *clockRound) trouble() {
	r.Clock.Advance(time.Duration(r.rand.Int64N(int64(10 * time.Minute))))
	switch r.rand.IntN(9) {
	case 0:
		r.enumerateWrongly(r.request) // a second delivery
	case 1, 2, 3:
		r.enumerateWrongly(pipeline.Request{ResumeAll: true})
	case 4, 5:
		r.aggregateWrongly()
	default:
		r.workWrongly()
	}
}

func (r *clockRound) enumerateWrongly(req pipeline.Request) {
	r.Helper()
	now, k := r.wrong()
	e := r.Enumerator(k.Hooks())
	e.Now, e.Streams = now.Now, 2
	if _, err := e.Run(r.Context(), req); err != nil && !errors.Is(err, testworld.ErrKilled) {
		r.Errorf("enumerator: %v", err)
	}
	r.count(k.Dead(), "enumerator killed")
}

func (r *clockRound) aggregateWrongly() {
	r.Helper()
	now, k := r.wrong()
	k.At = min(k.At, 1+r.rand.IntN(25)) // its calls are few
	a := r.Aggregator(k.Hooks())
	a.Now = now.Now
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

func (r *clockRound) workWrongly() {
	r.Helper()
	now, k := r.wrong()
	w := r.Reconciler(&hooks{Killer: k, Before: func(_ context.Context, call string) error {
		r.count(call == "begin DecideInSync", "decided by the snapshot")
		return nil
	}})
	w.Now = now.Now
	r.takeMessages()
	r.handOut(w, k, r.rand.IntN(len(r.waiting)+1))
	r.count(k.Dead(), "worker killed")
}

// takeMessages adds to those that wait what was sent since, in any order.
func (r *clockRound) takeMessages() {
	r.Helper()
	r.waiting = append(r.waiting, r.SentWork(scheduledID)...)
	r.rand.Shuffle(len(r.waiting), func(i, j int) { r.waiting[i], r.waiting[j] = r.waiting[j], r.waiting[i] })
}

// handOut gives the first n messages to the worker. What it did not answer for comes again, and some of
// the others too.
func (r *clockRound) handOut(w *pipeline.Reconciler, k *testworld.Killer, n int) {
	r.Helper()
	batch := r.waiting[:n]
	r.waiting = r.waiting[n:]
	for org, result := range r.deliver(w, scheduledID, batch...) {
		if k.Dead() || result.Disposition == pipeline.Return || r.rand.IntN(4) == 0 {
			r.waiting = append(r.waiting, org)
		}
	}
}

// setRight lets the schedules tick with clocks that are right, until the run is at its end.
func (r *clockRound) setRight() {
	r.Helper()
	run := r.Run(scheduledID)
	r.count(run.Sweep == billing.SweepAbandoned, "sweep given up")
	r.count(run.Status.Open(), "open when clocks are right")
	if run.ID == "" { // nobody lived to open it: the schedule tries again
		r.enumerate(r.Enumerator(nil), r.request)
	}
	for n := range clockTicks {
		r.Clock.Advance(15 * time.Minute)
		// The runbook of an incomplete run: not everybody does it at once.
		if r.Status(scheduledID) == billing.RunIncomplete && (n > 1 || r.rand.IntN(2) == 0) {
			r.enumerate(r.Enumerator(nil), pipeline.Request{ResumeRun: scheduledID})
			r.count(true, "resumed")
		}
		r.enumerate(r.Enumerator(nil), pipeline.Request{ResumeAll: true})
		r.takeMessages()
		r.handOut(r.Reconciler(nil), &testworld.Killer{}, len(r.waiting))
		r.progress(scheduledID)
		r.tick()
	}
	if run := r.Run(scheduledID); run.FinishedAt == nil {
		r.Fatalf("%d ticks later the run is not at its end: %+v", clockTicks, run)
	}
}

func (r *clockRound) count(happened bool, what string) {
	if happened {
		r.ends[what]++
	}
}

func TestLeaseOfClockADayAheadIsTakenOver(t *testing.T) {
	f := newFixture(t)
	f.customersOnly(numbered(5)...)
	ahead := f.Enumerator(testworld.DyingAt("SendWork"))
	ahead.Now = f.Ahead(24 * time.Hour)
	if _, err := ahead.Run(t.Context(), scheduled); !errors.Is(err, testworld.ErrKilled) || !f.Leased() {
		t.Fatalf("it ended with %v", err)
	}
	f.Clock.Advance(time.Second)
	f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeAll: true})
	if got := f.Status(scheduledID); got != billing.RunRunning {
		t.Errorf("run is %s", got)
	}
	if diff := cmp.Diff(numbered(5), f.SentWork(scheduledID)); diff != "" {
		t.Error(diff)
	}
}

// Two of them at once: one that lives is robbed of its lease, and nothing is lost by that.
func TestEnumeratorADayAheadLosesItsLeaseWithoutHarm(t *testing.T) {
	f := newFixture(t)
	f.customersOnly(numbered(5)...)
	other := once(func() { f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeAll: true}) })
	ahead := f.Enumerator(&hooks{After: func(_ context.Context, call string) error {
		if call == "commit ListOrganizations" {
			other()
		}
		return nil
	}})
	ahead.Now = f.Ahead(24 * time.Hour)
	if got := f.enumerate(ahead, scheduled); got.Done || got.Enqueued != 0 {
		t.Errorf("the one ahead: %+v", got)
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
			t.Errorf("%v before the sweep: %d subscriptions were read, want %d", behind, n, requests)
		}
	}
}

// It would count as fresh a day later.
func TestSweepBegunByClockADayAheadIsAbandoned(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	ahead := f.Enumerator(testworld.DyingAt("begin SaveSweepPage"))
	ahead.Now = f.Ahead(24 * time.Hour)
	if _, err := ahead.Run(t.Context(), scheduled); !errors.Is(err, testworld.ErrKilled) {
		t.Fatalf("it ended with %v", err)
	}
	f.Clock.Advance(time.Second)
	f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeAll: true})
	if run := f.Run(scheduledID); run.Sweep != billing.SweepAbandoned || run.Status != billing.RunRunning {
		t.Errorf("sweep %q, run %s", run.Sweep, run.Status)
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
		t.Errorf("run is %s: %+v", f.Status(scheduledID), s)
	}
}

func TestRunClosedTooEarlyWhileSendingContinuesWhenResumed(t *testing.T) {
	for _, call := range []string{"SweepPage", "begin SaveSweepPage", "begin ListOrganizations", "SendWork", "MarkSent"} {
		t.Run(call, func(t *testing.T) {
			f := newFixture(t)
			for _, id := range numbered(5) {
				f.Subscriber(id)
			}
			tooEarly := once(f.closeAhead)
			e := f.Enumerator(&hooks{Before: func(_ context.Context, name string) error {
				if name == call {
					tooEarly()
				}
				return nil
			}})
			if got := f.enumerate(e, scheduled); got.Done {
				t.Errorf("%+v", got)
			}
			if got := f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeRun: scheduledID}); !got.Done || got.Enqueued != 5 {
				t.Errorf("resumed: %+v", got)
			}
			f.deliver(f.Reconciler(nil), scheduledID, f.SentWork(scheduledID)...)
			f.progress(scheduledID)
			if s := f.stored(); s.Status != billing.RunCompleted || s.Skipped != 5 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// closeAhead ticks with a clock that is a day ahead, which closes the scheduled run.
func (f *fixture) closeAhead() {
	f.Helper()
	a := f.Aggregator(nil)
	a.Now = f.Ahead(24 * time.Hour)
	if _, err := a.Tick(f.Context()); err != nil {
		f.Error(err)
	}
	if got := f.Status(scheduledID); got != billing.RunIncomplete {
		f.Errorf("run is %s", got)
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
	f.OpenRun("going on", numbered(1))
	a := f.Aggregator(nil)
	a.Now = f.Ahead(3 * 365 * 24 * time.Hour)
	if got, err := a.Tick(t.Context()); err != nil || got.Pruned != 0 || f.CountRuns() != 3 {
		t.Errorf("%+v, %v; %d runs are left", got, err, f.CountRuns())
	}
	if n := f.Count(`SELECT COUNT(*) FROM reconciliation_items`); n != 3 {
		t.Errorf("%d items are left", n)
	}
}
