package testworld

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/sqsserver"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
)

// Visibility is the queues' visibility timeout. It is so long that only a step makes a message visible again.
const Visibility = 6 * time.Minute

func (w *World) startQueues() {
	w.Helper()
	var err error
	if w.SQS, err = sqsserver.Start(sqsserver.Options{Clock: w.Clock}); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := w.SQS.Close(); err != nil {
			w.Error(err)
		}
	})
	w.Queues = w.QueueClient(w.Connections())
	for name, url := range map[string]*string{"work": &w.Work, "results": &w.Results, "dead-letter": &w.DeadLetter} {
		out, err := w.Queues.CreateQueue(w.Context(), &sqs.CreateQueueInput{
			QueueName: &name, Attributes: map[string]string{"VisibilityTimeout": strconv.Itoa(int(Visibility.Seconds()))},
		})
		if err != nil {
			w.Fatal(err)
		}
		*url = *out.QueueUrl
	}
}

// Connections returns an HTTP client with its own connections, because an abandoned request closes its connection and
// must not close that of another process.
func (w *World) Connections() *http.Client {
	client := sqsserver.HTTPClient()
	w.Cleanup(client.CloseIdleConnections)
	return client
}

// QueueClient returns an SQS client that does not retry.
func (w *World) QueueClient(through sqs.HTTPClient) *sqs.Client {
	return sqs.NewFromConfig(w.SQS.AWSConfig(), func(o *sqs.Options) { o.Retryer, o.HTTPClient = aws.NopRetryer{}, through })
}

// Receive receives all visible messages of a queue.
func (w *World) Receive(url string) []types.Message {
	w.Helper()
	var all []types.Message
	for {
		out, err := w.Queues.ReceiveMessage(w.Context(), &sqs.ReceiveMessageInput{
			QueueUrl: &url, MaxNumberOfMessages: 10, MessageAttributeNames: []string{"All"},
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
		})
		if err != nil {
			w.Fatal(err)
		}
		if len(out.Messages) == 0 {
			return all
		}
		all = append(all, out.Messages...)
	}
}

// Received receives and deletes all visible messages of a queue, and returns their bodies.
func (w *World) Received(url string) []string {
	w.Helper()
	messages := w.Receive(url)
	for some := range slices.Chunk(messages, 10) {
		var entries []types.DeleteMessageBatchRequestEntry
		for _, m := range some {
			entries = append(entries, types.DeleteMessageBatchRequestEntry{Id: m.MessageId, ReceiptHandle: m.ReceiptHandle})
		}
		if _, err := w.Queues.DeleteMessageBatch(w.Context(), &sqs.DeleteMessageBatchInput{QueueUrl: &url, Entries: entries}); err != nil {
			w.Fatal(err)
		}
	}
	return Bodies(messages)
}

// Bodies returns the messages' bodies.
func Bodies(messages []types.Message) []string {
	var all []string
	for _, m := range messages {
		all = append(all, *m.Body)
	}
	return all
}

// SentWork receives and deletes a run's messages in the work queue. It returns their organizations, sorted, each as often
// as it was sent.
func (w *World) SentWork(runID string) []string {
	w.Helper()
	var orgs []string
	for _, body := range w.Received(w.Work) {
		work, err := sqsqueue.DecodeWork(body)
		if err != nil || work.RunID != runID {
			w.Errorf("the message %s is of another run or unreadable: %v", body, err)
		}
		orgs = append(orgs, work.OrgID)
	}
	slices.Sort(orgs)
	return orgs
}
