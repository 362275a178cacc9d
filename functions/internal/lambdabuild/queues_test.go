package lambdabuild_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/lambdasource"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

// Queues invoke the programs as in AWS until the run is closed. First a dry run finds the repairs, then a real run makes
// them.
func TestDeployedProgramsReconcileThroughQueues(t *testing.T) {
	population := demo.Options{Orgs: 60, Drift: 0.4, Seed: 11, Now: time.Now().UTC().Truncate(time.Second)}
	s := newStack(t, population)
	enumerator, worker, aggregator := s.function("enumerator"), s.function("worker"), s.function("aggregator")
	ctx, stop := context.WithTimeout(t.Context(), patience)
	var sources sync.WaitGroup
	for _, source := range []*lambdasource.Source{
		{Queue: s.work, Handler: worker.HandleSQS, MaxConcurrency: 2},
		{Queue: s.results, Handler: aggregator.HandleSQS},
	} {
		source.Client, source.Timeout, source.Log = s.queues, timeout, slog.New(slog.DiscardHandler)
		sources.Go(func() {
			if err := source.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	defer sources.Wait()
	defer stop()

	drifted := 0
	for i := range population.Orgs {
		if demo.Expect(population, i).Drifted() {
			drifted++
		}
	}
	for _, run := range []struct {
		event   string
		outcome billing.Outcome
	}{{`{"dryRun":true}`, billing.OutcomeDrifted}, {`{}`, billing.OutcomeSynced}} {
		var started struct{ RunID string }
		if err := json.Unmarshal([]byte(s.invoke(enumerator, run.event)), &started); err != nil {
			t.Fatal(err)
		}
		s.awaitClosed(ctx, started.RunID)
		if n := mysqltest.Value[int](t, s.db, `SELECT COUNT(*) FROM reconciliation_items WHERE run_key = (SELECT run_key FROM reconciliation_runs WHERE id = ?) AND outcome = ?`, started.RunID, run.outcome); n != drifted {
			t.Errorf("%s: %d organizations are %s, want %d", run.event, n, run.outcome, drifted)
		}
	}
	if n := len(worker.Processes()); n < 1 || n > 2 {
		t.Errorf("%d worker processes exist, want 1 or 2", n)
	}
}

// awaitClosed returns when the run is closed and has its summary.
func (s *stack) awaitClosed(ctx context.Context, runID string) {
	s.Helper()
	for closed := 0; closed == 0; {
		err := s.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM reconciliation_runs WHERE id = ? AND summary IS NOT NULL`, runID).Scan(&closed)
		if err != nil {
			s.Fatalf("waiting for the end of run %s: %v", runID, err)
		}
	}
}
