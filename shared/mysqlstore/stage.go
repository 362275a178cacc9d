package mysqlstore

import (
	"context"
	"database/sql"
	"errors"
)

// EnsureStage records stage as the stage of the functions that work on this database, unless one is recorded
// already, and returns the recorded one.
func (s *Store) EnsureStage(ctx context.Context, stage string) (kept string, err error) {
	const look = `SELECT content FROM reconciliation_settings WHERE name = 'stage'`
	err = s.db.QueryRowContext(ctx, look).Scan(&kept)
	if errors.Is(err, sql.ErrNoRows) {
		// The first of several concurrent inserts wins.
		_, err = s.db.ExecContext(ctx, `INSERT INTO reconciliation_settings (name, content) VALUES ('stage', ?)
			ON DUPLICATE KEY UPDATE name = VALUES(name)`, stage)
		if err == nil {
			err = s.db.QueryRowContext(ctx, look).Scan(&kept)
		}
	}
	if err != nil {
		return "", failure(err, "store the stage of the database")
	}
	return kept, nil
}
