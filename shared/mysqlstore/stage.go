package mysqlstore

import (
	"context"
	"database/sql"
	"errors"
)

// EnsureStage returns the stage whose functions work on this database. Where nobody has said so yet it
// is the given one, from now on.
func (s *Store) EnsureStage(ctx context.Context, stage string) (kept string, err error) {
	const look = `SELECT content FROM reconciliation_settings WHERE name = 'stage'`
	err = s.db.QueryRowContext(ctx, look).Scan(&kept)
	if errors.Is(err, sql.ErrNoRows) {
		// Of several that come at once the first one counts.
		_, err = s.db.ExecContext(ctx, `INSERT INTO reconciliation_settings (name, content) VALUES ('stage', ?)
			ON DUPLICATE KEY UPDATE name = VALUES(name)`, stage)
		if err == nil {
			err = s.db.QueryRowContext(ctx, look).Scan(&kept)
		}
	}
	if err != nil {
		return "", failure(err, "look whose stage this database is")
	}
	return kept, nil
}
