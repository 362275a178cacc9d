package mysqlstore

import (
	"context"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// OnlyOtherMode reports whether more organizations of the run than that many have ids of Stripe's other mode, and
// none has a subscription that governs it.
func (s *Store) OnlyOtherMode(ctx context.Context, runID string, more int) (bool, error) {
	counted, err := texts(ctx, s.db, `SELECT i.org_id`+itemsOfRun+`i.outcome = ? AND i.reason = ? LIMIT ?`, runID, billing.OutcomeError, billing.ReasonOtherMode, more+1)
	if err != nil || len(counted) <= more {
		return false, failure(err, "count the organizations of the other mode in run "+runID)
	}
	governed, err := texts(ctx, s.db, `SELECT i.org_id`+itemsOfRun+`i.outcome <> ? AND i.governed = TRUE LIMIT 1`, runID, billing.OutcomePending)
	return len(governed) == 0, failure(err, "look for organizations of the key's mode in run "+runID)
}
