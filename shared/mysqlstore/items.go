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
	// keyOfRun is what the items and the snapshot of a run, the argument, name it by. Not a join: the
	// server would read a run from its beginning for every page. Not in an UPDATE either: it would lock
	// the run.
	keyOfRun = `(SELECT run_key FROM reconciliation_runs WHERE id = ?)`
	// itemsOfRun are the items of one run: its id is the first argument.
	itemsOfRun = ` FROM reconciliation_items i WHERE i.run_key = ` + keyOfRun + ` AND `
)

// runKey returns what the run's items and snapshot name it by; 0, which none has, where there is no
// such run.
func runKey(ctx context.Context, q querier, runID string) (key int64, err error) {
	err = query(ctx, q, func(r *sql.Rows) error { return r.Scan(&key) }, `SELECT run_key FROM reconciliation_runs WHERE id = ?`, runID)
	return key, err
}

// scanItem reads the itemColumns of the run and whatever columns follow them into more.
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

// Items returns the items of these organizations in their runs, in one query a run; unknown ones are absent.
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
		}, `SELECT `+itemColumns+itemsOfRun+`i.org_id IN `+in(len(ids)), append([]any{runID}, ids...)...)
		if err != nil {
			return nil, failure(err, "read items")
		}
	}
	return items, nil
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
	errText := sql.NullString{String: text(i.Error), Valid: i.Error != ""}
	// What the guard withheld stays listed when the next try meets another error, and what led to the
	// organization stays known when its item could not be read.
	kept := keptSubscription(i)
	ok, err := hit(ctx, tx, `UPDATE reconciliation_items SET outcome = ?, reason = ?, governed = ?,
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

// keptSubscription is the item's subscription, but for the many of which nothing is told: that one
// governs them is enough.
func keptSubscription(i billing.Item) string {
	if i.PlainlySkipped() {
		return ""
	}
	return i.SubscriptionID
}

func itemFailure(err error, i billing.Item) error {
	return failure(err, "record the outcome of organization "+i.OrgID+" in run "+i.RunID)
}
