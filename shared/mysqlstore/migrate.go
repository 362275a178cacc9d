package mysqlstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// Migrate creates or upgrades this system's own tables and returns the number of migrations applied. It does
// not touch the application's tables. It can be run again, and concurrently.
func (s *Store) Migrate(ctx context.Context) (int, error) {
	provider, err := s.migrations()
	if err != nil {
		return 0, fmt.Errorf("migrations: %w", err)
	}
	if s.migrated(ctx, provider) {
		return 0, nil
	}
	// Up creates its version table before it takes the lock. GetDBVersion creates it under the lock.
	if _, err := provider.GetDBVersion(ctx); err != nil {
		return 0, failure(err, "create this system's own tables")
	}
	results, err := provider.Up(ctx)
	if err != nil {
		return 0, failure(unwrapPartial(err), "create this system's own tables")
	}
	return len(results), nil
}

// migrated reports whether the tables are at this program's version or a later one. It takes no lock, which
// would pin a session of RDS Proxy at each start.
func (s *Store) migrated(ctx context.Context, provider *goose.Provider) bool {
	var version int64
	err := s.db.QueryRowContext(ctx, `SELECT COALESCE(MAX(version_id), 0) FROM reconciliation_migrations`).Scan(&version)
	if err != nil { // usually there is no such table; any other error recurs in the next query
		return false
	}
	sources := provider.ListSources()
	return version >= sources[len(sources)-1].Version
}

func (s *Store) migrations() (*goose.Provider, error) {
	dir, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, err
	}
	versions, err := database.NewStore(database.DialectMySQL, "reconciliation_migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider("", s.db, dir, goose.WithStore(versionTable{versions}),
		goose.WithSessionLocker(migrationLock{}), goose.WithDisableGlobalRegistry(true))
}

// versionTable is goose's store with another CreateVersionTable. MySQL commits at CREATE TABLE, so a process
// that dies after it leaves the table without the version 0 that goose requires. Goose inserts it only when it
// creates the table; for a store that cannot check for tables, as this one, it checks for version 0 instead.
type versionTable struct{ database.Store }

// CreateVersionTable is called where version 0 is missing.
func (versionTable) CreateVersionTable(ctx context.Context, db database.DBTxConn) error {
	_, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS reconciliation_migrations (
		id         BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
		version_id BIGINT          NOT NULL,
		is_applied BOOLEAN         NOT NULL,
		tstamp     DATETIME        NULL DEFAULT CURRENT_TIMESTAMP)`)
	return err
}

// migrationLock lets one process at a time migrate a database. Goose takes it on the connection on which it
// migrates; the server releases it if that connection is lost.
type migrationLock struct{}

const (
	// migrationLockName holds the database's name, because locks are server-wide, hashed to fit 64 characters. MySQL
	// 9.6 removed MD5() and SHA1().
	migrationLockName = `CONCAT('reconciliation_migrations_', LEFT(SHA2(DATABASE(), 256), 32))`
	// migrationWait is below ioTimeout, so that the server answers before the connection times out.
	migrationWait = 20 * time.Second
)

func (migrationLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	var taken sql.NullBool
	err := conn.QueryRowContext(ctx, `SELECT GET_LOCK(`+migrationLockName+`, ?)`, int(migrationWait.Seconds())).Scan(&taken)
	if err == nil && !taken.Bool {
		return &billing.Failure{
			Class: billing.Unavailable, Reason: billing.ReasonDatabaseUnavailable,
			Message: "another process is migrating this database; try again when it has finished",
		}
	}
	return err
}

func (migrationLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, `SELECT RELEASE_LOCK(`+migrationLockName+`)`)
	return err
}

// unwrapPartial returns the statement's error without goose's list of the migrations applied before.
func unwrapPartial(err error) error {
	if p, ok := errors.AsType[*goose.PartialError](err); ok {
		return p.Err
	}
	return err
}
