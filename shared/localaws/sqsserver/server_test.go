package sqsserver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/sqsserver"
)

// local is a started server with a manual clock and a client that does not
// retry.
type local struct {
	*testing.T
	server *sqsserver.Server
	clock  *sqsserver.ManualClock
	client *sqs.Client
}

func start(t *testing.T) *local {
	t.Helper()
	clock := sqsserver.NewManualClock(time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC))
	s, err := sqsserver.Start(sqsserver.Options{Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &local{T: t, server: s, clock: clock, client: newClient(s.URL())}
}

func (l *local) queue(name string, attributes ...string) string {
	l.Helper()
	out, err := l.client.CreateQueue(l.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: pairs(attributes)})
	if err != nil {
		l.Fatal(err)
	}
	return *out.QueueUrl
}

func (l *local) send(queue, body string) string {
	l.Helper()
	out, err := l.client.SendMessage(l.Context(), &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: &body})
	if err != nil {
		l.Fatal(err)
	}
	return *out.MessageId
}

func (l *local) receive(queue string) []types.Message {
	l.Helper()
	out, err := l.client.ReceiveMessage(l.Context(), &sqs.ReceiveMessageInput{
		QueueUrl: &queue, MaxNumberOfMessages: 10,
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"},
	})
	if err != nil {
		l.Fatal(err)
	}
	return out.Messages
}

func (l *local) wantReceived(queue string, want int) []types.Message {
	l.Helper()
	got := l.receive(queue)
	if len(got) != want {
		l.Fatalf("received %d messages, want %d", len(got), want)
	}
	return got
}

func TestMessagesExpireWithTheRetentionPeriod(t *testing.T) {
	l := start(t)
	dlq := l.queue("dlq", "MessageRetentionPeriod", "120")
	q := l.queue("q", "MessageRetentionPeriod", "60", "VisibilityTimeout", "40",
		"RedrivePolicy", `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dlq","maxReceiveCount":"1"}`)
	l.send(q, "stays too long")
	l.clock.Advance(59 * time.Second)
	l.send(q, "to the dead-letter queue")
	l.clock.Advance(time.Second)
	l.wantReceived(q, 1) // the first one is gone

	l.clock.Advance(40 * time.Second)
	l.wantReceived(q, 0) // moved, 41 s old
	l.clock.Advance(78 * time.Second)
	if got := l.receive(dlq); len(got) != 1 {
		t.Fatalf("the dead-letter queue has %d messages after 119 s, want 1", len(got))
	}
	l.clock.Advance(2 * time.Second) // in flight does not help
	if _, err := l.client.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &dlq, Attributes: map[string]string{"VisibilityTimeout": "0"}}); err != nil {
		t.Fatal(err)
	}
	l.wantReceived(dlq, 0)
}

func TestDeletedQueueNameIsFreeAfterAMinute(t *testing.T) {
	l := start(t)
	q := l.queue("q")
	if _, err := l.client.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &q}); err != nil {
		t.Fatal(err)
	}
	l.clock.Advance(time.Minute)
	l.queue("q")
}

func TestTotalVisibilityIsAtMostTwelveHours(t *testing.T) {
	l := start(t)
	q := l.queue("q", "VisibilityTimeout", "3600")
	l.send(q, "x")
	m := l.wantReceived(q, 1)[0]
	l.clock.Advance(time.Hour - time.Second)
	_, err := l.client.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: &q, ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: 43_200})
	if api, ok := errors.AsType[smithy.APIError](err); !ok || api.ErrorCode() != "InvalidParameterValue" {
		t.Fatalf("error %v, want InvalidParameterValue", err)
	}
}

func TestMoveTaskKeepsItsRate(t *testing.T) {
	l := start(t)
	dlq := l.queue("dlq")
	source := l.queue("source", "RedrivePolicy", `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dlq","maxReceiveCount":1}`)
	for range 5 {
		l.send(dlq, "x")
	}
	arn := func(name string) *string { return aws.String("arn:aws:sqs:us-east-1:000000000000:" + name) }
	_, err := l.client.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{
		SourceArn: arn("dlq"), DestinationArn: arn("source"), MaxNumberOfMessagesPerSecond: aws.Int32(2),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		moved  int64
		status string
	}{{2, "RUNNING"}, {4, "RUNNING"}, {5, "COMPLETED"}} {
		out, err := l.client.ListMessageMoveTasks(t.Context(), &sqs.ListMessageMoveTasksInput{SourceArn: arn("dlq")})
		if err != nil {
			t.Fatal(err)
		}
		task := out.Results[0]
		if task.ApproximateNumberOfMessagesMoved != want.moved || *task.Status != want.status {
			t.Errorf("moved %d, %s; want %d, %s", task.ApproximateNumberOfMessagesMoved, *task.Status, want.moved, want.status)
		}
		l.clock.Advance(time.Second)
	}
	l.wantReceived(source, 5)
}

func TestMoveTaskFailsIfItsDestinationIsDeleted(t *testing.T) {
	l := start(t)
	dlq := l.queue("dlq")
	l.queue("source", "RedrivePolicy", `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dlq","maxReceiveCount":1}`)
	other := l.queue("other")
	l.send(dlq, "x")
	l.send(dlq, "y")
	dlqARN := aws.String("arn:aws:sqs:us-east-1:000000000000:dlq")
	_, err := l.client.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{
		SourceArn: dlqARN, DestinationArn: aws.String("arn:aws:sqs:us-east-1:000000000000:other"), MaxNumberOfMessagesPerSecond: aws.Int32(1),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.client.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &other}); err != nil {
		t.Fatal(err)
	}
	l.clock.Advance(time.Second)
	out, err := l.client.ListMessageMoveTasks(t.Context(), &sqs.ListMessageMoveTasksInput{SourceArn: dlqARN})
	if err != nil {
		t.Fatal(err)
	}
	if task := out.Results[0]; *task.Status != "FAILED" || aws.ToString(task.FailureReason) != "AWS.SimpleQueueService.NonExistentQueue" {
		t.Errorf("status %s, reason %s", *task.Status, aws.ToString(task.FailureReason))
	}
	l.wantReceived(dlq, 1)
}

func TestFaultsReachTheSDK(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault sqsserver.Fault
		code  string // empty: the connection was dropped
		sent  int
	}{
		{"internal error", sqsserver.InternalError, "InternalError", 0},
		{"unavailable", sqsserver.ServiceUnavailable, "ServiceUnavailable", 0},
		{"throttled", sqsserver.Throttled, "RequestThrottled", 0},
		{"access denied", sqsserver.AccessDenied, "AccessDenied", 0},
		{"dropped connection", sqsserver.Dropped, "", 0},
		{"lost response", sqsserver.LostResponse, "", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := start(t)
			q := l.queue("q")
			l.server.SetFail(func(action string) *sqsserver.Fault {
				if action != "SendMessage" {
					return nil
				}
				return &test.fault
			})
			_, err := l.client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &q, MessageBody: aws.String("x")})
			api, ok := errors.AsType[smithy.APIError](err)
			if ok != (test.code != "") || ok && api.ErrorCode() != test.code || err == nil {
				t.Errorf("error %v, want code %q", err, test.code)
			}
			l.wantReceived(q, test.sent)
			l.server.SetFail(nil)
			l.send(q, "x")
		})
	}
}

func TestEntryFaultsAreListedAsFailed(t *testing.T) {
	l := start(t)
	q := l.queue("q")
	l.server.SetFailEntry(func(e sqsserver.Entry) *sqsserver.Fault {
		if e.Action != "SendMessageBatch" || e.Queue != "q" || e.Body != "body b" {
			return nil
		}
		return &sqsserver.InternalError
	})
	out, err := l.client.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &q, Entries: entries("a", "b", "c")})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Successful) != 2 || len(out.Failed) != 1 {
		t.Fatalf("%d successful and %d failed, want 2 and 1", len(out.Successful), len(out.Failed))
	}
	if f := out.Failed[0]; *f.Id != "b" || *f.Code != "InternalError" || f.SenderFault {
		t.Errorf("failed entry %s, code %s, sender fault %t", *f.Id, *f.Code, f.SenderFault)
	}
	l.wantReceived(q, 2)
}

func TestDuplicateDeliversTwice(t *testing.T) {
	l := start(t)
	q := l.queue("q")
	id := l.send(q, "x")
	if !l.server.Duplicate(q, id) {
		t.Fatal("the queue does not hold the message")
	}
	first := l.wantReceived(q, 1)[0]
	second := l.wantReceived(q, 1)[0]
	l.wantReceived(q, 0)

	if !l.server.Duplicate(q, id) { // now in flight
		t.Fatal("the queue does not hold the message")
	}
	third := l.wantReceived(q, 1)[0]
	if *first.MessageId != id || *second.MessageId != id || *third.MessageId != id {
		t.Errorf("received %s, %s and %s, want %s", *first.MessageId, *second.MessageId, *third.MessageId, id)
	}
	if got := third.Attributes["ApproximateReceiveCount"]; got != "3" {
		t.Errorf("receive count %s, want 3", got)
	}
	if l.server.Duplicate(q, "no such message") {
		t.Error("an unknown message was duplicated")
	}
}

func TestLongPollEndsWithItsRequest(t *testing.T) {
	l := start(t)
	q := l.queue("q")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := l.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &q, WaitTimeSeconds: 20})
		ended <- err
	}()
	l.clock.BlockUntil(1)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context canceled", err)
	}
}

func TestCloseEndsLongPolls(t *testing.T) {
	l := start(t)
	q := l.queue("q")
	ended := make(chan error)
	go func() {
		out, err := l.client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q, WaitTimeSeconds: 20})
		if err == nil && len(out.Messages) != 0 {
			err = fmt.Errorf("%d messages", len(out.Messages))
		}
		ended <- err
	}()
	l.clock.BlockUntil(1)
	if err := l.server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("long poll: %v", err)
	}
	if _, err := l.client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("other")}); err == nil {
		t.Error("a closed server answers")
	}
}

func TestLongPollEndsIfItsQueueIsDeleted(t *testing.T) {
	l := start(t)
	q := l.queue("q")
	ended := make(chan error)
	go func() {
		_, err := l.client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q, WaitTimeSeconds: 20})
		ended <- err
	}()
	l.clock.BlockUntil(1)
	if _, err := l.client.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &q}); err != nil {
		t.Fatal(err)
	}
	if _, ok := errors.AsType[*types.QueueDoesNotExist](<-ended); !ok {
		t.Error("the poll did not learn that its queue is gone")
	}
}

func TestQueueWaitTimeIsTheDefaultOfARequest(t *testing.T) {
	l := start(t)
	q := l.queue("q", "ReceiveMessageWaitTimeSeconds", "20")
	ended := make(chan int)
	go func() {
		out, err := l.client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q})
		if err != nil {
			t.Error(err)
		}
		ended <- len(out.Messages)
	}()
	l.clock.BlockUntil(1)
	l.clock.Advance(20 * time.Second)
	if n := <-ended; n != 0 {
		t.Errorf("received %d messages, want none", n)
	}
}

func TestConcurrentConsumersGetEachMessageOnce(t *testing.T) {
	l := start(t)
	q := l.queue("q")
	const messages, consumers = 400, 8
	var mu sync.Mutex
	seen := map[string]int{}
	var wg sync.WaitGroup
	for range consumers {
		wg.Go(func() {
			for {
				out, err := l.client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q, MaxNumberOfMessages: 10, WaitTimeSeconds: 20})
				if err != nil {
					t.Error(err)
					return
				}
				if len(out.Messages) == 0 {
					return
				}
				for _, m := range out.Messages {
					mu.Lock()
					seen[*m.Body]++
					mu.Unlock()
					if _, err := l.client.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &q, ReceiptHandle: m.ReceiptHandle}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for i := range messages {
		l.send(q, fmt.Sprint(i))
	}
	l.clock.BlockUntil(consumers) // all wait: the queue is empty
	l.clock.Advance(20 * time.Second)
	wg.Wait()
	if len(seen) != messages {
		t.Errorf("saw %d messages, want %d", len(seen), messages)
	}
	for body, n := range seen {
		if n != 1 {
			t.Errorf("message %s came %d times", body, n)
		}
	}
}

func TestEndpointVariableReachesTheServer(t *testing.T) {
	l := start(t)
	l.queue("q")
	t.Setenv("AWS_ENDPOINT_URL_SQS", l.server.URL())
	t.Setenv("AWS_ACCESS_KEY_ID", "any")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "any")
	t.Setenv("AWS_REGION", "eu-central-1")
	cfg, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]aws.Config{"environment": cfg, "AWSConfig": l.server.AWSConfig()} {
		out, err := sqs.NewFromConfig(cfg).CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("q")})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want := l.server.URL() + "/000000000000/q"; *out.QueueUrl != want {
			t.Errorf("%s: queue %s, want %s", name, *out.QueueUrl, want)
		}
	}
}

func TestUnsupportedRequestsAreRefused(t *testing.T) {
	signed := http.Header{"Authorization": {"AWS4-HMAC-SHA256 any"}}
	for _, test := range []struct {
		name   string
		method string
		target string
		body   string
		header http.Header
		status int
		want   string
	}{
		{"not a POST", "GET", "AmazonSQS.CreateQueue", "", signed, 400, "UnknownOperationException"},
		{"no target", "POST", "", "{}", signed, 400, "UnknownOperationException"},
		{"unknown action", "POST", "AmazonSQS.TagQueue", "{}", signed, 400, "UnsupportedOperation"},
		{"no JSON", "POST", "AmazonSQS.CreateQueue", "{", signed, 400, "SerializationException"},
		{"wrong type", "POST", "AmazonSQS.SendMessage", `{"MessageBody":1}`, signed, 400, "SerializationException"},
		{"no queue", "POST", "AmazonSQS.SendMessage", `{"MessageBody":"x"}`, signed, 400, "MissingRequiredParameterException"},
		{"no body at all", "POST", "AmazonSQS.DeleteQueue", "", signed, 400, "MissingRequiredParameterException"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := sqsserver.New(sqsserver.Options{})
			r := httptest.NewRequestWithContext(t.Context(), test.method, "/", strings.NewReader(test.body))
			for name, values := range test.header {
				r.Header[name] = values
			}
			r.Header.Set("X-Amz-Target", test.target)
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			body, err := io.ReadAll(w.Result().Body)
			if err != nil {
				t.Fatal(err)
			}
			if w.Code != test.status || !strings.Contains(string(body), test.want) {
				t.Errorf("status %d: %s; want %d with %s", w.Code, body, test.status, test.want)
			}
		})
	}
}

// handlerClient lets an SDK client call a handler in this goroutine.
type handlerClient struct{ http.Handler }

func (c handlerClient) Do(r *http.Request) (*http.Response, error) {
	r.Host = r.URL.Host
	w := httptest.NewRecorder()
	c.ServeHTTP(w, r)
	return w.Result(), nil
}

func TestHandlerUsesTheTimeOfASynctestBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqsserver.New(sqsserver.Options{})
		client := sqs.New(newClient("http://sqs.test").Options(), func(o *sqs.Options) { o.HTTPClient = handlerClient{s} })
		out, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("q")})
		if err != nil {
			t.Fatal(err)
		}
		if want := "http://sqs.test/000000000000/q"; *out.QueueUrl != want {
			t.Errorf("queue URL %s, want %s", *out.QueueUrl, want)
		}
		began := time.Now()
		if _, err := client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: out.QueueUrl, WaitTimeSeconds: 20}); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(began); waited != 20*time.Second {
			t.Errorf("waited %v, want 20s", waited)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestLongPollReceivesAMessageAfterItsDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sqsserver.New(sqsserver.Options{})
		client := sqs.New(newClient("http://sqs.test").Options(), func(o *sqs.Options) { o.HTTPClient = handlerClient{s} })
		q, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("q"), Attributes: map[string]string{"DelaySeconds": "5"}})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		ended := make(chan int)
		go func() {
			out, err := client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: q.QueueUrl, WaitTimeSeconds: 20})
			if err != nil {
				t.Error(err)
			}
			ended <- len(out.Messages)
		}()
		synctest.Wait() // the poll waits
		if _, err := client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: q.QueueUrl, MessageBody: aws.String("x")}); err != nil {
			t.Fatal(err)
		}
		if n := <-ended; n != 1 || time.Since(began) != 5*time.Second {
			t.Errorf("received %d messages after %v, want 1 after 5s", n, time.Since(began))
		}
	})
}

// BenchmarkHundredThousandMessages sends, receives and deletes with 100,000
// messages in the queue.
func BenchmarkHundredThousandMessages(b *testing.B) {
	s := sqsserver.New(sqsserver.Options{})
	client := sqs.New(newClient("http://sqs.test").Options(), func(o *sqs.Options) { o.HTTPClient = handlerClient{s} })
	out, err := client.CreateQueue(b.Context(), &sqs.CreateQueueInput{QueueName: aws.String("q")})
	if err != nil {
		b.Fatal(err)
	}
	ids := []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}
	send := func() {
		if _, err := client.SendMessageBatch(b.Context(), &sqs.SendMessageBatchInput{QueueUrl: out.QueueUrl, Entries: entries(ids...)}); err != nil {
			b.Fatal(err)
		}
	}
	for range 10_000 {
		send()
	}
	b.ReportAllocs()
	for b.Loop() {
		send()
		got, err := client.ReceiveMessage(b.Context(), &sqs.ReceiveMessageInput{QueueUrl: out.QueueUrl, MaxNumberOfMessages: 10})
		if err != nil {
			b.Fatal(err)
		}
		var batch []types.DeleteMessageBatchRequestEntry
		for i, m := range got.Messages {
			batch = append(batch, types.DeleteMessageBatchRequestEntry{Id: &ids[i], ReceiptHandle: m.ReceiptHandle})
		}
		if _, err := client.DeleteMessageBatch(b.Context(), &sqs.DeleteMessageBatchInput{QueueUrl: out.QueueUrl, Entries: batch}); err != nil {
			b.Fatal(err)
		}
	}
}
