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

// progressTime bounds the news to the aggregator: without it, the tick sums the run up.
const progressTime = 10 * time.Second

// halt is what stop answers.
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
		Short: "Stop a run that is going",
		Long: `Stops a run that is enumerating or running. What was repaired stays. Workers finish what
they have in hand, at most 50 organizations each, and take the run's other messages off
the queue without work; those organizations stay pending, and reconcile start --resume
sends them again.

It writes to the database, and has the run summed up at once where RESULTS_QUEUE_URL is
set and AWS can be reached; else that is done within 15 minutes. The alarm of stopped
runs tells the others, and the summary who stopped it and why.`,
		Example: `  reconcile stop 2026-11-22T03:00:00Z --reason "prices are being migrated"
  reconcile start --resume 2026-11-22T03:00:00Z     when it may go on`,
		Args:              cli.OneArg("run"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			if why == "" {
				return cli.Usage("--reason must say why, for whoever is to resume the run")
			}
			return c.halt(ctx, args[0], why)
		},
	}
	cmd.Flags().StringVar(&why, "reason", "", "why, as `TEXT` that the summary and the run's row will show")
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
			return cli.Conflict("reconcile status "+telemetry.Clean(runID)+" shows how it ended", "run %s is %s already; only an open run can be stopped", runID, run.Status)
		}
		if err := tellAggregator(ctx, settings.Queues.Results, runID); err != nil {
			output.NewProgress(c.errs).Note("the run will be summed up within 15 minutes, for the aggregator could not be told: %s", telemetry.OneLine(err.Error()))
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

// tellAggregator has the run summed up; without a queue the tick does it.
func tellAggregator(ctx context.Context, queue, runID string) error {
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
	if err := say(c.out, "run %s is stopped; organizations pending: %d", h.RunID, h.Pending); err != nil {
		return err
	}
	return say(c.errs, "reconcile start --resume %s goes on with it", h.RunID)
}
