package mysqltest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"go/token"
	"runtime"
	"strings"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/internal/driverconn"
)

// Interceptor handles a call from a pool to its server. It runs the call or not, and returns the error that the
// pool gets: the call's or one of its own.
//
// name is the mysqlstore.Store method that makes the call: "Runs". Within a transaction it is "begin Apply",
// "in Apply" for each statement, and "commit Apply". A transaction whose begin or commit gets an error is rolled
// back unless it was committed, as the server does when a process dies.
type Interceptor func(ctx context.Context, name string, call func() error) error

// Intercepted returns a pool like [DB.Open]'s whose statements, begins and commits all go through the interceptor.
func (d *DB) Intercepted(t testing.TB, intercept Interceptor) *sql.DB {
	t.Helper()
	return d.open(t, func(c driver.Connector) driver.Connector {
		return driverconn.Wrap(c, func(_ context.Context, conn driverconn.Conn) (driver.Conn, error) {
			return &interceptedConn{Conn: conn, intercept: intercept}, nil
		})
	})
}

type interceptedConn struct {
	driverconn.Conn

	intercept Interceptor
	inTx      bool // one goroutine at a time uses a connection
}

func (c *interceptedConn) statement(ctx context.Context, call func() error) error {
	name := storeMethod()
	if c.inTx {
		name = "in " + name
	}
	return c.intercept(ctx, name, call)
}

func (c *interceptedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (result driver.Result, err error) {
	err = c.statement(ctx, func() (err error) {
		result, err = c.Conn.ExecContext(ctx, query, args)
		return err
	})
	return result, err
}

func (c *interceptedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (rows driver.Rows, err error) {
	err = c.statement(ctx, func() (err error) {
		rows, err = c.Conn.QueryContext(ctx, query, args)
		return err
	})
	if err != nil && rows != nil {
		_ = rows.Close() // the caller gets the error instead
	}
	return rows, err
}

// PrepareContext serves the store's check of privileges. The statement cannot be executed, because that call
// would not be intercepted.
func (c *interceptedConn) PrepareContext(ctx context.Context, query string) (stmt driver.Stmt, err error) {
	err = c.statement(ctx, func() (err error) {
		stmt, err = c.Conn.PrepareContext(ctx, query)
		return err
	})
	if err != nil {
		if stmt != nil {
			_ = stmt.Close()
		}
		return nil, err
	}
	return preparedOnly{stmt}, nil
}

type preparedOnly struct{ driver.Stmt }

var errPrepared = errors.New("a prepared statement would not be intercepted")

func (preparedOnly) Exec([]driver.Value) (driver.Result, error) { return nil, errPrepared }
func (preparedOnly) Query([]driver.Value) (driver.Rows, error)  { return nil, errPrepared }

func (c *interceptedConn) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	var tx driver.Tx
	err := c.intercept(ctx, "begin "+storeMethod(), func() (err error) {
		tx, err = c.Conn.BeginTx(ctx, options)
		return err
	})
	if err != nil {
		if tx != nil {
			_ = tx.Rollback()
		}
		return nil, err
	}
	c.inTx = true
	return interceptedTx{tx, c, ctx}, nil
}

type interceptedTx struct {
	driver.Tx

	conn *interceptedConn
	ctx  context.Context // Commit is given none
}

func (t interceptedTx) Commit() error {
	t.conn.inTx = false
	sent := false
	err := t.conn.intercept(t.ctx, "commit "+storeMethod(), func() error {
		sent = true
		return t.Tx.Commit()
	})
	if !sent {
		_ = t.Tx.Rollback() // the interceptor's error says why
	}
	return err
}

func (t interceptedTx) Rollback() error {
	t.conn.inTx = false
	return t.Tx.Rollback()
}

// storeMethod returns the outermost method of the store on this goroutine's stack; "" if there is none.
func storeMethod() (name string) {
	var callers [64]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(1, callers[:])])
	for more := true; more; {
		var frame runtime.Frame
		frame, more = frames.Next()
		if _, after, ok := strings.Cut(frame.Function, "/mysqlstore.(*Store)."); ok && token.IsExported(after) {
			name, _, _ = strings.Cut(after, ".") // a closure in a method is "Apply.func1"
		}
	}
	return name
}
