package report

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// Run is the content of a report.
type Run struct {
	Summary billing.Summary
	OrgID   string // the organization of a run over one, otherwise ""
	Kind    billing.RunKind
	Window  *billing.Window // the part of Stripe's event log that a catch-up read
	// AmendedAt is when a redrive last changed the run after its end, or zero.
	AmendedAt time.Time
	// History has the runs over all organizations, the latest first.
	History   []mysqlstore.PastRun
	Mode      config.Mode // the mode of Stripe's dashboard, or "" if it is unknown
	WrittenAt time.Time
	Items     Items
}

// historyRuns is the number of earlier runs in a report.
const historyRuns = 13

// Of returns the content of a report of the run with this summary, except the mode and the time.
func Of(ctx context.Context, store *mysqlstore.Store, run billing.Run, s billing.Summary) (Run, error) {
	history, err := store.RecentFullRuns(ctx, run.StartedAt, historyRuns)
	if err != nil {
		return Run{}, err
	}
	for i := range history { // after a redrive the summary is newer than the stored one
		if history[i].ID == run.ID {
			history[i].Totals = s
		}
	}
	amended, err := amendedAt(ctx, store, run)
	if err != nil {
		return Run{}, err
	}
	return Run{
		Summary: s, OrgID: run.OrgID, Kind: run.Kind(), Window: run.Window, AmendedAt: amended, History: history, Items: ItemsOf(store, run.ID),
	}, nil
}

func amendedAt(ctx context.Context, store *mysqlstore.Store, run billing.Run) (time.Time, error) {
	if run.FinishedAt == nil || run.SummaryRevision < 2 {
		return time.Time{}, nil
	}
	last, err := store.LastDecided(ctx, run.ID)
	if !last.After(*run.FinishedAt) {
		last = time.Time{}
	}
	return last, err
}

// ItemsOf are the run's items in the database.
func ItemsOf(store *mysqlstore.Store, runID string) Items {
	return func(ctx context.Context, fn func(mysqlstore.ReportItem) error, outcomes ...billing.Outcome) error {
		return store.EachReportItem(ctx, runID, fn, outcomes...)
	}
}

// Items calls fn for each item of these outcomes that is not plainly skipped.
type Items func(ctx context.Context, fn func(mysqlstore.ReportItem) error, outcomes ...billing.Outcome) error

// Written counts what a report contains.
type Written struct {
	Organizations int `json:"organizations"` // with changes
	Changes       int `json:"changes"`
	Rows          int `json:"rows,omitempty"` // of a table
}

func (w *Written) count(i mysqlstore.ReportItem) {
	if len(i.Changes) > 0 {
		w.Organizations++
	}
	w.Changes += len(i.Changes)
}

// touches reports whether one of the changes is of a column of the group.
func touches(changes []billing.Change, group billing.Group) bool {
	return slices.ContainsFunc(changes, func(c billing.Change) bool { return billing.GroupOf(c.Field) == group })
}

// applied reports whether the item's changes were written: not in a dry run, nor where the guard
// withheld them.
func applied(i billing.Item) bool { return i.Outcome == billing.OutcomeSynced }

// customerOf is the customer that the organization has in Stripe: the one that a change names,
// else the recorded one.
func customerOf(i mysqlstore.ReportItem) string {
	for _, field := range []string{billing.FieldOrgCustomerID, billing.FieldCustomerID} {
		for _, c := range i.Changes {
			if id, ok := c.To.(string); ok && c.Field == field {
				return id
			}
		}
	}
	return i.OrgCustomerID
}

// clean makes one line of a text that a page or a cell may show.
func clean(s string) string { return strings.ReplaceAll(telemetry.Clean(s), "\n", " ") }
