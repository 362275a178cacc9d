package pipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// outbox is what the aggregator needs of the database to announce.
type outbox interface {
	DueAnnouncements(ctx context.Context, now time.Time, limit int) ([]billing.Announcement, error)
	RemoveAnnouncements(ctx context.Context, ids []string) error
	PostponeAnnouncement(ctx context.Context, id, reason string, until time.Time) error
	Outbox(ctx context.Context) (waiting int, since *time.Time, err error)
}

// EventBus takes announcements. It returns the ids of those it accepted, and for those it refused why; with an
// error, nothing is known of the others.
type EventBus interface {
	Send(ctx context.Context, all []billing.Announcement) (accepted []string, refused map[string]string, err error)
}

// announcementPage is how many announcements are in hand at a time: what is accepted is removed before more are
// read, so that who dies has that many sent again.
const announcementPage = 10

// Announce sends what waits in the outbox, until it is empty or half of the time is over. It fails nobody: what
// was not accepted stays, and the next progress message or tick tries again.
func (a *Aggregator) Announce(ctx context.Context) {
	ctx, cancel := withReserve(ctx, a.Reserve)
	defer cancel()
	a.announce(ctx)
}

func (a *Aggregator) announce(ctx context.Context) {
	if a.Bus == nil {
		return
	}
	inTime := firstHalf(ctx)
	var sent, failed int
	for more := true; more && inTime(); {
		n, all, err := a.announcePage(ctx)
		sent, failed = sent+n, failed+all-n
		if err != nil {
			a.Log.ErrorContext(ctx, "announcements could not be sent, they stay in the outbox until the next try", telemetry.KeyCount, all-n, telemetry.KeyError, err.Error())
		}
		more = err == nil && n > 0 // where a whole page is refused, the next one is no better
	}
	if sent+failed == 0 {
		return
	}
	a.Log.InfoContext(ctx, "announced", telemetry.KeyCount, sent)
	err := a.Metrics.Emit(nil, telemetry.Count(telemetry.MetricAnnounced, sent), telemetry.Count(telemetry.MetricAnnouncementErrors, failed))
	if err != nil {
		a.Log.ErrorContext(ctx, "how many were announced could not be counted", telemetry.KeyError, err.Error())
	}
}

// announcePage sends the next announcements and returns how many of how many were accepted.
func (a *Aggregator) announcePage(ctx context.Context) (sent, all int, err error) {
	due, err := a.Store.DueAnnouncements(ctx, a.now(), announcementPage)
	if err != nil || len(due) == 0 {
		return 0, 0, err
	}
	accepted, refused, err := a.Bus.Send(ctx, due)
	// What was accepted goes, though the time be over: else it would be sent again for nothing.
	ctx, cancel := detached(ctx)
	defer cancel()
	if removeErr := a.Store.RemoveAnnouncements(ctx, accepted); removeErr != nil {
		return len(accepted), len(due), removeErr
	}
	for _, announcement := range due {
		reason, is := refused[announcement.ID]
		if !is {
			continue
		}
		a.Log.WarnContext(ctx, "an announcement was refused", telemetry.KeyMessageID, announcement.ID, telemetry.KeyError, reason)
		if postponeErr := a.Store.PostponeAnnouncement(ctx, announcement.ID, reason, a.now().Add(announcement.Wait())); postponeErr != nil {
			return len(accepted), len(due), postponeErr
		}
	}
	return len(accepted), len(due), err
}

// announceAll is the tick's: it also tells how many announcements wait, and for how long.
func (a *Aggregator) announceAll(ctx context.Context, _ *Tick) error {
	a.announce(ctx)
	waiting, since, err := a.Store.Outbox(ctx)
	if err != nil || a.Bus == nil && waiting == 0 {
		return err
	}
	if a.Bus == nil {
		a.Log.WarnContext(ctx, "announcements wait, and EVENT_BUS, where they would go, is not set", telemetry.KeyCount, waiting)
	}
	age := 0.0
	if since != nil {
		age = max(0, a.now().Sub(*since).Seconds())
	}
	err = a.Metrics.Emit(nil, telemetry.Count(telemetry.MetricOutboxSize, waiting), telemetry.Metric{Name: telemetry.MetricOutboxAge, Unit: telemetry.UnitSeconds, Value: age})
	if err != nil {
		return fmt.Errorf("tell how many announcements wait: %w", err)
	}
	return nil
}

// firstHalf reports, while the first half of the time until ctx ends is not over, that there is time to begin
// something.
func firstHalf(ctx context.Context) (inTime func() bool) {
	deadline, ok := ctx.Deadline()
	until := deadline.Add(-time.Until(deadline) / 2)
	return func() bool { return ctx.Err() == nil && (!ok || time.Now().Before(until)) }
}
