package handler_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/handler"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/lambdasource"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/sqsserver"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

func TestMain(m *testing.M) { mysqltest.Main(m) }

const (
	runID = "2026-11-22T03:00:00Z"
	// visibility is long, so that only a handler makes a message visible earlier.
	visibility = 6 * time.Minute
	backoff    = 30 * time.Second
	maxReceive = 12
)

var (
	start   = time.Date(2026, time.November, 22, 3, 0, 0, 0, time.UTC)
	created = time.Date(2026, time.January, 10, 9, 30, 0, 0, time.UTC)
	period  = [2]time.Time{time.Date(2026, time.November, 10, 9, 30, 0, 0, time.UTC), time.Date(2026, time.December, 10, 9, 30, 0, 0, time.UTC)}

	rules = billing.Rules{Prices: map[string]billing.Tier{"price_pro": billing.TierPro, "price_max": billing.TierMax}}
	quick = pipeline.Retry{Base: time.Millisecond}
)

func ptr[T any](v T) *T { return &v }

// fixture is the handlers' environment: a database, Stripe over HTTP, and queues over HTTP with a manual clock.
type fixture struct {
	*testing.T
	db                        *mysqltest.DB
	store                     *mysqlstore.Store
	stripe                    *stripetest.Server
	server                    *sqsserver.Server
	clock                     *sqsserver.ManualClock
	queues                    *sqs.Client
	work, results, deadLetter string // URLs
	logs, metrics             lockedBuffer
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: t, db: mysqltest.New(t), clock: sqsserver.NewManualClock(start)}
	f.store = mysqlstore.New(f.db.DB)
	if _, err := f.store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	var err error
	if f.stripe, err = stripetest.Start(stripetest.Options{Now: func() time.Time { return start }}); err != nil {
		t.Fatal(err)
	}
	if f.server, err = sqsserver.Start(sqsserver.Options{Clock: f.clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(f.server.Close(), f.stripe.Close()); err != nil {
			t.Error(err)
		}
	})
	f.queues = f.client(f.connections())
	for name, url := range map[string]*string{"work": &f.work, "results": &f.results, "dead-letter": &f.deadLetter} {
		out, err := f.queues.CreateQueue(t.Context(), &sqs.CreateQueueInput{
			QueueName: &name, Attributes: map[string]string{"VisibilityTimeout": strconv.Itoa(int(visibility.Seconds()))},
		})
		if err != nil {
			t.Fatal(err)
		}
		*url = *out.QueueUrl
	}
	return f
}

// connections returns an HTTP client with its own connections: an abandoned request closes its connection, and must not
// close another client's.
func (f *fixture) connections() *http.Client {
	client := sqsserver.HTTPClient()
	f.Cleanup(client.CloseIdleConnections)
	return client
}

// client returns an SQS client without retries.
func (f *fixture) client(through sqs.HTTPClient) *sqs.Client {
	return sqs.NewFromConfig(f.server.AWSConfig(), func(o *sqs.Options) { o.Retryer, o.HTTPClient = aws.NopRetryer{}, through })
}

// lockedBuffer collects lines of JSON.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// count returns the number of lines that contain the text.
func (b *lockedBuffer) count(text string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range strings.Lines(b.buf.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func (f *fixture) log() *slog.Logger { return telemetry.NewLogger(&f.logs, slog.LevelInfo) }

func fixed() time.Time { return start }

func (f *fixture) stripeClient() *stripesource.Client {
	return stripesource.New(stripesource.Config{Key: f.stripe.Key(), BaseURL: f.stripe.URL(), Log: f.log()})
}

func (f *fixture) enumerator() handler.Enumerator {
	return handler.Enumerator{Step: &pipeline.Enumerator{
		Store: f.store, Stripe: f.stripeClient(), Work: sqsqueue.New(f.queues, f.work), Progress: sqsqueue.New(f.queues, f.results),
		Downgrades: func(int) int { return 100 }, RunDeadline: 12 * time.Hour, PageSize: 7, Retry: quick, Now: fixed, Log: f.log(),
	}}
}

func (f *fixture) worker() handler.Worker { return f.workerOn(f.store, f.queues) }

func (f *fixture) workerOn(store *mysqlstore.Store, queues *sqs.Client) handler.Worker {
	return handler.Worker{
		Step: &pipeline.Reconciler{Store: store, Stripe: f.stripeClient(), Rules: rules, Retry: quick, Now: fixed, Log: f.log()},
		Work: sqsqueue.New(queues, f.work), DeadLetter: sqsqueue.New(queues, f.deadLetter), Progress: sqsqueue.New(queues, f.results),
		MaxReceive: maxReceive, Backoff: backoff, Log: f.log(),
	}
}

func (f *fixture) aggregator() handler.Aggregator {
	return handler.Aggregator{Log: f.log(), Step: &pipeline.Aggregator{
		Store: f.store, Retention: 90 * 24 * time.Hour, Retry: quick, Now: fixed, Log: f.log(),
		Metrics: telemetry.NewMetrics(&f.metrics, "Test", fixed),
	}}
}

// --- queues ---

func (f *fixture) send(url string, bodies ...string) {
	f.Helper()
	for _, body := range bodies {
		if _, err := f.queues.SendMessage(f.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body}); err != nil {
			f.Fatal(err)
		}
	}
}

func workBody(run, org string) string {
	return fmt.Sprintf(`{"version":1,"runId":%q,"orgId":%q}`, run, org)
}

// receive receives all visible messages, as Lambda does.
func (f *fixture) receive(url string) []types.Message {
	f.Helper()
	var all []types.Message
	for {
		out, err := f.queues.ReceiveMessage(f.Context(), &sqs.ReceiveMessageInput{
			QueueUrl: &url, MaxNumberOfMessages: 10, MessageAttributeNames: []string{"All"},
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
		})
		if err != nil {
			f.Fatal(err)
		}
		if len(out.Messages) == 0 {
			return all
		}
		all = append(all, out.Messages...)
	}
}

func bodies(messages []types.Message) []string {
	var all []string
	for _, m := range messages {
		all = append(all, *m.Body)
	}
	return all
}

// handle invokes the worker with the visible messages of the work queue, deletes those that it finished, and returns the
// bodies of those that it reported as failed.
func (f *fixture) handle(w handler.Worker) (failed []string) {
	f.Helper()
	messages := f.receive(f.work)
	response, err := w.Handle(f.Context(), lambdasource.Event("arn:aws:sqs:us-east-1:123456789012:work", messages))
	if err != nil {
		f.Fatal(err)
	}
	for _, m := range messages {
		kept := false
		for _, failure := range response.BatchItemFailures {
			kept = kept || failure.ItemIdentifier == *m.MessageId
		}
		if kept {
			failed = append(failed, *m.Body)
			continue
		}
		if _, err := f.queues.DeleteMessage(f.Context(), &sqs.DeleteMessageInput{QueueUrl: &f.work, ReceiptHandle: m.ReceiptHandle}); err != nil {
			f.Fatal(err)
		}
	}
	if len(failed) != len(response.BatchItemFailures) {
		f.Errorf("failures %v do not fit the batch", response.BatchItemFailures)
	}
	return failed
}

// held returns how many messages the queue holds, visible or not.
func (f *fixture) held(url string) int {
	f.Helper()
	out, err := f.queues.GetQueueAttributes(f.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll}})
	if err != nil {
		f.Fatal(err)
	}
	n := 0
	for _, name := range []string{"ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"} {
		count, err := strconv.Atoi(out.Attributes[name])
		if err != nil {
			f.Fatal(err)
		}
		n += count
	}
	return n
}

func (f *fixture) arn(url string) string {
	f.Helper()
	out, err := f.queues.GetQueueAttributes(f.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn}})
	if err != nil {
		f.Fatal(err)
	}
	return out.Attributes["QueueArn"]
}

// giveUpAfter sets the receive count after which the work queue moves a message to the dead-letter queue.
func (f *fixture) giveUpAfter(receives int) {
	f.Helper()
	if _, err := f.queues.SetQueueAttributes(f.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &f.work, Attributes: map[string]string{
		"RedrivePolicy": fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":"%d"}`, f.arn(f.deadLetter), receives),
	}}); err != nil {
		f.Fatal(err)
	}
}

// redrive moves the dead letters back to the work queue.
func (f *fixture) redrive() {
	f.Helper()
	if _, err := f.queues.StartMessageMoveTask(f.Context(), &sqs.StartMessageMoveTaskInput{
		SourceArn: aws.String(f.arn(f.deadLetter)), DestinationArn: aws.String(f.arn(f.work)),
	}); err != nil {
		f.Fatal(err)
	}
}

// attributes returns a message's own attributes.
func attributes(m types.Message) map[string]string {
	all := map[string]string{}
	for name, value := range m.MessageAttributes {
		all[name] = *value.StringValue
	}
	return all
}

// --- both sides ---

// organization creates an organization with a row, and its subscription in Stripe.
func (f *fixture) organization(id string, changes ...func(*stripetest.Subscription)) {
	f.Helper()
	if err := appschema.InsertOrganizations(f.Context(), f.db.DB, []appschema.Organization{{
		ID: id, Name: id, CreatedBy: "user-1", StripeCustomerID: ptr("cus_" + id), SubscriptionStatus: "active", SubscriptionTier: "pro",
		CreatedAt: created, UpdatedAt: created,
	}}); err != nil {
		f.Fatal(err)
	}
	if err := appschema.InsertSubscriptions(f.Context(), f.db.DB, []appschema.Subscription{{
		ID: "row-" + id, OrgID: id, StripeSubscriptionID: ptr("sub_" + id), StripePriceID: ptr("price_pro"), StripeCustomerID: ptr("cus_" + id),
		PlanTier: "pro", Status: "active", CurrentPeriodStart: &period[0], CurrentPeriodEnd: &period[1], CancelAtPeriodEnd: ptr(false),
		CreatedAt: created, UpdatedAt: created,
	}}); err != nil {
		f.Fatal(err)
	}
	f.subscription(id, changes...)
}

func (f *fixture) subscription(id string, changes ...func(*stripetest.Subscription)) {
	s := stripetest.Subscription{
		ID: "sub_" + id, CustomerID: "cus_" + id, PriceID: "price_pro", Created: created.Unix(),
		CurrentPeriodStart: period[0].Unix(), CurrentPeriodEnd: period[1].Unix(),
	}
	for _, change := range changes {
		change(&s)
	}
	f.stripe.PutSubscription(s)
}

func price(id string) func(*stripetest.Subscription) {
	return func(s *stripetest.Subscription) { s.PriceID = id }
}

func canceled(s *stripetest.Subscription) {
	s.Status, s.CanceledAt, s.EndedAt = "canceled", start.Unix()-60, start.Unix()-30
}

// openRun opens a running run over the organizations.
func (f *fixture) openRun(orgIDs ...string) {
	f.Helper()
	run := billing.Run{ID: runID, Strategy: billing.StrategyRetrieve, StartedAt: start, DeadlineAt: start.Add(12 * time.Hour)}
	if _, err := f.store.OpenRun(f.Context(), run); err != nil {
		f.Fatal(err)
	}
	for _, org := range orgIDs {
		f.db.MustExec(f.T, `INSERT INTO reconciliation_items (run_key, org_id) VALUES ((SELECT run_key FROM reconciliation_runs WHERE id = ?),?)`, runID, org)
	}
	f.db.MustExec(f.T, `UPDATE reconciliation_runs SET status = 'running', listed = TRUE, total = ?, downgrade_limit = 100`, len(orgIDs))
}

func (f *fixture) outcome(orgID string) billing.Outcome {
	f.Helper()
	return mysqltest.Value[billing.Outcome](f.T, f.db, `SELECT outcome FROM reconciliation_items WHERE org_id = ?`, orgID)
}

func (f *fixture) status() billing.RunStatus {
	f.Helper()
	return mysqltest.Value[billing.RunStatus](f.T, f.db, `SELECT status FROM reconciliation_runs`)
}

func (f *fixture) summary() billing.Summary {
	f.Helper()
	answer, err := f.aggregator().Handle(f.Context(), json.RawMessage(`{"runId":"`+runID+`"}`))
	if err != nil {
		f.Fatal(err)
	}
	return answer.(billing.Summary)
}

// --- a process that dies ---

var errKilled = errors.New("the process was killed")

// life is a process that dies at its n-th call to the outside, before or after the call's effect. After that none of its
// calls has an effect.
type life struct {
	after bool
	http  *http.Client

	mu    sync.Mutex
	calls int // left; negative: it does not die
	dead  bool
}

func (l *life) do(effect func() error) error {
	l.mu.Lock()
	l.calls--
	dies := l.calls == 0
	l.dead = l.dead || dies
	if l.dead && (!dies || !l.after) {
		l.mu.Unlock()
		return errKilled
	}
	l.mu.Unlock()
	err := effect()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return errKilled
	}
	return err
}

func (l *life) ended() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}

// tap passes calls to the database on while the process lives.
func (l *life) tap(_ context.Context, _ string, effect func() error) error { return l.do(effect) }

// Do passes requests to the queues on while the process lives.
func (l *life) Do(r *http.Request) (response *http.Response, err error) {
	err = l.do(func() (err error) {
		response, err = l.http.Do(r) //nolint:bodyclose // the SDK closes it, or the lines below
		return err
	})
	if err != nil {
		if response != nil {
			_ = response.Body.Close() // the process is dead
		}
		return nil, err
	}
	return response, nil
}
