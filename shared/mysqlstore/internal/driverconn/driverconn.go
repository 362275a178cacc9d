// Package driverconn wraps a database driver's connections and keeps the optional interfaces that
// database/sql uses.
package driverconn

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
)

// Conn has every optional method of a connection that database/sql uses.
type Conn interface {
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

type connector struct {
	driver.Connector

	wrap func(context.Context, Conn) (driver.Conn, error)
}

// Wrap returns a connector that passes each new connection of base through wrap. A connection is closed if
// wrap fails.
func Wrap(base driver.Connector, wrap func(context.Context, Conn) (driver.Conn, error)) driver.Connector {
	return connector{base, wrap}
}

// Connect is called by the pool.
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	full, ok := conn.(Conn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the driver's %T lacks a method that database/sql uses", conn), conn.Close())
	}
	wrapped, err := c.wrap(ctx, full)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return wrapped, nil
}
