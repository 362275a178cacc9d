package chaos_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/eventserver"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/lambdasource"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/runtimeapi"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/sqsserver"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// The runs of a round, by their scheduled times.
const (
	firstRun  = "2026-11-22T03:00:00Z"
	dryRun    = "2026-11-22T04:00:00Z"
	secondRun = "2026-11-29T03:00:00Z"
)

const (
	// functionTimeout is an invocation's timeout during the faults. The visibility timeout may be shorter, so that a
	// message is delivered again while its worker has it.
	functionTimeout = 3 * time.Second
	// relaxedTimeout is an invocation's timeout after the faults: a busy machine must not look like a fault. The event
	// sources have it during the faults too, when a function ends sooner by its own timeout.
	relaxedTimeout = 30 * time.Second
	stripeLatency  = 4 * time.Millisecond
	// phaseTimeout is how long a phase after the faults may take. It takes a second or two, or a minute if a message has to
	// be delivered again.
	phaseTimeout = 3 * time.Minute
	tickInterval = 250 * time.Millisecond
)

// settings are drawn for each round.
type settings struct {
	Orgs             int
	Workers          int
	Batch            int
	MaxReceive       int
	Visibility       int // in seconds of the fake SQS's clock, which runs fast
	RPS              int
	Downgrades       string
	Strategy         billing.Strategy
	FaultsAwaitBatch bool // the faults begin when a worker has the first batch
}

func drawSettings(random *rand.Rand) settings {
	return settings{
		Orgs: 60 + random.IntN(40), Workers: 2 + random.IntN(3), Batch: 1 + random.IntN(10),
		MaxReceive: []int{1, 2, 3, 12}[random.IntN(4)], Visibility: 20 + random.IntN(30), RPS: 40 + random.IntN(60),
		Downgrades: []string{"100%", "100%", "3", "0"}[random.IntN(4)], Strategy: []billing.Strategy{billing.StrategySweep, billing.StrategyRetrieve}[random.IntN(2)], FaultsAwaitBatch: random.IntN(2) == 0,
	}
}

// queueURLs are the URLs of a round's queues.
type queueURLs struct{ work, results, deadLetter, resultsDeadLetter string }

// round is one test of the campaign, with its own database, fake Stripe, queues, bus and processes. It shares only the
// database server and the programs with other rounds.
type round struct {
	testing.TB
	settings

	server     *server
	database   string
	db         *sql.DB // as an account that the journal ignores
	store      *mysqlstore.Store
	proxy      *proxy
	stripe     *stripetest.Server
	sqs        *sqsserver.Server
	queues     *sqs.Client
	bus        *eventserver.Server
	urls       queueURLs
	population population
	app        *application
	before     tables
	printed    runtimeapi.OutputBuffer

	deployed atomic.Pointer[deployment]
	// How many invocations run of the enumerator, of workers and of the aggregator for batches. The aggregator's ticks are
	// not counted: they end before the next look at these numbers.
	enumerating, working, aggregating atomic.Int32

	faultsOver    atomic.Bool   // the faults are over
	maxBatchDelay atomic.Int64  // nanoseconds; batches are held back for up to this time
	atStripe      hooks[func()] // called at each request to Stripe
	cleanups      []func() error
	phases        []time.Duration // how long each phase took
	// The faults of requests and of single entries of batches.
	failRequest    hooks[func(action string) *sqsserver.Fault]
	failEntry      hooks[func(sqsserver.Entry) *sqsserver.Fault]
	failBus        hooks[func() *eventserver.Fault]
	failEvent      hooks[func(eventserver.Entry) string]
	withOldVersion bool     // some functions are of a version without announcements
	waited         []string // what the round waited for after the faults

	mu       sync.Mutex
	random   *rand.Rand // for what the faults draw while the round runs; guarded by mu
	counts   map[string]int
	messages []string // ids of the messages that workers received
	problems []error
	// Bodies of unreadable messages for the work and the results queue. The value is false if the send failed, because
	// the message may have been sent all the same.
	junk, resultsJunk map[string]bool
}

// deployment is the functions that are deployed. A round may replace it during a run.
type deployment struct {
	enumerator, aggregator *runtimeapi.Function
	workers                []*runtimeapi.Function // a batch goes to a random one of them
}

func (d *deployment) all() []*runtimeapi.Function {
	return append([]*runtimeapi.Function{d.enumerator, d.aggregator}, d.workers...)
}

func (r *round) deployment() *deployment { return r.deployed.Load() }

func newRound(t testing.TB, s *server, seed uint64, drawn settings) *round {
	t.Helper()
	r := &round{
		TB: t, settings: drawn, server: s, random: rand.New(rand.NewPCG(seed, 1)), counts: map[string]int{}, junk: map[string]bool{}, resultsJunk: map[string]bool{},
	}
	t.Cleanup(r.close)
	if err := r.build(t.Context(), seed); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *round) build(ctx context.Context, seed uint64) (err error) {
	r.server.databaseTurn++
	r.database = fmt.Sprintf("chaos_%d", r.server.databaseTurn)
	if err := r.server.CreateDatabase(ctx, r.database); err != nil {
		return err
	}
	if r.db, err = r.server.open(r.server.User(), r.server.Password(), r.database); err != nil {
		return err
	}
	r.store = mysqlstore.New(r.db)
	r.cleanups = append(r.cleanups, r.db.Close)
	if r.stripe, err = stripetest.Start(stripetest.Options{Seed: seed, Latency: stripeLatency, Key: "sk_test_" + cryptoText()}); err != nil {
		return err
	}
	r.cleanups = append(r.cleanups, r.stripe.Close)
	r.stripe.Before(func(*http.Request) { call(&r.atStripe) })
	if err := r.buildQueues(ctx); err != nil {
		return err
	}
	if err := r.startBus(); err != nil {
		return err
	}
	if err := appschema.Create(ctx, r.db); err != nil {
		return err
	}
	r.setGlobal(ctx, "read_only", 0) // an earlier round may have left it set
	r.setGlobal(ctx, "max_connections", 200)
	r.population, err = populate(ctx, r.db, r.stripe, demo.Options{Orgs: r.Orgs, Drift: 0.6, Seed: seed, Now: time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	if r.before, err = readTables(ctx, r.db); err != nil {
		return err
	}
	if err := createJournal(ctx, r.db); err != nil {
		return err
	}
	if r.proxy, err = startProxy(r.server.address()); err != nil {
		return err
	}
	r.cleanups = append(r.cleanups, func() error { r.proxy.close(); return nil })
	appDB, err := r.server.open(applicationAccount, r.server.passwords[applicationAccount], r.database)
	if err != nil {
		return err
	}
	r.cleanups = append(r.cleanups, appDB.Close)
	inStripe, err := r.stripeSubscriptions(ctx)
	if err != nil {
		return err
	}
	r.app = newApplication(appDB, r.stripe, slices.Clone(r.population.subscriptions), inStripe, seed)
	r.deployed.Store(&deployment{r.function("enumerator"), r.function("aggregator"), []*runtimeapi.Function{r.function("worker")}})
	return nil
}

func (r *round) close() {
	var problems []error
	for _, end := range slices.Backward(r.cleanups) {
		problems = append(problems, end())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := errors.Join(append(problems, r.server.DropDatabase(ctx, r.database))...); err != nil {
		r.Error(err)
	}
}

func (r *round) buildQueues(ctx context.Context) (err error) {
	if r.sqs, err = sqsserver.Start(sqsserver.Options{Clock: fastClock{time.Now()}}); err != nil {
		return err
	}
	r.cleanups = append(r.cleanups, r.sqs.Close)
	r.sqs.SetFail(firstFault(&r.failRequest))
	r.sqs.SetFailEntry(firstFault(&r.failEntry))
	r.queues = sqs.NewFromConfig(r.sqs.AWSConfig())
	if r.urls.deadLetter, err = r.createQueue(ctx, "dead-letter", r.Visibility, "", 0); err != nil {
		return err
	}
	if r.urls.resultsDeadLetter, err = r.createQueue(ctx, "results-dead-letter", r.Visibility, "", 0); err != nil {
		return err
	}
	if r.urls.work, err = r.createQueue(ctx, "work", r.Visibility, r.urls.deadLetter, r.MaxReceive); err != nil {
		return err
	}
	r.urls.results, err = r.createQueue(ctx, "results", 10, r.urls.resultsDeadLetter, 5)
	return err
}

func (r *round) createQueue(ctx context.Context, name string, visibility int, deadLetters string, maxReceive int) (string, error) {
	attributes := map[string]string{"VisibilityTimeout": strconv.Itoa(visibility)}
	if deadLetters != "" {
		arn, err := r.queueARN(ctx, deadLetters)
		if err != nil {
			return "", err
		}
		attributes["RedrivePolicy"] = redrivePolicy(arn, maxReceive)
	}
	out, err := r.queues.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
	if err != nil {
		return "", err
	}
	return *out.QueueUrl, nil
}

func (r *round) queueARN(ctx context.Context, url string) (string, error) {
	out, err := r.queues.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{"QueueArn"}})
	if err != nil {
		return "", err
	}
	return out.Attributes["QueueArn"], nil
}

func redrivePolicy(arn string, maxReceive int) string {
	return fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":%d}`, arn, maxReceive)
}

// function returns a deployed function. changes are names and values of environment variables.
func (r *round) function(name string, changes ...string) *runtimeapi.Function {
	return r.functionAt(program(name), name, changes...)
}

func (r *round) functionAt(path, name string, changes ...string) *runtimeapi.Function {
	timeout := functionTimeout
	if r.faultsOver.Load() {
		timeout = relaxedTimeout
	}
	f := runtimeapi.New(runtimeapi.Program{Path: path, Name: name, Environ: r.environ(changes), Timeout: timeout, Output: &r.printed})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, func() error { f.Close(); return nil })
	return f
}

func (r *round) environ(changes []string) []string {
	environ := map[string]string{
		"DB_HOST": "127.0.0.1", "DB_PORT": strconv.Itoa(r.proxy.port()), "DB_USER": systemAccount, "DB_NAME": r.database,
		"DB_PASSWORD": r.server.passwords[systemAccount], "DB_TLS": "false",
		"STRIPE_API_BASE": r.stripe.URL(), "STRIPE_SECRET_KEY": r.stripe.Key(), "STRIPE_RPS": strconv.Itoa(r.RPS), "STRIPE_ACCOUNT_ID": "acct_test",
		"WORKER_CONCURRENCY": strconv.Itoa(r.Workers), "MAX_DOWNGRADES": r.Downgrades, "MAX_RECEIVE_COUNT": strconv.Itoa(r.MaxReceive), "RETRY_BACKOFF": "1s", "EVENTS_SETTLE": "0s",
		"WORK_QUEUE_URL": r.urls.work, "RESULTS_QUEUE_URL": r.urls.results, "DEAD_LETTER_QUEUE_URL": r.urls.deadLetter, "AWS_ENDPOINT_URL_SQS": r.sqs.URL(),
		"EVENT_BUS": "application", "AWS_ENDPOINT_URL_EVENTBRIDGE": r.bus.URL(),
	}
	maps.Copy(environ, demo.Prices())
	for i := 0; i < len(changes); i += 2 {
		environ[changes[i]] = changes[i+1]
	}
	var all []string
	for variable, value := range environ {
		all = append(all, variable+"="+value)
	}
	return all
}

// runEventSources gives the messages of the queues to the workers and the aggregator until ctx ends.
func (r *round) runEventSources(ctx context.Context) *sync.WaitGroup {
	var sources sync.WaitGroup
	for _, source := range []*lambdasource.Source{
		{Queue: r.urls.work, Handler: r.handleWork, MaxConcurrency: r.Workers, BatchSize: r.Batch},
		{Queue: r.urls.results, Handler: r.handleProgress},
	} {
		source.Client, source.Timeout, source.Log = r.queues, relaxedTimeout, discard() // the processes write their own logs
		sources.Go(func() { r.note(source.Run(ctx)) })
	}
	return &sources
}

// handleWork gives a batch to a worker, possibly late and in another order.
func (r *round) handleWork(ctx context.Context, batch events.SQSEvent) (events.SQSEventResponse, error) {
	r.mu.Lock()
	for _, m := range batch.Records {
		r.messages = append(r.messages, m.MessageId)
	}
	wait := time.Duration(0)
	if longest := r.maxBatchDelay.Load(); longest > 0 {
		wait = time.Duration(r.random.Int64N(longest))
		r.random.Shuffle(len(batch.Records), func(i, j int) { batch.Records[i], batch.Records[j] = batch.Records[j], batch.Records[i] })
	}
	workers := r.deployment().workers
	worker := workers[r.random.IntN(len(workers))]
	r.mu.Unlock()
	r.working.Add(1)
	defer r.working.Add(-1)
	pause(ctx, wait)
	response, err := worker.HandleSQS(ctx, batch)
	r.printResponse(nil, err)
	return response, err
}

func (r *round) handleProgress(ctx context.Context, batch events.SQSEvent) (events.SQSEventResponse, error) {
	r.aggregating.Add(1)
	defer r.aggregating.Add(-1)
	response, err := r.deployment().aggregator.HandleSQS(ctx, batch)
	r.printResponse(nil, err)
	return response, err
}

// printResponse adds a function's response to the output in which secrets are looked for at the end.
func (r *round) printResponse(response []byte, err error) {
	_, _ = fmt.Fprintf(&r.printed, "response %.10000s %v\n", response, err) // never fails
}

// tick does what the schedules do until ctx ends. If start is not empty, it invokes the enumerator with it until that
// succeeds, and starts catch-ups: at each turn during the faults, and once after them. It sends both ticks at each turn.
// After the faults it also resumes stopped runs, as an operator does.
func (r *round) tick(ctx context.Context, start string) {
	started, caughtUp := start == "", false
	for wait := time.Duration(0); pause(ctx, wait); wait = tickInterval {
		if faultsOver := r.faultsOver.Load(); start != "" && (!faultsOver || !caughtUp) {
			caughtUp = r.catchUp(ctx) && faultsOver
		}
		if r.faultsOver.Load() {
			r.resumeStopped(ctx)
			r.endPauses(ctx)
			if r.enumerating.Load() == 0 {
				r.endLeases(ctx)
			}
		}
		if !started {
			started = r.enumerate(ctx, start)
		}
		r.enumerate(ctx, `{"resume":true}`)
		r.invoke(ctx, r.deployment().aggregator, `{"tick":true}`)
	}
}

// catchUp starts a catch-up, and reports whether the invocation succeeded.
func (r *round) catchUp(ctx context.Context) bool {
	r.count("  catch-ups started")
	return r.enumerate(ctx, `{"scheduledFor":"`+time.Now().UTC().Format(time.RFC3339)+`","strategy":"events"}`)
}

func (r *round) startEvent() string {
	return `{"scheduledFor":"` + firstRun + `","strategy":"` + string(r.Strategy) + `"}`
}

// enumerate invokes the deployed enumerator.
func (r *round) enumerate(ctx context.Context, event string) bool {
	r.enumerating.Add(1)
	defer r.enumerating.Add(-1)
	return r.invoke(ctx, r.deployment().enumerator, event)
}

// invoke reports whether the invocation succeeded. During faults it may not.
func (r *round) invoke(ctx context.Context, f *runtimeapi.Function, event string) bool {
	response, err := f.Invoke(ctx, []byte(event))
	r.printResponse(response, err)
	return err == nil
}

// endLeases makes all leases expire.
func (r *round) endLeases(ctx context.Context) {
	_, _ = r.db.ExecContext(ctx, `UPDATE reconciliation_runs SET lease_expires_at = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND WHERE status = 'enumerating' AND lease_owner <> ''`) // the tables may not exist yet
}

func (r *round) resumeStopped(ctx context.Context) {
	var stopped []string
	err := each(ctx, r.db, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		stopped = append(stopped, id)
		return err
	}, `SELECT id FROM reconciliation_runs WHERE status = 'stopped'`)
	if err != nil {
		return // the tables may not exist yet
	}
	for _, id := range stopped {
		r.count("  stopped runs resumed")
		r.enumerate(ctx, `{"resume":"`+id+`"}`)
	}
}

// injectFaults injects the plan's faults and returns when the last one is over.
func (r *round) injectFaults(ctx context.Context, plan []plannedFault) {
	if r.FaultsAwaitBatch {
		waiting, cancel := context.WithTimeout(ctx, phaseTimeout)
		defer cancel()
		for r.working.Load() == 0 && pause(waiting, time.Millisecond) {
		}
	}
	var all sync.WaitGroup
	for _, f := range plan {
		all.Go(func() {
			if !pause(ctx, f.at) {
				return
			}
			r.count(f.kind)
			f.inject(ctx, r, f.fault)
		})
	}
	all.Wait()
}

// endFaults ends the remaining faults, and lets the webhook handle the remaining events.
func (r *round) endFaults(ctx context.Context) error {
	r.stripe.SetLatency(stripeLatency)
	r.proxy.loseCommits.Store(0)
	r.proxy.loseAnswers.Store(0)
	r.mu.Lock()
	r.counts["  commits lost"] = int(r.proxy.commitsLost.Load())
	r.counts["  answers to commits lost"] = int(r.proxy.answersLost.Load())
	for number, n := range r.proxy.errorCounts() {
		r.counts[fmt.Sprintf("  errors %d of the database", number)] = n
	}
	r.mu.Unlock()
	r.faultsOver.Store(true)
	return r.app.drain(ctx)
}

// restoreLimits sets the timeouts and receive counts that the system has in AWS. During the faults a message may be
// received only once; from here on a temporary failure must not end in an error.
func (r *round) restoreLimits(ctx context.Context) error {
	arn, err := r.queueARN(ctx, r.urls.deadLetter)
	if err != nil {
		return err
	}
	for url, attributes := range map[string]map[string]string{
		r.urls.work:    {"VisibilityTimeout": "1200", "RedrivePolicy": redrivePolicy(arn, 12)},
		r.urls.results: {"VisibilityTimeout": "1200"},
	} {
		if _, err := r.queues.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: attributes}); err != nil {
			return err
		}
	}
	r.deployed.Store(&deployment{
		r.function("enumerator", "MAX_DOWNGRADES", "100%"), r.function("aggregator"), []*runtimeapi.Function{r.function("worker", "MAX_RECEIVE_COUNT", "12")},
	})
	return nil
}

// awaitQuiet returns when the queues are empty, no invocation runs and no run is open.
func (r *round) awaitQuiet(ctx context.Context) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, phaseTimeout)
	defer cancel()
	for {
		why, err := r.busy(ctx)
		if err == nil && why == "" {
			return nil
		}
		if line := time.Since(began).Round(100*time.Millisecond).String() + " " + why; len(r.waited) == 0 || r.waited[len(r.waited)-1] != line {
			r.waited = append(r.waited, line)
		}
		if !pause(ctx, 30*time.Millisecond) {
			return errors.Join(fmt.Errorf("the run does not end: %s", why), err)
		}
	}
}

// busy returns what is left to do, or "".
func (r *round) busy(ctx context.Context) (why string, err error) {
	for _, queue := range []struct{ name, url string }{{"work", r.urls.work}, {"results", r.urls.results}} { // the work queue first, because work leads to progress messages
		depth, err := sqsqueue.New(r.queues, queue.url).Depth(ctx)
		if err != nil {
			return "", err
		}
		if depth.All() > 0 {
			return fmt.Sprintf("%d messages in queue %s", depth.All(), queue.name), nil
		}
	}
	if r.enumerating.Load()+r.working.Load()+r.aggregating.Load() > 0 {
		return "an invocation runs", nil
	}
	open := 0
	err = r.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM reconciliation_runs WHERE status IN ('enumerating','stopped') OR (status = 'running'
		AND NOT EXISTS (SELECT 1 FROM reconciliation_items i WHERE i.run_key = reconciliation_runs.run_key AND i.outcome = 'pending'))`).Scan(&open)
	if err == nil && open > 0 {
		why = fmt.Sprintf("%d runs to enumerate, resume or close", open)
	}
	if err == nil && why == "" {
		waiting := 0
		if err = r.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM reconciliation_outbox`).Scan(&waiting); waiting > 0 {
			why = fmt.Sprintf("%d announcements to send", waiting)
		}
	}
	return why, err
}

// redrive moves the dead letters back.
func (r *round) redrive(ctx context.Context) error {
	redrive, err := sqsqueue.NewRedrive(ctx, sqsqueue.New(r.queues, r.urls.deadLetter), sqsqueue.New(r.queues, r.urls.work))
	if err != nil {
		return err
	}
	if err := redrive.Start(ctx); err != nil {
		return err
	}
	for {
		move, _, err := redrive.Last(ctx)
		if err != nil || !move.Running() {
			return err
		}
		if !pause(ctx, 10*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// peek returns a queue's messages and leaves them there. It raises their receive counts.
func (r *round) peek(ctx context.Context, url string) ([]types.Message, error) {
	var all []types.Message
	for {
		out, err := r.queues.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: &url, MaxNumberOfMessages: 10, MessageAttributeNames: []string{"All"}, VisibilityTimeout: 3600,
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
		})
		if err != nil {
			return nil, err
		}
		if len(out.Messages) == 0 {
			break
		}
		all = append(all, out.Messages...)
	}
	for _, m := range all {
		_, err := r.queues.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: 0})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// stripeSubscriptions returns all subscriptions in Stripe.
func (r *round) stripeSubscriptions(ctx context.Context) ([]billing.Subscription, error) {
	client, rest := r.stripeClient(), billing.Range{}
	var all []billing.Subscription
	for {
		page, err := client.SweepPage(ctx, rest)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Subscriptions...)
		if !page.More {
			return all, nil
		}
		rest = rest.Rest(page)
	}
}

func (r *round) stripeClient() *stripesource.Client {
	return stripesource.New(stripesource.Config{Key: r.stripe.Key(), BaseURL: r.stripe.URL(), Log: discard()})
}

// explain compares an organization with Stripe by the rules of billing.
func (r *round) explain(ctx context.Context, org string) (pipeline.Explanation, error) {
	prices := map[string]billing.Tier{}
	for name, ids := range demo.Prices() {
		for id := range strings.SplitSeq(ids, ",") {
			prices[id] = billing.Tier(strings.ToLower(strings.TrimPrefix(name, "STRIPE_PRICE_ID_")))
		}
	}
	reader := pipeline.Reconciler{
		Store: r.store, Rules: billing.Rules{Prices: prices}, Now: time.Now, Log: discard(), Stripe: r.stripeClient(),
	}
	return reader.Explain(ctx, org)
}

// setGlobal sets a variable of the server. It tries again while the server restarts.
func (r *round) setGlobal(ctx context.Context, name string, value int) {
	ctx = context.WithoutCancel(ctx)
	for range 200 {
		if _, err := r.server.admin.ExecContext(ctx, `SET GLOBAL `+name+` = `+strconv.Itoa(value)); err == nil {
			return
		}
		pause(ctx, 50*time.Millisecond)
	}
	r.note(fmt.Errorf("the server's variable %s cannot be set", name))
}

func (r *round) note(err error) {
	if err == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems = append(r.problems, err)
}

func (r *round) count(event string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[event]++
}

// hitCounter returns a function that counts a request that the fault hit.
func (r *round) hitCounter(f fault) func() { return func() { r.count("  requests hit by " + f.kind) } }

// randomFraction draws a random number from 0 to below 1.
func (r *round) randomFraction() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.random.Float64()
}

func (r *round) chance(p float64) bool { return r.randomFraction() < p }

func (r *round) someMessage() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.messages) == 0 {
		return ""
	}
	latest := r.messages[max(0, len(r.messages)-20):]
	return latest[r.random.IntN(len(latest))]
}

func summaryOf(text sql.NullString) (*billing.Summary, error) {
	if !text.Valid {
		return nil, nil //nolint:nilnil // not written yet
	}
	s := &billing.Summary{}
	return s, json.Unmarshal([]byte(text.String), s)
}

func bodyOf(m types.Message) string { return aws.ToString(m.Body) }
