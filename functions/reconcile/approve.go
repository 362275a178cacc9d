package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

// approval is the result of approve.
type approval struct {
	RunID          string `json:"runId"`
	Downgrades     int    `json:"downgrades"`
	DowngradeLimit int    `json:"downgradeLimit"` // what the run may downgrade in all
	Withheld       int    `json:"withheld"`
	By             string `json:"by"`

	askedBy string // who asked for the run
}

func (c *command) approve(ctx context.Context) *cobra.Command {
	limit, force := 0, false
	cmd := &cobra.Command{
		Use:   "approve RUN --limit N",
		Short: "Set how many organizations a run may downgrade",
		Long: `Sets how many organizations the run may downgrade in all, more or fewer than its limit.
A run withholds downgrades beyond its limit, because a wrong key or a wrong price mapping
looks as if every customer lost access. Look at what was withheld before you approve it.
Then reconcile redrive applies it.

A limit above what was withheld needs --force: it also allows downgrades that nobody has
seen. A limit below what the run has downgraded is refused. For a catch-up, the limit
replaces the budget that all catch-ups share within 24 hours. Who approved it, and when, is
recorded with the run.`,
		Example: `  reconcile status 2026-11-22T03:00:00Z             what was withheld?
  reconcile approve 2026-11-22T03:00:00Z --limit 40
  reconcile redrive --watch                         apply it`,
		Args:              cli.OneArg("run"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("limit") || limit < 0 {
				return cli.Usage("give --limit N: how many organizations the run may downgrade in all")
			}
			return c.setLimit(ctx, args[0], limit, force)
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "how many organizations the run may downgrade in all")
	cmd.Flags().BoolVar(&force, "force", false, "allow more than what was withheld")
	return cmd
}

func (c *command) setLimit(ctx context.Context, runID string, limit int, force bool) error {
	return c.withDatabase(ctx, func(store *mysqlstore.Store, _ config.Config) error {
		before, err := approvalOf(ctx, store, runID)
		if err != nil {
			return err
		}
		if most := before.Downgrades + before.Withheld; limit > most && limit > before.DowngradeLimit && !force {
			return cli.Conflict(fmt.Sprintf("--limit %d allows those; more needs --force", most),
				"run %s has downgraded %s and withheld %d: --limit %d allows more than that", runID, billing.Count(before.Downgrades, "organization"), before.Withheld, limit)
		}
		approved, err := store.Approve(ctx, runID, billing.Approval{Limit: limit, By: cli.Operator(), At: time.Now().UTC()})
		if err != nil {
			return err
		}
		a, err := approvalOf(ctx, store, runID)
		if err != nil {
			return err
		}
		if !approved {
			return cli.Conflict(fmt.Sprintf("--limit %d allows no further downgrade", a.Downgrades),
				"run %s has downgraded %s already; --limit cannot be less", runID, billing.Count(a.Downgrades, "organization"))
		}
		return c.showApproval(a)
	})
}

// approvalOf returns what the run may downgrade, has downgraded and withheld.
func approvalOf(ctx context.Context, store *mysqlstore.Store, runID string) (approval, error) {
	run, err := findRun(ctx, store, runID)
	if err != nil {
		return approval{}, err
	}
	a := approval{RunID: runID, Downgrades: run.Downgrades, DowngradeLimit: run.Allowed(), askedBy: run.By}
	if run.Approval != nil {
		a.By = run.Approval.By
	}
	tallies, err := store.Tallies(ctx, runID)
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
	if err := say(c.out, "run %s may now downgrade %s; it has downgraded %d and withheld %d; approved by %s",
		a.RunID, billing.Count(a.DowngradeLimit, "organization"), a.Downgrades, a.Withheld, a.By); err != nil {
		return err
	}
	switch {
	case a.Withheld == 0:
		return nil
	case a.DowngradeLimit == a.Downgrades:
		return say(c.errs, "that allows no further downgrade; --limit %d allows all that it withheld", a.Downgrades+a.Withheld)
	}
	if c.madeByLocal(a.askedBy) {
		return say(c.errs, "no dead-letter queue is set: if local made this run, nothing can be redriven; to apply what was withheld, run it with a higher limit:\n  MAX_DOWNGRADES=%d local",
			min(a.Withheld, a.DowngradeLimit-a.Downgrades))
	}
	return say(c.errs, "to apply what was withheld:\n  reconcile redrive --watch")
}
