package sqsserver_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	"golang.org/x/sync/errgroup"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/sqsserver"
)

// The same checks run over the wire, with the AWS SDK, against this package
// and against two independent servers. Where two of three agree with the SQS
// documentation and the third does not, the third has a line here. A check
// that is listed and passes fails the test, so that the lists stay correct.

// fauxqsDiffers is where npm fauxqs 1.9.2 differs.
var fauxqsDiffers = map[string]string{
	"a dead-lettered message keeps its receive count":           "counts the receive that moved the message too",
	"a dead-lettered message names its source":                  "no DeadLetterQueueSourceArn",
	"a move task keeps its rate":                                noMoveTasks,
	"a move task moves to its destination":                      noMoveTasks,
	"a move task needs a dead-letter queue":                     noMoveTasks,
	"a move task needs existing queues":                         noMoveTasks,
	"a move task without destination fails for direct messages": noMoveTasks,
	"a move task without destination returns messages":          noMoveTasks,
	"invalid move task values are refused":                      noMoveTasks,
	"move tasks are listed newest first":                        noMoveTasks,
	"moved messages are new messages":                           noMoveTasks,
	"one move task runs at a time":                              noMoveTasks,
	"a redrive policy needs an existing target":                 "accepts a missing target",
	"an invalid delay is refused":                               "accepts any delay",
	"an invalid entry id is refused":                            "accepts any entry id",
	"an unsigned request is refused":                            "does not look for a signature",
	"changing visibility of a deleted message is refused":       "answers MessageNotInflight",
	"changing visibility refuses an invalid receipt handle":     "answers MessageNotInflight",
	"counts follow the visibility timeout":                      "counts move with the next receive only",
	"delete refuses an invalid receipt handle":                  "accepts any handle",
	"delete works entry by entry":                               "accepts any handle",
	"invalid characters are refused":                            "refuses characters above U+FFFF too",
	"invalid message attributes are refused":                    "does not check message attributes",
	"receive selects message attributes":                        "returns all of them when none are asked for",
	"the name of a deleted queue stays taken":                   "is free at once",
	"unknown attributes are refused":                            "accepts any attribute name",
}

const noMoveTasks = "no message move tasks"

// localAWSSQSDiffers is where npm local-aws-sqs 2.0.2 differs.
var localAWSSQSDiffers = map[string]string{
	"a batch fails entry by entry":                                   "accepts any character in bodies",
	"a dead-lettered message keeps its enqueue time":                 "starts it again",
	"a dead-lettered message keeps its receive count":                "starts it again",
	"a long poll ends when a message becomes visible":                "collects for the whole wait, the same message several times",
	"a long poll ends with the message":                              "collects for the whole wait",
	"a move task without destination fails for direct messages":      "fails it, but counts the message as in flight too",
	"an old receipt handle is accepted and deletes nothing":          "deletes with any handle of the message",
	"an unsigned request is refused":                                 "does not look for a signature",
	"changing visibility of a deleted message is refused":            "answers ReceiptHandleIsInvalid",
	"changing visibility of a visible message is MessageNotInflight": "hides it again",
	"counts follow the visibility timeout":                           "counts messages in flight as visible too",
	"counts tell visible, in flight and delayed":                     "counts messages in flight as visible too",
	"invalid attribute values are refused":                           "answers InvalidParameterValue",
	"invalid characters are refused":                                 "accepts any character",
	"message attributes travel with their digest":                    "computes another digest for binary or non-ASCII values",
	"only the asked system attributes come":                          "ignores MessageSystemAttributeNames",
	"receive count grows, first receive stays":                       "counts a receive more",
	"system attributes come by both names":                           "ignores MessageSystemAttributeNames",
}

func TestServerConforms(t *testing.T) {
	t.Parallel()
	conformance(t, nil, func(t *testing.T) peer {
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
		return peer{
			url:  s.URL(),
			pass: clock.Advance,
			passDuringPoll: func(d time.Duration) {
				clock.BlockUntil(1)
				clock.Advance(d)
			},
		}
	})
}

func TestFauxqsConforms(t *testing.T) {
	t.Parallel()
	url := startPeer(t, "fauxqs", `
		import { buildApp } from "fauxqs";
		const url = await buildApp({ logger: false }).listen({ host: "127.0.0.1", port: 0 });
		console.log(url);`)
	conformance(t, fauxqsDiffers, realTimePeer(url))
}

func TestLocalAWSSQSConforms(t *testing.T) {
	t.Parallel()
	// Its port is part of its queue URLs, so port 0 does not work.
	url := startPeer(t, "local-aws-sqs", `
		import { createServer } from "node:net";
		import sqs from "local-aws-sqs";
		const free = createServer().listen(0, "127.0.0.1", () => {
			const { port } = free.address();
			free.close(async () => {
				await sqs.createSqsServer({ port, hostname: "127.0.0.1" });
				console.log("http://127.0.0.1:" + port);
			});
		});`)
	conformance(t, localAWSSQSDiffers, realTimePeer(url))
}

// realTimePeer is a server in real time, shared by all checks.
func realTimePeer(url string) func(*testing.T) peer {
	return func(*testing.T) peer {
		return peer{
			url:            url,
			pass:           func(d time.Duration) { <-time.After(d + 50*time.Millisecond) },
			passDuringPoll: func(time.Duration) {},
		}
	}
}

// startPeer runs a server from npm until the test ends, and returns its URL.
func startPeer(t *testing.T, name, script string) string {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(file), "..", "..", "..")
	dir := filepath.Join(root, ".peers", "sqs")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", name)); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed, run: task peers", name)
		}
		t.Skipf("%s is not installed, run: task peers", name)
	}
	// The process ends with its standard input, so it cannot outlive the test.
	cmd := exec.Command("node", "--input-type=module", "-e", script+"\nprocess.stdin.on('end', () => process.exit()).resume();")
	cmd.Dir = dir
	cmd.Stderr = t.Output()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() {
		if err := stdin.Close(); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	lines := bufio.NewReader(stdout)
	url, err := lines.ReadString('\n')
	if err != nil {
		t.Fatalf("%s did not start: %v", name, err)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }() // discard its log
	return strings.TrimSpace(url)
}

// peer is one SQS server under test.
type peer struct {
	url string
	// pass waits for d on the server's clock.
	pass func(d time.Duration)
	// passDuringPoll is pass while another goroutine has a long poll.
	passDuringPoll func(d time.Duration)
}

// check is one run of one behaviour. Its failures are recorded, so that an
// expected failure can be recognized.
type check struct {
	peer
	sqs      *sqs.Client
	ctx      context.Context
	failures []string
}

func (c *check) Errorf(format string, args ...any) {
	c.failures = append(c.failures, fmt.Sprintf(format, args...))
}

func (c *check) Fatalf(format string, args ...any) {
	c.Errorf(format, args...)
	runtime.Goexit()
}

func conformance(t *testing.T, differs map[string]string, newPeer func(*testing.T) peer) {
	names := map[string]bool{}
	for _, behaviour := range behaviours {
		names[behaviour.name] = true
	}
	for name := range differs {
		if !names[name] {
			t.Errorf("listed difference %q is no check", name)
		}
	}
	// Checks of a peer spend their time waiting for its clock: several at once,
	// more than there are cores, which t.Parallel would not allow.
	results := make([][]string, len(behaviours))
	var group errgroup.Group
	group.SetLimit(4)
	for i, behaviour := range behaviours {
		p := newPeer(t)
		group.Go(func() error {
			results[i] = runCheck(t, p, behaviour.run)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for i, behaviour := range behaviours {
		t.Run(behaviour.name, func(t *testing.T) {
			reason, listed := differs[behaviour.name]
			if listed && len(results[i]) == 0 {
				t.Errorf("passes, but is listed as differing: %s", reason)
			}
			if listed {
				return
			}
			for _, failure := range results[i] {
				t.Error(failure)
			}
		})
	}
}

func runCheck(t *testing.T, p peer, run func(*check)) []string {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c := &check{peer: p, sqs: newClient(p.url), ctx: ctx}
	done := make(chan struct{})
	go func() { // Fatalf ends this goroutine, not the test's
		defer close(done)
		run(c)
	}()
	<-done
	return c.failures
}

func newClient(url string) *sqs.Client {
	return sqs.New(sqs.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(url),
		Credentials:  credentials.NewStaticCredentialsProvider("test", "test", ""),
		Retryer:      aws.NopRetryer{},
	})
}

// behaviours are the checks. Each uses new queues.
var behaviours = []struct {
	name string
	run  func(*check)
}{
	{"create is idempotent", createIsIdempotent},
	{"create with another attribute value is refused", createWithAnotherValueIsRefused},
	{"a missing queue is QueueDoesNotExist", missingQueue},
	{"attributes have defaults and keep what is set", attributesAreKept},
	{"invalid attribute values are refused", invalidAttributeValuesAreRefused},
	{"unknown attributes are refused", unknownAttributesAreRefused},
	{"counts tell visible, in flight and delayed", countsTellStates},
	{"a deleted queue is gone", deletedQueueIsGone},
	{"the name of a deleted queue stays taken", deletedNameStaysTaken},
	{"message attributes travel with their digest", messageAttributesTravel},
	{"receive selects message attributes", receiveSelectsAttributes},
	{"invalid message attributes are refused", invalidMessageAttributesAreRefused},
	{"an empty body is refused", emptyBodyIsRefused},
	{"invalid characters are refused", invalidCharactersAreRefused},
	{"a batch fails entry by entry", batchFailsByEntry},
	{"an empty batch is refused", emptyBatchIsRefused},
	{"eleven entries are refused", elevenEntriesAreRefused},
	{"repeated entry ids are refused", repeatedEntryIDsAreRefused},
	{"an invalid entry id is refused", invalidEntryIDIsRefused},
	{"a message of 1 MiB is accepted", oneMiBIsAccepted},
	{"a batch over 1 MiB is refused", batchOverOneMiBIsRefused},
	{"MaximumMessageSize is kept", maximumMessageSizeIsKept},
	{"a delayed message comes later", delayedMessageComesLater},
	{"the queue's delay applies", queueDelayApplies},
	{"an invalid delay is refused", invalidDelayIsRefused},
	{"a long poll ends with the message", longPollEndsWithMessage},
	{"a long poll ends when a message becomes visible", longPollEndsWithVisibility},
	{"a long poll ends empty", longPollEndsEmpty},
	{"receive takes at most ten, in a batch as asked", receiveTakesAsAsked},
	{"invalid receive numbers are refused", invalidReceiveNumbersAreRefused},
	{"system attributes come by both names", systemAttributesComeByBothNames},
	{"only the asked system attributes come", onlyAskedSystemAttributesCome},
	{"receive count grows, first receive stays", receiveCountGrows},
	{"a message comes again after its visibility timeout", messageComesAgain},
	{"counts follow the visibility timeout", countsFollowVisibility},
	{"visibility zero releases at once", visibilityZeroReleases},
	{"visibility can be extended", visibilityCanBeExtended},
	{"changing visibility of a visible message is MessageNotInflight", visibilityOfVisibleMessage},
	{"changing visibility of a deleted message is refused", visibilityOfDeletedMessage},
	{"changing visibility works entry by entry", visibilityByEntry},
	{"delete removes the message", deleteRemoves},
	{"deleting twice succeeds", deletingTwiceSucceeds},
	{"an old receipt handle is accepted and deletes nothing", oldHandleDeletesNothing},
	{"an expired receipt handle still deletes", expiredHandleDeletes},
	{"delete refuses an invalid receipt handle", deleteRefusesInvalidHandle},
	{"changing visibility refuses an invalid receipt handle", visibilityRefusesInvalidHandle},
	{"delete works entry by entry", deleteByEntry},
	{"a dead-letter queue gets what was received too often", deadLetterQueueGetsMessages},
	{"a dead-lettered message keeps its enqueue time", deadLetterKeepsEnqueueTime},
	{"a dead-lettered message names its source", deadLetterNamesSource},
	{"a dead-lettered message keeps its receive count", deadLetterKeepsReceiveCount},
	{"a redrive policy needs an existing target", redrivePolicyNeedsTarget},
	{"a move task moves to its destination", moveTaskMoves},
	{"moved messages are new messages", movedMessagesAreNew},
	{"a move task without destination returns messages", moveTaskReturnsMessages},
	{"a move task without destination fails for direct messages", moveTaskFailsForDirectMessages},
	{"a move task needs a dead-letter queue", moveTaskNeedsDeadLetterQueue},
	{"a move task needs existing queues", moveTaskNeedsQueues},
	{"a move task keeps its rate", moveTaskKeepsRate},
	{"one move task runs at a time", oneMoveTaskRuns},
	{"move tasks are listed newest first", moveTasksAreListed},
	{"invalid move task values are refused", invalidMoveTaskValuesAreRefused},
	{"an unsigned request is refused", unsignedRequestIsRefused},
}

var queueNumber atomic.Int64

func newName() string {
	return fmt.Sprintf("q-%d-%d", os.Getpid(), queueNumber.Add(1))
}

// must ends the check if err is not nil.
func (c *check) must(err error) {
	if err != nil {
		c.Fatalf("%v", err)
	}
}

// wantCode records a failure unless err is an API error with one of the codes.
// The prefix of the query protocol's codes, which servers use differently for
// errors without a type, does not count.
func (c *check) wantCode(err error, codes ...string) {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		c.Errorf("error %v is no API error, want %v", err, codes)
		return
	}
	if !slices.Contains(codes, strings.TrimPrefix(api.ErrorCode(), "AWS.SimpleQueueService.")) {
		c.Errorf("error code %q (%v), want %v", api.ErrorCode(), err, codes)
	}
}

// wantType records a failure unless err is the SDK's typed error E.
func wantType[E error](c *check, err error) {
	if _, ok := errors.AsType[E](err); !ok {
		c.Errorf("error %v is not of type %v", err, reflect.TypeFor[E]())
	}
}

func (c *check) queue(attributes ...string) string {
	url, err := c.create(newName(), attributes...)
	c.must(err)
	return url
}

func (c *check) create(name string, attributes ...string) (string, error) {
	out, err := c.sqs.CreateQueue(c.ctx, &sqs.CreateQueueInput{QueueName: &name, Attributes: pairs(attributes)})
	if err != nil {
		return "", err
	}
	return *out.QueueUrl, nil
}

func pairs(keysAndValues []string) map[string]string {
	m := map[string]string{}
	for pair := range slices.Chunk(keysAndValues, 2) {
		m[pair[0]] = pair[1]
	}
	return m
}

func (c *check) attribute(queue string, name types.QueueAttributeName) string {
	out, err := c.sqs.GetQueueAttributes(c.ctx, &sqs.GetQueueAttributesInput{QueueUrl: &queue, AttributeNames: []types.QueueAttributeName{name}})
	c.must(err)
	return out.Attributes[string(name)]
}

func (c *check) arn(queue string) string { return c.attribute(queue, types.QueueAttributeNameQueueArn) }

func (c *check) wantCounts(queue string, visible, inFlight, delayed int) {
	got := [3]string{
		c.attribute(queue, types.QueueAttributeNameApproximateNumberOfMessages),
		c.attribute(queue, types.QueueAttributeNameApproximateNumberOfMessagesNotVisible),
		c.attribute(queue, types.QueueAttributeNameApproximateNumberOfMessagesDelayed),
	}
	want := [3]string{strconv.Itoa(visible), strconv.Itoa(inFlight), strconv.Itoa(delayed)}
	if got != want {
		c.Errorf("visible, in flight, delayed: %v, want %v", got, want)
	}
}

func (c *check) send(queue, body string) string {
	out, err := c.sqs.SendMessage(c.ctx, &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: &body})
	c.must(err)
	return *out.MessageId
}

// receive takes up to ten messages, with all attributes asked for by both the
// old and the new parameter.
func (c *check) receive(queue string, change ...func(*sqs.ReceiveMessageInput)) []types.Message {
	in := &sqs.ReceiveMessageInput{
		QueueUrl:                    &queue,
		MaxNumberOfMessages:         10,
		MessageAttributeNames:       []string{"All"},
		AttributeNames:              []types.QueueAttributeName{types.QueueAttributeNameAll},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
	}
	for _, f := range change {
		f(in)
	}
	out, err := c.sqs.ReceiveMessage(c.ctx, in)
	c.must(err)
	return out.Messages
}

// receiveOne ends the check unless exactly one message comes.
func (c *check) receiveOne(queue string, change ...func(*sqs.ReceiveMessageInput)) types.Message {
	messages := c.receive(queue, change...)
	if len(messages) != 1 {
		c.Fatalf("received %d messages, want 1", len(messages))
	}
	return messages[0]
}

func (c *check) wantNothing(queue string) {
	if got := c.receive(queue); len(got) != 0 {
		c.Errorf("received %d messages, want none", len(got))
	}
}

func visibility(seconds int32) func(*sqs.ReceiveMessageInput) {
	return func(in *sqs.ReceiveMessageInput) { in.VisibilityTimeout = seconds }
}

func (c *check) changeVisibility(queue string, m types.Message, seconds int32) error {
	_, err := c.sqs.ChangeMessageVisibility(c.ctx, &sqs.ChangeMessageVisibilityInput{
		QueueUrl: &queue, ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: seconds,
	})
	return err
}

func (c *check) delete(queue string, m types.Message) error {
	_, err := c.sqs.DeleteMessage(c.ctx, &sqs.DeleteMessageInput{QueueUrl: &queue, ReceiptHandle: m.ReceiptHandle})
	return err
}

// entries makes a batch of the given ids; the body is the id.
func entries(ids ...string) []types.SendMessageBatchRequestEntry {
	var out []types.SendMessageBatchRequestEntry
	for _, id := range ids {
		out = append(out, types.SendMessageBatchRequestEntry{Id: aws.String(id), MessageBody: aws.String("body " + id)})
	}
	return out
}

func (c *check) sendBatch(queue string, batch []types.SendMessageBatchRequestEntry) (*sqs.SendMessageBatchOutput, error) {
	return c.sqs.SendMessageBatch(c.ctx, &sqs.SendMessageBatchInput{QueueUrl: &queue, Entries: batch})
}

// deadLetterPair makes a queue whose messages go to a dead-letter queue after
// one receive.
func (c *check) deadLetterPair() (source, dlq string) {
	dlq = c.queue()
	source = c.queue("RedrivePolicy", fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":1}`, c.arn(dlq)))
	return source, dlq
}

// deadLetter sends n messages through source into its dead-letter queue and
// returns their ids.
func (c *check) deadLetter(source string, n int) []string {
	var ids []string
	for i := range n {
		ids = append(ids, c.send(source, fmt.Sprintf("message %d", i)))
	}
	for _, m := range c.receive(source) {
		c.must(c.changeVisibility(source, m, 0))
	}
	c.wantNothing(source)
	return ids
}

func (c *check) startMove(source, destination string, rate int32) error {
	in := &sqs.StartMessageMoveTaskInput{SourceArn: aws.String(c.arn(source))}
	if destination != "" {
		in.DestinationArn = aws.String(c.arn(destination))
	}
	if rate != 0 {
		in.MaxNumberOfMessagesPerSecond = &rate
	}
	_, err := c.sqs.StartMessageMoveTask(c.ctx, in)
	return err
}

func (c *check) tasks(source string, limit int32) []types.ListMessageMoveTasksResultEntry {
	out, err := c.sqs.ListMessageMoveTasks(c.ctx, &sqs.ListMessageMoveTasksInput{SourceArn: aws.String(c.arn(source)), MaxResults: &limit})
	c.must(err)
	return out.Results
}

// taskEnd follows the newest task until it does not run, for at most five seconds.
func (c *check) taskEnd(source string) types.ListMessageMoveTasksResultEntry {
	for range 50 {
		tasks := c.tasks(source, 1)
		if len(tasks) != 1 {
			c.Fatalf("listed %d tasks, want 1", len(tasks))
		}
		if aws.ToString(tasks[0].Status) != "RUNNING" {
			return tasks[0]
		}
		c.pass(100 * time.Millisecond)
	}
	c.Fatalf("the task does not end")
	return types.ListMessageMoveTasksResultEntry{}
}

func createIsIdempotent(c *check) {
	name := newName()
	first, err := c.create(name, "VisibilityTimeout", "45")
	c.must(err)
	again, err := c.create(name, "VisibilityTimeout", "45")
	c.must(err)
	if first != again {
		c.Errorf("created as %s, then as %s", first, again)
	}
}

func createWithAnotherValueIsRefused(c *check) {
	name := newName()
	_, err := c.create(name, "VisibilityTimeout", "45")
	c.must(err)
	_, err = c.create(name, "VisibilityTimeout", "46")
	wantType[*types.QueueNameExists](c, err)
}

func missingQueue(c *check) {
	there := c.queue()
	missing := there + "-missing"
	_, err := c.sqs.SendMessage(c.ctx, &sqs.SendMessageInput{QueueUrl: &missing, MessageBody: aws.String("x")})
	wantType[*types.QueueDoesNotExist](c, err)
	if api, ok := errors.AsType[smithy.APIError](err); !ok || api.ErrorCode() != "AWS.SimpleQueueService.NonExistentQueue" {
		c.Errorf("error code of %v, want AWS.SimpleQueueService.NonExistentQueue", err)
	}
	_, err = c.sqs.ReceiveMessage(c.ctx, &sqs.ReceiveMessageInput{QueueUrl: &missing})
	wantType[*types.QueueDoesNotExist](c, err)
}

func attributesAreKept(c *check) {
	q := c.queue("MessageRetentionPeriod", "1209600")
	_, err := c.sqs.SetQueueAttributes(c.ctx, &sqs.SetQueueAttributesInput{QueueUrl: &q, Attributes: map[string]string{"DelaySeconds": "7"}})
	c.must(err)
	out, err := c.sqs.GetQueueAttributes(c.ctx, &sqs.GetQueueAttributesInput{QueueUrl: &q, AttributeNames: []types.QueueAttributeName{"All"}})
	c.must(err)
	for name, want := range map[string]string{
		"VisibilityTimeout":             "30",
		"MessageRetentionPeriod":        "1209600",
		"DelaySeconds":                  "7",
		"ReceiveMessageWaitTimeSeconds": "0",
		"MaximumMessageSize":            "1048576",
		"ApproximateNumberOfMessages":   "0",
	} {
		if got := out.Attributes[name]; got != want {
			c.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func invalidAttributeValuesAreRefused(c *check) {
	for _, pair := range [][]string{
		{"VisibilityTimeout", "43201"},
		{"MessageRetentionPeriod", "59"},
		{"DelaySeconds", "901"},
		{"ReceiveMessageWaitTimeSeconds", "21"},
		{"MaximumMessageSize", "1023"},
	} {
		_, err := c.create(newName(), pair...)
		wantType[*types.InvalidAttributeValue](c, err)
	}
}

func unknownAttributesAreRefused(c *check) {
	_, err := c.create(newName(), "NoSuchAttribute", "1")
	wantType[*types.InvalidAttributeName](c, err)
}

func countsTellStates(c *check) {
	q := c.queue()
	for range 3 {
		c.send(q, "x")
	}
	_, err := c.sqs.SendMessage(c.ctx, &sqs.SendMessageInput{QueueUrl: &q, MessageBody: aws.String("later"), DelaySeconds: 900})
	c.must(err)
	c.receiveOne(q, func(in *sqs.ReceiveMessageInput) { in.MaxNumberOfMessages = 1 })
	c.wantCounts(q, 2, 1, 1)
}

func deletedQueueIsGone(c *check) {
	q := c.queue()
	_, err := c.sqs.DeleteQueue(c.ctx, &sqs.DeleteQueueInput{QueueUrl: &q})
	c.must(err)
	_, err = c.sqs.SendMessage(c.ctx, &sqs.SendMessageInput{QueueUrl: &q, MessageBody: aws.String("x")})
	wantType[*types.QueueDoesNotExist](c, err)
}

func deletedNameStaysTaken(c *check) {
	name := newName()
	q, err := c.create(name)
	c.must(err)
	_, err = c.sqs.DeleteQueue(c.ctx, &sqs.DeleteQueueInput{QueueUrl: &q})
	c.must(err)
	_, err = c.create(name)
	wantType[*types.QueueDeletedRecently](c, err)
}

func stringAttribute(value string) types.MessageAttributeValue {
	return types.MessageAttributeValue{DataType: aws.String("String"), StringValue: &value}
}

func someAttributes() map[string]types.MessageAttributeValue {
	return map[string]types.MessageAttributeValue{
		"reason":     stringAttribute("tier_unresolved"),
		"attempt":    {DataType: aws.String("Number"), StringValue: aws.String("12")},
		"trace.id":   {DataType: aws.String("Binary"), BinaryValue: []byte{0, 1, 2}},
		"trace.span": stringAttribute("ä"),
	}
}

// someAttributesMD5 is the digest of someAttributes, as this server and fauxqs
// compute it independently.
const someAttributesMD5 = "aa2f699d5bbee5aef654c6e8e318d2a6"

func (c *check) sendWith(queue string, attributes map[string]types.MessageAttributeValue) (*sqs.SendMessageOutput, error) {
	return c.sqs.SendMessage(c.ctx, &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: aws.String("x"), MessageAttributes: attributes})
}

func messageAttributesTravel(c *check) {
	q := c.queue()
	sent, err := c.sendWith(q, someAttributes())
	c.must(err)
	if got := aws.ToString(sent.MD5OfMessageAttributes); got != someAttributesMD5 {
		c.Errorf("digest when sent %q, want %q", got, someAttributesMD5)
	}
	m := c.receiveOne(q)
	if got := aws.ToString(m.MD5OfMessageAttributes); got != someAttributesMD5 {
		c.Errorf("digest when received %q, want %q", got, someAttributesMD5)
	}
	if got := aws.ToString(m.MessageAttributes["attempt"].StringValue); got != "12" {
		c.Errorf("attempt is %q, want 12", got)
	}
	if got := m.MessageAttributes["trace.id"].BinaryValue; !slices.Equal(got, []byte{0, 1, 2}) {
		c.Errorf("trace.id is %v, want [0 1 2]", got)
	}
}

func receiveSelectsAttributes(c *check) {
	q := c.queue()
	_, err := c.sendWith(q, someAttributes())
	c.must(err)
	for _, want := range []struct {
		asked []string
		names []string
	}{
		{nil, nil},
		{[]string{"reason", "absent"}, []string{"reason"}},
		{[]string{"trace.*"}, []string{"trace.id", "trace.span"}},
		{[]string{".*"}, []string{"attempt", "reason", "trace.id", "trace.span"}},
	} {
		m := c.receiveOne(q, func(in *sqs.ReceiveMessageInput) { in.MessageAttributeNames = want.asked })
		var got []string
		for name := range m.MessageAttributes {
			got = append(got, name)
		}
		slices.Sort(got)
		if !slices.Equal(got, want.names) {
			c.Errorf("asked for %v, got %v, want %v", want.asked, got, want.names)
		}
		c.must(c.changeVisibility(q, m, 0))
	}
}

func invalidMessageAttributesAreRefused(c *check) {
	q := c.queue()
	eleven := map[string]types.MessageAttributeValue{}
	for i := range 11 {
		eleven[fmt.Sprintf("a%d", i)] = stringAttribute("x")
	}
	for _, attributes := range []map[string]types.MessageAttributeValue{
		eleven,
		{"a": {DataType: aws.String("Strange"), StringValue: aws.String("x")}},
		{"a": {DataType: aws.String("Number"), StringValue: aws.String("twelve")}},
		{"a": {DataType: aws.String("String"), StringValue: aws.String("")}},
		{"AWS.a": stringAttribute("x")},
		{"a..b": stringAttribute("x")},
	} {
		_, err := c.sendWith(q, attributes)
		if err == nil {
			c.Errorf("accepted %v", attributes)
			continue
		}
		c.wantCode(err, "InvalidParameterValue")
	}
}

func emptyBodyIsRefused(c *check) {
	q := c.queue()
	_, err := c.sqs.SendMessage(c.ctx, &sqs.SendMessageInput{QueueUrl: &q, MessageBody: aws.String("")})
	c.wantCode(err, "MissingParameter")
}

func invalidCharactersAreRefused(c *check) {
	q := c.queue()
	for _, body := range []string{"a\x00", "a\x1f", "a\uFFFE"} {
		_, err := c.sqs.SendMessage(c.ctx, &sqs.SendMessageInput{QueueUrl: &q, MessageBody: &body})
		wantType[*types.InvalidMessageContents](c, err)
	}
	c.send(q, "tab\t newline\n return\r ä € \U0001F600 <&>")
}

func batchFailsByEntry(c *check) {
	q := c.queue()
	batch := entries("good", "bad", "fine")
	batch[1].MessageBody = aws.String("\x00")
	out, err := c.sendBatch(q, batch)
	c.must(err)
	if len(out.Successful) != 2 || len(out.Failed) != 1 {
		c.Fatalf("%d successful and %d failed, want 2 and 1", len(out.Successful), len(out.Failed))
	}
	if got := *out.Successful[0].Id + *out.Successful[1].Id; got != "goodfine" {
		c.Errorf("successful are %s", got)
	}
	f := out.Failed[0]
	if *f.Id != "bad" || *f.Code != "InvalidMessageContents" || !f.SenderFault {
		c.Errorf("failed entry %s, code %s, sender fault %t", *f.Id, *f.Code, f.SenderFault)
	}
	c.wantCounts(q, 2, 0, 0)
}

func emptyBatchIsRefused(c *check) {
	q := c.queue()
	_, err := c.sendBatch(q, []types.SendMessageBatchRequestEntry{})
	wantType[*types.EmptyBatchRequest](c, err)
}

func elevenEntriesAreRefused(c *check) {
	q := c.queue()
	_, err := c.sendBatch(q, entries("1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"))
	wantType[*types.TooManyEntriesInBatchRequest](c, err)
	c.wantCounts(q, 0, 0, 0)
}

func repeatedEntryIDsAreRefused(c *check) {
	q := c.queue()
	_, err := c.sendBatch(q, entries("a", "b", "a"))
	wantType[*types.BatchEntryIdsNotDistinct](c, err)
	c.wantCounts(q, 0, 0, 0)
}

func invalidEntryIDIsRefused(c *check) {
	q := c.queue()
	for _, id := range []string{"a b", "ä", strings.Repeat("a", 81)} {
		_, err := c.sendBatch(q, entries(id))
		wantType[*types.InvalidBatchEntryId](c, err)
	}
}

func oneMiBIsAccepted(c *check) {
	q := c.queue()
	c.send(q, strings.Repeat("a", 1<<20))
	if m := c.receiveOne(q); len(*m.Body) != 1<<20 {
		c.Errorf("body of %d bytes came back", len(*m.Body))
	}
	body := strings.Repeat("a", 1<<20+1)
	_, err := c.sqs.SendMessage(c.ctx, &sqs.SendMessageInput{QueueUrl: &q, MessageBody: &body})
	c.wantCode(err, "InvalidParameterValue")
}

func batchOverOneMiBIsRefused(c *check) {
	q := c.queue()
	batch := entries("a", "b")
	batch[0].MessageBody = aws.String(strings.Repeat("a", 1<<19))
	batch[1].MessageBody = aws.String(strings.Repeat("b", 1<<19+1))
	_, err := c.sendBatch(q, batch)
	wantType[*types.BatchRequestTooLong](c, err)
	c.wantCounts(q, 0, 0, 0)
}

func maximumMessageSizeIsKept(c *check) {
	q := c.queue("MaximumMessageSize", "1024")
	body := strings.Repeat("a", 1020)
	c.send(q, body)
	_, err := c.sqs.SendMessage(c.ctx, &sqs.SendMessageInput{
		QueueUrl: &q, MessageBody: &body, MessageAttributes: map[string]types.MessageAttributeValue{"reason": stringAttribute("x")},
	})
	c.wantCode(err, "InvalidParameterValue")
}

func delayedMessageComesLater(c *check) {
	q := c.queue()
	_, err := c.sqs.SendMessage(c.ctx, &sqs.SendMessageInput{QueueUrl: &q, MessageBody: aws.String("x"), DelaySeconds: 1})
	c.must(err)
	c.wantNothing(q)
	c.pass(time.Second)
	c.receiveOne(q)
}

func queueDelayApplies(c *check) {
	q := c.queue("DelaySeconds", "1")
	c.send(q, "x")
	c.wantNothing(q)
	c.pass(time.Second)
	c.receiveOne(q)
}

func invalidDelayIsRefused(c *check) {
	q := c.queue()
	_, err := c.sqs.SendMessage(c.ctx, &sqs.SendMessageInput{QueueUrl: &q, MessageBody: aws.String("x"), DelaySeconds: 901})
	c.wantCode(err, "InvalidParameterValue")
	batch := entries("a", "b")
	batch[0].DelaySeconds = 901
	out, err := c.sendBatch(q, batch)
	c.must(err)
	if len(out.Failed) != 1 || *out.Failed[0].Id != "a" {
		c.Errorf("failed entries %v, want a", out.Failed)
	}
}

// polled runs f during a long poll and returns the messages of the poll.
func (c *check) polled(queue string, seconds int32, f func()) []types.Message {
	type answer struct {
		out *sqs.ReceiveMessageOutput
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		out, err := c.sqs.ReceiveMessage(c.ctx, &sqs.ReceiveMessageInput{QueueUrl: &queue, WaitTimeSeconds: seconds, MaxNumberOfMessages: 10})
		answers <- answer{out, err}
	}()
	f()
	a := <-answers
	c.must(a.err)
	return a.out.Messages
}

func longPollEndsWithMessage(c *check) {
	q := c.queue()
	start := time.Now()
	got := c.polled(q, 4, func() {
		c.passDuringPoll(time.Second)
		c.send(q, "x")
	})
	if len(got) != 1 {
		c.Errorf("the poll returned %d messages, want 1", len(got))
	}
	if d := time.Since(start); d > 3*time.Second {
		c.Errorf("the poll took %v", d)
	}
}

func longPollEndsWithVisibility(c *check) {
	q := c.queue("VisibilityTimeout", "1")
	c.send(q, "x")
	c.receiveOne(q)
	got := c.polled(q, 3, func() { c.passDuringPoll(time.Second) })
	if len(got) != 1 {
		c.Errorf("the poll returned %d messages, want 1", len(got))
	}
}

func longPollEndsEmpty(c *check) {
	q := c.queue()
	got := c.polled(q, 1, func() { c.passDuringPoll(time.Second) })
	if len(got) != 0 {
		c.Errorf("the poll returned %d messages, want none", len(got))
	}
}

func receiveTakesAsAsked(c *check) {
	q := c.queue()
	_, err := c.sendBatch(q, entries("1", "2", "3", "4", "5"))
	c.must(err)
	three := c.receive(q, func(in *sqs.ReceiveMessageInput) { in.MaxNumberOfMessages = 3 })
	if len(three) != 3 {
		c.Errorf("received %d messages, want 3", len(three))
	}
	one := c.receive(q, func(in *sqs.ReceiveMessageInput) { in.MaxNumberOfMessages = 0 }) // left out by the SDK
	if len(one) != 1 {
		c.Errorf("received %d messages without a number, want 1", len(one))
	}
}

func invalidReceiveNumbersAreRefused(c *check) {
	q := c.queue()
	for _, in := range []sqs.ReceiveMessageInput{
		{MaxNumberOfMessages: 11},
		{WaitTimeSeconds: 21},
		{VisibilityTimeout: 43201},
	} {
		in.QueueUrl = &q
		_, err := c.sqs.ReceiveMessage(c.ctx, &in)
		c.wantCode(err, "InvalidParameterValue")
	}
}

func systemAttributesComeByBothNames(c *check) {
	q := c.queue()
	c.send(q, "x")
	for _, in := range []sqs.ReceiveMessageInput{
		{AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll}},
		{MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll}},
	} {
		in.QueueUrl = &q
		out, err := c.sqs.ReceiveMessage(c.ctx, &in)
		c.must(err)
		if len(out.Messages) != 1 {
			c.Fatalf("received %d messages, want 1", len(out.Messages))
		}
		m := out.Messages[0]
		for _, name := range []string{"SenderId", "SentTimestamp", "ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp"} {
			if m.Attributes[name] == "" {
				c.Errorf("no attribute %s with %+v", name, in)
			}
		}
		c.must(c.changeVisibility(q, m, 0))
	}
}

func onlyAskedSystemAttributesCome(c *check) {
	q := c.queue()
	c.send(q, "x")
	m := c.receiveOne(q, func(in *sqs.ReceiveMessageInput) {
		in.AttributeNames = nil
		in.MessageSystemAttributeNames = []types.MessageSystemAttributeName{"ApproximateReceiveCount"}
	})
	if len(m.Attributes) != 1 || m.Attributes["ApproximateReceiveCount"] != "1" {
		c.Errorf("attributes %v, want ApproximateReceiveCount 1 only", m.Attributes)
	}
	c.must(c.changeVisibility(q, m, 0))
	m = c.receiveOne(q, func(in *sqs.ReceiveMessageInput) {
		in.AttributeNames = nil
		in.MessageSystemAttributeNames = nil
	})
	if len(m.Attributes) != 0 {
		c.Errorf("attributes %v, want none", m.Attributes)
	}
}

func receiveCountGrows(c *check) {
	q := c.queue()
	c.send(q, "x")
	first := c.receiveOne(q)
	c.must(c.changeVisibility(q, first, 0))
	c.pass(10 * time.Millisecond)
	second := c.receiveOne(q)
	if got := second.Attributes["ApproximateReceiveCount"]; got != "2" {
		c.Errorf("receive count %q, want 2", got)
	}
	const at = "ApproximateFirstReceiveTimestamp"
	if first.Attributes[at] != second.Attributes[at] {
		c.Errorf("first receive %q, then %q", first.Attributes[at], second.Attributes[at])
	}
	if *first.ReceiptHandle == *second.ReceiptHandle {
		c.Errorf("two receives have one handle")
	}
}

func messageComesAgain(c *check) {
	q := c.queue()
	id := c.send(q, "x")
	c.receiveOne(q, visibility(1))
	c.wantNothing(q)
	c.pass(time.Second)
	if m := c.receiveOne(q); *m.MessageId != id {
		c.Errorf("received %s, want %s", *m.MessageId, id)
	}
}

func countsFollowVisibility(c *check) {
	q := c.queue()
	c.send(q, "x")
	c.receiveOne(q, visibility(1))
	c.wantCounts(q, 0, 1, 0)
	c.pass(time.Second)
	c.wantCounts(q, 1, 0, 0)
}

func visibilityZeroReleases(c *check) {
	q := c.queue()
	c.send(q, "x")
	m := c.receiveOne(q)
	c.must(c.changeVisibility(q, m, 0))
	c.receiveOne(q)
}

func visibilityCanBeExtended(c *check) {
	q := c.queue("VisibilityTimeout", "1")
	c.send(q, "x")
	m := c.receiveOne(q)
	c.must(c.changeVisibility(q, m, 100))
	c.pass(time.Second)
	c.wantNothing(q)
	c.wantCode(c.changeVisibility(q, m, 43201), "InvalidParameterValue")
}

func visibilityOfVisibleMessage(c *check) {
	q := c.queue()
	c.send(q, "x")
	m := c.receiveOne(q)
	c.must(c.changeVisibility(q, m, 0))
	wantType[*types.MessageNotInflight](c, c.changeVisibility(q, m, 30))
	c.wantCounts(q, 1, 0, 0)
}

func visibilityOfDeletedMessage(c *check) {
	q := c.queue()
	c.send(q, "x")
	m := c.receiveOne(q)
	c.must(c.delete(q, m))
	c.wantCode(c.changeVisibility(q, m, 30), "InvalidParameterValue")
}

func visibilityByEntry(c *check) {
	q := c.queue()
	c.send(q, "x")
	m := c.receiveOne(q)
	out, err := c.sqs.ChangeMessageVisibilityBatch(c.ctx, &sqs.ChangeMessageVisibilityBatchInput{
		QueueUrl: &q, Entries: []types.ChangeMessageVisibilityBatchRequestEntry{
			{Id: aws.String("good"), ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: 0},
			{Id: aws.String("bad"), ReceiptHandle: aws.String("nonsense"), VisibilityTimeout: 0},
		},
	})
	c.must(err)
	if len(out.Successful) != 1 || len(out.Failed) != 1 {
		c.Fatalf("%d successful and %d failed, want 1 and 1", len(out.Successful), len(out.Failed))
	}
	if f := out.Failed[0]; *f.Id != "bad" || *f.Code != "ReceiptHandleIsInvalid" || !f.SenderFault {
		c.Errorf("failed entry %s, code %s, sender fault %t", *f.Id, *f.Code, f.SenderFault)
	}
	c.wantCounts(q, 1, 0, 0)
}

func deleteRemoves(c *check) {
	q := c.queue()
	c.send(q, "x")
	c.must(c.delete(q, c.receiveOne(q)))
	c.wantCounts(q, 0, 0, 0)
}

func deletingTwiceSucceeds(c *check) {
	q := c.queue()
	c.send(q, "x")
	m := c.receiveOne(q)
	c.must(c.delete(q, m))
	c.must(c.delete(q, m))
}

func oldHandleDeletesNothing(c *check) {
	q := c.queue()
	c.send(q, "x")
	old := c.receiveOne(q)
	c.must(c.changeVisibility(q, old, 0))
	c.receiveOne(q)
	c.must(c.delete(q, old))
	c.wantCounts(q, 0, 1, 0)
}

func expiredHandleDeletes(c *check) {
	q := c.queue("VisibilityTimeout", "1")
	c.send(q, "x")
	m := c.receiveOne(q)
	c.pass(time.Second)
	c.must(c.delete(q, m))
	c.wantCounts(q, 0, 0, 0)
}

var nonsense = types.Message{ReceiptHandle: aws.String("nonsense")}

func deleteRefusesInvalidHandle(c *check) {
	q := c.queue()
	wantType[*types.ReceiptHandleIsInvalid](c, c.delete(q, nonsense))
}

func visibilityRefusesInvalidHandle(c *check) {
	q := c.queue()
	wantType[*types.ReceiptHandleIsInvalid](c, c.changeVisibility(q, nonsense, 30))
}

func deleteByEntry(c *check) {
	q := c.queue()
	c.send(q, "x")
	m := c.receiveOne(q)
	out, err := c.sqs.DeleteMessageBatch(c.ctx, &sqs.DeleteMessageBatchInput{
		QueueUrl: &q, Entries: []types.DeleteMessageBatchRequestEntry{
			{Id: aws.String("bad"), ReceiptHandle: aws.String("nonsense")},
			{Id: aws.String("good"), ReceiptHandle: m.ReceiptHandle},
		},
	})
	c.must(err)
	if len(out.Successful) != 1 || len(out.Failed) != 1 {
		c.Fatalf("%d successful and %d failed, want 1 and 1", len(out.Successful), len(out.Failed))
	}
	if f := out.Failed[0]; *f.Id != "bad" || *f.Code != "ReceiptHandleIsInvalid" || !f.SenderFault {
		c.Errorf("failed entry %s, code %s, sender fault %t", *f.Id, *f.Code, f.SenderFault)
	}
	c.wantCounts(q, 0, 0, 0)
	_, err = c.sqs.DeleteMessageBatch(c.ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &q, Entries: []types.DeleteMessageBatchRequestEntry{}})
	wantType[*types.EmptyBatchRequest](c, err)
}

func deadLetterQueueGetsMessages(c *check) {
	source, dlq := c.deadLetterPair()
	id := c.deadLetter(source, 1)[0]
	c.wantCounts(source, 0, 0, 0)
	if m := c.receiveOne(dlq); *m.MessageId != id {
		c.Errorf("message id %s, want %s", *m.MessageId, id)
	}
}

func deadLetterKeepsEnqueueTime(c *check) {
	source, dlq := c.deadLetterPair()
	c.send(source, "x")
	first := c.receiveOne(source)
	c.pass(10 * time.Millisecond)
	c.must(c.changeVisibility(source, first, 0))
	c.wantNothing(source)
	m := c.receiveOne(dlq)
	if got, want := m.Attributes["SentTimestamp"], first.Attributes["SentTimestamp"]; got != want {
		c.Errorf("sent at %s, want %s", got, want)
	}
}

func deadLetterNamesSource(c *check) {
	source, dlq := c.deadLetterPair()
	c.deadLetter(source, 1)
	m := c.receiveOne(dlq)
	if got, want := m.Attributes["DeadLetterQueueSourceArn"], c.arn(source); got != want {
		c.Errorf("source %q, want %q", got, want)
	}
}

// "the number of times a message has been received across all queues but not
// deleted" (API reference of ReceiveMessage).
func deadLetterKeepsReceiveCount(c *check) {
	source, dlq := c.deadLetterPair()
	c.deadLetter(source, 1)
	m := c.receiveOne(dlq)
	if got := m.Attributes["ApproximateReceiveCount"]; got != "2" {
		c.Errorf("received %s times, want 2", got)
	}
}

func redrivePolicyNeedsTarget(c *check) {
	q := c.queue()
	policy := fmt.Sprintf(`{"deadLetterTargetArn":"%s-missing","maxReceiveCount":3}`, c.arn(q))
	_, err := c.sqs.SetQueueAttributes(c.ctx, &sqs.SetQueueAttributesInput{QueueUrl: &q, Attributes: map[string]string{"RedrivePolicy": policy}})
	c.wantCode(err, "InvalidParameterValue")
}

func moveTaskMoves(c *check) {
	source, dlq := c.deadLetterPair()
	destination := c.queue()
	c.deadLetter(source, 2)
	c.send(dlq, "sent here directly")
	c.must(c.startMove(dlq, destination, 0))
	task := c.taskEnd(dlq)
	if got := aws.ToString(task.Status); got != "COMPLETED" {
		c.Errorf("status %s, want COMPLETED", got)
	}
	if task.ApproximateNumberOfMessagesMoved != 3 || aws.ToInt64(task.ApproximateNumberOfMessagesToMove) != 3 {
		c.Errorf("moved %d of %d, want 3 of 3", task.ApproximateNumberOfMessagesMoved, aws.ToInt64(task.ApproximateNumberOfMessagesToMove))
	}
	if task.TaskHandle != nil {
		c.Errorf("a task that does not run has handle %s", *task.TaskHandle)
	}
	c.wantCounts(dlq, 0, 0, 0)
	c.wantCounts(destination, 3, 0, 0)
}

func movedMessagesAreNew(c *check) {
	source, dlq := c.deadLetterPair()
	destination := c.queue()
	ids := c.deadLetter(source, 1)
	c.must(c.startMove(dlq, destination, 0))
	c.taskEnd(dlq)
	m := c.receiveOne(destination)
	if slices.Contains(ids, *m.MessageId) {
		c.Errorf("the moved message keeps its id")
	}
	if got := m.Attributes["ApproximateReceiveCount"]; got != "1" {
		c.Errorf("receive count %s, want 1", got)
	}
	if *m.Body != "message 0" {
		c.Errorf("body %q", *m.Body)
	}
}

func moveTaskReturnsMessages(c *check) {
	source, dlq := c.deadLetterPair()
	c.deadLetter(source, 2)
	c.must(c.startMove(dlq, "", 0))
	if task := c.taskEnd(dlq); aws.ToString(task.Status) != "COMPLETED" || task.DestinationArn != nil {
		c.Errorf("status %s, destination %s", aws.ToString(task.Status), aws.ToString(task.DestinationArn))
	}
	c.wantCounts(source, 2, 0, 0)
}

func moveTaskFailsForDirectMessages(c *check) {
	_, dlq := c.deadLetterPair()
	c.send(dlq, "sent here directly")
	c.must(c.startMove(dlq, "", 0))
	task := c.taskEnd(dlq)
	if aws.ToString(task.Status) != "FAILED" || aws.ToString(task.FailureReason) != "CouldNotDetermineMessageSource" {
		c.Errorf("status %s, reason %s", aws.ToString(task.Status), aws.ToString(task.FailureReason))
	}
	c.wantCounts(dlq, 1, 0, 0)
}

func moveTaskNeedsDeadLetterQueue(c *check) {
	c.wantCode(c.startMove(c.queue(), c.queue(), 0), "InvalidParameterValue")
}

func moveTaskNeedsQueues(c *check) {
	_, dlq := c.deadLetterPair()
	missing := aws.String(c.arn(dlq) + "-missing")
	_, err := c.sqs.StartMessageMoveTask(c.ctx, &sqs.StartMessageMoveTaskInput{SourceArn: missing})
	wantType[*types.ResourceNotFoundException](c, err)
	_, err = c.sqs.StartMessageMoveTask(c.ctx, &sqs.StartMessageMoveTaskInput{SourceArn: aws.String(c.arn(dlq)), DestinationArn: missing})
	wantType[*types.ResourceNotFoundException](c, err)
	_, err = c.sqs.ListMessageMoveTasks(c.ctx, &sqs.ListMessageMoveTasksInput{SourceArn: missing})
	wantType[*types.ResourceNotFoundException](c, err)
	c.wantCode(c.startMove(dlq, dlq, 0), "InvalidParameterValue")
}

func moveTaskKeepsRate(c *check) {
	source, dlq := c.deadLetterPair()
	c.deadLetter(source, 6)
	c.must(c.startMove(dlq, source, 1))
	c.pass(time.Second)
	task := c.tasks(dlq, 1)[0]
	if got := aws.ToString(task.Status); got != "RUNNING" {
		c.Errorf("status %s after a second, want RUNNING", got)
	}
	if n := task.ApproximateNumberOfMessagesMoved; n < 1 || n > 5 || aws.ToInt64(task.ApproximateNumberOfMessagesToMove) != 6 {
		c.Errorf("moved %d of %d after a second", n, aws.ToInt64(task.ApproximateNumberOfMessagesToMove))
	}
	if got := aws.ToInt32(task.MaxNumberOfMessagesPerSecond); got != 1 {
		c.Errorf("rate %d, want 1", got)
	}
}

func oneMoveTaskRuns(c *check) {
	source, dlq := c.deadLetterPair()
	c.deadLetter(source, 3)
	c.must(c.startMove(dlq, source, 1))
	c.wantCode(c.startMove(dlq, source, 1), "InvalidParameterValue")
}

func moveTasksAreListed(c *check) {
	source, dlq := c.deadLetterPair()
	destinations := []string{source, c.queue()}
	for _, destination := range destinations {
		c.deadLetter(source, 1)
		c.must(c.startMove(dlq, destination, 0))
		c.taskEnd(dlq)
		for _, m := range c.receive(destination) {
			c.must(c.delete(destination, m))
		}
		c.pass(10 * time.Millisecond)
	}
	tasks := c.tasks(dlq, 10)
	if len(tasks) != 2 {
		c.Fatalf("listed %d tasks, want 2", len(tasks))
	}
	if aws.ToString(tasks[0].DestinationArn) != c.arn(destinations[1]) {
		c.Errorf("the newest task is not first")
	}
	if tasks[0].StartedTimestamp < tasks[1].StartedTimestamp {
		c.Errorf("started at %d, then %d", tasks[1].StartedTimestamp, tasks[0].StartedTimestamp)
	}
}

func invalidMoveTaskValuesAreRefused(c *check) {
	source, dlq := c.deadLetterPair()
	c.wantCode(c.startMove(dlq, source, 501), "InvalidParameterValue")
	_, err := c.sqs.ListMessageMoveTasks(c.ctx, &sqs.ListMessageMoveTasksInput{SourceArn: aws.String(c.arn(dlq)), MaxResults: aws.Int32(11)})
	c.wantCode(err, "InvalidParameterValue")
}

func unsignedRequestIsRefused(c *check) {
	req, err := http.NewRequestWithContext(c.ctx, http.MethodPost, c.url, strings.NewReader("{}"))
	c.must(err)
	req.Header.Set("X-Amz-Target", "AmazonSQS.CreateQueue")
	req.Header.Set("Content-Type", "application/x-amz-json-1.0")
	resp, err := http.DefaultClient.Do(req)
	c.must(err)
	body, err := io.ReadAll(resp.Body)
	c.must(err)
	c.must(resp.Body.Close())
	if resp.StatusCode != http.StatusForbidden || !strings.Contains(string(body), "MissingAuthenticationToken") {
		c.Errorf("status %d: %s", resp.StatusCode, body)
	}
}
