package mysqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// newConnector returns the pool's connector. With renew, it asks for a new login when the server refuses the
// present one.
func newConnector(cfg *mysql.Config, renew func(context.Context, Login) (Login, error)) (driver.Connector, error) {
	connector, err := mysql.NewConnector(cfg)
	if err != nil || renew == nil {
		return connector, err
	}
	return &renewingConnector{cfg: cfg, renew: renew, connector: connector, login: Login{cfg.User, cfg.Passwd}}, nil
}

type renewingConnector struct {
	cfg      *mysql.Config
	renew    func(context.Context, Login) (Login, error)
	refusals billing.Refusals

	mu        sync.Mutex
	login     Login
	connector driver.Connector // uses login
}

// Driver is called by database/sql.
func (c *renewingConnector) Driver() driver.Driver { return &mysql.MySQLDriver{} }

// Connect is called by the pool. Existing connections survive a rotation of the login.
func (c *renewingConnector) Connect(ctx context.Context) (driver.Conn, error) {
	connector, login := c.current()
	conn, err := connector.Connect(ctx)
	if isAccessDenied(err) {
		conn, err = c.connectWithNewLogin(ctx, login, err)
	}
	if err == nil {
		c.refusals.Reset()
		return conn, nil
	}
	if !isAccessDenied(err) {
		return nil, err
	}
	refused, ok := errors.AsType[*billing.Failure](failure(err, "log in to database "+c.cfg.DBName))
	if !ok {
		return nil, err
	}
	return nil, c.refusals.Classify(refused, time.Now())
}

func (c *renewingConnector) connectWithNewLogin(ctx context.Context, refused Login, refusal error) (driver.Conn, error) {
	login, err := c.renew(ctx, refused)
	if err != nil {
		return nil, fmt.Errorf("%w, and fetching another login failed: %w", refusal, err)
	}
	if login == refused {
		return nil, refusal
	}
	cfg := c.cfg.Clone()
	cfg.User, cfg.Passwd = login.User, login.Password
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	conn, err := connector.Connect(ctx)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.connector, c.login = connector, login
	}
	return conn, err
}

func (c *renewingConnector) current() (driver.Connector, Login) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connector, c.login
}

// isAccessDenied: the user or password is wrong, perhaps since a rotation.
func isAccessDenied(err error) bool {
	e, ok := errors.AsType[*mysql.MySQLError](err)
	return ok && e.Number == errAccessDenied
}
