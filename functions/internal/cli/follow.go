package cli

import (
	"context"
	"sync"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// runStore reads the state of a run.
type runStore interface {
	Runs(ctx context.Context, ids []string) (map[string]billing.Run, error)
	Tallies(ctx context.Context, runID string) ([]billing.Tally, error)
	CountSwept(ctx context.Context, runID string) (int, error)
}

// ShowProgress shows how far the run is and returns it; a run that does not exist is returned empty.
func ShowProgress(ctx context.Context, store runStore, progress *output.Progress, runID string) (billing.Run, error) {
	runs, err := store.Runs(ctx, []string{runID})
	if err != nil {
		return billing.Run{}, err
	}
	run, found := runs[runID]
	if !found {
		return billing.Run{}, nil
	}
	if sweeping(run) {
		n, err := store.CountSwept(ctx, runID)
		if err == nil {
			progress.Tally("listing subscriptions", n)
		}
		return run, err
	}
	tallies, err := store.Tallies(ctx, runID)
	if err != nil {
		return run, err
	}
	all, done := countItems(tallies)
	if run.Status == billing.RunEnumerating && !run.Listed {
		progress.Tally("listing organizations", all)
		return run, nil
	}
	if total := max(run.Total, all); total > 0 {
		progress.Show(run.Status, done, total)
	}
	return run, nil
}

// sweeping reports whether the run lists Stripe's subscriptions and has not listed all organizations yet.
func sweeping(run billing.Run) bool {
	return run.Status == billing.RunEnumerating && run.Strategy == billing.StrategySweep && run.Sweep == billing.SweepOpen && !run.Listed
}

// WarningTime bounds the search for another open run.
const WarningTime = 5 * time.Second

// openFullStore also finds the open run over all organizations that was started last.
type openFullStore interface {
	runStore
	OpenFullRun(ctx context.Context) (billing.Run, bool, error)
}

// WarnOfOpenRun warns if another run over all organizations is open: two at once share Stripe's rate limit. Errors of the
// database are ignored, and one that does not answer keeps nothing waiting.
func WarnOfOpenRun(ctx context.Context, store openFullStore, progress *output.Progress) {
	ctx, cancel := context.WithTimeout(ctx, WarningTime)
	defer cancel()
	run, found, err := store.OpenFullRun(ctx)
	if err != nil || !found {
		return
	}
	tallies, err := store.Tallies(ctx, run.ID)
	if err != nil {
		return
	}
	all, done := countItems(tallies)
	s := billing.Summary{RunID: run.ID}
	progress.Note("warning: run %s over all organizations is still %s, %d of %s done; two at once share Stripe's rate limit; to follow it or to end it:\n  %s\n  %s",
		run.ID, run.Status, done, billing.Count(max(run.Total, all), "organization"),
		s.Command("reconcile status RUN --watch", ""), s.Command("reconcile stop RUN --reason TEXT", ""))
}

// countItems returns the number of all items and of those with an outcome.
func countItems(tallies []billing.Tally) (all, done int) {
	for _, t := range tallies {
		all += t.Items
		if t.Outcome != billing.OutcomePending {
			done += t.Items
		}
	}
	return all, done
}

// latestRunStore also finds a run whose id is not known yet.
type latestRunStore interface {
	runStore
	LatestRun(ctx context.Context) (billing.Run, bool, error)
}

// ShowProgressWhile calls do and meanwhile shows the progress of the run with this id or, if the id is "", of the run
// that do starts. It ignores errors of the database, because progress is only a convenience.
func ShowProgressWhile(ctx context.Context, store latestRunStore, progress *output.Progress, every time.Duration, runID string, do func() error) error {
	began := time.Now().Add(-time.Minute) // the clocks may differ
	looking, stop := context.WithCancel(ctx)
	var looks sync.WaitGroup
	looks.Go(func() {
		_ = Poll(looking, every, func() (done bool, err error) {
			if id := openRun(looking, store, runID, began); id != "" { // else the next call may find it
				_, _ = ShowProgress(looking, store, progress, id)
			}
			return false, nil
		})
	})
	err := do()
	stop()
	looks.Wait()
	progress.Done()
	return err
}

// openRun returns the id of the run if it is open; a run to resume is not until the enumerator reopened it. Without an
// id, it returns that of a run that has begun to enumerate since the given time. "" means that there is none.
func openRun(ctx context.Context, store latestRunStore, runID string, since time.Time) string {
	if runID != "" {
		runs, err := store.Runs(ctx, []string{runID})
		if err != nil || !runs[runID].Status.Open() {
			return ""
		}
		return runID
	}
	run, found, err := store.LatestRun(ctx)
	if err != nil || !found || run.StartedAt.Before(since) || run.Status != billing.RunEnumerating {
		return ""
	}
	return run.ID
}

// Poll calls look until it reports done or fails. It pauses between two calls for at least the given time, and for
// longer after a slow call: counting many organizations must not take most of the database's time.
func Poll(ctx context.Context, interval time.Duration, look func() (done bool, err error)) error {
	for {
		began := time.Now()
		if done, err := look(); done || err != nil {
			return err
		}
		select {
		case <-time.After(max(interval, 10*time.Since(began))):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// nameStore reads the names of organizations.
type nameStore interface {
	OrganizationNames(ctx context.Context, ids []string) (map[string]string, error)
}

// OrganizationNames returns the names of the organizations that the summary lists, by id. It returns none where
// they cannot be read: names are a convenience.
func OrganizationNames(ctx context.Context, store nameStore, s billing.Summary) map[string]string {
	ids := make([]string, len(s.Details))
	for i, d := range s.Details {
		ids[i] = d.OrgID
	}
	found, err := store.OrganizationNames(ctx, ids)
	if err != nil {
		return nil
	}
	return found
}
