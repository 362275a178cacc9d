package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

const (
	// nearest is how many organizations are offered instead of one that is not there.
	nearest = 5
	// nearestTime bounds the look for them: they are a courtesy.
	nearestTime = 5 * time.Second
)

func (c *command) org(ctx context.Context) *cobra.Command {
	var e event
	watches, explains := false, false
	cmd := &cobra.Command{
		Use:   "org ORGANIZATION",
		Short: "Reconcile one organization, or explain it",
		Long: `Enqueues one organization as a run of its own. --watch waits for the run and prints what
changed.

ORGANIZATION is its id. Where the database can be reached, it may also be its Stripe
customer (cus_...), its subscription (sub_...) or its whole name.

--explain enqueues nothing and writes nothing: it reads the organization as a worker does
and shows what the database says, what Stripe says, which subscription governs and why,
and what a run would change. It needs the database and Stripe, and the price ids as they
are configured in AWS, but no queue.

What a guard holds back in another run, this one does not lower either: look at it with
--explain, then approve that run. --allow-downgrade lets this one organization be lowered
whatever is held back. Who asked for it is kept with the run.`,
		Example: `  reconcile org 0a4f6c1e-5a6b-4c7d-8e9f-0a1b2c3d4e5f --explain
  reconcile org 0a4f6c1e-5a6b-4c7d-8e9f-0a1b2c3d4e5f --watch
  reconcile org cus_NffrFeUfNV2Hib --explain
  reconcile org "Acme GmbH" --explain`,
		Args:              cli.OneArg("organization id"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) (err error) {
			if explains && (watches || e.DryRun || e.AllowDowngrade) {
				return cli.Usage("--explain enqueues nothing: leave out --watch, --dry-run and --allow-downgrade")
			}
			if e.OrgID, err = c.organization(ctx, strings.TrimSpace(args[0])); err != nil {
				return err
			}
			switch {
			case explains:
				return c.withNearest(ctx, e.OrgID, c.explain(ctx, e.OrgID))
			default:
				return c.withNearest(ctx, e.OrgID, c.enqueue(ctx, e, watches))
			}
		},
	}
	f := cmd.Flags()
	f.BoolVar(&e.DryRun, "dry-run", false, "plan and record only; write nothing to the application's tables")
	f.BoolVar(&e.AllowDowngrade, "allow-downgrade", false, "lower this organization although another run holds that back")
	f.BoolVar(&watches, "watch", false, "wait for the run, then print what changed")
	f.BoolVar(&explains, "explain", false, "show both sides, what governs and why, and the plan; write nothing")
	return cmd
}

// withNearest adds to the error of an unknown organization those it may have been meant for.
// Without a database that answers, the error is what it was.
func (c *command) withNearest(ctx context.Context, id string, err error) error {
	if err == nil || !c.hasDatabase() || reasonOf(err) != string(billing.ReasonUnknownOrganization) {
		return err
	}
	settings, loadErr := config.Load(c.environ, config.NeedDatabase)
	if loadErr != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, nearestTime)
	defer cancel()
	var near []mysqlstore.NamedOrganization
	lookErr := onStore(ctx, settings, func(store *mysqlstore.Store) (err error) {
		near, err = store.SimilarOrganizations(ctx, id, nearest)
		return err
	})
	hint := "no id begins like it and no name contains it"
	if lookErr != nil {
		hint = "the database could not be asked for similar ones"
	}
	if len(near) > 0 {
		hint = "did you mean one of these?" + named(near)
	}
	return &cli.Error{Exit: cli.ExitFailed, Code: string(billing.ReasonUnknownOrganization), Err: errors.New(telemetry.OneLine(err.Error())), Hint: hint}
}

// reasonOf an error, whoever it comes from.
func reasonOf(err error) string {
	if e, ok := errors.AsType[*cli.Error](err); ok {
		return e.Code
	}
	return string(billing.AsFailure(err).Reason)
}

// named lists the organizations, one a line.
func named(all []mysqlstore.NamedOrganization) string {
	var b strings.Builder
	for _, o := range all {
		b.WriteString("\n    " + telemetry.OneLine(telemetry.Clean(o.ID+"  "+o.Name)))
	}
	return b.String()
}
