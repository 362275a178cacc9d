// Package inprocess runs the whole pipeline in this process: the handlers of the three Lambda functions, an SQS
// server and the event sources that feed the handlers. [Pipeline.Serve] adds the scheduler's ticks and Lambda's Invoke
// call for the enumerator. local and tests of the command line use it.
package inprocess

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"golang.org/x/sync/errgroup"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/handler"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/wiring"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/lambdaserver"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/lambdasource"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/sqsserver"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

const (
	functionTimeout = time.Minute
	// visibility is six times the function's timeout, as AWS advises.
	// https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
	visibility = 6 * functionTimeout
	workers    = 4
	// enumeratorName is the name of the function that Serve serves.
	enumeratorName = "reconciliation-enumerator"
)

// TickEvery is the time between two ticks; in AWS it is 15 minutes.
const TickEvery = 5 * time.Second

// Pipeline is the three functions and the queues between them.
type Pipeline struct {
	Enumerator handler.Enumerator
	Aggregator handler.Aggregator

	worker handler.Worker
	server *sqsserver.Server
	client *sqs.Client
	urls   config.Queues
	log    *slog.Logger
}

// Start creates the queues and the handlers. The caller closes the pipeline.
func Start(ctx context.Context, c config.Config, store *mysqlstore.Store, stripe *stripesource.Client, log *slog.Logger) (*Pipeline, error) {
	server, err := sqsserver.Start(sqsserver.Options{})
	if err != nil {
		return nil, fmt.Errorf("start the queues: %w", err)
	}
	client := sqs.NewFromConfig(server.AWSConfig())
	if c.Queues, err = createQueues(ctx, client, c.MaxReceiveCount); err != nil {
		return nil, errors.Join(err, server.Close())
	}
	bus, err := wiring.EventBus(ctx, c, log)
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	aggregator := wiring.Aggregator(c, store, bus, io.Discard, log)
	aggregator.Aggregator.AmendmentDelay = 0 // this process may end before a pause does
	return &Pipeline{
		Enumerator: wiring.Enumerator(c, store, stripe, client, log),
		Aggregator: aggregator,
		worker:     wiring.Worker(c, store, stripe, client, log),
		server:     server, client: client, urls: c.Queues, log: log,
	}, nil
}

// Close deletes the queues with their messages.
func (p *Pipeline) Close() error { return p.server.Close() }

// Pump feeds the worker and the aggregator from their queues until ctx ends, and finishes the batches in flight.
func (p *Pipeline) Pump(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, source := range []*lambdasource.Source{
		{Queue: p.urls.Work, Client: p.client, Handler: p.worker.Handle, MaxConcurrency: workers, Timeout: functionTimeout, Log: p.log},
		{Queue: p.urls.Results, Client: p.client, Handler: p.Aggregator.HandleRecords, Timeout: functionTimeout, Log: p.log},
	} {
		group.Go(func() error { return source.Run(ctx) })
	}
	return group.Wait()
}

// Serve does what AWS does until ctx ends. It calls ready with the environment in which the command line reaches this
// process.
func (p *Pipeline) Serve(ctx context.Context, ready func(environ map[string]string)) (err error) {
	functions, err := lambdaserver.Start(map[string]lambdaserver.Function{
		enumeratorName: func(ctx context.Context, event json.RawMessage) (any, error) { return p.Enumerator.Invoke(ctx, event) },
	}, functionTimeout)
	if err != nil {
		return fmt.Errorf("start the functions: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.Pump(ctx) })
	group.Go(func() error { return p.tick(ctx) })
	ready(p.environ(functions))
	<-ctx.Done()
	return errors.Join(functions.Close(), group.Wait())
}

// tick sends the ticks that the scheduler sends in AWS.
func (p *Pipeline) tick(ctx context.Context) error {
	ticker := time.NewTicker(TickEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		_, closeErr := p.Aggregator.Aggregator.Tick(ctx)
		_, resumeErr := p.Enumerator.Enumerator.Run(ctx, pipeline.Request{ResumeAll: true})
		if err := errors.Join(closeErr, resumeErr); err != nil && ctx.Err() == nil {
			p.log.ErrorContext(ctx, "a tick failed and is retried", telemetry.Err(err))
		}
	}
}

// environ contains made-up credentials, and clears the settings that would override them.
func (p *Pipeline) environ(functions *lambdaserver.Server) map[string]string {
	return map[string]string{
		"AWS_REGION": p.server.AWSConfig().Region, "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local",
		"AWS_SESSION_TOKEN": "", "AWS_PROFILE": "",
		"AWS_ENDPOINT_URL_SQS": p.server.URL(), "AWS_ENDPOINT_URL_LAMBDA": functions.URL(),
		"WORK_QUEUE_URL": p.urls.Work, "RESULTS_QUEUE_URL": p.urls.Results, "DEAD_LETTER_QUEUE_URL": p.urls.DeadLetter,
		"ENUMERATOR_FUNCTION": enumeratorName,
	}
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
	all := map[string]string{"VisibilityTimeout": strconv.Itoa(int(visibility.Seconds()))}
	for key, v := range attributes {
		all[key] = v
	}
	out, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name, Attributes: all})
	if err != nil {
		return "", fmt.Errorf("create queue %s: %w", name, err)
	}
	return aws.ToString(out.QueueUrl), nil
}
