package mysqlstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

func TestLateEventsPassFromCatchUpToCatchUpUntilOneCompletes(t *testing.T) {
	const events = 1200 // more than two pages
	onEach(t, func(t *testing.T, f *fixture) {
		window := billing.Window{From: now.Add(-time.Hour), To: now}
		undelivered := window
		undelivered.State = billing.WindowUndelivered
		open := func(id string) billing.Lease {
			t.Helper()
			run := newRun(id)
			run.Strategy = billing.StrategyEvents
			if got, err := f.store.OpenCatchUp(t.Context(), run, window); err != nil || got.ID != id {
				t.Fatal(got, err)
			}
			f.lease(t, leaseOf(id))
			return leaseOf(id)
		}
		var page []billing.Event
		for i := range events {
			id := fmt.Sprintf("%04d", i)
			page = append(page, billing.Event{ID: "evt_" + id, Type: "t", Created: now.Add(-2 * time.Hour), SubscriptionID: "sub_" + id, PendingWebhooks: 2})
		}
		list := func(l billing.Lease) {
			t.Helper()
			for i := 0; i < len(page); i += 100 {
				if err := f.store.SaveEvents(t.Context(), l, undelivered, page[i:min(i+100, len(page))], undelivered, now); err != nil {
					t.Fatal(err)
				}
			}
		}
		add := func(l billing.Lease) {
			t.Helper()
			for more := true; more; {
				var err error
				if more, err = f.store.AddLateEvents(t.Context(), l, window); err != nil {
					t.Fatal(err)
				}
			}
		}
		want := func(when string, events, late, undelivered int) {
			t.Helper()
			for table, n := range map[string]int{"events": events, "late": late, "undelivered": undelivered} {
				if got := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_`+table); got != n {
					t.Errorf("%s: reconciliation_%s has %d rows, want %d", when, table, got, n)
				}
			}
		}
		end := func(id string, status billing.RunStatus) {
			t.Helper()
			f.MustExec(t, `UPDATE reconciliation_runs SET status = ? WHERE id = ?`, status, id)
			f.MustExec(t, `DELETE FROM reconciliation_events`)
		}

		first := open("first")
		list(first)
		add(first)
		want("after the first catch-up listed undelivered events", 0, 0, events)
		end("first", billing.RunCompleted)

		stopped := open("stopped")
		// Since then one endpoint accepted the first 300 events, none the next 300, and all endpoints the others.
		for i := range page[:300] {
			page[i].PendingWebhooks = 1
		}
		page = page[:600]
		list(stopped)
		list(stopped) // again after a crash
		add(stopped)
		want("after late events were found", 900, 900, 600)
		end("stopped", billing.RunStopped)

		running := open("running")
		list(running)
		add(running)
		want("after a catch-up that follows the stopped one", 900, 900, 600)
		end("running", billing.RunRunning)

		beside := open("beside")
		list(beside)
		add(beside)
		want("while the other catch-up is running", 0, 900, 600)
		end("running", billing.RunIncomplete)
		f.MustExec(t, `DELETE FROM reconciliation_runs WHERE id = 'running'`)
		add(beside)
		want("after the other catch-up was pruned", 900, 900, 600)
		end("beside", billing.RunCompletedWithErrors)

		last := open("last")
		list(last)
		add(last)
		want("after a catch-up completed", 0, 0, 600)
	})
}
