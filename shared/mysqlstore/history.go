package mysqlstore

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// PastRun is a run with its figures: as they were written at its end, or counted now where it
// has not ended. Counted ones have totals and reasons only.
type PastRun struct {
	billing.Run

	Totals billing.Summary
}

// ofKind are the conditions that [billing.Run.Kind] makes of a run; "" is of any kind.
var ofKind = map[billing.RunKind]string{
	"": `TRUE`, billing.KindFull: full, billing.KindOne: `org_id <> ''`, billing.KindCatchUp: `(org_id = '' AND strategy = 'events')`,
}

// RecentRuns returns the last runs of the kind, or of any if it is "", at most limit, the latest started first.
func (s *Store) RecentRuns(ctx context.Context, kind billing.RunKind, limit int) ([]PastRun, error) {
	return s.pastRuns(ctx, ofKind[kind]+` ORDER BY started_at DESC, id DESC LIMIT ?`, limit)
}

// CatchUpDay sums up the catch-ups that started on one day. Dry runs are not among them.
type CatchUpDay struct {
	Day      time.Time // its beginning, in UTC
	Last     time.Time // when the last of them started
	Statuses map[billing.RunStatus]int
	// Totals are their organizations, as far as they have been summed up; one that several of them
	// were about counts in each.
	Totals DayTotals
}

// DayTotals are sums over the summaries of runs.
type DayTotals struct{ Organizations, Synchronized, Withheld, Errors, Skipped int }

// CatchUpDays returns the last days with catch-ups, at most limit, the latest first.
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

// A day has a row for each status.
var selectCatchUpDays = `SELECT DATE_FORMAT(started_at, '%Y-%m-%d') AS day, MAX(started_at), status, COUNT(*), SUM(total), ` +
	sumOf("synchronized") + `, ` + sumOfWithheld() + `, ` + sumOf("errors") + `, ` + sumOf("skipped") + `
	FROM reconciliation_runs WHERE ` + ofKind[billing.KindCatchUp] + ` AND dry_run = FALSE
	GROUP BY day, status ORDER BY day DESC LIMIT ?`

// sumOf is a figure of the summaries that were written.
func sumOf(key string) string {
	return `COALESCE(SUM(CAST(JSON_EXTRACT(summary, '$.` + key + `') AS SIGNED)), 0)`
}

func sumOfWithheld() string {
	var sums []string
	for _, reason := range billing.Withholding() {
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

// RecentFullRuns returns the last runs over all organizations that started no later than the given
// time, at most limit, the latest first.
func (s *Store) RecentFullRuns(ctx context.Context, until time.Time, limit int) ([]PastRun, error) {
	return s.pastRuns(ctx, full+` AND started_at <= ? ORDER BY started_at DESC, id DESC LIMIT ?`, until, limit)
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

// summaries returns those that were written, by run.
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
	}, `SELECT id, summary FROM reconciliation_runs WHERE summary IS NOT NULL AND id IN `+in(len(ids)), anys(ids)...)
	return found, failure(err, "read the summaries of runs")
}

func runIDs(runs []billing.Run) []string {
	ids := make([]string, len(runs))
	for i, run := range runs {
		ids[i] = run.ID
	}
	return ids
}

// ReportItem is an item with what a report shows beside it.
type ReportItem struct {
	billing.Item

	DecidedAt time.Time
	Lowers    bool // its changes lower access
	Raises    bool // they raise access, and do not lower it
	// As they stand now in the organization and in its row of the subscription that governs; empty where
	// there is none.
	OrgName, OrgCustomerID, OrgTier, OrgStatus, PriceID string
}

// EachReportItem calls fn for the run's items of these outcomes that are not plainly skipped (a
// skipped one counts if it carries a warning), by organization id. It holds one page of them at a
// time, and no connection while fn runs.
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
		if len(page) < driftPage {
			return nil
		}
	}
}

func (s *Store) reportPage(ctx context.Context, runID, after string, outcomes []billing.Outcome) ([]ReportItem, error) {
	var page []ReportItem
	args := append([]any{runID, after}, anys(outcomes)...)
	err := query(ctx, s.db, func(r *sql.Rows) error {
		var item ReportItem
		var err error
		item.Item, err = scanItem(r, runID, &item.DecidedAt)
		item.Lowers = s.tiers.LowersAccess(item.Changes)
		item.Raises = !item.Lowers && s.tiers.RaisesAccess(item.Changes)
		page = append(page, item)
		return err
	}, `SELECT `+itemColumns+`, i.updated_at`+itemsOfRun+`i.org_id > ?
		AND i.outcome IN `+in(len(outcomes))+` AND NOT `+plainlySkipped+` ORDER BY i.org_id LIMIT ?`, append(args, driftPage)...)
	if err != nil || len(page) == 0 {
		return nil, err
	}
	of := make([]*billing.Item, len(page))
	for i := range page {
		of[i] = &page[i].Item
	}
	if err := s.addToItems(ctx, runID, of); err != nil {
		return nil, err
	}
	return page, s.addOrganizations(ctx, page)
}

// addOrganizations looks the organizations and their rows up by themselves: a join would compare ids under two
// collations.
func (s *Store) addOrganizations(ctx context.Context, page []ReportItem) error {
	place := make(map[string]int, len(page))
	ids := make([]any, len(page))
	for i, item := range page {
		place[item.OrgID], ids[i] = i, item.OrgID
	}
	err := query(ctx, s.db, func(r *sql.Rows) error {
		var id string
		var name, customer, tier, status sql.NullString
		if err := r.Scan(&id, &name, &customer, &tier, &status); err != nil {
			return err
		}
		if i, ok := place[id]; ok {
			page[i].OrgName, page[i].OrgCustomerID, page[i].OrgTier, page[i].OrgStatus = name.String, customer.String, tier.String, status.String
		}
		return nil
	}, selectGrants+in(len(ids)), ids...)
	if err != nil {
		return err
	}
	return query(ctx, s.db, func(r *sql.Rows) error {
		var id string
		var subscription, price sql.NullString
		if err := r.Scan(&id, &subscription, &price); err != nil {
			return err
		}
		if i, ok := place[id]; ok && subscription.Valid && page[i].SubscriptionID == strings.TrimSpace(subscription.String) {
			page[i].PriceID = price.String
		}
		return nil
	}, selectPrices+in(len(ids)), ids...)
}
