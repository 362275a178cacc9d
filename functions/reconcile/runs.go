package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

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

func writeRuns(w io.Writer, runs []pastRun) error {
	lines := [][]string{{"RUN", "STATUS", "STARTED (UTC)", "TOOK", "TOTAL", "DRIFTED", "ERRORS", "SKIPPED", "PENDING", "DRIFT", ""}}
	for _, r := range runs {
		lines = append(lines, []string{
			telemetry.Clean(r.RunID), string(r.Status), r.StartedAt.UTC().Format("2006-01-02 15:04"), took(r), strconv.Itoa(r.TotalOrganizations),
			strconv.Itoa(r.Synchronized + r.Withheld), strconv.Itoa(r.Errors), strconv.Itoa(r.Skipped), strconv.Itoa(r.Pending), fmt.Sprintf("%.1f %%", 100*r.DriftRate), remark(r),
		})
	}
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, line := range lines {
		b.WriteString(strings.TrimRight(aligned(line, widths), " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// aligned sets words to the left of their column and figures to the right.
func aligned(line []string, widths []int) string {
	const firstFigure, lastFigure = 3, 9
	var b strings.Builder
	for i, cell := range line {
		width := widths[i]
		if i < firstFigure || i > lastFigure {
			width = -width
		}
		fmt.Fprintf(&b, "%*s  ", width, cell)
	}
	return b.String()
}

func took(r pastRun) string {
	if r.FinishedAt == nil {
		return "going"
	}
	return r.FinishedAt.Sub(r.StartedAt).Round(time.Second).String()
}

// remark tells apart the runs that are not a full one that wrote.
func remark(r pastRun) string {
	var all []string
	if r.DryRun {
		all = append(all, "dry run")
	}
	if r.OrgID != "" {
		all = append(all, "organization "+telemetry.Clean(r.OrgID))
	}
	return strings.Join(all, ", ")
}
