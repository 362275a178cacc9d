package pipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// archives is the part of the database that the archive uses.
type archives interface {
	RunsToArchive(ctx context.Context) ([]billing.Run, error)
	AcquireArchiveLease(ctx context.Context, lease billing.Lease, now time.Time) (bool, error)
	ReleaseArchiveLease(ctx context.Context, lease billing.Lease, revision int) error
}

// Archive stores the reports of runs.
type Archive interface {
	// Put writes the reports of the run and replaces existing ones.
	Put(ctx context.Context, run billing.Run, s billing.Summary) error
	// Address returns the address of the report of the run.
	Address(runID string) string
}

// archiveTime limits the time to write one run's reports. It is well below the lease.
const archiveTime = billing.ArchiveLeaseTTL / 2

// reportAddress returns the address of the report of the run, even before it is written; "" if it is not archived.
func (a *Aggregator) reportAddress(run billing.Run) string {
	if a.Archive == nil || run.Kind() != billing.KindFull {
		return ""
	}
	return a.Archive.Address(run.ID)
}

// archiveClosed archives a run that was just closed. It returns no error, because the tick tries again. The tick
// archives amended summaries, because a redrive amends a run many times.
func (a *Aggregator) archiveClosed(ctx context.Context, run billing.Run) {
	if a.Archive == nil || run.Kind() != billing.KindFull {
		return
	}
	a.logUnarchived(ctx, run.ID, a.archive(ctx, run.ID))
}

// archiveAll is the step of the tick that archives. It archives runs until half of the time is over or one fails,
// because the next one would probably fail too. It reports how many runs are left.
func (a *Aggregator) archiveAll(ctx context.Context, _ *Tick) error {
	if a.Archive == nil {
		return nil
	}
	runs, err := a.Store.RunsToArchive(ctx)
	if err != nil {
		return err
	}
	inTime := firstHalf(ctx)
	for _, run := range runs {
		if !inTime() {
			break
		}
		if err := a.archive(ctx, run.ID); err != nil {
			a.logUnarchived(ctx, run.ID, err)
			break
		}
	}
	left, err := a.Store.RunsToArchive(ctx)
	if err != nil {
		return err
	}
	return a.Metrics.Emit(nil, telemetry.Count(telemetry.MetricRunsToArchive, len(left)))
}

func (a *Aggregator) logUnarchived(ctx context.Context, runID string, err error) {
	if err != nil {
		a.Log.ErrorContext(ctx, "the reports were not archived, the next tick tries again", telemetry.KeyRunID, runID, telemetry.KeyError, err.Error())
	}
}

// archive writes the reports of the run from its present items, unless another process has the lease. It stores the
// revision that the run had before the items were read, so a later amendment is archived again.
func (a *Aggregator) archive(ctx context.Context, runID string) error {
	now := a.now()
	lease := billing.Lease{RunID: runID, Owner: uuid.NewString(), End: now.Add(billing.ArchiveLeaseTTL)}
	started, err := a.Store.AcquireArchiveLease(ctx, lease, now)
	if err != nil || !started {
		return err
	}
	// Read the run again: somebody may have resumed it, or archived a later revision.
	run, err := a.Store.Run(ctx, runID)
	written := err == nil && !run.Status.Open()
	if written {
		err = a.putReports(ctx, run)
	}
	revision := 0
	if written && err == nil {
		revision = run.SummaryRevision
	}
	// Release the lease even if the time is over. Otherwise every retry waits until the lease ends.
	ctx, cancel := detached(ctx)
	defer cancel()
	if endErr := a.Store.ReleaseArchiveLease(ctx, lease, revision); endErr != nil && err == nil {
		return endErr
	}
	return err
}

func (a *Aggregator) putReports(ctx context.Context, run billing.Run) error {
	ctx, cancel := context.WithTimeout(ctx, timeFor(ctx, archiveTime))
	defer cancel()
	summary, _, err := a.summarize(ctx, run)
	if err != nil {
		return err
	}
	if err := a.Archive.Put(ctx, run, summary); err != nil {
		return fmt.Errorf("archive the reports of run %s: %w", run.ID, err)
	}
	return nil
}

// timeFor returns the time limit for a step: most, but at most half of the remaining time.
func timeFor(ctx context.Context, most time.Duration) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return min(most, time.Until(deadline)/2)
	}
	return most
}
