package handler_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/handler"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/lambdasource"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

func TestMain(m *testing.M) { mysqltest.Main(m) }

const (
	runID      = "2026-11-22T03:00:00Z"
	backoff    = 30 * time.Second
	maxReceive = 12
)

var (
	start           = testworld.Start
	price, canceled = testworld.Price, testworld.Canceled
)

// fixture is a world and the functions in it. The steps' clock is stopped: only the queues' moves.
type fixture struct{ *testworld.World }

func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{testworld.New(t)}
	f.Now = func() time.Time { return start }
	return f
}

func (f *fixture) enumerator() handler.Enumerator {
	step := f.Enumerator(nil)
	step.Downgrades, step.PageSize, step.Reserve = func(int) int { return 100 }, 7, 0
	return handler.Enumerator{Enumerator: step}
}

func (f *fixture) worker() handler.Worker { return f.workerOn(f.Store, f.Queues) }

func (f *fixture) workerOn(store *mysqlstore.Store, queues *sqs.Client) handler.Worker {
	step := f.Reconciler(nil)
	step.Store, step.Reserve = store, 0
	return handler.Worker{
		Reconciler: step, Work: sqsqueue.New(queues, f.Work), DeadLetter: sqsqueue.New(queues, f.DeadLetter), Progress: sqsqueue.New(queues, f.Results),
		MaxReceive: maxReceive, Backoff: backoff, Log: f.Logger(),
	}
}

func (f *fixture) aggregator() handler.Aggregator {
	return handler.Aggregator{Log: f.Logger(), Aggregator: f.Aggregator(nil)}
}

func (f *fixture) send(url string, bodies ...string) {
	f.Helper()
	for _, body := range bodies {
		if _, err := f.Queues.SendMessage(f.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body}); err != nil {
			f.Fatal(err)
		}
	}
}

func workBody(run, org string) string {
	return fmt.Sprintf(`{"version":1,"runId":%q,"orgId":%q}`, run, org)
}

// handle invokes the worker with the visible messages of the work queue, deletes those that it finished, and returns the
// bodies of those that it reported as failed.
func (f *fixture) handle(w handler.Worker) (failed []string) {
	f.Helper()
	messages := f.Receive(f.Work)
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
		if _, err := f.Queues.DeleteMessage(f.Context(), &sqs.DeleteMessageInput{QueueUrl: &f.Work, ReceiptHandle: m.ReceiptHandle}); err != nil {
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
	depth, err := sqsqueue.New(f.Queues, url).Depth(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	return depth.All()
}

func (f *fixture) arn(url string) string {
	f.Helper()
	out, err := f.Queues.GetQueueAttributes(f.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn}})
	if err != nil {
		f.Fatal(err)
	}
	return out.Attributes["QueueArn"]
}

// giveUpAfter sets the receive count after which the work queue moves a message to the dead-letter queue.
func (f *fixture) giveUpAfter(receives int) {
	f.Helper()
	if _, err := f.Queues.SetQueueAttributes(f.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &f.Work, Attributes: map[string]string{
		"RedrivePolicy": fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":"%d"}`, f.arn(f.DeadLetter), receives),
	}}); err != nil {
		f.Fatal(err)
	}
}

// redrive moves the dead letters back to the work queue.
func (f *fixture) redrive() {
	f.Helper()
	if _, err := f.Queues.StartMessageMoveTask(f.Context(), &sqs.StartMessageMoveTaskInput{
		SourceArn: aws.String(f.arn(f.DeadLetter)), DestinationArn: aws.String(f.arn(f.Work)),
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

// openRun opens a running run over the organizations.
func (f *fixture) openRun(orgIDs ...string) {
	f.Helper()
	f.OpenRun(runID, orgIDs)
}

func (f *fixture) outcome(orgID string) billing.Outcome {
	f.Helper()
	return mysqltest.Value[billing.Outcome](f.TB, f.DB, `SELECT outcome FROM reconciliation_items WHERE org_id = ?`, orgID)
}

func (f *fixture) status() billing.RunStatus {
	f.Helper()
	return mysqltest.Value[billing.RunStatus](f.TB, f.DB, `SELECT status FROM reconciliation_runs`)
}

func (f *fixture) summary() billing.Summary {
	f.Helper()
	answer, err := f.aggregator().Handle(f.Context(), json.RawMessage(`{"runId":"`+runID+`"}`))
	if err != nil {
		f.Fatal(err)
	}
	return answer.(billing.Summary)
}
