package mysqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

const itemColumns = `run_id, org_id, outcome, reason, subscription_id, changes, warnings, error, revision`

// scanItem reads the itemColumns and whatever columns follow them into more.
func scanItem(r *sql.Rows, more ...any) (billing.Item, error) {
	var i billing.Item
	var changes, warnings, errText sql.NullString
	into := []any{&i.RunID, &i.OrgID, &i.Outcome, &i.Reason, &i.SubscriptionID, &changes, &warnings, &errText, &i.Revision}
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

// toJSON is NULL for an empty list.
func toJSON[T any](list []T) (sql.NullString, error) {
	if len(list) == 0 {
		return sql.NullString{}, nil
	}
	b, err := json.Marshal(list)
	return sql.NullString{String: string(b), Valid: true}, err
}

// maxText is what is kept of a message, in bytes. A TEXT column holds four times as much.
const maxText = 16_000

// text makes a message of whatever origin fit its column: an outcome must not be lost because
// the sentence that comes with it is too long or broken.
func text(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxText)], "")
}

// Items returns the items of these organizations in their runs; unknown ones are absent.
func (s *Store) Items(ctx context.Context, work []billing.Work) (map[billing.Work]billing.Item, error) {
	items := make(map[billing.Work]billing.Item, len(work))
	if len(work) == 0 {
		return items, nil
	}
	args := make([]any, 0, 2*len(work))
	for _, w := range work {
		args = append(args, w.RunID, w.OrgID)
	}
	err := query(ctx, s.db, func(r *sql.Rows) error {
		i, err := scanItem(r)
		items[billing.Work{RunID: i.RunID, OrgID: i.OrgID}] = i
		return err
	}, `SELECT `+itemColumns+` FROM reconciliation_items WHERE (run_id, org_id) IN ((?,?)`+strings.Repeat(`,(?,?)`, len(work)-1)+`)`, args...)
	return items, failure(err, "read items")
}

// Decide gives the item an outcome that changes nothing in the application's tables. What a dry
// run would take away is counted against the guard, without a limit.
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

// decide is the one statement that gives an outcome; it hits pending and error only.
func decide(ctx context.Context, e execer, i billing.Item, now time.Time) error {
	return setOutcome(ctx, e, i, now, `outcome IN ('pending','error')`)
}

func setOutcome(ctx context.Context, e execer, i billing.Item, now time.Time, condition string, args ...any) error {
	changes, err := toJSON(i.Changes)
	if err != nil {
		return err
	}
	warnings, err := toJSON(i.Warnings)
	if err != nil {
		return err
	}
	errText := sql.NullString{String: text(i.Error), Valid: i.Error != ""}
	// What the guard withheld stays listed when the next try meets another error.
	ok, err := hit(ctx, e, `UPDATE reconciliation_items SET outcome = ?, reason = ?, subscription_id = ?,
		changes = CASE WHEN ? IS NULL AND ? = 'error' THEN changes ELSE ? END, warnings = ?, error = ?,
		decided_at = ?, revision = revision + 1 WHERE run_id = ? AND org_id = ? AND `+condition,
		append([]any{
			i.Outcome, i.Reason, i.SubscriptionID, changes, i.Outcome, changes, warnings, errText, now, i.RunID, i.OrgID,
		}, args...)...)
	if err == nil && !ok {
		return billing.ErrAlreadyDecided
	}
	return err
}

func itemFailure(err error, i billing.Item) error {
	return failure(err, "record the outcome of organization "+i.OrgID+" in run "+i.RunID)
}
