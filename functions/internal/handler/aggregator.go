package handler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/aws/aws-lambda-go/events"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// Aggregator handles three events:
//
//	{"Records": [...]}    progress messages of the results queue; the response lists the messages to deliver again
//	{"tick": true}        the aggregator-tick schedule, every 15 minutes; the response says what it closed and pruned
//	{"runId": id}         a request for the run's summary, which is the response
type Aggregator struct {
	Aggregator *pipeline.Aggregator
	Log        *slog.Logger
}

type aggregatorEvent struct {
	Records records `json:"Records"`
	Tick    bool    `json:"tick"`
	RunID   string  `json:"runId"`
}

// records are decoded leniently: AWS may add keys to them.
type records []events.SQSMessage

func (r *records) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, (*[]events.SQSMessage)(r))
}

// Invoke is the Lambda handler.
func (h Aggregator) Invoke(ctx context.Context, raw json.RawMessage) (any, error) {
	response, err := h.Handle(ctx, raw)
	logError(ctx, h.Log, err)
	return response, err
}

// Handle does what the event asks for and returns its response.
func (h Aggregator) Handle(ctx context.Context, raw json.RawMessage) (any, error) {
	var e aggregatorEvent
	if err := decodeStrictly(raw, &e); err != nil {
		return nil, fmt.Errorf("the event is refused: %w", err)
	}
	switch {
	case len(e.Records) > 0 && !e.Tick && e.RunID == "":
		return h.HandleRecords(ctx, events.SQSEvent{Records: e.Records})
	case e.Tick && e.RunID == "" && len(e.Records) == 0:
		return h.Aggregator.Tick(ctx)
	case e.RunID != "" && !e.Tick && len(e.Records) == 0:
		return h.Aggregator.Summary(ctx, e.RunID)
	default:
		return nil, errors.New(`the event is refused: it must have one of "Records", "tick" and "runId"`)
	}
}

// HandleRecords closes each run that the messages name if no organization is pending, and sends the waiting
// announcements. Once the database is unavailable, it asks SQS to deliver the remaining messages again.
func (h Aggregator) HandleRecords(ctx context.Context, event events.SQSEvent) (events.SQSEventResponse, error) {
	response := events.SQSEventResponse{BatchItemFailures: []events.SQSBatchItemFailure{}}
	results := map[string]error{} // by run: one call for each
	var databaseDown error
	progress := func(runID string) error {
		if err, done := results[runID]; done {
			return err
		}
		err := databaseDown
		if err == nil {
			err = h.Aggregator.Progress(ctx, runID)
		}
		if billing.IsDatabaseDown(err) {
			databaseDown = err
		}
		results[runID] = err
		return err
	}
	for _, m := range event.Records {
		runID, err := sqsqueue.DecodeProgress(m.Body)
		if err == nil {
			err = progress(runID)
		}
		if err != nil {
			// A message that cannot be decoded ends in the results queue's dead-letter queue.
			h.Log.ErrorContext(ctx, "the progress message will be delivered again", telemetry.KeyMessageID, m.MessageId, telemetry.KeyRunID, runID, telemetry.KeyError, err.Error())
			response.BatchItemFailures = append(response.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: m.MessageId})
		}
	}
	if databaseDown == nil {
		h.Aggregator.Announce(ctx)
	}
	return response, nil
}
