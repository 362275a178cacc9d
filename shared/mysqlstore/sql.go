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

// inTx runs fn in a transaction and commits it; any error rolls it back. READ COMMITTED locks rows
// and no gaps between them, where the application's webhooks insert; each statement sees what is
// committed when it begins, so what must stay as it was read is locked or compared when it is written.
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

// query calls scan for each row; a list that broke off is an error.
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

// texts returns the only column of a query.
func texts(ctx context.Context, q querier, stmt string, args ...any) ([]string, error) {
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

// hit executes stmt and reports whether it matched a row: a compare-and-set.
func hit(ctx context.Context, e execer, stmt string, args ...any) (bool, error) {
	res, err := e.ExecContext(ctx, stmt, args...)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// lookUp calls ask for the values, if there are any, which come from anywhere. A column's character
// set may not have every letter of them: then the server refuses to compare, and ask is called for
// fewer at a time, until what no row can have is left out.
func lookUp(values []string, ask func(values []string) error) error {
	if len(values) == 0 {
		return nil
	}
	err := ask(values)
	if !isOtherCharacterSet(err) || !slices.ContainsFunc(values, hasOtherThanASCII) {
		return err
	}
	if len(values) == 1 {
		return nil
	}
	half := len(values) / 2
	if err := lookUp(values[:half], ask); err != nil {
		return err
	}
	return lookUp(values[half:], ask)
}

func hasOtherThanASCII(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}

// in returns "(?,?,?)" for n values; n must be positive.
func in(n int) string { return "(?" + strings.Repeat(",?", n-1) + ")" }

// insertRows is one statement for all rows, whose values follow each other in args, so many for each row; args must
// not be empty. insert ends with VALUES, otherwise says what becomes of a row that is there already.
func insertRows(ctx context.Context, e execer, insert string, columns int, args []any, otherwise string) error {
	more := strings.Repeat(","+in(columns), len(args)/columns-1)
	_, err := e.ExecContext(ctx, insert+in(columns)+more+otherwise, args...)
	return err
}

func anys[T any](values []T) []any {
	all := make([]any, len(values))
	for i, v := range values {
		all[i] = v
	}
	return all
}
