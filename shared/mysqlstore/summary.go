package mysqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// itemPage is how many items are held in memory at a time.
const itemPage = 1000

const (
	// itemOfRun selects items of run r by the index of outcomes, which MySQL would not always choose. It must be used with
	// LIMIT, or the server may turn the subquery into a join that scans the whole table.
	itemOfRun  = `SELECT 1 FROM reconciliation_items i FORCE INDEX (idx_reconciliation_items_outcome) WHERE i.run_key = r.run_key`
	hasPending = `(` + itemOfRun + ` AND i.outcome = 'pending' LIMIT 1) = 1`
	hasError   = `(` + itemOfRun + ` AND i.outcome = 'error' LIMIT 1) = 1`
	// plainlySkipped is [billing.Item.PlainlySkipped] in SQL.
	plainlySkipped = `(i.outcome = 'skipped' AND i.warnings IS NULL)`
)

// HasPending reports whether an organization of the run has no outcome yet.
func (s *Store) HasPending(ctx context.Context, runID string) (bool, error) {
	ids, err := selectStrings(ctx, s.db, `SELECT id FROM reconciliation_runs r WHERE id = ? AND `+hasPending, runID)
	return len(ids) > 0, failure(err, "look for pending organizations of run "+runID)
}

// Tallies counts the run's items, trimmed ones too, by outcome and reason.
func (s *Store) Tallies(ctx context.Context, runID string) ([]billing.Tally, error) {
	var tallies []billing.Tally
	err := query(ctx, s.db, func(r *sql.Rows) error {
		var t billing.Tally
		err := r.Scan(&t.Outcome, &t.Reason, &t.Items)
		tallies = append(tallies, t)
		return err
	}, `SELECT outcome, reason, SUM(items) FROM (SELECT i.outcome, i.reason, COUNT(*) AS items`+itemsOfRun+`TRUE GROUP BY i.outcome, i.reason
		UNION ALL SELECT 'skipped', t.reason, t.items`+talliesOfRun+`TRUE) c GROUP BY outcome, reason`, runID, runID)
	return tallies, failure(err, "count the outcomes of run "+runID)
}

// Drift counts what differed in the run. It holds one page of items in memory.
func (s *Store) Drift(ctx context.Context, runID string) (billing.Drift, error) {
	var drift billing.Drift
	err := s.eachItem(ctx, runID, `(i.outcome IN ('synced','drifted','error') OR i.warnings IS NOT NULL)`, func(i billing.Item) error {
		drift.Add(i, s.tiers)
		return nil
	})
	return drift, err
}

// eachItem calls fn for the run's items that fit the condition, by organization id. It holds one page of items
// in memory.
func (s *Store) eachItem(ctx context.Context, runID, condition string, fn func(billing.Item) error) error {
	after := ""
	for {
		page, err := s.itemsWhere(ctx, runID, `i.org_id > ? AND `+condition+` ORDER BY i.org_id LIMIT ?`, after, itemPage)
		if err != nil {
			return err
		}
		for _, i := range page {
			if err := fn(i); err != nil {
				return err
			}
			after = i.OrgID
		}
		if len(page) < itemPage {
			return nil
		}
	}
}

// Notable returns items that are not plainly skipped, errors first, then by organization: at most limit in
// error, limit others with warnings, and limit others without.
func (s *Store) Notable(ctx context.Context, runID string, limit int) ([]billing.Item, error) {
	var errored, others []billing.Item
	for _, kind := range []struct {
		condition string
		into      *[]billing.Item
	}{
		{`i.outcome = 'error'`, &errored},
		{`i.outcome IN ('synced','drifted','skipped') AND i.warnings IS NOT NULL`, &others},
		{`i.outcome IN ('synced','drifted') AND i.warnings IS NULL`, &others},
	} {
		items, err := s.itemsWhere(ctx, runID, kind.condition+` ORDER BY i.org_id LIMIT ?`, limit)
		if err != nil {
			return nil, err
		}
		*kind.into = append(*kind.into, items...)
	}
	slices.SortFunc(others, func(a, b billing.Item) int { return strings.Compare(a.OrgID, b.OrgID) })
	return append(errored, others...), nil
}

func (s *Store) itemsWhere(ctx context.Context, runID, condition string, args ...any) ([]billing.Item, error) {
	var items []billing.Item
	err := query(ctx, s.db, func(r *sql.Rows) error {
		i, err := scanItem(r, runID)
		items = append(items, i)
		return err
	}, `SELECT `+itemColumns+itemsOfRun+condition, append([]any{runID}, args...)...)
	if err == nil {
		pointers := make([]*billing.Item, len(items))
		for i := range items {
			pointers[i] = &items[i]
		}
		err = s.addToItems(ctx, runID, pointers)
	}
	return items, failure(err, "read items")
}

// addToItems gives the items their causes and acceptances.
func (s *Store) addToItems(ctx context.Context, runID string, items []*billing.Item) error {
	if err := s.addCauses(ctx, runID, items); err != nil {
		return err
	}
	return s.addAcceptances(ctx, runID, items)
}

// CloseRun closes the run with its summary if its status is still from, and announces the end in the same
// transaction. It reports whether this call closed it: only that caller reports the run.
func (s *Store) CloseRun(ctx context.Context, end billing.End, from billing.RunStatus) (bool, error) {
	text, err := json.Marshal(end.Summary)
	if err != nil {
		return false, err
	}
	return s.putSummary(ctx, end, string(text), `status = ?`, from)
}

// AmendRun replaces the summary of a closed run. It returns false if the status is no longer from, the summary
// no longer has this revision, or the summary would not change.
func (s *Store) AmendRun(ctx context.Context, end billing.End, from billing.RunStatus, revision int) (bool, error) {
	text, err := json.Marshal(end.Summary)
	if err != nil {
		return false, err
	}
	return s.putSummary(ctx, end, string(text), `status = ? AND summary_revision = ? AND (summary IS NULL OR summary <> ?)`,
		from, revision, string(text))
}

// putSummary writes the summary, encoded as text, if the condition holds.
func (s *Store) putSummary(ctx context.Context, end billing.End, text, condition string, args ...any) (ok bool, err error) {
	summary := end.Summary
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		ok, err = execMatched(ctx, tx, `UPDATE reconciliation_runs SET status = ?, status_reason = ?, status_message = ?, summary = ?, subscriptions = ?,
			summary_revision = summary_revision + 1, finished_at = ?, lease_owner = '', lease_expires_at = NULL WHERE id = ? AND `+condition,
			append([]any{
				summary.Status, summary.StatusReason, summary.StatusMessage, text, end.Baseline.Subscriptions, summary.FinishedAt, summary.RunID,
			}, args...)...)
		if err != nil || !ok || end.Text == "" {
			return err
		}
		return s.announceEnd(ctx, tx, end)
	})
	return ok && err == nil, failure(err, "write the summary of run "+summary.RunID)
}

// CountGoverned returns how many organizations of the run have a governing Stripe subscription.
func (s *Store) CountGoverned(ctx context.Context, runID string) (int, error) {
	var n int
	err := s.db.QueryRowContext(ctx, `SELECT (SELECT COUNT(*)`+itemsOfRun+`i.governed) + (SELECT COALESCE(SUM(t.items), 0)`+talliesOfRun+`t.governed)`, runID, runID).Scan(&n)
	return n, failure(err, "count the subscriptions of run "+runID)
}

// isFullRun selects runs over all organizations that are no catch-ups: [billing.KindFull].
const isFullRun = `(org_id = '' AND strategy <> 'events')`

// isOpen selects the runs for which [billing.RunStatus.Open] is true.
const isOpen = `(status IN ('enumerating','running'))`

// LastFullRunCounts returns the counts of the last trustworthy full run that started before the given time;
// zero if there is none. A run with errors and no subscriptions is not trustworthy: Stripe did not answer it.
func (s *Store) LastFullRunCounts(ctx context.Context, before time.Time) (billing.Baseline, error) {
	var seen billing.Baseline
	err := query(ctx, s.db, func(r *sql.Rows) error { return r.Scan(&seen.Organizations, &seen.Subscriptions) },
		`SELECT total, subscriptions FROM reconciliation_runs WHERE `+isFullRun+` AND status IN ('completed','completed_with_errors')
		AND (status = 'completed' OR subscriptions > 0) AND started_at < ? ORDER BY started_at DESC LIMIT 1`, before)
	return seen, failure(err, "look for the run before")
}

// RunsToClose returns the runs to close: running without a pending item, open past their deadline, or stopped
// without a summary.
func (s *Store) RunsToClose(ctx context.Context, now time.Time) ([]billing.Run, error) {
	return s.runsWhere(ctx, `(status = 'running' AND `+hasPending+` IS NOT TRUE)
		OR (`+isOpen+` AND deadline_at < ?) OR (status = 'stopped' AND summary IS NULL) ORDER BY started_at`, now)
}

// LastFullRunAt returns when the last full run that was no dry run completed; nil if none did. It ignores times
// after by, which a wrong clock has set.
func (s *Store) LastFullRunAt(ctx context.Context, by time.Time) (*time.Time, error) {
	var at *time.Time
	err := s.db.QueryRowContext(ctx, `SELECT MAX(finished_at) FROM reconciliation_runs
		WHERE `+isFullRun+` AND dry_run = FALSE AND status IN ('completed','completed_with_errors') AND finished_at <= ?`, by).Scan(&at)
	return at, failure(err, "look for the last completed run")
}

// CreatedAt returns when this system's own tables were created.
func (s *Store) CreatedAt(ctx context.Context) (time.Time, error) {
	var at time.Time
	err := s.db.QueryRowContext(ctx, `SELECT MIN(tstamp) FROM reconciliation_migrations`).Scan(&at)
	return at, failure(err, "look up when this system's own tables were created")
}

// pruneBatch limits a pruning transaction, so that it holds few locks.
const pruneBatch = 1000

// Prune deletes closed runs that started before the given time, with their items, in small transactions, and
// returns how many runs it deleted. It can be interrupted and repeated: a run is deleted after its last item.
func (s *Store) Prune(ctx context.Context, before time.Time) (int, error) {
	return s.prune(ctx, `SELECT id FROM reconciliation_runs WHERE started_at < ? AND NOT `+isOpen+` ORDER BY started_at`, before)
}

// PruneEmptyCatchUps deletes closed catch-ups that started before the given time, listed no organization and
// have no message, and returns how many.
func (s *Store) PruneEmptyCatchUps(ctx context.Context, before time.Time) (int, error) {
	return s.prune(ctx, `SELECT id FROM reconciliation_runs r WHERE strategy = 'events' AND started_at < ? AND NOT `+isOpen+` AND (status_reason = '' OR status = 'stopped')
		AND (`+itemOfRun+` LIMIT 1) IS NULL AND NOT EXISTS (SELECT 1 FROM reconciliation_tallies t WHERE t.run_key = r.run_key) ORDER BY started_at`, before)
}

// prune deletes the runs that the query finds, except baselines.
func (s *Store) prune(ctx context.Context, closed string, before time.Time) (int, error) {
	ids, err := selectStrings(ctx, s.db, closed, before)
	if err != nil || len(ids) == 0 {
		return 0, failure(err, "look for runs to prune")
	}
	kept, err := s.baselineRuns(ctx)
	if err != nil {
		return 0, failure(err, "look for runs to keep")
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return slices.Contains(kept, id) })
	for n, id := range ids {
		if err := s.pruneRun(ctx, id); err != nil {
			return n, failure(err, "prune run "+id)
		}
	}
	return len(ids), nil
}

// baselineRuns are the runs from which [Store.LastFullRunCounts], [Store.LastFullRunAt] and
// [Store.CatchUpCoverage] answer, unless a wrong clock dated the latest into the future. They are never pruned:
// if nothing completes for months, the age of the last run and the comparison with it matter most.
func (s *Store) baselineRuns(ctx context.Context) ([]string, error) {
	return selectStrings(ctx, s.db, `(SELECT id FROM reconciliation_runs WHERE `+isFullRun+` AND status IN ('completed','completed_with_errors')
			ORDER BY started_at DESC LIMIT 1)
		UNION (SELECT id FROM reconciliation_runs WHERE `+isFullRun+` AND status IN ('completed','completed_with_errors') AND dry_run = FALSE
			ORDER BY finished_at DESC, started_at DESC LIMIT 1)
		UNION (SELECT w.run_id FROM `+baselineWindows+` AND `+isCoverage+` ORDER BY w.to_at DESC, w.run_id DESC LIMIT 1)`)
}

func (s *Store) pruneRun(ctx context.Context, runID string) error {
	if err := s.DeleteSnapshot(ctx, runID); err != nil {
		return err
	}
	key, err := runKey(ctx, s.db, runID)
	if err != nil {
		return err
	}
	for more := true; more; {
		err := s.inTx(ctx, func(tx *sql.Tx) error {
			err := lockClosed(ctx, tx, runID)
			if err == nil {
				more, err = execMatched(ctx, tx, `DELETE FROM reconciliation_items WHERE run_key = ? ORDER BY org_id LIMIT ?`, key, pruneBatch)
			}
			return err
		})
		if errors.Is(err, errReopened) {
			return nil // it will be pruned after it is closed again
		}
		if err != nil {
			return err
		}
	}
	if err := s.pruneEvents(ctx, key); err != nil {
		return err
	}
	// Quickly and at the end: a run without its window cannot be resumed.
	for _, table := range []string{
		"reconciliation_sweeps", "reconciliation_accounts", "reconciliation_archives", "reconciliation_orders",
		"reconciliation_windows", "reconciliation_unreadable",
	} {
		if _, err := s.db.ExecContext(ctx, `DELETE FROM `+table+` WHERE run_id = ?`, runID); err != nil { //nolint:gosec // table is one of the list above
			return err
		}
	}
	if _, err := s.db.ExecContext(ctx, `DELETE FROM reconciliation_tallies WHERE run_key = ?`, key); err != nil {
		return err
	}
	_, err = s.db.ExecContext(ctx, `DELETE FROM reconciliation_runs WHERE id = ?`, runID)
	return err
}
