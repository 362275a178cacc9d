package mysqlstore

import (
	"context"
	"database/sql"
	"hash/crc32"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// What nearly each subscription has is in columns of a snapshot, for JSON would make the table half as large
// again; the rest is in more, so that another field needs no migration.

// asStored: times as Stripe writes them, in seconds, and of all fields only those that say something.
var asStored = json.JoinOptions(
	json.OmitZeroStructFields(true), jsontext.AllowInvalidUTF8(true),
	json.WithMarshalers(json.MarshalFunc(func(t time.Time) ([]byte, error) { return strconv.AppendInt(nil, t.Unix(), 10), nil })),
	json.WithUnmarshalers(json.UnmarshalFunc(func(text []byte, t *time.Time) error {
		seconds, err := strconv.ParseInt(string(text), 10, 64)
		*t = time.Unix(seconds, 0).UTC()
		return err
	})),
)

// toColumn takes the time out if a column, INT UNSIGNED, can hold it.
func toColumn(t *time.Time) sql.NullInt64 {
	if t.IsZero() || t.Unix() < 0 || t.Unix() > math.MaxUint32 {
		return sql.NullInt64{}
	}
	seconds := t.Unix()
	*t = time.Time{}
	return sql.NullInt64{Int64: seconds, Valid: true}
}

func fromColumn(seconds sql.NullInt64, t *time.Time) {
	if seconds.Valid {
		*t = time.Unix(seconds.Int64, 0).UTC()
	}
}

const snapshotColumns = `n.subscription_id, n.customer_id, n.org_id, n.status, n.price_id, n.metadata_tier, n.created, n.current_period_start, n.current_period_end, n.more`

var insertSnapshotRows = `INSERT INTO reconciliation_snapshots (run_key, customer_hash, org_hash, ` + strings.ReplaceAll(snapshotColumns, "n.", "") + `) VALUES `

// newerSnapshot: a page that is read again is newer.
const newerSnapshot = ` ON DUPLICATE KEY UPDATE customer_hash = VALUES(customer_hash), org_hash = VALUES(org_hash), customer_id = VALUES(customer_id), org_id = VALUES(org_id),
	status = VALUES(status), price_id = VALUES(price_id), metadata_tier = VALUES(metadata_tier), created = VALUES(created), current_period_start = VALUES(current_period_start),
	current_period_end = VALUES(current_period_end), more = VALUES(more)`

func insertSnapshot(ctx context.Context, tx *sql.Tx, runID string, subs []billing.Subscription) error {
	if len(subs) == 0 {
		return nil
	}
	key, err := runKey(ctx, tx, runID)
	if err != nil {
		return err
	}
	const columns = 13
	args := make([]any, 0, columns*len(subs))
	for _, sub := range subs {
		more := sub // NULL for nearly all, once what is in columns is out of it
		more.ID, more.CustomerID, more.OrgID, more.Status, more.PriceID, more.MetadataTier = "", "", "", "", "", ""
		more.Items = withoutPrice(sub)
		created, start, end := toColumn(&more.Created), toColumn(&more.CurrentPeriodStart), toColumn(&more.CurrentPeriodEnd)
		text, err := json.Marshal(more, asStored)
		if err != nil {
			return err
		}
		args = append(args, key, hash(sub.CustomerID), orgHash(sub), sub.ID, sub.CustomerID, sub.OrgID, sub.Status, sub.PriceID, sub.MetadataTier,
			created, start, end, sql.NullString{String: string(text), Valid: string(text) != "{}"})
	}
	return insertRows(ctx, tx, insertSnapshotRows, columns, args, newerSnapshot)
}

// scanSnapshot scans snapshotColumns, and behind them what else there is.
func scanSnapshot(r *sql.Rows, others ...any) (billing.Subscription, error) {
	var sub billing.Subscription
	var created, start, end sql.NullInt64
	var more sql.RawBytes
	columns := []any{&sub.ID, &sub.CustomerID, &sub.OrgID, &sub.Status, &sub.PriceID, &sub.MetadataTier, &created, &start, &end, &more}
	if err := r.Scan(append(columns, others...)...); err != nil {
		return sub, err
	}
	if more != nil {
		if err := json.Unmarshal(more, &sub, asStored); err != nil {
			return sub, err
		}
	}
	fromColumn(created, &sub.Created)
	fromColumn(start, &sub.CurrentPeriodStart)
	fromColumn(end, &sub.CurrentPeriodEnd)
	sub.Items = withPrice(sub)
	return sub, nil
}

// withoutPrice are the subscription's items as they are stored: of the only one the column has the price, and
// none stands for one that has nothing else.
func withoutPrice(sub billing.Subscription) []billing.SubscriptionItem {
	if len(sub.Items) != 1 || sub.Items[0].PriceID != sub.PriceID {
		return sub.Items
	}
	item := sub.Items[0]
	item.PriceID = ""
	if item == (billing.SubscriptionItem{}) && sub.PriceID != "" {
		return nil
	}
	return []billing.SubscriptionItem{item}
}

// withPrice is the reverse.
func withPrice(sub billing.Subscription) []billing.SubscriptionItem {
	switch {
	case len(sub.Items) == 0 && sub.PriceID != "":
		return []billing.SubscriptionItem{{PriceID: sub.PriceID}}
	case len(sub.Items) == 1:
		sub.Items[0].PriceID = sub.PriceID
	}
	return sub.Items
}

// hash leads to an id through an index that need not repeat it. Other ids have the same, so the ids
// found are compared.
func hash(id string) uint32 { return crc32.ChecksumIEEE([]byte(id)) }

// orgHash is NULL where the metadata names no organization, or nothing that is as short as an id.
func orgHash(sub billing.Subscription) sql.NullInt64 {
	key := billing.OrgKey(sub.OrgID)
	return sql.NullInt64{Int64: int64(hash(key)), Valid: key != "" && utf8.RuneCountInString(key) <= orgIDWidth}
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
		column, index string
		values        []any
	}{
		{"subscription_id", "idx_reconciliation_snapshots_subscription", ids},
		{"customer_hash", "idx_reconciliation_snapshots_customer", customers},
		{"org_hash", "idx_reconciliation_snapshots_org", orgs},
	} {
		if len(by.values) > 0 {
			found = append(found, `SELECT id FROM reconciliation_snapshots FORCE INDEX (`+by.index+`) WHERE run_key = ? AND `+by.column+` IN `+in(len(by.values)))
			args = append(append(args, key), by.values...)
		}
	}
	var subs []billing.Subscription
	err = query(ctx, s.db, func(r *sql.Rows) error {
		sub, err := scanSnapshot(r)
		subs = append(subs, sub)
		return err
	}, `SELECT `+snapshotColumns+` FROM (`+strings.Join(found, ` UNION `)+`) f JOIN reconciliation_snapshots n ON n.id = f.id`, args...)
	return subs, failure(err, "read the snapshot of run "+runID)
}

// DeleteSnapshot removes the snapshot of a run that is closed, a small transaction at a time.
// Interrupted, it goes on next time; if the run is reopened meanwhile, it leaves off.
func (s *Store) DeleteSnapshot(ctx context.Context, runID string) error {
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

// ClosedRunsWithSnapshot returns the closed runs that still have a snapshot: whoever closed one did not
// live to remove it. Each run is looked up by itself: a join would go through the whole snapshot.
func (s *Store) ClosedRunsWithSnapshot(ctx context.Context) ([]string, error) {
	ids, err := texts(ctx, s.db, `SELECT id FROM reconciliation_runs r WHERE status NOT IN (?,?)
		AND (SELECT 1 FROM reconciliation_snapshots n WHERE n.run_key = r.run_key LIMIT 1) = 1`, billing.RunEnumerating, billing.RunRunning)
	return ids, failure(err, "look for snapshots to remove")
}
