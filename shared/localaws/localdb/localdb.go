package localdb

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/go-sql-driver/mysql"
)

// ErrNoServer means that the machine has neither mariadbd nor mysqld.
var ErrNoServer = errors.New("no mariadbd or mysqld on this machine (Debian: apt-get install mariadb-server-core)")

// ErrNoProgram means that the environment variable MYSQLD does not name an executable.
var ErrNoProgram = errors.New(programEnv + " names no program that can be run")

const (
	loopback = "127.0.0.1"
	userName = "reconciliation"
)

// Server is a running temporary database server. It is safe for concurrent use.
type Server struct {
	kind       string
	concurrent bool
	port       int
	password   string

	stop      func() error
	restart   func(context.Context) error // nil for the in-process server
	closeOnce sync.Once
	closeErr  error
}

// Kind describes the server, such as "MariaDB 10.11.19 (/usr/sbin/mariadbd)".
func (s *Server) Kind() string { return s.kind }

// Concurrent is false if the server must be used with one connection only.
func (s *Server) Concurrent() bool { return s.concurrent }

// Host is the address of the server, always the loopback interface.
func (s *Server) Host() string { return loopback }

// Port is the TCP port of the server.
func (s *Server) Port() int { return s.port }

// User is the account with all privileges.
func (s *Server) User() string { return userName }

// Password is User's password. Do not print it.
func (s *Server) Password() string { return s.password }

// String is the server's Kind, so that printing a Server never prints its password.
func (s *Server) String() string { return s.kind }

// GoString is String for %#v.
func (s *Server) GoString() string { return s.kind }

// DSN returns a new driver configuration without a database. The caller sets DBName and other options.
func (s *Server) DSN() *mysql.Config {
	cfg := mysql.NewConfig()
	cfg.Net = "tcp"
	cfg.Addr = net.JoinHostPort(loopback, strconv.Itoa(s.port))
	cfg.User = userName
	cfg.Passwd = s.password
	return cfg
}

// CreateDatabase creates an empty database. It is an error if the database exists.
func (s *Server) CreateDatabase(ctx context.Context, name string) error {
	if err := s.exec(ctx, "CREATE DATABASE "+quote(name)+" CHARACTER SET utf8mb4"); err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}

// DropDatabase drops a database if it exists.
func (s *Server) DropDatabase(ctx context.Context, name string) error {
	if err := s.exec(ctx, "DROP DATABASE IF EXISTS "+quote(name)); err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	return nil
}

// Restart shuts the server down cleanly and starts it again with its data on the same port. It returns when the server
// accepts connections. It must not be called concurrently.
func (s *Server) Restart(ctx context.Context) error {
	if s.restart == nil {
		return fmt.Errorf("%s runs in this process and cannot be restarted", s.kind)
	}
	if err := s.restart(ctx); err != nil {
		return fmt.Errorf("restart %s: %w", s.kind, err)
	}
	return nil
}

// Close stops the server and removes its temporary directory. Later calls return the same error.
func (s *Server) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.stop() })
	return s.closeErr
}

// exec runs one statement on a new connection and closes it: the in-process server accepts only one.
func (s *Server) exec(ctx context.Context, statement string) error {
	db, err := open(s.DSN())
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, statement)
	return errors.Join(err, db.Close())
}

func open(cfg *mysql.Config) (*sql.DB, error) {
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	return db, nil
}

func quote(name string) string {
	return "`" + strings.ReplaceAll(name, "`", "``") + "`"
}

func randomPassword() string {
	b := make([]byte, 24)
	rand.Read(b) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b)
}
