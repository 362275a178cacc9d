package lambdasource_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/lambdasource"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/sqsserver"
)

// All tests but one run in the fake time of testing/synctest: client and
// server share the bubble, without a network between them.

// visibility is the visibility timeout of the tests' queue.
const visibility = 30 * time.Second

// fixture is a queue, a source on it, and a record of the handler's batches.
type fixture struct {
	*testing.T
	server *sqsserver.Server
	client *sqs.Client
	queue  string
	source *lambdasource.Source
	stop   context.CancelFunc
	done   chan error

	mu      sync.Mutex
	batches [][]string // bodies of each invocation, in order of start
}

// handlerClient lets an SDK client call a handler in this goroutine.
type handlerClient struct{ http.Handler }

func (c handlerClient) Do(r *http.Request) (resp *http.Response, err error) {
	defer func() {
		if p := recover(); p != nil { // a connection closed without a response
			err = fmt.Errorf("connection lost: %v", p)
		}
	}()
	w := httptest.NewRecorder()
	c.ServeHTTP(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: t, server: sqsserver.New(sqsserver.Options{}), done: make(chan error, 1)}
	f.client = sqs.New(sqs.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String("http://sqs.test"),
		Credentials:  credentials.NewStaticCredentialsProvider("test", "test", ""),
		HTTPClient:   handlerClient{f.server},
		Retryer:      aws.NopRetryer{},
	})
	out, err := f.client.CreateQueue(t.Context(), &sqs.CreateQueueInput{
		QueueName: aws.String("work"), Attributes: map[string]string{"VisibilityTimeout": strconv.Itoa(int(visibility.Seconds()))},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.queue = *out.QueueUrl
	f.source = &lambdasource.Source{
		Queue:   f.queue,
		Client:  f.client,
		Handler: f.handle(nil),
		Timeout: 10 * time.Second,
		Log:     slog.New(slog.DiscardHandler),
	}
	return f
}

// handle records an invocation and calls the test's handler.
func (f *fixture) handle(do lambdasource.Handler) lambdasource.Handler {
	return func(ctx context.Context, e events.SQSEvent) (events.SQSEventResponse, error) {
		var bodies []string
		for _, r := range e.Records {
			bodies = append(bodies, r.Body)
		}
		f.mu.Lock()
		f.batches = append(f.batches, bodies)
		f.mu.Unlock()
		if do == nil {
			return events.SQSEventResponse{}, nil
		}
		return do(ctx, e)
	}
}

func (f *fixture) send(bodies ...string) {
	f.Helper()
	for part := range slices.Chunk(bodies, 10) {
		var entries []types.SendMessageBatchRequestEntry
		for i, body := range part {
			entries = append(entries, types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), MessageBody: &body})
		}
		out, err := f.client.SendMessageBatch(f.Context(), &sqs.SendMessageBatchInput{QueueUrl: &f.queue, Entries: entries})
		if err != nil || len(out.Failed) > 0 {
			f.Fatalf("send: %v, failed %v", err, out)
		}
	}
}

// run starts the source and waits until it is idle.
func (f *fixture) run() {
	ctx, cancel := context.WithCancel(f.Context())
	f.stop = cancel
	go func() { f.done <- f.source.Run(ctx) }()
	synctest.Wait()
}

// end stops the source and waits for its end.
func (f *fixture) end() {
	f.Helper()
	f.stop()
	if err := <-f.done; err != nil {
		f.Errorf("Run: %v", err)
	}
}

// pass waits for d.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// wantCounts compares the messages that are visible and in flight.
func (f *fixture) wantCounts(visible, inFlight int) {
	f.Helper()
	out, err := f.client.GetQueueAttributes(context.WithoutCancel(f.Context()), &sqs.GetQueueAttributesInput{
		QueueUrl: &f.queue, AttributeNames: []types.QueueAttributeName{"All"},
	})
	if err != nil {
		f.Fatal(err)
	}
	got := [2]string{out.Attributes["ApproximateNumberOfMessages"], out.Attributes["ApproximateNumberOfMessagesNotVisible"]}
	if want := [2]string{strconv.Itoa(visible), strconv.Itoa(inFlight)}; got != want {
		f.Errorf("visible and in flight: %v, want %v", got, want)
	}
}

func (f *fixture) wantBatches(want ...[]string) {
	f.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := cmp.Diff(want, f.batches); d != "" {
		f.Errorf("batches (-want +got):\n%s", d)
	}
}

// inBubble runs a test in fake time.
func inBubble(t *testing.T, test func(f *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(newFixture(t)) })
}

func TestSucceededMessagesAreDeleted(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.send("a", "b")
		f.run()
		f.send("c") // wakes the long poll
		synctest.Wait()
		f.wantBatches([]string{"a", "b"}, []string{"c"})
		f.wantCounts(0, 0)
		f.end()
	})
}

func TestOnlyReportedFailuresStayInTheQueue(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.source.Handler = f.handle(func(_ context.Context, e events.SQSEvent) (events.SQSEventResponse, error) {
			var response events.SQSEventResponse
			for _, r := range e.Records {
				if r.Body == "b" && r.Attributes["ApproximateReceiveCount"] == "1" {
					response.BatchItemFailures = append(response.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: r.MessageId})
				}
			}
			return response, nil
		})
		f.send("a", "b", "c")
		f.run()
		f.wantCounts(0, 1)
		pass(visibility)
		f.wantBatches([]string{"a", "b", "c"}, []string{"b"})
		f.wantCounts(0, 0)
		f.end()
	})
}

func TestFailedInvocationKeepsTheWholeBatch(t *testing.T) {
	fails := func(identifiers ...string) events.SQSEventResponse {
		var response events.SQSEventResponse
		for _, id := range identifiers {
			response.BatchItemFailures = append(response.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: id})
		}
		return response
	}
	for name, handler := range map[string]lambdasource.Handler{
		"error": func(context.Context, events.SQSEvent) (events.SQSEventResponse, error) {
			return events.SQSEventResponse{}, errors.New("no")
		},
		"panic": func(context.Context, events.SQSEvent) (events.SQSEventResponse, error) {
			panic("no")
		},
		"empty item identifier": func(_ context.Context, e events.SQSEvent) (events.SQSEventResponse, error) {
			return fails(e.Records[0].MessageId, ""), nil
		},
		"unknown item identifier": func(context.Context, events.SQSEvent) (events.SQSEventResponse, error) {
			return fails("no such message"), nil
		},
		"deadline passed": func(ctx context.Context, _ events.SQSEvent) (events.SQSEventResponse, error) {
			<-ctx.Done()
			return events.SQSEventResponse{}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(f *fixture) {
				f.source.Handler = f.handle(handler)
				f.send("a", "b")
				f.run()
				pass(visibility - time.Second)
				f.wantCounts(0, 2)
				f.wantBatches([]string{"a", "b"})
				pass(time.Second)
				f.wantBatches([]string{"a", "b"}, []string{"a", "b"})
				f.end()
			})
		})
	}
}

func TestInvocationHasDeadlineAndRequestID(t *testing.T) {
	inBubble(t, func(f *fixture) {
		requestIDs := map[string]bool{}
		f.source.Handler = f.handle(func(ctx context.Context, _ events.SQSEvent) (events.SQSEventResponse, error) {
			deadline, ok := ctx.Deadline()
			if !ok || time.Until(deadline) != 10*time.Second {
				f.Errorf("deadline in %v, want 10s", time.Until(deadline))
			}
			lc, ok := lambdacontext.FromContext(ctx)
			if !ok || lc.AwsRequestID == "" {
				f.Error("no request id")
				return events.SQSEventResponse{}, nil
			}
			requestIDs[lc.AwsRequestID] = true
			return events.SQSEventResponse{}, nil
		})
		f.run()
		for _, body := range []string{"a", "b"} {
			f.send(body)
			synctest.Wait()
		}
		f.end()
		if len(requestIDs) != 2 {
			f.Errorf("%d request ids for 2 invocations", len(requestIDs))
		}
	})
}

func TestEventHasTheFieldsOfLambda(t *testing.T) {
	inBubble(t, func(f *fixture) {
		var got events.SQSMessage
		f.source.Handler = f.handle(func(_ context.Context, e events.SQSEvent) (events.SQSEventResponse, error) {
			got = e.Records[0]
			return events.SQSEventResponse{}, nil
		})
		sent, err := f.client.SendMessage(f.Context(), &sqs.SendMessageInput{
			QueueUrl: &f.queue, MessageBody: aws.String("hello"),
			MessageAttributes: map[string]types.MessageAttributeValue{
				"reason": {DataType: aws.String("String"), StringValue: aws.String("unknown_status")},
				"raw":    {DataType: aws.String("Binary"), BinaryValue: []byte{1}},
			},
		})
		if err != nil {
			f.Fatal(err)
		}
		now := strconv.FormatInt(time.Now().UnixMilli(), 10)
		f.run()
		f.end()

		if got.ReceiptHandle == "" || got.Attributes["SenderId"] == "" {
			f.Errorf("receipt handle %q, sender %q", got.ReceiptHandle, got.Attributes["SenderId"])
		}
		got.ReceiptHandle = ""
		delete(got.Attributes, "SenderId")
		want := events.SQSMessage{
			MessageId:              *sent.MessageId,
			Body:                   "hello",
			Md5OfBody:              "5d41402abc4b2a76b9719d911017c592",
			Md5OfMessageAttributes: *sent.MD5OfMessageAttributes,
			Attributes: map[string]string{
				"ApproximateReceiveCount":          "1",
				"SentTimestamp":                    now,
				"ApproximateFirstReceiveTimestamp": now,
			},
			MessageAttributes: map[string]events.SQSMessageAttribute{
				"reason": {DataType: "String", StringValue: aws.String("unknown_status"), StringListValues: []string{}, BinaryListValues: [][]byte{}},
				"raw":    {DataType: "Binary", BinaryValue: []byte{1}, StringListValues: []string{}, BinaryListValues: [][]byte{}},
			},
			EventSourceARN: "arn:aws:sqs:us-east-1:000000000000:work",
			EventSource:    "aws:sqs",
			AWSRegion:      "us-east-1",
		}
		if d := cmp.Diff(want, got); d != "" {
			f.Errorf("record (-want +got):\n%s", d)
		}
	})
}

func numbered(n int) []string {
	var bodies []string
	for i := range n {
		bodies = append(bodies, strconv.Itoa(i))
	}
	return bodies
}

func TestLargeBatchTakesSeveralReceives(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.source.BatchSize = 25
		f.source.BatchWindow = 5 * time.Second
		bodies := numbered(30)
		f.send(bodies...)
		f.run() // a full batch does not wait
		f.wantBatches(bodies[:25])
		pass(5 * time.Second)
		f.wantBatches(bodies[:25], bodies[25:])
		f.wantCounts(0, 0)
		f.end()
	})
}

func TestBatchWaitsForItsWindow(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.source.BatchWindow = 5 * time.Second
		f.run()
		pass(time.Minute) // the window begins with the first message
		f.send("a")
		pass(3 * time.Second)
		f.send("b")
		pass(2*time.Second - time.Millisecond)
		f.wantBatches()
		pass(time.Millisecond)
		f.wantBatches([]string{"a", "b"})
		f.end()
	})
}

func TestInvocationsRunUpToMaxConcurrency(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.source.BatchSize = 1
		f.source.MaxConcurrency = 3
		f.source.Handler = f.handle(func(context.Context, events.SQSEvent) (events.SQSEventResponse, error) {
			<-time.After(time.Second)
			return events.SQSEventResponse{}, nil
		})
		f.send(numbered(7)...)
		f.run()
		for _, want := range []int{3, 6, 7} {
			f.mu.Lock()
			if got := len(f.batches); got != want {
				f.Errorf("%d invocations began, want %d", got, want)
			}
			f.mu.Unlock()
			pass(time.Second)
		}
		f.wantCounts(0, 0)
		f.end()
	})
}

func TestRunWaitsForInvocationsAfterCancel(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.source.Handler = f.handle(func(ctx context.Context, _ events.SQSEvent) (events.SQSEventResponse, error) {
			select {
			case <-time.After(5 * time.Second):
				return events.SQSEventResponse{}, nil
			case <-ctx.Done():
				return events.SQSEventResponse{}, ctx.Err()
			}
		})
		f.send("a")
		f.run()
		f.send("b")
		began := time.Now()
		f.end()
		if took := time.Since(began); took != 5*time.Second {
			f.Errorf("Run ended after %v, want 5s", took)
		}
		f.wantBatches([]string{"a"})
		f.wantCounts(1, 0) // a is deleted, b was not received
	})
}

func TestCancelReleasesMessagesThatWereNotInvoked(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.source.BatchSize = 100
		f.source.BatchWindow = time.Minute
		f.send(numbered(12)...)
		f.run()
		f.wantCounts(0, 12)
		f.end()
		f.wantBatches()
		f.wantCounts(12, 0)
	})
}

func TestCancelEndsALongPollAtOnce(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.run()
		began := time.Now()
		f.end()
		if took := time.Since(began); took != 0 {
			f.Errorf("Run ended after %v", took)
		}
	})
}

func TestUnreachableQueueIsRetriedWithBackoff(t *testing.T) {
	for _, action := range []string{"GetQueueAttributes", "ReceiveMessage"} {
		t.Run(action, func(t *testing.T) {
			inBubble(t, func(f *fixture) {
				var tries atomic.Int64
				f.server.SetFail(func(a string) *sqsserver.Fault {
					if a != action {
						return nil
					}
					tries.Add(1)
					return &sqsserver.Dropped
				})
				f.run()
				pass(time.Minute)
				if n := tries.Load(); n < 5 || n > 15 {
					t.Errorf("%d tries in a minute", n)
				}
				f.server.SetFail(nil)
				f.send("a")
				pass(10 * time.Second)
				f.wantBatches([]string{"a"})
				f.server.SetFail(func(string) *sqsserver.Fault { return &sqsserver.Dropped })
				pass(time.Minute)
				began := time.Now()
				f.end()
				if took := time.Since(began); took != 0 {
					t.Errorf("Run ended after %v of backing off", took)
				}
			})
		})
	}
}

func TestErrorInTheWindowEndsTheBatchEarly(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.source.BatchWindow = 10 * time.Second
		receives := 0
		f.server.SetFail(func(a string) *sqsserver.Fault {
			if a != "ReceiveMessage" {
				return nil
			}
			receives++
			if receives == 2 {
				return &sqsserver.ServiceUnavailable
			}
			return nil
		})
		f.send("a")
		f.run()
		f.wantBatches([]string{"a"})
		f.wantCounts(0, 0)
		f.end()
	})
}

func TestFailedDeletesAreRetried(t *testing.T) {
	for _, test := range []struct {
		name     string
		fault    sqsserver.Fault
		failures int // of the entry, before it goes through
		left     int
	}{
		{"twice by the service", sqsserver.InternalError, 2, 0},
		{"always by the service", sqsserver.InternalError, 1000, 1},
		{"once by the sender", sqsserver.AccessDenied, 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(f *fixture) {
				var failed string
				failures := 0
				f.server.SetFailEntry(func(e sqsserver.Entry) *sqsserver.Fault {
					if e.Action != "DeleteMessageBatch" || failures == test.failures {
						return nil
					}
					if failures == 0 {
						failed = e.ID // the first entry of the first try; it is the only one of the next
					}
					if e.ID != failed {
						return nil
					}
					failures++
					return &test.fault
				})
				f.send("a", "b", "c")
				f.run()
				pass(time.Second)
				f.wantCounts(0, test.left)
				f.end()
			})
		})
	}
}

func TestDuplicateInOneBatchIsDeleted(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.source.BatchWindow = time.Second
		f.send("a")
		out, err := f.client.SendMessage(f.Context(), &sqs.SendMessageInput{QueueUrl: &f.queue, MessageBody: aws.String("twice")})
		if err != nil {
			f.Fatal(err)
		}
		if !f.server.Duplicate(f.queue, *out.MessageId) {
			f.Fatal("no duplicate")
		}
		f.run()
		pass(time.Second)
		f.wantBatches([]string{"a", "twice", "twice"})
		f.wantCounts(0, 0)
		f.end()
	})
}

// The same over a real connection, to a started server.
func TestMessagesFlowOverTheWire(t *testing.T) {
	s, err := sqsserver.Start(sqsserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	client := sqs.NewFromConfig(s.AWSConfig())
	queue, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("work")})
	if err != nil {
		t.Fatal(err)
	}
	const messages = 50
	got := make(chan string, 2*messages)
	source := lambdasource.Source{
		Queue: *queue.QueueUrl, Client: client, MaxConcurrency: 4, Timeout: time.Minute,
		Handler: func(_ context.Context, e events.SQSEvent) (events.SQSEventResponse, error) {
			for _, r := range e.Records {
				got <- r.Body
			}
			return events.SQSEventResponse{}, nil
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- source.Run(ctx) }()
	for i := range messages {
		if _, err := client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: queue.QueueUrl, MessageBody: aws.String(strconv.Itoa(i))}); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	for len(seen) < messages {
		seen[<-got] = true
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	out, err := client.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: queue.QueueUrl, AttributeNames: []types.QueueAttributeName{"All"}})
	if err != nil {
		t.Fatal(err)
	}
	if n := out.Attributes["ApproximateNumberOfMessages"] + out.Attributes["ApproximateNumberOfMessagesNotVisible"]; n != "00" {
		t.Errorf("messages left, visible and in flight: %s", n)
	}
}
