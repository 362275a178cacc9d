package mysqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

const itemColumns = `i.org_id, i.outcome, i.reason, i.subscription_id, i.changes, i.warnings, i.error, i.revision`

const (
	// keyOfRun selects the key by which items and snapshots refer to the run, the argument. With a join the server
	// would read a run from its beginning for every page. In an UPDATE the subquery would lock the run.
	keyOfRun = `(SELECT run_key FROM reconciliation_runs WHERE id = ?)`
	// itemsOfRun selects from the items of the run whose id is the first argument.
	itemsOfRun = ` FROM reconciliation_items i WHERE i.run_key = ` + keyOfRun + ` AND `
)

// runKey returns the key by which items and snapshots refer to the run; 0, which no run has, if there is no
// such run.
func runKey(ctx context.Context, q querier, runID string) (key int64, err error) {
	err = query(ctx, q, func(r *sql.Rows) error { return r.Scan(&key) }, `SELECT run_key FROM reconciliation_runs WHERE id = ?`, runID)
	return key, err
}

// scanItem scans the itemColumns, and the columns after them into more.
func scanItem(r *sql.Rows, runID string, more ...any) (billing.Item, error) {
	i := billing.Item{RunID: runID}
	var changes, warnings, errText sql.NullString
	into := []any{&i.OrgID, &i.Outcome, &i.Reason, &i.SubscriptionID, &changes, &warnings, &errText, &i.Revision}
	if err := r.Scan(append(into, more...)...); err != nil {
		return i, err
	}
	i.Error = errText.String
	if err := fromJSON(changes, &i.Changes); err != nil {
		return i, err
	}
	return i, fromJSON(warnings, &i.Warnings)
}

func fromJSON(column sql.NullString, into any) error {
	if !column.Valid {
		return nil
	}
	return json.Unmarshal([]byte(column.String), into)
}

// toJSON returns NULL for an empty list.
func toJSON[T any](list []T) (sql.NullString, error) {
	if len(list) == 0 {
		return sql.NullString{}, nil
	}
	b, err := json.Marshal(list)
	return sql.NullString{String: string(b), Valid: true}, err
}

// maxMessage is how many bytes of a message are stored. A TEXT column holds four times as many.
const maxMessage = 16_000

// truncateMessage makes a message fit its column: an outcome must not be lost because its message is too long
// or not UTF-8.
func truncateMessage(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxMessage)], "")
}

// Items returns the items of these organizations in their runs, with one query for each run; unknown ones are
// absent.
func (s *Store) Items(ctx context.Context, work []billing.Work) (map[billing.Work]billing.Item, error) {
	items := make(map[billing.Work]billing.Item, len(work))
	if len(work) == 0 {
		return items, nil
	}
	orgs := map[string][]any{}
	for _, w := range work {
		orgs[w.RunID] = append(orgs[w.RunID], w.OrgID)
	}
	for runID, ids := range orgs {
		err := query(ctx, s.db, func(r *sql.Rows) error {
			i, err := scanItem(r, runID)
			items[billing.Work{RunID: i.RunID, OrgID: i.OrgID}] = i
			return err
		}, `SELECT `+itemColumns+itemsOfRun+`i.org_id IN `+placeholders(len(ids)), append([]any{runID}, ids...)...)
		if err != nil {
			return nil, failure(err, "read items")
		}
	}
	return items, nil
}

// Decide stores an outcome that changes nothing in the application's tables. countDowngrade is for dry runs:
// what they would lower is counted, without a limit.
func (s *Store) Decide(ctx context.Context, item billing.Item, countDowngrade bool, now time.Time) error {
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		if err := decide(ctx, tx, item, now); err != nil {
			return err
		}
		if !countDowngrade {
			return nil
		}
		_, err := tx.ExecContext(ctx, `UPDATE reconciliation_runs SET downgrades = downgrades + 1 WHERE id = ?`, item.RunID)
		return err
	})
	return itemFailure(err, item)
}

// decide stores the outcome of an item that is pending or in error.
func decide(ctx context.Context, tx *sql.Tx, i billing.Item, now time.Time) error {
	return setOutcome(ctx, tx, i, now, `outcome IN ('pending','error')`)
}

func setOutcome(ctx context.Context, tx *sql.Tx, i billing.Item, now time.Time, condition string, args ...any) error {
	key, err := runKey(ctx, tx, i.RunID)
	if err != nil {
		return err
	}
	changes, err := toJSON(i.Changes)
	if err != nil {
		return err
	}
	warnings, err := toJSON(i.Warnings)
	if err != nil {
		return err
	}
	errText := sql.NullString{String: truncateMessage(i.Error), Valid: i.Error != ""}
	// An error keeps the changes that the guard withheld before, and the subscription that led to the organization.
	kept := keptSubscription(i)
	ok, err := execMatched(ctx, tx, `UPDATE reconciliation_items SET outcome = ?, reason = ?, governed = ?,
		subscription_id = CASE WHEN ? = '' AND ? = 'error' THEN subscription_id ELSE ? END,
		changes = CASE WHEN ? IS NULL AND ? = 'error' THEN changes ELSE ? END, warnings = ?, error = ?,
		updated_at = ?, revision = revision + 1 WHERE run_key = ? AND org_id = ? AND `+condition,
		append([]any{
			i.Outcome, i.Reason, i.SubscriptionID != "", kept, i.Outcome, kept, changes, i.Outcome, changes, warnings, errText, now, key, i.OrgID,
		}, args...)...)
	if err == nil && !ok {
		return billing.ErrAlreadyDecided
	}
	return err
}

// keptSubscription is the subscription to store: none for plainly skipped items, which are many and need only
// governed.
func keptSubscription(i billing.Item) string {
	if i.PlainlySkipped() {
		return ""
	}
	return i.SubscriptionID
}

func itemFailure(err error, i billing.Item) error {
	return failure(err, "store the outcome of organization "+i.OrgID+" in run "+i.RunID)
}
