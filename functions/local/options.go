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

// options are the command line's.
type options struct {
	dryRun, json, yes bool
	org, resume       string
	reading           cli.StrategyFlags
	given             func(flag string) bool // on the command line
	demo              demoOptions
	view              output.View // of the run, as the flags say
}

// demoOptions shape the own parts.
type demoOptions struct {
	orgs    int
	drift   float64 // percent
	latency time.Duration
	rate    float64
	seed    uint64
	hold    bool // keep them up afterwards
	only    bool // on own parts, whatever the settings name
}

func (o demoOptions) check() error {
	if o.orgs < 1 || o.drift < 0 || o.drift > 100 || o.latency < 0 || o.rate < 0 {
		return cli.Usage("--orgs must be at least 1, --drift between 0 and 100, --latency and --rate not negative")
	}
	return nil
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

// onOwnParts reports whether to work on own parts: where the environment names a database and a Stripe
// key, only if that is asked for.
func (o options) onOwnParts(environ map[string]string) (bool, error) {
	database, key := environ["DB_HOST"] != "", environ["STRIPE_SECRET_KEY"] != ""
	switch {
	case o.demo.only && o.resume != "":
		return false, cli.Usage("--resume goes on with a run in a database that stays; a demonstration's ends with it")
	case o.demo.only:
		return true, nil
	case database != key:
		return false, cli.Usage("only one of DB_HOST and STRIPE_SECRET_KEY is set; set both to work on them, or none for a demonstration (--demo)")
	case database:
		return false, o.refuseOwnFlags()
	case o.resume != "":
		return false, cli.Usage("--resume needs the database that the run is in: set DB_HOST and STRIPE_SECRET_KEY")
	default:
		return true, nil
	}
}

// refuseOwnFlags: who shapes the own parts does not expect to work on a real database.
func (o options) refuseOwnFlags() error {
	for _, name := range ownFlags {
		if o.given(name) {
			return cli.Usage("--%s is for a demonstration on own parts, but DB_HOST and STRIPE_SECRET_KEY name others (perhaps in .env); --demo leaves those alone", name)
		}
	}
	return nil
}

// confirm asks before anything is written that customers would notice.
func (o options) confirm(ctx context.Context, c config.Config, errs io.Writer) error {
	if o.dryRun || o.yes || c.Stripe.Mode != config.ModeLive {
		return nil
	}
	yes, err := cli.Ask(ctx, os.Stdin, errs, fmt.Sprintf("This repairs database %s at %s as Stripe's live account says.", c.Database.Name, c.Database.Host))
	switch {
	case errors.Is(err, cli.ErrNoTerminal):
		return cli.Usage("STRIPE_SECRET_KEY is of live mode, and this would write to database %s: look with --dry-run first, and say --yes to go on", c.Database.Name)
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

// ownFlags shape the own parts and say nothing about others.
var ownFlags = []string{"orgs", "drift", "latency", "rate", "seed", "hold"}

func (o *options) bind(cmd *cobra.Command) {
	o.given = func(name string) bool { return cmd.Flags().Changed(name) }

	cli.BindView(cmd, &o.view)
	o.reading.Bind(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "plan and record only; write nothing to the application's tables")
	f.StringVar(&o.org, "org", "", "only this `ORGANIZATION`: its id, its Stripe customer or subscription, or its whole name")
	f.StringVar(&o.resume, "resume", "", "go on with the run of this `ID`: send what is pending again")
	f.BoolVar(&o.json, "json", false, "the summary as JSON on standard output")
	f.BoolVar(&o.yes, "yes", false, "with a live key, write without asking")
	f.BoolVar(&o.demo.only, "demo", false, "on own parts, whatever .env and the environment say of others")
	f.BoolVar(&o.demo.hold, "hold", false, "own parts: afterwards keep everything up until Ctrl-C, for reconcile to work on")
	f.IntVar(&o.demo.orgs, "orgs", 200, "own parts: number of organizations")
	f.Float64Var(&o.demo.drift, "drift", 15, "own parts: `percent` of organizations that drifted")
	f.DurationVar(&o.demo.latency, "latency", 0*time.Second, "own parts: how long the fake Stripe takes to answer")
	f.Float64Var(&o.demo.rate, "rate", 0, "own parts: requests a second for each endpoint that the fake Stripe allows; 0 is no limit")
	f.Uint64Var(&o.demo.seed, "seed", 1, "own parts: the same seed makes the same organizations")
}
