package mysqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// countDowngrade takes one unit of what the run may lower, or refuses. It comes last in the transaction, for
// the rows that it locks are those that every lowering needs: the run's, and of a catch-up then the budget's.
func countDowngrade(ctx context.Context, tx *sql.Tx, runID string) error {
	counted, err := hit(ctx, tx, `UPDATE reconciliation_runs SET downgrades = downgrades + 1
		WHERE id = ? AND strategy <> ? AND downgrades < downgrade_limit`, runID, billing.StrategyEvents)
	if err != nil || counted {
		return err
	}
	catchUp, err := texts(ctx, tx, `SELECT id FROM reconciliation_runs WHERE id = ? AND strategy = ? FOR UPDATE`, runID, billing.StrategyEvents)
	if err != nil {
		return err
	}
	if len(catchUp) == 0 {
		return withheld("the run's limit of downgrades is reached", runID)
	}
	return countOfCatchUp(ctx, tx, runID)
}

// countOfCatchUp counts against what was approved for the run, whose row is locked; where nothing was, against the
// budget that all catch-ups share. Somebody who approved so many has refused the others: a budget of a later day
// does not let them pass.
func countOfCatchUp(ctx context.Context, tx *sql.Tx, runID string) error {
	var approved sql.NullInt64
	err := tx.QueryRowContext(ctx, `SELECT MAX(approved_limit) FROM reconciliation_orders WHERE run_id = ?`, runID).Scan(&approved)
	if err != nil {
		return err
	}
	if approved.Valid {
		counted, err := hit(ctx, tx, `UPDATE reconciliation_runs SET downgrades = downgrades + 1 WHERE id = ? AND downgrades < ?`, runID, approved.Int64)
		if err == nil && !counted {
			err = withheld(fmt.Sprintf("the run has made the %d downgrades that were approved for it", approved.Int64), runID)
		}
		return err
	}
	if _, err := hit(ctx, tx, `UPDATE reconciliation_runs SET downgrades = downgrades + 1 WHERE id = ?`, runID); err != nil {
		return err
	}
	taken, err := takeOfBudget(ctx, tx, runID)
	if err != nil || taken {
		return err
	}
	why, err := budgetReached(ctx, tx)
	if err != nil {
		return err
	}
	return withheld(why, runID)
}

// budgetIsOver holds for a budget whose time has passed, or has not begun. The time is the server's: the
// workers' clocks differ, and one that is a day ahead must not give the budget out twice.
const budgetIsOver = `(opened_at IS NULL OR opened_at <= UTC_TIMESTAMP(6) - INTERVAL 24 HOUR)`

// takeOfBudget takes one unit of the catch-ups' budget, and opens it anew where its time is over, with the limit
// of this run. It is one statement, so that of many at once one opens it and the others count on. MySQL sets
// the columns in the order in which they stand: opened_at, which tells what the others become, is the last.
func takeOfBudget(ctx context.Context, tx *sql.Tx, runID string) (bool, error) {
	var limit int
	err := tx.QueryRowContext(ctx, `SELECT downgrade_limit FROM reconciliation_runs WHERE id = ?`, runID).Scan(&limit)
	if err != nil {
		return false, err
	}
	return hit(ctx, tx, `UPDATE reconciliation_budgets SET
		used = CASE WHEN `+budgetIsOver+` THEN 1 ELSE used + 1 END,
		most = CASE WHEN `+budgetIsOver+` THEN ? ELSE most END,
		opened_at = CASE WHEN `+budgetIsOver+` THEN UTC_TIMESTAMP(6) ELSE opened_at END
		WHERE name = ? AND CASE WHEN `+budgetIsOver+` THEN ? > 0 ELSE used < most END`, limit, billing.StrategyEvents, limit)
}

// budgetReached says that nothing of the budget is left.
func budgetReached(ctx context.Context, tx *sql.Tx) (string, error) {
	said := "catch-ups may not lower anybody"
	err := query(ctx, tx, func(r *sql.Rows) error {
		var since time.Time
		var most int
		err := r.Scan(&since, &most)
		said = fmt.Sprintf("catch-ups together have lowered the %d organizations that they may within 24 hours, since %s", most, since.UTC().Format(time.RFC3339))
		return err
	}, `SELECT opened_at, most FROM reconciliation_budgets WHERE name = ? AND NOT `+budgetIsOver, billing.StrategyEvents)
	return said, err
}

func withheld(why, runID string) error {
	return &billing.Failure{Class: billing.Permanent, Reason: billing.ReasonWithheld, Message: why + ", so this one was not written; " +
		"check whether the changes are right, raise the limit of run " + runID + " and redrive"}
}

// insertOrder keeps who asked for a run that is opened, and what they allowed it.
func insertOrder(ctx context.Context, e execer, run billing.Run) error {
	if run.By == "" && !run.AllowDowngrade {
		return nil
	}
	_, err := e.ExecContext(ctx, `INSERT INTO reconciliation_orders (run_id, asked_by, allow_downgrade) VALUES (?,?,?)`, run.ID, atMost(billing.MaxWho, run.By), run.AllowDowngrade)
	return err
}

// Approve sets how many organizations the run may lower in all, be it more or fewer than before, and keeps who
// said so and when. It reports false where the run has lowered more already, or there is no such run.
func (s *Store) Approve(ctx context.Context, runID string, a billing.Approval) (approved bool, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		locked, err := texts(ctx, tx, `SELECT id FROM reconciliation_runs WHERE id = ? AND downgrades <= ? FOR UPDATE`, runID, a.Limit)
		if err != nil || len(locked) == 0 {
			return err
		}
		approved = true
		// Of a catch-up the limit is that of all of them.
		_, err = tx.ExecContext(ctx, `UPDATE reconciliation_runs SET downgrade_limit = ? WHERE id = ? AND strategy <> ?`, a.Limit, runID, billing.StrategyEvents)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO reconciliation_orders (run_id, approved_limit, approved_by, approved_at) VALUES (?,?,?,?)
			ON DUPLICATE KEY UPDATE approved_limit = VALUES(approved_limit), approved_by = VALUES(approved_by), approved_at = VALUES(approved_at)`,
			runID, a.Limit, atMost(billing.MaxWho, a.By), a.At)
		return err
	})
	return approved && err == nil, failure(err, "set the limit of run "+runID)
}
