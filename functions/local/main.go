// Local runs the whole pipeline in one process: the handlers of the Lambda functions on an SQS server in the process.
// With DB_HOST and STRIPE_SECRET_KEY it works on that database and account; without them it runs a demonstration on a
// database and a fake Stripe that it starts, with seeded organizations and drift.
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
		Long: `Runs one reconciliation in this process and prints what changed.

With DB_HOST and STRIPE_SECRET_KEY in the environment or in .env, it works on that
database and that Stripe account. Nothing is ever written to Stripe. With a key of live
mode it asks before it writes to the database. Without these settings, or with --demo, it
runs a demonstration: it starts a database and a fake Stripe with seeded organizations and
drift.

.env.example lists every setting; LOG_LEVEL=info shows the log lines of the functions.
Exit codes: 0 the run ended completed, 1 it could not be started or followed, 2 usage
or configuration, 3 it ended any other way.`,
		Example: `  local                       a demonstration
  local --dry-run             show what would change
  local --org "Acme GmbH"     one organization
  local --resume RUN          continue a run that was interrupted or stopped
  local --demo --hold         a demonstration whatever .env says, kept up for reconcile
  local --orgs 10000 --drift 1 --json`,
		Args: cli.NoArgs,
		RunE: func(*cobra.Command, []string) error { return runLocal(ctx, o, environ, out, errs) },
	}
	o.bind(cmd)
	return cli.Execute(ctx, cmd, args, out, errs)
}
