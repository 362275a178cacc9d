package mysqlstore

import (
	"context"
	"database/sql"
)

// Pages of the loops over many items, for tests that need more than one.
const (
	DriftPage    = driftPage
	PrunePage    = prunePage
	SnapshotPage = snapshotPage
	TrimPage     = trimPage
)

// RDSRoots are the authorities that are trusted for RDS.
func RDSRoots() []byte { return rdsRoots }

// SetRDSRoots puts others in their place and returns what puts them back.
func SetRDSRoots(pem []byte) (restore func()) {
	before := rdsRoots
	rdsRoots = pem
	return func() { rdsRoots = before }
}

// DB is the pool that the store uses.
func (s *Store) DB() *sql.DB { return s.db }

// MigrateDown takes every migration back.
func (s *Store) MigrateDown(ctx context.Context) error {
	provider, err := s.migrations()
	if err != nil {
		return err
	}
	_, err = provider.DownTo(ctx, 0)
	return err
}

// Failure maps an error of the driver to its class.
func Failure(err error, doing string) error { return failure(err, doing) }
