package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/archive"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/find"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/inprocess"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/wiring"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// localBackoff replaces the backoff of 30 s, which is too long for a person who waits.
const localBackoff = time.Second

// localReceives ends the retries of a message after some minutes, because a person waits for the end.
const localReceives = 12

// runLocal reconciles once. Its error carries the exit code of the run's status.
func runLocal(ctx context.Context, o options, environ map[string]string, out, errs io.Writer) error {
	status, err := reconcileAndShow(ctx, o, environ, out, errs)
	if err != nil {
		return err
	}
	return cli.Ended(status)
}

// reconcileAndShow reconciles once and writes the summary.
func reconcileAndShow(ctx context.Context, o options, environ map[string]string, out, errs io.Writer) (status billing.RunStatus, err error) {
	if err := o.check(); err != nil {
		return "", err
	}
	progress := output.NewProgress(errs)
	if environ, err = readSettings(ctx, o, environ); err != nil {
		return "", err
	}
	onOwn, err := o.onOwnParts(environ)
	if err != nil {
		return "", err
	}
	if onOwn {
		return onDemonstration(ctx, o, environ, out, errs, progress)
	}
	c, err := config.Load(environ, config.NeedDatabase, config.NeedStripe)
	if err != nil {
		return "", err
	}
	progress.Note("database: %s at %s:%d", c.Database.Name, c.Database.Host, c.Database.Port)
	progress.Note("Stripe: %s mode at %s", c.Stripe.Mode, c.Stripe.APIBase)
	if err := o.confirm(ctx, c, errs); err != nil {
		return "", err
	}
	summary, err := onSession(ctx, o, c, nil, logger(environ, c, errs), out, progress)
	return summary.Status, err
}

// readSettings adds the settings of .env and of the secret, which a demonstration ignores.
func readSettings(ctx context.Context, o options, environ map[string]string) (_ map[string]string, err error) {
	if o.demo.only {
		return environ, nil
	}
	var needs []config.Need // without these settings, it is a demonstration
	if cli.SetInDotEnv("DB_HOST") || cli.SetInDotEnv("STRIPE_SECRET_KEY") {
		needs = []config.Need{config.NeedDatabase, config.NeedStripe}
	}
	if environ, err = cli.WithDotEnv(environ, needs...); err != nil {
		return nil, err
	}
	return wiring.Environment(ctx, environ)
}

// onDemonstration reconciles a demonstration. Settings are checked before anything is started.
func onDemonstration(ctx context.Context, o options, environ map[string]string, out, errs io.Writer, progress *output.Progress) (status billing.RunStatus, err error) {
	if _, err := config.Load(ownSettings(environ, placeholders()), config.NeedDatabase, config.NeedStripe); err != nil {
		return "", err
	}
	own, err := startOwnParts(ctx, o.demo, startDatabase, progress)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, own.close()) }()
	c, err := config.Load(ownSettings(environ, own.environ()), config.NeedDatabase, config.NeedStripe)
	if err != nil {
		return "", err
	}
	summary, err := onSession(ctx, o, c, own, logger(environ, c, errs), out, progress)
	return summary.Status, err
}

// ownSettings are the demonstration's settings and those of the environment that do not name a database, a Stripe
// account, an event bus or a bucket: made-up organizations are neither announced nor archived.
func ownSettings(environ, own map[string]string) map[string]string {
	merged := maps.Clone(own)
	for name, value := range environ {
		if _, ours := merged[name]; !ours && name != "EVENT_BUS" && name != "REPORT_BUCKET" && !strings.HasPrefix(name, "DB_") && !strings.HasPrefix(name, "STRIPE_") {
			merged[name] = value
		}
	}
	return merged
}

// onSession reconciles once and shows the summary; with --hold it then waits until ctx ends.
func onSession(ctx context.Context, o options, c config.Config, own *ownParts, log *slog.Logger, out io.Writer, progress *output.Progress) (summary billing.Summary, err error) {
	s, err := connect(ctx, o, c, own, log, progress)
	if err != nil {
		return summary, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if o.org != "" {
		if o.org, err = find.Organization(ctx, s.store, progress, strings.TrimSpace(o.org)); err != nil {
			return summary, err
		}
	}
	if o.isFull() && own == nil {
		cli.WarnOfOpenRun(ctx, s.store, progress)
	}
	if summary, err = s.reconcile(ctx, o); err != nil {
		if o.org != "" && billing.AsFailure(err).Reason == billing.ReasonUnknownOrganization {
			err = find.Similar(ctx, s.store, o.org, err)
		}
		return summary, err
	}
	s.noteArchive(summary)
	o.view.Tiers = c.Rules.Tiers
	if err := s.show(ctx, o, summary, out); err != nil {
		return summary, err
	}
	switch {
	case own == nil:
		if o.json { // people read it in the summary
			s.noteResume(summary)
		}
		return summary, s.noteAnnouncements(ctx, c)
	case o.demo.hold:
		return summary, s.hold(ctx, own.environ())
	case !o.json:
		progress.Note("%s", own.explained(o, summary))
		progress.Note("%s", wouldAnnounce(summary))
	}
	return summary, nil
}

func (s session) show(ctx context.Context, o options, summary billing.Summary, out io.Writer) error {
	if o.json {
		return output.JSON(out, summary)
	}
	view := o.view
	if run, err := s.store.Run(ctx, summary.RunID); err == nil { // else the summary is shown without the window
		view.Window = run.Window
	}
	view.Queued, view.Stored, view.Names = o.demo.hold, o.demo.hold || s.stays, cli.OrganizationNames(ctx, s.store, summary)
	return output.Summary(out, summary, view)
}

// noteResume says how to continue a run with pending organizations: its queue ends with this process.
func (s session) noteResume(summary billing.Summary) {
	if summary.Pending > 0 {
		s.progress.Note("%s", summary.Command("fix the cause, then continue it:\n  local --resume RUN", ""))
	}
}

// logger writes the functions' log lines if LOG_LEVEL is set. Progress and summary show the same otherwise.
func logger(environ map[string]string, c config.Config, errs io.Writer) *slog.Logger {
	if environ["LOG_LEVEL"] == "" {
		return slog.New(slog.DiscardHandler)
	}
	return telemetry.NewLogger(errs, c.LogLevel)
}

// connect starts a pipeline on the database and the Stripe that c names.
func connect(ctx context.Context, o options, c config.Config, own *ownParts, log *slog.Logger, progress *output.Progress) (s session, err error) {
	database := wiring.DatabaseConfig(c)
	if own != nil && !own.database.Concurrent() {
		database.MaxConns, database.LockWait = 1, 0 // it has one connection and no lock timeout
	}
	c.RetryBackoff, c.MaxReceiveCount = localBackoff, localReceives
	c.EventsSettle = 0 // a run by hand includes the latest events
	if own != nil {
		c.Stripe.RequestsPerSecond = own.requestRate(o.demo)
	}
	store, err := mysqlstore.Open(ctx, database)
	if err != nil {
		return s, err
	}
	s = session{store: store, progress: progress, stays: own == nil, reports: &attempt{}}
	stripe := wiring.Stripe(c, 1, log)
	if err = reachable(ctx, stripe); err == nil {
		err = s.checkApplication(ctx, o)
	}
	if err == nil {
		_, err = store.Migrate(ctx)
	}
	if err == nil {
		s.Pipeline, err = inprocess.Start(ctx, c, store, stripe, log)
	}
	if err == nil {
		s.archiveReports(ctx, c)
	}
	if err != nil {
		return s, errors.Join(err, store.Close())
	}
	return s, nil
}

// archiveReports archives the report if REPORT_BUCKET and AWS settings are set.
func (s session) archiveReports(ctx context.Context, c config.Config) {
	reports, err := archive.New(ctx, c, s.store)
	if err != nil {
		s.progress.Note("warning: the report is not archived: %v", err)
	}
	if reports != nil {
		s.reports.Archive = reports
		s.Aggregator.Aggregator.Archive = s.reports
	}
}

// attempt is an archive that remembers why a report was not archived: the aggregator only logs it.
type attempt struct {
	pipeline.Archive

	failed atomic.Pointer[string]
}

func (a *attempt) Put(ctx context.Context, run billing.Run, summary billing.Summary) error {
	err := a.Archive.Put(ctx, run, summary)
	a.failed.Store(nil)
	if err != nil {
		a.failed.Store(new(err.Error()))
	}
	return err
}

// noteArchive warns of a report that was not archived.
func (s session) noteArchive(summary billing.Summary) {
	if why := s.reports.failed.Load(); why != nil {
		s.progress.Note("warning: the report of run %s is not archived: %s; deployed functions with REPORT_BUCKET try to archive it again; to write it now:\n  %s",
			summary.RunID, *why, summary.Command("reconcile report RUN --html FILE", ""))
	}
}

// checkApplication refuses a database without the application's tables before this system's own tables are created.
// Whether a resumed run writes is not known yet; the enumerator checks that again.
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

// hold keeps the pipeline running until ctx ends: queues with their messages, workers, aggregator, ticks and the
// enumerator.
func (s session) hold(ctx context.Context, own map[string]string) (err error) {
	file := ""
	defer func() {
		if file != "" {
			err = errors.Join(err, os.Remove(file))
		}
	}()
	var writeErr error
	serving, stop := context.WithCancel(ctx)
	defer stop()
	err = s.Serve(serving, func(environ map[string]string) {
		maps.Copy(environ, own)
		if file, writeErr = writeExports(environ); writeErr != nil {
			stop()
			return
		}
		s.progress.Note("\nThe demonstration runs until Ctrl-C. To use reconcile with it, run this in another terminal, and close that terminal afterwards, because it keeps these settings:\n\n  . %s\n", file)
	})
	if ctx.Err() != nil {
		s.progress.Note("the demonstration has ended")
	}
	return errors.Join(err, writeErr)
}

// writeExports writes the environment to a shell script with mode 0600. Its password is of a database that ends with
// this process and listens on this machine only.
func writeExports(environ map[string]string) (name string, err error) {
	file, err := os.CreateTemp("", "reconcile-*.env") // with mode 0600
	if err != nil {
		return "", fmt.Errorf("write the environment: %w", err)
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	for _, variable := range slices.Sorted(maps.Keys(environ)) {
		line := "export " + variable + "='" + strings.ReplaceAll(environ[variable], "'", `'\''`) + "'"
		if environ[variable] == "" && strings.HasPrefix(variable, "AWS_") && !cli.SetInDotEnv(variable) {
			line = "unset " + variable // aws refuses an empty profile; reconcile needs one only to ignore that of .env
		}
		if _, err := fmt.Fprintln(file, line); err != nil {
			return "", fmt.Errorf("write the environment: %w", err)
		}
	}
	return file.Name(), nil
}

// requestRate stays below what the fake Stripe allows; 0 is no limit.
func (p *ownParts) requestRate(o demoOptions) float64 { return 0.8 * o.rate }

// reachable returns an error if Stripe refuses the key or does not answer. A restricted key may lack the permission to
// read the account.
func reachable(ctx context.Context, stripe *stripesource.Client) error {
	_, err := stripe.Account(ctx)
	stripe.TakeUsage() // these requests belong to no run
	if err == nil || billing.AsFailure(err).Reason == billing.ReasonStripeForbidden {
		return nil
	}
	return fmt.Errorf("nothing was started: %w", err)
}
