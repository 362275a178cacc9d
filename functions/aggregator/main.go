// Aggregator is the Lambda function that handles progress messages: it closes runs, writes their summaries, announces
// repairs and archives reports. At a tick it closes the runs past their deadline.
package main

import (
	"context"
	"os"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/archive"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/startup"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/wiring"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

func main() { startup.Main(run) }

func run(ctx context.Context) error {
	f, err := startup.Start(ctx, config.AggregatorConnections, config.NeedDatabase)
	if err != nil {
		return err
	}
	bus, err := f.EventBus(ctx)
	if err != nil {
		return err
	}
	aggregator := wiring.Aggregator(f.Config, f.Store, bus, os.Stdout, f.Log)
	aggregator.Aggregator.Deployed = true
	if aggregator.Aggregator.Archive, err = archive.New(ctx, f.Config, f.Store); err != nil { // runs do not need the archive
		f.Log.ErrorContext(ctx, "reports are not archived until this function is restarted", telemetry.KeyError, err.Error())
	}
	lambda.StartWithOptions(aggregator.Invoke, lambda.WithContext(ctx))
	return nil
}
