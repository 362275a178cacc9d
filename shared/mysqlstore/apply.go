package mysqlstore

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// rowNamespace derives the id of an inserted subscriptions row from its organization and subscription, so that
// a second insert is a duplicate key.
var rowNamespace = uuid.MustParse("6f1d3c0a-53c5-4b7e-9a52-2f0b6f6d6f10")

// Apply repairs one organization and records its item's outcome in one transaction. The plan was made from the
// record before. With followUp, this caller has repaired the item already, and the plan's changes are the last
// of the item's; without, the item must be pending or in error.
//
// Nothing is written if it fails: with [billing.ErrRecordChanged], [billing.ErrAlreadyDecided], or a permanent
// failure: withheld if the guard's limit is reached, subscription_conflict if another row holds the
// subscription id, database_refused if MySQL can never accept the rows.
//
// It writes the application's rows first: if a webhook inserts the same row at the same time, InnoDB rolls back
// the transaction that has written less, which must be this one.
func (s *Store) Apply(ctx context.Context, before billing.Record, plan billing.Plan, item billing.Item, followUp bool, now time.Time) error {
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		if err := lockUnchanged(ctx, tx, before); err != nil {
			return err
		}
		if err := write(ctx, tx, before, plan); err != nil {
			return err
		}
		if err := recordApplied(ctx, tx, item, followUp, now); err != nil {
			return err
		}
		if err := insertRepair(ctx, tx, item, now); err != nil {
			return err
		}
		if err := s.announceRepair(ctx, tx, before, plan, item, now); err != nil {
			return err
		}
		earlier := item.Changes[:len(item.Changes)-len(plan.Changes)]
		if s.tiers.LowersAccess(plan.Changes) && !s.tiers.LowersAccess(earlier) { // otherwise it is counted already
			return countDowngrade(ctx, tx, item.RunID)
		}
		return nil
	})
	return itemFailure(err, item)
}

// lockUnchanged locks the organization and its rows and compares them with the record read before. updated_at
// is compared too, which reveals a webhook that wrote and reverted, unless within a second.
func lockUnchanged(ctx context.Context, tx *sql.Tx, before billing.Record) error {
	now, err := readRecords(ctx, tx, []string{before.Org.ID}, selectRows, "FOR UPDATE")
	if err != nil {
		return err
	}
	record, ok := now[before.Org.ID]
	if !ok || !record.Same(before) {
		return billing.ErrRecordChanged
	}
	return nil
}

func recordApplied(ctx context.Context, tx *sql.Tx, item billing.Item, followUp bool, now time.Time) error {
	if !followUp {
		return decide(ctx, tx, item, now)
	}
	return setOutcome(ctx, tx, item, now, `outcome = ? AND revision = ?`, billing.OutcomeSynced, item.Revision)
}

// write writes the columns that the plan changes.
func write(ctx context.Context, tx *sql.Tx, before billing.Record, plan billing.Plan) error {
	if err := writeRow(ctx, tx, before.Org.ID, plan); err != nil {
		return rowFailure(ctx, tx, before, plan, rowTable, err)
	}
	names, values := changedColumns(orgTable, plan.Changes)
	if len(names) == 0 {
		return nil
	}
	if err := update(ctx, tx, orgTable, before.Org.ID, names, values); err != nil {
		return rowFailure(ctx, tx, before, plan, orgTable, err)
	}
	return nil
}

func writeRow(ctx context.Context, tx *sql.Tx, orgID string, plan billing.Plan) error {
	names, values := changedColumns(rowTable, plan.Changes)
	switch {
	case plan.Insert:
		return insertRow(ctx, tx, orgID, plan.GoverningID, names, values)
	case len(names) > 0:
		return update(ctx, tx, rowTable, plan.RowID, names, values)
	default:
		return nil
	}
}

// changedColumns returns a table's changed columns and their new values.
func changedColumns(table string, changes []billing.Change) (names []string, values []any) {
	for _, c := range changes {
		if name, ok := strings.CutPrefix(c.Field, table+"."); ok {
			names, values = append(names, name), append(values, c.To)
		}
	}
	return names, values
}

func update(ctx context.Context, tx *sql.Tx, table, id string, names []string, values []any) error {
	ok, err := execMatched(ctx, tx, updateColumns(table, names), append(values, id)...)
	if err == nil && !ok {
		return billing.ErrRecordChanged
	}
	return err
}

func insertRow(ctx context.Context, tx *sql.Tx, orgID, subscriptionID string, names []string, values []any) error {
	id := uuid.NewSHA1(rowNamespace, []byte(orgID+"\x00"+subscriptionID))
	_, err := tx.ExecContext(ctx, insertColumns(names), append([]any{id.String(), orgID}, values...)...)
	return err
}
