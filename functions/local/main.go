// Local runs the whole pipeline in one process: the handlers that Lambda runs, fed by an SQS
// server of its own. With DB_HOST and STRIPE_SECRET_KEY set it works on those; else on a
// database and a fake Stripe of its own, with seeded organizations and drift.
package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
)

func main() { cli.Main(realMain) }

func realMain(ctx context.Context, args []string, environ map[string]string, out, errs io.Writer) int {
	var o options
	cmd := &cobra.Command{
		Use:   "local",
		Short: "Reconcile the subscriptions in a database with Stripe, in one process",
		Long: `Runs one reconciliation, all of it in this process, and prints what changed.

With DB_HOST and STRIPE_SECRET_KEY in the environment or in .env, it works on that
database and that Stripe account (nothing is ever written to Stripe); with a key of live
mode it asks before it writes. Else, or with --demo, it starts a database and a fake
Stripe of its own with seeded organizations and drift.

.env.example names every setting; LOG_LEVEL=info shows the functions' own log lines.
Exit codes: 0 the run ended completed, 1 it could not be started or followed, 2 usage
or configuration, 3 it ended any other way.`,
		Example: `  local                       a first look, on parts of its own
  local --dry-run             what would change, without changing it
  local --org ID              one organization
  local --resume RUN          go on with a run that was interrupted or stopped
  local --demo --hold         own parts whatever .env says, and keep them for reconcile
  local --orgs 10000 --drift 1 --json`,
		Args: cli.NoArgs,
		RunE: func(*cobra.Command, []string) error { return runLocal(ctx, o, environ, out, errs) },
	}
	o.bind(cmd)
	return cli.Execute(ctx, cmd, args, out, errs)
}
