package mysqlstore

import (
	"context"
	"database/sql"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// BeginSweep starts the run's sweep with one range of everything, after deleting an earlier sweep's snapshot.
// If interrupted, it is repeated.
func (s *Store) BeginSweep(ctx context.Context, l billing.Lease, now time.Time) error {
	if err := s.deleteSnapshotWhile(ctx, l.RunID, `lease_owner = ? AND status = ?`, l.Owner, billing.RunEnumerating); err != nil {
		return err
	}
	err := s.inLeasedTx(ctx, l, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO reconciliation_sweeps (run_id, began_at) VALUES (?,?)
			ON DUPLICATE KEY UPDATE state = VALUES(state), began_at = VALUES(began_at)`, l.RunID, now)
		if err != nil {
			return err
		}
		return putRange(ctx, tx, l.RunID, billing.Range{})
	})
	return failure(err, "begin the sweep of run "+l.RunID)
}

func putRange(ctx context.Context, e execer, runID string, r billing.Range) error {
	_, err := e.ExecContext(ctx, `INSERT INTO reconciliation_ranges (run_id, created_before, created_from, after_id) VALUES (?,?,?,?)
		ON DUPLICATE KEY UPDATE created_from = VALUES(created_from), after_id = VALUES(after_id)`, runID, r.Before, r.From, r.StartingAfter)
	return err
}

// RemainingRanges returns what the run's sweep has yet to read.
func (s *Store) RemainingRanges(ctx context.Context, runID string) ([]billing.Range, error) {
	var ranges []billing.Range
	err := query(ctx, s.db, func(r *sql.Rows) error {
		var one billing.Range
		err := r.Scan(&one.Before, &one.From, &one.StartingAfter)
		ranges = append(ranges, one)
		return err
	}, `SELECT created_before, created_from, after_id FROM reconciliation_ranges WHERE run_id = ? ORDER BY created_before`, runID)
	return ranges, failure(err, "read the remaining ranges of the sweep of run "+runID)
}

// CountSwept returns how many subscriptions the run's snapshot holds.
func (s *Store) CountSwept(ctx context.Context, runID string) (n int, err error) {
	err = query(ctx, s.db, func(r *sql.Rows) error { return r.Scan(&n) }, `SELECT COUNT(*) FROM reconciliation_snapshots
		WHERE run_key = (SELECT run_key FROM reconciliation_runs WHERE id = ?)`, runID)
	return n, failure(err, "count the snapshot of run "+runID)
}

// SaveSweepPage saves a page of a range in the run's snapshot and, in the same transaction, replaces the range
// with what remains of it, which is nothing after the last page.
func (s *Store) SaveSweepPage(ctx context.Context, l billing.Lease, of billing.Range, page billing.Page, remaining []billing.Range) error {
	err := s.inLeasedTx(ctx, l, func(tx *sql.Tx) error {
		if err := insertSnapshot(ctx, tx, l.RunID, page.Subscriptions); err != nil {
			return err
		}
		for _, r := range remaining {
			if err := putRange(ctx, tx, l.RunID, r); err != nil {
				return err
			}
		}
		if len(remaining) == 0 {
			_, err := tx.ExecContext(ctx, `DELETE FROM reconciliation_ranges WHERE run_id = ? AND created_before = ?`, l.RunID, of.Before)
			return err
		}
		return nil
	})
	return failure(err, "save a page of the sweep of run "+l.RunID)
}

// FinishSweep stores how the sweep ended. It fails if the sweep is said to be complete while a range remains.
func (s *Store) FinishSweep(ctx context.Context, l billing.Lease, state billing.SweepState) error {
	err := s.inLeasedTx(ctx, l, func(tx *sql.Tx) error {
		remaining, err := selectStrings(ctx, tx, `SELECT run_id FROM reconciliation_ranges WHERE run_id = ? LIMIT 1`, l.RunID)
		if err != nil {
			return err
		}
		if state == billing.SweepComplete && len(remaining) > 0 {
			return billing.ErrLeaseLost // another enumerator has started it again
		}
		_, err = tx.ExecContext(ctx, `UPDATE reconciliation_sweeps SET state = ? WHERE run_id = ?`, state, l.RunID)
		return err
	})
	return failure(err, "finish the sweep of run "+l.RunID)
}

// resetSweep makes the run sweep again, if an organization is pending or not listed.
func resetSweep(ctx context.Context, tx *sql.Tx, runID string, pending bool) error {
	unlisted, err := isUnlisted(ctx, tx, runID)
	if err != nil || (!pending && !unlisted) {
		return err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM reconciliation_sweeps WHERE run_id = ?`, runID)
	return err
}

func isUnlisted(ctx context.Context, tx *sql.Tx, runID string) (bool, error) {
	ids, err := selectStrings(ctx, tx, `SELECT id FROM reconciliation_runs WHERE id = ? AND listed = FALSE`, runID)
	return len(ids) > 0, err
}

// inSyncOutcome is what many items in sync have in common, so that one statement decides them.
type inSyncOutcome struct {
	reason         billing.Reason
	governed       bool
	subscriptionID string
	warnings       sql.NullString
}

// DecideInSync stores the outcomes of items that the run's snapshot shows to be in sync, in one transaction,
// and returns how many it recorded: not those decided meanwhile, and none if the run was closed or swept again
// after sweptFrom, because the snapshot may have been read while it was being deleted.
func (s *Store) DecideInSync(ctx context.Context, runID string, sweptFrom time.Time, items []billing.Item, now time.Time) (int, error) {
	orgs := map[inSyncOutcome][]any{}
	for _, i := range items {
		warnings, err := toJSON(i.Warnings)
		if err != nil {
			return 0, err
		}
		v := inSyncOutcome{i.Reason, i.SubscriptionID != "", keptSubscription(i), warnings}
		orgs[v] = append(orgs[v], i.OrgID)
	}
	decided := int64(0)
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		key, err := lockSweptRun(ctx, tx, runID, sweptFrom)
		if err != nil || key == 0 {
			return err
		}
		for v, ids := range orgs {
			args := []any{billing.OutcomeSkipped, v.reason, v.governed, v.subscriptionID, v.warnings, now, key, billing.OutcomePending}
			res, err := tx.ExecContext(ctx, decideItems+placeholders(len(ids)), append(args, ids...)...)
			if err != nil {
				return err
			}
			n, err := res.RowsAffected()
			if err != nil {
				return err
			}
			decided += n
		}
		return nil
	})
	if err != nil {
		return 0, failure(err, "store the outcomes of run "+runID)
	}
	return int(decided), nil
}

const decideItems = "UPDATE reconciliation_items FORCE INDEX (`PRIMARY`) " + `SET outcome = ?, reason = ?, governed = ?, subscription_id = ?, warnings = ?, updated_at = ?,
	revision = revision + 1 WHERE run_key = ? AND outcome = ? AND org_id IN `

// lockSweptRun returns the run's key and keeps the run from being closed or swept again; 0 if that has happened
// since the sweep that began at sweptFrom.
func lockSweptRun(ctx context.Context, tx *sql.Tx, runID string, sweptFrom time.Time) (key int64, err error) {
	err = query(ctx, tx, func(r *sql.Rows) error { return r.Scan(&key) },
		`SELECT r.run_key FROM reconciliation_runs r JOIN reconciliation_sweeps w ON w.run_id = r.id
			WHERE r.id = ? AND r.status IN (?,?) AND w.state = ? AND w.began_at = ? LOCK IN SHARE MODE`,
		runID, billing.RunEnumerating, billing.RunRunning, billing.SweepComplete, sweptFrom)
	return key, err
}
