package main

import (
	"context"
	"fmt"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

// noteAnnouncements says whether the run's announcements were sent to the bus or wait in the outbox.
func (s session) noteAnnouncements(ctx context.Context, c config.Config) error {
	announces, err := s.store.AnnouncesRepairs(ctx)
	if err != nil || !announces {
		return err
	}
	waiting, _, err := s.store.OutboxBacklog(ctx)
	if err != nil {
		return err
	}
	left := billing.Count(waiting, "announcement")
	switch {
	case waiting == 0 && c.EventBus != "":
		s.progress.Note("announcements: sent to event bus %s", c.EventBus)
	case waiting == 0:
	case c.EventBus == "":
		s.progress.Note("%s in the outbox, which the deployed functions will send", left)
	default:
		if why := s.Aggregator.Aggregator.CheckBus(ctx); why != nil {
			s.progress.Note("warning: %s in the outbox: %s", left, why)
			return nil
		}
		s.progress.Note("warning: %s could not be sent to event bus %s; the next run or the deployed functions try again; LOG_LEVEL=info shows why", left, c.EventBus)
	}
	return nil
}

// wouldAnnounce says what a run with EVENT_BUS would have announced: a demonstration announces nothing.
func wouldAnnounce(run billing.Summary) string {
	repairs := 0
	if !run.DryRun {
		repairs = run.Synchronized
	}
	return fmt.Sprintf("with EVENT_BUS, %s and the end of the run would have been announced on the application's event bus", billing.Count(repairs, "repair"))
}
