package mysqlstore

import (
	"context"
	"database/sql"
)

// Sizes of pages and batches, for tests that need more than one.
const (
	ItemPage     = itemPage
	PruneBatch   = pruneBatch
	SnapshotPage = snapshotPage
	TrimBatch    = trimBatch
)

// RDSRoots returns the trusted authorities of RDS.
func RDSRoots() []byte { return rdsRoots }

// SetRDSRoots replaces the trusted authorities of RDS; restore undoes it.
func SetRDSRoots(pem []byte) (restore func()) {
	before := rdsRoots
	rdsRoots = pem
	return func() { rdsRoots = before }
}

// DB returns the store's pool.
func (s *Store) DB() *sql.DB { return s.db }

// MigrateDown reverts all migrations.
func (s *Store) MigrateDown(ctx context.Context) error {
	provider, err := s.migrations()
	if err != nil {
		return err
	}
	_, err = provider.DownTo(ctx, 0)
	return err
}

// Failure maps an error of the driver to its failure class.
func Failure(err error, doing string) error { return failure(err, doing) }
