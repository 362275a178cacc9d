package mysqlstore

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// rowNamespace is the UUIDv5 namespace for the ids of inserted subscriptions rows. An id is computed from organization and
// subscription, so that a second insert is a duplicate key.
var rowNamespace = uuid.MustParse("6f1d3c0a-53c5-4b7e-9a52-2f0b6f6d6f10")

// Apply repairs one organization and stores its item's outcome in one transaction. before is the record that the plan was
// made from. Without followUp, the stored item must be pending or in error. With it, this caller has already written a
// repair of the item: item.Changes must end with plan.Changes, and the stored item must still be synced at
// item.Revision.
//
// If it returns one of these errors, nothing was written:
//   - [billing.ErrRecordChanged] or [billing.ErrAlreadyDecided];
//   - a permanent failure with the reason withheld (the guard's limit is reached), subscription_conflict (another row
//     has the subscription id) or database_refused (MySQL can never accept the rows).
//
// If the connection breaks during the commit, the changes may have been written.
//
// It writes the application's rows before this system's. In a deadlock with a webhook that inserts the same row, InnoDB
// rolls back the transaction that has written less, and that must be this one.
func (s *Store) Apply(ctx context.Context, before billing.Record, plan billing.Plan, item billing.Item, followUp bool, now time.Time) error {
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		if err := lockUnchanged(ctx, tx, before); err != nil {
			return err
		}
		if err := writePlan(ctx, tx, before, plan); err != nil {
			return err
		}
		if err := saveOutcome(ctx, tx, item, followUp, now); err != nil {
			return err
		}
		if err := insertRepair(ctx, tx, item, now); err != nil {
			return err
		}
		if err := s.announceRepair(ctx, tx, before, plan, item, now); err != nil {
			return err
		}
		earlierChanges := item.Changes[:len(item.Changes)-len(plan.Changes)]
		// An item counts once. If an earlier repair of it lowered access, it was counted then.
		if s.tiers.LowersAccess(plan.Changes) && !s.tiers.LowersAccess(earlierChanges) {
			return countDowngrade(ctx, tx, item.RunID)
		}
		return nil
	})
	return itemFailure(err, item)
}

// lockUnchanged locks the organizations row and its subscriptions rows, and fails if they differ from the record before.
// updated_at is compared too: it shows a webhook that changed a value and changed it back, except within one second.
func lockUnchanged(ctx context.Context, tx *sql.Tx, before billing.Record) error {
	current, err := readRecords(ctx, tx, []string{before.Org.ID}, selectRows, "FOR UPDATE")
	if err != nil {
		return err
	}
	record, ok := current[before.Org.ID]
	if !ok || !record.Same(before) {
		return billing.ErrRecordChanged
	}
	return nil
}

func saveOutcome(ctx context.Context, tx *sql.Tx, item billing.Item, followUp bool, now time.Time) error {
	if !followUp {
		return decide(ctx, tx, item, now)
	}
	return setOutcome(ctx, tx, item, now, `outcome = ? AND revision = ?`, billing.OutcomeSynced, item.Revision)
}

// writePlan writes the plan's changes, first those of the subscriptions row.
func writePlan(ctx context.Context, tx *sql.Tx, before billing.Record, plan billing.Plan) error {
	if err := writeSubscriptionsRow(ctx, tx, before.Org.ID, plan); err != nil {
		return rowFailure(ctx, tx, before, plan, subscriptionsTable, err)
	}
	names, values := changedColumns(organizationsTable, plan.Changes)
	if len(names) == 0 {
		return nil
	}
	if err := update(ctx, tx, organizationsTable, before.Org.ID, names, values); err != nil {
		return rowFailure(ctx, tx, before, plan, organizationsTable, err)
	}
	return nil
}

func writeSubscriptionsRow(ctx context.Context, tx *sql.Tx, orgID string, plan billing.Plan) error {
	names, values := changedColumns(subscriptionsTable, plan.Changes)
	switch {
	case plan.Insert:
		return insertSubscriptionsRow(ctx, tx, orgID, plan.GoverningID, names, values)
	case len(names) > 0:
		return update(ctx, tx, subscriptionsTable, plan.RowID, names, values)
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

func insertSubscriptionsRow(ctx context.Context, tx *sql.Tx, orgID, subscriptionID string, names []string, values []any) error {
	id := uuid.NewSHA1(rowNamespace, []byte(orgID+"\x00"+subscriptionID))
	_, err := tx.ExecContext(ctx, insertColumns(names), append([]any{id.String(), orgID}, values...)...)
	return err
}
