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

// Function is what every Lambda function starts with.
type Function struct {
	Config config.Config
	Log    *slog.Logger
	Store  *mysqlstore.Store
	Queues *sqs.Client

	rotation *rotation // nil without a secret: then nothing else could be fetched
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

// Start reads the configuration once for the life of the process, connects with so many connections at
// most, and upgrades this system's own tables where this program is newer than they are.
//
// Every function upgrades, not the enumerator alone: a deployment replaces all of them within
// seconds, and a worker that met a table without its new column would stop the run. Whoever
// starts first upgrades under the store's lock; for the others that is a look at one table.
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

// checkMode refuses to announce without knowing whether it is of live mode: a consumer would take the one for
// the other.
func checkMode(c config.Config) error {
	if c.EventBus == "" || c.Stripe.Mode != "" {
		return nil
	}
	return &config.Error{Problems: []config.Problem{{
		Variable: "STRIPE_MODE", Wrong: "is not set, and neither is STRIPE_SECRET_KEY: what is announced on EVENT_BUS says which mode it is of",
		Remedy: "live or test",
	}}}
}

// EventBus returns the bus that is announced on; nil where there is none. Which one, or that it is none, is
// kept in the database for who works on it without being one of its functions.
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

// checkStage keeps two stages from working on one database: each would repair for the other, by its own
// settings, and neither would hear of its runs.
func checkStage(ctx context.Context, store *mysqlstore.Store, stage string) error {
	kept, err := store.EnsureStage(ctx, stage)
	if err != nil || kept == stage {
		return err
	}
	return &config.Error{Problems: []config.Problem{{
		Variable: "STAGE",
		Wrong:    fmt.Sprintf("is %q, and this database is that of %q", stage, kept),
		Remedy:   `that, or DB_HOST and DB_NAME of this stage's database ("" is the stage without a name; a copied database is freed by DELETE FROM reconciliation_outbox; DELETE FROM reconciliation_settings WHERE name IN ('stage', 'announce'))`,
	}}}
}

// Stripe returns the client; clients is how many of them share the configured rate.
func (f Function) Stripe(clients int) *stripesource.Client {
	c := wiring.StripeConfig(f.Config, clients, f.Log)
	if f.rotation != nil {
		c.Renew = f.rotation.stripeKey
	}
	return stripesource.New(c)
}

// Exit ends a function that could not start, with its reason in the log and in the answer to
// whoever invoked it.
func Exit(err error) {
	log := telemetry.NewLogger(os.Stdout, slog.LevelError)
	log.Error("the function cannot start", telemetry.Err(err))
	if api := os.Getenv("AWS_LAMBDA_RUNTIME_API"); api != "" {
		if err := tellLambda(api, err); err != nil {
			log.Error("Lambda could not be told why", telemetry.Err(err))
		}
	}
	os.Exit(1)
}

// tellLambda reports an initialization error; without one, the invoker would hear of an exit
// status only. https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html#runtimes-api-initerror
func tellLambda(api string, reason error) error {
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
	direct := http.Client{Transport: &http.Transport{}} // through no proxy
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
