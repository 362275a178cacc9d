package mysqlstore

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// rowNamespace makes the id of an inserted subscriptions row follow from what it stands for, so
// that inserting it twice is seen as such.
var rowNamespace = uuid.MustParse("6f1d3c0a-53c5-4b7e-9a52-2f0b6f6d6f10")

// Apply repairs one organization and records its item's outcome in one transaction. before is
// the record that plan was made from. Where followUp is set, item was repaired by this caller
// already and its changes grow, the plan's being the last; else its outcome must still be open.
//
// Errors: [billing.ErrRecordChanged], [billing.ErrAlreadyDecided], a permanent withheld failure
// where the guard's limit is reached, a permanent subscription_conflict where another row took
// the subscription's id, a permanent database_refused where MySQL takes the rows in no event; in
// each case nothing was written.
//
// The application's rows are written before anything else: should a webhook be inserting the same
// row at this moment, InnoDB ends whichever of the two has written less, and that is to be this one.
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
		if err := noteRepair(ctx, tx, item, now); err != nil {
			return err
		}
		if err := s.tellRepair(ctx, tx, before, plan, item, now); err != nil {
			return err
		}
		earlier := item.Changes[:len(item.Changes)-len(plan.Changes)]
		if s.tiers.LowersAccess(plan.Changes) && !s.tiers.LowersAccess(earlier) { // else it is counted already
			return countDowngrade(ctx, tx, item.RunID)
		}
		return nil
	})
	return itemFailure(err, item)
}

// lockUnchanged locks the organization and its rows and compares them with the record read at
// first, updated_at included: a webhook that wrote and wrote back is seen too, a second later.
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

// write sets the columns the plan names, and no other.
func write(ctx context.Context, tx *sql.Tx, before billing.Record, plan billing.Plan) error {
	if err := writeRow(ctx, tx, before.Org.ID, plan); err != nil {
		return refused(ctx, tx, before, plan, rowTable, err)
	}
	names, values := columns(orgTable, plan.Changes)
	if len(names) == 0 {
		return nil
	}
	if err := update(ctx, tx, orgTable, before.Org.ID, names, values); err != nil {
		return refused(ctx, tx, before, plan, orgTable, err)
	}
	return nil
}

func writeRow(ctx context.Context, tx *sql.Tx, orgID string, plan billing.Plan) error {
	names, values := columns(rowTable, plan.Changes)
	switch {
	case plan.Insert:
		return insertRow(ctx, tx, orgID, plan.GoverningID, names, values)
	case len(names) > 0:
		return update(ctx, tx, rowTable, plan.RowID, names, values)
	default:
		return nil
	}
}

// columns picks a table's columns from the changes, whose fields are those of [billing.Columns].
func columns(table string, changes []billing.Change) (names []string, values []any) {
	for _, c := range changes {
		if name, ok := strings.CutPrefix(c.Field, table+"."); ok {
			names, values = append(names, name), append(values, c.To)
		}
	}
	return names, values
}

func update(ctx context.Context, tx *sql.Tx, table, id string, names []string, values []any) error {
	ok, err := hit(ctx, tx, updateColumns(table, names), append(values, id)...)
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
