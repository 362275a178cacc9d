package mysqlstore

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// PastRun is a run with the totals of its stored summary, or of its items so far if it has none; those are
// counts and reasons only.
type PastRun struct {
	billing.Run

	Totals billing.Summary
}

// kindConditions select the runs of each [billing.Run.Kind]; "" selects all.
var kindConditions = map[billing.RunKind]string{
	"": `TRUE`, billing.KindFull: isFullRun, billing.KindOne: `org_id <> ''`, billing.KindCatchUp: `(org_id = '' AND strategy = 'events')`,
}

// RecentRuns returns the latest runs of the kind, at most limit, newest first. "" is any kind.
func (s *Store) RecentRuns(ctx context.Context, kind billing.RunKind, limit int) ([]PastRun, error) {
	return s.pastRuns(ctx, kindConditions[kind]+` ORDER BY started_at DESC, id DESC LIMIT ?`, limit)
}

// CatchUpDay sums up the catch-ups that started on one day, without dry runs.
type CatchUpDay struct {
	Day      time.Time // its beginning, in UTC
	Last     time.Time // when the last of them started
	Statuses map[billing.RunStatus]int
	// Totals add up their stored summaries. An organization counts once for each catch-up that listed it.
	Totals DayTotals
}

// DayTotals are sums over summaries.
type DayTotals struct{ Organizations, Synchronized, Withheld, Errors, Skipped int }

// CatchUpDays returns the latest days with catch-ups, newest first.
func (s *Store) CatchUpDays(ctx context.Context, limit int) ([]CatchUpDay, error) {
	var days []CatchUpDay
	err := query(ctx, s.db, func(r *sql.Rows) error {
		var date string
		var last time.Time
		var status billing.RunStatus
		var n int
		var f DayTotals
		if err := r.Scan(&date, &last, &status, &n, &f.Organizations, &f.Synchronized, &f.Withheld, &f.Errors, &f.Skipped); err != nil {
			return err
		}
		day, err := time.Parse(time.DateOnly, date)
		if len(days) == 0 || !days[len(days)-1].Day.Equal(day) {
			days = append(days, CatchUpDay{Day: day, Statuses: map[billing.RunStatus]int{}})
		}
		days[len(days)-1].add(last, status, n, f)
		return err
	}, selectCatchUpDays, limit*len(billing.RunStatuses()))
	return days[:min(len(days), limit)], failure(err, "sum up the catch-ups")
}

// selectCatchUpDays selects a row for each day and status.
var selectCatchUpDays = `SELECT DATE_FORMAT(started_at, '%Y-%m-%d') AS day, MAX(started_at), status, COUNT(*), SUM(total), ` +
	sumOf("synchronized") + `, ` + sumOfWithheld() + `, ` + sumOf("errors") + `, ` + sumOf("skipped") + `
	FROM reconciliation_runs WHERE ` + kindConditions[billing.KindCatchUp] + ` AND dry_run = FALSE
	GROUP BY day, status ORDER BY day DESC LIMIT ?`

// sumOf adds up a number of the stored summaries.
func sumOf(key string) string {
	return `COALESCE(SUM(CAST(JSON_EXTRACT(summary, '$.` + key + `') AS SIGNED)), 0)`
}

func sumOfWithheld() string {
	var sums []string
	for _, reason := range billing.WithheldReasons() {
		sums = append(sums, sumOf("reasons."+string(reason)))
	}
	return strings.Join(sums, " + ")
}

func (d *CatchUpDay) add(last time.Time, status billing.RunStatus, n int, f DayTotals) {
	if last.After(d.Last) {
		d.Last = last
	}
	d.Statuses[status] += n
	d.Totals.Organizations += f.Organizations
	d.Totals.Synchronized += f.Synchronized
	d.Totals.Withheld += f.Withheld
	d.Totals.Errors += f.Errors
	d.Totals.Skipped += f.Skipped
}

// RecentFullRuns returns the latest full runs, at most limit, that started no later than until, newest first.
func (s *Store) RecentFullRuns(ctx context.Context, until time.Time, limit int) ([]PastRun, error) {
	return s.pastRuns(ctx, isFullRun+` AND started_at <= ? ORDER BY started_at DESC, id DESC LIMIT ?`, until, limit)
}

func (s *Store) pastRuns(ctx context.Context, condition string, args ...any) ([]PastRun, error) {
	runs, err := s.runsWhere(ctx, condition, args...)
	if err != nil || len(runs) == 0 {
		return nil, err
	}
	summaries, err := s.summaries(ctx, runIDs(runs)...)
	if err != nil {
		return nil, err
	}
	past := make([]PastRun, len(runs))
	for i, run := range runs {
		figures, written := summaries[run.ID]
		if !written {
			tallies, err := s.Tallies(ctx, run.ID)
			if err != nil {
				return nil, err
			}
			figures = billing.Summarize(run, tallies, billing.Drift{}, nil)
		}
		past[i] = PastRun{Run: run, Totals: figures}
	}
	return past, nil
}

// summaries returns the stored summaries, by run id.
func (s *Store) summaries(ctx context.Context, ids ...string) (map[string]billing.Summary, error) {
	found := make(map[string]billing.Summary, len(ids))
	err := query(ctx, s.db, func(r *sql.Rows) error {
		var id string
		var text sql.NullString
		if err := r.Scan(&id, &text); err != nil {
			return err
		}
		var summary billing.Summary
		err := fromJSON(text, &summary)
		found[id] = summary
		return err
	}, `SELECT id, summary FROM reconciliation_runs WHERE summary IS NOT NULL AND id IN `+placeholders(len(ids)), toAny(ids)...)
	return found, failure(err, "read the summaries of runs")
}

func runIDs(runs []billing.Run) []string {
	ids := make([]string, len(runs))
	for i, run := range runs {
		ids[i] = run.ID
	}
	return ids
}

// LastDecided returns when an item of the run was last decided; zero if it has none.
func (s *Store) LastDecided(ctx context.Context, runID string) (time.Time, error) {
	var at sql.NullTime
	err := s.db.QueryRowContext(ctx, `SELECT MAX(i.updated_at)`+itemsOfRun+`i.outcome <> 'pending'`, runID).Scan(&at)
	return at.Time, failure(err, "look up the last decision of run "+runID)
}

// ReportItem is an item with what a report shows beside it.
type ReportItem struct {
	billing.Item

	DecidedAt time.Time
	Lowers    bool // its changes lower access
	Raises    bool // its changes raise access and do not lower it
	// RightAt is when another run last repaired the organization or found it in sync, before this run decided it and
	// within checkedWithin; zero if it is not known. It is set for items with a cause or an undone repair.
	RightAt time.Time
	// The present values of the organization and of its row for the governing subscription; "" if there is none.
	OrgName, OrgCustomerID, OrgTier, OrgStatus, PriceID string
}

// EachReportItem calls fn for the run's items with these outcomes, except plainly skipped ones (skipped without
// a warning), by organization id. It holds one page of items in memory and no connection while fn runs.
func (s *Store) EachReportItem(ctx context.Context, runID string, fn func(ReportItem) error, outcomes ...billing.Outcome) error {
	after := ""
	for {
		page, err := s.reportPage(ctx, runID, after, outcomes)
		if err != nil {
			return failure(err, "read the items of run "+runID)
		}
		for _, item := range page {
			if err := fn(item); err != nil {
				return err
			}
			after = item.OrgID
		}
		if len(page) < itemPage {
			return nil
		}
	}
}

func (s *Store) reportPage(ctx context.Context, runID, after string, outcomes []billing.Outcome) ([]ReportItem, error) {
	var page []ReportItem
	args := append([]any{runID, after}, toAny(outcomes)...)
	err := query(ctx, s.db, func(r *sql.Rows) error {
		var item ReportItem
		var err error
		item.Item, err = scanItem(r, runID, &item.DecidedAt)
		item.Lowers = s.tiers.LowersAccess(item.Changes)
		item.Raises = !item.Lowers && s.tiers.RaisesAccess(item.Changes)
		page = append(page, item)
		return err
	}, `SELECT `+itemColumns+`, i.updated_at`+itemsOfRun+`i.org_id > ?
		AND i.outcome IN `+placeholders(len(outcomes))+` AND NOT `+plainlySkipped+` ORDER BY i.org_id LIMIT ?`, append(args, itemPage)...)
	if err != nil || len(page) == 0 {
		return nil, err
	}
	items := make([]*billing.Item, len(page))
	for i := range page {
		items[i] = &page[i].Item
	}
	if err := s.addToItems(ctx, runID, items); err != nil {
		return nil, err
	}
	if err := s.addRightAt(ctx, runID, page); err != nil {
		return nil, err
	}
	return page, s.addOrganizations(ctx, page)
}

// checkedWithin is how long before an item's decision another run's check counts: events of older changes are
// rare, and each run in between costs a look-up of each organization.
const checkedWithin = billing.UndeliveredLookback

func (s *Store) addRightAt(ctx context.Context, runID string, page []ReportItem) error {
	index := map[string]int{}
	var ids []any
	var earliest, latest time.Time
	for i, item := range page {
		if !item.Lowers && !item.Raises || item.Cause == nil && !item.Warns(billing.WarnRepairUndone) {
			continue
		}
		index[item.OrgID] = i
		ids = append(ids, item.OrgID)
		if earliest.IsZero() || item.DecidedAt.Before(earliest) {
			earliest = item.DecidedAt
		}
		if item.DecidedAt.After(latest) {
			latest = item.DecidedAt
		}
	}
	if len(ids) == 0 {
		return nil
	}
	keys, err := s.runsBetween(ctx, runID, earliest.Add(-checkedWithin), latest)
	if err != nil {
		return err
	}
	for _, key := range keys { // one by one: with a join the server would read the runs from their beginning
		err := query(ctx, s.db, func(r *sql.Rows) error {
			var id string
			var at time.Time
			err := r.Scan(&id, &at)
			if i, ok := index[id]; ok && at.After(page[i].RightAt) && at.Before(page[i].DecidedAt) {
				page[i].RightAt = at
			}
			return err
		}, `SELECT org_id, updated_at FROM reconciliation_items FORCE INDEX (`+"`PRIMARY`"+`)
			WHERE run_key = ? AND org_id IN `+placeholders(len(ids))+` AND (outcome = 'synced' OR reason = 'in_sync')`, append([]any{key}, ids...)...)
		if err != nil {
			return err
		}
	}
	return nil
}

// runsBetween returns the keys of the other runs that started in this time.
func (s *Store) runsBetween(ctx context.Context, runID string, from, until time.Time) (keys []int64, err error) {
	err = query(ctx, s.db, func(r *sql.Rows) error {
		var key int64
		err := r.Scan(&key)
		keys = append(keys, key)
		return err
	}, `SELECT run_key FROM reconciliation_runs WHERE id <> ? AND started_at > ? AND started_at < ?`, runID, from, until)
	return keys, err
}

// addOrganizations uses separate queries, because a join would compare ids under two collations.
func (s *Store) addOrganizations(ctx context.Context, page []ReportItem) error {
	index := make(map[string]int, len(page))
	ids := make([]any, len(page))
	for i, item := range page {
		index[item.OrgID], ids[i] = i, item.OrgID
	}
	err := query(ctx, s.db, func(r *sql.Rows) error {
		var id string
		var name, customer, tier, status sql.NullString
		if err := r.Scan(&id, &name, &customer, &tier, &status); err != nil {
			return err
		}
		if i, ok := index[id]; ok {
			page[i].OrgName, page[i].OrgCustomerID, page[i].OrgTier, page[i].OrgStatus = name.String, customer.String, tier.String, status.String
		}
		return nil
	}, selectGrants+placeholders(len(ids)), ids...)
	if err != nil {
		return err
	}
	return query(ctx, s.db, func(r *sql.Rows) error {
		var id string
		var subscription, price sql.NullString
		if err := r.Scan(&id, &subscription, &price); err != nil {
			return err
		}
		if i, ok := index[id]; ok && subscription.Valid && page[i].SubscriptionID == strings.TrimSpace(subscription.String) {
			page[i].PriceID = price.String
		}
		return nil
	}, selectPrices+placeholders(len(ids)), ids...)
}
