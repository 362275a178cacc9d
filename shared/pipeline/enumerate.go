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
	ScheduledFor time.Time // the time of the schedule; zero for a run started by hand
	RequestID    string    // identifies the invocation; a second delivery has the same id
	OrgID        string    // only this organization; "" for all
	DryRun       bool
	Strategy     billing.Strategy
	// AllowDowngrade permits to lower the organization's access even if another run withholds that change.
	AllowDowngrade bool
	By             string    // who started the run
	Since          time.Time // the start of a catch-up; zero means the end of the previous one
	ResumeAll      bool      // continue every run whose enumeration was interrupted
	ResumeRun      string    // continue this run, or reopen it and send the pending messages again
	ContinueRun    string    // continue this run if it is still enumerating
}

// Enumeration says what an enumerator did.
type Enumeration struct {
	RunID    string `json:"runId"`
	Enqueued int    `json:"enqueued"` // messages sent by this invocation
	Done     bool   `json:"done"`     // every message of the run was sent
}

// The parts of the database that the steps of the enumerator use. Those of the sweep are in sweep.go.
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
		ListOrganizations(ctx context.Context, l billing.Lease, free billing.Tier, only, after string, limit int) (n int, through string, err error)
		CountItems(ctx context.Context, runID string) (int, error)
		FinishListing(ctx context.Context, l billing.Lease, total, downgradeLimit int) error
	}
	runSender interface {
		PendingAfter(ctx context.Context, runID, after string, limit int) ([]string, error)
		MarkSent(ctx context.Context, l billing.Lease, through string) error
		MarkRunning(ctx context.Context, l billing.Lease) error
	}
)

// WorkSender sends one message for each organization. Without an error, it has sent all of them.
type WorkSender interface {
	SendWork(ctx context.Context, runID string, orgIDs []string) error
}

// ProgressSender tells the aggregator to look at a run.
type ProgressSender interface {
	SendProgress(ctx context.Context, runID string) error
}

// StripeList is the part of the Stripe client that the enumerator uses: the key's account, the list of all
// subscriptions and the log of events.
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
	AccountID   string               // the required account; "" means any
	Free        billing.Tier         // the lowest tier
	Downgrades  func(listed int) int // returns the downgrade limit
	RunDeadline time.Duration        // how long a run may take
	Settle      time.Duration        // the minimum age of an event in a catch-up: the webhook handles it first
	PageSize    int                  // organizations a page; 0 means 1000
	Streams     int                  // ranges that are swept at once; 0 means 6
	Reserve     time.Duration        // part of the deadline that is kept for the end
	Retry       Retry
	Now         func() time.Time
	Log         *slog.Logger
}

const defaultPage = 1000

// catchUpPrefix starts the id of a scheduled catch-up. The scheduled time follows it.
const catchUpPrefix = "events-"

// Run carries out the request until it is done or the time is over.
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

// start opens a run and enumerates it. If Stripe does not answer, start still opens a scheduled run: the next tick
// continues it and first checks the account.
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

// canCheckLater reports whether the run may be opened although the account could not be checked. A rejected key starts
// no run.
func canCheckLater(accountErr error) bool {
	f := billing.AsFailure(accountErr)
	return f.Retryable() && f.Reason != billing.ReasonStripeUnauthorized
}

func (e *Enumerator) newRun(req Request) (billing.Run, error) {
	now := e.now()
	switch {
	case req.OrgID != "":
		req.Strategy = billing.StrategyRetrieve // a sweep costs more requests than one organization needs
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
		if run.Kind() == billing.KindCatchUp { // a full run may have the same scheduled time
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

// ensureAccount stores the run's Stripe account. It fails if the run has another one.
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

// checkTables checks the application's tables before a run is opened or reopened, and logs missing keys.
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

// resumeAll continues every run whose enumerator stopped early or died.
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
		if ctx.Err() != nil { // the next tick continues the rest
			all.Done = false
			break
		}
		failures = append(failures, err) // the failure of one run does not stop the others
	}
	return all, errors.Join(failures...)
}

// continueRun lists and sends the rest of a run that is enumerating. It does nothing if the run was stopped, closed or
// completely sent meanwhile.
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

// resume continues a run at a person's request, with the settings of the run. It reopens a run that was stopped or lost
// its messages. It refuses a request with other settings.
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
		err = e.Progress.SendProgress(ctx, id) // the aggregator then writes the summary
	}
	return errors.Join(cause, err)
}

// proceed lists and sends the rest of the run, unless another enumerator has the lease.
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

// interrupted releases the lease. Running out of time is no error: the next tick continues the run.
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
	if ctx.Err() != nil || billing.AsFailure(cause).Reason == billing.ReasonOutOfTime { // the rate limiter fails before ctx ends
		e.Log.InfoContext(final, "time is up, the next tick continues", telemetry.KeyRunID, lease.RunID)
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

// markRunning also succeeds if the run is running already: the response to an earlier try was lost.
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

// list lists the organizations of the run, and returns how its sweep ended.
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

// sweepAndList sweeps Stripe and lists the database at the same time, because the sweep mostly waits for Stripe. It
// returns how the sweep ended.
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

// listAll writes an item for each organization after the cursor, if the database connects the organization with Stripe or
// grants it more than the lowest tier: Stripe may know nothing of what it has. If the run is over one organization, it writes only that item.
func (e *Enumerator) listAll(ctx context.Context, only, after string, lease billing.Lease) error {
	for more := true; more; {
		err := e.Retry.do(ctx, func() error {
			n, through, err := e.Store.ListOrganizations(ctx, e.renewed(lease), e.Free, only, after, e.page())
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

// finishListing stores the number of organizations and the downgrade limit that follows from it.
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

// send sends a message for each organization that is pending and comes after the cursor.
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

// renewed returns the lease with the end that the next write sets.
func (e *Enumerator) renewed(lease billing.Lease) billing.Lease {
	lease.End = e.now().Add(billing.LeaseTTL)
	return lease
}

// clock returns the time in UTC, truncated to milliseconds, so that a stored time reads back equal.
func clock(now func() time.Time) time.Time { return now().UTC().Truncate(time.Millisecond) }

func otherSettings(run billing.Run) error {
	return &billing.Failure{Class: billing.Permanent, Reason: billing.ReasonOtherSettings, Message: fmt.Sprintf(
		"run %s was started with other settings (dry run %t, strategy %s, organization %q); ask for those, or start another run", run.ID, run.DryRun, run.Strategy, run.OrgID)}
}

// The parts of the database that several steps use.
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
