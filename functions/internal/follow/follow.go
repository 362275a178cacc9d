// Package follow watches a run in the database, the same way in every command. It changes nothing.
package follow

import (
	"context"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/present"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Store is what is read of a run.
type Store interface {
	Runs(ctx context.Context, ids []string) (map[string]billing.Run, error)
	Tallies(ctx context.Context, runID string) ([]billing.Tally, error)
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
	tallies, err := store.Tallies(ctx, runID)
	if err != nil {
		return run, err
	}
	done := 0
	for _, t := range tallies {
		if t.Outcome != billing.OutcomePending {
			done += t.Items
		}
	}
	progress.Show(run.Status, done, run.Total)
	return run, nil
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
