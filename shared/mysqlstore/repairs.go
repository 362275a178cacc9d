package mysqlstore

import (
	"context"
	"database/sql"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// insertRepair records when the run repaired the organization, in the repair's transaction.
func insertRepair(ctx context.Context, tx *sql.Tx, item billing.Item, now time.Time) error {
	key, err := runKey(ctx, tx, item.RunID)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO reconciliation_repairs (org_id, run_key, written_at) VALUES (?,?,?)
		ON DUPLICATE KEY UPDATE written_at = VALUES(written_at)`, item.OrgID, key, now)
	return err
}

// RecentRepairs returns what runs have written for the organizations since the given time.
func (s *Store) RecentRepairs(ctx context.Context, orgIDs []string, since time.Time) ([]billing.Repair, error) {
	if len(orgIDs) == 0 {
		return nil, nil
	}
	var repairs []billing.Repair
	err := query(ctx, s.db, func(r *sql.Rows) error {
		var repair billing.Repair
		var changes sql.NullString
		if err := r.Scan(&repair.OrgID, &repair.RunID, &repair.At, &changes); err != nil {
			return err
		}
		err := fromJSON(changes, &repair.Changes)
		repairs = append(repairs, repair)
		return err
	}, `SELECT p.org_id, r.id, p.written_at, i.changes FROM reconciliation_repairs p
		JOIN reconciliation_items i ON i.run_key = p.run_key AND i.org_id = p.org_id JOIN reconciliation_runs r ON r.run_key = p.run_key
		WHERE p.org_id IN `+placeholders(len(orgIDs))+` AND p.written_at > ?`, append(toAny(orgIDs), since)...)
	return repairs, failure(err, "read recent repairs")
}

// WithholdingRun returns the run whose guard withholds the organization's repair. It considers the last decision by a run
// over several organizations that writes and has started since the given time. An error other than the guard's decides
// nothing.
func (s *Store) WithholdingRun(ctx context.Context, orgID string, since time.Time) (by billing.Withholding, err error) {
	reasons := billing.WithheldReasons()
	err = query(ctx, s.db, func(r *sql.Rows) error {
		var latest billing.Withholding
		var approvedAt sql.NullTime
		err := r.Scan(&latest.RunID, &latest.Reason, &approvedAt)
		latest.ApprovedAt = approvedAt.Time
		if latest.Reason.Withholds() {
			by = latest
		}
		return err
	}, `SELECT r.id, i.reason, CASE WHEN i.reason = ? AND o.approved_at > i.updated_at AND r.downgrades < o.approved_limit THEN o.approved_at END
		FROM reconciliation_runs r JOIN reconciliation_items i ON i.run_key = r.run_key AND i.org_id = ? LEFT JOIN reconciliation_orders o ON o.run_id = r.id
		WHERE r.started_at > ? AND r.org_id = '' AND r.dry_run = FALSE AND (i.outcome NOT IN ('pending','error') OR i.reason IN `+placeholders(len(reasons))+`)
		ORDER BY i.updated_at DESC LIMIT 1`, append([]any{billing.ReasonWithheld, orgID, since}, toAny(reasons)...)...)
	return by, failure(err, "look for a run that withholds the repair of organization "+orgID)
}

// PruneRepairs deletes the times of repairs before the given one, in small transactions and a limited number at
// a call; the items keep what was written. The condition is negated because go-mysql-server deletes nothing by
// a range of the index.
func (s *Store) PruneRepairs(ctx context.Context, before time.Time) error {
	more, err := true, error(nil)
	for left := trimBatches; more && err == nil && left > 0; left-- {
		more, err = execMatched(ctx, s.db, `DELETE FROM reconciliation_repairs WHERE NOT written_at >= ? ORDER BY written_at LIMIT ?`, before, trimBatch)
	}
	return failure(err, "delete old repairs")
}
