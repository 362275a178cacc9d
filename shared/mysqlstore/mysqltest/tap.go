package mysqltest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"go/token"
	"runtime"
	"strings"
	"testing"
)

// Interceptor stands between a pool and its server. It makes a call have its effect, or not, and returns what
// the pool is to hear of it: the effect's error, or one of its own.
//
// A call bears the name of the mysqlstore.Store's method that makes it, "Runs". Of a transaction the
// calls are "begin Apply", "in Apply" for each statement, and "commit Apply"; one whose begin or
// commit is answered with an error is rolled back, as the server does where a process dies, unless it
// was committed.
type Interceptor func(ctx context.Context, call string, effect func() error) error

// Intercepted returns a pool like [DB.Open]'s whose every statement, begin and commit goes through the tap.
func (d *DB) Intercepted(t testing.TB, tap Interceptor) *sql.DB {
	t.Helper()
	return d.open(t, func(c driver.Connector) driver.Connector { return tappedConnector{c, tap} })
}

type tappedConnector struct {
	driver.Connector

	tap Interceptor
}

func (c tappedConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	of, ok := conn.(driverConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the driver's %T lacks a method", conn), conn.Close())
	}
	return &tappedConn{driverConn: of, tap: c.tap}, nil
}

// driverConn is what database/sql uses of the driver's connection.
type driverConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

type tappedConn struct {
	driverConn

	tap  Interceptor
	inTx bool // one goroutine at a time uses a connection
}

func (c *tappedConn) statement(ctx context.Context, effect func() error) error {
	call := method()
	if c.inTx {
		call = "in " + call
	}
	return c.tap(ctx, call, effect)
}

func (c *tappedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (result driver.Result, err error) {
	err = c.statement(ctx, func() (err error) {
		result, err = c.driverConn.ExecContext(ctx, query, args)
		return err
	})
	return result, err
}

func (c *tappedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (rows driver.Rows, err error) {
	err = c.statement(ctx, func() (err error) {
		rows, err = c.driverConn.QueryContext(ctx, query, args)
		return err
	})
	if err != nil && rows != nil {
		_ = rows.Close() // nobody is left to read them
	}
	return rows, err
}

// PrepareContext is how the store asks what it may do. What is prepared cannot be executed: that
// would be no call.
func (c *tappedConn) PrepareContext(ctx context.Context, query string) (stmt driver.Stmt, err error) {
	err = c.statement(ctx, func() (err error) {
		stmt, err = c.driverConn.PrepareContext(ctx, query)
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

var errPrepared = errors.New("a prepared statement would not be tapped")

func (preparedOnly) Exec([]driver.Value) (driver.Result, error) { return nil, errPrepared }
func (preparedOnly) Query([]driver.Value) (driver.Rows, error)  { return nil, errPrepared }

func (c *tappedConn) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	var tx driver.Tx
	err := c.tap(ctx, "begin "+method(), func() (err error) {
		tx, err = c.driverConn.BeginTx(ctx, options)
		return err
	})
	if err != nil {
		if tx != nil {
			_ = tx.Rollback()
		}
		return nil, err
	}
	c.inTx = true
	return tappedTx{tx, c, ctx}, nil
}

type tappedTx struct {
	driver.Tx

	conn *tappedConn
	ctx  context.Context // Commit has none of its own
}

func (t tappedTx) Commit() error {
	t.conn.inTx = false
	sent := false
	err := t.conn.tap(t.ctx, "commit "+method(), func() error {
		sent = true
		return t.Tx.Commit()
	})
	if !sent {
		_ = t.Tx.Rollback() // the tap's error says why
	}
	return err
}

func (t tappedTx) Rollback() error {
	t.conn.inTx = false
	return t.Tx.Rollback()
}

// method returns the store's method that this goroutine is in, the outermost of several; "" outside
// of any. So no method can be forgotten, and none needs to say its name.
func method() (name string) {
	var callers [64]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(1, callers[:])])
	for more := true; more; {
		var frame runtime.Frame
		frame, more = frames.Next()
		if _, after, ok := strings.Cut(frame.Function, "/mysqlstore.(*Store)."); ok && token.IsExported(after) {
			name, _, _ = strings.Cut(after, ".") // a function in a method is "Apply.func1"
		}
	}
	return name
}
