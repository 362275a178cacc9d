package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
)

func (c *command) org(ctx context.Context) *cobra.Command {
	var e event
	watches, explains := false, false
	cmd := &cobra.Command{
		Use:   "org ORGANIZATION",
		Short: "Reconcile one organization, or explain it",
		Long: `Enqueues one organization as a run over it alone. --watch waits for the run and prints what
changed.

ORGANIZATION is its id or, if the database can be reached, its Stripe customer (cus_...), its
subscription (sub_...) or its whole name.

--explain enqueues nothing and writes nothing. It reads the organization as a worker does and
shows both sides, the subscription that governs and why, and what a run would change. It needs
the database, Stripe and the price ids that are configured in AWS, but no queue.

The run does not lower access that another run withholds: look at it with --explain, then
approve that run. --allow-downgrade lowers this organization nevertheless; who asked for it is
recorded with the run.`,
		Example: `  reconcile org 0a4f6c1e-5a6b-4c7d-8e9f-0a1b2c3d4e5f --explain
  reconcile org 0a4f6c1e-5a6b-4c7d-8e9f-0a1b2c3d4e5f --watch
  reconcile org cus_NffrFeUfNV2Hib --explain
  reconcile org "Acme GmbH" --explain`,
		Args:              cli.OneArg("organization id"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) (err error) {
			if explains && (watches || e.DryRun || e.AllowDowngrade) {
				return cli.Usage("--explain takes no --watch, --dry-run or --allow-downgrade: it enqueues nothing")
			}
			if e.OrgID, err = c.organization(ctx, strings.TrimSpace(args[0])); err != nil {
				return err
			}
			switch {
			case explains:
				return c.withSimilar(ctx, e.OrgID, c.explain(ctx, e.OrgID))
			default:
				return c.withSimilar(ctx, e.OrgID, c.enqueue(ctx, e, watches))
			}
		},
	}
	f := cmd.Flags()
	f.BoolVar(&e.DryRun, "dry-run", false, "plan and record only; write nothing to the application's tables")
	f.BoolVar(&e.AllowDowngrade, "allow-downgrade", false, "lower its access even if another run withholds that change")
	f.BoolVar(&watches, "watch", false, "wait for the run, then print what changed")
	f.BoolVar(&explains, "explain", false, "show both sides, what governs and why, and the plan; write nothing")
	return cmd
}
