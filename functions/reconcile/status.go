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
		Short: "Show the progress or the result of a run",
		Long: `Shows a run, by default the last one over all organizations: every change, and the figures.
--watch shows progress until the run ends. Ctrl-C does not stop the run.

The exit code says how the run ended; it is 0 for an open run that is not watched.`,
		Example: `  reconcile status
  reconcile status --watch
  reconcile status --errors             only the organizations in error
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
	cmd.Flags().BoolVar(&follows, "watch", false, "show progress until the run ends")
	return cmd
}

// first returns the first argument, or "" if there is none.
func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
