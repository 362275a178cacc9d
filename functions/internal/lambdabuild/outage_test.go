package lambdabuild_test

import (
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/lambdasource"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/runtimeapi"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/sqsserver"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

// The database is unavailable from Sunday 03:00 on, for a starting process and for a warm one. The queue delivers the
// schedule's event every 15 minutes. After 23 hours the database is available again, and the event starts the week's run
// once.
func TestScheduledRunSurvivesDatabaseOutage(t *testing.T) {
	const every, outage = 15 * time.Minute, 23 * time.Hour
	s := newStack(t, demo.Options{Orgs: 10, Seed: 3, Now: time.Now().UTC()})
	sunday, err := time.Parse(time.RFC3339, scheduledRun)
	if err != nil {
		t.Fatal(err)
	}
	clock := sqsserver.NewManualClock(sunday)
	scheduled, failed := scheduledRuns(t, clock, every)
	database := newGate(t, s.db.Host, s.db.Port)
	enumerator := s.function("enumerator", "DB_HOST", "127.0.0.1", "DB_PORT", strconv.Itoa(database.port))

	scheduled.send(`{"scheduledFor":"` + scheduledRun + `"}`)
	for at := time.Duration(0); at < outage; at += every {
		switch {
		case at < time.Hour: // no process can start
			scheduled.deliver(enumerator, false)
		case at == time.Hour: // a process starts for a tick and is warm after that
			database.setOpen(true)
			s.invoke(enumerator, `{"resume":true}`)
			database.setOpen(false)
			fallthrough
		case at < 2*time.Hour:
			scheduled.deliver(enumerator, false)
		default: // the other hours would be the same
			scheduled.ignore()
		}
		clock.Advance(every)
	}
	database.setOpen(true)
	scheduled.deliver(enumerator, true)

	if n := mysqltest.Value[int](t, s.db, `SELECT COUNT(*) FROM reconciliation_runs WHERE id = ? AND status = 'running'`, scheduledRun); n != 1 {
		t.Errorf("%d scheduled runs are running, want 1", n)
	}
	if n := mysqltest.Value[int](t, s.db, `SELECT COUNT(*) FROM reconciliation_runs`); n != 1 {
		t.Errorf("%d runs, want 1", n)
	}
	clock.Advance(every)
	if len(scheduled.receive()) != 0 || len(failed.receive()) != 0 {
		t.Error("the message is still in the queue, or in its dead-letter queue")
	}
}

// scheduledQueue is the queue between the schedule and the enumerator, or its dead-letter queue.
type scheduledQueue struct {
	testing.TB
	client *sqs.Client
	url    string
}

// scheduledRuns creates both queues as the stack does. SQS moves a message to the dead-letter queue after a day.
func scheduledRuns(t *testing.T, clock sqsserver.Clock, visibility time.Duration) (scheduled, failed scheduledQueue) {
	t.Helper()
	server, err := sqsserver.Start(sqsserver.Options{Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	client := sqs.NewFromConfig(server.AWSConfig())
	create := func(name string, attributes map[string]string) scheduledQueue {
		out, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
		if err != nil {
			t.Fatal(err)
		}
		return scheduledQueue{TB: t, client: client, url: *out.QueueUrl}
	}
	failed = create("failed-invocations", nil)
	out, err := client.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{
		QueueUrl: &failed.url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn},
	})
	if err != nil {
		t.Fatal(err)
	}
	receives := strconv.Itoa(int(24 * time.Hour / visibility))
	return create("scheduled-runs", map[string]string{
		"VisibilityTimeout": strconv.Itoa(int(visibility.Seconds())),
		"RedrivePolicy":     `{"deadLetterTargetArn":"` + out.Attributes["QueueArn"] + `","maxReceiveCount":` + receives + `}`,
	}), failed
}

func (q scheduledQueue) send(body string) {
	q.Helper()
	if _, err := q.client.SendMessage(q.Context(), &sqs.SendMessageInput{QueueUrl: &q.url, MessageBody: &body}); err != nil {
		q.Fatal(err)
	}
}

func (q scheduledQueue) receive() []types.Message {
	q.Helper()
	out, err := q.client.ReceiveMessage(q.Context(), &sqs.ReceiveMessageInput{
		QueueUrl: &q.url, MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
	})
	if err != nil {
		q.Fatal(err)
	}
	return out.Messages
}

// ignore receives the message without handling it.
func (q scheduledQueue) ignore() {
	q.Helper()
	if n := len(q.receive()); n != 1 {
		q.Fatalf("%d messages, want 1", n)
	}
}

// deliver invokes the function with the message, as Lambda does, and deletes it if that succeeds.
func (q scheduledQueue) deliver(f *runtimeapi.Function, succeeds bool) {
	q.Helper()
	messages := q.receive()
	if len(messages) != 1 {
		q.Fatalf("%d messages, want 1", len(messages))
	}
	_, err := f.HandleSQS(q.Context(), lambdasource.Event("arn:aws:sqs:us-east-1:123456789012:scheduled-runs", messages))
	if (err == nil) != succeeds {
		q.Fatalf("the enumerator returned %v, want success: %t", err, succeeds)
	}
	if err != nil {
		return
	}
	if _, err := q.client.DeleteMessage(q.Context(), &sqs.DeleteMessageInput{QueueUrl: &q.url, ReceiptHandle: messages[0].ReceiptHandle}); err != nil {
		q.Fatal(err)
	}
}

// gate is a proxy in front of the database. While it is closed, it closes every connection. A new gate is closed.
type gate struct {
	port   int
	target string
	isOpen atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
}

func newGate(t *testing.T, host string, port int) *gate {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatal(listener.Addr())
	}
	g := &gate{port: address.Port, target: net.JoinHostPort(host, strconv.Itoa(port))}
	var links sync.WaitGroup
	links.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			links.Go(func() { g.pass(client) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		g.setOpen(false)
		links.Wait()
	})
	return g
}

// setOpen opens the gate, or closes it together with its connections.
func (g *gate) setOpen(open bool) {
	g.isOpen.Store(open)
	if open {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.conns {
		_ = c.Close()
	}
	g.conns = nil
}

func (g *gate) pass(client net.Conn) {
	defer func() { _ = client.Close() }()
	if !g.isOpen.Load() {
		return
	}
	server, err := net.Dial("tcp", g.target)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	g.mu.Lock()
	g.conns = append(g.conns, client, server)
	g.mu.Unlock()
	var copies sync.WaitGroup
	for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
		copies.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			_, _ = pair[0].Close(), pair[1].Close()
		})
	}
	copies.Wait()
}
