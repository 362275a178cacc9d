package pipeline

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// catchUps is the part of the database that catch-ups use.
type catchUps interface {
	CatchUpCoverage(ctx context.Context, by time.Time) (billing.Coverage, error)
	OpenCatchUp(ctx context.Context, run billing.Run, w billing.Window) (billing.Run, error)
	SaveEvents(ctx context.Context, l billing.Lease, w billing.Window, events []billing.Event, next billing.Window, now time.Time) error
	AddLateEvents(ctx context.Context, l billing.Lease, w billing.Window) (more bool, err error)
	ListFromEvents(ctx context.Context, l billing.Lease, after string) (through string, err error)
	ListByEventCustomers(ctx context.Context, l billing.Lease) (more bool, err error)
	LastFullRunCounts(ctx context.Context, before time.Time) (billing.Baseline, error)
}

// openCatchUp opens a catch-up with the window that follows from the earlier ones. It returns the existing run if
// another catch-up is listing.
func (e *Enumerator) openCatchUp(ctx context.Context, wanted billing.Run, since time.Time) (billing.Run, error) {
	return retry(ctx, e.Retry, func() (billing.Run, error) {
		now := e.now()
		at, err := e.Store.CatchUpCoverage(ctx, now.Add(billing.ClockSkew))
		if err != nil {
			return billing.Run{}, err
		}
		return e.Store.OpenCatchUp(ctx, wanted, billing.NewWindow(now, e.Settle, since, at))
	})
}

// skipCatchUp ends a catch-up that found another one listing. For a scheduled catch-up this is no error: the window
// stays as it is, and the next catch-up continues from there. If the enumerator of the other one is gone, skipCatchUp
// continues that run, because there may be no tick to do so. A catch-up started by hand fails, because the person may
// have wanted other settings, such as a dry run.
func (e *Enumerator) skipCatchUp(ctx context.Context, req Request, other billing.Run) (Enumeration, error) {
	if req.ScheduledFor.IsZero() {
		return Enumeration{}, billing.CatchUpListing(other.ID)
	}
	resumable, err := e.Store.ResumableRuns(ctx, e.now())
	if err != nil {
		return Enumeration{}, err
	}
	if slices.Contains(resumable, other.ID) {
		e.Log.InfoContext(ctx, "this catch-up is skipped, an earlier one was interrupted while it listed; the earlier one is continued", telemetry.KeyRunID, other.ID)
		return e.continueRun(ctx, other.ID)
	}
	e.Log.InfoContext(ctx, "this catch-up is skipped, another one is still listing; the next one continues from there", telemetry.KeyRunID, other.ID)
	return Enumeration{RunID: other.ID, Done: true}, nil
}

// listNamed lists the organizations that events name. It reads the rest of the run's window in Stripe's event log, and
// then looks up the organizations of the events. Nothing is decided from an event: the workers read Stripe afresh.
func (e *Enumerator) listNamed(ctx context.Context, run billing.Run, lease billing.Lease) error {
	w, err := e.readWindow(ctx, run, lease)
	if err != nil {
		return err
	}
	if w.Expired {
		e.Log.WarnContext(ctx, "this catch-up does not reach back to the one before it", telemetry.KeyRunID, run.ID,
			telemetry.KeyReason, billing.ReasonEventsExpired, telemetry.KeyError, expiredMessage(w))
	}
	if !run.DryRun {
		if err := e.whileMore(ctx, func() (bool, error) { return e.Store.AddLateEvents(ctx, e.renewed(lease), w) }); err != nil {
			return err
		}
	}
	after := ""
	err = e.whileMore(ctx, func() (bool, error) {
		through, err := e.Store.ListFromEvents(ctx, e.renewed(lease), after)
		if err == nil {
			after = through
		}
		return through != "", err
	})
	if err != nil {
		return err
	}
	return e.whileMore(ctx, func() (bool, error) { return e.Store.ListByEventCustomers(ctx, e.renewed(lease)) })
}

// readWindow reads the rest of the window. It stores each page together with the next cursor.
func (e *Enumerator) readWindow(ctx context.Context, run billing.Run, lease billing.Lease) (billing.Window, error) {
	w := *run.Window
	for w.State != billing.WindowRead {
		page, err := patiently(ctx, e.Retry, func() (billing.EventPage, error) { return e.Stripe.EventsPage(ctx, w.Query()) })
		if err != nil {
			return w, err
		}
		next := w.Advance(page, run.DryRun)
		err = e.Retry.do(ctx, func() error { return e.Store.SaveEvents(ctx, e.renewed(lease), w, page.Events, next, e.now()) })
		if err != nil {
			return w, err
		}
		w = next
	}
	return w, nil
}

// whileMore calls fn until there is no more. It retries each call.
func (e *Enumerator) whileMore(ctx context.Context, fn func() (more bool, err error)) error {
	for {
		more, err := retry(ctx, e.Retry, fn)
		if err != nil || !more {
			return err
		}
	}
}

// limit returns how many organizations the run may lower, if it listed that many. A catch-up lists only the few that
// events name, so its limit follows from the number of organizations of the last full run, or from its own number
// before the first full run. A run that may lower its only organization has a limit of at least one.
func (e *Enumerator) limit(ctx context.Context, run billing.Run, listed int) (int, error) {
	switch {
	case run.OverridesGuard():
		return max(1, e.Downgrades(listed)), nil
	case run.Kind() != billing.KindCatchUp:
		return e.Downgrades(listed), nil
	}
	seen, err := e.Store.LastFullRunCounts(ctx, run.StartedAt)
	return e.Downgrades(cmp.Or(seen.Organizations, listed)), err
}
