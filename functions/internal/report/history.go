package report

import (
	"slices"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

// maxColumns is how many runs the chart shows: a quarter of weekly ones.
const maxColumns = 13

// The chart's measures in its own units.
const (
	columnStep   = 48.0
	columnWidth  = 30.0
	chartHeight  = 190.0
	chartTop     = 26.0
	chartBottom  = 150.0
	chartCaption = 168.0
)

// history is the chart of the runs, the earliest first.
type history struct {
	Width, Height, Bottom float64
	Columns               []column
}

// column stacks what a run repaired, what it withheld and its other errors, as parts of its organizations.
type column struct {
	X, Width, Middle      float64
	LabelY, DateY, KindY  float64
	Bars                  []bar
	Rate, Date, Kind, Say string
	This, DryRun          bool
}

type bar struct {
	Key       string
	Y, Height float64
}

// pastRow is a line of the table of runs.
type pastRow struct {
	RunID, Status, Started, Rate, Kind string
	Total, Repaired, Withheld, Other   int
	This                               bool
}

// driftLabel is the drift rate for people.
func driftLabel(s billing.Summary) string {
	if s.TotalOrganizations == 0 {
		return "none"
	}
	return percent(s.Drifted(), s.TotalOrganizations)
}

// shownRuns are those that the chart and its table show, the latest first.
func shownRuns(runs []mysqlstore.PastRun) []mysqlstore.PastRun {
	return runs[:min(len(runs), maxColumns)]
}

// chart is nil where one run alone makes no history.
func chart(runs []mysqlstore.PastRun, thisID string) *history {
	runs = slices.Clone(shownRuns(runs))
	if len(runs) < 2 {
		return nil
	}
	slices.Reverse(runs)
	highest := 0.0
	for _, run := range runs {
		highest = max(highest, share(run.Totals.Drifted()+otherErrors(run.Totals), run.Totals))
	}
	h := &history{Width: columnStep * float64(len(runs)), Height: chartHeight, Bottom: chartBottom}
	for i, run := range runs {
		h.Columns = append(h.Columns, newColumn(run, i, highest, thisID))
		if i > 0 && sameDay(run.StartedAt, runs[i-1].StartedAt) {
			h.Columns[i].Date = run.StartedAt.UTC().Format("15:04")
		}
	}
	return h
}

func sameDay(a, b time.Time) bool {
	return a.UTC().Format(time.DateOnly) == b.UTC().Format(time.DateOnly)
}

// share is the part that n are of the run's organizations.
func share(n int, s billing.Summary) float64 {
	return float64(n) / float64(max(s.TotalOrganizations, 1))
}

func newColumn(run mysqlstore.PastRun, place int, highest float64, thisID string) column {
	f := run.Totals
	c := column{
		X: columnStep*float64(place) + (columnStep-columnWidth)/2, Width: columnWidth,
		DateY: chartCaption, KindY: chartCaption + 15, Middle: columnStep * (float64(place) + 0.5),
		Rate: driftLabel(f), Date: run.StartedAt.UTC().Format("2 Jan"), Kind: kind(run), This: run.ID == thisID, DryRun: run.DryRun,
		Say: billing.Thousands(repaired(f)) + " repaired, " + billing.Thousands(withheld(f)) + " withheld, " + billing.Count(otherErrors(f), "other error") + " of " + billing.Count(f.TotalOrganizations, "organization"),
	}
	if run.DryRun {
		c.Say = strings.NewReplacer("repaired", "would be repaired", "withheld", "would be withheld").Replace(c.Say)
	}
	top := chartBottom
	for _, part := range []struct {
		key string
		n   int
	}{{"synced", repaired(f)}, {"withheld", withheld(f)}, {"error", otherErrors(f)}} {
		if part.n <= 0 {
			continue
		}
		height := (chartBottom - chartTop) * share(part.n, f) / highest
		top -= height
		c.Bars = append(c.Bars, bar{Key: part.key, Y: top, Height: height})
	}
	c.LabelY = top - 6
	return c
}

// kind marks dry runs, whose rate repeats until a run writes.
func kind(run mysqlstore.PastRun) string {
	if run.DryRun {
		return "dry run"
	}
	return ""
}

func pastRows(runs []mysqlstore.PastRun, thisID string) []pastRow {
	var all []pastRow
	for _, run := range shownRuns(runs) {
		f := run.Totals
		all = append(all, pastRow{
			RunID: clean(run.ID), Status: string(run.Status), Started: run.StartedAt.UTC().Format("2006-01-02 15:04"), Kind: kind(run),
			Total: f.TotalOrganizations, Repaired: repaired(f), Withheld: withheld(f), Other: otherErrors(f), This: run.ID == thisID, Rate: driftLabel(f),
		})
	}
	return all
}
