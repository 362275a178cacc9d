package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

func (c *command) status(ctx context.Context) *cobra.Command {
	follows := false
	cmd := &cobra.Command{
		Use:   "status [RUN]",
		Short: "Show how a run stands or ended",
		Long: `Shows a run, by default the last one over all organizations: every change, and the figures.
--watch shows its progress until it has ended. Leaving with Ctrl-C does nothing to the run.

The exit code tells how the run ended; one that is still going is 0 unless it is watched.`,
		Example: `  reconcile status
  reconcile status --watch
  reconcile status --errors             of the organizations, those in error alone
  reconcile status 2026-11-22T03:00:00Z --json | jq .result.driftByField`,
		Args:              cli.AtMostOneArg("run"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := cli.CheckView(c.view); err != nil {
				return err
			}
			return c.withDatabase(ctx, func(store *mysqlstore.Store, _ config.Config) error {
				run, err := findRun(ctx, store, first(args))
				if err != nil {
					return err
				}
				if follows {
					return c.watch(ctx, store, run.ID)
				}
				return c.showRun(ctx, store, run)
			})
		},
	}
	cli.BindView(cmd, &c.view)
	cmd.Flags().BoolVar(&follows, "watch", false, "show its progress until it has ended")
	return cmd
}

// first of the arguments; "" where there is none.
func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
