// Local runs the whole pipeline in one process: the handlers that Lambda runs, fed by an SQS
// server of its own. With DB_HOST and STRIPE_SECRET_KEY set it works on those; else on a
// database and a fake Stripe of its own, with seeded organizations and drift.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/present"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	environ, err := config.ReadDotEnv(".env", config.Environ(os.Environ()))
	if err != nil {
		os.Exit(present.Fail(os.Stdout, os.Stderr, false, err))
	}
	code := realMain(ctx, os.Args[1:], environ, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func realMain(ctx context.Context, args []string, environ map[string]string, out, errs io.Writer) int {
	var o options
	cmd := &cobra.Command{
		Use:   "local",
		Short: "Reconcile the subscriptions in a database with Stripe, in one process",
		Long: `Runs one reconciliation, all of it in this process, and prints what changed.

With DB_HOST and STRIPE_SECRET_KEY in the environment or in .env, it works on that
database and that Stripe account (nothing is ever written to Stripe). Else it starts a
database and a fake Stripe of its own with seeded organizations and drift.`,
		Example: `  local                       a first look, on parts of its own
  local --dry-run             what would change, without changing it
  local --org ID              one organization
  local --orgs 10000 --drift 1 --json`,
		Args: present.NoArgs,
		RunE: func(*cobra.Command, []string) error { return runLocal(ctx, o, environ, out, errs) },
	}
	bind(cmd, &o)
	return present.Execute(ctx, cmd, args, out, errs)
}
