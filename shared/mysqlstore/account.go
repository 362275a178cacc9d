package mysqlstore

import (
	"context"
)

const keepAccount = `INSERT INTO reconciliation_accounts (run_id, account_id) VALUES (?,?) ON DUPLICATE KEY UPDATE `

// EnsureAccount returns the Stripe account that the run reads. Where nobody has said so yet it is the given one, from
// now on.
func (s *Store) EnsureAccount(ctx context.Context, runID, account string) (kept string, err error) {
	_, err = s.db.ExecContext(ctx, keepAccount+`run_id = VALUES(run_id)`, runID, account)
	if err == nil {
		err = s.db.QueryRowContext(ctx, `SELECT account_id FROM reconciliation_accounts WHERE run_id = ?`, runID).Scan(&kept)
	}
	return kept, failure(err, "look which Stripe account run "+runID+" reads")
}

// replaceAccount has the run read another account, "" being one that is not known, from the beginning.
func replaceAccount(ctx context.Context, e execer, runID, account string) error {
	if account == "" {
		_, err := e.ExecContext(ctx, `DELETE FROM reconciliation_accounts WHERE run_id = ?`, runID)
		return err
	}
	_, err := e.ExecContext(ctx, keepAccount+`account_id = VALUES(account_id)`, runID, account)
	return err
}
