// Enumerator is the Lambda function that opens a run, lists the organizations and sends one message for each to the
// work queue. The schedule, the resume tick and operators invoke it.
package main

import (
	"context"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/startup"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/wiring"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

func main() { startup.Main(run) }

func run(ctx context.Context) error {
	f, err := startup.Start(ctx, config.EnumeratorConnections, config.NeedDatabase, config.NeedStripe, config.NeedWorkQueue, config.NeedResultsQueue)
	if err != nil {
		return err
	}
	stripe := f.Stripe(1)
	lambda.StartWithOptions(wiring.Enumerator(f.Config, f.Store, stripe, f.Queues, f.Log).Invoke, lambda.WithContext(ctx))
	return nil
}
