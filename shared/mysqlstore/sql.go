package mysqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// inTx runs fn in a transaction, commits it, and rolls back on any error. READ COMMITTED locks rows but not the
// gaps between them, into which webhooks insert. Each statement sees what is committed when it begins, so
// values that must not change in between are locked, or compared when written.
func (s *Store) inTx(ctx context.Context, fn func(*sql.Tx) error) (err error) {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		if rbErr := tx.Rollback(); rbErr != nil && !errors.Is(rbErr, sql.ErrTxDone) {
			err = fmt.Errorf("%w (and rolling back: %w)", err, rbErr)
		}
	}()
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// query calls scan for each row. A list that ends early is an error.
func query(ctx context.Context, q querier, scan func(*sql.Rows) error, stmt string, args ...any) (err error) {
	rows, err := q.QueryContext(ctx, stmt, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// selectStrings returns the strings that a query with one column selects.
func selectStrings(ctx context.Context, q querier, stmt string, args ...any) ([]string, error) {
	var all []string
	err := query(ctx, q, func(r *sql.Rows) error {
		var v string
		if err := r.Scan(&v); err != nil {
			return err
		}
		all = append(all, v)
		return nil
	}, stmt, args...)
	return all, err
}

// execMatched executes a compare-and-set and reports whether it matched a row.
func execMatched(ctx context.Context, e execer, stmt string, args ...any) (bool, error) {
	res, err := e.ExecContext(ctx, stmt, args...)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// queryValues calls ask with the values, unless there are none. A value may contain a character that the
// column's character set lacks; the server then refuses to compare. queryValues halves the values until the one
// that no row can hold is left out.
func queryValues(values []string, ask func(values []string) error) error {
	if len(values) == 0 {
		return nil
	}
	err := ask(values)
	if !isInconvertible(err) || !slices.ContainsFunc(values, hasNonASCII) {
		return err
	}
	if len(values) == 1 {
		return nil
	}
	half := len(values) / 2
	if err := queryValues(values[:half], ask); err != nil {
		return err
	}
	return queryValues(values[half:], ask)
}

func hasNonASCII(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}

// placeholders returns "(?,?,?)" for n values; n must be positive.
func placeholders(n int) string { return "(?" + strings.Repeat(",?", n-1) + ")" }

// whenThen returns " WHEN ? THEN ?" n times.
func whenThen(n int) string { return strings.Repeat(" WHEN ? THEN ?", n) }

// insertRows inserts all rows with one statement. args, which must not be empty, holds the values row by row.
// insert ends with VALUES; onDuplicate is what to do about existing rows.
func insertRows(ctx context.Context, e execer, insert string, columns int, args []any, onDuplicate string) error {
	more := strings.Repeat(","+placeholders(columns), len(args)/columns-1)
	_, err := e.ExecContext(ctx, insert+placeholders(columns)+more+onDuplicate, args...)
	return err
}

func toAny[T any](values []T) []any {
	all := make([]any, len(values))
	for i, v := range values {
		all[i] = v
	}
	return all
}
