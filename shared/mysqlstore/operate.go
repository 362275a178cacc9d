package mysqlstore

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"

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

// LatestFullRun returns the run over all organizations that was started last; where there never was one, the
// last run of any kind; false if there was none at all.
func (s *Store) LatestFullRun(ctx context.Context) (billing.Run, bool, error) {
	runs, err := s.runsWhere(ctx, full+` ORDER BY started_at DESC, id DESC LIMIT 1`)
	if err != nil || len(runs) > 0 {
		return first(runs), len(runs) > 0, err
	}
	return s.LatestRun(ctx)
}

func first(runs []billing.Run) billing.Run {
	if len(runs) == 0 {
		return billing.Run{}
	}
	return runs[0]
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

// What an organization was found by.
const (
	ByID           = "id"
	ByCustomer     = "customer"
	BySubscription = "subscription"
	ByName         = "name"
)

// Found is what a text means: organizations, and what they have of it.
type Found struct {
	By            string
	Organizations []NamedOrganization
}

// FindOrganizations returns the organization with this id, else those, not deleted, that are known under
// it as Stripe customer, that record it as subscription, or that have it as name, at most limit of
// them. Names are left out where the login may not read them.
func (s *Store) FindOrganizations(ctx context.Context, text string, limit int) (Found, error) {
	for _, look := range []struct {
		by      string
		queries []string
	}{
		{ByID, []string{selectByID}},
		{ByCustomer, []string{selectByOrgCustomer, selectByRowCustomer}},
		{BySubscription, []string{selectBySubscription}},
		{ByName, []string{selectByName}},
	} {
		var ids []string
		for _, selectIDs := range look.queries {
			more, err := texts(ctx, s.db, selectIDs, text, limit)
			if e, refused := errors.AsType[*mysql.MySQLError](err); refused && look.by == ByName && isOutOfReach(e) {
				break
			}
			if err != nil {
				return Found{}, failure(err, "look for organization "+text)
			}
			ids = append(ids, more...)
		}
		slices.Sort(ids)
		if ids = slices.Compact(ids); len(ids) > 0 {
			named, err := s.named(ctx, ids[:min(len(ids), limit)])
			return Found{look.by, named}, err
		}
	}
	return Found{}, nil
}

func (s *Store) named(ctx context.Context, ids []string) ([]NamedOrganization, error) {
	names, err := s.OrganizationNames(ctx, ids)
	named := make([]NamedOrganization, len(ids))
	for i, id := range ids {
		named[i] = NamedOrganization{id, names[id]}
	}
	return named, err
}

// nearPrefix is how many characters of an id must be right for it to count as near.
const nearPrefix = 8

// SimilarOrganizations returns organizations, not deleted, whose id begins like the text or whose
// name contains it, at most limit of them, the ids first.
func (s *Store) SimilarOrganizations(ctx context.Context, text string, limit int) ([]NamedOrganization, error) {
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

// OrganizationNames returns the names of those of the organizations that have one, by id. Where the
// login may not read them, as the functions' own may not, it returns none.
func (s *Store) OrganizationNames(ctx context.Context, ids []string) (map[string]string, error) {
	names := make(map[string]string, len(ids))
	for part := range slices.Chunk(ids, driftPage) {
		err := query(ctx, s.db, func(r *sql.Rows) error {
			var id, name string
			err := r.Scan(&id, &name)
			names[id] = name
			return err
		}, selectOrgNames+in(len(part)), anys(part)...)
		if e, refused := errors.AsType[*mysql.MySQLError](err); refused && isOutOfReach(e) {
			return nil, nil
		}
		if err != nil {
			return nil, failure(err, "read the names of organizations")
		}
	}
	return names, nil
}

// isOutOfReach reports whether a column is not there or not for this login.
func isOutOfReach(e *mysql.MySQLError) bool {
	return e.Number == errColumnAccessDenied || e.Number == errTableAccessDenied || e.Number == errUnknownColumn
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

// CountDecisions returns how often an organization of each run got its outcome, by run: one that failed
// and was tried again got it twice.
func (s *Store) CountDecisions(ctx context.Context, runIDs []string) (map[string]int, error) {
	made := make(map[string]int, len(runIDs))
	if len(runIDs) == 0 {
		return made, nil
	}
	err := query(ctx, s.db, func(r *sql.Rows) error {
		var id string
		var n int
		err := r.Scan(&id, &n)
		made[id] = n
		return err
	}, `SELECT r.id, SUM(i.revision) FROM reconciliation_runs r JOIN reconciliation_items i ON i.run_key = r.run_key
		WHERE r.id IN `+in(len(runIDs))+` GROUP BY r.id`, anys(runIDs)...)
	return made, failure(err, "count what the runs decided")
}
