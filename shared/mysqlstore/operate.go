package mysqlstore

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// LatestRun returns the run that was started last, of any kind; false if there never was one.
func (s *Store) LatestRun(ctx context.Context) (billing.Run, bool, error) {
	runs, err := s.runsWhere(ctx, `TRUE ORDER BY started_at DESC, id DESC LIMIT 1`)
	if err != nil || len(runs) == 0 {
		return billing.Run{}, false, err
	}
	return runs[0], true, nil
}

// StoredSummary returns the summary that was written when the run was closed or amended; false
// where there is none (yet).
func (s *Store) StoredSummary(ctx context.Context, runID string) (summary billing.Summary, found bool, err error) {
	written, err := s.summaries(ctx, runID)
	summary, found = written[runID]
	return summary, found, err
}

// NamedOrganization is an organization as people look for it.
type NamedOrganization struct{ ID, Name string }

// nearPrefix is how many characters of an id must be right for it to count as near.
const nearPrefix = 8

// NearestOrganizations returns organizations, not deleted, whose id begins like the text or whose
// name contains it, at most limit of them, the ids first.
func (s *Store) NearestOrganizations(ctx context.Context, text string, limit int) ([]NamedOrganization, error) {
	start := []rune(text)
	start = start[:min(len(start), nearPrefix)]
	id := likeText(string(start)) + "%"
	var near []NamedOrganization
	err := query(ctx, s.db, func(r *sql.Rows) error {
		var o NamedOrganization
		err := r.Scan(&o.ID, &o.Name)
		near = append(near, o)
		return err
	}, selectNearest, id, "%"+likeText(text)+"%", id, limit)
	return near, failure(err, "look for organizations like "+text)
}

// likeText makes a text stand for itself in LIKE.
func likeText(s string) string {
	return strings.NewReplacer("!", "!!", "%", "!%", "_", "!_").Replace(s)
}

// UnfinishedRuns returns the ids of the runs that a redrive may change, the latest first: not dry,
// with an organization that is pending or in error.
func (s *Store) UnfinishedRuns(ctx context.Context) ([]string, error) {
	ids, err := texts(ctx, s.db, `SELECT id FROM reconciliation_runs r WHERE dry_run = FALSE AND (`+hasPending+` OR `+hasError+`)
		ORDER BY started_at DESC, id DESC`)
	return ids, failure(err, "look for runs with errors")
}

// DecidedSince returns how many organizations of the run got their outcome after this time.
func (s *Store) DecidedSince(ctx context.Context, runID string, since time.Time) (int, error) {
	var n int
	err := s.db.QueryRowContext(ctx, `SELECT COUNT(*)`+itemsOfRun+`i.outcome <> 'pending' AND i.updated_at > ?`, runID, since).Scan(&n)
	return n, failure(err, "count what run "+runID+" decided")
}

// LastDecisions returns when an organization of each run last got its outcome, by run; a run in
// which none did is absent.
func (s *Store) LastDecisions(ctx context.Context, runIDs []string) (map[string]time.Time, error) {
	last := make(map[string]time.Time, len(runIDs))
	if len(runIDs) == 0 {
		return last, nil
	}
	err := query(ctx, s.db, func(r *sql.Rows) error {
		var id string
		var at time.Time
		err := r.Scan(&id, &at)
		last[id] = at
		return err
	}, `SELECT r.id, MAX(i.updated_at) FROM reconciliation_runs r JOIN reconciliation_items i ON i.run_key = r.run_key
		WHERE i.outcome <> 'pending' AND r.id IN `+in(len(runIDs))+` GROUP BY r.id`, anys(runIDs)...)
	return last, failure(err, "look when the runs last decided anything")
}
