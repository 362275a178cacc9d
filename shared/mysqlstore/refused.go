package mysqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/go-sql-driver/mysql"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// refused says what it means that the organization's rows could not be written into the table.
// What MySQL refuses of these rows for good is about this organization alone.
func refused(ctx context.Context, tx *sql.Tx, before billing.Record, plan billing.Plan, table string, err error) error {
	e, ok := errors.AsType[*mysql.MySQLError](err)
	if !ok || !refusesRow(e) {
		return err
	}
	if e.Number == errDuplicateKey && table == rowTable {
		if err := inTheWay(ctx, tx, before, plan); err != nil {
			return err
		}
	}
	return &billing.Failure{
		Class: billing.Permanent, Reason: billing.ReasonDatabaseRefused, Err: oneLine(e),
		Message: fmt.Sprintf("MySQL refuses what organization %s is to have in table %s, so nothing was written; "+
			"correct the row, or the table's columns, keys or triggers, then try again", before.Org.ID, table),
	}
}

// inTheWay says what a duplicate key means, by whose row it is: one that the organization got since
// it was read, or another that holds the subscription's id. nil: it is another key of the table's.
// It is called in the transaction that met it, where the row that is in the way stays locked.
func inTheWay(ctx context.Context, tx *sql.Tx, before billing.Record, plan billing.Plan) error {
	known := make([]string, len(before.Rows))
	for i, row := range before.Rows {
		known[i] = row.ID
	}
	now, err := readRecords(ctx, tx, []string{before.Org.ID}, selectRows, "")
	if err != nil {
		return err
	}
	for _, row := range now[before.Org.ID].Rows {
		if !slices.Contains(known, row.ID) {
			return billing.ErrRecordChanged
		}
	}
	if plan.GoverningID == "" {
		return nil
	}
	return query(ctx, tx, func(r *sql.Rows) error {
		var rowID, owner, holds string
		if err := r.Scan(&rowID, &owner, &holds); err != nil || rowID == plan.RowID {
			return err
		}
		return conflict(plan.GoverningID, owner, holds)
	}, selectHolder, plan.GoverningID)
}

func conflict(subscriptionID, owner, holds string) error {
	message := fmt.Sprintf("subscription %s was given to organization %s's row meanwhile; nothing was written", subscriptionID, owner)
	if holds != subscriptionID {
		message = fmt.Sprintf("subscription %s cannot be written beside %s on organization %s's row: the collation of %s "+
			"takes the two for the same; give the column one that tells them apart, such as utf8mb4_bin; nothing was written", subscriptionID, holds, owner, billing.FieldSubscriptionID)
	}
	return &billing.Failure{Class: billing.Permanent, Reason: billing.ReasonSubscriptionConflict, Message: message}
}
