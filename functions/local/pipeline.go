package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/inprocess"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
)

// pollEvery is the polling interval of a run.
const pollEvery = 100 * time.Millisecond

// session is the pipeline, store and output of one reconciliation.
type session struct {
	*inprocess.Pipeline

	store    *mysqlstore.Store
	progress *output.Progress
	reports  *attempt
	stays    bool // the database remains after this process
}

// reconcile runs one reconciliation to its end and returns its summary.
func (s session) reconcile(ctx context.Context, o options) (summary billing.Summary, err error) {
	running, stop := context.WithCancel(ctx)
	defer stop()
	group, running := errgroup.WithContext(running)
	group.Go(func() error { return s.Pump(running) })
	runID, ours, err := s.run(running, o)
	stop()
	err = errors.Join(err, group.Wait()) // the workers finish their organizations
	if err == nil {
		s.Aggregator.Aggregator.Announce(ctx)
		summary, err = s.Aggregator.Aggregator.Summary(ctx, runID)
	}
	return summary, s.brokenOff(ctx, runID, ours, err)
}

// run starts the run and follows it to its end.
func (s session) run(ctx context.Context, o options) (runID string, ours bool, err error) {
	runID, ours, err = s.enumerate(ctx, o)
	if err == nil {
		err = s.follow(ctx, runID)
	}
	s.progress.Done()
	return runID, ours, err
}

// brokenOff stops a run that could not be followed to its end, and says how to resume it.
func (s session) brokenOff(ctx context.Context, runID string, ours bool, err error) error {
	if err == nil || runID == "" || !s.stays {
		return err
	}
	e := &cli.Error{
		Exit: cli.ExitFailed, Code: string(billing.AsFailure(err).Reason), Err: err,
		Hint: "its repairs stay; to continue on the same database:\n    " + billing.Summary{RunID: runID}.Command("local --resume RUN", ""),
	}
	why := e.Error()
	if ctx.Err() != nil {
		e.Code, e.Err = cli.CodeInterrupted, errors.New("interrupted")
		why = "local was ended by Ctrl-C or a signal"
	}
	if !ours {
		return e
	}
	// The run's messages end with this process. A run without pending organizations is closed; another is stopped, so that
	// no other process continues it and no alarm calls it late.
	final, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	stopErr := s.Aggregator.Aggregator.Progress(final, runID)
	if stopErr == nil {
		_, stopErr = s.store.StopRun(final, runID, billing.ReasonInterrupted, why, time.Now().UTC())
	}
	if stopErr != nil {
		e.Hint += "\n  it is still open: " + stopErr.Error()
	}
	return e
}

// stopTime bounds the last write.
const stopTime = 5 * time.Second

// enumerate invokes the enumerator until every organization was sent. The run is ours unless another process
// enumerates it.
func (s session) enumerate(ctx context.Context, o options) (runID string, ours bool, err error) {
	event := map[string]any{"dryRun": o.dryRun, "strategy": o.reading.Strategy, "by": cli.LocalOperator()}
	if !o.reading.Since.At.IsZero() {
		event["since"] = o.reading.Since.At
	}
	if o.org != "" {
		event["orgId"] = o.org
	}
	if o.resume != "" {
		event["resume"] = o.resume
	}
	var result pipeline.Enumeration
	err = cli.ShowProgressWhile(ctx, s.store, s.progress, pollEvery, o.resume, func() (err error) {
		result, err = s.invoke(ctx, event)
		return err
	})
	runID, ours = result.RunID, o.resume == "" || result.Done || result.Enqueued > 0
	again := time.NewTicker(inprocess.TickEvery)
	defer again.Stop()
	for err == nil && !result.Done {
		if ctx.Err() != nil {
			return runID, ours, ctx.Err()
		}
		s.progress.Note("run %s is not enqueued yet, or another process has its lease; trying again", runID)
		select {
		case <-again.C:
			result, err = s.Enumerator.Enumerator.Run(ctx, pipeline.Request{ContinueRun: runID})
			ours = ours || result.Enqueued > 0
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	return runID, ours, err
}

func (s session) invoke(ctx context.Context, event map[string]any) (pipeline.Enumeration, error) {
	raw, err := json.Marshal(event)
	if err != nil {
		return pipeline.Enumeration{}, err
	}
	ctx = lambdacontext.NewContext(ctx, &lambdacontext.LambdaContext{AwsRequestID: uuid.NewString()})
	return s.Enumerator.Handle(ctx, raw)
}

// follow shows the run's progress until it is closed and has a summary. At intervals it runs the aggregator for this
// run, in case a message was lost. It runs no tick, which would close other runs in this database.
func (s session) follow(ctx context.Context, runID string) error {
	ticked := time.Now()
	return cli.Poll(ctx, pollEvery, func() (ended bool, err error) {
		if time.Since(ticked) > inprocess.TickEvery {
			ticked = time.Now()
			if err := s.Aggregator.Aggregator.Progress(ctx, runID); err != nil {
				return false, err
			}
		}
		run, err := cli.ShowProgress(ctx, s.store, s.progress, runID)
		return !run.Status.Open() && run.Summarized, err
	})
}
