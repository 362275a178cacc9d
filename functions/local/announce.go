package main

import (
	"context"
	"fmt"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

// sayAnnounced tells what became of what the run has to announce: sent to the bus that is configured, or left
// for the functions to send.
func (s session) sayAnnounced(ctx context.Context, c config.Config) error {
	announces, err := s.store.AnnouncesRepairs(ctx)
	if err != nil || !announces {
		return err
	}
	waiting, _, err := s.store.OutboxBacklog(ctx)
	var why error
	if c.EventBus != "" && waiting > 0 {
		why = s.Aggregator.Step.CheckBus(ctx)
	}
	switch {
	case err != nil:
		return err
	case why != nil:
		s.progress.Note("announcements: %d wait in the database: %s", waiting, why)
	case c.EventBus == "" && waiting > 0:
		s.progress.Note("announcements: %d wait in the database, for the functions that announce to send them", waiting)
	case waiting > 0:
		s.progress.Note("announcements: %d could not be sent to event bus %s and wait in the database, for the next run or the functions to send them; LOG_LEVEL=info says why", waiting, c.EventBus)
	case c.EventBus != "":
		s.progress.Note("announcements: sent to event bus %s", c.EventBus)
	}
	return nil
}

// wouldAnnounce tells what a demonstration, which announces nothing, would have announced.
func wouldAnnounce(run billing.Summary) string {
	repairs := 0
	if !run.DryRun {
		repairs = run.Synchronized
	}
	return fmt.Sprintf("announcements: with EVENT_BUS, %d repairs and the end of the run would have been announced on the application's event bus", repairs)
}
