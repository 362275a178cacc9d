// Package follow watches a run in the database, the same way in every command. It changes nothing.
package follow

import (
	"context"
	"sync"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/present"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Store is what is read of a run.
type Store interface {
	Runs(ctx context.Context, ids []string) (map[string]billing.Run, error)
	Tallies(ctx context.Context, runID string) ([]billing.Tally, error)
	Swept(ctx context.Context, runID string) (int, error)
}

// Look shows how far the run is and returns it; one that is not there is empty.
func Look(ctx context.Context, store Store, progress *present.Progress, runID string) (billing.Run, error) {
	runs, err := store.Runs(ctx, []string{runID})
	if err != nil {
		return billing.Run{}, err
	}
	run, found := runs[runID]
	if !found {
		return billing.Run{}, nil
	}
	if sweeping(run) {
		n, err := store.Swept(ctx, runID)
		if err == nil {
			progress.Tally("listing subscriptions", n)
		}
		return run, err
	}
	tallies, err := store.Tallies(ctx, runID)
	if err != nil {
		return run, err
	}
	all, done := 0, 0
	for _, t := range tallies {
		all += t.Items
		if t.Outcome != billing.OutcomePending {
			done += t.Items
		}
	}
	if run.Status == billing.RunEnumerating && !run.Listed {
		progress.Tally("listing organizations", all)
		return run, nil
	}
	progress.Show(run.Status, done, max(run.Total, all))
	return run, nil
}

// sweeping: Stripe's subscriptions are listed, and nothing else is done yet.
func sweeping(run billing.Run) bool {
	return run.Status == billing.RunEnumerating && run.Strategy == billing.StrategySweep && run.Sweep == billing.SweepOpen && !run.Listed
}

// opened is what finds a run that is being opened.
type opened interface {
	Store
	LatestRun(ctx context.Context) (billing.Run, bool, error)
}

// While shows how the run comes along that do starts or, where it has an id already, goes on with, until
// do has returned. It is a courtesy: what cannot be read is not shown.
func While(ctx context.Context, store opened, progress *present.Progress, every time.Duration, runID string, do func() error) error {
	began := time.Now().Add(-time.Minute) // clocks differ
	looking, stop := context.WithCancel(ctx)
	var looks sync.WaitGroup
	looks.Go(func() {
		_ = Until(looking, every, func() (done bool, err error) {
			id := runID
			if id == "" {
				run, found, err := store.LatestRun(looking)
				if err != nil || !found || run.StartedAt.Before(began) || run.Status != billing.RunEnumerating {
					return false, nil //nolint:nilerr // the next look may tell
				}
				id = run.ID
			}
			_, _ = Look(looking, store, progress, id)
			return false, nil
		})
	})
	err := do()
	stop()
	looks.Wait()
	progress.Done()
	return err
}

// Until looks until it is done, and pauses between two looks: at least so long, and longer after one
// that took long, for counting many organizations is not to take most of the database's time.
func Until(ctx context.Context, least time.Duration, look func() (done bool, err error)) error {
	for {
		began := time.Now()
		if done, err := look(); done || err != nil {
			return err
		}
		select {
		case <-time.After(max(least, 10*time.Since(began))):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// names is what tells what organizations are called.
type names interface {
	OrganizationNames(ctx context.Context, ids []string) (map[string]string, error)
}

// Names returns what the organizations that the summary lists are called, by id. They are a courtesy:
// where they cannot be had there are none.
func Names(ctx context.Context, store names, s billing.Summary) map[string]string {
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
