package mysqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// countDowngrade counts one downgrade of the run, or refuses it at the limit. It is the transaction's last
// statement, because every downgrade locks the same rows: the run and, for a catch-up, the shared budget.
func countDowngrade(ctx context.Context, tx *sql.Tx, runID string) error {
	counted, err := execMatched(ctx, tx, `UPDATE reconciliation_runs SET downgrades = downgrades + 1
		WHERE id = ? AND strategy <> ? AND downgrades < downgrade_limit`, runID, billing.StrategyEvents)
	if err != nil || counted {
		return err
	}
	var strategy billing.Strategy
	var limit int
	err = query(ctx, tx, func(r *sql.Rows) error { return r.Scan(&strategy, &limit) },
		`SELECT strategy, downgrade_limit FROM reconciliation_runs WHERE id = ? FOR UPDATE`, runID)
	if err != nil {
		return err
	}
	if strategy != billing.StrategyEvents {
		return withheld("the run's limit of downgrades is reached", runID)
	}
	return countCatchUpDowngrade(ctx, tx, runID, limit)
}

// countCatchUpDowngrade counts against the limit approved for the run, whose row is locked, or else against the
// budget that all catch-ups share. An approved limit excludes the other downgrades: a later day's budget does not
// admit them.
func countCatchUpDowngrade(ctx context.Context, tx *sql.Tx, runID string, limit int) error {
	var approved sql.NullInt64
	err := tx.QueryRowContext(ctx, `SELECT MAX(approved_limit) FROM reconciliation_orders WHERE run_id = ?`, runID).Scan(&approved)
	if err != nil {
		return err
	}
	if approved.Valid {
		counted, err := execMatched(ctx, tx, `UPDATE reconciliation_runs SET downgrades = downgrades + 1 WHERE id = ? AND downgrades < ?`, runID, approved.Int64)
		if err == nil && !counted {
			err = withheld(fmt.Sprintf("the run has made the %d downgrades that were approved for it", approved.Int64), runID)
		}
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE reconciliation_runs SET downgrades = downgrades + 1 WHERE id = ?`, runID); err != nil {
		return err
	}
	counted, err := takeFromBudget(ctx, tx, limit)
	if err != nil || counted {
		return err
	}
	why, err := budgetReached(ctx, tx)
	if err != nil {
		return err
	}
	return withheld(why, runID)
}

// budgetExpired: the budget's 24 hours have passed, or it was never used. The time is the server's, because a worker's
// clock that is a day ahead must not start a new window.
const budgetExpired = `(opened_at IS NULL OR opened_at <= UTC_TIMESTAMP(6) - INTERVAL 24 HOUR)`

// takeFromBudget takes one downgrade from the budget. If the window has expired, it starts a new one with this limit.
// One statement does both, so concurrent repairs start only one window. MySQL assigns the columns from left to right.
// The other columns depend on opened_at, so it comes last.
func takeFromBudget(ctx context.Context, tx *sql.Tx, limit int) (bool, error) {
	return execMatched(ctx, tx, `UPDATE reconciliation_budgets SET
		used = CASE WHEN `+budgetExpired+` THEN 1 ELSE used + 1 END,
		most = CASE WHEN `+budgetExpired+` THEN ? ELSE most END,
		opened_at = CASE WHEN `+budgetExpired+` THEN UTC_TIMESTAMP(6) ELSE opened_at END
		WHERE name = ? AND CASE WHEN `+budgetExpired+` THEN ? > 0 ELSE used < most END`, limit, billing.StrategyEvents, limit)
}

// budgetReached returns the message for a budget that is used up.
func budgetReached(ctx context.Context, tx *sql.Tx) (string, error) {
	message := "catch-ups may not lower any organization"
	err := query(ctx, tx, func(r *sql.Rows) error {
		var since time.Time
		var most int
		err := r.Scan(&since, &most)
		message = fmt.Sprintf("catch-ups together have lowered the %d organizations that they may within 24 hours, since %s", most, since.UTC().Format(time.RFC3339))
		return err
	}, `SELECT opened_at, most FROM reconciliation_budgets WHERE name = ? AND NOT `+budgetExpired, billing.StrategyEvents)
	return message, err
}

func withheld(why, runID string) error {
	return &billing.Failure{Class: billing.Permanent, Reason: billing.ReasonWithheld, Message: why + ", so this one was not written; " +
		"check whether the changes are right, raise the limit of run " + runID + " and redrive"}
}

// insertStart records who started the run and whether they allowed downgrades.
func insertStart(ctx context.Context, e execer, run billing.Run) error {
	if run.By == "" && !run.AllowDowngrade {
		return nil
	}
	_, err := e.ExecContext(ctx, `INSERT INTO reconciliation_orders (run_id, asked_by, allow_downgrade) VALUES (?,?,?)`, run.ID, truncateRunes(billing.MaxWhoLength, run.By), run.AllowDowngrade)
	return err
}

// Approve sets how many downgrades the run may make in all, more or fewer than before, and records who approved
// it and when. It returns false if the run has made more already or does not exist.
func (s *Store) Approve(ctx context.Context, runID string, a billing.Approval) (approved bool, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		locked, err := selectStrings(ctx, tx, `SELECT id FROM reconciliation_runs WHERE id = ? AND downgrades <= ? FOR UPDATE`, runID, a.Limit)
		if err != nil || len(locked) == 0 {
			return err
		}
		approved = true
		// A catch-up's downgrade_limit belongs to the shared budget.
		_, err = tx.ExecContext(ctx, `UPDATE reconciliation_runs SET downgrade_limit = ? WHERE id = ? AND strategy <> ?`, a.Limit, runID, billing.StrategyEvents)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO reconciliation_orders (run_id, approved_limit, approved_by, approved_at) VALUES (?,?,?,?)
			ON DUPLICATE KEY UPDATE approved_limit = VALUES(approved_limit), approved_by = VALUES(approved_by), approved_at = VALUES(approved_at)`,
			runID, a.Limit, truncateRunes(billing.MaxWhoLength, a.By), a.At)
		return err
	})
	return approved && err == nil, failure(err, "set the limit of run "+runID)
}
