package pipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// outbox is the part of the database that announcements use.
type outbox interface {
	DueAnnouncements(ctx context.Context, now time.Time, limit int) ([]billing.Announcement, error)
	DeleteAnnouncements(ctx context.Context, ids []string) error
	PostponeAnnouncement(ctx context.Context, id, reason string, until time.Time) error
	EventBus(ctx context.Context) (bus string, from billing.Origin, err error)
	SetEventBus(ctx context.Context, bus string) error
	OutboxBacklog(ctx context.Context) (waiting int, since *time.Time, err error)
}

// EventBus takes announcements.
type EventBus interface {
	// ARN returns the ARN of the bus, without the account if that is unknown.
	ARN() string
	// CheckExists returns an error if there is no such bus.
	CheckExists(ctx context.Context) error
	// Send returns the ids of the accepted announcements, and for each refused one the reason. After an error, the
	// state of the others is unknown.
	Send(ctx context.Context, all []billing.Announcement) (accepted []string, refused map[string]string, err error)
}

// announcementPage is how many announcements are read at a time. Accepted ones are deleted before more are read, so a
// process that dies causes at most that many to be sent again.
const announcementPage = 10

// Announce sends the announcements in the outbox, until it is empty or half of the time is over. It returns no error:
// the next progress message or tick sends what was not accepted.
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
		n, all, foreign, err := a.announcePage(ctx)
		sent, failed = sent+n, failed+all-n
		if err != nil {
			a.Log.ErrorContext(ctx, "announcements could not be sent, they stay in the outbox until the next try", telemetry.KeyCount, all-n, telemetry.KeyError, err.Error())
		}
		more = err == nil && n+foreign > 0 // if the bus refuses a whole page, it probably refuses the next one
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

// CheckBus returns the reason why no announcement can be sent: the bus does not exist, or it is not the bus of the
// database's functions. The consumers on that bus would not receive what is sent to another one.
func (a *Aggregator) CheckBus(ctx context.Context) error {
	_, err := a.origin(ctx)
	return err
}

// origin checks the bus and returns the origin whose announcements may be sent.
func (a *Aggregator) origin(ctx context.Context) (from billing.Origin, err error) {
	if err := a.Bus.CheckExists(ctx); err != nil {
		return from, err
	}
	bus, from, err := a.Store.EventBus(ctx)
	if err == nil && bus != "" && !billing.SameBus(bus, a.Bus.ARN()) {
		err = fmt.Errorf("the functions of this database announce on %s, and EVENT_BUS is %s: they send what waits; leave EVENT_BUS out, or deploy them with that bus", bus, a.Bus.ARN())
	}
	return from, err
}

// fromHere returns the announcements that come from this origin. A copied database may contain those of another one.
// They are postponed, because consumers would take them for news.
func (a *Aggregator) fromHere(ctx context.Context, due []billing.Announcement, from billing.Origin) (ours []billing.Announcement, err error) {
	for _, announcement := range due {
		its, err := announcement.Origin()
		if err != nil || its == from { // the bus refuses what cannot be read
			ours = append(ours, announcement)
			continue
		}
		reason := fmt.Sprintf("it is of stage %q, livemode %t, and this is stage %q, livemode %t: it was copied with the database, delete it", its.Stage, its.LiveMode, from.Stage, from.LiveMode)
		if err := a.postpone(ctx, announcement.ID, reason, billing.MaxAnnouncementBackoff); err != nil {
			return nil, err
		}
	}
	return ours, nil
}

// announcePage sends the next page of announcements. It returns how many were accepted, how many are in the page, and
// how many of them are of another origin.
func (a *Aggregator) announcePage(ctx context.Context) (sent, all, foreign int, err error) {
	waiting, err := a.Store.DueAnnouncements(ctx, a.now(), announcementPage)
	if err != nil || len(waiting) == 0 {
		return 0, 0, 0, err
	}
	from, err := a.origin(ctx)
	if err != nil {
		return 0, len(waiting), 0, err
	}
	due, err := a.fromHere(ctx, waiting, from)
	foreign = len(waiting) - len(due)
	if err != nil || len(due) == 0 {
		return 0, len(waiting), foreign, err
	}
	sent, err = a.send(ctx, due)
	return sent, len(waiting), foreign, err
}

// send sends the announcements and returns how many the bus accepted.
func (a *Aggregator) send(ctx context.Context, due []billing.Announcement) (sent int, err error) {
	accepted, refused, err := a.Bus.Send(ctx, due)
	// Delete the accepted ones even if the time is over. Otherwise they would be sent again.
	ctx, cancel := detached(ctx)
	defer cancel()
	if removeErr := a.Store.DeleteAnnouncements(ctx, accepted); removeErr != nil {
		return len(accepted), removeErr
	}
	for _, announcement := range due {
		reason, is := refused[announcement.ID]
		if !is {
			continue
		}
		if postponeErr := a.postpone(ctx, announcement.ID, reason, announcement.Backoff()); postponeErr != nil {
			return len(accepted), postponeErr
		}
	}
	return len(accepted), err
}

// postpone delays a refused announcement, so that the others come first.
func (a *Aggregator) postpone(ctx context.Context, id, reason string, wait time.Duration) error {
	a.Log.WarnContext(ctx, "an announcement was refused", telemetry.KeyMessageID, id, telemetry.KeyError, reason)
	return a.Store.PostponeAnnouncement(ctx, id, reason, a.now().Add(wait))
}

// announceAll is the step of the tick that announces. If this is the deployed aggregator, it also stores the event bus
// of the database. It reports how many announcements wait, and for how long.
func (a *Aggregator) announceAll(ctx context.Context, _ *Tick) error {
	if a.Deployed {
		bus := ""
		if a.Bus != nil {
			bus = a.Bus.ARN()
		}
		if err := a.Store.SetEventBus(ctx, bus); err != nil {
			return err
		}
	}
	a.announce(ctx)
	waiting, since, err := a.Store.OutboxBacklog(ctx)
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

// firstHalf returns a function that reports whether less than half of the time until the deadline has passed.
func firstHalf(ctx context.Context) (inTime func() bool) {
	deadline, ok := ctx.Deadline()
	until := deadline.Add(-time.Until(deadline) / 2)
	return func() bool { return ctx.Err() == nil && (!ok || time.Now().Before(until)) }
}
