// Package wiring builds the clients, the steps and the handlers from the configuration, the same way for the Lambda
// functions and for the command lines, and fetches the secret that may hold the configuration.
package wiring

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/handler"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/eventbus"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// reserve is the part of its deadline that each handler keeps for its last writes and its response.
const reserve = 15 * time.Second

// lockWait is short compared with a worker's timeout: an organization that is locked for longer is tried again later.
const lockWait = 5 * time.Second

// DatabaseConfig returns how to reach the database.
func DatabaseConfig(c config.Config) mysqlstore.Config {
	db := c.Database
	return mysqlstore.Config{
		Host: db.Host, Port: db.Port, User: db.User, Password: db.Password.Reveal(), Name: db.Name,
		TLS: db.TLS.Enabled, CAFile: db.TLS.CAFile, RDS: db.TLS.RDS, LockWait: lockWait, Tiers: c.Rules.Tiers,
		Announce: c.EventBus != "", Origin: billing.Origin{Stage: c.Stage, LiveMode: c.Stripe.Mode == config.ModeLive},
	}
}

// EventBus returns the bus for announcements, reached with the process's AWS settings; nil where none is configured.
func EventBus(ctx context.Context, c config.Config, log *slog.Logger) (pipeline.EventBus, error) {
	if c.EventBus == "" {
		return nil, nil //nolint:nilnil // without a bus nothing is announced
	}
	settings, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("AWS settings: %w", err)
	}
	return eventbus.New(settings, c.EventBus, log), nil
}

// Stripe returns the client of Stripe; clients is how many of them share the configured rate.
func Stripe(c config.Config, clients int, log *slog.Logger) *stripesource.Client {
	return stripesource.New(StripeConfig(c, clients, log))
}

// StripeConfig returns the configuration of [Stripe].
func StripeConfig(c config.Config, clients int, log *slog.Logger) stripesource.Config {
	return stripesource.Config{
		Key: c.Stripe.SecretKey.Reveal(), BaseURL: c.Stripe.APIBase, LiveMode: c.Stripe.Mode == config.ModeLive,
		RPS: c.Stripe.RequestsPerSecond, Clients: clients, Log: log,
	}
}

// Queues returns the client of the queues.
func Queues(settings aws.Config) *sqs.Client { return sqs.NewFromConfig(settings) }

// Enumerator returns the handler that opens runs and sends their work.
func Enumerator(c config.Config, store *mysqlstore.Store, stripe *stripesource.Client, queues *sqs.Client, log *slog.Logger) handler.Enumerator {
	return handler.Enumerator{Enumerator: &pipeline.Enumerator{
		Store: store, Stripe: stripe, AccountID: c.Stripe.AccountID, Free: c.Rules.Tiers.Lowest(),
		Work: sqsqueue.New(queues, c.Queues.Work), Progress: sqsqueue.New(queues, c.Queues.Results),
		Downgrades: c.MaxDowngrades.Limit, RunDeadline: c.RunDeadline, Settle: c.EventsSettle, Reserve: reserve, Now: time.Now, Log: log,
	}}
}

// Worker returns the handler that reconciles organizations.
func Worker(c config.Config, store *mysqlstore.Store, stripe *stripesource.Client, queues *sqs.Client, log *slog.Logger) handler.Worker {
	return handler.Worker{
		Reconciler: Reconciler(c, store, stripe, log),
		Work:       sqsqueue.New(queues, c.Queues.Work), DeadLetter: sqsqueue.New(queues, c.Queues.DeadLetter),
		Progress:   sqsqueue.New(queues, c.Queues.Results),
		MaxReceive: c.MaxReceiveCount, Backoff: c.RetryBackoff, Log: log,
	}
}

// Reconciler returns the step that reconciles organizations.
func Reconciler(c config.Config, store *mysqlstore.Store, stripe *stripesource.Client, log *slog.Logger) *pipeline.Reconciler {
	return &pipeline.Reconciler{Store: store, Stripe: stripe, Rules: c.Rules, Reserve: reserve, Now: time.Now, Log: log}
}

// Aggregator returns the handler that closes runs and announces repairs on the bus; it writes metrics to w.
func Aggregator(c config.Config, store *mysqlstore.Store, bus pipeline.EventBus, w io.Writer, log *slog.Logger) handler.Aggregator {
	return handler.Aggregator{Log: log, Aggregator: &pipeline.Aggregator{
		Store: store, Bus: bus, AmendmentDelay: billing.AmendmentDelay, Retention: time.Duration(c.RetentionDays) * 24 * time.Hour, Reserve: reserve, Now: time.Now, Log: log,
		Metrics: telemetry.NewMetrics(w, telemetry.NamespaceOf(c.Stage), time.Now),
	}}
}
