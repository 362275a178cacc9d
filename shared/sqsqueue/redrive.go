package sqsqueue

import (
	"context"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// Depth is how many messages a queue holds. SQS counts approximately, up to a minute late.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueAttributes.html
type Depth struct {
	Visible  int // ready to be received
	InFlight int // received and not deleted, or waiting for their next try
	Delayed  int
}

// All counts every message.
func (d Depth) All() int { return d.Visible + d.InFlight + d.Delayed }

// Depth asks how many messages the queue holds.
func (q *Queue) Depth(ctx context.Context) (Depth, error) {
	attributes, err := q.attributes(ctx, types.QueueAttributeNameApproximateNumberOfMessages,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible, types.QueueAttributeNameApproximateNumberOfMessagesDelayed)
	if err != nil {
		return Depth{}, err
	}
	var d Depth
	for name, into := range map[types.QueueAttributeName]*int{
		types.QueueAttributeNameApproximateNumberOfMessages:           &d.Visible,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible: &d.InFlight,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed:    &d.Delayed,
	} {
		if *into, err = strconv.Atoi(attributes[string(name)]); err != nil {
			return Depth{}, unavailable("count the messages of "+q.url, err)
		}
	}
	return d, nil
}

func (q *Queue) attributes(ctx context.Context, names ...types.QueueAttributeName) (map[string]string, error) {
	out, err := q.client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &q.url, AttributeNames: names})
	if err != nil {
		return nil, unavailable("look at "+q.url, err)
	}
	return out.Attributes, nil
}

func (q *Queue) arn(ctx context.Context) (string, error) {
	attributes, err := q.attributes(ctx, types.QueueAttributeNameQueueArn)
	return attributes[string(types.QueueAttributeNameQueueArn)], err
}

// Redrive moves the messages of a dead-letter queue back to the queue they came from. SQS does
// the moving, one task at a time for a dead-letter queue, at most 500 messages a second.
type Redrive struct {
	client   *sqs.Client
	from, to string // ARNs
	fromURL  string
}

// NewRedrive looks the queues up.
func NewRedrive(ctx context.Context, deadLetter, work *Queue) (*Redrive, error) {
	from, err := deadLetter.arn(ctx)
	if err != nil {
		return nil, err
	}
	to, err := work.arn(ctx)
	if err != nil {
		return nil, err
	}
	return &Redrive{client: deadLetter.client, from: from, to: to, fromURL: deadLetter.url}, nil
}

// Start has SQS begin to move. The destination is always named: of a message that was sent to the
// dead-letter queue, rather than moved there by its redrive policy, SQS does not know the source.
func (r *Redrive) Start(ctx context.Context) error {
	_, err := r.client.StartMessageMoveTask(ctx, &sqs.StartMessageMoveTaskInput{SourceArn: &r.from, DestinationArn: &r.to})
	if err != nil {
		return unavailable("redrive "+r.fromURL, err)
	}
	return nil
}

// Move is how far SQS is with moving messages.
type MoveTask struct {
	Status  string // RUNNING, COMPLETED, CANCELLING, CANCELLED or FAILED
	Moved   int
	ToMove  int // when it began, approximately
	Failure string
	Started time.Time
}

// Running reports whether messages may still be moved.
func (m MoveTask) Running() bool { return m.Status == "RUNNING" || m.Status == "CANCELLING" }

// Completed reports whether it came to its end by itself.
func (m MoveTask) Completed() bool { return m.Status == "COMPLETED" }

// Last returns the latest move from the dead-letter queue; there may never have been one.
func (r *Redrive) Last(ctx context.Context) (last MoveTask, found bool, err error) {
	out, err := r.client.ListMessageMoveTasks(ctx, &sqs.ListMessageMoveTasksInput{SourceArn: &r.from, MaxResults: aws.Int32(1)})
	if err != nil {
		return MoveTask{}, false, unavailable("ask how far the redrive of "+r.fromURL+" is", err)
	}
	if len(out.Results) == 0 {
		return MoveTask{}, false, nil
	}
	task := out.Results[0]
	return MoveTask{
		Status: aws.ToString(task.Status), Moved: int(task.ApproximateNumberOfMessagesMoved),
		ToMove:  int(aws.ToInt64(task.ApproximateNumberOfMessagesToMove)),
		Failure: aws.ToString(task.FailureReason), Started: time.UnixMilli(task.StartedTimestamp).UTC(),
	}, true, nil
}
