package mysqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"hash/crc32"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// snapshotRow is a subscription in a snapshot. What nearly each one has is in columns, for JSON would make
// the table half as large again; the rest is in more, so that another field needs no migration.
type snapshotRow struct {
	id, customer, org, status, price, tier string
	created, start, end                    sql.NullInt64
	more                                   sql.RawBytes
}

// moreOfSubscription is NULL in the database where it is empty; nearly all have the product and nothing else. The
// first three times are here only if they do not fit the columns.
type moreOfSubscription struct {
	// Product is of the one item that there is, licensed, of the column's price. Other items are in Items: NULL
	// stands for the one item, or for none where the column is empty.
	Product    string          `json:"product,omitempty"`
	Items      *[]snapshotItem `json:"items,omitempty"`
	MoreItems  bool            `json:"moreItems,omitempty"`
	Created    unix            `json:"created,omitzero"`
	Start      unix            `json:"start,omitzero"`
	End        unix            `json:"end,omitzero"`
	TrialEnd   unix            `json:"trialEnd,omitzero"`
	Canceled   unix            `json:"canceled,omitzero"`
	Ended      unix            `json:"ended,omitzero"`
	CancelAt   unix            `json:"cancelAt,omitzero"`
	Cancel     bool            `json:"cancelAtPeriodEnd,omitempty"`
	Paused     bool            `json:"collectionPaused,omitempty"`
	Unreadable bool            `json:"unreadable,omitempty"`
}

type snapshotItem struct {
	Price   string `json:"price,omitempty"`
	Product string `json:"product,omitempty"`
	Metered bool   `json:"metered,omitempty"`
}

// setItems keeps the items in as little room as they take.
func (m *moreOfSubscription) setItems(sub billing.Subscription) {
	if len(sub.Items) == 1 && sub.PriceID != "" {
		usual := billing.SubscriptionItem{PriceID: sub.PriceID, ProductID: sub.Items[0].ProductID}
		if sub.Items[0] == usual {
			m.Product = usual.ProductID
			return
		}
	}
	if len(sub.Items) == 0 && sub.PriceID == "" {
		return
	}
	items := make([]snapshotItem, len(sub.Items))
	for i, item := range sub.Items {
		items[i] = snapshotItem{item.PriceID, item.ProductID, item.Metered}
	}
	m.Items = &items
}

// items is the reverse, where the column has the price.
func (m *moreOfSubscription) items(price string) []billing.SubscriptionItem {
	if m.Items == nil && price != "" {
		return []billing.SubscriptionItem{{PriceID: price, ProductID: m.Product}}
	}
	if m.Items == nil {
		return nil
	}
	var items []billing.SubscriptionItem
	for _, item := range *m.Items {
		items = append(items, billing.SubscriptionItem{PriceID: item.Price, ProductID: item.Product, Metered: item.Metered})
	}
	return items
}

// unix is a time as Stripe writes it, in seconds.
type unix struct{ time.Time }

func (u unix) MarshalJSON() ([]byte, error) { return strconv.AppendInt(nil, u.Unix(), 10), nil }

func (u *unix) UnmarshalJSON(text []byte) error {
	seconds, err := strconv.ParseInt(string(text), 10, 64)
	u.Time = time.Unix(seconds, 0).UTC()
	return err
}

// toColumn takes the time out if a column, INT UNSIGNED, can hold it.
func (u *unix) toColumn() sql.NullInt64 {
	if u.IsZero() || u.Unix() < 0 || u.Unix() > math.MaxUint32 {
		return sql.NullInt64{}
	}
	seconds := u.Unix()
	*u = unix{}
	return sql.NullInt64{Int64: seconds, Valid: true}
}

func (u *unix) fromColumn(seconds sql.NullInt64) {
	if seconds.Valid {
		u.Time = time.Unix(seconds.Int64, 0).UTC()
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
		more := moreOfSubscription{
			Created: unix{sub.Created}, Start: unix{sub.CurrentPeriodStart}, End: unix{sub.CurrentPeriodEnd},
			TrialEnd: unix{sub.TrialEnd}, Canceled: unix{sub.CanceledAt}, Ended: unix{sub.EndedAt},
			CancelAt: unix{sub.CancelAt}, Cancel: sub.CancelAtPeriodEnd, Paused: sub.CollectionPaused,
			MoreItems: sub.MoreItems, Unreadable: sub.Unreadable,
		}
		more.setItems(sub)
		created, start, end := more.Created.toColumn(), more.Start.toColumn(), more.End.toColumn()
		text, err := json.Marshal(more)
		if err != nil {
			return err
		}
		args = append(args, key, hash(sub.CustomerID), orgHash(sub), sub.ID, sub.CustomerID, sub.OrgID, sub.Status, sub.PriceID, sub.MetadataTier, created, start, end, sql.NullString{String: string(text), Valid: more != moreOfSubscription{}})
	}
	_, err = tx.ExecContext(ctx, insertSnapshotRows+in(columns)+strings.Repeat(`,`+in(columns), len(subs)-1)+newerSnapshot, args...)
	return err
}

// scanSnapshot scans snapshotColumns, and behind them what else there is.
func scanSnapshot(r *sql.Rows, others ...any) (billing.Subscription, error) {
	var row snapshotRow
	columns := []any{&row.id, &row.customer, &row.org, &row.status, &row.price, &row.tier, &row.created, &row.start, &row.end, &row.more}
	if err := r.Scan(append(columns, others...)...); err != nil {
		return billing.Subscription{}, err
	}
	var more moreOfSubscription
	if row.more != nil {
		if err := json.Unmarshal(row.more, &more); err != nil {
			return billing.Subscription{}, err
		}
	}
	more.Created.fromColumn(row.created)
	more.Start.fromColumn(row.start)
	more.End.fromColumn(row.end)
	return billing.Subscription{
		ID: row.id, CustomerID: row.customer, OrgID: row.org, Status: billing.Status(row.status), PriceID: row.price,
		MetadataTier: row.tier, Created: more.Created.Time, CurrentPeriodStart: more.Start.Time, CurrentPeriodEnd: more.End.Time,
		TrialEnd: more.TrialEnd.Time, CanceledAt: more.Canceled.Time, EndedAt: more.Ended.Time,
		CancelAt: more.CancelAt.Time, CancelAtPeriodEnd: more.Cancel, CollectionPaused: more.Paused,
		Items: more.items(row.price), MoreItems: more.MoreItems, Unreadable: more.Unreadable,
	}, nil
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
