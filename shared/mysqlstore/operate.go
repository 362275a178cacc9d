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

// LatestRun returns the run of any kind that started last; false if there is none.
func (s *Store) LatestRun(ctx context.Context) (billing.Run, bool, error) {
	return s.latestRun(ctx, `TRUE`)
}

// LatestFullRun returns the full run that started last or, if there is none, the run of any kind that did; false
// if there are no runs.
func (s *Store) LatestFullRun(ctx context.Context) (billing.Run, bool, error) {
	run, found, err := s.latestRun(ctx, isFullRun)
	if err != nil || found {
		return run, found, err
	}
	return s.LatestRun(ctx)
}

// OpenFullRun returns the open full run that started last; false if none is open.
func (s *Store) OpenFullRun(ctx context.Context) (billing.Run, bool, error) {
	return s.latestRun(ctx, isFullRun+` AND `+isOpen)
}

func (s *Store) latestRun(ctx context.Context, condition string) (billing.Run, bool, error) {
	runs, err := s.runsWhere(ctx, condition+` ORDER BY started_at DESC, id DESC LIMIT 1`)
	if err != nil || len(runs) == 0 {
		return billing.Run{}, false, err
	}
	return runs[0], true, nil
}

// StoredSummary returns the summary that was stored when the run was closed or amended; false if there is none.
func (s *Store) StoredSummary(ctx context.Context, runID string) (summary billing.Summary, found bool, err error) {
	written, err := s.summaries(ctx, runID)
	summary, found = written[runID]
	return summary, found, err
}

// NamedOrganization is an organization with its name.
type NamedOrganization struct{ ID, Name string }

// What [Store.FindOrganizations] found organizations by.
const (
	ByID           = "id"
	ByCustomer     = "customer"
	BySubscription = "subscription"
	ByName         = "name"
)

// Found are the organizations that a text identifies, and by which of their values.
type Found struct {
	By            string
	Organizations []NamedOrganization
}

// FindOrganizations returns the organization with this id or else, of those not deleted, the ones with this
// Stripe customer, with this subscription, or with this name, at most limit. Names are left out if the login
// may not read them.
func (s *Store) FindOrganizations(ctx context.Context, text string, limit int) (Found, error) {
	for _, by := range []struct {
		what    string
		queries []string
	}{
		{ByID, []string{selectByID}},
		{ByCustomer, []string{selectByOrgCustomer, selectByRowCustomer}},
		{BySubscription, []string{selectBySubscription}},
		{ByName, []string{selectByName}},
	} {
		var ids []string
		for _, selectIDs := range by.queries {
			more, err := selectStrings(ctx, s.db, selectIDs, text, limit)
			if e, refused := errors.AsType[*mysql.MySQLError](err); refused && by.what == ByName && isUnreadable(e) {
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
			return Found{by.what, named}, err
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

// similarPrefix is how many leading characters a similar id shares.
const similarPrefix = 8

// SimilarOrganizations returns organizations, not deleted, whose id begins like the text or whose name contains
// it, at most limit, matches by id first.
func (s *Store) SimilarOrganizations(ctx context.Context, text string, limit int) ([]NamedOrganization, error) {
	id := likeText(truncateRunes(similarPrefix, text)) + "%"
	var similar []NamedOrganization
	err := query(ctx, s.db, func(r *sql.Rows) error {
		var o NamedOrganization
		err := r.Scan(&o.ID, &o.Name)
		similar = append(similar, o)
		return err
	}, selectSimilar, id, "%"+likeText(text)+"%", id, limit)
	return similar, failure(err, "look for organizations like "+text)
}

// OrganizationNames returns the names of the organizations, by id; none if the login may not read names, as the
// functions' login may not.
func (s *Store) OrganizationNames(ctx context.Context, ids []string) (map[string]string, error) {
	names := make(map[string]string, len(ids))
	for chunk := range slices.Chunk(ids, itemPage) {
		err := query(ctx, s.db, func(r *sql.Rows) error {
			var id, name string
			err := r.Scan(&id, &name)
			names[id] = name
			return err
		}, selectOrgNames+placeholders(len(chunk)), toAny(chunk)...)
		if e, refused := errors.AsType[*mysql.MySQLError](err); refused && isUnreadable(e) {
			return nil, nil
		}
		if err != nil {
			return nil, failure(err, "read the names of organizations")
		}
	}
	return names, nil
}

// isUnreadable reports whether a column does not exist or this login may not read it.
func isUnreadable(e *mysql.MySQLError) bool {
	return e.Number == errColumnAccessDenied || e.Number == errTableAccessDenied || e.Number == errUnknownColumn
}

// likeText escapes the text for LIKE.
func likeText(s string) string {
	return strings.NewReplacer("!", "!!", "%", "!%", "_", "!_").Replace(s)
}

// UnfinishedRuns returns the ids of the runs that a redrive may change, newest first: those that are no dry run
// and have an item that is pending or in error.
func (s *Store) UnfinishedRuns(ctx context.Context) ([]string, error) {
	ids, err := selectStrings(ctx, s.db, `SELECT id FROM reconciliation_runs r WHERE dry_run = FALSE AND (`+hasPending+` OR `+hasError+`)
		ORDER BY started_at DESC, id DESC`)
	return ids, failure(err, "look for runs with errors")
}

// CountDecisions returns, by run, how many outcomes were recorded. An item that was retried after an error
// counts for each outcome.
func (s *Store) CountDecisions(ctx context.Context, runIDs []string) (map[string]int, error) {
	counts := make(map[string]int, len(runIDs))
	if len(runIDs) == 0 {
		return counts, nil
	}
	err := query(ctx, s.db, func(r *sql.Rows) error {
		var id string
		var n int
		err := r.Scan(&id, &n)
		counts[id] = n
		return err
	}, `SELECT r.id, SUM(i.revision) FROM reconciliation_runs r JOIN reconciliation_items i ON i.run_key = r.run_key
		WHERE r.id IN `+placeholders(len(runIDs))+` GROUP BY r.id`, toAny(runIDs)...)
	return counts, failure(err, "count the decisions of runs")
}
