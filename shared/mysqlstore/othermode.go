package mysqlstore

import (
	"context"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// OnlyOtherMode reports whether more than limit organizations of the run have ids of Stripe's other mode, and a
// subscription governs none.
func (s *Store) OnlyOtherMode(ctx context.Context, runID string, limit int) (bool, error) {
	otherMode, err := selectStrings(ctx, s.db, `SELECT i.org_id`+itemsOfRun+`i.outcome = ? AND i.reason = ? LIMIT ?`, runID, billing.OutcomeError, billing.ReasonOtherMode, limit+1)
	if err != nil || len(otherMode) <= limit {
		return false, failure(err, "count the organizations of the other mode in run "+runID)
	}
	governed, err := selectStrings(ctx, s.db, `SELECT i.org_id`+itemsOfRun+`i.outcome <> ? AND i.governed = TRUE LIMIT 1`, runID, billing.OutcomePending)
	return len(governed) == 0, failure(err, "look for organizations of the key's mode in run "+runID)
}
