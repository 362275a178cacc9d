package mysqltest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/localdb"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
)

const (
	dsnEnv = "TEST_MYSQL_DSN"

	sqlMode = "STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"

	// cleanupTimeout limits dropping a database, which waits for open transactions.
	cleanupTimeout = 30 * time.Second
)

// DB is the database of one test. Host, Port, User, Password and Name are for connecting by other means.
type DB struct {
	*sql.DB
	Host       string
	Port       int
	User       string
	Password   string
	Name       string
	Kind       string // the server's name and version
	Concurrent bool   // false: one connection only, locks cannot be tested
	config     *mysql.Config
}

// server is where databases are created.
type server struct {
	config     *mysql.Config // without a database
	kind       string
	concurrent bool
	close      func() error
}

// shared is the server of this test binary, started by the first test that needs it.
var shared struct {
	once   sync.Once
	server *server
	err    error
}

// New returns an empty database on a server with many connections. Without such a server it skips the test, or
// fails it if CI=true.
func New(t testing.TB) *DB {
	t.Helper()
	s, err := sharedServer()
	if errors.Is(err, localdb.ErrNoServer) {
		skipOrFail(t)
	}
	if err != nil {
		t.Fatalf("start a database server: %v", err)
	}
	return s.newDatabase(t)
}

// NewAny is New if there is a server, else InProcess.
func NewAny(t testing.TB) *DB {
	t.Helper()
	if _, err := sharedServer(); errors.Is(err, localdb.ErrNoServer) {
		return InProcess(t)
	}
	return New(t)
}

// InProcess returns an empty database on its own go-mysql-server in this process, with one connection.
func InProcess(t testing.TB) *DB {
	t.Helper()
	local, err := localdb.StartInProcess(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := local.Close(); err != nil {
			t.Errorf("stop go-mysql-server: %v", err)
		}
	})
	return NewOn(t, local)
}

// NewOn returns an empty database on the given server.
func NewOn(t testing.TB, local *localdb.Server) *DB {
	t.Helper()
	return localServer(local).newDatabase(t)
}

// WithOwnServer returns an empty database on its own server, whose settings the test may change. The server
// takes seconds to start. Without a program to start it skips the test as [New] does.
func WithOwnServer(t testing.TB) *DB {
	t.Helper()
	local, err := localdb.StartInMemory(t.Context())
	if errors.Is(err, localdb.ErrNoServer) {
		skipOrFail(t)
	}
	if err != nil {
		t.Fatalf("start a database server: %v", err)
	}
	t.Cleanup(func() {
		if err := local.Close(); err != nil {
			t.Errorf("stop %s: %v", local.Kind(), err)
		}
	})
	return localServer(local).newDatabase(t)
}

// Main runs the tests of a binary, stops the server that they shared and runs the cleanups:
//
//	func TestMain(m *testing.M) { mysqltest.Main(m) }
func Main(m *testing.M, cleanups ...func() error) {
	code := m.Run()
	if err := stopShared(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the test database server:", err)
		code = 1
	}
	for _, cleanup := range cleanups {
		if err := cleanup(); err != nil {
			fmt.Fprintln(os.Stderr, "clean up after the tests:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// Open returns another pool on the same database, closed when the test ends. Unless Concurrent, its first query
// waits until the first pool is closed.
func (d *DB) Open(t testing.TB) *sql.DB {
	t.Helper()
	return d.open(t, unwrapped)
}

func (d *DB) open(t testing.TB, wrap func(driver.Connector) driver.Connector) *sql.DB {
	t.Helper()
	db, err := open(d.config, d.Concurrent, wrap)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close a pool of %s: %v", d.Name, err)
		}
	})
	return db
}

// Environ returns the variables that name the database to a program.
func (d *DB) Environ() map[string]string {
	return map[string]string{
		"DB_HOST": d.Host, "DB_PORT": strconv.Itoa(d.Port), "DB_USER": d.User, "DB_PASSWORD": d.Password, "DB_NAME": d.Name,
	}
}

// Collate recreates the application's tables with this collation. It skips the test if the server lacks it.
func (d *DB) Collate(t testing.TB, collation string) {
	t.Helper()
	d.MustExec(t, `DROP TABLE subscriptions`)
	d.MustExec(t, `DROP TABLE organizations`)
	d.CollateByDefault(t, collation)
	if err := appschema.Create(t.Context(), d.DB); err != nil {
		t.Fatal(err)
	}
}

// CollateByDefault sets the database's default collation. It skips the test if the server lacks it.
func (d *DB) CollateByDefault(t testing.TB, collation string) {
	t.Helper()
	if Value[int](t, d, `SELECT COUNT(*) FROM information_schema.collations WHERE collation_name = ?`, collation) == 0 {
		t.Skipf("%s has no %s", d.Kind, collation)
	}
	d.MustExec(t, `ALTER DATABASE `+d.Name+` COLLATE `+collation)
}

// MustExec executes a statement and returns how many rows it matched.
func (d *DB) MustExec(t testing.TB, statement string, args ...any) int64 {
	t.Helper()
	result, err := d.ExecContext(t.Context(), statement, args...)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return n
}

// Value returns the one value that a query selects.
func Value[T any](t testing.TB, d *DB, query string, args ...any) T {
	t.Helper()
	var value T
	if err := d.QueryRowContext(t.Context(), query, args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return value
}

// Values returns the values of the query's only column.
func Values[T any](t testing.TB, d *DB, query string, args ...any) []T {
	t.Helper()
	rows, err := d.QueryContext(t.Context(), query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer func() { _ = rows.Close() }() // rows.Err has its error
	var all []T
	for rows.Next() {
		var value T
		if err := rows.Scan(&value); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		all = append(all, value)
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return all
}

// RowsRead returns how many rows the storage engine has read: in the pool's only session, or GLOBAL in all.
// https://dev.mysql.com/doc/refman/8.4/en/server-status-variables.html#statvar_Handler_read_first
func RowsRead(t testing.TB, db *sql.DB, scope string) (total int) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `SHOW `+scope+` STATUS LIKE 'Handler_read%'`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }() // rows.Err has its error
	for rows.Next() {
		var name string
		var n int
		if err := rows.Scan(&name, &n); err != nil {
			t.Fatal(err)
		}
		total += n
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return total
}

func skipOrFail(t testing.TB) {
	t.Helper()
	const line = "needs a MariaDB or MySQL server: apt-get install mariadb-server-core, or set " + dsnEnv
	if os.Getenv("CI") == "true" {
		t.Fatal(line)
	}
	t.Skip(line)
}

func sharedServer() (*server, error) {
	shared.once.Do(func() { shared.server, shared.err = findServer() })
	return shared.server, shared.err
}

func stopShared() error {
	// A later test must not start another server.
	shared.once.Do(func() { shared.err = localdb.ErrNoServer })
	if shared.server == nil {
		return nil
	}
	return shared.server.close()
}

// findServer starts the shared server without the test's context, because the server outlives the test.
func findServer() (*server, error) {
	if dsn := os.Getenv(dsnEnv); dsn != "" {
		return namedServer(dsn)
	}
	local, err := localdb.StartInMemory(context.Background())
	if err != nil {
		return nil, err
	}
	return localServer(local), nil
}

func namedServer(dsn string) (*server, error) {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dsnEnv, err)
	}
	if cfg.Net != "tcp" {
		return nil, fmt.Errorf("%s: want user:password@tcp(host:port)/, not %s", dsnEnv, cfg.Net)
	}
	cfg.DBName = ""
	return &server{
		config:     cfg,
		kind:       "the server of " + dsnEnv,
		concurrent: true,
		close:      func() error { return nil },
	}, nil
}

func localServer(local *localdb.Server) *server {
	return &server{
		config:     local.DSN(),
		kind:       local.Kind(),
		concurrent: local.Concurrent(),
		close:      local.Close,
	}
}

// newDatabase creates a database with the application's tables and drops it when t ends.
func (s *server) newDatabase(t testing.TB) *DB {
	t.Helper()
	name := "test_" + strings.ToLower(rand.Text())
	if err := s.exec(t.Context(), "CREATE DATABASE "+name+" CHARACTER SET utf8mb4"); err != nil {
		t.Fatalf("create a database on %s: %v", s.kind, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
		defer cancel()
		if err := s.exec(ctx, "DROP DATABASE "+name); err != nil {
			t.Errorf("drop database %s: %v", name, err)
		}
	})

	d, err := s.database(name)
	if err != nil {
		t.Fatal(err)
	}
	d.DB = d.Open(t)
	if err := appschema.Create(t.Context(), d.DB); err != nil {
		t.Fatal(err)
	}
	return d
}

// database describes a database on the server without connecting.
func (s *server) database(name string) (*DB, error) {
	host, portText, err := net.SplitHostPort(s.config.Addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, err
	}
	cfg := s.config.Clone()
	cfg.DBName = name
	return &DB{
		Host:       host,
		Port:       port,
		User:       cfg.User,
		Password:   cfg.Passwd,
		Name:       name,
		Kind:       s.kind,
		Concurrent: s.concurrent,
		config:     cfg,
	}, nil
}

// exec executes a statement on a separate connection.
func (s *server) exec(ctx context.Context, statement string) error {
	db, err := open(s.config, s.concurrent, unwrapped)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, statement)
	return errors.Join(err, db.Close())
}

func unwrapped(c driver.Connector) driver.Connector { return c }

func open(base *mysql.Config, concurrent bool, wrap func(driver.Connector) driver.Connector) (*sql.DB, error) {
	cfg := base.Clone()
	cfg.ParseTime = true
	cfg.Loc = time.UTC
	cfg.ClientFoundRows = true
	cfg.InterpolateParams = true
	if cfg.Params == nil {
		cfg.Params = map[string]string{}
	}
	cfg.Params["time_zone"] = "'+00:00'"
	cfg.Params["sql_mode"] = "'" + sqlMode + "'"
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(wrap(connector))
	if !concurrent {
		db.SetMaxOpenConns(1)
	}
	return db, nil
}
