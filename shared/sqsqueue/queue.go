package sqsqueue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

const (
	// batchSize is SQS's limit for one call.
	// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
	batchSize = 10
	// parallelBatches is how many batches of a page are sent at once.
	parallelBatches = 16
	// sendTries bounds how often refused entries are sent before the send is an error.
	sendTries   = 5
	sendBackoff = 100 * time.Millisecond
	// maxVisibility is the longest visibility timeout that SQS takes.
	maxVisibility = 12 * time.Hour
	// maxAttribute bounds the error text in a dead letter.
	maxAttribute = 2048
)

// Queue is one SQS queue.
type Queue struct {
	client *sqs.Client
	url    string
}

// New returns the queue with the URL.
func New(client *sqs.Client, url string) *Queue { return &Queue{client: client, url: url} }

// SendWork sends one message for each organization. It returns nil only if SQS accepted all of them.
func (q *Queue) SendWork(ctx context.Context, runID string, orgIDs []string) error {
	var sends errgroup.Group
	sends.SetLimit(parallelBatches)
	for batch := range slices.Chunk(orgIDs, batchSize) {
		sends.Go(func() error { return q.sendBatch(ctx, runID, batch) })
	}
	return sends.Wait()
}

func (q *Queue) sendBatch(ctx context.Context, runID string, orgIDs []string) error {
	entries := make([]types.SendMessageBatchRequestEntry, len(orgIDs))
	for i, id := range orgIDs {
		body, err := EncodeWork(billing.Work{RunID: runID, OrgID: id})
		if err != nil {
			return err
		}
		entries[i] = types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), MessageBody: &body}
	}
	policy := backoff.NewExponentialBackOff()
	policy.InitialInterval = sendBackoff
	_, err := backoff.Retry(ctx, func() (bool, error) {
		refused, err := q.trySend(ctx, entries)
		if err == nil && len(refused) > 0 {
			err = fmt.Errorf("SQS did not accept %d of %d messages", len(refused), len(orgIDs))
		}
		entries = refused
		return true, err
	}, backoff.WithBackOff(policy), backoff.WithMaxTries(sendTries))
	if err != nil {
		return unavailable("send work to "+q.url, err)
	}
	return nil
}

// trySend sends the entries once and returns those that SQS did not accept; if there is no response, all.
func (q *Queue) trySend(ctx context.Context, entries []types.SendMessageBatchRequestEntry) ([]types.SendMessageBatchRequestEntry, error) {
	out, err := q.client.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: &q.url, Entries: entries})
	if err != nil {
		return entries, err
	}
	accepted := make(map[string]bool, len(out.Successful))
	for _, s := range out.Successful {
		accepted[aws.ToString(s.Id)] = true
	}
	var refused []types.SendMessageBatchRequestEntry
	for _, e := range entries {
		if !accepted[aws.ToString(e.Id)] {
			refused = append(refused, e)
		}
	}
	return refused, nil
}

// SendProgress tells the aggregator to look at a run.
func (q *Queue) SendProgress(ctx context.Context, runID string) error {
	body, err := EncodeProgress(runID)
	if err != nil {
		return err
	}
	return q.send(ctx, body, nil)
}

// SendDeadLetter sends the body of a dead letter to this queue, with the failure and the work as
// attributes. work is empty if the body could not be read.
func (q *Queue) SendDeadLetter(ctx context.Context, body string, work billing.Work, f *billing.Failure) error {
	attributes := map[string]types.MessageAttributeValue{}
	for name, value := range map[string]string{
		"reason": string(f.Reason), "error": f.Error(), "runId": work.RunID, "orgId": work.OrgID,
	} {
		if value != "" { // SQS refuses an empty attribute
			attributes[name] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(attributeText(value))}
		}
	}
	return q.send(ctx, body, attributes)
}

func (q *Queue) send(ctx context.Context, body string, attributes map[string]types.MessageAttributeValue) error {
	_, err := q.client.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &q.url, MessageBody: &body, MessageAttributes: attributes})
	if err != nil {
		return unavailable("send to "+q.url, err)
	}
	return nil
}

// attributeText replaces the characters that SQS refuses in an attribute, and truncates the text.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
func attributeText(s string) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r == '\uFFFE' || r == '\uFFFF' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(clean) > maxAttribute {
		clean = strings.ToValidUTF8(clean[:maxAttribute], "")
	}
	return clean
}

// Visibility is a received message and its new visibility timeout, from now on.
type Visibility struct {
	ReceiptHandle string
	Timeout       time.Duration
}

// ChangeVisibility sets the visibility timeouts, in whole seconds. An error says how many SQS refused.
func (q *Queue) ChangeVisibility(ctx context.Context, messages []Visibility) error {
	refused, cause := 0, error(nil)
	for batch := range slices.Chunk(messages, batchSize) {
		n, err := q.changeVisibilityBatch(ctx, batch)
		if err != nil {
			refused, cause = refused+n, err
		}
	}
	if cause != nil {
		return unavailable(fmt.Sprintf("delay %d of %d messages of %s", refused, len(messages), q.url), cause)
	}
	return nil
}

// changeVisibilityBatch returns how many messages SQS refused, and why.
func (q *Queue) changeVisibilityBatch(ctx context.Context, batch []Visibility) (int, error) {
	entries := make([]types.ChangeMessageVisibilityBatchRequestEntry, len(batch))
	for i, m := range batch {
		timeout := max(0, min(m.Timeout, maxVisibility)).Round(time.Second)
		entries[i] = types.ChangeMessageVisibilityBatchRequestEntry{
			Id: aws.String(strconv.Itoa(i)), ReceiptHandle: &batch[i].ReceiptHandle, VisibilityTimeout: int32(timeout.Seconds()),
		}
	}
	out, err := q.client.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &q.url, Entries: entries})
	if err != nil {
		return len(batch), err
	}
	if len(out.Failed) > 0 {
		return len(out.Failed), errors.New(aws.ToString(out.Failed[0].Message))
	}
	return 0, nil
}

// Backoff returns the visibility timeout after the n-th failed receive: [billing.Backoff] times 1 to 1.2, random so
// that messages which failed together are not retried together.
func Backoff(base time.Duration, receiveCount int) time.Duration {
	least := billing.Backoff(base, receiveCount)
	return least + time.Duration(rand.Float64()*0.2*float64(least))
}

func unavailable(doing string, err error) error {
	return &billing.Failure{
		Class: billing.Unavailable, Reason: billing.ReasonQueueUnavailable,
		Message: "cannot " + doing + " (check the queue's URL and the permissions)", Err: err,
	}
}
