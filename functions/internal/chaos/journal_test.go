package chaos_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// journalled are the columns in the journal, by table: all except those that the database itself writes at every change.
var journalled = map[string][]string{
	"organizations": {
		"id", "name", "created_by", "stripe_customer_id", "subscription_status", "subscription_tier", "trial_ends_at", "last_billing_warning_at",
		"created_at", "is_deleted",
	},
	"subscriptions": {
		"id", "org_id", "stripe_subscription_id", "stripe_price_id", "stripe_customer_id", "plan_tier", "status", "current_period_start",
		"current_period_end", "trial_end", "cancel_at_period_end", "canceled_at", "ended_at", "created_at",
	},
}

// identifyingColumns identify an inserted row. Items do not list them as changes.
var identifyingColumns = []string{"id", "org_id", "created_at"}

// write is one row that was inserted, updated or deleted.
type write struct {
	seq     int
	account string // of the database user
	table   string
	row     string
	org     string
	before  map[string]any // nil for a new row
	after   map[string]any // nil for a deleted row
	written time.Time
}

// isOfSystem reports whether the system wrote, not the application.
func (w write) isOfSystem() bool { return w.account == systemAccount }

// createJournal creates triggers that record every write.
func createJournal(ctx context.Context, db *sql.DB) error {
	statements := []string{
		`CREATE TABLE journal (seq BIGINT AUTO_INCREMENT PRIMARY KEY, who VARCHAR(64) NOT NULL, tbl VARCHAR(32) NOT NULL,
		row_id CHAR(36) NOT NULL, org_id CHAR(36) NOT NULL, was JSON NULL, became JSON NULL, written TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6))`,
		`CREATE TABLE ballast (n INT NOT NULL)`, // a transaction that writes here is not chosen as a deadlock's victim
	}
	for table, org := range map[string]string{"organizations": "id", "subscriptions": "org_id"} {
		insert := func(row, was, became string) string {
			return ` ON ` + table + ` FOR EACH ROW INSERT INTO journal (who, tbl, row_id, org_id, was, became)
				VALUES (SUBSTRING_INDEX(USER(), '@', 1), '` + table + `', ` + row + `.id, ` + row + `.` + org + `, ` + was + `, ` + became + `)`
		}
		before, after := rowAsJSON(table, "OLD"), rowAsJSON(table, "NEW")
		statements = append(statements,
			`CREATE TRIGGER `+table+`_inserted AFTER INSERT`+insert("NEW", "NULL", after),
			`CREATE TRIGGER `+table+`_updated AFTER UPDATE`+insert("NEW", before, after),
			`CREATE TRIGGER `+table+`_deleted AFTER DELETE`+insert("OLD", before, "NULL"))
	}
	for _, statement := range statements {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

func rowAsJSON(table, row string) string {
	var parts []string
	for _, column := range journalled[table] {
		parts = append(parts, "'"+column+"', "+row+"."+column)
	}
	return "JSON_OBJECT(" + strings.Join(parts, ", ") + ")"
}

// readJournal returns the writes in order.
func readJournal(ctx context.Context, db *sql.DB) ([]write, error) {
	var all []write
	err := each(ctx, db, func(rows *sql.Rows) error {
		var w write
		var was, became sql.NullString
		if err := rows.Scan(&w.seq, &w.account, &w.table, &w.row, &w.org, &was, &became, &w.written); err != nil {
			return err
		}
		all = append(all, w)
		last := &all[len(all)-1]
		return errors.Join(readRow(was, &last.before), readRow(became, &last.after))
	}, `SELECT seq, who, tbl, row_id, org_id, was, became, written FROM journal ORDER BY seq`)
	return all, err
}

func readRow(text sql.NullString, into *map[string]any) error {
	if !text.Valid {
		return nil
	}
	return json.Unmarshal([]byte(text.String), into)
}

// tables has the journalled columns of both tables, by "TABLE/ROW" and column.
type tables map[string]map[string]any

func readTables(ctx context.Context, db *sql.DB) (tables, error) {
	all := tables{}
	for _, table := range []string{"organizations", "subscriptions"} {
		err := each(ctx, db, func(rows *sql.Rows) error {
			var id, content string
			if err := rows.Scan(&id, &content); err != nil {
				return err
			}
			var row map[string]any
			err := json.Unmarshal([]byte(content), &row)
			all[table+"/"+id] = row
			return err
		}, `SELECT id, `+rowAsJSON(table, table)+` FROM `+table)
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// differing returns the columns that the write changed, sorted.
func (w write) differing() []string {
	var names []string
	for column, value := range w.after {
		if normalized(w.before[column]) != normalized(value) {
			names = append(names, column)
		}
	}
	slices.Sort(names)
	return names
}

// normalized formats a value of the journal or of an item's change the same way.
func normalized(value any) string {
	switch v := value.(type) {
	case nil:
		return "NULL"
	case bool:
		if v {
			return "1"
		}
		return "0"
	case float64:
		return fmt.Sprintf("%.0f", v)
	case time.Time:
		return v.Format(time.RFC3339)
	case string:
		if at, err := time.Parse(time.DateTime, v); err == nil {
			return at.Format(time.RFC3339)
		}
		return v
	default:
		return fmt.Sprintf("%v", v)
	}
}

// each calls fn for every row of a query.
func each(ctx context.Context, db *sql.DB, fn func(*sql.Rows) error, query string) (err error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return fmt.Errorf("%s: %w", query, err)
		}
	}
	return rows.Err()
}
