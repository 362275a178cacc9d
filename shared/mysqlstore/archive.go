package mysqlstore

import (
	"context"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// needsArchive selects closed full runs whose summary is newer than their archived reports.
const needsArchive = isFullRun + ` AND NOT ` + isOpen + ` AND summary IS NOT NULL
	AND summary_revision > COALESCE((SELECT a.revision FROM reconciliation_archives a WHERE a.run_id = r.id), 0)`

// RunsToArchive returns the runs whose reports must be written: first those never tried, then those tried
// longest ago.
func (s *Store) RunsToArchive(ctx context.Context) ([]billing.Run, error) {
	return s.runsWhere(ctx, needsArchive+`
		ORDER BY (SELECT a.tried_at FROM reconciliation_archives a WHERE a.run_id = r.id), started_at DESC`)
}

// AcquireArchiveLease makes the lease's owner the only one to write the run's reports until the lease ends. It
// returns false if another one has the lease.
func (s *Store) AcquireArchiveLease(ctx context.Context, l billing.Lease, now time.Time) (bool, error) {
	if _, err := s.db.ExecContext(ctx, `INSERT INTO reconciliation_archives (run_id) VALUES (?) ON DUPLICATE KEY UPDATE run_id = VALUES(run_id)`, l.RunID); err != nil {
		return false, failure(err, "prepare to archive run "+l.RunID)
	}
	ok, err := execMatched(ctx, s.db, `UPDATE reconciliation_archives SET lease_owner = ?, lease_expires_at = ?, tried_at = ?
		WHERE run_id = ? AND `+leaseIsFree,
		l.Owner, l.End, now, l.RunID, now, now.Add(billing.ArchiveLeaseTTL+billing.ClockSkew))
	return ok, failure(err, "acquire the archive lease of run "+l.RunID)
}

// ReleaseArchiveLease ends the lease and stores the revision of the summary that the reports show, 0 if none
// were written.
func (s *Store) ReleaseArchiveLease(ctx context.Context, l billing.Lease, revision int) error {
	_, err := s.db.ExecContext(ctx, `UPDATE reconciliation_archives SET lease_owner = '', lease_expires_at = NULL, revision = GREATEST(revision, ?)
		WHERE run_id = ? AND lease_owner = ?`, revision, l.RunID, l.Owner)
	return failure(err, "release the archive lease of run "+l.RunID)
}
