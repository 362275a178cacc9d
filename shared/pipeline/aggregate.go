package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// The parts of the database that the aggregator uses.
type (
	// itemSummer counts and reads a run's items.
	itemSummer interface {
		Tallies(ctx context.Context, runID string) ([]billing.Tally, error)
		Drift(ctx context.Context, runID string) (billing.Drift, error)
		Notable(ctx context.Context, runID string, limit int) ([]billing.Item, error)
	}
	// sightReader reads what runs saw in Stripe.
	sightReader interface {
		Orphans(ctx context.Context, runID string) (first []billing.Orphan, total int, err error)
		CountGoverned(ctx context.Context, runID string) (int, error)
		LastFullRunCounts(ctx context.Context, before time.Time) (billing.Baseline, error)
	}
	runCloser interface {
		StoredSummary(ctx context.Context, runID string) (summary billing.Summary, found bool, err error)
		HasPending(ctx context.Context, runID string) (bool, error)
		CloseRun(ctx context.Context, end billing.End, from billing.RunStatus) (bool, error)
		AmendRun(ctx context.Context, end billing.End, from billing.RunStatus, revision int) (bool, error)
	}
	// leftovers is what a tick closes and deletes.
	leftovers interface {
		RunsToClose(ctx context.Context, now time.Time) ([]billing.Run, error)
		ClosedRunsWithSnapshot(ctx context.Context) ([]string, error)
		DeleteSnapshot(ctx context.Context, runID string) error
	}
	ageReader interface {
		LastFullRunAt(ctx context.Context, by time.Time) (*time.Time, error)
		LastCatchUpAt(ctx context.Context, by time.Time) (time.Time, error)
		CreatedAt(ctx context.Context) (time.Time, error)
	}
	historyPruner interface {
		LatestRun(ctx context.Context) (run billing.Run, found bool, err error)
		Trim(ctx context.Context, before, catchUps time.Time) error
		Prune(ctx context.Context, before time.Time) (int, error)
		PruneEmptyCatchUps(ctx context.Context, before time.Time) (int, error)
		PruneRepairs(ctx context.Context, before time.Time) error
	}
)

// itemsKept is how long, before the start of the latest run, a run must have started for its plainly skipped items to
// be deleted. Later no one asks why nothing was done, and most messages have left the dead-letter queue by then.
const itemsKept = 14 * 24 * time.Hour

// catchUpsKept is the same for catch-ups, and for the deletion of catch-ups that named no organization. It is shorter
// because there is a catch-up every hour.
const catchUpsKept = 7 * 24 * time.Hour

// Aggregator closes runs and sums them up.
type Aggregator struct {
	Store interface {
		runReader
		itemSummer
		sightReader
		runCloser
		leftovers
		ageReader
		historyPruner
		outbox
		archives
	}
	Bus EventBus // where announcements are sent; nil means nowhere
	// Deployed: this is the deployed aggregator of the database, so its Bus is the database's event bus.
	Deployed bool
	Archive  Archive // stores the reports of runs; nil means that there is none
	// AmendmentDelay is how long the announcement of an amendment waits, so that it includes later amendments.
	AmendmentDelay time.Duration
	Retention      time.Duration // how long closed runs are kept, counted from the start of the latest run
	Reserve        time.Duration // part of the deadline that is kept for the end
	Retry          Retry
	Now            func() time.Time
	Log            *slog.Logger
	Metrics        *telemetry.Metrics
}

// Tick says what a tick did.
type Tick struct {
	Closed []string `json:"closed"` // runs
	Pruned int      `json:"pruned"` // runs
}

// Progress handles news of a run. It closes the run if nothing is pending or the deadline has passed. If the run is
// closed already, it amends the summary. An unknown run is no error: it was pruned.
func (a *Aggregator) Progress(ctx context.Context, runID string) error {
	ctx, cancel := withReserve(ctx, a.Reserve)
	defer cancel()
	return a.Retry.do(ctx, func() error {
		run, err := a.Store.Run(ctx, runID)
		if billing.IsUnknownRun(err) {
			a.Log.WarnContext(ctx, "progress of a run that is not in the database", telemetry.KeyRunID, runID)
			return nil
		}
		if err != nil {
			return err
		}
		if run.Status.Open() && a.now().After(run.DeadlineAt) {
			_, err := a.close(ctx, run)
			return err
		}
		switch run.Status {
		case billing.RunEnumerating:
			return nil
		case billing.RunRunning:
			return a.closeIfDone(ctx, run)
		default:
			return a.amend(ctx, run)
		}
	})
}

// Tick closes the runs for which no more progress messages come, reports the age of the last completed run, and deletes
// old runs. If one step fails, the other steps still run, unless the database is down.
func (a *Aggregator) Tick(ctx context.Context) (Tick, error) {
	ctx, cancel := withReserve(ctx, a.Reserve)
	defer cancel()
	tick := Tick{Closed: []string{}}
	var problems []error
	for _, step := range []func(context.Context, *Tick) error{a.closeOverdue, a.deleteSnapshots, a.reportAge, a.announceAll, a.archiveAll, a.prune} {
		err := step(ctx, &tick)
		problems = append(problems, err)
		if billing.IsDatabaseDown(err) {
			break
		}
	}
	return tick, errors.Join(problems...)
}

func (a *Aggregator) closeOverdue(ctx context.Context, tick *Tick) error {
	runs, err := a.Store.RunsToClose(ctx, a.now())
	problems := []error{err}
	for _, run := range runs {
		closed := false
		if run.Status == billing.RunStopped {
			err = a.amend(ctx, run)
		} else {
			closed, err = a.close(ctx, run)
		}
		problems = append(problems, err)
		if closed {
			tick.Closed = append(tick.Closed, run.ID)
		}
		if billing.IsDatabaseDown(err) {
			break
		}
	}
	return errors.Join(problems...)
}

// prune trims and deletes old runs. It counts their age from the start of the latest run, so that a clock that is far
// ahead does not delete the history.
func (a *Aggregator) prune(ctx context.Context, tick *Tick) error {
	latest, found, err := a.Store.LatestRun(ctx)
	if err != nil || !found {
		return err
	}
	until := a.now()
	if latest.StartedAt.Before(until) {
		until = latest.StartedAt
	}
	pruned, err := a.Store.Prune(ctx, until.Add(-a.Retention))
	empty, emptyErr := a.Store.PruneEmptyCatchUps(ctx, until.Add(-catchUpsKept))
	tick.Pruned = pruned + empty
	return errors.Join(err, emptyErr, a.Store.Trim(ctx, until.Add(-itemsKept), until.Add(-catchUpsKept)),
		a.Store.PruneRepairs(ctx, until.Add(-2*billing.UndoneWithin)))
}

// deleteSnapshots deletes the snapshots of closed runs.
func (a *Aggregator) deleteSnapshots(ctx context.Context, _ *Tick) error {
	ids, err := a.Store.ClosedRunsWithSnapshot(ctx)
	problems := []error{err}
	for _, id := range ids {
		problems = append(problems, a.Store.DeleteSnapshot(ctx, id))
	}
	return errors.Join(problems...)
}

// Summary returns the run's summary, made from its present items.
func (a *Aggregator) Summary(ctx context.Context, runID string) (billing.Summary, error) {
	ctx, cancel := withReserve(ctx, a.Reserve)
	defer cancel()
	run, err := a.Store.Run(ctx, runID)
	if err != nil {
		return billing.Summary{}, err
	}
	summary, _, err := a.summarize(ctx, run)
	return summary, err
}

func (a *Aggregator) closeIfDone(ctx context.Context, run billing.Run) error {
	pending, err := a.Store.HasPending(ctx, run.ID)
	if err != nil || pending {
		return err
	}
	_, err = a.close(ctx, run)
	return err
}

// close closes the run, unless somebody stopped, closed or resumed it since it was read. It reads the run again,
// because the last items may have added to its counts since. Only the aggregator that closed the run reports it.
func (a *Aggregator) close(ctx context.Context, lookedAt billing.Run) (bool, error) {
	run, err := a.Store.Run(ctx, lookedAt.ID)
	if err != nil || run.Status != lookedAt.Status || run.SummaryRevision != lookedAt.SummaryRevision {
		return false, err
	}
	now := a.now()
	run.FinishedAt = &now
	summary, drift, err := a.summarize(ctx, run)
	if err != nil {
		return false, err
	}
	seen, err := a.finalStatus(ctx, run, &summary)
	if err != nil {
		return false, err
	}
	closed, err := a.Store.CloseRun(ctx, a.end(run, summary, seen), run.Status)
	if err != nil || !closed {
		return false, err
	}
	// If these fail, the tick deletes the snapshot and writes the archive later. Nothing repeats a missing report in the
	// log.
	err = errors.Join(a.report(ctx, run, summary, drift), a.Store.DeleteSnapshot(ctx, run.ID))
	a.archiveClosed(ctx, run)
	return true, err
}

// amend updates the summary of a closed run after a redrive. If another aggregator was faster, that one may have
// counted before this news, so amend counts again.
func (a *Aggregator) amend(ctx context.Context, run billing.Run) error {
	for range maxRounds {
		amended, err := a.amendOnce(ctx, run)
		if err != nil || amended {
			return err
		}
		now, err := a.Store.Run(ctx, run.ID)
		if err != nil || now.SummaryRevision == run.SummaryRevision || now.Status.Open() {
			return err
		}
		run = now
	}
	return nil // the aggregators that were faster have counted this news
}

func (a *Aggregator) amendOnce(ctx context.Context, run billing.Run) (bool, error) {
	summary, drift, err := a.summarize(ctx, run)
	if err != nil {
		return false, err
	}
	var seen billing.Baseline
	if run.Status != billing.RunStopped {
		if seen, err = a.finalStatus(ctx, run, &summary); err != nil {
			return false, err
		}
	}
	end := a.end(run, summary, seen)
	if run.Summarized {
		if end, err = a.endAgain(ctx, run, summary, seen); err != nil {
			return false, err
		}
	}
	amended, err := a.Store.AmendRun(ctx, end, run.Status, run.SummaryRevision)
	if err != nil || !amended {
		return false, err
	}
	if !run.Summarized { // a worker stopped the run: this is its first summary
		return true, errors.Join(a.report(ctx, run, summary, drift), a.Store.DeleteSnapshot(ctx, run.ID))
	}
	a.Log.InfoContext(ctx, "Reconciliation amended", telemetry.KeyResult, summary)
	return true, nil
}

// end returns what is stored and announced about a run that ended.
func (a *Aggregator) end(run billing.Run, s billing.Summary, seen billing.Baseline) billing.End {
	end := billing.End{Summary: s, Baseline: seen, Kind: run.Kind(), At: a.now()}
	if billing.AnnouncesEnd(run, s) {
		end.Text = billing.Digest(run, s, a.reportAddress(run))
	}
	return end
}

// endAgain is like end, for a run whose end was announced before.
func (a *Aggregator) endAgain(ctx context.Context, run billing.Run, s billing.Summary, seen billing.Baseline) (billing.End, error) {
	end := a.end(run, s, seen)
	before, found, err := a.Store.StoredSummary(ctx, run.ID)
	if found && !s.IsNewsAfter(before) {
		end.Text = ""
	}
	if a.AmendmentDelay > 0 {
		end.NotBefore = end.At.Add(a.AmendmentDelay)
	}
	return end, err
}

// finalStatus sets the status of the summary, and returns the baseline for the next run.
func (a *Aggregator) finalStatus(ctx context.Context, run billing.Run, s *billing.Summary) (billing.Baseline, error) {
	s.Status, s.StatusReason, s.StatusMessage = s.FinalStatus(), "", ""
	if !run.Listed {
		s.Status = billing.RunIncomplete // organizations may be missing from the list itself
	}
	subscriptions, err := a.Store.CountGoverned(ctx, run.ID)
	seen := billing.Baseline{Organizations: s.TotalOrganizations, Subscriptions: subscriptions}
	if run.Window != nil && s.Status != billing.RunIncomplete {
		s.StatusReason, s.StatusMessage = notCovered(*run.Window)
	}
	if err != nil || run.Kind() != billing.KindFull || s.Status == billing.RunIncomplete {
		return seen, err
	}
	if s.OtherErrors() > s.AcceptedErrors { // the errors explain why not everything could be read
		return seen, nil
	}
	last, err := a.Store.LastFullRunCounts(ctx, run.StartedAt)
	if err != nil {
		return seen, err
	}
	if reason, message := seen.Anomaly(last); reason != "" {
		s.Status, s.StatusReason, s.StatusMessage = billing.RunSuspect, reason, message
	}
	return seen, nil
}

func (a *Aggregator) summarize(ctx context.Context, run billing.Run) (billing.Summary, billing.Drift, error) {
	tallies, err := a.Store.Tallies(ctx, run.ID)
	if err != nil {
		return billing.Summary{}, billing.Drift{}, err
	}
	drift, err := a.Store.Drift(ctx, run.ID)
	if err != nil {
		return billing.Summary{}, billing.Drift{}, err
	}
	notable, err := a.Store.Notable(ctx, run.ID, billing.MaxDetails)
	if err != nil {
		return billing.Summary{}, billing.Drift{}, err
	}
	summary := billing.Summarize(run, tallies, drift, notable)
	summary.Orphans, summary.OrphansTotal, err = a.Store.Orphans(ctx, run.ID)
	return summary, drift, err
}

// Headline is the message of a summary's log line.
func Headline(status billing.RunStatus) string {
	switch status {
	case billing.RunStopped:
		return "Reconciliation stopped"
	case billing.RunIncomplete:
		return "Reconciliation incomplete"
	default:
		return "Reconciliation completed"
	}
}

// report logs how the run ended. Only full runs and catch-ups that write have metrics.
func (a *Aggregator) report(ctx context.Context, run billing.Run, s billing.Summary, drift billing.Drift) error {
	level := slog.LevelInfo
	if s.Status != billing.RunCompleted || s.StatusReason != "" {
		level = slog.LevelError
	}
	a.Log.Log(ctx, level, Headline(s.Status), telemetry.KeyResult, s) //nolint:sloglint // one of three constants
	switch {
	case run.DryRun:
		return nil
	case run.Kind() == billing.KindCatchUp:
		return emitCatchUp(a.Metrics, s, drift)
	case run.Kind() == billing.KindFull:
		return emitRun(a.Metrics, s, drift)
	default:
		return nil
	}
}

// reportAge reports the time since the last full run completed and since the last catch-up. Before the first full run
// it reports the age of the system: a new system is not late, but one that never completes a run is.
func (a *Aggregator) reportAge(ctx context.Context, _ *Tick) error {
	last, err := a.Store.LastFullRunAt(ctx, a.now().Add(billing.ClockSkew))
	if err != nil {
		return err
	}
	if last == nil {
		created, err := a.Store.CreatedAt(ctx)
		if err != nil {
			return err
		}
		last = &created
	}
	caughtUp, err := a.Store.LastCatchUpAt(ctx, a.now().Add(billing.ClockSkew))
	if err != nil {
		return err
	}
	return a.Metrics.Emit(nil, a.age(telemetry.MetricLastRunAge, *last), a.age(telemetry.MetricCatchUpAge, caughtUp))
}

func (a *Aggregator) age(name string, of time.Time) telemetry.Metric {
	return telemetry.Metric{Name: name, Unit: telemetry.UnitSeconds, Value: max(0, a.now().Sub(of).Seconds())}
}

// notCovered says which events of its window a catch-up could not read. It returns "" if it read all.
func notCovered(w billing.Window) (reason billing.Reason, message string) {
	if w.Expired {
		reason, message = billing.ReasonEventsExpired, expiredMessage(w)
	}
	if w.Unreadable == 0 {
		return reason, message
	}
	unreadable := fmt.Sprintf("%d events of Stripe's could not be read in full, so whom they concern may be missing (the enumerator's log names each); start a run over all organizations",
		w.Unreadable)
	if reason == "" {
		return billing.ReasonEventsUnreadable, unreadable
	}
	return reason, message + "; and " + unreadable
}

// expiredMessage says that a catch-up could not start where it had to: Stripe's event log does not go back that far.
func expiredMessage(w billing.Window) string {
	return fmt.Sprintf("Stripe lists events of 30 days only, so what happened before %s is not known to this catch-up; start a run over all organizations",
		w.From.UTC().Format(time.RFC3339))
}

func (a *Aggregator) now() time.Time { return clock(a.Now) }
