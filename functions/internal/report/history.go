package report

import (
	"slices"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

// maxColumns is how many runs the chart shows: a quarter of weekly ones.
const maxColumns = 13

// The chart's measures in its own units.
const (
	columnStep   = 60.0
	columnWidth  = 34.0
	chartHeight  = 190.0
	chartTop     = 26.0
	chartBottom  = 150.0
	chartCaption = 168.0
)

// history is the chart of drift rates, the earliest run first.
type history struct {
	Width, Height, Bottom float64
	Columns               []column
}

type column struct {
	X, Y, Width, Height, Middle float64
	LabelY, DateY, KindY        float64
	Rate, Date, Kind            string
	This, DryRun                bool
}

// pastRow is a line of the table below the chart.
type pastRow struct {
	RunID, Status, Started, Rate, Kind string
	Total, Drifted, Errors             int
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
		highest = max(highest, run.Figures.DriftRate())
	}
	h := &history{Width: columnStep * float64(len(runs)), Height: chartHeight, Bottom: chartBottom}
	for i, run := range runs {
		h.Columns = append(h.Columns, newColumn(run, i, highest, thisID))
	}
	return h
}

func newColumn(run mysqlstore.PastRun, place int, highest float64, thisID string) column {
	c := column{
		X: columnStep*float64(place) + (columnStep-columnWidth)/2, Width: columnWidth,
		DateY: chartCaption, KindY: chartCaption + 15, Middle: columnStep * (float64(place) + 0.5),
		Rate: driftLabel(run.Figures), Date: run.StartedAt.UTC().Format("2 Jan"), Kind: kind(run), This: run.ID == thisID, DryRun: run.DryRun,
	}
	if highest > 0 {
		c.Height = (chartBottom - chartTop) * run.Figures.DriftRate() / highest
	}
	c.Y = chartBottom - c.Height
	c.LabelY = c.Y - 6
	return c
}

// kind tells apart the runs that the rate alone would mislead about.
func kind(run mysqlstore.PastRun) string {
	if run.DryRun {
		return "dry run"
	}
	return ""
}

func pastRows(runs []mysqlstore.PastRun, thisID string) []pastRow {
	var all []pastRow
	for _, run := range shownRuns(runs) {
		f := run.Figures
		all = append(all, pastRow{
			RunID: clean(run.ID), Status: string(run.Status), Started: run.StartedAt.UTC().Format("2006-01-02 15:04"), Kind: kind(run),
			Total: f.TotalOrganizations, Drifted: f.Drifted(), Errors: f.Errors, This: run.ID == thisID, Rate: driftLabel(f),
		})
	}
	return all
}
