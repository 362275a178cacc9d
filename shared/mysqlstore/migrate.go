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

// Migrate creates or upgrades this system's own tables and returns how many steps it took. The
// application's tables are not touched. Running it again does nothing, and two at once take turns.
func (s *Store) Migrate(ctx context.Context) (int, error) {
	provider, err := s.migrations()
	if err != nil {
		return 0, fmt.Errorf("migrations: %w", err)
	}
	if s.migrated(ctx, provider) {
		return 0, nil
	}
	// Up looks whether there is anything to do, and makes its version table for that, before it
	// takes the lock; this makes the table under the lock.
	if _, err := provider.GetDBVersion(ctx); err != nil {
		return 0, failure(err, "create this system's own tables")
	}
	results, err := provider.Up(ctx)
	if err != nil {
		return 0, failure(unwrapPartial(err), "create this system's own tables")
	}
	return len(results), nil
}

// migrated reports whether the tables are those of this program, or of a later one. It takes no lock: with
// one, each start would pin a session of RDS Proxy's.
func (s *Store) migrated(ctx context.Context, provider *goose.Provider) bool {
	var version int64
	err := s.db.QueryRowContext(ctx, `SELECT COALESCE(MAX(version_id), 0) FROM reconciliation_migrations`).Scan(&version)
	if err != nil { // mostly because there is no such table; else the next question fails too
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

// versionTable is goose's, but for how it begins. MySQL commits at CREATE TABLE, so who dies right
// behind it leaves a table without the version 0 that goose insists on; goose, which looks for the
// table alone, would never insert it. Of a store that cannot look for tables it looks for version 0.
type versionTable struct{ database.Store }

// CreateVersionTable is called where there is no version 0.
func (versionTable) CreateVersionTable(ctx context.Context, db database.DBTxConn) error {
	_, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS reconciliation_migrations (
		id         BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
		version_id BIGINT          NOT NULL,
		is_applied BOOLEAN         NOT NULL,
		tstamp     DATETIME        NULL DEFAULT CURRENT_TIMESTAMP)`)
	return err
}

// migrationLock lets one process at a time migrate a database. Goose calls it on the connection
// that it migrates on; the server frees the lock when that connection is lost.
type migrationLock struct{}

const (
	// migrationLockName: locks are named server-wide, in at most 64 characters. MySQL has no MD5()
	// and no SHA1() since 9.6.
	migrationLockName = `CONCAT('reconciliation_migrations_', LEFT(SHA2(DATABASE(), 256), 32))`
	// migrationWait is below ioTimeout, so that the server answers first.
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

// unwrapPartial: goose wraps the statement's error in one that also lists what went before.
func unwrapPartial(err error) error {
	if p, ok := errors.AsType[*goose.PartialError](err); ok {
		return p.Err
	}
	return err
}
