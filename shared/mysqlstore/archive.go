package mysqlstore

import (
	"context"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// isToBeArchived: the run is over all organizations and closed, and its summary is of a later revision than
// its reports.
const isToBeArchived = full + ` AND status NOT IN ('enumerating','running') AND summary IS NOT NULL
	AND summary_revision > COALESCE((SELECT a.revision FROM reconciliation_archives a WHERE a.run_id = r.id), 0)`

// RunsToArchive returns the runs whose reports are to be written, those that nobody tried first, then those
// that were tried longest ago.
func (s *Store) RunsToArchive(ctx context.Context) ([]billing.Run, error) {
	return s.runsWhere(ctx, isToBeArchived+`
		ORDER BY (SELECT a.tried_at FROM reconciliation_archives a WHERE a.run_id = r.id), started_at DESC`)
}

// AcquireArchiveLease makes the lease's owner the only one who writes the reports of its run until its end, unless
// another is at it.
func (s *Store) AcquireArchiveLease(ctx context.Context, l billing.Lease, now time.Time) (bool, error) {
	if _, err := s.db.ExecContext(ctx, `INSERT INTO reconciliation_archives (run_id) VALUES (?) ON DUPLICATE KEY UPDATE run_id = VALUES(run_id)`, l.RunID); err != nil {
		return false, failure(err, "note that run "+l.RunID+" is to be archived")
	}
	ok, err := hit(ctx, s.db, `UPDATE reconciliation_archives SET lease_owner = ?, lease_expires_at = ?, tried_at = ?
		WHERE run_id = ? AND `+leaseIsFree,
		l.Owner, l.End, now, l.RunID, now, now.Add(billing.ArchiveLife+billing.ClockSkew))
	return ok, failure(err, "take the lease to archive run "+l.RunID)
}

// ReleaseArchiveLease gives the run free for the next writer of its reports. Those that stand there now are of the
// revision; 0 where nothing was written.
func (s *Store) ReleaseArchiveLease(ctx context.Context, l billing.Lease, revision int) error {
	_, err := s.db.ExecContext(ctx, `UPDATE reconciliation_archives SET lease_owner = '', lease_expires_at = NULL, revision = GREATEST(revision, ?)
		WHERE run_id = ? AND lease_owner = ?`, revision, l.RunID, l.Owner)
	return failure(err, "note that run "+l.RunID+" was archived")
}
