package mysqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// talliesOfRun are the counts of one run's trimmed items: its id is the first argument.
const talliesOfRun = ` FROM reconciliation_tallies t WHERE t.run_key = ` + keyOfRun + ` AND `

const (
	// trimPage bounds a trimming transaction, so that it never holds many locks.
	trimPage = 1000
	// trimPages bounds what one call does: the tick has other things to look after.
	trimPages = 200
)

// Trim deletes the plainly skipped items of closed runs that started before the given time, of catch-ups
// before another, and keeps their counts: nearly all items are such, and nothing is told of them. Each small transaction
// deletes what it counts, so that the run adds up at any time; interrupted, or with much to do, it goes on
// next time.
func (s *Store) Trim(ctx context.Context, before, catchUps time.Time) error {
	ids, err := texts(ctx, s.db, `SELECT id FROM reconciliation_runs r WHERE started_at < CASE WHEN strategy = ? THEN ? ELSE ? END AND status NOT IN (?,?)
		AND (`+anItem+` AND `+plainlySkipped+` LIMIT 1) = 1 ORDER BY started_at`,
		billing.StrategyEvents, catchUps, before, billing.RunEnumerating, billing.RunRunning)
	left := trimPages
	for _, id := range ids {
		for after, more := "", true; more && err == nil && left > 0; left-- {
			after, more, err = s.trimSome(ctx, id, after)
		}
	}
	return failure(err, "trim old runs")
}

// errReopened: somebody resumes the run.
var errReopened = errors.New("the run is open again")

// keepClosed locks a closed run, so that nobody reopens it before the transaction ends; [errReopened] if
// somebody has.
func keepClosed(ctx context.Context, tx *sql.Tx, runID string) error {
	closed, err := texts(ctx, tx, `SELECT id FROM reconciliation_runs WHERE id = ? AND status NOT IN (?,?) FOR UPDATE`,
		runID, billing.RunEnumerating, billing.RunRunning)
	if err == nil && len(closed) == 0 {
		err = errReopened
	}
	return err
}

// trimSome goes on behind an organization, so that what stays is passed over once.
func (s *Store) trimSome(ctx context.Context, runID, after string) (through string, more bool, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		key, err := runKey(ctx, tx, runID)
		if err != nil {
			return err
		}
		orgs, counts, err := plainItems(ctx, tx, key, after)
		if err != nil || len(orgs) == 0 {
			return err
		}
		through, more = orgs[len(orgs)-1], len(orgs) == trimPage
		if err := deleteItems(ctx, tx, key, orgs); err != nil {
			return err
		}
		if err := addTallies(ctx, tx, key, counts); err != nil {
			return err
		}
		return keepClosed(ctx, tx, runID)
	})
	if errors.Is(err, errReopened) {
		return "", false, nil
	}
	return through, more, err
}

// said is what is kept of a plainly skipped item.
type said struct {
	reason   billing.Reason
	governed bool
}

// plainItems locks the next of the run's and counts them.
func plainItems(ctx context.Context, tx *sql.Tx, key int64, after string) (orgs []string, counts map[said]int, err error) {
	counts = map[said]int{}
	err = query(ctx, tx, func(r *sql.Rows) error {
		var org string
		var one said
		err := r.Scan(&org, &one.reason, &one.governed)
		orgs, counts[one] = append(orgs, org), counts[one]+1
		return err
	}, "SELECT i.org_id, i.reason, i.governed FROM reconciliation_items i FORCE INDEX (`PRIMARY`) WHERE i.run_key = ? AND i.org_id > ? AND "+
		plainlySkipped+` ORDER BY i.org_id LIMIT ? FOR UPDATE`, key, after, trimPage)
	return orgs, counts, err
}

const (
	deleteItemRows  = `DELETE FROM reconciliation_items WHERE run_key = ? AND org_id IN `
	deleteNamedRows = `DELETE FROM reconciliation_named WHERE run_key = ? AND org_id IN `
)

func deleteItems(ctx context.Context, tx *sql.Tx, key int64, orgs []string) error {
	args := append([]any{key}, anys(orgs)...)
	if _, err := tx.ExecContext(ctx, deleteNamedRows+in(len(orgs)), args...); err != nil {
		return err
	}
	res, err := tx.ExecContext(ctx, deleteItemRows+in(len(orgs)), args...)
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

func addTallies(ctx context.Context, tx *sql.Tx, key int64, counts map[said]int) error {
	var args []any
	for one, n := range counts {
		args = append(args, key, one.reason, one.governed, n)
	}
	return insertRows(ctx, tx, insertTallies, 4, args, ` ON DUPLICATE KEY UPDATE items = items + VALUES(items)`)
}
