package sqsqueue_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/sqsserver"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
)

// deadLetterOf makes a queue whose dead-letter queue is l.
func deadLetterOf(t *testing.T, l local) *sqsqueue.Queue {
	t.Helper()
	attributes, err := l.client.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &l.url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn}})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := json.Marshal(map[string]string{"deadLetterTargetArn": attributes.Attributes["QueueArn"], "maxReceiveCount": "3"})
	if err != nil {
		t.Fatal(err)
	}
	out, err := l.client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("work"), Attributes: map[string]string{"RedrivePolicy": string(policy)}})
	if err != nil {
		t.Fatal(err)
	}
	return sqsqueue.New(l.client, *out.QueueUrl)
}

func depth(t *testing.T, q *sqsqueue.Queue) sqsqueue.Depth {
	t.Helper()
	d, err := q.Depth(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDepthCountsVisibleInFlightAndDelayedMessages(t *testing.T) {
	l := start(t)
	for i := range 6 {
		if _, err := l.client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &l.url, MessageBody: aws.String("x"), DelaySeconds: int32(i / 5)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &l.url, MaxNumberOfMessages: 2}); err != nil {
		t.Fatal(err)
	}
	if d := depth(t, l.Queue); d != (sqsqueue.Depth{Visible: 3, InFlight: 2, Delayed: 1}) || d.All() != 6 {
		t.Errorf("%+v", d)
	}
}

func TestRedriveMovesAllMessagesAndReportsProgress(t *testing.T) {
	l := start(t)
	work := deadLetterOf(t, l)
	redrive, err := sqsqueue.NewRedrive(t.Context(), l.Queue, work)
	if err != nil {
		t.Fatal(err)
	}
	if move, found, err := redrive.Last(t.Context()); err != nil || found {
		t.Errorf("before the first one: %+v, found %t, %v", move, found, err)
	}
	// Sent directly: SQS does not know the source of such messages.
	if err := l.SendWork(t.Context(), "run-1", organizations(25)); err != nil {
		t.Fatal(err)
	}
	if err := redrive.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	move, found, err := redrive.Last(t.Context())
	want := sqsqueue.MoveTask{Status: "COMPLETED", Moved: 25, ToMove: 25, Started: time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)}
	if err != nil || !found || move != want || !move.Completed() || move.Running() {
		t.Errorf("%+v, found %t, %v; want %+v", move, found, err, want)
	}
	if from, to := depth(t, l.Queue).All(), depth(t, work).All(); from != 0 || to != 25 {
		t.Errorf("%d messages are left and %d arrived", from, to)
	}
}

func TestRedriveFromAnOrdinaryQueueIsRefused(t *testing.T) {
	l := start(t)
	work := deadLetterOf(t, l)
	wrongWay, err := sqsqueue.NewRedrive(t.Context(), work, l.Queue)
	if err != nil {
		t.Fatal(err)
	}
	err = wrongWay.Start(t.Context())
	wantUnavailable(t, err)
	if apiErr, ok := errors.AsType[smithy.APIError](err); !ok || apiErr.ErrorMessage() == "" {
		t.Errorf("%v does not say what SQS said", err)
	}
}

func TestRedriveOfAMissingQueueOrWithoutPermissionIsUnavailable(t *testing.T) {
	l := start(t)
	work := deadLetterOf(t, l)
	if _, err := sqsqueue.NewRedrive(t.Context(), sqsqueue.New(l.client, l.url+"-other"), work); err == nil {
		t.Error("a queue that does not exist was looked up")
	} else if apiErr, ok := errors.AsType[smithy.APIError](err); !ok || apiErr.ErrorCode() == "" {
		t.Errorf("%v has no code", err)
	}
	redrive, err := sqsqueue.NewRedrive(t.Context(), l.Queue, work)
	if err != nil {
		t.Fatal(err)
	}
	l.server.SetFail(func(string) *sqsserver.Fault { return &sqsserver.AccessDenied })
	_, _, lastErr := redrive.Last(t.Context())
	_, depthErr := work.Depth(t.Context())
	for i, err := range []error{redrive.Start(t.Context()), lastErr, depthErr} {
		t.Run(fmt.Sprint(i), func(t *testing.T) { wantUnavailable(t, err) })
	}
}
