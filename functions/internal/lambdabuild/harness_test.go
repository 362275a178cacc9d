package lambdabuild_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/eventserver"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/lambdasource"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/runtimeapi"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/s3server"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/sqsserver"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

const (
	secretName = "pixell/test"
	timeout    = time.Minute // of a function
	// patience is how long a test waits for a process.
	patience = time.Minute
)

// stack is a deployment: a database, Stripe, queues and the secret, all over the network, and the functions as processes.
type stack struct {
	testing.TB
	db                        *mysqltest.DB
	stripe                    *stripetest.Server
	queues                    *sqs.Client
	bus                       *eventserver.Server
	archiveRefuses            atomic.Bool // the bucket denies access
	work, results, deadLetter string      // URLs
	secrets                   *httptest.Server
	password                  atomic.Value // the password of the database's user in the secret
	key                       atomic.Value // Stripe's key in the secret; "" for the key that Stripe accepts
	environ                   map[string]string
	printed                   map[string]*runtimeapi.OutputBuffer // by function
	timeout                   time.Duration                       // of a function
	population                demo.Population
}

func newStack(t testing.TB, population demo.Options) *stack {
	t.Helper()
	return newStackOn(t, population, stripetest.Options{})
}

func newStackOn(t testing.TB, population demo.Options, limits stripetest.Options) *stack {
	t.Helper()
	return newStackIn(t, mysqltest.New(t), population, limits)
}

func newStackIn(t testing.TB, db *mysqltest.DB, population demo.Options, limits stripetest.Options) *stack {
	t.Helper()
	s := &stack{TB: t, db: db, printed: map[string]*runtimeapi.OutputBuffer{}, timeout: timeout}
	s.password.Store(db.Password)
	var err error
	if s.stripe, err = stripetest.Start(limits); err != nil {
		t.Fatal(err)
	}
	server, err := sqsserver.Start(sqsserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s.bus, err = eventserver.Start(eventserver.Options{Buses: []string{"application"}}); err != nil {
		t.Fatal(err)
	}
	archive, err := s3server.Start(s3server.Options{Buckets: []string{"reports"}, Fault: s.archiveFault})
	if err != nil {
		t.Fatal(err)
	}
	s.secrets = httptest.NewServer(http.HandlerFunc(s.answerSecret))
	t.Cleanup(func() {
		s.secrets.Close()
		if err := errors.Join(server.Close(), s.bus.Close(), archive.Close(), s.stripe.Close()); err != nil {
			t.Error(err)
		}
	})
	s.queues = sqs.NewFromConfig(server.AWSConfig())
	for name, url := range map[string]*string{"work": &s.work, "results": &s.results, "dead-letter": &s.deadLetter} {
		out, err := s.queues.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: map[string]string{"VisibilityTimeout": "360"}})
		if err != nil {
			t.Fatal(err)
		}
		*url = *out.QueueUrl
	}
	if s.population, err = demo.Populate(t.Context(), s.db.DB, s.stripe, population); err != nil {
		t.Fatal(err)
	}
	s.environ = map[string]string{
		"DB_HOST": s.db.Host, "DB_PORT": strconv.Itoa(s.db.Port), "DB_USER": s.db.User, "DB_NAME": s.db.Name, "DB_TLS": "false",
		"STRIPE_API_BASE": s.stripe.URL(), "STRIPE_RPS": "100", "WORKER_CONCURRENCY": "2", "MAX_DOWNGRADES": "100%",
		"WORK_QUEUE_URL": s.work, "RESULTS_QUEUE_URL": s.results, "DEAD_LETTER_QUEUE_URL": s.deadLetter,
		"SECRET_NAME": secretName, "AWS_ENDPOINT_URL_SQS": server.URL(), "AWS_ENDPOINT_URL_SECRETS_MANAGER": s.secrets.URL,
		"EVENT_BUS": "application", "AWS_ENDPOINT_URL_EVENTBRIDGE": s.bus.URL(),
		"REPORT_BUCKET": "reports", "AWS_ENDPOINT_URL_S3": archive.URL(),
	}
	maps.Copy(s.environ, demo.Prices())
	return s
}

func (s *stack) archiveFault(string) *s3server.Fault {
	if !s.archiveRefuses.Load() {
		return nil
	}
	return &s3server.Fault{Status: http.StatusForbidden, Code: "AccessDenied"}
}

// answerSecret answers as AWS Secrets Manager with one secret.
func (s *stack) answerSecret(w http.ResponseWriter, r *http.Request) {
	var in struct {
		SecretID string `json:"SecretId"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		s.Error(err)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	var body any = map[string]string{"__type": "ResourceNotFoundException", "message": "no such secret"}
	if in.SecretID == secretName {
		key, _ := s.key.Load().(string)
		text, err := json.Marshal(map[string]any{"DB_PASSWORD": s.password.Load(), "STRIPE_SECRET_KEY": cmp.Or(key, s.stripe.Key()), "OTHER": []int{1}})
		if err != nil {
			s.Error(err)
		}
		body = map[string]string{"Name": secretName, "SecretString": string(text)}
	} else {
		w.WriteHeader(http.StatusBadRequest)
	}
	if err := json.NewEncoder(w).Encode(body); err != nil {
		s.Error(err)
	}
}

// program returns a deployed program. changes are names and values of environment variables.
func (s *stack) program(name string, changes ...string) runtimeapi.Program {
	s.Helper()
	environ := maps.Clone(s.environ)
	for i := 0; i < len(changes); i += 2 {
		environ[changes[i]] = changes[i+1]
	}
	if s.printed[name] == nil {
		s.printed[name] = &runtimeapi.OutputBuffer{}
	}
	program := runtimeapi.Program{Path: built(s.TB, name), Name: name, Timeout: s.timeout, Output: s.printed[name]}
	for variable, value := range environ {
		program.Environ = append(program.Environ, variable+"="+value)
	}
	return program
}

// function returns a function that is stopped when the test ends.
func (s *stack) function(name string, changes ...string) *runtimeapi.Function {
	s.Helper()
	f := runtimeapi.New(s.program(name, changes...))
	s.Cleanup(func() {
		f.Close()
		if s.Failed() {
			s.Logf("%s printed:\n%s", name, s.printed[name].String())
		}
	})
	return f
}

// invoke returns the function's response to an event, both JSON.
func (s *stack) invoke(f *runtimeapi.Function, event string) string {
	s.Helper()
	answer, err := f.Invoke(s.Context(), []byte(event))
	if err != nil {
		s.Fatalf("%s: %v", event, err)
	}
	return string(answer)
}

// receive receives all messages of a queue and returns them as the event of one batch.
func (s *stack) receive(url string) events.SQSEvent {
	s.Helper()
	var batch events.SQSEvent
	for {
		out, err := s.queues.ReceiveMessage(s.Context(), &sqs.ReceiveMessageInput{
			QueueUrl: &url, MaxNumberOfMessages: 10, MessageAttributeNames: []string{"All"},
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
		})
		if err != nil {
			s.Fatal(err)
		}
		if len(out.Messages) == 0 {
			return batch
		}
		batch.Records = append(batch.Records, lambdasource.Event("arn:aws:sqs:us-east-1:123456789012:work", out.Messages).Records...)
	}
}

// ownTables counts this system's own tables.
func (s *stack) ownTables() int {
	s.Helper()
	return mysqltest.Value[int](s.TB, s.db, `SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name LIKE 'reconciliation\_%'`)
}

func (s *stack) undecided() int {
	s.Helper()
	return mysqltest.Value[int](s.TB, s.db, `SELECT COUNT(*) FROM reconciliation_items WHERE outcome = 'pending'`)
}

// onRequest calls fn at each request to Stripe for one subscription or customer, with the request's number from 1.
func (s *stack) onRequest(fn func(n int)) {
	var mu sync.Mutex
	n := 0
	s.stripe.Before(func(r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/v1/subscriptions/") {
			return
		}
		mu.Lock()
		n++
		number := n
		mu.Unlock()
		fn(number)
	})
}
