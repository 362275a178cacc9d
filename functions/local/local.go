package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/follow"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/inprocess"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/present"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/wire"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// localBackoff replaces the backoff of 30 s that suits an unattended run.
const localBackoff = time.Second

// localReceives are given up after some minutes: somebody waits for the end.
const localReceives = 12

// runLocal reconciles once; its error says how the run ended where everything else went well.
func runLocal(ctx context.Context, o options, environ map[string]string, out, errs io.Writer) error {
	status, err := reconcileAndShow(ctx, o, environ, out, errs)
	if err != nil {
		return err
	}
	return present.Ended(status)
}

// reconcileAndShow reconciles once and writes the summary.
func reconcileAndShow(ctx context.Context, o options, environ map[string]string, out, errs io.Writer) (status billing.RunStatus, err error) {
	if err := o.check(); err != nil {
		return "", err
	}
	progress := present.NewProgress(errs)
	if environ, err = wire.Environment(ctx, environ); err != nil {
		return "", err
	}
	environ, own, err := surroundings(ctx, o, environ, progress)
	if err != nil {
		return "", err
	}
	if own != nil {
		defer func() { err = errors.Join(err, own.close()) }()
	}
	c, err := config.Load(environ, config.NeedDatabase, config.NeedStripe)
	if err != nil {
		return "", err
	}
	if own == nil {
		progress.Note("database: %s at %s:%d", c.Database.Name, c.Database.Host, c.Database.Port)
		progress.Note("Stripe: %s mode at %s", c.Stripe.Mode, c.Stripe.APIBase)
	}
	s, err := connect(ctx, o, c, own, logger(environ, c, errs), progress)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	summary, err := s.reconcile(ctx, o)
	if err != nil {
		return "", err
	}
	if o.json {
		err = present.JSON(out, summary)
	} else {
		view := o.view
		view.Queued, view.Stored, view.Names = o.demo.hold && own != nil, o.demo.hold || own == nil, follow.Names(ctx, s.store, summary)
		err = present.Summary(out, summary, view)
	}
	if err == nil && o.demo.hold && own != nil {
		err = s.hold(ctx, own.environ())
	}
	return summary.Status, err
}

// surroundings returns the environment to work on: the given one where it names a database and
// a Stripe key, else that of own parts.
func surroundings(ctx context.Context, o options, environ map[string]string, progress *present.Progress) (map[string]string, *ownParts, error) {
	database, key := environ["DB_HOST"] != "", environ["STRIPE_SECRET_KEY"] != ""
	if database != key {
		return nil, nil, present.Usage("only one of DB_HOST and STRIPE_SECRET_KEY is set; set both to work on them, or none for a demonstration")
	}
	if database {
		return environ, nil, o.refuseOwnFlags()
	}
	if o.resume != "" {
		return nil, nil, present.Usage("--resume needs the database that the run is in: set DB_HOST and STRIPE_SECRET_KEY")
	}
	own, err := startOwnParts(ctx, o.demo, startDatabase, progress)
	if err != nil {
		return nil, nil, err
	}
	merged := own.environ()
	for name, value := range environ {
		// What is said of other databases and accounts does not hold for the own parts.
		if _, ours := merged[name]; !ours && !strings.HasPrefix(name, "DB_") && !strings.HasPrefix(name, "STRIPE_") {
			merged[name] = value
		}
	}
	return merged, own, nil
}

// logger writes the functions' own log lines only if somebody asked for them: here the progress
// and the summary tell the same.
func logger(environ map[string]string, c config.Config, errs io.Writer) *slog.Logger {
	if environ["LOG_LEVEL"] == "" {
		return slog.New(slog.DiscardHandler)
	}
	return telemetry.NewLogger(errs, c.LogLevel)
}

// connect starts a pipeline on the database and the Stripe that c names.
func connect(ctx context.Context, o options, c config.Config, own *ownParts, log *slog.Logger, progress *present.Progress) (s session, err error) {
	database := wire.Database(c)
	if own != nil && !own.database.Concurrent() {
		database.MaxConns, database.LockWait = 1, 0 // nobody to wait for, and it has no such setting
	}
	c.RetryBackoff, c.MaxReceiveCount = localBackoff, localReceives
	if own != nil {
		c.Stripe.RequestsPerSecond = own.requestRate(o.demo)
	}
	store, err := mysqlstore.Open(ctx, database)
	if err != nil {
		return s, err
	}
	s = session{store: store, progress: progress, stays: own == nil}
	stripe := wire.Stripe(c, 1, log)
	if err = reachable(ctx, stripe); err == nil {
		err = s.checkApplication(ctx, o)
	}
	if err == nil {
		_, err = store.Migrate(ctx)
	}
	if err == nil {
		s.Pipeline, err = inprocess.Start(ctx, c, store, stripe, log)
	}
	if err != nil {
		return s, errors.Join(err, store.Close())
	}
	return s, nil
}

// checkApplication refuses a database that is not the application's, before this system's own tables
// are made in it. Whether a resumed run writes is not known yet; the enumerator asks again.
func (s session) checkApplication(ctx context.Context, o options) error {
	warnings, err := s.store.CheckApplication(ctx, !o.dryRun && o.resume == "")
	if err != nil {
		return fmt.Errorf("nothing was started: %w", err)
	}
	for _, w := range warnings {
		s.progress.Note("warning: %s", w)
	}
	return nil
}

func (s session) close() error { return errors.Join(s.Close(), s.store.Close()) }

// hold keeps everything up until ctx ends: the queues with what is in them, workers, aggregator,
// the ticks, and the enumerator for whoever invokes it. The password that is printed is of a
// database that ends with this process and listens on this machine only.
func (s session) hold(ctx context.Context, own map[string]string) error {
	return s.Serve(ctx, func(environ map[string]string) {
		maps.Copy(environ, own)
		s.progress.Note("\nEverything stays up until Ctrl-C. In another terminal, for reconcile to reach it:\n")
		for _, name := range slices.Sorted(maps.Keys(environ)) {
			s.progress.Note("export %s='%s'", name, environ[name])
		}
	})
}

// requestRate stays below what the fake Stripe allows; 0 is no limit.
func (p *ownParts) requestRate(o demoOptions) float64 { return 0.8 * o.rate }

// reachable refuses to start with a key that Stripe does not take or a Stripe that does not
// answer. A restricted key that may not read the account is as good as any.
func reachable(ctx context.Context, stripe *stripesource.Client) error {
	_, err := stripe.Account(ctx)
	stripe.TakeUsage() // of no run
	if err == nil || billing.AsFailure(err).Reason == billing.ReasonStripeForbidden {
		return nil
	}
	return fmt.Errorf("nothing was started: %w", err)
}
