package mysqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// rowFailure turns MySQL's permanent refusal to write the organization's rows into the table into a failure of this
// organization. It returns other errors as they are.
func rowFailure(ctx context.Context, tx *sql.Tx, before billing.Record, plan billing.Plan, table string, err error) error {
	e, ok := errors.AsType[*mysql.MySQLError](err)
	if !ok || !isRowRefusal(e) {
		return err
	}
	if e.Number == errDuplicateKey && table == subscriptionsTable {
		if err := duplicateFailure(ctx, tx, before, plan); err != nil {
			return err
		}
	}
	return &billing.Failure{
		Class: billing.Permanent, Reason: billing.ReasonDatabaseRefused, Err: oneLine(e),
		Message: fmt.Sprintf("MySQL refuses what organization %s is to have in table %s, so nothing was written; "+
			"correct the row, or the table's columns, keys or triggers, then try again", before.Org.ID, table),
	}
}

// duplicateFailure explains a duplicate key by the existing row: one that the organization got since it was read, or
// another that holds the subscription's id. It returns nil if another key of the table is violated. It must run in the
// transaction that got the error, which keeps the existing row locked.
func duplicateFailure(ctx context.Context, tx *sql.Tx, before billing.Record, plan billing.Plan) error {
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
		var rowID, owner, recorded string
		var deleted bool
		if err := r.Scan(&rowID, &owner, &recorded, &deleted); err != nil || rowID == plan.RowID {
			return err
		}
		return conflict(plan.GoverningID, owner, recorded, deleted)
	}, selectHolder, plan.GoverningID)
}

func conflict(subscriptionID, owner, recorded string, deleted bool) error {
	message := fmt.Sprintf("subscription %s is on the row of organization %s, and the column allows it once; nothing was written", subscriptionID, owner)
	switch {
	case recorded != subscriptionID && strings.TrimSpace(recorded) != subscriptionID:
		message = fmt.Sprintf("subscription %s cannot be written beside %s on organization %s's row: the collation of %s "+
			"takes the two for the same; give the column one that tells them apart, such as utf8mb4_bin; nothing was written", subscriptionID, recorded, owner, billing.FieldSubscriptionID)
	case deleted:
		message = fmt.Sprintf("subscription %s is on the row of organization %s, which is deleted, and the column allows it once; "+
			"delete that row or set its subscription id to NULL, then try again; nothing was written", subscriptionID, owner)
	}
	return &billing.Failure{Class: billing.Permanent, Reason: billing.ReasonSubscriptionConflict, Message: message}
}
