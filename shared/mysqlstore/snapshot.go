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

// A snapshot has columns for the fields that nearly all subscriptions have; as JSON they would make the table half
// as large again. The other fields are JSON in the column more, so that a new field needs no migration.

// snapshotJSON writes times as Unix seconds, like Stripe, and leaves out zero fields.
var snapshotJSON = json.JoinOptions(
	json.OmitZeroStructFields(true), jsontext.AllowInvalidUTF8(true),
	json.WithMarshalers(json.MarshalFunc(func(t time.Time) ([]byte, error) { return strconv.AppendInt(nil, t.Unix(), 10), nil })),
	json.WithUnmarshalers(json.UnmarshalFunc(func(text []byte, t *time.Time) error {
		seconds, err := strconv.ParseInt(string(text), 10, 64)
		*t = time.Unix(seconds, 0).UTC()
		return err
	})),
)

// moveToColumn moves a time that fits INT UNSIGNED out of the struct into a column.
func moveToColumn(t *time.Time) sql.NullInt64 {
	if t.IsZero() || t.Unix() < 0 || t.Unix() > math.MaxUint32 {
		return sql.NullInt64{}
	}
	seconds := t.Unix()
	*t = time.Time{}
	return sql.NullInt64{Int64: seconds, Valid: true}
}

func readFromColumn(seconds sql.NullInt64, t *time.Time) {
	if seconds.Valid {
		*t = time.Unix(seconds.Int64, 0).UTC()
	}
}

const snapshotColumns = `n.subscription_id, n.customer_id, n.org_id, n.status, n.price_id, n.metadata_tier, n.created, n.current_period_start, n.current_period_end, n.more`

var insertSnapshotRows = `INSERT INTO reconciliation_snapshots (run_key, customer_hash, org_hash, ` + strings.ReplaceAll(snapshotColumns, "n.", "") + `) VALUES `

// updateSnapshotRow replaces an existing row: a page that is read again is newer.
const updateSnapshotRow = ` ON DUPLICATE KEY UPDATE customer_hash = VALUES(customer_hash), org_hash = VALUES(org_hash), customer_id = VALUES(customer_id), org_id = VALUES(org_id),
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
		more := sub // empty, stored as NULL, for nearly all
		more.ID, more.CustomerID, more.OrgID, more.Status, more.PriceID, more.MetadataTier = "", "", "", "", "", ""
		more.Items = packItems(sub)
		created, start, end := moveToColumn(&more.Created), moveToColumn(&more.CurrentPeriodStart), moveToColumn(&more.CurrentPeriodEnd)
		text, err := json.Marshal(more, snapshotJSON)
		if err != nil {
			return err
		}
		args = append(args, key, hash(sub.CustomerID), orgHash(sub), sub.ID, sub.CustomerID, sub.OrgID, sub.Status, sub.PriceID, sub.MetadataTier,
			created, start, end, sql.NullString{String: string(text), Valid: string(text) != "{}"})
	}
	return insertRows(ctx, tx, insertSnapshotRows, columns, args, updateSnapshotRow)
}

// snapshotRow is a row of a snapshot.
type snapshotRow struct {
	billing.Subscription

	SoleOwner string `json:"soleOwner"` // see [Store.FindOrphans]
}

// scanSnapshot scans snapshotColumns, and the columns after them into others.
func scanSnapshot(r *sql.Rows, others ...any) (snapshotRow, error) {
	var sub snapshotRow
	var created, start, end sql.NullInt64
	var more sql.RawBytes
	columns := []any{&sub.ID, &sub.CustomerID, &sub.OrgID, &sub.Status, &sub.PriceID, &sub.MetadataTier, &created, &start, &end, &more}
	if err := r.Scan(append(columns, others...)...); err != nil {
		return sub, err
	}
	if more != nil {
		if err := json.Unmarshal(more, &sub, snapshotJSON); err != nil {
			return sub, err
		}
	}
	readFromColumn(created, &sub.Created)
	readFromColumn(start, &sub.CurrentPeriodStart)
	readFromColumn(end, &sub.CurrentPeriodEnd)
	sub.Items = unpackItems(sub.Subscription)
	return sub, nil
}

// packItems returns the items to store: a single item without the price that the column holds, and no items
// instead of a single one that has nothing else.
func packItems(sub billing.Subscription) []billing.SubscriptionItem {
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

// unpackItems reverses packItems.
func unpackItems(sub billing.Subscription) []billing.SubscriptionItem {
	switch {
	case len(sub.Items) == 0 && sub.PriceID != "":
		return []billing.SubscriptionItem{{PriceID: sub.PriceID}}
	case len(sub.Items) == 1:
		sub.Items[0].PriceID = sub.PriceID
	}
	return sub.Items
}

// hash is a short index key for a long id. Ids may share a hash, so the ids found must be compared.
func hash(id string) uint32 { return crc32.ChecksumIEEE([]byte(id)) }

// orgHash is NULL if the metadata names no organization, or a text longer than any organization's id.
func orgHash(sub billing.Subscription) sql.NullInt64 {
	key := billing.OrgKey(sub.OrgID)
	return sql.NullInt64{Int64: int64(hash(key)), Valid: key != "" && utf8.RuneCountInString(key) <= orgIDWidth}
}

// Snapshot returns the run's swept subscriptions that may concern the organizations: those that their rows
// record, those of their customers, and those whose metadata names them. It uses one query, besides that for
// the run, and may return others too. soleOwners are the organizations that alone had a customer when the run was
// listed, by customer: those of the live subscriptions that neither a row nor the metadata claims.
func (s *Store) Snapshot(ctx context.Context, runID string, records []billing.Record) (subs []billing.Subscription, soleOwners map[string]string, err error) {
	if len(records) == 0 {
		return nil, nil, nil
	}
	var ids, customers, orgs []any
	for _, r := range records {
		ids = append(ids, toAny(r.RecordedIDs())...)
		for _, id := range r.CustomerIDs() {
			customers = append(customers, hash(id))
		}
		orgs = append(orgs, hash(billing.OrgKey(r.Org.ID)))
	}
	key, err := runKey(ctx, s.db, runID)
	if err != nil {
		return nil, nil, failure(err, "look up run "+runID)
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
			found = append(found, `SELECT id FROM reconciliation_snapshots FORCE INDEX (`+by.index+`) WHERE run_key = ? AND `+by.column+` IN `+placeholders(len(by.values)))
			args = append(append(args, key), by.values...)
		}
	}
	soleOwners = map[string]string{}
	err = query(ctx, s.db, func(r *sql.Rows) error {
		row, err := scanSnapshot(r)
		subs = append(subs, row.Subscription)
		if row.SoleOwner != "" {
			soleOwners[row.CustomerID] = row.SoleOwner
		}
		return err
	}, `SELECT `+snapshotColumns+` FROM (`+strings.Join(found, ` UNION `)+`) f JOIN reconciliation_snapshots n ON n.id = f.id`, args...)
	return subs, soleOwners, failure(err, "read the snapshot of run "+runID)
}

// DeleteSnapshot deletes the snapshot of a closed run in small transactions. It can be interrupted and
// repeated, and stops if the run is reopened.
func (s *Store) DeleteSnapshot(ctx context.Context, runID string) error {
	return s.deleteSnapshotWhile(ctx, runID, `status NOT IN (?,?)`, billing.RunEnumerating, billing.RunRunning)
}

// deleteSnapshotWhile deletes the run's snapshot while the run fits the condition: a snapshot that another
// enumerator is filling must not lose rows.
func (s *Store) deleteSnapshotWhile(ctx context.Context, runID, condition string, args ...any) error {
	for after, more := int64(0), true; more; {
		err := s.inTx(ctx, func(tx *sql.Tx) error {
			fits, err := selectStrings(ctx, tx, `SELECT id FROM reconciliation_runs WHERE id = ? AND `+condition+` FOR UPDATE`, append([]any{runID}, args...)...)
			if more = len(fits) > 0; err != nil || !more {
				return err
			}
			after, err = deleteSnapshotBatch(ctx, tx, runID, after)
			if more = after > 0; err != nil || more {
				return err
			}
			_, err = tx.ExecContext(ctx, `DELETE FROM reconciliation_ranges WHERE run_id = ?`, runID)
			return err
		})
		if err != nil {
			return failure(err, "delete the snapshot of run "+runID)
		}
	}
	return nil
}

// deleteSnapshotBatch deletes the next rows of the run's snapshot and returns the last one's id, 0 at the end.
// It finds and locks rows by primary key only; another index would lock all rows of the run.
func deleteSnapshotBatch(ctx context.Context, tx *sql.Tx, runID string, after int64) (through int64, err error) {
	key, err := runKey(ctx, tx, runID)
	if err != nil {
		return 0, err
	}
	const rows = "reconciliation_snapshots n FORCE INDEX (`PRIMARY`) WHERE n.run_key = ? AND n.id > ?"
	err = query(ctx, tx, func(r *sql.Rows) error { return r.Scan(&through) },
		`SELECT COALESCE(MAX(id), 0) FROM (SELECT n.id FROM `+rows+` ORDER BY n.id LIMIT ?) p`, key, after, pruneBatch)
	if err != nil || through == 0 {
		return 0, err
	}
	_, err = tx.ExecContext(ctx, `DELETE n FROM `+rows+` AND n.id <= ?`, key, after, through)
	return through, err
}

// ClosedRunsWithSnapshot returns the closed runs that still have a snapshot. It uses a subquery for each run,
// because a join would scan the whole snapshot.
func (s *Store) ClosedRunsWithSnapshot(ctx context.Context) ([]string, error) {
	ids, err := selectStrings(ctx, s.db, `SELECT id FROM reconciliation_runs r WHERE status NOT IN (?,?)
		AND (SELECT 1 FROM reconciliation_snapshots n WHERE n.run_key = r.run_key LIMIT 1) = 1`, billing.RunEnumerating, billing.RunRunning)
	return ids, failure(err, "look for snapshots to delete")
}
