package handler

import (
	"context"
	"log/slog"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// WithRequestID returns a logger that puts the id of Lambda's request on every line of an invocation.
func WithRequestID(log *slog.Logger) *slog.Logger { return slog.New(requestIDs{log.Handler()}) }

type requestIDs struct{ slog.Handler }

func (h requestIDs) Handle(ctx context.Context, line slog.Record) error {
	if invocation, ok := lambdacontext.FromContext(ctx); ok {
		line.AddAttrs(slog.String(telemetry.KeyRequestID, invocation.AwsRequestID))
	}
	return h.Handler.Handle(ctx, line)
}

func (h requestIDs) WithAttrs(attrs []slog.Attr) slog.Handler {
	return requestIDs{h.Handler.WithAttrs(attrs)}
}

func (h requestIDs) WithGroup(name string) slog.Handler { return requestIDs{h.Handler.WithGroup(name)} }

// logError logs the error of an invocation, if there is one: the line that aws-lambda-go prints is not JSON, and no
// filter on the level finds it.
func logError(ctx context.Context, log *slog.Logger, err error) {
	if err != nil {
		log.ErrorContext(ctx, "the invocation failed", telemetry.KeyReason, string(billing.AsFailure(err).Reason), telemetry.KeyError, err.Error())
	}
}
