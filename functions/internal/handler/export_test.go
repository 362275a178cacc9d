package handler

import (
	"context"

	"github.com/aws/aws-lambda-go/events"
)

// EnumeratorRequest decodes the enumerator's event.
var EnumeratorRequest = enumeratorRequest

// ResponseWithoutResult returns the worker's response for a message that has no result.
func (h Worker) ResponseWithoutResult(ctx context.Context, m events.SQSMessage) events.SQSEventResponse {
	return h.batchResponse(ctx, []*message{{SQSMessage: m}})
}
