// Local runs the whole pipeline in one process: the handlers that Lambda runs, fed by an SQS
// server of its own. With DB_HOST and STRIPE_SECRET_KEY set it works on those; else on a
// database and a fake Stripe of its own, with seeded organizations and drift.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"slices"
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
	code := present.ExitOK
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
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return present.Usage("unknown argument %q", args[0])
			}
			return nil
		},
		SilenceErrors: true, SilenceUsage: true,
		RunE: func(*cobra.Command, []string) (err error) {
			code, err = runLocal(ctx, o, environ, out, errs)
			return err
		},
	}
	bind(cmd, &o)
	cmd.SetArgs(args)
	cmd.SetOut(out)
	cmd.SetErr(errs)
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return present.Usage("%w", err) })
	if err := cmd.ExecuteContext(ctx); err != nil {
		if _, known := errors.AsType[*present.Error](err); !known && ctx.Err() != nil {
			err = &present.Error{Exit: present.ExitFailed, Code: "interrupted", Err: errors.New("interrupted")}
		}
		// A flag that could not be read may stand before --json.
		return present.Fail(out, errs, o.json || slices.Contains(args, "--json"), err)
	}
	return code
}
