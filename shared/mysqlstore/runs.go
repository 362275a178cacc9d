package mysqlstore

import (
	"context"
	"database/sql"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

const runColumns = `id, request_id, status, dry_run, strategy, org_id, total, listed, listed_through, sent_through,
	downgrades, downgrade_limit, status_reason, status_message, stripe_list, stripe_retrieve, stripe_other, stripe_throttled,
	started_at, deadline_at, finished_at, summary IS NOT NULL, summary_revision,
	COALESCE(s.state, ''), s.began_at, s.orphans IS NOT NULL, EXISTS (SELECT 1 FROM reconciliation_tallies t WHERE t.run_key = r.run_key),
	COALESCE(o.asked_by, ''), COALESCE(o.allow_downgrade, FALSE), o.approved_limit, COALESCE(o.approved_by, ''), o.approved_at,
	w.run_id IS NOT NULL, w.from_at, w.to_at, COALESCE(w.own_since, FALSE), COALESCE(w.expired, FALSE), COALESCE(w.state, ''), COALESCE(w.after_id, ''),
	COALESCE((SELECT u.events FROM reconciliation_unreadable u WHERE u.run_id = r.id), 0),
	COALESCE((SELECT a.account_id FROM reconciliation_accounts a WHERE a.run_id = r.id), '')`

func scanRun(r *sql.Rows) (billing.Run, error) {
	var run billing.Run
	var requestID, statusMessage sql.NullString
	var approval billing.Approval
	var limit sql.NullInt64
	var approvedAt sql.NullTime
	var windowed bool
	var window billing.Window
	var from, to sql.NullTime
	err := r.Scan(&run.ID, &requestID, &run.Status, &run.DryRun, &run.Strategy, &run.OrgID, &run.Total, &run.Listed,
		&run.ListedThrough, &run.SentThrough, &run.Downgrades, &run.DowngradeLimit, &run.StatusReason, &statusMessage,
		&run.Usage.List, &run.Usage.Retrieve, &run.Usage.Other, &run.Usage.Throttled,
		&run.StartedAt, &run.DeadlineAt, &run.FinishedAt, &run.Summarized, &run.SummaryRevision,
		&run.Sweep, &run.SweptFrom, &run.OrphansRecorded, &run.Trimmed,
		&run.By, &run.AllowDowngrade, &limit, &approval.By, &approvedAt,
		&windowed, &from, &to, &window.Since, &window.Expired, &window.State, &window.After, &window.Unreadable, &run.AccountID)
	if limit.Valid {
		approval.Limit, approval.At = int(limit.Int64), approvedAt.Time
		run.Approval = &approval
	}
	if windowed {
		window.From, window.To = from.Time, to.Time
		run.Window = &window
	}
	run.RequestID, run.StatusMessage = requestID.String, statusMessage.String
	return run, err
}

func (s *Store) runsWhere(ctx context.Context, condition string, args ...any) ([]billing.Run, error) {
	var runs []billing.Run
	err := query(ctx, s.db, func(r *sql.Rows) error {
		run, err := scanRun(r)
		runs = append(runs, run)
		return err
	}, `SELECT `+runColumns+` FROM reconciliation_runs r LEFT JOIN reconciliation_sweeps s ON s.run_id = id
		LEFT JOIN reconciliation_orders o ON o.run_id = id LEFT JOIN reconciliation_windows w ON w.run_id = id WHERE `+condition, args...)
	return runs, failure(err, "read runs")
}

// OpenRun creates the run and returns it. A second delivery, with the id or request id of an existing run,
// creates nothing and returns that run.
func (s *Store) OpenRun(ctx context.Context, run billing.Run) (billing.Run, error) {
	err := s.inTx(ctx, func(tx *sql.Tx) error { return insertRun(ctx, tx, run) })
	if err != nil && !isDuplicateKey(err) {
		return billing.Run{}, failure(err, "open run "+run.ID)
	}
	return s.existingRun(ctx, run)
}

func insertRun(ctx context.Context, e execer, run billing.Run) error {
	_, err := e.ExecContext(ctx, `INSERT INTO reconciliation_runs
		(id, request_id, status, dry_run, strategy, org_id, started_at, deadline_at) VALUES (?,?,?,?,?,?,?,?)`,
		run.ID, requestID(run), billing.RunEnumerating, run.DryRun, run.Strategy, run.OrgID, run.StartedAt, run.DeadlineAt)
	if err != nil {
		return err
	}
	return insertStart(ctx, e, run)
}

func requestID(run billing.Run) sql.NullString {
	return sql.NullString{String: run.RequestID, Valid: run.RequestID != ""}
}

// existingRun returns the run with this id or request id.
func (s *Store) existingRun(ctx context.Context, run billing.Run) (billing.Run, error) {
	runs, err := s.runsWhere(ctx, `id = ? OR request_id = ?`, run.ID, requestID(run))
	if err == nil && len(runs) == 0 {
		err = failure(sql.ErrNoRows, "find run "+run.ID+" just opened")
	}
	if err != nil {
		return billing.Run{}, err
	}
	return runs[0], nil
}

// Runs returns the runs with these ids, by id; unknown ones are absent.
func (s *Store) Runs(ctx context.Context, ids []string) (map[string]billing.Run, error) {
	found := make(map[string]billing.Run, len(ids))
	if len(ids) == 0 {
		return found, nil
	}
	runs, err := s.runsWhere(ctx, `id IN `+placeholders(len(ids)), toAny(ids)...)
	for _, run := range runs {
		found[run.ID] = run
	}
	return found, err
}

// Run returns the run with this id, or a permanent unknown_run failure.
func (s *Store) Run(ctx context.Context, id string) (billing.Run, error) {
	runs, err := s.Runs(ctx, []string{id})
	if err != nil {
		return billing.Run{}, err
	}
	run, ok := runs[id]
	if !ok {
		return billing.Run{}, billing.UnknownRun(id)
	}
	return run, nil
}

// leaseIsFree holds for a lease without an owner, an expired one, and one that ends later than a correct clock
// can have set, whose owner may be dead. If the owner is alive, taking the lease is safe: every write checks
// it.
const leaseIsFree = `(lease_owner = '' OR lease_expires_at < ? OR lease_expires_at > ?)`

// maxLeaseEnd is the latest end of a lease that a correct clock can have set.
func maxLeaseEnd(now time.Time) time.Time { return now.Add(billing.LeaseTTL + billing.ClockSkew) }

// ResumableRuns returns the ids of the runs that are enumerating and whose lease is free.
func (s *Store) ResumableRuns(ctx context.Context, now time.Time) ([]string, error) {
	ids, err := selectStrings(ctx, s.db, `SELECT id FROM reconciliation_runs
		WHERE status = ? AND `+leaseIsFree+` ORDER BY started_at`, billing.RunEnumerating, now, maxLeaseEnd(now))
	return ids, failure(err, "find runs to resume")
}

// AcquireLease makes the lease's owner the only enumerator of the run until the lease ends. It returns false if
// another one has the lease or the run is not enumerating.
func (s *Store) AcquireLease(ctx context.Context, l billing.Lease, now time.Time) (bool, error) {
	ok, err := execMatched(ctx, s.db, `UPDATE reconciliation_runs SET lease_owner = ?, lease_expires_at = ?
		WHERE id = ? AND status = ? AND (lease_owner = ? OR `+leaseIsFree+`)`,
		l.Owner, l.End, l.RunID, billing.RunEnumerating, l.Owner, now, maxLeaseEnd(now))
	return ok, failure(err, "acquire the lease of run "+l.RunID)
}

// ReleaseLease ends the owner's lease.
func (s *Store) ReleaseLease(ctx context.Context, l billing.Lease) error {
	_, err := s.db.ExecContext(ctx, `UPDATE reconciliation_runs SET lease_owner = '', lease_expires_at = NULL
		WHERE id = ? AND lease_owner = ?`, l.RunID, l.Owner)
	return failure(err, "release the lease of run "+l.RunID)
}

// ListOrganizations reads the next organizations after an id; if only is set, that one. In one transaction it
// creates pending items for those that the database connects with Stripe or that have another tier than free, the
// lowest, and moves the run's cursor. It returns how many organizations it read and the new cursor; fewer than limit is
// the end.
func (s *Store) ListOrganizations(ctx context.Context, l billing.Lease, free billing.Tier, only, after string, limit int) (n int, through string, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		var items []billing.Item
		if n, through, items, err = nextOrganizations(ctx, tx, free, only, after, limit); err != nil {
			return err
		}
		if err := insertItems(ctx, tx, l.RunID, items); err != nil {
			return err
		}
		return updateLeased(ctx, tx, l, `listed_through = ?, lease_expires_at = ?`, through, l.End)
	})
	return n, through, failure(err, "list the organizations of run "+l.RunID)
}

// nextOrganizations reads the next organizations that are not deleted. It returns their number, the new cursor,
// and items for those to list. A single organization is always listed.
func nextOrganizations(ctx context.Context, q querier, free billing.Tier, only, after string, limit int) (n int, through string, items []billing.Item, err error) {
	through = after
	stmt, args := listPage, []any{free, after, limit}
	if only != "" {
		stmt, args = listOne, []any{only, after}
	}
	err = query(ctx, q, func(r *sql.Rows) error {
		var listed bool
		if err := r.Scan(&through, &listed); err != nil {
			return err
		}
		n++
		if listed {
			items = append(items, billing.Item{OrgID: through})
		}
		return nil
	}, stmt, args...)
	return n, through, items, err
}

const insertItemRows = `INSERT INTO reconciliation_items (run_key, org_id, subscription_id) VALUES `

// insertItems creates pending items. For an existing item it only sets the subscription.
func insertItems(ctx context.Context, tx *sql.Tx, runID string, items []billing.Item) error {
	if len(items) == 0 {
		return nil
	}
	key, err := runKey(ctx, tx, runID)
	if err != nil {
		return err
	}
	args := make([]any, 0, 3*len(items))
	for _, i := range items {
		args = append(args, key, i.OrgID, i.SubscriptionID)
	}
	return insertRows(ctx, tx, insertItemRows, 3, args, ` ON DUPLICATE KEY UPDATE subscription_id = VALUES(subscription_id)`)
}

// updateLeased updates a run that is enumerating under the lease; it fails with [billing.ErrLeaseLost] for any
// other.
func updateLeased(ctx context.Context, e execer, l billing.Lease, set string, args ...any) error {
	ok, err := execMatched(ctx, e, `UPDATE reconciliation_runs SET `+set+` WHERE id = ? AND lease_owner = ? AND status = ?`,
		append(args, l.RunID, l.Owner, billing.RunEnumerating)...)
	if err == nil && !ok {
		return billing.ErrLeaseLost
	}
	return err
}

func renewLease(ctx context.Context, e execer, l billing.Lease) error {
	return updateLeased(ctx, e, l, `lease_expires_at = ?`, l.End)
}

// inLeasedTx runs fn in a transaction that first checks and renews the lease.
func (s *Store) inLeasedTx(ctx context.Context, l billing.Lease, fn func(*sql.Tx) error) error {
	return s.inTx(ctx, func(tx *sql.Tx) error {
		if err := renewLease(ctx, tx, l); err != nil {
			return err
		}
		return fn(tx)
	})
}

// CountItems returns the number of the run's organizations.
func (s *Store) CountItems(ctx context.Context, runID string) (int, error) {
	var n int
	err := s.db.QueryRowContext(ctx, `SELECT (SELECT COUNT(*)`+itemsOfRun+`TRUE) + (SELECT COALESCE(SUM(t.items), 0)`+talliesOfRun+`TRUE)`, runID, runID).Scan(&n)
	return n, failure(err, "count the organizations of run "+runID)
}

// FinishListing stores that every organization is listed, their number, and the downgrade limit, unless a
// limit was approved meanwhile.
func (s *Store) FinishListing(ctx context.Context, l billing.Lease, total, downgradeLimit int) error {
	err := updateLeased(ctx, s.db, l, `listed = TRUE, total = ?, downgrade_limit = CASE WHEN strategy = ? THEN ? ELSE
		COALESCE((SELECT o.approved_limit FROM reconciliation_orders o WHERE o.run_id = id), ?) END, lease_expires_at = ?`,
		total, billing.StrategyEvents, downgradeLimit, downgradeLimit, l.End)
	return failure(err, "finish the listing of run "+l.RunID)
}

// PendingAfter returns the next organizations without an outcome, by id.
func (s *Store) PendingAfter(ctx context.Context, runID, after string, limit int) ([]string, error) {
	ids, err := selectStrings(ctx, s.db, "SELECT i.org_id FROM reconciliation_items i FORCE INDEX (`PRIMARY`) WHERE i.run_key = "+keyOfRun+
		` AND i.outcome = 'pending' AND i.org_id > ? ORDER BY i.org_id LIMIT ?`, runID, after, limit)
	return ids, failure(err, "list the pending organizations of run "+runID)
}

// MarkSent stores that the queue has accepted the messages of all organizations up to through.
func (s *Store) MarkSent(ctx context.Context, l billing.Lease, through string) error {
	err := updateLeased(ctx, s.db, l, `sent_through = ?, lease_expires_at = ?`, through, l.End)
	return failure(err, "store the messages sent of run "+l.RunID)
}

// MarkRunning stores that all messages are sent, and releases the lease.
func (s *Store) MarkRunning(ctx context.Context, l billing.Lease) error {
	err := updateLeased(ctx, s.db, l, `status = ?, lease_owner = '', lease_expires_at = NULL`, billing.RunRunning)
	return failure(err, "mark run "+l.RunID+" as running")
}

// Reopen sets a run that stopped, ran out of time or lost its messages back to enumerating: it will sweep
// again, list what is not listed and send what is pending. If there is neither, only a stopped run is reopened,
// without a sweep, so that it is closed. From now on the run reads the given Stripe account, "" if unknown.
// Reopen returns false if the run needs nothing or is enumerating already. It refuses a catch-up while another
// one is enumerating.
func (s *Store) Reopen(ctx context.Context, runID, account string, deadline time.Time) (reopened bool, err error) {
	pending, err := s.HasPending(ctx, runID)
	if err != nil {
		return false, err
	}
	err = s.inTx(ctx, func(tx *sql.Tx) (err error) {
		if err := requireOnlyCatchUp(ctx, tx, runID); err != nil {
			return err
		}
		reopened, err = execMatched(ctx, tx, `UPDATE reconciliation_runs SET status = ?, sent_through = '', status_reason = '', status_message = NULL,
			finished_at = NULL, summary = NULL, summary_revision = summary_revision + 1, deadline_at = ?, lease_owner = '', lease_expires_at = NULL
			WHERE id = ? AND ((status IN (?,?) AND (listed = FALSE OR ?)) OR status = ?)`, billing.RunEnumerating, deadline,
			runID, billing.RunRunning, billing.RunIncomplete, pending, billing.RunStopped)
		if err != nil || !reopened {
			return err
		}
		if err := setAccount(ctx, tx, runID, account); err != nil {
			return err
		}
		return resetSweep(ctx, tx, runID, pending)
	})
	return reopened, failure(err, "reopen run "+runID)
}

// StopRun stops an open run for a reason that concerns all of it; organizations without an outcome stay
// pending. It reports whether this call stopped it.
func (s *Store) StopRun(ctx context.Context, runID string, reason billing.Reason, message string, now time.Time) (bool, error) {
	ok, err := execMatched(ctx, s.db, `UPDATE reconciliation_runs SET status = ?, status_reason = ?, status_message = ?, summary_revision = summary_revision + 1, finished_at = ?,
		lease_owner = '', lease_expires_at = NULL WHERE id = ? AND status IN (?,?)`,
		billing.RunStopped, reason, truncateMessage(message), now, runID, billing.RunEnumerating, billing.RunRunning)
	return ok, failure(err, "stop run "+runID)
}

// AddUsage adds to the run's counts of requests to Stripe.
func (s *Store) AddUsage(ctx context.Context, runID string, u billing.Usage) error {
	_, err := s.db.ExecContext(ctx, `UPDATE reconciliation_runs SET stripe_list = stripe_list + ?, stripe_retrieve = stripe_retrieve + ?,
		stripe_other = stripe_other + ?, stripe_throttled = stripe_throttled + ? WHERE id = ?`,
		u.List, u.Retrieve, u.Other, u.Throttled, runID)
	return failure(err, "count the Stripe requests of run "+runID)
}
