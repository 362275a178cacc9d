package handler

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/go-json-experiment/json"
	"golang.org/x/sync/errgroup"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// Worker handles batches of the work queue. Its response lists the messages that SQS must deliver again:
// https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
type Worker struct {
	Reconciler *pipeline.Reconciler
	Work       *sqsqueue.Queue // the queue that delivers the batches
	DeadLetter *sqsqueue.Queue
	Progress   pipeline.ProgressSender
	MaxReceive int           // the work queue's maxReceiveCount
	Backoff    time.Duration // the visibility timeout after the first failed receive; it doubles with each further one
	Log        *slog.Logger
}

// reportTimeout bounds the SQS calls at the end of a batch. The Reconciler's Reserve keeps at least this much of Lambda's
// timeout.
const reportTimeout = 5 * time.Second

const deadLettersAtOnce = 10

// message is one message of a batch and what happens to it.
type message struct {
	events.SQSMessage
	pipeline.Result

	work billing.Work // empty if the body cannot be read
}

// Invoke is the Lambda handler. It takes and returns raw JSON, because json/v2 decodes an event three times as fast as
// Lambda's Go runtime does.
func (h Worker) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	response, err := h.invoke(ctx, payload)
	logError(ctx, h.Log, err)
	return response, err
}

func (h Worker) invoke(ctx context.Context, payload []byte) ([]byte, error) {
	var event events.SQSEvent
	if err := json.Unmarshal(payload, &event); err != nil {
		return nil, fmt.Errorf("the event is not an SQS event: %w", err)
	}
	response, err := h.Handle(ctx, event)
	if err != nil {
		return nil, err
	}
	return json.Marshal(response)
}

// Handle reconciles a batch. Its error is always nil: after an error SQS would deliver the whole batch again, including
// the finished messages.
func (h Worker) Handle(ctx context.Context, event events.SQSEvent) (events.SQSEventResponse, error) {
	batch := h.reconcile(ctx, event.Records)
	// Outcomes must be reported even if reconciling used up the time.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTimeout)
	defer cancel()
	h.sendDeadLetters(ctx, batch)
	h.sendProgress(ctx, batch)
	return h.batchResponse(ctx, batch), nil
}

// reconcile decodes the messages, reconciles their organizations and returns the messages with their results.
// A message that cannot be decoded is a dead letter, and one without a result is delivered again.
func (h Worker) reconcile(ctx context.Context, received []events.SQSMessage) []*message {
	batch := make([]*message, len(received))
	lastReceive := map[billing.Work]bool{} // the work to do; true if a message of it is received for the last time
	for i, r := range received {
		m := &message{SQSMessage: r}
		batch[i] = m
		work, err := sqsqueue.DecodeWork(r.Body)
		if err != nil {
			m.Result = pipeline.Result{Disposition: pipeline.DeadLetter, Failure: &billing.Failure{
				Class: billing.Permanent, Reason: billing.ReasonMalformedMessage, Message: "the message cannot be read", Err: err,
			}}
			continue
		}
		m.work = work
		lastReceive[work] = lastReceive[work] || m.receiveCount() >= h.MaxReceive // SQS may deliver a message twice in a batch
	}
	if len(lastReceive) == 0 {
		return batch
	}
	results := h.Reconciler.Reconcile(ctx, lastReceive)
	for _, m := range batch {
		if result, ok := results[m.work]; ok {
			m.Result = result
		}
	}
	return batch
}

// sendDeadLetters sends the batch's dead letters to the dead-letter queue, several at once: if the run withholds every
// organization of a batch, all of its messages are dead letters. If a send fails, SQS delivers the message again: no
// message is deleted before the dead-letter queue has it.
func (h Worker) sendDeadLetters(ctx context.Context, batch []*message) {
	var group errgroup.Group
	group.SetLimit(deadLettersAtOnce)
	for _, m := range batch {
		if m.Disposition != pipeline.DeadLetter {
			continue
		}
		h.Log.ErrorContext(ctx, "sending the message to the dead-letter queue", m.attributes()...)
		group.Go(func() error {
			if err := h.DeadLetter.SendDeadLetter(ctx, m.Body, m.work, m.Failure); err != nil {
				m.redeliverBecause(err)
			}
			return nil
		})
	}
	_ = group.Wait() // each message has its result
}

// sendProgress sends the aggregator one message for each run that has a finished message. If a send fails, SQS delivers
// all messages of the run again, and progress is sent then. An organization in error is then reconciled again, and its
// message goes to the dead-letter queue again. If it was the last receive, the tick closes the run.
func (h Worker) sendProgress(ctx context.Context, batch []*message) {
	sent := map[string]error{}
	for _, m := range batch {
		if m.Disposition == pipeline.Redeliver || m.work.RunID == "" {
			continue
		}
		err, done := sent[m.work.RunID]
		if !done {
			err = h.Progress.SendProgress(ctx, m.work.RunID)
			sent[m.work.RunID] = err
		}
		if err != nil {
			m.redeliverBecause(err)
		}
	}
}

// batchResponse lists the messages that SQS must deliver again, and sets the visibility timeout of each to its backoff:
// Lambda polls no slower after a partial batch failure.
func (h Worker) batchResponse(ctx context.Context, batch []*message) events.SQSEventResponse {
	response := events.SQSEventResponse{BatchItemFailures: []events.SQSBatchItemFailure{}}
	var changes []sqsqueue.Visibility
	for _, m := range batch {
		if m.Disposition != pipeline.Redeliver {
			continue
		}
		h.Log.WarnContext(ctx, "the message will be delivered again", m.attributes()...)
		response.BatchItemFailures = append(response.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: m.MessageId})
		changes = append(changes, sqsqueue.Visibility{ReceiptHandle: m.ReceiptHandle, Timeout: sqsqueue.Backoff(h.Backoff, m.receiveCount())})
	}
	if err := h.Work.ChangeVisibility(ctx, changes); err != nil {
		// SQS delivers them again after the queue's own visibility timeout.
		h.Log.WarnContext(ctx, "the visibility timeout of messages could not be changed", telemetry.Err(err))
	}
	return response
}

// redeliverBecause lets SQS deliver the message again, whatever its result was, and keeps the error as the reason.
func (m *message) redeliverBecause(err error) {
	m.Result = pipeline.Result{Disposition: pipeline.Redeliver, Failure: billing.AsFailure(err)}
}

func (m *message) attributes() []any {
	attributes := []any{
		telemetry.KeyRunID, m.work.RunID, telemetry.KeyOrgID, m.work.OrgID, telemetry.KeyMessageID, m.MessageId,
		telemetry.KeyReceiveCount, m.receiveCount(),
	}
	if m.Failure == nil {
		return attributes
	}
	return append(attributes, telemetry.KeyReason, string(m.Failure.Reason), telemetry.Err(m.Failure))
}

// receiveCount is 1 for a message received for the first time.
func (m *message) receiveCount() int {
	n, err := strconv.Atoi(m.Attributes["ApproximateReceiveCount"])
	if err != nil || n < 1 {
		return 1
	}
	return n
}
