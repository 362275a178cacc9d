package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/present"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// maxRuns bounds what is held at once: each run brings its summary along.
const maxRuns = 500

// pastRun is one run as machines see it.
type pastRun struct {
	RunID              string            `json:"runId"`
	Status             billing.RunStatus `json:"status"`
	DryRun             bool              `json:"dryRun"`
	OrgID              string            `json:"orgId,omitempty"` // of a run over one organization
	StartedAt          time.Time         `json:"startedAt"`
	FinishedAt         *time.Time        `json:"finishedAt"`
	DurationMs         int64             `json:"durationMs"` // 0 while it is going
	TotalOrganizations int               `json:"totalOrganizations"`
	Synchronized       int               `json:"synchronized"`
	Withheld           int               `json:"withheld"` // of the errors: they differ, and a guard held them back
	Errors             int               `json:"errors"`
	Skipped            int               `json:"skipped"`
	Pending            int               `json:"pending"`
	DriftRate          float64           `json:"driftRate"` // (synchronized + withheld) / totalOrganizations
}

func (c *command) runs(ctx context.Context) *cobra.Command {
	limit := 0
	cmd := &cobra.Command{
		Use:   "runs",
		Short: "List past runs with their totals, the latest first",
		Long: `Lists past runs, the latest first. Drift is how many of a run's organizations differed
from Stripe: they were repaired, or held back by a guard and so errors too, or would be
repaired if it was a dry run. Runs are kept for RETENTION_DAYS (90) before the latest, and
the last complete one for as long as there is no later one.`,
		Example: `  reconcile runs
  reconcile runs --limit 5
  reconcile runs --json | jq '.[0].driftRate'`,
		Args:              present.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			if limit < 1 || limit > maxRuns {
				return present.Usage("--limit must be from 1 to %d", maxRuns)
			}
			return c.withDatabase(ctx, func(store *mysqlstore.Store, _ config.Config) error {
				runs, err := store.RecentRuns(ctx, limit)
				if err != nil {
					return err
				}
				return c.showRuns(runs)
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 20, "how many runs at most")
	return cmd
}

func (c *command) showRuns(runs []mysqlstore.PastRun) error {
	past := make([]pastRun, len(runs))
	for i, run := range runs {
		past[i] = pastRunOf(run)
	}
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
	f := run.Figures
	p := pastRun{
		RunID: run.ID, Status: run.Status, DryRun: run.DryRun, OrgID: run.OrgID, StartedAt: run.StartedAt, FinishedAt: run.FinishedAt,
		TotalOrganizations: f.TotalOrganizations, Synchronized: f.Synchronized, Withheld: f.Withheld(), Errors: f.Errors, Skipped: f.Skipped, Pending: f.Pending,
		DriftRate: f.DriftRate(),
	}
	if run.FinishedAt != nil {
		p.DurationMs = max(0, run.FinishedAt.Sub(run.StartedAt).Milliseconds()) // clocks differ
	}
	return p
}

// writeRuns writes two lines for each run, which together fit 80 columns: an id alone may take 36.
func writeRuns(w io.Writer, runs []pastRun) error {
	p := present.NewPage(w)
	const line = "%-36s %8s %8s %7s %8s"
	p.Line(0, line, "RUN", "TOTAL", "DRIFTED", "ERRORS", "DRIFT")
	for _, r := range runs {
		errors := present.Plain
		if r.Errors > 0 {
			errors = present.Failed
		}
		p.Parts(0, 2,
			present.Part(present.Plain, "%-36s %8d %8d", r.RunID, r.TotalOrganizations, r.Synchronized+r.Withheld),
			present.Part(errors, " %7d", r.Errors), present.Part(present.Plain, " %8s", fmt.Sprintf("%.1f %%", 100*r.DriftRate)))
		p.Parts(2, 4, present.Part(present.ColourOfStatus(r.Status), "%s", r.Status), present.Part(present.Plain, ", %s", strings.Join(remarks(r), ", ")))
	}
	return p.Flush()
}

// remarks say when it was, how long it took, and what is not usual about it.
func remarks(r pastRun) []string {
	all := []string{r.StartedAt.UTC().Format("2006-01-02 15:04 UTC")}
	if r.FinishedAt != nil {
		all = append(all, "took "+r.FinishedAt.Sub(r.StartedAt).Round(time.Second).String())
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
