package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

// options are the command line's flags.
type options struct {
	dryRun, json, yes bool
	org, resume       string
	reading           cli.StrategyFlags
	given             func(flag string) bool // on the command line
	demo              demoOptions
	view              output.View // of the run, as the flags say
}

// demoOptions shape a demonstration.
type demoOptions struct {
	orgs    int
	drift   float64 // percent
	latency time.Duration
	rate    float64
	seed    uint64
	hold    bool // keep it up afterwards
	only    bool // run a demonstration whatever the settings name
}

func (o demoOptions) check() error {
	switch {
	case o.orgs < 1:
		return cli.Usage("--orgs must be at least 1")
	case o.drift < 0, o.drift > 100:
		return cli.Usage("--drift must be between 0 and 100")
	case o.latency < 0:
		return cli.Usage("--latency must not be negative")
	case o.rate < 0:
		return cli.Usage("--rate must not be negative")
	default:
		return nil
	}
}

// check refuses what no run could be started with.
func (o options) check() error {
	if err := o.reading.Check(o.org, o.resume); err != nil {
		return err
	}
	if err := cli.CheckView(o.view); err != nil {
		return err
	}
	return o.demo.check()
}

// onOwnParts reports whether to run a demonstration: with --demo, or if the environment names no database and no key.
func (o options) onOwnParts(environ map[string]string) (bool, error) {
	database, key := environ["DB_HOST"] != "", environ["STRIPE_SECRET_KEY"] != ""
	switch {
	case o.demo.only && o.resume != "":
		return false, cli.Usage("--resume needs a database that lasts: a demonstration has no earlier runs")
	case o.demo.only:
		return true, nil
	case database && !key:
		return false, cli.Usage("DB_HOST is set and STRIPE_SECRET_KEY is not; set both, in .env or the environment, or use --demo for a demonstration")
	case key && !database:
		return false, cli.Usage("STRIPE_SECRET_KEY is set and DB_HOST is not; set both, in .env or the environment, or use --demo for a demonstration")
	case database:
		return false, o.refuseOwnFlags()
	case o.resume != "":
		return false, cli.Usage("--resume needs the run's database: set DB_HOST and STRIPE_SECRET_KEY")
	default:
		return true, nil
	}
}

// refuseOwnFlags refuses flags that shape a demonstration when a real database is configured.
func (o options) refuseOwnFlags() error {
	for _, name := range ownFlags {
		if o.given(name) {
			return cli.Usage("--%s is for a demonstration, but DB_HOST and STRIPE_SECRET_KEY are set (perhaps in .env); add --demo to ignore them", name)
		}
	}
	return nil
}

// confirm asks before a run with a live key writes.
func (o options) confirm(ctx context.Context, c config.Config, errs io.Writer) error {
	if o.dryRun || o.yes || c.Stripe.Mode != config.ModeLive {
		return nil
	}
	yes, err := cli.Ask(ctx, os.Stdin, errs, fmt.Sprintf("This repairs database %s at %s as Stripe's live account says.", c.Database.Name, c.Database.Host))
	switch {
	case errors.Is(err, cli.ErrNoTerminal):
		return cli.Usage("STRIPE_SECRET_KEY is of live mode and this run would write to database %s: check it with --dry-run, then add --yes", c.Database.Name)
	case err == nil && !yes:
		return &cli.Error{Exit: cli.ExitFailed, Code: cli.CodeNotConfirmed, Hint: "--dry-run shows what would change", Err: errors.New("nothing was started")}
	default:
		return err
	}
}

// isFull reports whether a run over all organizations is opened.
func (o options) isFull() bool {
	return o.org == "" && o.resume == "" && o.reading.Strategy != string(billing.StrategyEvents)
}

// ownFlags shape a demonstration.
var ownFlags = []string{"orgs", "drift", "latency", "rate", "seed", "hold"}

func (o *options) bind(cmd *cobra.Command) {
	o.given = func(name string) bool { return cmd.Flags().Changed(name) }

	cli.BindView(cmd, &o.view)
	o.reading.Bind(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "plan and record only; write nothing to the application's tables")
	f.StringVar(&o.org, "org", "", "only this `ORGANIZATION`: its id, its Stripe customer or subscription, or its whole name")
	f.StringVar(&o.resume, "resume", "", "resume the run with this `ID`: send what is pending again")
	f.BoolVar(&o.json, "json", false, "the summary as JSON on standard output")
	f.BoolVar(&o.yes, "yes", false, "with a live key, write without asking")
	f.BoolVar(&o.demo.only, "demo", false, "run a demonstration, even if .env or the environment names a database")
	f.BoolVar(&o.demo.hold, "hold", false, "demonstration: keep it up until Ctrl-C, for use with reconcile")
	f.IntVar(&o.demo.orgs, "orgs", 200, "demonstration: number of organizations")
	f.Float64Var(&o.demo.drift, "drift", 15, "demonstration: `percent` of organizations that drifted")
	f.DurationVar(&o.demo.latency, "latency", 0*time.Second, "demonstration: latency of the fake Stripe")
	f.Float64Var(&o.demo.rate, "rate", 0, "demonstration: requests a second that the fake Stripe allows for each endpoint; 0 is no limit")
	f.Uint64Var(&o.demo.seed, "seed", 1, "demonstration: the same seed makes the same organizations")
}
