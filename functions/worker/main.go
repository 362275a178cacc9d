// Worker is the Lambda function that handles batches of the work queue: it compares each organization with Stripe and
// repairs it.
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
	f, err := startup.Start(ctx, config.WorkerConnections, config.NeedDatabase, config.NeedStripe, config.NeedWorkQueue, config.NeedResultsQueue, config.NeedDeadLetterQueue)
	if err != nil {
		return err
	}
	// The workers share the account's rate limit.
	stripe := f.Stripe(f.Config.WorkerConcurrency)
	lambda.StartWithOptions(wiring.Worker(f.Config, f.Store, stripe, f.Queues, f.Log), lambda.WithContext(ctx))
	return nil
}
