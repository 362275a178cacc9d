package wire

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// Function is what every Lambda function starts with.
type Function struct {
	Config config.Config
	Log    *slog.Logger
	Store  *mysqlstore.Store
	Queues *sqs.Client
}

// Start reads the configuration once for the life of the process and connects.
func Start(ctx context.Context, needs ...config.Need) (Function, error) {
	c, err := config.Load(config.Environ(os.Environ()), needs...)
	if err != nil {
		return Function{}, err
	}
	f := Function{Config: c, Log: telemetry.NewLogger(os.Stdout, c.LogLevel)}
	aws, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return Function{}, fmt.Errorf("AWS settings: %w", err)
	}
	f.Queues = sqs.NewFromConfig(aws)
	f.Store, err = mysqlstore.Open(ctx, Database(c))
	return f, err
}

// Exit ends a function that could not start, with its reason in the log.
func Exit(err error) {
	telemetry.NewLogger(os.Stdout, slog.LevelError).Error("the function cannot start", telemetry.Err(err))
	os.Exit(1)
}
