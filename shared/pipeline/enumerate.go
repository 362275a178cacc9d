package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// Request says what to enumerate.
type Request struct {
	ScheduledFor time.Time // of a scheduled run; zero for one started by hand
	RequestID    string    // of the invocation: a second delivery has the same
	OrgID        string    // only this organization; "" for all
	DryRun       bool
	Strategy     billing.Strategy
	// AllowDowngrade lets the only organization be lowered whatever another run holds back.
	AllowDowngrade bool
	By             string    // who asks; kept with the run that is opened
	Since          time.Time // where a catch-up is to begin; zero: where the one before it ended
	ResumeAll      bool      // go on with every run that was left enumerating
	ResumeRun      string    // go on with this run, or reopen it and send again what is pending
	ContinueRun    string    // go on with this run if it still is enumerating
}

// Enumeration is what an enumerator did.
type Enumeration struct {
	RunID    string `json:"runId"`
	Enqueued int    `json:"enqueued"` // messages sent by this invocation
	Done     bool   `json:"done"`     // everything of the run was sent
}

// What each step of the enumerator needs of the database. What it needs to sweep stands in sweep.go.
type (
	runOpener interface {
		CheckApplication(ctx context.Context, writes bool) (warnings []string, err error)
		OrganizationExists(ctx context.Context, orgID string) (bool, error)
		OpenRun(ctx context.Context, run billing.Run) (billing.Run, error)
	}
	runResumer interface {
		ResumableRuns(ctx context.Context, now time.Time) ([]string, error)
		Reopen(ctx context.Context, runID, account string, deadline time.Time) (bool, error)
		EnsureAccount(ctx context.Context, runID, account string) (kept string, err error)
	}
	runLeaser interface {
		AcquireLease(ctx context.Context, l billing.Lease, now time.Time) (bool, error)
		ReleaseLease(ctx context.Context, l billing.Lease) error
	}
	runLister interface {
		ListOrganizations(ctx context.Context, l billing.Lease, only, after string, limit int) (n int, through string, err error)
		CountItems(ctx context.Context, runID string) (int, error)
		FinishListing(ctx context.Context, l billing.Lease, total, downgradeLimit int) error
	}
	runSender interface {
		PendingAfter(ctx context.Context, runID, after string, limit int) ([]string, error)
		MarkSent(ctx context.Context, l billing.Lease, through string) error
		MarkRunning(ctx context.Context, l billing.Lease) error
	}
)

// WorkSender sends one message for each organization, all or an error.
type WorkSender interface {
	SendWork(ctx context.Context, runID string, orgIDs []string) error
}

// ProgressSender tells the aggregator to look at a run.
type ProgressSender interface {
	SendProgress(ctx context.Context, runID string) error
}

// StripeList is what the enumerator reads in Stripe: which account the key belongs to, the list of
// all subscriptions, and the log of events.
type StripeList interface {
	Account(ctx context.Context) (string, error)
	SweepPage(ctx context.Context, r billing.Range) (billing.Page, error)
	EventsPage(ctx context.Context, q billing.EventQuery) (billing.EventPage, error)
	TakeUsage() billing.Usage
}

// Enumerator opens runs, lists their organizations and sends one message for each.
type Enumerator struct {
	Store interface {
		runReader
		runStopper
		requestCounter
		runOpener
		runResumer
		runLeaser
		runLister
		runSender
		sweeps
		sweptRanges
		orphanFinder
		catchUps
	}
	Work        WorkSender
	Progress    ProgressSender
	Stripe      StripeList
	AccountID   string               // the account to insist on; "" takes any
	Downgrades  func(listed int) int // the guard's limit
	RunDeadline time.Duration        // until a run must be done
	Settle      time.Duration        // how old an event must be for a catch-up: the webhook gets its chance first
	PageSize    int                  // organizations a page; 0 means 1000
	Streams     int                  // ranges that are swept at once; 0 means 6
	Reserve     time.Duration        // kept of the deadline
	Retry       Retry
	Now         func() time.Time
	Log         *slog.Logger
}

const defaultPage = 1000

// catchUpPrefix begins the id of a scheduled catch-up; its scheduled time ends it.
const catchUpPrefix = "events-"

// Run does what the request says, until it is done or its time is over.
func (e *Enumerator) Run(ctx context.Context, req Request) (Enumeration, error) {
	ctx, cancel := withReserve(ctx, e.Reserve)
	defer cancel()
	switch {
	case req.ResumeAll && (req.DryRun || req.OrgID != "" || req.Strategy != "" || !req.ScheduledFor.IsZero() || !req.Since.IsZero()):
		return Enumeration{}, &billing.Failure{
			Class: billing.Permanent, Reason: billing.ReasonOtherSettings,
			Message: "every run is resumed as it was started: ask for that alone, or name the run",
		}
	case req.ResumeAll:
		return e.resumeAll(ctx)
	case req.ContinueRun != "":
		return e.continueRun(ctx, req.ContinueRun)
	case req.ResumeRun != "":
		return e.resume(ctx, req.ResumeRun, req)
	default:
		return e.start(ctx, req)
	}
}

// start opens a run and enumerates it. Where Stripe does not answer just then, the week's run is
// opened all the same: ticks go on with it, and check the account before anything else.
func (e *Enumerator) start(ctx context.Context, req Request) (Enumeration, error) {
	if err := e.checkTables(ctx, req.DryRun); err != nil {
		return Enumeration{}, err
	}
	account, accountErr := e.checkAccount(ctx)
	if accountErr != nil && (req.ScheduledFor.IsZero() || !canCheckLater(accountErr)) {
		return Enumeration{}, accountErr
	}
	if err := e.checkOrganization(ctx, req.OrgID); err != nil {
		return Enumeration{}, err
	}
	wanted, err := e.newRun(req)
	if err != nil {
		return Enumeration{}, err
	}
	run, err := e.openRun(ctx, wanted, req.Since)
	if err != nil {
		return Enumeration{}, err
	}
	if wanted.Kind() == billing.KindCatchUp && run.Kind() == billing.KindCatchUp && run.ID != wanted.ID && (wanted.RequestID == "" || run.RequestID != wanted.RequestID) {
		return e.skipCatchUp(ctx, req, run)
	}
	if run.DryRun != wanted.DryRun || run.Strategy != wanted.Strategy || run.OrgID != wanted.OrgID || run.AllowDowngrade != wanted.AllowDowngrade {
		return Enumeration{}, otherSettings(run)
	}
	if accountErr != nil {
		return Enumeration{RunID: run.ID}, accountErr
	}
	if err := e.ensureAccount(ctx, run, account); err != nil {
		return Enumeration{RunID: run.ID}, e.stop(ctx, run.ID, err)
	}
	return e.proceed(ctx, run)
}

func (e *Enumerator) openRun(ctx context.Context, wanted billing.Run, since time.Time) (billing.Run, error) {
	if wanted.Kind() == billing.KindCatchUp {
		return e.openCatchUp(ctx, wanted, since)
	}
	return retry(ctx, e.Retry, func() (billing.Run, error) { return e.Store.OpenRun(ctx, wanted) })
}

// canCheckLater: the run may be opened, for the account can be checked later. With a key that is refused nothing is
// started.
func canCheckLater(accountErr error) bool {
	f := billing.AsFailure(accountErr)
	return f.Retryable() && f.Reason != billing.ReasonStripeUnauthorized
}

func (e *Enumerator) newRun(req Request) (billing.Run, error) {
	now := e.now()
	switch {
	case req.OrgID != "":
		req.Strategy = billing.StrategyRetrieve // listing everything for one would be the dearer way
	case req.Strategy == "":
		req.Strategy = billing.StrategySweep
	}
	run := billing.Run{
		AllowDowngrade: req.AllowDowngrade, By: req.By,
		RequestID: req.RequestID, DryRun: req.DryRun, Strategy: req.Strategy, OrgID: req.OrgID,
		StartedAt: now, DeadlineAt: now.Add(e.RunDeadline),
	}
	if !req.ScheduledFor.IsZero() {
		run.ID, run.RequestID = req.ScheduledFor.UTC().Format(time.RFC3339), ""
		if run.Kind() == billing.KindCatchUp { // a full run may be due at the same minute
			run.ID = catchUpPrefix + run.ID
		}
		return run, nil
	}
	id, err := uuid.NewV7()
	run.ID = id.String()
	return run, err
}

func (e *Enumerator) checkAccount(ctx context.Context) (string, error) {
	return retry(ctx, e.Retry, func() (string, error) { return CheckAccount(ctx, e.Stripe, e.AccountID, ", nothing was started") })
}

// ensureAccount has the run say from which account it is read, so that nobody goes on with it in another.
func (e *Enumerator) ensureAccount(ctx context.Context, run billing.Run, account string) error {
	if account == "" || account == run.AccountID {
		return nil
	}
	kept, err := retry(ctx, e.Retry, func() (string, error) { return e.Store.EnsureAccount(ctx, run.ID, account) })
	if err == nil && kept != account {
		run.AccountID = kept
		err = otherAccount(run, account)
	}
	return err
}

// checkTables checks the application's tables before a run is opened, or opened again, and says once what
// is missed.
func (e *Enumerator) checkTables(ctx context.Context, dryRun bool) error {
	warnings, err := e.checkApplication(ctx, dryRun)
	if err != nil {
		return fmt.Errorf("nothing was started: %w", err)
	}
	for _, w := range warnings {
		e.Log.WarnContext(ctx, "the application's tables lack a key", telemetry.KeyReason, w)
	}
	return nil
}

func (e *Enumerator) checkApplication(ctx context.Context, dryRun bool) (warnings []string, err error) {
	return retry(ctx, e.Retry, func() ([]string, error) { return e.Store.CheckApplication(ctx, !dryRun) })
}

func (e *Enumerator) checkOrganization(ctx context.Context, orgID string) error {
	if orgID == "" {
		return nil
	}
	exists, err := e.Store.OrganizationExists(ctx, orgID)
	if err == nil && !exists {
		err = &billing.Failure{
			Class: billing.Permanent, Reason: billing.ReasonUnknownOrganization,
			Message: "there is no organization " + orgID + ", or it is deleted; check the id",
		}
	}
	return err
}

// resumeAll goes on with every run whose enumerator stopped early or died.
func (e *Enumerator) resumeAll(ctx context.Context) (Enumeration, error) {
	ids, err := e.Store.ResumableRuns(ctx, e.now())
	if err != nil {
		return Enumeration{}, err
	}
	all := Enumeration{Done: true}
	var failures []error
	for _, id := range ids {
		one, err := e.continueRun(ctx, id)
		all.RunID, all.Enqueued, all.Done = id, all.Enqueued+one.Enqueued, all.Done && one.Done
		if ctx.Err() != nil { // the rest is for the next tick
			all.Done = false
			break
		}
		failures = append(failures, err) // one run's trouble does not keep the others waiting
	}
	return all, errors.Join(failures...)
}

// continueRun lists and sends what is left of a run that is enumerating. One that was stopped, closed or
// sent out meanwhile is left alone.
func (e *Enumerator) continueRun(ctx context.Context, id string) (Enumeration, error) {
	run, err := e.Store.Run(ctx, id)
	if err != nil {
		return Enumeration{RunID: id}, err
	}
	account, err := e.checkAccount(ctx)
	if err == nil {
		err = e.ensureAccount(ctx, run, account)
	}
	if err == nil {
		_, err = e.checkApplication(ctx, run.DryRun)
	}
	if err != nil {
		return Enumeration{RunID: id}, e.stop(ctx, id, err)
	}
	return e.proceed(ctx, run)
}

func (e *Enumerator) proceedReopened(ctx context.Context, id string) (Enumeration, error) {
	run, err := e.Store.Run(ctx, id)
	if err != nil {
		return Enumeration{RunID: id}, err
	}
	return e.proceed(ctx, run)
}

// resume goes on with a run as it was started, at somebody's request: one that was stopped or lost
// its messages is reopened. A request that says otherwise than the run is refused.
func (e *Enumerator) resume(ctx context.Context, id string, req Request) (Enumeration, error) {
	run, err := e.Store.Run(ctx, id)
	if err != nil {
		return Enumeration{}, err
	}
	if (req.DryRun && !run.DryRun) || (req.OrgID != "" && req.OrgID != run.OrgID) || (req.Strategy != "" && req.Strategy != run.Strategy) ||
		(req.AllowDowngrade && !run.AllowDowngrade) {
		return Enumeration{}, otherSettings(run)
	}
	if run.Status == billing.RunEnumerating {
		return e.continueRun(ctx, id)
	}
	if err := e.checkTables(ctx, run.DryRun); err != nil {
		return Enumeration{RunID: id}, err
	}
	account, err := e.checkAccount(ctx)
	if err != nil {
		return Enumeration{RunID: id}, err
	}
	if reopened, err := e.Store.Reopen(ctx, id, account, e.now().Add(e.RunDeadline)); err != nil || !reopened {
		return Enumeration{RunID: id, Done: true}, err
	}
	return e.proceedReopened(ctx, id)
}

func (e *Enumerator) stop(ctx context.Context, id string, cause error) error {
	f := billing.AsFailure(cause)
	if f.Class != billing.RunFatal {
		return cause
	}
	stopped, err := e.Store.StopRun(ctx, id, f.Reason, f.Message, e.now())
	if err == nil && stopped {
		err = e.Progress.SendProgress(ctx, id) // to have it summed up
	}
	return errors.Join(cause, err)
}

// proceed lists and sends what is left of the run, if nobody else is at it.
func (e *Enumerator) proceed(ctx context.Context, run billing.Run) (Enumeration, error) {
	result := Enumeration{RunID: run.ID, Done: run.Status != billing.RunEnumerating}
	if result.Done {
		return result, nil
	}
	lease := billing.Lease{RunID: run.ID, Owner: uuid.NewString()}
	held, err := e.Store.AcquireLease(ctx, e.renewed(lease), e.now())
	if err != nil || !held {
		return result, err
	}
	// The cursors may have moved between reading the run and taking the lease.
	if run, err = e.Store.Run(ctx, run.ID); err == nil {
		result.Enqueued, err = e.listAndSend(ctx, run, lease)
	}
	countRequests(ctx, e.Store, e.Stripe.TakeUsage(), run.ID, e.Log)
	if err == nil {
		result.Done = true
		return result, e.Progress.SendProgress(ctx, run.ID)
	}
	return result, e.interrupted(ctx, lease, err)
}

// interrupted releases the lease. Running out of time is no error: the next tick goes on.
func (e *Enumerator) interrupted(ctx context.Context, lease billing.Lease, cause error) error {
	if errors.Is(cause, billing.ErrLeaseLost) {
		e.Log.WarnContext(ctx, "another enumerator took over", telemetry.KeyRunID, lease.RunID)
		return nil
	}
	final, cancel := detached(ctx)
	defer cancel()
	if err := e.Store.ReleaseLease(final, lease); err != nil {
		return errors.Join(cause, err)
	}
	if ctx.Err() != nil || billing.AsFailure(cause).Reason == billing.ReasonOutOfTime { // a limiter knows it before
		e.Log.InfoContext(final, "time is up, the next tick goes on", telemetry.KeyRunID, lease.RunID)
		return nil
	}
	return e.stop(final, lease.RunID, cause)
}

func (e *Enumerator) listAndSend(ctx context.Context, run billing.Run, lease billing.Lease) (sent int, err error) {
	if run.Sweep, err = e.list(ctx, run, lease); err != nil {
		return 0, err
	}
	if run.Sweep == billing.SweepComplete && !run.OrphansRecorded {
		if err := e.listSnapshot(ctx, lease); err != nil {
			return 0, err
		}
	}
	if !run.Listed {
		if err := e.finishListing(ctx, run, lease); err != nil {
			return 0, err
		}
	}
	sent, err = e.send(ctx, run.SentThrough, lease)
	if err != nil {
		return sent, err
	}
	return sent, e.markRunning(ctx, lease)
}

// markRunning also succeeds where the run is running already: the answer to an earlier try was
// lost.
func (e *Enumerator) markRunning(ctx context.Context, lease billing.Lease) error {
	err := e.Retry.do(ctx, func() error { return e.Store.MarkRunning(ctx, lease) })
	if !errors.Is(err, billing.ErrLeaseLost) {
		return err
	}
	run, readErr := e.Store.Run(ctx, lease.RunID)
	if readErr != nil || run.Status == billing.RunRunning {
		return readErr
	}
	return err
}

// list lists whom the run is over, and returns how its sweep ended.
func (e *Enumerator) list(ctx context.Context, run billing.Run, lease billing.Lease) (billing.SweepState, error) {
	switch {
	case run.Kind() != billing.KindCatchUp:
		return e.sweepAndList(ctx, run, lease)
	case run.Listed:
		return run.Sweep, nil
	default:
		return run.Sweep, e.listNamed(ctx, run, lease)
	}
}

// sweepAndList does both at once, for Stripe's pace leaves the database idle, and returns how the
// sweep ended.
func (e *Enumerator) sweepAndList(ctx context.Context, run billing.Run, lease billing.Lease) (state billing.SweepState, err error) {
	state = run.Sweep
	group, ctx := errgroup.WithContext(ctx)
	if run.Strategy == billing.StrategySweep && state == billing.SweepOpen {
		group.Go(func() (err error) {
			state, err = e.sweep(ctx, run, lease)
			return err
		})
	}
	if !run.Listed {
		group.Go(func() error { return e.listAll(ctx, run.OrgID, run.ListedThrough, lease) })
	}
	err = group.Wait()
	return state, err
}

// listAll writes an item for each organization behind one that the database connects with Stripe, or for
// the only one that the run is over.
func (e *Enumerator) listAll(ctx context.Context, only, after string, lease billing.Lease) error {
	for more := true; more; {
		err := e.Retry.do(ctx, func() error {
			n, through, err := e.Store.ListOrganizations(ctx, e.renewed(lease), only, after, e.page())
			if err == nil {
				after, more = through, n == e.page()
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// finishListing fixes what follows from the number of organizations.
func (e *Enumerator) finishListing(ctx context.Context, run billing.Run, lease billing.Lease) error {
	return e.Retry.do(ctx, func() error {
		total, err := e.Store.CountItems(ctx, lease.RunID)
		if err != nil {
			return err
		}
		limit, err := e.limit(ctx, run, total)
		if err != nil {
			return err
		}
		return e.Store.FinishListing(ctx, e.renewed(lease), total, limit)
	})
}

// send sends a message for each organization that is pending behind one.
func (e *Enumerator) send(ctx context.Context, after string, lease billing.Lease) (sent int, err error) {
	for {
		var ids []string
		err := e.Retry.do(ctx, func() (err error) {
			ids, err = e.Store.PendingAfter(ctx, lease.RunID, after, e.page())
			return err
		})
		if err != nil || len(ids) == 0 {
			return sent, err
		}
		if err := e.Work.SendWork(ctx, lease.RunID, ids); err != nil {
			return sent, err
		}
		after = ids[len(ids)-1]
		sent += len(ids)
		err = e.Retry.do(ctx, func() error {
			return e.Store.MarkSent(ctx, e.renewed(lease), after)
		})
		if err != nil {
			return sent, err
		}
	}
}

func (e *Enumerator) page() int {
	if e.PageSize > 0 {
		return e.PageSize
	}
	return defaultPage
}

func (e *Enumerator) now() time.Time { return clock(e.Now) }

// renewed is the lease with the end that the next write gives it.
func (e *Enumerator) renewed(lease billing.Lease) billing.Lease {
	lease.End = e.now().Add(billing.LeaseTTL)
	return lease
}

// clock tells the time in UTC to the millisecond: what is stored reads back equal.
func clock(now func() time.Time) time.Time { return now().UTC().Truncate(time.Millisecond) }

func otherSettings(run billing.Run) error {
	return &billing.Failure{Class: billing.Permanent, Reason: billing.ReasonOtherSettings, Message: fmt.Sprintf(
		"run %s was started with other settings (dry run %t, strategy %s, organization %q); ask for those, or start another run", run.ID, run.DryRun, run.Strategy, run.OrgID)}
}

// What several steps need of the database.
type (
	runReader interface {
		Run(ctx context.Context, id string) (billing.Run, error)
	}
	runStopper interface {
		StopRun(ctx context.Context, runID string, reason billing.Reason, message string, now time.Time) (bool, error)
	}
	requestCounter interface {
		AddUsage(ctx context.Context, runID string, u billing.Usage) error
	}
)
