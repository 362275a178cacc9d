package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/handler"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/present"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/wire"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/lambdasource"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/sqsserver"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
)

const (
	functionTimeout = time.Minute
	// visibility is six times the function's timeout, as AWS advises.
	// https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
	visibility = 6 * functionTimeout
	workers    = 4
	pollEvery  = 100 * time.Millisecond
	tickEvery  = 5 * time.Second
)

// session is what one reconciliation works with.
type session struct {
	config   config.Config
	store    *mysqlstore.Store
	stripe   *stripesource.Client
	log      *slog.Logger
	progress *present.Progress
	stays    bool // the database outlives this process
}

// pipelineInProcess is a session and the handlers it invokes itself; queues feed the others.
type pipelineInProcess struct {
	session

	enumerator handler.Enumerator
	aggregator handler.Aggregator
}

// reconcile runs one reconciliation to its end and returns its summary.
func (s session) reconcile(ctx context.Context, o options) (summary billing.Summary, err error) {
	server, err := sqsserver.Start(sqsserver.Options{})
	if err != nil {
		return summary, fmt.Errorf("start the queues: %w", err)
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	queues := sqs.NewFromConfig(server.AWSConfig())
	if s.config.Queues, err = createQueues(ctx, queues, s.config.MaxReceiveCount); err != nil {
		return summary, err
	}
	c := s.config
	p := pipelineInProcess{
		session:    s,
		enumerator: wire.Enumerator(c, s.store, s.stripe, queues, s.log),
		aggregator: wire.Aggregator(c, s.store, io.Discard, s.log),
	}
	worker := wire.Worker(c, s.store, s.stripe, queues, s.log)
	sources := []*lambdasource.Source{
		{Queue: c.Queues.Work, Client: queues, Handler: worker.Handle, MaxConcurrency: workers, Timeout: functionTimeout, Log: s.log},
		{Queue: c.Queues.Results, Client: queues, Handler: p.aggregator.HandleRecords, Timeout: functionTimeout, Log: s.log},
	}
	running, cancel := context.WithCancel(ctx)
	group, running := errgroup.WithContext(running)
	for _, source := range sources {
		group.Go(func() error { return source.Run(running) })
	}
	runID, ours, err := p.run(running, o)
	cancel()
	err = errors.Join(err, group.Wait()) // what the workers had begun is decided now
	if err == nil {
		summary, err = p.aggregator.Step.Summary(ctx, runID)
	}
	return summary, p.brokenOff(ctx, runID, ours, err)
}

func createQueues(ctx context.Context, client *sqs.Client, maxReceive int) (urls config.Queues, err error) {
	if urls.DeadLetter, err = createQueue(ctx, client, "dead-letter", nil); err != nil {
		return urls, err
	}
	attributes, err := client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &urls.DeadLetter, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn}})
	if err != nil {
		return urls, err
	}
	redrive, err := json.Marshal(map[string]any{"deadLetterTargetArn": attributes.Attributes["QueueArn"], "maxReceiveCount": maxReceive})
	if err != nil {
		return urls, err
	}
	if urls.Work, err = createQueue(ctx, client, "work", map[string]string{"RedrivePolicy": string(redrive)}); err != nil {
		return urls, err
	}
	urls.Results, err = createQueue(ctx, client, "results", nil)
	return urls, err
}

func createQueue(ctx context.Context, client *sqs.Client, name string, attributes map[string]string) (string, error) {
	all := map[string]string{"VisibilityTimeout": fmt.Sprintf("%d", int(visibility.Seconds()))}
	for key, v := range attributes {
		all[key] = v
	}
	out, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name, Attributes: all})
	if err != nil {
		return "", fmt.Errorf("create queue %s: %w", name, err)
	}
	return aws.ToString(out.QueueUrl), nil
}

// run starts the run and follows it to its end.
func (p pipelineInProcess) run(ctx context.Context, o options) (runID string, ours bool, err error) {
	runID, ours, err = p.enumerate(ctx, o)
	if err == nil {
		err = p.follow(ctx, runID)
	}
	p.progress.Done()
	return runID, ours, err
}

// brokenOff says how to go on with a run that could not be followed to its end.
func (p pipelineInProcess) brokenOff(ctx context.Context, runID string, ours bool, err error) error {
	if err == nil || runID == "" || !p.stays {
		return err
	}
	e := &present.Error{
		Exit: present.ExitFailed, Code: string(billing.AsFailure(err).Reason), Err: err,
		Hint: "run " + runID + " keeps what was decided; on the same database, --resume " + runID + " goes on",
	}
	if ctx.Err() != nil {
		e.Code, e.Err = "interrupted", errors.New("interrupted")
	}
	if !ours {
		return e
	}
	// Its messages end with this process. If the last of them was handled the run is closed; left open, it would be taken up by whoever else works on
	// this database, or count as late.
	final, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	stopErr := p.aggregator.Step.Progress(final, runID)
	if stopErr == nil {
		_, stopErr = p.store.StopRun(final, runID, billing.ReasonInterrupted, e.Error(), time.Now().UTC())
	}
	if stopErr != nil {
		e.Hint += "; it is still open: " + stopErr.Error()
	}
	return e
}

// stopTime bounds the last write.
const stopTime = 5 * time.Second

// enumerate invokes the enumerator as the schedule does, and again, as its tick does, until
// everything was sent. The run is ours unless another process enumerates it.
func (p pipelineInProcess) enumerate(ctx context.Context, o options) (runID string, ours bool, err error) {
	event := map[string]any{"dryRun": o.dryRun, "orgId": o.org, "strategy": o.strategy}
	if o.resume != "" {
		event["resume"] = o.resume
	}
	result, err := p.invoke(ctx, event)
	runID, ours = result.RunID, o.resume == "" || result.Done || result.Enqueued > 0
	again := time.NewTicker(tickEvery)
	defer again.Stop()
	for err == nil && !result.Done {
		p.progress.Note("run %s is not sent out yet, or another process holds it; trying again", runID)
		select {
		case <-again.C:
			result, err = p.enumerator.Step.Run(ctx, pipeline.Request{ContinueRun: runID})
			ours = ours || result.Enqueued > 0
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	return runID, ours, err
}

func (p pipelineInProcess) invoke(ctx context.Context, event map[string]any) (pipeline.Enumeration, error) {
	raw, err := json.Marshal(event)
	if err != nil {
		return pipeline.Enumeration{}, err
	}
	ctx = lambdacontext.NewContext(ctx, &lambdacontext.LambdaContext{AwsRequestID: uuid.NewString()})
	return p.enumerator.Handle(ctx, raw)
}

// follow shows the run's progress until it is closed and summed up. Now and then it has the
// aggregator look, in case a message was lost; it does not tick: what becomes of other runs in
// this database is not its business.
func (p pipelineInProcess) follow(ctx context.Context, runID string) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		began := time.Now()
		ended, err := p.look(ctx, runID)
		if err != nil || ended {
			return err
		}
		// Counting many organizations takes its time; it is not to take most of it.
		pause := max(pollEvery, 10*time.Since(began))
		select {
		case <-time.After(pause):
		case <-tick.C:
			if err := p.aggregator.Step.Progress(ctx, runID); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p pipelineInProcess) look(ctx context.Context, runID string) (ended bool, err error) {
	runs, err := p.store.Runs(ctx, []string{runID})
	if err != nil {
		return false, err
	}
	run := runs[runID]
	tallies, err := p.store.Tallies(ctx, runID)
	if err != nil {
		return false, err
	}
	done := 0
	for _, t := range tallies {
		if t.Outcome != billing.OutcomePending {
			done += t.Items
		}
	}
	p.progress.Show(run.Status, done, run.Total)
	return !run.Status.Open() && run.Summarized, nil
}
