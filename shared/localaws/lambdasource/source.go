package lambdasource

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/uuid"

	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

const (
	defaultBatchSize = 10     // as Lambda's
	maxBatchSize     = 10_000 // of a standard queue
	maxPerCall       = 10     // messages that one SQS call takes
	longPoll         = 20     // seconds, the longest that SQS allows

	// windowFrom is the batch size from which Lambda demands a batch window.
	windowFrom = 10

	// deleteAttempts is how often a delete is tried that failed without SenderFault.
	deleteAttempts = 3

	// settleTimeout bounds the calls that delete or return messages after the context of Run has ended.
	settleTimeout = 10 * time.Second

	minBackoff = 100 * time.Millisecond
	maxBackoff = 10 * time.Second
)

// Handler is a Lambda function for SQS events. It must return when its context ends.
type Handler func(context.Context, events.SQSEvent) (events.SQSEventResponse, error)

// Source connects a queue to a handler.
type Source struct {
	Queue   string // URL
	Client  *sqs.Client
	Handler Handler

	// BatchSize is the limit of messages in one invocation: 1 to 10,000, default 10. More than 10 require a
	// BatchWindow, as in Lambda.
	BatchSize int
	// BatchWindow is how long a batch that is not full waits for more messages. SQS waits in whole seconds, so a
	// window may end a second late. Zero: the batch is the first receive.
	BatchWindow time.Duration
	// MaxConcurrency is the limit of concurrent invocations; default 1. (Lambda's minimum is 2.)
	MaxConcurrency int
	// Timeout is the function's timeout, required.
	Timeout time.Duration
	// Log receives failed invocations and errors of the queue; default slog.Default().
	Log *slog.Logger
}

// Run receives and invokes until ctx ends, then waits for running invocations. It returns an error only for an invalid
// Source; an unreachable or missing queue is retried with backoff.
func (s *Source) Run(ctx context.Context) error {
	if err := s.check(); err != nil {
		return err
	}
	r := &runner{
		Source:      *s,
		batchSize:   s.BatchSize,
		concurrency: max(s.MaxConcurrency, 1),
		log:         s.Log,
	}
	if r.batchSize == 0 {
		r.batchSize = defaultBatchSize
	}
	if r.log == nil {
		r.log = slog.Default()
	}
	r.log = r.log.With(telemetry.KeyQueue, s.Queue)

	if !r.findQueue(ctx) {
		return nil
	}
	var workers sync.WaitGroup
	for range r.concurrency {
		workers.Go(func() { r.work(ctx) })
	}
	workers.Wait()
	return nil
}

func (s *Source) check() error {
	var problems []error
	if s.Queue == "" {
		problems = append(problems, errors.New("no Queue"))
	}
	if s.Client == nil {
		problems = append(problems, errors.New("no Client"))
	}
	if s.Handler == nil {
		problems = append(problems, errors.New("no Handler"))
	}
	if s.BatchSize < 0 || s.BatchSize > maxBatchSize {
		problems = append(problems, fmt.Errorf("BatchSize %d is not between 1 and %d", s.BatchSize, maxBatchSize))
	}
	if s.BatchWindow < 0 {
		problems = append(problems, errors.New("BatchWindow is negative"))
	}
	if s.BatchSize > windowFrom && s.BatchWindow == 0 {
		problems = append(problems, fmt.Errorf("a BatchSize above %d needs a BatchWindow", windowFrom))
	}
	if s.MaxConcurrency < 0 {
		problems = append(problems, errors.New("MaxConcurrency is negative"))
	}
	if s.Timeout <= 0 {
		problems = append(problems, errors.New("no Timeout"))
	}
	if len(problems) > 0 {
		return fmt.Errorf("lambdasource: %w", errors.Join(problems...))
	}
	return nil
}

// runner is a running Source with its defaults.
type runner struct {
	Source
	batchSize   int
	concurrency int
	log         *slog.Logger
	arn         string // of the queue
}

// findQueue looks up the queue's ARN, which is in every event. It retries until ctx ends and then returns false.
func (r *runner) findQueue(ctx context.Context) bool {
	const arn = types.QueueAttributeNameQueueArn
	for wait := minBackoff; ; wait = min(2*wait, maxBackoff) {
		out, err := r.Client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
			QueueUrl:       &r.Queue,
			AttributeNames: []types.QueueAttributeName{arn},
		})
		if err == nil {
			r.arn = out.Attributes[string(arn)]
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		r.log.Warn("Queue cannot be read, will try again", telemetry.KeyError, err, telemetry.KeyDelayMs, wait.Milliseconds())
		if !sleep(ctx, wait) {
			return false
		}
	}
}

// regionOf returns the region of arn:aws:sqs:REGION:ACCOUNT:NAME.
func regionOf(arn string) string {
	parts := strings.Split(arn, ":")
	if len(parts) < 4 {
		return ""
	}
	return parts[3]
}

// work gathers batches and invokes the handler until ctx ends.
func (r *runner) work(ctx context.Context) {
	wait := minBackoff
	for ctx.Err() == nil {
		batch, err := r.gather(ctx)
		if ctx.Err() != nil {
			r.release(ctx, batch)
			return
		}
		if err != nil {
			r.log.Warn("Queue cannot be received from, will try again", telemetry.KeyError, err, telemetry.KeyDelayMs, wait.Milliseconds())
			if !sleep(ctx, wait) {
				return
			}
			wait = min(2*wait, maxBackoff)
			continue
		}
		wait = minBackoff
		if len(batch) > 0 {
			r.process(ctx, batch)
		}
	}
}

// gather receives a batch. If ctx has ended, the caller must return its messages to the queue.
func (r *runner) gather(ctx context.Context) ([]types.Message, error) {
	batch, err := r.receive(ctx, r.batchSize, longPoll)
	if err != nil || len(batch) == 0 || r.BatchWindow == 0 {
		return batch, err
	}
	return r.fill(ctx, batch), nil
}

// fill adds messages until the end of the batch window. An error ends the window, so that the received messages do not
// wait; the next receive reports the error.
func (r *runner) fill(ctx context.Context, batch []types.Message) []types.Message {
	end := time.Now().Add(r.BatchWindow)
	for len(batch) < r.batchSize && ctx.Err() == nil {
		left := time.Until(end)
		if left <= 0 {
			break
		}
		seconds := min(int32(math.Ceil(left.Seconds())), longPoll)
		more, err := r.receive(ctx, r.batchSize-len(batch), seconds)
		if err != nil {
			break
		}
		batch = append(batch, more...)
	}
	return batch
}

// receive calls ReceiveMessage once, for at most n messages, with a long poll of the given seconds. They must not be
// zero: the SDK omits a zero, and the queue's own wait time would apply.
func (r *runner) receive(ctx context.Context, n int, seconds int32) ([]types.Message, error) {
	out, err := r.Client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl:                    &r.Queue,
		MaxNumberOfMessages:         int32(min(n, maxPerCall)),
		WaitTimeSeconds:             seconds,
		MessageAttributeNames:       []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
	})
	if err != nil {
		return nil, err
	}
	return out.Messages, nil
}

// process invokes the handler with a batch and deletes the messages that succeeded.
func (r *runner) process(ctx context.Context, batch []types.Message) {
	requestID := uuid.NewString()
	log := r.log.With(telemetry.KeyRequestID, requestID, telemetry.KeyCount, len(batch))
	response, err := r.invoke(ctx, requestID, Event(r.arn, batch))
	if err != nil {
		log.Error("Invocation failed", telemetry.KeyError, err)
		return
	}
	done, err := succeeded(batch, response)
	if err != nil {
		log.Error("Invocation gave an invalid batch response", telemetry.KeyError, err)
		return
	}
	settle, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if err := r.delete(settle, done); err != nil {
		log.Error("Processed messages could not be deleted and will be received again", telemetry.KeyError, err)
	}
}

// invoke calls the handler with its deadline. A panic and a missed deadline are errors. The handler's context does not
// end with ctx.
func (r *runner) invoke(ctx context.Context, requestID string, event events.SQSEvent) (response events.SQSEventResponse, err error) {
	ctx = lambdacontext.NewContext(context.WithoutCancel(ctx), &lambdacontext.LambdaContext{AwsRequestID: requestID})
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("handler panicked: %v\n%s", p, debug.Stack())
		}
	}()
	response, err = r.Handler(ctx, event)
	if ctx.Err() != nil {
		return response, fmt.Errorf("task timed out after %v", r.Timeout)
	}
	return response, err
}

// succeeded returns the messages that the response does not list as failed.
func succeeded(batch []types.Message, response events.SQSEventResponse) ([]types.Message, error) {
	known := map[string]bool{}
	for _, m := range batch {
		known[aws.ToString(m.MessageId)] = true
	}
	failed := map[string]bool{}
	for _, f := range response.BatchItemFailures {
		if f.ItemIdentifier == "" {
			return nil, errors.New("empty itemIdentifier")
		}
		if !known[f.ItemIdentifier] {
			return nil, fmt.Errorf("itemIdentifier %q is not in the batch", f.ItemIdentifier)
		}
		failed[f.ItemIdentifier] = true
	}
	var done []types.Message
	for _, m := range batch {
		if !failed[aws.ToString(m.MessageId)] {
			done = append(done, m)
		}
	}
	return done, nil
}

// delete deletes messages, ten a call. It retries entries that fail without SenderFault.
func (r *runner) delete(ctx context.Context, messages []types.Message) error {
	var problems []error
	for part := range slices.Chunk(messages, maxPerCall) {
		if err := r.deletePart(ctx, part); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

func (r *runner) deletePart(ctx context.Context, part []types.Message) error {
	var refused []error
	wait := minBackoff
	for attempt := 1; ; attempt++ {
		entries := make([]types.DeleteMessageBatchRequestEntry, len(part))
		for i, m := range part {
			entries[i] = types.DeleteMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), ReceiptHandle: m.ReceiptHandle}
		}
		out, err := r.Client.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &r.Queue, Entries: entries})
		if err != nil {
			return errors.Join(append(refused, err)...)
		}
		var again []types.Message
		var failures []error
		for _, f := range out.Failed {
			m, err := entryOf(part, f)
			if err != nil {
				return err
			}
			failure := fmt.Errorf("message %s: %s: %s", aws.ToString(m.MessageId), aws.ToString(f.Code), aws.ToString(f.Message))
			if f.SenderFault {
				refused = append(refused, failure)
				continue
			}
			failures = append(failures, failure)
			again = append(again, m)
		}
		if len(again) == 0 {
			return errors.Join(refused...)
		}
		if attempt == deleteAttempts || !sleep(ctx, wait) {
			return errors.Join(append(refused, failures...)...)
		}
		part, wait = again, 2*wait
	}
}

// entryOf returns the message of a failed entry.
func entryOf(part []types.Message, f types.BatchResultErrorEntry) (types.Message, error) {
	i, err := strconv.Atoi(aws.ToString(f.Id))
	if err != nil || i < 0 || i >= len(part) {
		return types.Message{}, fmt.Errorf("failed entry with unknown id %q", aws.ToString(f.Id))
	}
	return part[i], nil
}

// release makes messages visible at once that the handler did not get.
func (r *runner) release(ctx context.Context, messages []types.Message) {
	if len(messages) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	for part := range slices.Chunk(messages, maxPerCall) {
		entries := make([]types.ChangeMessageVisibilityBatchRequestEntry, len(part))
		for i, m := range part {
			entries[i] = types.ChangeMessageVisibilityBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), ReceiptHandle: m.ReceiptHandle}
		}
		out, err := r.Client.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &r.Queue, Entries: entries})
		if err != nil {
			r.log.Warn("Messages could not be released, they wait for their visibility timeout", telemetry.KeyError, err)
			continue
		}
		for _, f := range out.Failed {
			r.log.Warn("Message could not be released, it waits for its visibility timeout",
				telemetry.KeyReason, aws.ToString(f.Code), telemetry.KeyError, aws.ToString(f.Message))
		}
	}
}

// Event returns the messages as the event that Lambda passes to a function.
func Event(arn string, batch []types.Message) events.SQSEvent {
	records := make([]events.SQSMessage, len(batch))
	for i, m := range batch {
		records[i] = events.SQSMessage{
			MessageId:              aws.ToString(m.MessageId),
			ReceiptHandle:          aws.ToString(m.ReceiptHandle),
			Body:                   aws.ToString(m.Body),
			Md5OfBody:              aws.ToString(m.MD5OfBody),
			Md5OfMessageAttributes: aws.ToString(m.MD5OfMessageAttributes),
			Attributes:             m.Attributes,
			MessageAttributes:      messageAttributes(m.MessageAttributes),
			EventSourceARN:         arn,
			EventSource:            "aws:sqs",
			AWSRegion:              regionOf(arn),
		}
	}
	return events.SQSEvent{Records: records}
}

func messageAttributes(in map[string]types.MessageAttributeValue) map[string]events.SQSMessageAttribute {
	out := make(map[string]events.SQSMessageAttribute, len(in))
	for name, v := range in {
		out[name] = events.SQSMessageAttribute{
			DataType:         aws.ToString(v.DataType),
			StringValue:      v.StringValue,
			BinaryValue:      v.BinaryValue,
			StringListValues: []string{},
			BinaryListValues: [][]byte{},
		}
	}
	return out
}

// sleep waits for d. It reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
