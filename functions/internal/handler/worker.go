package handler

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/go-json-experiment/json"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// Worker handles batches of the work queue. Its answer lists the messages that SQS must deliver again:
// https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
type Worker struct {
	Step       *pipeline.Reconciler
	Work       *sqsqueue.Queue // the queue that delivers the batches
	DeadLetter *sqsqueue.Queue
	Progress   pipeline.ProgressSender
	MaxReceive int           // how often a message is received before it is sent to the dead-letter queue
	Backoff    time.Duration // after the first receive; it doubles with each further one
	Log        *slog.Logger
}

// answerTime bounds the sends at the end of a batch; it is part of the reserve.
const answerTime = 5 * time.Second

// message is one message of a batch and what happens to it.
type message struct {
	events.SQSMessage
	pipeline.Result

	work billing.Work // empty where the body cannot be read
}

// Invoke is the Lambda handler, from the bytes of an event to those of its answer. Decoding them here takes a third
// of the time of the runtime's own decoder.
func (h Worker) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	answer, err := h.invoke(ctx, payload)
	logError(ctx, h.Log, err)
	return answer, err
}

func (h Worker) invoke(ctx context.Context, payload []byte) ([]byte, error) {
	var event events.SQSEvent
	if err := json.Unmarshal(payload, &event); err != nil {
		return nil, fmt.Errorf("the event is no batch of messages: %w", err)
	}
	response, err := h.Handle(ctx, event)
	if err != nil {
		return nil, err
	}
	return json.Marshal(response)
}

// Handle reconciles a batch. Its error is always nil: with one, SQS would deliver the finished messages again too.
func (h Worker) Handle(ctx context.Context, event events.SQSEvent) (events.SQSEventResponse, error) {
	batch := h.reconcile(ctx, event.Records)
	// Outcomes must be reported even if reconciling used up the time.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
	defer cancel()
	h.sendDeadLetters(ctx, batch)
	h.sendProgress(ctx, batch)
	return h.answer(ctx, batch), nil
}

// reconcile decodes the messages, reconciles their organizations and returns the messages with their results.
// A message that cannot be decoded is a dead letter.
func (h Worker) reconcile(ctx context.Context, received []events.SQSMessage) []*message {
	batch := make([]*message, len(received))
	lastReceive := map[billing.Work]bool{}
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
	results := h.Step.Reconcile(ctx, lastReceive)
	for _, m := range batch {
		if result, ok := results[m.work]; ok {
			m.Result = result
		}
	}
	return batch
}

// sendDeadLetters sends the batch's dead letters to the dead-letter queue. If a send fails, its message is returned to
// the work queue: no message is deleted before the dead-letter queue has it.
func (h Worker) sendDeadLetters(ctx context.Context, batch []*message) {
	for _, m := range batch {
		if m.Disposition != pipeline.DeadLetter {
			continue
		}
		h.Log.ErrorContext(ctx, "the message goes to the dead-letter queue", m.attributes()...)
		if err := h.DeadLetter.SendDeadLetter(ctx, m.Body, m.work, m.Failure); err != nil {
			m.returnBecause(err)
		}
	}
}

// sendProgress sends the aggregator one message for each run in which something was decided. If a send fails, the
// run's messages are returned: the next delivery finds them decided and reports then.
func (h Worker) sendProgress(ctx context.Context, batch []*message) {
	sent := map[string]error{}
	for _, m := range batch {
		if m.Disposition == pipeline.Return || m.work.RunID == "" {
			continue
		}
		err, done := sent[m.work.RunID]
		if !done {
			err = h.Progress.SendProgress(ctx, m.work.RunID)
			sent[m.work.RunID] = err
		}
		if err != nil {
			m.returnBecause(err)
		}
	}
}

// answer returns the messages that SQS is to deliver again and sets the visibility timeout of each to its backoff:
// Lambda does not slow down for what a batch reports as failed.
func (h Worker) answer(ctx context.Context, batch []*message) events.SQSEventResponse {
	response := events.SQSEventResponse{BatchItemFailures: []events.SQSBatchItemFailure{}}
	var delays []sqsqueue.Visibility
	for _, m := range batch {
		if m.Disposition != pipeline.Return {
			continue
		}
		h.Log.WarnContext(ctx, "message returned to the queue", m.attributes()...)
		response.BatchItemFailures = append(response.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: m.MessageId})
		delays = append(delays, sqsqueue.Visibility{ReceiptHandle: m.ReceiptHandle, Timeout: sqsqueue.Backoff(h.Backoff, m.receiveCount())})
	}
	if err := h.Work.ChangeVisibility(ctx, delays); err != nil {
		// SQS delivers them again after the queue's own visibility timeout.
		h.Log.WarnContext(ctx, "messages could not be delayed", telemetry.Err(err))
	}
	return response
}

// returnBecause returns the message to the queue, whatever its result was, and records the error as the reason.
func (m *message) returnBecause(err error) {
	m.Result = pipeline.Result{Disposition: pipeline.Return, Failure: billing.AsFailure(err)}
}

func (m *message) attributes() []any {
	return []any{
		telemetry.KeyRunID, m.work.RunID, telemetry.KeyOrgID, m.work.OrgID, telemetry.KeyMessageID, m.MessageId,
		telemetry.KeyReceiveCount, m.receiveCount(), telemetry.KeyReason, string(m.Failure.Reason), telemetry.Err(m.Failure),
	}
}

// receiveCount is 1 for a message received for the first time.
func (m *message) receiveCount() int {
	n, err := strconv.Atoi(m.Attributes["ApproximateReceiveCount"])
	if err != nil || n < 1 {
		return 1
	}
	return n
}
