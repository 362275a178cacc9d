package mysqlstore

import "context"

const insertAccount = `INSERT INTO reconciliation_accounts (run_id, account_id) VALUES (?,?) ON DUPLICATE KEY UPDATE `

// EnsureAccount records account as the Stripe account that the run reads, unless one is recorded already, and
// returns the recorded one.
func (s *Store) EnsureAccount(ctx context.Context, runID, account string) (kept string, err error) {
	_, err = s.db.ExecContext(ctx, insertAccount+`run_id = VALUES(run_id)`, runID, account)
	if err == nil {
		err = s.db.QueryRowContext(ctx, `SELECT account_id FROM reconciliation_accounts WHERE run_id = ?`, runID).Scan(&kept)
	}
	return kept, failure(err, "store the Stripe account of run "+runID)
}

// setAccount stores the Stripe account that the run reads from now on; "" deletes it.
func setAccount(ctx context.Context, e execer, runID, account string) error {
	if account == "" {
		_, err := e.ExecContext(ctx, `DELETE FROM reconciliation_accounts WHERE run_id = ?`, runID)
		return err
	}
	_, err := e.ExecContext(ctx, insertAccount+`account_id = VALUES(account_id)`, runID, account)
	return err
}
