package mysqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// connectTimeout bounds connecting, from the dial until the session is as it must be. Lambda ends a start
// after 10 s, of which fetching the secret may take 5: a database that is silent must be told from that.
const connectTimeout = 4 * time.Second

// connLifetime lets a failover be followed by fresh connections. The server ends a session that was idle for
// as long: that of a Lambda environment that is frozen, or gone, and not one that the pool would use again.
const connLifetime = 5 * time.Minute

// variables are what each session sets of its own, whatever the server's defaults are. RDS Proxy tracks them
// and lets sessions with the same values share connections; most others pin a connection to its session.
// https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-proxy-pinning.html
func variables() map[string]string {
	return map[string]string{
		"autocommit":   "1",
		"time_zone":    "'+00:00'",
		"sql_mode":     "'STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
		"wait_timeout": strconv.Itoa(int(connLifetime.Seconds())),
	}
}

// sessionIsolation is in a statement of its own, for MySQL and MariaDB name the variable differently. Set for
// the next transaction only, it would pin the session too.
const sessionIsolation = `SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED`

// sessionConnector makes connections whose sessions are as they must be, within connectTimeout.
type sessionConnector struct {
	driver.Connector

	lockWait time.Duration
}

// Connect is called by the pool.
func (c sessionConnector) Connect(ctx context.Context) (driver.Conn, error) {
	bounded, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := c.connect(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("no answer within %s: the server hangs, or a firewall or security group drops what is sent to it", connectTimeout)
	}
	return conn, err
}

func (c sessionConnector) connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	of, ok := conn.(driverConn)
	if !ok {
		err = fmt.Errorf("the driver's %T lacks a method", conn)
	} else if _, err = of.ExecContext(ctx, sessionIsolation, nil); err == nil {
		err = c.boundLocks(ctx, of)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// boundLocks sets how long a statement waits for a lock only where the server would let it wait longer: RDS
// Proxy does not track this variable.
func (c sessionConnector) boundLocks(ctx context.Context, conn driverConn) error {
	most := int64(c.lockWait.Seconds())
	if most == 0 {
		return nil
	}
	wait, err := number(ctx, conn, `SELECT @@innodb_lock_wait_timeout`)
	if err != nil || wait <= most {
		return err
	}
	_, err = conn.ExecContext(ctx, `SET innodb_lock_wait_timeout = `+strconv.FormatInt(most, 10), nil)
	return err
}

// number returns what a query selects.
func number(ctx context.Context, conn driver.QueryerContext, query string) (n int64, err error) {
	rows, err := conn.QueryContext(ctx, query, nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]driver.Value, 1)
	if err := rows.Next(row); err != nil {
		return 0, err
	}
	text, isText := row[0].([]byte)
	if !isText {
		text = fmt.Append(nil, row[0])
	}
	return strconv.ParseInt(string(text), 10, 64)
}
