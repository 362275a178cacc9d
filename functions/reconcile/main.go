// Reconcile is the operator's command line.
package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/present"
)

func main() { present.Main(realMain) }

// command is what every subcommand works with.
type command struct {
	environ   map[string]string
	out, errs io.Writer
	json      bool
}

func realMain(ctx context.Context, args []string, environ map[string]string, out, errs io.Writer) int {
	c := &command{environ: environ, out: out, errs: errs}
	root := &cobra.Command{
		Use:   "reconcile",
		Short: "Operate the subscription reconciliation",
		Long: `Operates the subscription reconciliation: what Stripe says about every organization's
subscription is repaired in the application's database, never the other way round.

Settings come from the environment or from .env; .env.example names them all.`,
		Args: present.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().BoolVar(&c.json, "json", false, "results as JSON on standard output")
	root.AddCommand(c.approve(ctx))
	root.AddCommand(c.report(ctx))
	root.AddCommand(c.runs(ctx))
	return present.Execute(ctx, root, args, out, errs)
}
