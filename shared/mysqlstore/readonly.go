package mysqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"

	"github.com/go-sql-driver/mysql"

	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/internal/driverconn"
)

// writerConn leaves the pool once the server has refused a write as read-only. After a failover the pool's
// connections lead to what is now a reader, and only new connections resolve the host name to the new writer.
// The driver's own RejectReadOnly would do the same, but hides MySQL's error.
type writerConn struct {
	driverconn.Conn

	readOnly bool // one goroutine at a time uses a connection
}

func newWriterConn(_ context.Context, conn driverconn.Conn) (driver.Conn, error) {
	return &writerConn{Conn: conn}, nil
}

func (c *writerConn) checkReadOnly(err error) error {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok && isReadOnly(e) {
		c.readOnly = true
	}
	return err
}

func (c *writerConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	result, err := c.Conn.ExecContext(ctx, query, args)
	return result, c.checkReadOnly(err)
}

func (c *writerConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := c.Conn.QueryContext(ctx, query, args)
	return rows, c.checkReadOnly(err)
}

func (c *writerConn) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	if options.Isolation == driver.IsolationLevel(sql.LevelReadCommitted) { // the session's level already
		options.Isolation = driver.IsolationLevel(sql.LevelDefault)
	}
	tx, err := c.Conn.BeginTx(ctx, options)
	if err != nil {
		return nil, c.checkReadOnly(err)
	}
	return writerTx{tx, c}, nil
}

// IsValid is called by the pool when the connection is returned to it.
func (c *writerConn) IsValid() bool { return !c.readOnly && c.Conn.IsValid() }

// writerTx checks the commit too: the server may have become read-only since the transaction began.
type writerTx struct {
	driver.Tx

	conn *writerConn
}

func (t writerTx) Commit() error { return t.conn.checkReadOnly(t.Tx.Commit()) }
