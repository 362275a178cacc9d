package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/wiring"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// progressTime bounds the message to the aggregator; without that message, its next tick writes the summary.
const progressTime = 10 * time.Second

// halt is the result of stop.
type halt struct {
	RunID   string            `json:"runId"`
	Status  billing.RunStatus `json:"status"`
	Reason  billing.Reason    `json:"reason"`
	Message string            `json:"message"` // who stopped it, and why
	Pending int               `json:"pending"` // organizations that are listed and have no outcome
}

func (c *command) stop(ctx context.Context) *cobra.Command {
	why := ""
	cmd := &cobra.Command{
		Use:   "stop RUN --reason TEXT",
		Short: "Stop an open run",
		Long: `Stops a run that is enumerating or running. Repairs that were made stay. Each worker finishes
its batch and acknowledges the run's other messages without work. Those organizations stay
pending until reconcile start --resume sends them again.

The stop is written to the database. The summary follows at once if RESULTS_QUEUE_URL is set
and AWS can be reached, otherwise within 15 minutes; it says who stopped the run and why. The
alarm for stopped runs is raised.`,
		Example: `  reconcile stop 2026-11-22T03:00:00Z --reason "prices are being migrated"
  reconcile start --resume 2026-11-22T03:00:00Z     when it may continue`,
		Args:              cli.OneArg("run"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			if why == "" {
				return cli.Usage("give --reason TEXT: the summary shows why the run was stopped")
			}
			return c.halt(ctx, args[0], why)
		},
	}
	cmd.Flags().StringVar(&why, "reason", "", "why, as `TEXT` that the summary shows")
	return cmd
}

func (c *command) halt(ctx context.Context, runID, why string) error {
	return c.withDatabase(ctx, func(store *mysqlstore.Store, settings config.Config) error {
		stopped, err := store.StopRun(ctx, runID, billing.ReasonStoppedByOperator, cli.Operator()+": "+why, time.Now().UTC())
		if err != nil {
			return err
		}
		run, err := findRun(ctx, store, runID)
		if err != nil {
			return err
		}
		if !stopped {
			return cli.Conflict("to see how it ended:\n    "+billing.Summary{RunID: telemetry.Clean(runID)}.Command("reconcile status RUN", ""), "run %s is %s already; only an open run can be stopped", runID, run.Status)
		}
		if err := notifyAggregator(ctx, settings.Queues.Results, runID); err != nil {
			output.NewProgress(c.errs).Note("the summary follows within 15 minutes, because the aggregator could not be notified: %s", telemetry.OneLine(err.Error()))
		}
		tallies, err := store.Tallies(ctx, runID)
		if err != nil {
			return err
		}
		h := halt{RunID: runID, Status: run.Status, Reason: run.StatusReason, Message: run.StatusMessage}
		for _, t := range tallies {
			if t.Outcome == billing.OutcomePending {
				h.Pending += t.Items
			}
		}
		return c.showHalt(h)
	})
}

// notifyAggregator asks for the run's summary; without a queue, the aggregator's tick writes it.
func notifyAggregator(ctx context.Context, queue, runID string) error {
	if queue == "" {
		return nil
	}
	settings, err := awsSettings(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, progressTime)
	defer cancel()
	return sqsqueue.New(wiring.Queues(settings), queue).SendProgress(ctx, runID)
}

func (c *command) showHalt(h halt) error {
	if c.json {
		return json.NewEncoder(c.out).Encode(h)
	}
	if err := say(c.out, "run %s is stopped; %s pending", h.RunID, billing.Count(h.Pending, "organization")); err != nil {
		return err
	}
	return say(c.errs, "to continue it:\n  %s", billing.Summary{RunID: h.RunID}.Command("reconcile start --resume RUN", ""))
}
