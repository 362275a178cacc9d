package mysqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/go-sql-driver/mysql"
)

// writerConnector makes connections that end once they met a read-only server. After a failover the
// pool's connections lead to what is a reader now, and the host's name to the new writer: only new
// connections find it. The driver's own RejectReadOnly does that too, but hides MySQL's answer.
type writerConnector struct{ driver.Connector }

// Connect is called by the pool.
func (c writerConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	of, ok := conn.(driverConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the driver's %T lacks a method", conn), conn.Close())
	}
	return &writerConn{driverConn: of}, nil
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

type writerConn struct {
	driverConn

	readOnly bool // one goroutine at a time uses a connection
}

func (c *writerConn) note(err error) error {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok && isReadOnly(e) {
		c.readOnly = true
	}
	return err
}

func (c *writerConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	result, err := c.driverConn.ExecContext(ctx, query, args)
	return result, c.note(err)
}

func (c *writerConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := c.driverConn.QueryContext(ctx, query, args)
	return rows, c.note(err)
}

func (c *writerConn) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	if options.Isolation == driver.IsolationLevel(sql.LevelReadCommitted) { // the session's own
		options.Isolation = driver.IsolationLevel(sql.LevelDefault)
	}
	tx, err := c.driverConn.BeginTx(ctx, options)
	if err != nil {
		return nil, c.note(err)
	}
	return writerTx{tx, c}, nil
}

// IsValid is asked whenever the connection goes back to the pool.
func (c *writerConn) IsValid() bool { return !c.readOnly && c.driverConn.IsValid() }

// writerTx: a server may become read-only before the commit.
type writerTx struct {
	driver.Tx

	conn *writerConn
}

func (t writerTx) Commit() error { return t.conn.note(t.Tx.Commit()) }
