// Package startup starts a Lambda function: it reads the configuration, connects, upgrades this system's own tables,
// and follows the credentials of a rotated secret.
package startup

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/handler"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/wiring"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// Function is what every Lambda function needs.
type Function struct {
	Config config.Config
	Log    *slog.Logger
	Store  *mysqlstore.Store
	Queues *sqs.Client

	rotation *rotation // nil without a secret
}

// tuneRuntime sets the Go runtime up for Lambda. Below 1,769 MB a function gets less than one processor but sees two:
// threads that look for work on the second one waste the first one's time. The heap is a few megabytes, so the
// default would collect garbage every few megabytes; the limit is well below any function's memory.
// https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
func tuneRuntime() {
	const memory, garbage = 96 << 20, 400 // bytes; percent of what is in use
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(garbage)
	debug.SetMemoryLimit(memory)
}

// Start reads the configuration, connects to the database with at most so many connections, and upgrades this
// system's own tables where they are older than this program.
//
// Every function upgrades, not only the enumerator: a deployment replaces all of them within seconds, and a worker
// that missed a new column would stop the run. The first one upgrades, under the store's lock; for the others this
// costs one query.
func Start(ctx context.Context, connections int, needs ...config.Need) (Function, error) {
	tuneRuntime()
	environ, err := wiring.Environment(ctx, config.Environ(os.Environ()))
	if err != nil {
		return Function{}, err
	}
	c, err := config.Load(environ, needs...)
	if err != nil {
		return Function{}, err
	}
	if err := checkMode(c); err != nil {
		return Function{}, err
	}
	f := Function{Config: c, Log: handler.WithRequestID(telemetry.NewLogger(os.Stdout, c.LogLevel))}
	database := wiring.DatabaseConfig(c)
	database.MaxConns = connections
	if config.SecretName(environ) != "" {
		f.rotation = &rotation{needs: needs, log: f.Log, account: c.Stripe.AccountID, config: c}
		database.Renew = f.rotation.databaseLogin
	}
	aws, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return Function{}, fmt.Errorf("AWS settings: %w", err)
	}
	f.Queues = sqs.NewFromConfig(aws)
	if f.Store, err = mysqlstore.Open(ctx, database); err != nil {
		return Function{}, err
	}
	steps, err := f.Store.Migrate(ctx)
	if steps > 0 {
		f.Log.InfoContext(ctx, "this system's own tables were upgraded", telemetry.KeyCount, steps)
	}
	if err != nil {
		return f, err
	}
	return f, checkStage(ctx, f.Store, c.Stage)
}

// checkMode refuses EVENT_BUS without a mode: consumers could not tell announcements of live mode from those of test
// mode.
func checkMode(c config.Config) error {
	if c.EventBus == "" || c.Stripe.Mode != "" {
		return nil
	}
	return &config.Error{Problems: []config.Problem{{
		Variable: "STRIPE_MODE", Wrong: "is not set, and neither is STRIPE_SECRET_KEY: each announcement on EVENT_BUS carries the mode",
		Remedy: "live or test",
	}}}
}

// EventBus returns the bus for announcements, nil where none is configured. It stores which one in the database:
// local and reconcile read there whether repairs are announced.
func (f Function) EventBus(ctx context.Context) (pipeline.EventBus, error) {
	bus, err := wiring.EventBus(ctx, f.Config, f.Log)
	if err != nil {
		return nil, err
	}
	if bus == nil {
		return nil, f.Store.SetEventBus(ctx, "")
	}
	return bus, f.Store.SetEventBus(ctx, bus.ARN())
}

// checkStage refuses a database that another stage uses: each stage would repair by its own settings, and would not
// see the other's runs.
func checkStage(ctx context.Context, store *mysqlstore.Store, stage string) error {
	kept, err := store.EnsureStage(ctx, stage)
	if err != nil || kept == stage {
		return err
	}
	return &config.Error{Problems: []config.Problem{{
		Variable: "STAGE",
		Wrong:    fmt.Sprintf("is %q, and this database belongs to stage %q", stage, kept),
		Remedy:   `that, or DB_HOST and DB_NAME of this stage's database ("" is the stage without a name; a copied database is freed by DELETE FROM reconciliation_outbox; DELETE FROM reconciliation_settings WHERE name IN ('stage', 'announce'))`,
	}}}
}

// Stripe returns the client of Stripe; clients is how many of them share the configured rate.
func (f Function) Stripe(clients int) *stripesource.Client {
	c := wiring.StripeConfig(f.Config, clients, f.Log)
	if f.rotation != nil {
		c.Renew = f.rotation.stripeKey
	}
	return stripesource.New(c)
}

// Main runs the function. If run returns an error, the function cannot start: the log and the invoker get the error.
func Main(run func(context.Context) error) {
	err := run(context.Background())
	if err == nil {
		return
	}
	log := telemetry.NewLogger(os.Stdout, slog.LevelError)
	log.Error("the function cannot start", telemetry.Err(err))
	if api := os.Getenv("AWS_LAMBDA_RUNTIME_API"); api != "" {
		if err := reportInitError(api, err); err != nil {
			log.Error("the error could not be reported to Lambda", telemetry.Err(err))
		}
	}
	os.Exit(1)
}

// reportInitError reports the error to Lambda; without it the invoker would only get an exit status.
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html#runtimes-api-initerror
func reportInitError(api string, reason error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	body, err := json.Marshal(map[string]string{"errorType": "Function.CannotStart", "errorMessage": reason.Error()})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+api+"/2018-06-01/runtime/init/error", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Lambda-Runtime-Function-Error-Type", "Function.CannotStart")
	direct := http.Client{Transport: &http.Transport{}} // without a proxy
	response, err := direct.Do(request)
	if err != nil {
		return err
	}
	if err := response.Body.Close(); err != nil {
		return err
	}
	if response.StatusCode != http.StatusAccepted {
		return fmt.Errorf("answered %s", response.Status)
	}
	return nil
}
