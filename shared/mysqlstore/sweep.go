package mysqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"hash/crc32"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// BeginSweep starts the run's sweep with one range of everything, after removing what an earlier
// one left. Interrupted, it is begun again.
func (s *Store) BeginSweep(ctx context.Context, runID, owner string, now, until time.Time) error {
	if err := s.dropSnapshot(ctx, runID, `lease_owner = ? AND status = ?`, owner, billing.RunEnumerating); err != nil {
		return err
	}
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		if err := advance(ctx, tx, runID, owner, `lease_expires_at = ?`, until); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO reconciliation_sweeps (run_id, began_at) VALUES (?,?)
			ON DUPLICATE KEY UPDATE state = VALUES(state), began_at = VALUES(began_at)`, runID, now)
		if err != nil {
			return err
		}
		return putRange(ctx, tx, runID, billing.Range{})
	})
	return failure(err, "begin the sweep of run "+runID)
}

func putRange(ctx context.Context, e execer, runID string, r billing.Range) error {
	_, err := e.ExecContext(ctx, `INSERT INTO reconciliation_ranges (run_id, created_before, created_from, after_id) VALUES (?,?,?,?)
		ON DUPLICATE KEY UPDATE created_from = VALUES(created_from), after_id = VALUES(after_id)`, runID, r.Before, r.From, r.After)
	return err
}

// Ranges returns what the run's sweep has yet to read.
func (s *Store) Ranges(ctx context.Context, runID string) ([]billing.Range, error) {
	var ranges []billing.Range
	err := query(ctx, s.db, func(r *sql.Rows) error {
		var one billing.Range
		err := r.Scan(&one.Before, &one.From, &one.After)
		ranges = append(ranges, one)
		return err
	}, `SELECT created_before, created_from, after_id FROM reconciliation_ranges WHERE run_id = ? ORDER BY created_before`, runID)
	return ranges, failure(err, "read how far the sweep of run "+runID+" is")
}

// StorePage adds a page of a range to the run's snapshot and, in the same transaction, puts what
// is left of the range in its place: nothing where the page was the last.
func (s *Store) StorePage(ctx context.Context, runID, owner string, of billing.Range, page billing.Page, left []billing.Range, until time.Time) error {
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		if err := advance(ctx, tx, runID, owner, `lease_expires_at = ?`, until); err != nil {
			return err
		}
		if err := insertSnapshot(ctx, tx, runID, page.Subscriptions); err != nil {
			return err
		}
		for _, r := range left {
			if err := putRange(ctx, tx, runID, r); err != nil {
				return err
			}
		}
		if len(left) == 0 {
			_, err := tx.ExecContext(ctx, `DELETE FROM reconciliation_ranges WHERE run_id = ? AND created_before = ?`, runID, of.Before)
			return err
		}
		return nil
	})
	return failure(err, "store what the sweep of run "+runID+" read")
}

// FinishSweep records how the sweep ended. It must not be called complete while a range is left.
func (s *Store) FinishSweep(ctx context.Context, runID, owner string, state billing.SweepState, until time.Time) error {
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		if err := advance(ctx, tx, runID, owner, `lease_expires_at = ?`, until); err != nil {
			return err
		}
		left, err := texts(ctx, tx, `SELECT run_id FROM reconciliation_ranges WHERE run_id = ? LIMIT 1`, runID)
		if err != nil {
			return err
		}
		if state == billing.SweepComplete && len(left) > 0 {
			return billing.ErrLeaseLost // another enumerator began it anew
		}
		_, err = tx.ExecContext(ctx, `UPDATE reconciliation_sweeps SET state = ? WHERE run_id = ?`, state, runID)
		return err
	})
	return failure(err, "finish the sweep of run "+runID)
}

// forgetSweep lets the run be swept anew, if anybody is pending or yet to be listed.
func forgetSweep(ctx context.Context, tx *sql.Tx, runID string, pending bool) error {
	unlisted, err := texts(ctx, tx, `SELECT id FROM reconciliation_runs WHERE id = ? AND listed = FALSE`, runID)
	if err != nil || (!pending && len(unlisted) == 0) {
		return err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM reconciliation_sweeps WHERE run_id = ?`, runID)
	return err
}

const snapshotColumns = `n.subscription_id, n.customer_id, n.org_id, n.status, n.price_id, n.metadata_tier, n.created,
	n.current_period_start, n.current_period_end, n.trial_end, n.canceled_at, n.ended_at, n.cancel_at_period_end, n.unreadable`

var insertSnapshotRows = `INSERT INTO reconciliation_snapshots (run_key, customer_hash, org_hash, ` + strings.ReplaceAll(snapshotColumns, "n.", "") + `) VALUES `

func insertSnapshot(ctx context.Context, tx *sql.Tx, runID string, subs []billing.Subscription) error {
	if len(subs) == 0 {
		return nil
	}
	key, err := runKey(ctx, tx, runID)
	if err != nil {
		return err
	}
	const columns = 17
	args := make([]any, 0, columns*len(subs))
	for _, sub := range subs {
		args = append(args, key, hash(sub.CustomerID), orgHash(sub), sub.ID, sub.CustomerID, sub.OrgID, sub.Status, sub.PriceID, sub.MetadataTier, seconds(sub.Created),
			seconds(sub.CurrentPeriodStart), seconds(sub.CurrentPeriodEnd), seconds(sub.TrialEnd), seconds(sub.CanceledAt), seconds(sub.EndedAt),
			sub.CancelAtPeriodEnd, sub.Unreadable || !fits(sub))
	}
	// A page that is read again is newer.
	rows := in(columns) + strings.Repeat(`,`+in(columns), len(subs)-1)
	_, err = tx.ExecContext(ctx, insertSnapshotRows+rows+` ON DUPLICATE KEY UPDATE customer_hash = VALUES(customer_hash), org_hash = VALUES(org_hash), customer_id = VALUES(customer_id),
		org_id = VALUES(org_id), status = VALUES(status), price_id = VALUES(price_id), metadata_tier = VALUES(metadata_tier), created = VALUES(created),
		current_period_start = VALUES(current_period_start), current_period_end = VALUES(current_period_end), trial_end = VALUES(trial_end),
		canceled_at = VALUES(canceled_at), ended_at = VALUES(ended_at), cancel_at_period_end = VALUES(cancel_at_period_end), unreadable = VALUES(unreadable)`, args...)
	return err
}

// hash leads to an id through an index that need not repeat it. Other ids have the same, so the ids
// found are compared.
func hash(id string) uint32 { return crc32.ChecksumIEEE([]byte(id)) }

// orgHash is NULL where the metadata names no organization, or nothing that is as short as an id.
func orgHash(sub billing.Subscription) sql.NullInt64 {
	key := billing.OrgKey(sub.OrgID)
	return sql.NullInt64{Int64: int64(hash(key)), Valid: key != "" && utf8.RuneCountInString(key) <= orgIDWidth}
}

// seconds is NULL for the zero time, and for one that the column cannot hold.
func seconds(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.Unix(), Valid: !t.IsZero() && inColumn(t)}
}

func inColumn(t time.Time) bool { return t.Unix() >= 0 && t.Unix() <= math.MaxUint32 }

// fits reports whether the snapshot can hold all of the subscription's times.
func fits(sub billing.Subscription) bool {
	for _, t := range []time.Time{sub.Created, sub.CurrentPeriodStart, sub.CurrentPeriodEnd, sub.TrialEnd, sub.CanceledAt, sub.EndedAt} {
		if !t.IsZero() && !inColumn(t) {
			return false
		}
	}
	return true
}

func fromSeconds(s sql.NullInt64) time.Time {
	if !s.Valid {
		return time.Time{}
	}
	return time.Unix(s.Int64, 0).UTC()
}

// Snapshot returns what the sweep saw that may concern the organizations: the subscriptions that
// their rows record, their customers' and those whose metadata names them, in one query whatever
// their number but for the run's. Others may be among them.
func (s *Store) Snapshot(ctx context.Context, runID string, records []billing.Record) ([]billing.Subscription, error) {
	if len(records) == 0 {
		return nil, nil
	}
	var ids, customers, orgs []any
	for _, r := range records {
		ids = append(ids, anys(r.RecordedIDs())...)
		for _, id := range r.CustomerIDs() {
			customers = append(customers, hash(id))
		}
		orgs = append(orgs, hash(billing.OrgKey(r.Org.ID)))
	}
	key, err := runKey(ctx, s.db, runID)
	if err != nil {
		return nil, failure(err, "look up run "+runID)
	}
	var found []string
	var args []any
	for _, by := range []struct {
		column string
		values []any
	}{{"subscription_id", ids}, {"customer_hash", customers}, {"org_hash", orgs}} {
		if len(by.values) > 0 {
			found = append(found, `SELECT id FROM reconciliation_snapshots WHERE run_key = ? AND `+by.column+` IN `+in(len(by.values)))
			args = append(append(args, key), by.values...)
		}
	}
	var subs []billing.Subscription
	err = query(ctx, s.db, func(r *sql.Rows) error {
		sub, err := scanSnapshot(r)
		subs = append(subs, sub)
		return err
	}, `SELECT `+snapshotColumns+` FROM (`+strings.Join(found, ` UNION `)+`) f
		JOIN reconciliation_snapshots n ON n.id = f.id`, args...)
	return subs, failure(err, "read the snapshot of run "+runID)
}

func scanSnapshot(r *sql.Rows) (billing.Subscription, error) {
	var sub billing.Subscription
	var created, start, end, trial, canceled, ended sql.NullInt64
	err := r.Scan(&sub.ID, &sub.CustomerID, &sub.OrgID, &sub.Status, &sub.PriceID, &sub.MetadataTier, &created,
		&start, &end, &trial, &canceled, &ended, &sub.CancelAtPeriodEnd, &sub.Unreadable)
	sub.Created, sub.CurrentPeriodStart, sub.CurrentPeriodEnd = fromSeconds(created), fromSeconds(start), fromSeconds(end)
	sub.TrialEnd, sub.CanceledAt, sub.EndedAt = fromSeconds(trial), fromSeconds(canceled), fromSeconds(ended)
	return sub, err
}

// DropSnapshot removes the snapshot of a run that is closed, a small transaction at a time.
// Interrupted, it goes on next time; if the run is reopened meanwhile, it leaves off.
func (s *Store) DropSnapshot(ctx context.Context, runID string) error {
	return s.dropSnapshot(ctx, runID, `status NOT IN (?,?)`, billing.RunEnumerating, billing.RunRunning)
}

// dropSnapshot removes the run's snapshot as long as the run fits the condition: what another
// enumerator is sweeping must not get holes.
func (s *Store) dropSnapshot(ctx context.Context, runID, condition string, args ...any) error {
	for after, more := int64(0), true; more; {
		err := s.inTx(ctx, func(tx *sql.Tx) error {
			fits, err := texts(ctx, tx, `SELECT id FROM reconciliation_runs WHERE id = ? AND `+condition+` FOR UPDATE`, append([]any{runID}, args...)...)
			if more = len(fits) > 0; err != nil || !more {
				return err
			}
			after, err = dropPage(ctx, tx, runID, after)
			if more = after > 0; err != nil || more {
				return err
			}
			_, err = tx.ExecContext(ctx, `DELETE FROM reconciliation_ranges WHERE run_id = ?`, runID)
			return err
		})
		if err != nil {
			return failure(err, "remove the snapshot of run "+runID)
		}
	}
	return nil
}

// dropPage removes the run's next rows behind one, and returns the last of them; 0 where there was none.
// Rows are read and locked by their number alone: by what else they are found, all of the run's would be.
func dropPage(ctx context.Context, tx *sql.Tx, runID string, after int64) (through int64, err error) {
	key, err := runKey(ctx, tx, runID)
	if err != nil {
		return 0, err
	}
	const rows = "reconciliation_snapshots n FORCE INDEX (`PRIMARY`) WHERE n.run_key = ? AND n.id > ?"
	err = query(ctx, tx, func(r *sql.Rows) error { return r.Scan(&through) },
		`SELECT COALESCE(MAX(id), 0) FROM (SELECT n.id FROM `+rows+` ORDER BY n.id LIMIT ?) p`, key, after, prunePage)
	if err != nil || through == 0 {
		return 0, err
	}
	_, err = tx.ExecContext(ctx, `DELETE n FROM `+rows+` AND n.id <= ?`, key, after, through)
	return through, err
}

// SnapshotsToDrop returns the closed runs that still have a snapshot: whoever closed one did not
// live to remove it. Each run is looked up by itself: a join would go through the whole snapshot.
func (s *Store) SnapshotsToDrop(ctx context.Context) ([]string, error) {
	ids, err := texts(ctx, s.db, `SELECT id FROM reconciliation_runs r WHERE status NOT IN (?,?)
		AND (SELECT 1 FROM reconciliation_snapshots n WHERE n.run_key = r.run_key LIMIT 1) = 1`, billing.RunEnumerating, billing.RunRunning)
	return ids, failure(err, "look for snapshots to remove")
}

// snapshotOfRun is what a run's snapshot has behind a subscription, by id: the ids of both are the first
// arguments. MySQL would not always read it in this order.
const snapshotOfRun = ` FROM reconciliation_snapshots n FORCE INDEX (idx_reconciliation_snapshots_subscription)
	WHERE n.run_key = ` + keyOfRun + ` AND n.subscription_id > ? AND `

// snapshotPage is how many subscriptions of a snapshot are looked at at a time. Of many more keys than
// these the optimizer thinks that the whole table is read sooner.
const snapshotPage = 500

// ListNamed looks at the next subscriptions of the run's snapshot, by id, whose metadata names an
// organization, and lets the run lead from there to each that no row of that organization records: the
// organization is listed if it was not, for nothing else may connect it with Stripe, and its item
// keeps the subscription, of several the one that would govern, for the time when the snapshot is
// gone. through is where to go on; empty at the end.
func (s *Store) ListNamed(ctx context.Context, runID, owner, after string, until time.Time) (through string, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		var naming []billing.Subscription
		if naming, through, err = thatName(ctx, tx, runID, after); err != nil {
			return err
		}
		leads, err := unrecorded(ctx, tx, runID, naming)
		if err != nil {
			return err
		}
		items, err := leadTo(ctx, tx, runID, leads)
		if err != nil {
			return err
		}
		if err := insertItems(ctx, tx, runID, items); err != nil {
			return err
		}
		return advance(ctx, tx, runID, owner, `lease_expires_at = ?`, until)
	})
	return through, failure(err, "list the organizations that subscriptions name in run "+runID)
}

// leadColumns are what there is to know of a subscription that leads to an organization.
const leadColumns = `n.subscription_id, n.org_id, n.status, n.created`

func scanLead(r *sql.Rows, more ...any) (sub billing.Subscription, err error) {
	var created sql.NullInt64
	err = r.Scan(append([]any{&sub.ID, &sub.OrgID, &sub.Status, &created}, more...)...)
	sub.Created = fromSeconds(created)
	return sub, err
}

// thatName leaves out the ids that an item has no room for.
func thatName(ctx context.Context, q querier, runID, after string) (naming []billing.Subscription, through string, err error) {
	err = query(ctx, q, func(r *sql.Rows) error {
		sub, err := scanLead(r)
		naming = append(naming, sub)
		return err
	}, `SELECT `+leadColumns+snapshotOfRun+`n.org_hash IS NOT NULL AND CHAR_LENGTH(n.subscription_id) <= `+strconv.Itoa(billing.MaxText)+`
		ORDER BY n.subscription_id LIMIT ?`, runID, after, snapshotPage)
	if len(naming) == snapshotPage {
		through = naming[snapshotPage-1].ID
	}
	return naming, through, err
}

// lead is a subscription that leads to an organization.
type lead struct {
	orgID string
	sub   billing.Subscription
}

// unrecorded returns where the subscriptions lead to that no row of the organization they name
// records, or one that was written since the organizations were listed. Who is deleted is led to by none.
func unrecorded(ctx context.Context, q querier, runID string, naming []billing.Subscription) ([]lead, error) {
	ids := make([]string, len(naming))
	for i, sub := range naming {
		ids[i] = sub.ID
	}
	owners, err := recordedBy(ctx, q, ids)
	if err != nil {
		return nil, err
	}
	listed, err := itemsAmong(ctx, q, runID, slices.Collect(maps.Values(owners)))
	if err != nil {
		return nil, err
	}
	// Nearly all are recorded by whom they name.
	naming = slices.DeleteFunc(naming, func(sub billing.Subscription) bool { return owners[sub.ID] == sub.NamedID() && listed[owners[sub.ID]] })
	names := make([]string, len(naming))
	for i, sub := range naming {
		names[i] = sub.NamedID()
	}
	named, err := organizationsNamed(ctx, q, names)
	if err != nil {
		return nil, err
	}
	var leads []lead
	for i, sub := range naming {
		if org, ok := named[names[i]]; ok && !org.Deleted && (owners[sub.ID] != org.ID || !listed[org.ID]) {
			leads = append(leads, lead{org.ID, sub})
		}
	}
	return leads, nil
}

// itemsAmong returns which of the organizations the run has.
func itemsAmong(ctx context.Context, q querier, runID string, orgs []string) (map[string]bool, error) {
	listed := make(map[string]bool, len(orgs))
	if len(orgs) == 0 {
		return listed, nil
	}
	ids, err := texts(ctx, q, `SELECT i.org_id`+itemsOfRun+`i.org_id IN `+in(len(orgs)), append([]any{runID}, anys(orgs)...)...)
	for _, id := range ids {
		listed[id] = true
	}
	return listed, err
}

// leadTo returns an item for each organization that the leads lead to.
func leadTo(ctx context.Context, q querier, runID string, leads []lead) ([]billing.Item, error) {
	if len(leads) == 0 {
		return nil, nil
	}
	best, err := ledTo(ctx, q, runID, leads)
	if err != nil {
		return nil, err
	}
	for _, l := range leads {
		if other, ok := best[l.orgID]; !ok || billing.Precedes(l.sub, other) {
			best[l.orgID] = l.sub
		}
	}
	items := make([]billing.Item, 0, len(best))
	for _, id := range slices.Sorted(maps.Keys(best)) {
		items = append(items, billing.Item{OrgID: id, SubscriptionID: best[id].ID})
	}
	return items, nil
}

// ledTo returns the subscriptions that the organizations' items keep already.
func ledTo(ctx context.Context, q querier, runID string, leads []lead) (map[string]billing.Subscription, error) {
	orgs := make([]any, len(leads))
	for i, l := range leads {
		orgs[i] = l.orgID
	}
	led := map[string]billing.Subscription{}
	err := query(ctx, q, func(r *sql.Rows) error {
		var orgID string
		sub, err := scanLead(r, &orgID)
		led[orgID] = sub
		return err
	}, `SELECT `+leadColumns+`, i.org_id FROM reconciliation_items i
		JOIN reconciliation_snapshots n ON n.run_key = i.run_key AND n.subscription_id = i.subscription_id
		WHERE i.run_key = `+keyOfRun+` AND i.org_id IN `+in(len(orgs)), append([]any{runID}, orgs...)...)
	return led, err
}

// Unclaimed looks at the next live subscriptions of the run's snapshot, by id, and returns those that
// no organization claims by itself: no row of an organization that is not deleted records it, and its
// metadata names none. through is where to go on; empty at the end.
func (s *Store) Unclaimed(ctx context.Context, runID, after string) (unclaimed []billing.Orphan, through string, err error) {
	var live []billing.Orphan
	err = query(ctx, s.db, func(r *sql.Rows) error {
		var o billing.Orphan
		err := r.Scan(&o.SubscriptionID, &o.CustomerID, &o.Status, &o.OrgID)
		live = append(live, o)
		return err
	}, `SELECT n.subscription_id, n.customer_id, n.status, n.org_id`+snapshotOfRun+`n.status IN (?,?,?) ORDER BY n.subscription_id LIMIT ?`,
		runID, after, billing.StatusActive, billing.StatusTrialing, billing.StatusPastDue, snapshotPage)
	if err == nil && len(live) == snapshotPage {
		through = live[snapshotPage-1].SubscriptionID
	}
	if err == nil {
		live, err = s.without(ctx, live, func(o billing.Orphan) string { return o.SubscriptionID }, `SELECT s.stripe_subscription_id FROM subscriptions s
			JOIN organizations o ON o.id = s.org_id AND o.is_deleted IS NOT TRUE WHERE s.stripe_subscription_id IN `)
	}
	if err == nil {
		live, err = s.unnamed(ctx, live)
	}
	return live, through, failure(err, "look for orphans in run "+runID)
}

// WithoutCustomer returns those of the subscriptions whose customer no organization that is not
// deleted knows. The application has no index for that: each call goes through its tables.
func (s *Store) WithoutCustomer(ctx context.Context, unclaimed []billing.Orphan) ([]billing.Orphan, error) {
	customer := func(o billing.Orphan) string { return o.CustomerID }
	rest, err := s.without(ctx, unclaimed, customer, `SELECT stripe_customer_id FROM organizations WHERE is_deleted IS NOT TRUE AND stripe_customer_id IN `)
	if err == nil {
		rest, err = s.without(ctx, rest, customer, `SELECT s.stripe_customer_id FROM subscriptions s
			JOIN organizations o ON o.id = s.org_id AND o.is_deleted IS NOT TRUE WHERE s.stripe_customer_id IN `)
	}
	return rest, failure(err, "look for the customers of orphans")
}

// without returns those whose key is not in what the statement returns for all keys.
func (s *Store) without(ctx context.Context, live []billing.Orphan, key func(billing.Orphan) string, stmt string) ([]billing.Orphan, error) {
	var keys []string
	for _, o := range live {
		if k := key(o); k != "" {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return live, nil
	}
	var list []string
	err := lookUp(keys, func(keys []string) error {
		some, err := texts(ctx, s.db, stmt+in(len(keys)), anys(keys)...)
		list = append(list, some...)
		return err
	})
	known := make(map[string]bool, len(list))
	for _, k := range list {
		known[k] = true
	}
	return slices.DeleteFunc(live, func(o billing.Orphan) bool { return known[key(o)] }), err
}

// KeepOrphans records what the run's sweep found: the first of the orphans and how many there are.
func (s *Store) KeepOrphans(ctx context.Context, runID, owner string, first []billing.Orphan, total int, until time.Time) error {
	text, err := json.Marshal(first)
	if err != nil {
		return err
	}
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		if err := advance(ctx, tx, runID, owner, `lease_expires_at = ?`, until); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE reconciliation_sweeps SET orphans = ?, orphans_total = ? WHERE run_id = ?`, string(text), total, runID)
		return err
	})
	return failure(err, "record the orphans of run "+runID)
}

// FoundOrphans returns what the run's sweep found: the first of the orphans and how many there are.
func (s *Store) FoundOrphans(ctx context.Context, runID string) (first []billing.Orphan, total int, err error) {
	first = []billing.Orphan{}
	err = query(ctx, s.db, func(r *sql.Rows) error {
		var text sql.NullString
		if err := r.Scan(&text, &total); err != nil {
			return err
		}
		return fromJSON(text, &first)
	}, `SELECT orphans, orphans_total FROM reconciliation_sweeps WHERE run_id = ?`, runID)
	return first, total, failure(err, "read the orphans of run "+runID)
}

// Renew keeps owner the enumerator of the run until the given time.
func (s *Store) Renew(ctx context.Context, runID, owner string, until time.Time) error {
	return failure(advance(ctx, s.db, runID, owner, `lease_expires_at = ?`, until), "keep the lease of run "+runID)
}

// verdict is what many items in sync have in common.
type verdict struct {
	reason         billing.Reason
	governed       bool
	subscriptionID string
	warnings       sql.NullString
}

// DecideInSync gives items that the run's snapshot settled their outcome, in one transaction, and
// returns how many got it: not those decided meanwhile, and none if the run was closed or swept
// anew since, for then the snapshot may have been read while it was removed.
func (s *Store) DecideInSync(ctx context.Context, run billing.Run, items []billing.Item, now time.Time) (int, error) {
	orgs := map[verdict][]any{}
	for _, i := range items {
		warnings, err := toJSON(i.Warnings)
		if err != nil {
			return 0, err
		}
		v := verdict{i.Reason, i.SubscriptionID != "", keptSubscription(i), warnings}
		orgs[v] = append(orgs[v], i.OrgID)
	}
	decided := int64(0)
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		key, err := keyOfSwept(ctx, tx, run)
		if err != nil || key == 0 {
			return err
		}
		for v, ids := range orgs {
			args := []any{billing.OutcomeSkipped, v.reason, v.governed, v.subscriptionID, v.warnings, now, key, billing.OutcomePending}
			res, err := tx.ExecContext(ctx, decideItems+in(len(ids)), append(args, ids...)...)
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
		return 0, failure(err, "record the outcomes of run "+run.ID)
	}
	return int(decided), nil
}

const decideItems = "UPDATE reconciliation_items FORCE INDEX (`PRIMARY`) " + `SET outcome = ?, reason = ?, governed = ?, subscription_id = ?, warnings = ?, updated_at = ?,
	revision = revision + 1 WHERE run_key = ? AND outcome = ? AND org_id IN `

// keyOfSwept returns what the run's items name it by, and keeps the run from being closed and swept
// anew; 0 if that has happened since it was read.
func keyOfSwept(ctx context.Context, tx *sql.Tx, run billing.Run) (key int64, err error) {
	err = query(ctx, tx, func(r *sql.Rows) error { return r.Scan(&key) },
		`SELECT r.run_key FROM reconciliation_runs r JOIN reconciliation_sweeps w ON w.run_id = r.id
			WHERE r.id = ? AND r.status IN (?,?) AND w.state = ? AND w.began_at = ? LOCK IN SHARE MODE`,
		run.ID, billing.RunEnumerating, billing.RunRunning, billing.SweepComplete, run.SweptFrom)
	return key, err
}
