package main

import (
	"context"
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/present"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

// approval is what approve answers.
type approval struct {
	RunID          string `json:"runId"`
	Downgrades     int    `json:"downgrades"`
	DowngradeLimit int    `json:"downgradeLimit"`
	Withheld       int    `json:"withheld"`
}

func (c *command) approve(ctx context.Context) *cobra.Command {
	limit := 0
	cmd := &cobra.Command{
		Use:   "approve RUN --limit N",
		Short: "Let a run downgrade more organizations than its limit allowed",
		Long: `Raises the run's limit of downgrades. A run withholds what would go beyond it, since
a wrong key or a wrong price mapping looks like everybody losing access. Look at what
was withheld before you approve; a redrive of the dead-letter queue then applies it.`,
		Example: `  reconcile status 2026-11-22T03:00:00Z             what was withheld?
  reconcile approve 2026-11-22T03:00:00Z --limit 40
  reconcile redrive --watch                         have it applied`,
		Args:              present.OneArg("run"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			if limit < 1 {
				return present.Usage("--limit must say how many downgrades the run may make, at least 1")
			}
			return c.raise(ctx, args[0], limit)
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "how many organizations the run may downgrade in all")
	return cmd
}

func (c *command) raise(ctx context.Context, runID string, limit int) error {
	return c.withDatabase(ctx, func(store *mysqlstore.Store, _ config.Config) error {
		raised, err := store.RaiseDowngradeLimit(ctx, runID, limit)
		if err != nil {
			return err
		}
		a, err := approvalOf(ctx, store, runID)
		if err != nil {
			return err
		}
		if !raised {
			return present.Usage("run %s may downgrade %d organizations already; --limit can only raise that", runID, a.DowngradeLimit)
		}
		return c.showApproval(a)
	})
}

// approvalOf tells how the run stands with its limit.
func approvalOf(ctx context.Context, store *mysqlstore.Store, runID string) (approval, error) {
	run, err := findRun(ctx, store, runID)
	if err != nil {
		return approval{}, err
	}
	tallies, err := store.Tallies(ctx, runID)
	a := approval{RunID: runID, Downgrades: run.Downgrades, DowngradeLimit: run.DowngradeLimit}
	for _, t := range tallies {
		if t.Reason == billing.ReasonWithheld {
			a.Withheld += t.Items
		}
	}
	return a, err
}

func (c *command) showApproval(a approval) error {
	if c.json {
		return json.NewEncoder(c.out).Encode(a)
	}
	next := "\nreconcile redrive --watch has those applied"
	if a.Withheld == 0 {
		next = ""
	}
	return say(c.out, "run %s may now downgrade %d organizations; it did %d, and withheld %d%s", a.RunID, a.DowngradeLimit, a.Downgrades, a.Withheld, next)
}
