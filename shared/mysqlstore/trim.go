package mysqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// talliesOfRun selects from the counts of the trimmed items of the run whose id is the first argument.
const talliesOfRun = ` FROM reconciliation_tallies t WHERE t.run_key = ` + keyOfRun + ` AND `

const (
	// trimBatch limits a trimming transaction, so that it holds few locks.
	trimBatch = 1000
	// trimBatches limits the work of a call, because the tick has other work.
	trimBatches = 200
)

// Trim deletes the plainly skipped items of closed runs and keeps their counts: they are nearly all items, and
// are reported only as counts. Runs must have started before the given time, catch-ups before another. Each
// small transaction counts what it deletes, so that the run's totals are right at any time. A call does a
// limited amount of work and can be interrupted; the next one continues.
func (s *Store) Trim(ctx context.Context, before, catchUps time.Time) error {
	ids, err := selectStrings(ctx, s.db, `SELECT id FROM reconciliation_runs r WHERE started_at < CASE WHEN strategy = ? THEN ? ELSE ? END AND status NOT IN (?,?)
		AND (`+itemOfRun+` AND `+plainlySkipped+` LIMIT 1) = 1 ORDER BY started_at`,
		billing.StrategyEvents, catchUps, before, billing.RunEnumerating, billing.RunRunning)
	left := trimBatches
	for _, id := range ids {
		for after, more := "", true; more && err == nil && left > 0; left-- {
			after, more, err = s.trimNext(ctx, id, after)
		}
	}
	return failure(err, "trim old runs")
}

// errReopened: the run has been reopened.
var errReopened = errors.New("the run is open again")

// lockClosed locks a closed run until the transaction ends, so that it is not reopened; [errReopened] if it has
// been.
func lockClosed(ctx context.Context, tx *sql.Tx, runID string) error {
	closed, err := selectStrings(ctx, tx, `SELECT id FROM reconciliation_runs WHERE id = ? AND status NOT IN (?,?) FOR UPDATE`,
		runID, billing.RunEnumerating, billing.RunRunning)
	if err == nil && len(closed) == 0 {
		err = errReopened
	}
	return err
}

// trimNext trims the next batch after an organization, so that items that stay are read once.
func (s *Store) trimNext(ctx context.Context, runID, after string) (through string, more bool, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		key, err := runKey(ctx, tx, runID)
		if err != nil {
			return err
		}
		orgs, counts, err := lockPlainItems(ctx, tx, key, after)
		if err != nil || len(orgs) == 0 {
			return err
		}
		through, more = orgs[len(orgs)-1], len(orgs) == trimBatch
		if err := deleteItems(ctx, tx, key, orgs); err != nil {
			return err
		}
		if err := addTallies(ctx, tx, key, counts); err != nil {
			return err
		}
		return lockClosed(ctx, tx, runID)
	})
	if errors.Is(err, errReopened) {
		return "", false, nil
	}
	return through, more, err
}

// tally is what remains of a plainly skipped item.
type tally struct {
	reason   billing.Reason
	governed bool
}

// lockPlainItems locks the run's next plainly skipped items and counts them.
func lockPlainItems(ctx context.Context, tx *sql.Tx, key int64, after string) (orgs []string, counts map[tally]int, err error) {
	counts = map[tally]int{}
	err = query(ctx, tx, func(r *sql.Rows) error {
		var org string
		var one tally
		err := r.Scan(&org, &one.reason, &one.governed)
		orgs, counts[one] = append(orgs, org), counts[one]+1
		return err
	}, "SELECT i.org_id, i.reason, i.governed FROM reconciliation_items i FORCE INDEX (`PRIMARY`) WHERE i.run_key = ? AND i.org_id > ? AND "+
		plainlySkipped+` ORDER BY i.org_id LIMIT ? FOR UPDATE`, key, after, trimBatch)
	return orgs, counts, err
}

const (
	deleteItemRows  = `DELETE FROM reconciliation_items WHERE run_key = ? AND org_id IN `
	deleteNamedRows = `DELETE FROM reconciliation_named WHERE run_key = ? AND org_id IN `
)

func deleteItems(ctx context.Context, tx *sql.Tx, key int64, orgs []string) error {
	args := append([]any{key}, toAny(orgs)...)
	if _, err := tx.ExecContext(ctx, deleteNamedRows+placeholders(len(orgs)), args...); err != nil {
		return err
	}
	res, err := tx.ExecContext(ctx, deleteItemRows+placeholders(len(orgs)), args...)
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err == nil && int(n) != len(orgs) {
		err = fmt.Errorf("%d items were deleted, %d counted", n, len(orgs))
	}
	return err
}

const insertTallies = `INSERT INTO reconciliation_tallies (run_key, reason, governed, items) VALUES `

func addTallies(ctx context.Context, tx *sql.Tx, key int64, counts map[tally]int) error {
	var args []any
	for one, n := range counts {
		args = append(args, key, one.reason, one.governed, n)
	}
	return insertRows(ctx, tx, insertTallies, 4, args, ` ON DUPLICATE KEY UPDATE items = items + VALUES(items)`)
}
