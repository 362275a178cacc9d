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

// Aggregator handles three events: progress messages ({"Records": [...]}, answered with the messages to deliver
// again), the tick ({"tick": true}, answered with what it closed and pruned), and the request for a run's summary
// ({"runId": id}).
type Aggregator struct {
	Step *pipeline.Aggregator
	Log  *slog.Logger
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
	answer, err := h.Handle(ctx, raw)
	logError(ctx, h.Log, err)
	return answer, err
}

// Handle handles the event.
func (h Aggregator) Handle(ctx context.Context, raw json.RawMessage) (any, error) {
	var e aggregatorEvent
	if err := decodeStrictly(raw, &e); err != nil {
		return nil, fmt.Errorf("the event is refused: %w", err)
	}
	switch {
	case len(e.Records) > 0 && !e.Tick && e.RunID == "":
		return h.HandleRecords(ctx, events.SQSEvent{Records: e.Records})
	case e.Tick && e.RunID == "" && len(e.Records) == 0:
		return h.Step.Tick(ctx)
	case e.RunID != "" && !e.Tick && len(e.Records) == 0:
		return h.Step.Summary(ctx, e.RunID)
	default:
		return nil, errors.New(`the event is refused: it must have one of "Records", "tick" and "runId"`)
	}
}

// HandleRecords handles the progress of each run that the messages name, once per run, and sends the waiting
// announcements. Once the database is unavailable, it returns the remaining messages.
func (h Aggregator) HandleRecords(ctx context.Context, event events.SQSEvent) (events.SQSEventResponse, error) {
	response := events.SQSEventResponse{BatchItemFailures: []events.SQSBatchItemFailure{}}
	handled := map[string]error{}
	var unavailable error // the database's
	progress := func(runID string) error {
		if err, done := handled[runID]; done {
			return err
		}
		err := unavailable
		if err == nil {
			err = h.Step.Progress(ctx, runID)
		}
		if billing.IsDatabaseDown(err) {
			unavailable = err
		}
		handled[runID] = err
		return err
	}
	for _, m := range event.Records {
		runID, err := sqsqueue.DecodeProgress(m.Body)
		if err == nil {
			err = progress(runID)
		}
		if err != nil {
			// A message that cannot be decoded ends in the results queue's dead-letter queue.
			h.Log.ErrorContext(ctx, "progress message returned to the queue", telemetry.KeyMessageID, m.MessageId, telemetry.KeyRunID, runID, telemetry.KeyError, err.Error())
			response.BatchItemFailures = append(response.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: m.MessageId})
		}
	}
	if unavailable == nil {
		h.Step.Announce(ctx)
	}
	return response, nil
}
