package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/follow"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/present"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/wire"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
)

// lookEvery spaces the looks at what is being followed.
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
	store, err := mysqlstore.Open(ctx, wire.Database(settings))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return do(store)
}

// hasDatabase reports whether settings for one are there; nothing is said of whether it answers.
func (c *command) hasDatabase() bool { return c.environ["DB_HOST"] != "" }

// findRun returns the run with this id; without one, the run that was started last.
func findRun(ctx context.Context, store *mysqlstore.Store, id string) (billing.Run, error) {
	if id == "" {
		run, found, err := store.LatestRun(ctx)
		if err == nil && !found {
			err = unknownRun("there is no run yet", "reconcile start begins one")
		}
		return run, err
	}
	runs, err := store.Runs(ctx, []string{id})
	if err != nil {
		return billing.Run{}, err
	}
	run, found := runs[id]
	if !found {
		return run, unknownRun("there is no run "+id, "reconcile runs lists those there are; it may have been pruned, or belong to another database")
	}
	return run, nil
}

func unknownRun(message, hint string) error {
	return &present.Error{Exit: present.ExitFailed, Code: string(billing.ReasonUnknownRun), Err: errors.New(message), Hint: hint}
}

// watch follows the run to its end, and shows how it ended.
func (c *command) watch(ctx context.Context, store *mysqlstore.Store, runID string) error {
	progress := present.NewProgress(c.errs)
	run, err := untilClosed(ctx, store, progress, runID)
	progress.Done()
	if err != nil {
		return notFollowed(ctx, runID, err)
	}
	return c.showRun(ctx, store, run)
}

func untilClosed(ctx context.Context, store *mysqlstore.Store, progress *present.Progress, runID string) (billing.Run, error) {
	for {
		began := time.Now()
		run, err := follow.Look(ctx, store, progress, runID)
		if err != nil || run.ID != "" && !run.Status.Open() {
			return run, err
		}
		if run.ID == "" {
			return findRun(ctx, store, runID) // it was pruned, or never there
		}
		if err := pause(ctx, follow.Pause(lookEvery, time.Since(began))); err != nil {
			return run, err
		}
	}
}

// pause waits, or returns why it must not.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// notFollowed says that the run goes on although nobody watches it.
func notFollowed(ctx context.Context, runID string, err error) error {
	if known, ok := errors.AsType[*present.Error](err); ok {
		return known
	}
	e := &present.Error{
		Exit: present.ExitFailed, Code: string(billing.AsFailure(err).Reason), Err: err,
		Hint: "run " + present.Clean(runID) + " goes on; reconcile status " + present.Clean(runID) + " --watch follows it again",
	}
	if ctx.Err() != nil {
		e.Code, e.Err = "interrupted", errors.New("interrupted")
	}
	return e
}

// showRun writes the run's summary. One that is open has no end yet to be judged by.
func (c *command) showRun(ctx context.Context, store *mysqlstore.Store, run billing.Run) error {
	summary, err := summaryOf(ctx, store, run)
	if err != nil {
		return err
	}
	if err := c.showSummary(summary); err != nil || summary.Status.Open() {
		return err
	}
	return present.Ended(summary.Status)
}

// summaryOf is the summary that was written when the run was closed; without one, the run is
// counted as it stands.
func summaryOf(ctx context.Context, store *mysqlstore.Store, run billing.Run) (billing.Summary, error) {
	if !run.Status.Open() {
		if summary, written, err := store.StoredSummary(ctx, run.ID); err != nil || written {
			return summary, err
		}
	}
	return (&pipeline.Aggregator{Store: store}).Summary(ctx, run.ID)
}

func (c *command) showSummary(s billing.Summary) error {
	if c.json {
		return present.JSON(c.out, s)
	}
	return present.Summary(c.out, s, true)
}

// say writes one line of a result, made of what a terminal may show.
func say(w io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintln(w, present.Clean(fmt.Sprintf(format, args...)))
	return err
}
