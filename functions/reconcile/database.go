package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/wiring"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// lookEvery is the polling interval of a watch.
const lookEvery = 500 * time.Millisecond

// withDatabase opens the database for commands that need nothing else.
func (c *command) withDatabase(ctx context.Context, do func(*mysqlstore.Store, config.Config) error) error {
	settings, err := config.Load(c.environ, config.NeedDatabase)
	if err != nil {
		return err
	}
	return onStore(ctx, settings, func(store *mysqlstore.Store) error { return do(store, settings) })
}

// onStore opens the database that the settings name.
func onStore(ctx context.Context, settings config.Config, do func(*mysqlstore.Store) error) (err error) {
	store, err := mysqlstore.Open(ctx, wiring.DatabaseConfig(settings))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return do(store)
}

// hasDatabase reports whether a database is configured.
func (c *command) hasDatabase() bool { return c.environ["DB_HOST"] != "" }

// findRun returns the run with this id; without one, the last over all organizations.
func findRun(ctx context.Context, store *mysqlstore.Store, id string) (billing.Run, error) {
	if id == "" {
		run, found, err := store.LatestFullRun(ctx)
		if err == nil && !found {
			err = unknownRun(errors.New("there is no run yet"), "reconcile start begins one")
		}
		return run, err
	}
	run, err := store.Run(ctx, id)
	if billing.IsUnknownRun(err) {
		err = unknownRun(err, "reconcile runs lists the runs")
	}
	return run, err
}

func unknownRun(err error, hint string) error {
	return &cli.Error{Exit: cli.ExitFailed, Code: string(billing.ReasonUnknownRun), Err: err, Hint: hint}
}

// watch follows the run to its end, and shows how it ended.
func (c *command) watch(ctx context.Context, store *mysqlstore.Store, runID string) error {
	progress := output.NewProgress(c.errs)
	var run billing.Run
	err := cli.Poll(ctx, lookEvery, func() (ended bool, err error) {
		run, err = cli.ShowProgress(ctx, store, progress, runID)
		return !run.Status.Open(), err
	})
	if err == nil && run.ID == "" {
		run, err = findRun(ctx, store, runID) // pruned, or unknown
	}
	progress.Done()
	if err != nil {
		return notFollowed(ctx, runID, err)
	}
	return c.showRun(ctx, store, run)
}

// notFollowed is the error of a run that could not be followed to its end: the run continues.
func notFollowed(ctx context.Context, runID string, err error) error {
	if known, ok := errors.AsType[*cli.Error](err); ok {
		return known
	}
	e := &cli.Error{
		Exit: cli.ExitFailed, Code: string(billing.AsFailure(err).Reason), Err: err,
		Hint: "run " + telemetry.Clean(runID) + " continues; to follow it again:\n    " + billing.Summary{RunID: telemetry.Clean(runID)}.Command("reconcile status RUN --watch", ""),
	}
	if ctx.Err() != nil {
		e.Code, e.Err = cli.CodeInterrupted, errors.New("interrupted")
	}
	return e
}

// showRun writes the run's summary. The exit code of an open run is 0.
func (c *command) showRun(ctx context.Context, store *mysqlstore.Store, run billing.Run) error {
	summary, err := summaryOf(ctx, store, run)
	if err != nil {
		return err
	}
	if err := c.showSummary(ctx, store, summary, run.Window); err != nil || summary.Status.Open() {
		return err
	}
	return cli.Ended(summary.Status)
}

// summaryOf returns the summary that was written when the run was closed; for an open run it counts the items.
func summaryOf(ctx context.Context, store *mysqlstore.Store, run billing.Run) (billing.Summary, error) {
	if !run.Status.Open() {
		if summary, written, err := store.StoredSummary(ctx, run.ID); err != nil || written {
			summary.SetDecisions(run) // people may have approved it later
			return summary, err
		}
	}
	return (&pipeline.Aggregator{Store: store}).Summary(ctx, run.ID)
}

func (c *command) showSummary(ctx context.Context, store *mysqlstore.Store, s billing.Summary, window *billing.Window) error {
	if c.json {
		return output.JSON(c.out, s)
	}
	view := c.view
	if settings, err := config.Load(c.environ); err == nil {
		view.Tiers = settings.Rules.Tiers
	}
	view.Window, view.Queued, view.Stored, view.Names = window, !c.madeByLocal(s.By), true, cli.OrganizationNames(ctx, store, s)
	return output.Summary(c.out, s, view)
}

// madeByLocal reports whether local made the run and its queues are gone: no dead-letter queue is configured.
func (c *command) madeByLocal(by string) bool {
	return c.environ["DEAD_LETTER_QUEUE_URL"] == "" && cli.MadeByLocal(by)
}

// say writes a text without control characters.
func say(w io.Writer, format string, args ...any) error {
	p := output.NewPage(w)
	p.Lines(fmt.Sprintf(format, args...))
	return p.Flush()
}
