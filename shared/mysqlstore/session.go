package mysqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/internal/driverconn"
)

// connectTimeout limits connecting, including the setup of the session. Lambda ends a start after 10 s, of
// which fetching the secret may take 5; an unreachable database must be reported before that.
const connectTimeout = 4 * time.Second

// connLifetime makes the pool reconnect after a failover. The server closes sessions that were idle for as
// long, such as those of a frozen or ended Lambda environment; the pool would not reuse them.
const connLifetime = 5 * time.Minute

// sessionVariables are set in each session, whatever the server's defaults are. RDS Proxy tracks these and lets
// sessions with equal values share connections; most others pin a connection to its session.
// https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-proxy-pinning.html
func sessionVariables() map[string]string {
	return map[string]string{
		"autocommit":   "1",
		"time_zone":    "'+00:00'",
		"sql_mode":     "'STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
		"wait_timeout": strconv.Itoa(int(connLifetime.Seconds())),
	}
}

// sessionIsolation is a statement because MySQL and MariaDB name the variable differently. Setting it for the
// next transaction only would pin the session.
const sessionIsolation = `SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED`

// sessionConnector connects and sets up the session within connectTimeout.
type sessionConnector struct{ driver.Connector }

func newSessionConnector(base driver.Connector, lockWait time.Duration) sessionConnector {
	return sessionConnector{driverconn.Wrap(base, func(ctx context.Context, conn driverconn.Conn) (driver.Conn, error) {
		_, err := conn.ExecContext(ctx, sessionIsolation, nil)
		if err == nil {
			err = limitLockWait(ctx, conn, lockWait)
		}
		return conn, err
	})}
}

// Connect is called by the pool.
func (c sessionConnector) Connect(ctx context.Context) (driver.Conn, error) {
	bounded, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := c.Connector.Connect(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("no answer within %s: the server hangs, or a firewall or security group drops what is sent to it", connectTimeout)
	}
	return conn, err
}

// limitLockWait sets innodb_lock_wait_timeout only if the server's is longer: RDS Proxy does not track it.
func limitLockWait(ctx context.Context, conn driverconn.Conn, lockWait time.Duration) error {
	limit := int64(lockWait.Seconds())
	if limit == 0 {
		return nil
	}
	wait, err := queryInt(ctx, conn, `SELECT @@innodb_lock_wait_timeout`)
	if err != nil || wait <= limit {
		return err
	}
	_, err = conn.ExecContext(ctx, `SET innodb_lock_wait_timeout = `+strconv.FormatInt(limit, 10), nil)
	return err
}

// queryInt returns the number that a query selects.
func queryInt(ctx context.Context, conn driver.QueryerContext, query string) (n int64, err error) {
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
