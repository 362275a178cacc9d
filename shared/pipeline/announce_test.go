package pipeline_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/eventbus"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/eventserver"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

const busName = "application"

// startBus starts a fake EventBridge and records its bus in the database as the one to announce on.
func (f *fixture) startBus() *eventserver.Server {
	f.Helper()
	server, err := eventserver.Start(eventserver.Options{Buses: []string{busName}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := server.Close(); err != nil {
			f.Error(err)
		}
	})
	if err := f.Store.SetEventBus(f.Context(), "arn:aws:events:us-east-1::event-bus/"+busName); err != nil {
		f.Fatal(err)
	}
	return server
}

// hookedBus is the real client of a bus with hooks.
type hookedBus struct {
	*eventbus.Bus

	hooks *hooks
}

func (b hookedBus) Send(ctx context.Context, all []billing.Announcement) (accepted []string, refused map[string]string, err error) {
	err = b.hooks.Do(ctx, "Send", func() (err error) {
		accepted, refused, err = b.Bus.Send(ctx, all)
		return err
	})
	return accepted, refused, err
}

// announcer returns an aggregator that sends to the bus.
func (f *fixture) announcer(server *eventserver.Server, p *hooks) *pipeline.Aggregator {
	a := f.Aggregator(p)
	a.Bus, a.AmendmentDelay = hookedBus{eventbus.New(server.AWSConfig(), busName, slog.New(slog.DiscardHandler)), p}, billing.AmendmentDelay
	return a
}

// announced is what a consumer learns from events if it ignores repetitions.
type announced struct {
	repairs map[string][]billing.Change // "RUN|ORGANIZATION" -> the changes of its repairs
	ends    map[string][]string         // run -> the status of each announced end
	events  int                         // including repetitions
}

// consume reads events as a consumer does. It fails if two events have the same id and another content.
func consume(t testing.TB, events []eventserver.Event) announced {
	t.Helper()
	all := announced{map[string][]billing.Change{}, map[string][]string{}, len(events)}
	details := map[string]string{}
	for _, e := range events {
		var detail struct {
			ID, RunID, OrgID, Status any
			Changes                  []billing.Change
			Text                     string
			Lines                    []string
		}
		if err := json.Unmarshal(e.Detail, &detail); err != nil {
			t.Fatal(err)
		}
		id := detail.ID.(string)
		if before, isRepetition := details[id]; isRepetition {
			if before != string(e.Detail) {
				t.Errorf("two events with the id %s differ:\n%s\n%s", id, before, e.Detail)
			}
			continue
		}
		details[id] = string(e.Detail)
		if e.DetailType == string(billing.AnnounceRunFinished) {
			run := detail.RunID.(string)
			if diff := cmp.Diff(billing.TemplateLines(detail.Text), detail.Lines); diff != "" {
				t.Errorf("detail.lines are not the lines of detail.text (-want +got)\n%s", diff)
			}
			all.ends[run] = append(all.ends[run], detail.Status.(string))
			continue
		}
		key := fmt.Sprint(detail.RunID, "|", detail.OrgID)
		all.repairs[key] = append(all.repairs[key], detail.Changes...)
	}
	return all
}

// repaired returns the changes that the run's items record, by "RUN|ORGANIZATION".
func (f *fixture) repaired(runID string) map[string][]billing.Change {
	all := map[string][]billing.Change{}
	for id, item := range f.items() {
		if item.Outcome == billing.OutcomeSynced {
			all[runID+"|"+id] = item.Changes
		}
	}
	return all
}

// wantAllAnnounced checks that the events announce exactly the repairs of run-1, and that the outbox is empty.
func (f *fixture) wantAllAnnounced(events []eventserver.Event) announced {
	f.Helper()
	for _, e := range events {
		wantPublishedSchema(f, e)
	}
	got := consume(f, events)
	if diff := cmp.Diff(f.repaired(runID), got.repairs); diff != "" {
		f.Errorf("repaired and announced changes differ (-repaired +announced)\n%s", diff)
	}
	if n := f.outboxSize(); n != 0 {
		f.Errorf("%d announcements are left in the outbox", n)
	}
	return got
}

// openRunOver creates the organizations of these situations and opens a run over them.
func (f *fixture) openRunOver(ids ...string) []string {
	f.Helper()
	var chosen []situation
	for _, s := range situations {
		if slices.Contains(ids, s.id) {
			chosen = append(chosen, s)
		}
	}
	ids = f.seed(chosen)
	f.OpenRun(runID, ids)
	return ids
}

func TestRepairsAndRunEndAreAnnounced(t *testing.T) {
	f := newFixture(t)
	server := f.startBus()
	ids := f.openRunOver("in-sync", "upgraded", "canceled", "row-inserted", "replaced", "missing", "of-another-row")
	f.deliver(f.Reconciler(nil), runID, ids...)
	a := f.announcer(server, nil)
	if err := a.Progress(t.Context(), runID); err != nil {
		t.Fatal(err)
	}
	a.Announce(t.Context())
	got := f.wantAllAnnounced(server.Events())
	if len(got.repairs) < 4 || got.events != len(got.repairs)+1 {
		t.Errorf("%d events announce %d repairs", got.events, len(got.repairs))
	}
	if diff := cmp.Diff(map[string][]string{runID: {"completed_with_errors"}}, got.ends); diff != "" {
		t.Errorf("announced ends (-want +got)\n%s", diff)
	}
	if lines := f.Metrics.Lines(t, "Announced", float64(got.events)); len(lines) != 1 || lines[0]["AnnouncementErrors"] != 0.0 {
		t.Errorf("metrics: %v", f.Metrics.Lines(t, "Announced", nil))
	}

	// A run that repairs nothing announces its end too.
	f.OpenRun("again", []string{"in-sync"})
	f.deliver(f.Reconciler(nil), "again", "in-sync")
	if err := a.Progress(t.Context(), "again"); err != nil {
		t.Fatal(err)
	}
	a.Announce(t.Context())
	if ends := consume(t, server.Events()).ends["again"]; !slices.Equal(ends, []string{"completed"}) {
		t.Errorf("the second run announced the ends %v", ends)
	}
}

func TestDryRunAnnouncesItsEndAndSingleOrganizationRunItsRepairs(t *testing.T) {
	f := newFixture(t)
	server := f.startBus()
	ids := f.seed(situations[:4])
	a := f.announcer(server, nil)
	f.OpenRun("dry", ids, testworld.DryRun)
	f.deliver(f.Reconciler(nil), "dry", ids...)
	f.OpenRun(runID, []string{ids[0]}, func(r *billing.Run) { r.OrgID = ids[0] })
	f.Exec(`UPDATE organizations SET subscription_tier = 'starter' WHERE id = ?`, ids[0])
	f.deliver(f.Reconciler(nil), runID, ids[0])
	for _, id := range []string{"dry", runID} {
		if err := a.Progress(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	a.Announce(t.Context())
	got := consume(t, server.Events())
	if len(got.ends) != 1 || got.ends["dry"] == nil || len(got.repairs) != 1 || got.repairs[runID+"|"+ids[0]] == nil {
		t.Errorf("%+v", got)
	}
}

func TestRedriveIsAnnouncedOnceAfterADelay(t *testing.T) {
	f := newFixture(t)
	server := f.startBus()
	ids := []string{"org-1", "org-2"}
	for _, id := range ids {
		f.Subscriber(id, price("price_of_nothing"))
	}
	f.OpenRun(runID, ids)
	f.deliver(f.Reconciler(nil), runID, ids...)
	a := f.announcer(server, nil)
	announcedEnds := func() []string {
		t.Helper()
		if err := a.Progress(t.Context(), runID); err != nil {
			t.Fatal(err)
		}
		a.Announce(t.Context())
		return consume(t, server.Events()).ends[runID]
	}
	if ends := announcedEnds(); !slices.Equal(ends, []string{"completed_with_errors"}) {
		t.Fatalf("announced ends: %v", ends)
	}
	for _, id := range ids {
		f.Sub(id, price("price_max"))
		f.deliver(f.Reconciler(nil), runID, id)
		if ends := announcedEnds(); len(ends) != 1 {
			t.Errorf("announced ends during the redrive: %v", ends)
		}
	}
	f.Clock.Advance(billing.AmendmentDelay)
	if ends := announcedEnds(); !slices.Equal(ends, []string{"completed_with_errors", "completed"}) {
		t.Errorf("announced ends: %v", ends)
	}
}

func TestWithoutBusNothingIsAnnouncedAndNothingIsLost(t *testing.T) {
	f := newFixture(t)
	ids := f.openRunOver("in-sync", "upgraded", "canceled", "row-inserted", "replaced", "missing", "of-another-row")
	f.deliver(f.Reconciler(nil), runID, ids...)
	a := f.Aggregator(nil)
	if err := a.Progress(t.Context(), runID); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.outboxSize(); n != 0 || len(f.Metrics.Lines(t, "OutboxSize", nil)) != 0 {
		t.Errorf("%d announcements are in the outbox, metrics: %v", n, f.Metrics.Lines(t, "OutboxSize", nil))
	}

	// EVENT_BUS was removed while an announcement waited.
	f.Exec(`INSERT INTO reconciliation_outbox (id, type, detail, created_at) VALUES ('a', 'Organization Reconciled', '{}', ?)`, start)
	f.Clock.Advance(time.Hour)
	if _, err := a.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines := f.Metrics.Lines(t, "OutboxSize", 1.0)
	if len(lines) != 1 || lines[0]["OutboxAge"] != 3600.0 || len(f.Logs.Lines(t, "level", "WARN")) == 0 {
		t.Errorf("metrics: %v", lines)
	}
}

// TestProcessKilledAnywhereLosesNoAnnouncement kills a worker or an aggregator at every call, so also between the
// commit, the send and the removal from the outbox.
func TestProcessKilledAnywhereLosesNoAnnouncement(t *testing.T) {
	f := newFixture(t)
	server := f.startBus()
	earlier := 0 // events of the deaths before
	f.openRunOver("in-sync", "upgraded", "canceled")
	f.copyTables()
	testworld.EveryDeath(t, func(t *testing.T, k *testworld.Killer) {
		f.EndProcesses()
		f.restoreTables()
		for _, table := range []string{"items", "runs", "outbox"} {
			f.Exec(`DELETE FROM reconciliation_` + table)
		}
		ids := f.Texts(`SELECT id FROM organizations ORDER BY id`)
		f.OpenRun(runID, ids)
		worker, aggregator := f.Reconciler(k.Hooks()), f.announcer(server, k.Hooks())
		worker.Parallel, worker.Retry.Tries, aggregator.Retry.Tries = 1, 1, 1
		f.deliver(worker, runID, ids...)
		_ = aggregator.Progress(t.Context(), runID) // the message comes again in any case
		aggregator.Announce(t.Context())

		f.deliver(f.Reconciler(nil), runID, ids...)
		if err := f.announcer(server, nil).Progress(t.Context(), runID); err != nil {
			t.Fatal(err)
		}
		f.Clock.Advance(billing.AmendmentDelay)
		if _, err := f.announcer(server, nil).Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		all := server.Events()
		got := f.wantAllAnnounced(all[earlier:])
		if len(got.ends[runID]) != 1 {
			t.Errorf("announced ends: %v", got.ends)
		}
		earlier = len(all)
	})
}

func TestFailedAnnouncementsAreSentByTheNextTick(t *testing.T) {
	exceptEvery := func(n int64) func() bool { // returns false at every n-th call, otherwise true
		var calls atomic.Int64
		return func() bool { return calls.Add(1)%n != 0 }
	}
	for name, fail := range map[string]func(server *eventserver.Server){
		"EventBridge fails": func(s *eventserver.Server) {
			s.SetFail(func() *eventserver.Fault { return &eventserver.InternalException })
		},
		"EventBridge throttles": func(s *eventserver.Server) {
			throttled := exceptEvery(4)
			s.SetFail(func() *eventserver.Fault {
				if throttled() {
					return &eventserver.Throttled
				}
				return nil
			})
		},
		"answers are lost": func(s *eventserver.Server) {
			s.SetFail(func() *eventserver.Fault { return &eventserver.LostResponse })
		},
		"the permission is missing": func(s *eventserver.Server) {
			s.SetFail(func() *eventserver.Fault { return &eventserver.AccessDenied })
		},
		"some entries fail": func(s *eventserver.Server) {
			failed := exceptEvery(3)
			s.SetFailEntry(func(eventserver.Entry) string {
				if failed() {
					return "InternalFailure"
				}
				return ""
			})
		},
		"one entry is malformed": func(s *eventserver.Server) {
			s.SetFailEntry(func(e eventserver.Entry) string {
				if strings.Contains(e.Detail, `"orgId":"upgraded"`) {
					return "MalformedDetail"
				}
				return ""
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			server := f.startBus()
			ids := f.openRunOver("in-sync", "upgraded", "canceled", "row-inserted", "replaced", "missing", "of-another-row")
			f.deliver(f.Reconciler(nil), runID, ids...)
			fail(server)
			a := f.announcer(server, nil)
			if err := a.Progress(t.Context(), runID); err != nil {
				t.Fatal(err)
			}
			a.Announce(t.Context())
			tick, err := a.Tick(t.Context())
			if err != nil || len(tick.Closed) != 0 {
				t.Errorf("the tick that could not announce returned %+v, %v", tick, err)
			}
			if f.Status(runID) != billing.RunCompletedWithErrors {
				t.Errorf("the run is %s", f.Status(runID))
			}
			if len(f.Metrics.Lines(t, "AnnouncementErrors", nil)) == 0 || len(f.Metrics.Lines(t, "OutboxSize", nil)) != 1 {
				t.Error("no metric reports the failed announcements")
			}

			server.SetFail(nil)
			server.SetFailEntry(nil)
			f.Clock.Advance(billing.MaxAnnouncementBackoff)
			if _, err := a.Tick(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.wantAllAnnounced(server.Events())
			if lines := f.Metrics.Lines(t, "OutboxSize", 0.0); len(lines) == 0 || lines[len(lines)-1]["OutboxAge"] != 0.0 {
				t.Errorf("the metrics of the last tick: %v", lines)
			}
		})
	}
}

func (f *fixture) outboxSize() int {
	return mysqltest.Value[int](f, f.DB, `SELECT COUNT(*) FROM reconciliation_outbox`)
}

func TestOtherBusGetsNothingUntilFunctionsAreDeployedWithIt(t *testing.T) {
	f := newFixture(t)
	server := f.startBus()
	f.Exec(`INSERT INTO reconciliation_outbox (id, type, detail, created_at) VALUES ('a', 'Organization Reconciled', '{}', ?)`, start)
	for _, recorded := range []string{
		"arn:aws:events:us-east-1::event-bus/another", "arn:aws:events:eu-west-1::event-bus/" + busName, "arn:aws:events:us-east-1:123456789012:event-bus/" + busName,
	} {
		if err := f.Store.SetEventBus(t.Context(), recorded); err != nil {
			t.Fatal(err)
		}
		a := f.announcer(server, nil)
		if _, err := a.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := a.CheckBus(t.Context()); err == nil || !strings.Contains(err.Error(), recorded) || f.outboxSize() != 1 || server.PutRequests() > 0 {
			t.Errorf("%s: %v; %d are in the outbox, %d requests were sent", recorded, err, f.outboxSize(), server.PutRequests())
		}
		if bus, _, err := f.Store.EventBus(t.Context()); bus != recorded || err != nil {
			t.Errorf("the recorded bus is %s, want %s, %v", bus, recorded, err)
		}
	}
	deployed := f.announcer(server, nil)
	deployed.Deployed = true
	if _, err := deployed.Tick(t.Context()); err != nil || f.outboxSize() != 0 || len(server.Events()) != 1 {
		t.Errorf("%v; %d are in the outbox, %d were sent", err, f.outboxSize(), len(server.Events()))
	}
}

// A copied database has announcements that another stage will send. On a shared bus they would match that stage's rule.
func TestAnnouncementsOfAnotherStageOrModeStayInOutbox(t *testing.T) {
	f := newFixture(t)
	server := f.startBus()
	if _, err := f.Store.EnsureStage(t.Context(), "staging"); err != nil {
		t.Fatal(err)
	}
	for i := range 24 {
		f.Exec(`INSERT INTO reconciliation_outbox (id, type, detail, created_at) VALUES (?, 'Organization Reconciled', ?, ?)`,
			fmt.Sprint("foreign-", i), fmt.Sprintf(`{"stage":%q,"livemode":%t}`, []string{"production", "staging"}[i%2], true), start)
	}
	f.Exec(`INSERT INTO reconciliation_outbox (id, type, detail, created_at) VALUES ('own', 'Organization Reconciled', '{"stage":"staging","livemode":false}', ?)`, start)
	a := f.announcer(server, nil)
	if _, err := a.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	if events := server.Events(); len(events) != 1 || f.outboxSize() != 24 {
		t.Errorf("%d were sent, want 1; %d are in the outbox, want 24", len(events), f.outboxSize())
	}
	if n := f.Count(`SELECT COUNT(*) FROM reconciliation_outbox WHERE attempts = 1 AND last_error LIKE 'it is of stage "%livemode true, and this is stage "staging", livemode false%'`); n != 24 {
		t.Errorf("%d have the reason, want 24", n)
	}
	if len(f.Metrics.Lines(t, "AnnouncementErrors", 24.0)) != 1 {
		t.Errorf("metrics: %v", f.Metrics.Lines(t, "AnnouncementErrors", nil))
	}
}

// EventBridge accepts announcements for a bus that does not exist, and drops them.
func TestMissingBusLeavesOutboxUnchanged(t *testing.T) {
	f := newFixture(t)
	server := f.startBus()
	server.SetBuses("another")
	ids := f.openRunOver("in-sync", "upgraded", "canceled")
	f.deliver(f.Reconciler(nil), runID, ids...)
	a := f.announcer(server, nil)
	if err := a.Progress(t.Context(), runID); err != nil {
		t.Fatal(err)
	}
	waiting := f.outboxSize()
	if _, err := a.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.outboxSize(); n != waiting || n == 0 || server.PutRequests() != 0 {
		t.Errorf("%d of %d are in the outbox, %d requests were sent", n, waiting, server.PutRequests())
	}
	if len(f.Metrics.Lines(t, "AnnouncementErrors", float64(waiting))) != 1 {
		t.Errorf("metrics: %v", f.Metrics.Lines(t, "AnnouncementErrors", nil))
	}
	server.SetBuses(busName)
	if _, err := a.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.wantAllAnnounced(server.Events())
}

// The refused announcements before the good one are more than fit into one request.
func TestRefusedAnnouncementsDoNotBlockOthers(t *testing.T) {
	f := newFixture(t)
	server := f.startBus()
	for i := range 25 {
		f.Exec(`INSERT INTO reconciliation_outbox (id, type, detail, created_at) VALUES (?, 'Organization Reconciled', ?, ?)`, fmt.Sprint("bad-", i), fmt.Sprintf(`{"id":"bad-%d"}`, i), start)
	}
	f.Exec(`INSERT INTO reconciliation_outbox (id, type, detail, created_at) VALUES ('good', 'Organization Reconciled', '{"id":"good"}', ?)`, start)
	server.SetFailEntry(func(e eventserver.Entry) string {
		if strings.Contains(e.Detail, "bad") {
			return "MalformedDetail"
		}
		return ""
	})
	a := f.announcer(server, nil)
	for ticks := 1; len(server.Events()) == 0; ticks++ {
		if _, err := a.Tick(t.Context()); err != nil || ticks > 3 {
			t.Fatalf("after %d ticks the good announcement was not sent: %v", ticks, err)
		}
	}
	f.Clock.Advance(25 * time.Hour)
	if _, err := a.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lines := f.Metrics.Lines(t, "OutboxSize", 25.0); len(lines) == 0 || lines[len(lines)-1]["OutboxAge"] != 90000.0 {
		t.Errorf("%v", f.Metrics.Lines(t, "OutboxSize", nil))
	}
}

func TestConcurrentAggregatorsLoseNoAnnouncement(t *testing.T) {
	f := newFixture(t)
	server := f.startBus()
	const n = 200
	for i := range n {
		f.Exec(`INSERT INTO reconciliation_outbox (id, type, detail, created_at) VALUES (?, 'Organization Reconciled', ?, ?)`, fmt.Sprint("id-", i), fmt.Sprintf(`{"id":"id-%d","runId":"r","orgId":"%d"}`, i, i), start)
	}
	var fails atomic.Int64
	server.SetFail(func() *eventserver.Fault {
		if fails.Add(1)%5 == 0 {
			return &eventserver.LostResponse
		}
		return nil
	})
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() { f.announcer(server, nil).Announce(t.Context()) })
	}
	group.Wait()
	if got := consume(t, server.Events()); len(got.repairs) != n {
		t.Errorf("%d of %d were announced, in %d events", len(got.repairs), n, got.events)
	}
	if size := f.outboxSize(); size != 0 {
		t.Errorf("%d are left in the outbox", size)
	}
}

// The rest of a tick needs the other half of the time.
func TestAggregatorAnnouncesInFirstHalfOfItsTime(t *testing.T) {
	f := newFixture(t)
	server := f.startBus()
	f.Exec(`INSERT INTO reconciliation_outbox (id, type, detail, created_at) VALUES ('a', 'Organization Reconciled', '{}', ?)`, start)
	server.SetFail(func() *eventserver.Fault { return &eventserver.Hanging })
	a := f.announcer(server, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	a.Reserve = 500 * time.Millisecond
	a.Announce(ctx)
	if ctx.Err() != nil {
		t.Error("announcing used up the invocation's time")
	}
}

func TestLargeOutboxDrainsWithFlatMemory(t *testing.T) { drain(t, 5_000) }

func BenchmarkLargeOutboxDrainsWithFlatMemory(b *testing.B) {
	for b.Loop() {
		drain(b, 100_000)
	}
}

// drain sends n announcements of a repair's size and checks that the heap does not grow much meanwhile.
func drain(t testing.TB, n int) {
	t.Helper()
	const batch, maxGrowth = 500, 8 << 20
	db := mysqltest.New(t)
	store := mysqlstore.New(db.DB)
	if _, err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	detail := `{"version":1,"changes":"` + strings.Repeat("x", 1500) + `"}`
	for from := 0; from < n; from += batch {
		args := make([]any, 0, 3*batch)
		for i := range batch {
			args = append(args, fmt.Sprintf("%036d", from+i), detail, start)
		}
		db.MustExec(t, `INSERT INTO reconciliation_outbox (id, type, detail, created_at) VALUES (?, 'Organization Reconciled', ?, ?)`+
			strings.Repeat(`, (?, 'Organization Reconciled', ?, ?)`, batch-1), args...)
	}
	before, peak, events := heapInUse(), uint64(0), 0
	server, err := eventserver.Start(eventserver.Options{Buses: []string{busName}, OnEvent: func(eventserver.Event) {
		if events++; events%(n/20) == 0 {
			peak = max(peak, heapInUse())
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	(&pipeline.Aggregator{
		Store: store, Bus: eventbus.New(server.AWSConfig(), busName, slog.New(slog.DiscardHandler)), Now: func() time.Time { return start },
		Log: slog.New(slog.DiscardHandler), Metrics: telemetry.NewMetrics(io.Discard, "Test", time.Now),
	}).Announce(t.Context())
	took := time.Since(began)
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if waiting, _, err := store.OutboxBacklog(t.Context()); err != nil || waiting != 0 || events != n {
		t.Errorf("%d are left in the outbox, %d of %d arrived, %v", waiting, events, n, err)
	}
	growth := int64(peak) - int64(before)
	t.Logf("%d announcements in %s, the heap grew by at most %d KiB", n, took.Round(time.Millisecond), growth>>10)
	if growth > maxGrowth {
		t.Errorf("the heap grew by %d KiB", growth>>10)
	}
}

// heapInUse returns the size of the heap after a garbage collection.
func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
