package pipeline

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// The parts of the database that the sweep uses.
type (
	sweeps interface {
		BeginSweep(ctx context.Context, l billing.Lease, now time.Time) error
		FinishSweep(ctx context.Context, l billing.Lease, state billing.SweepState) error
	}
	sweptRanges interface {
		RemainingRanges(ctx context.Context, runID string) ([]billing.Range, error)
		SaveSweepPage(ctx context.Context, l billing.Lease, of billing.Range, page billing.Page, remaining []billing.Range) error
	}
	orphanFinder interface {
		ListFromSnapshot(ctx context.Context, l billing.Lease, after string) (unclaimed []billing.Orphan, through string, err error)
		FindOrphans(ctx context.Context, l billing.Lease, unclaimed []billing.Orphan) ([]billing.Orphan, error)
		SaveOrphans(ctx context.Context, l billing.Lease, first []billing.Orphan, total int) error
	}
)

// defaultStreams is how many ranges are read at once. Stripe takes about a tenth of a second for a page, so a few
// streams use up its rate limit.
const defaultStreams = 6

// sweep lists every subscription in Stripe into the run's snapshot, and returns how that ended. It continues where an
// earlier enumerator stopped. After a temporary failure, the next enumerator tries again, until the snapshot would be
// too old. A permanent failure ends the sweep: the workers then read Stripe for each organization.
func (e *Enumerator) sweep(ctx context.Context, run billing.Run, lease billing.Lease) (billing.SweepState, error) {
	if run.SweptFrom == nil {
		err := e.Retry.do(ctx, func() error { return e.Store.BeginSweep(ctx, e.renewed(lease), e.now()) })
		if err != nil {
			return billing.SweepOpen, err
		}
	}
	if run.SweepExpired(e.now()) { // the snapshot would be too old to use
		return e.abandon(ctx, lease, errSweepExpired)
	}
	switch err := e.readRanges(ctx, lease); {
	case err == nil:
		return billing.SweepComplete, e.finishSweep(ctx, lease, billing.SweepComplete)
	case billing.AsFailure(err).Class == billing.Permanent && !errors.Is(err, billing.ErrLeaseLost):
		return e.abandon(ctx, lease, err)
	default:
		return billing.SweepOpen, err
	}
}

var errSweepExpired = errors.New("it did not reach its end before its beginning was too old to decide by, or its beginning lies in the future")

// abandon ends the sweep without a snapshot.
func (e *Enumerator) abandon(ctx context.Context, lease billing.Lease, why error) (billing.SweepState, error) {
	e.Log.ErrorContext(ctx, "the sweep is abandoned, Stripe is read for each organization", telemetry.KeyRunID, lease.RunID, telemetry.KeyError, why.Error())
	return billing.SweepAbandoned, e.finishSweep(ctx, lease, billing.SweepAbandoned)
}

func (e *Enumerator) finishSweep(ctx context.Context, lease billing.Lease, state billing.SweepState) error {
	return e.Retry.do(ctx, func() error { return e.Store.FinishSweep(ctx, e.renewed(lease), state) })
}

// readRanges reads the remaining ranges of Stripe's list, several at once. When a stream is free, it divides a range
// that has much left, so that no stream has to finish alone.
func (e *Enumerator) readRanges(ctx context.Context, lease billing.Lease) error {
	var ranges []billing.Range
	err := e.Retry.do(ctx, func() (err error) {
		ranges, err = e.Store.RemainingRanges(ctx, lease.RunID)
		return err
	})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	s := &sweeper{Enumerator: e, lease: lease, group: group, streams: semaphore.NewWeighted(e.streams())}
	for _, r := range ranges {
		if err = s.streams.Acquire(ctx, 1); err != nil {
			break
		}
		s.read(ctx, r)
	}
	if failed := group.Wait(); failed != nil {
		return failed
	}
	return err
}

// sweeper reads the ranges of one run.
type sweeper struct {
	*Enumerator

	lease   billing.Lease
	group   *errgroup.Group
	streams *semaphore.Weighted
}

// read starts a stream that reads the range to its end. The caller has acquired the place of the stream.
func (s *sweeper) read(ctx context.Context, r billing.Range) {
	s.group.Go(func() error {
		defer s.streams.Release(1)
		for more := true; more; {
			var err error
			if r, more, err = s.readPage(ctx, r); err != nil {
				return err
			}
		}
		return nil
	})
}

// readPage reads and stores the next page of the range. It returns the rest of the range for this stream.
func (s *sweeper) readPage(ctx context.Context, r billing.Range) (rest billing.Range, more bool, err error) {
	page, err := s.page(ctx, r)
	if err != nil {
		return r, false, err
	}
	remaining, divided := s.remaining(r, page)
	err = s.Retry.do(ctx, func() error {
		return s.Store.SaveSweepPage(ctx, s.renewed(s.lease), r, page, remaining)
	})
	if err != nil {
		return r, false, err // this ends the whole group, so the acquired place need not be released
	}
	if divided {
		s.read(ctx, remaining[1])
	}
	if !page.More {
		return r, false, nil
	}
	return remaining[0], true, nil
}

// throttledRounds is how often the reading of a page is repeated while Stripe throttles it. The client needs some
// seconds to find a rate that Stripe accepts, and the sweep has minutes.
const throttledRounds = 20

func (s *sweeper) page(ctx context.Context, r billing.Range) (page billing.Page, err error) {
	return patiently(ctx, s.Retry, func() (billing.Page, error) { return s.Stripe.SweepPage(ctx, r) })
}

// patiently reads a page of a long list. It repeats a throttled read up to throttledRounds times.
func patiently[T any](ctx context.Context, r Retry, read func() (T, error)) (page T, err error) {
	for range throttledRounds {
		page, err = retry(ctx, r, read)
		if err == nil || billing.AsFailure(err).Class != billing.Throttled {
			break
		}
	}
	return page, err
}

// remaining returns the parts of the range after the page: one, or two if the range is divided. For the second part it
// has acquired the place of a stream.
func (s *sweeper) remaining(r billing.Range, page billing.Page) (ranges []billing.Range, divided bool) {
	if !page.More {
		return nil, false
	}
	newer, older, worth := r.Split(page)
	if !worth || !s.streams.TryAcquire(1) {
		return []billing.Range{r.Rest(page)}, false
	}
	return []billing.Range{newer, older}, true
}

func (e *Enumerator) streams() int64 {
	if e.Streams > 0 {
		return int64(e.Streams)
	}
	return defaultStreams
}

// listSnapshot lists the organizations that only a swept subscription names, and stores the orphans: live subscriptions
// that belong to no organization. It looks up the customers of many subscriptions at once, because the query costs the
// same as for one.
func (e *Enumerator) listSnapshot(ctx context.Context, lease billing.Lease) error {
	const many = 2000
	var first, unclaimed []billing.Orphan
	total, after := 0, ""
	for more := true; more; {
		err := e.Retry.do(ctx, func() error {
			next, through, err := e.Store.ListFromSnapshot(ctx, e.renewed(lease), after)
			if err != nil {
				return err
			}
			unclaimed = append(unclaimed, next...)
			after, more = through, through != ""
			return nil
		})
		if err != nil {
			return err
		}
		if more && len(unclaimed) < many {
			continue
		}
		orphans, err := retry(ctx, e.Retry, func() ([]billing.Orphan, error) {
			return e.Store.FindOrphans(ctx, e.renewed(lease), unclaimed)
		})
		if err != nil {
			return err
		}
		first = append(first, orphans[:min(len(orphans), billing.MaxDetails-len(first))]...)
		total += len(orphans)
		unclaimed = nil
	}
	return e.Retry.do(ctx, func() error { return e.Store.SaveOrphans(ctx, e.renewed(lease), first, total) })
}
