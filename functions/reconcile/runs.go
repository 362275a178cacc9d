package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// maxRuns bounds memory: each run is loaded with its summary.
const maxRuns = 500

// pastRun is one run, or the catch-ups of one day, as machines see it.
type pastRun struct {
	Kind               billing.RunKind   `json:"kind"`
	RunID              string            `json:"runId,omitempty"`
	Status             billing.RunStatus `json:"status,omitempty"`
	DryRun             bool              `json:"dryRun"`
	OrgID              string            `json:"orgId,omitempty"` // of a run over one organization
	StartedAt          time.Time         `json:"startedAt"`       // of a day, the last one of them
	FinishedAt         *time.Time        `json:"finishedAt"`
	DurationMs         int64             `json:"durationMs"` // 0 while it is going
	TotalOrganizations int               `json:"totalOrganizations"`
	Synchronized       int               `json:"synchronized"`
	Withheld           int               `json:"withheld"` // of the errors: they differ, and a guard held them back
	Errors             int               `json:"errors"`
	Skipped            int               `json:"skipped"`
	Pending            int               `json:"pending"`
	DriftRate          float64           `json:"driftRate"` // (synchronized + withheld) / totalOrganizations

	// Of a day's catch-ups, which have neither id nor status: how many ended how.
	Day      string                    `json:"day,omitempty"` // in UTC
	Statuses map[billing.RunStatus]int `json:"statuses,omitempty"`
}

// kindAll selects runs of every kind.
const kindAll = "all"

// runKinds are the values of --kind.
func runKinds() []string {
	names := []string{kindAll}
	for _, kind := range billing.RunKinds() {
		names = append(names, string(kind))
	}
	return names
}

func (c *command) runs(ctx context.Context) *cobra.Command {
	limit, kind := 0, ""
	cmd := &cobra.Command{
		Use:   "runs",
		Short: "List past runs with their totals, the latest first",
		Long: `Lists past runs over all organizations, the latest first, and between them the catch-ups of
each day (UTC). --kind lists each run of a kind: full, catch-up, one (over one organization) or
all. DRIFTED counts organizations that differed from Stripe: repaired, withheld (which are
errors too), or found by a dry run. DRIFT is their share. Runs are kept for RETENTION_DAYS (90)
before the latest, and the last complete run until there is a later one.`,
		Example: `  reconcile runs
  reconcile runs --limit 5
  reconcile runs --kind catch-up        each catch-up
  reconcile runs --json | jq '.[0].driftRate'`,
		Args:              cli.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			if limit < 1 || limit > maxRuns {
				return cli.Usage("--limit must be from 1 to %d", maxRuns)
			}
			if kind != "" && !slices.Contains(runKinds(), kind) {
				return cli.Usage("--kind %q is unknown; there are %s", kind, strings.Join(runKinds(), ", "))
			}
			return c.withDatabase(ctx, func(store *mysqlstore.Store, _ config.Config) error {
				runs, err := pastRuns(ctx, store, kind, limit)
				if err != nil {
					return err
				}
				return c.showRuns(runs)
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 20, "how many runs at most")
	cmd.Flags().StringVar(&kind, "kind", "", "each run of this `KIND`: "+strings.Join(runKinds(), ", "))
	if err := cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(runKinds(), cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is not the one above
	}
	return cmd
}

// pastRuns are those of the kind; without one, those over all organizations and the days with catch-ups.
func pastRuns(ctx context.Context, store *mysqlstore.Store, kind string, limit int) ([]pastRun, error) {
	of := billing.RunKind(kind)
	switch kind {
	case kindAll:
		of = ""
	case "":
		of = billing.KindFull
	}
	runs, err := store.RecentRuns(ctx, of, limit)
	if err != nil {
		return nil, err
	}
	past := make([]pastRun, 0, len(runs))
	for _, run := range runs {
		past = append(past, pastRunOf(run))
	}
	if kind != "" {
		return past, nil
	}
	days, err := store.CatchUpDays(ctx, limit)
	if err != nil {
		return nil, err
	}
	for _, day := range days {
		past = append(past, pastDayOf(day))
	}
	slices.SortStableFunc(past, func(a, b pastRun) int { return b.StartedAt.Compare(a.StartedAt) })
	return past[:min(len(past), limit)], nil
}

func (c *command) showRuns(past []pastRun) error {
	if c.json {
		return json.NewEncoder(c.out).Encode(past)
	}
	if len(past) == 0 {
		_, err := fmt.Fprintln(c.errs, "there is no run yet; reconcile start begins one")
		return err
	}
	return writeRuns(c.out, past)
}

func pastRunOf(run mysqlstore.PastRun) pastRun {
	f := run.Totals
	p := pastRun{
		Kind: run.Kind(), RunID: run.ID, Status: run.Status, DryRun: run.DryRun, OrgID: run.OrgID, StartedAt: run.StartedAt, FinishedAt: run.FinishedAt,
		TotalOrganizations: f.TotalOrganizations, Synchronized: f.Synchronized, Withheld: f.Withheld(), Errors: f.Errors, Skipped: f.Skipped, Pending: f.Pending,
		DriftRate: f.DriftRate(),
	}
	if run.FinishedAt != nil {
		p.DurationMs = max(0, run.FinishedAt.Sub(run.StartedAt).Milliseconds()) // clocks differ
	}
	return p
}

func pastDayOf(day mysqlstore.CatchUpDay) pastRun {
	f := day.Totals
	return pastRun{
		Kind: billing.KindCatchUp, Day: day.Day.Format(time.DateOnly), Statuses: day.Statuses, StartedAt: day.Last,
		TotalOrganizations: f.Organizations, Synchronized: f.Synchronized, Withheld: f.Withheld, Errors: f.Errors, Skipped: f.Skipped,
		Pending:   f.Organizations - f.Synchronized - f.Errors - f.Skipped,
		DriftRate: float64(f.Synchronized+f.Withheld) / float64(max(f.Organizations, 1)),
	}
}

// title is the run's id, or the day of its catch-ups.
func (r pastRun) title() string {
	if r.Day != "" {
		return "catch-ups of " + r.Day
	}
	return r.RunID
}

// state says how the run ended, or how many of the day's catch-ups ended how.
func (r pastRun) state() []output.Span {
	if r.Day == "" {
		return []output.Span{output.Part(output.ColourOfStatus(r.Status), "%s", r.Status), output.Part(output.Plain, ", %s", strings.Join(remarks(r), ", "))}
	}
	var parts []output.Span
	for _, status := range billing.RunStatuses() {
		n := r.Statuses[status]
		if n == 0 {
			continue
		}
		if len(parts) > 0 {
			parts = append(parts, output.Part(output.Plain, ", "))
		}
		parts = append(parts, output.Part(output.ColourOfStatus(status), "%d %s", n, status))
	}
	return append(parts, output.Part(output.Plain, ", the last at %s", r.StartedAt.UTC().Format("15:04 UTC")))
}

// writeRuns writes two lines for each run, or three on a terminal with fewer than 72 columns.
func writeRuns(w io.Writer, runs []pastRun) error {
	p := output.NewPage(w)
	const titled, line = 72, "%-36s %8s %8s %7s %8s" // an id takes 36
	narrow := p.Narrower(titled)
	if narrow {
		p.Line(0, "RUN")
		p.Line(2, "%8s %8s %7s %8s", "TOTAL", "DRIFTED", "ERRORS", "DRIFT")
	} else {
		p.Line(0, line, "RUN", "TOTAL", "DRIFTED", "ERRORS", "DRIFT")
	}
	for _, r := range runs {
		errors := output.Plain
		if r.Errors > 0 {
			errors = output.Failed
		}
		title, indent := fmt.Sprintf("%-36s ", r.title()), 0
		if narrow {
			p.Line(0, "%s", r.title())
			title, indent = "", 2
		}
		p.Parts(indent, 2,
			output.Part(output.Plain, "%s%8d %8d", title, r.TotalOrganizations, r.Synchronized+r.Withheld),
			output.Part(errors, " %7d", r.Errors), output.Part(output.Plain, " %8s", fmt.Sprintf("%.1f %%", 100*r.DriftRate)))
		p.Parts(2, 4, r.state()...)
	}
	return p.Flush()
}

// remarks are when the run started, how long it took, and what is unusual about it.
func remarks(r pastRun) []string {
	all := []string{r.StartedAt.UTC().Format("2006-01-02 15:04 UTC")}
	if r.FinishedAt != nil {
		all = append(all, "took "+tookOf(r.FinishedAt.Sub(r.StartedAt)))
	}
	if r.Kind == billing.KindCatchUp {
		all = append(all, "catch-up")
	}
	if r.DryRun {
		all = append(all, "dry run")
	}
	if r.OrgID != "" {
		all = append(all, "organization "+telemetry.OneLine(r.OrgID))
	}
	if r.Pending > 0 {
		all = append(all, fmt.Sprintf("%d pending", r.Pending))
	}
	return all
}

// tookOf is to the second; clocks differ, so it may be negative.
func tookOf(d time.Duration) string {
	if d < time.Second {
		return "less than a second"
	}
	return d.Round(time.Second).String()
}
