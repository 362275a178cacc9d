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

// Worker handles batches of the work queue. It answers with the messages that SQS is to deliver
// again: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
type Worker struct {
	Step       *pipeline.Reconciler
	Work       *sqsqueue.Queue // where the batches come from
	DeadLetter *sqsqueue.Queue
	Progress   pipeline.ProgressSender
	MaxReceive int           // the last receive of a message
	Backoff    time.Duration // before its second one
	Log        *slog.Logger
}

// letter is one message of a batch on its way to its answer.
type letter struct {
	message events.SQSMessage
	work    billing.Work
	result  pipeline.Result
}

// Invoke is the Lambda handler: the bytes of an event to those of its answer. Decoding them here
// takes a third of what the runtime's own way does, which counts over many thousand messages.
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

// Handle works through a batch. It never fails as a whole: that would deliver what is done again.
func (h Worker) Handle(ctx context.Context, event events.SQSEvent) (events.SQSEventResponse, error) {
	letters := h.open(event)
	h.reconcile(ctx, letters)
	// What was decided must be told even if the work used up its time.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
	defer cancel()
	h.deadLetter(ctx, letters)
	h.progress(ctx, letters)
	return h.answer(ctx, letters), nil
}

// answerTime bounds the sends at the end of a batch; it is part of the reserve.
const answerTime = 5 * time.Second

// open reads the messages; what cannot be read is a dead letter, whatever the others are.
func (h Worker) open(event events.SQSEvent) []letter {
	letters := make([]letter, len(event.Records))
	for i, m := range event.Records {
		letters[i].message = m
		work, err := sqsqueue.DecodeWork(m.Body)
		if err != nil {
			letters[i].result = pipeline.Result{Disposition: pipeline.DeadLetter, Failure: &billing.Failure{
				Class: billing.Permanent, Reason: billing.ReasonMalformedMessage, Message: "the message cannot be read", Err: err,
			}}
			continue
		}
		letters[i].work = work
	}
	return letters
}

func (h Worker) reconcile(ctx context.Context, letters []letter) {
	var deliveries []pipeline.Delivery
	var of []*letter
	for i := range letters {
		l := &letters[i]
		if l.result.Failure != nil {
			continue
		}
		deliveries = append(deliveries, pipeline.Delivery{Work: l.work, LastReceive: receiveCount(l.message) >= h.MaxReceive})
		of = append(of, l)
	}
	if len(deliveries) == 0 {
		return
	}
	for i, result := range h.Step.Reconcile(ctx, deliveries) {
		of[i].result = result
	}
}

// deadLetter moves what was given up to the dead-letter queue, with the reason. A send that
// fails returns the message instead: nothing is acknowledged before it is safe elsewhere.
func (h Worker) deadLetter(ctx context.Context, letters []letter) {
	for i := range letters {
		l := &letters[i]
		if l.result.Disposition != pipeline.DeadLetter {
			continue
		}
		h.Log.ErrorContext(ctx, "message given up, see the dead-letter queue", h.attributes(l)...)
		err := h.DeadLetter.SendDeadLetter(ctx, sqsqueue.DeadLetter{
			Body: l.message.Body, Reason: l.result.Failure.Reason, Error: l.result.Failure.Error(), Work: l.work,
		})
		if err != nil {
			l.result = pipeline.Result{Disposition: pipeline.Return, Failure: billing.AsFailure(err)}
		}
	}
}

// progress tells the aggregator once for each run that something was decided in. A send that
// fails returns the run's messages: delivered again, they are found decided and reported then.
func (h Worker) progress(ctx context.Context, letters []letter) {
	sent := map[string]error{}
	for i := range letters {
		l := &letters[i]
		if l.result.Disposition == pipeline.Return || l.work.RunID == "" {
			continue
		}
		err, done := sent[l.work.RunID]
		if !done {
			err = h.Progress.SendProgress(ctx, l.work.RunID)
			sent[l.work.RunID] = err
		}
		if err != nil {
			l.result = pipeline.Result{Disposition: pipeline.Return, Failure: billing.AsFailure(err)}
		}
	}
}

// answer returns the messages to deliver again, each hidden for its backoff: Lambda itself does
// not slow down for what a batch reports as failed.
func (h Worker) answer(ctx context.Context, letters []letter) events.SQSEventResponse {
	response := events.SQSEventResponse{BatchItemFailures: []events.SQSBatchItemFailure{}}
	var delays []sqsqueue.Visibility
	for i := range letters {
		l := &letters[i]
		if l.result.Disposition != pipeline.Return {
			continue
		}
		h.Log.WarnContext(ctx, "message returned to the queue", h.attributes(l)...)
		response.BatchItemFailures = append(response.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: l.message.MessageId})
		delays = append(delays, sqsqueue.Visibility{
			ReceiptHandle: l.message.ReceiptHandle, Timeout: sqsqueue.Backoff(h.Backoff, receiveCount(l.message)),
		})
	}
	if err := h.Work.ChangeVisibility(ctx, delays); err != nil {
		// They come back after the queue's own visibility timeout instead.
		h.Log.WarnContext(ctx, "messages could not be delayed", telemetry.Err(err))
	}
	return response
}

func (h Worker) attributes(l *letter) []any {
	return []any{
		telemetry.KeyRunID, l.work.RunID, telemetry.KeyOrgID, l.work.OrgID, telemetry.KeyMessageID, l.message.MessageId,
		telemetry.KeyReceiveCount, receiveCount(l.message), telemetry.KeyReason, string(l.result.Failure.Reason), telemetry.Err(l.result.Failure),
	}
}

// receiveCount is 1 for a message received for the first time.
func receiveCount(m events.SQSMessage) int {
	n, err := strconv.Atoi(m.Attributes["ApproximateReceiveCount"])
	if err != nil || n < 1 {
		return 1
	}
	return n
}
