package sqsqueue

import (
	"context"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// Depth is the number of messages in a queue. SQS's counts are approximate and up to a minute old.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueAttributes.html
type Depth struct {
	Visible  int // can be received
	InFlight int // received, or waiting for their visibility timeout
	Delayed  int
}

// All returns the number of all messages.
func (d Depth) All() int { return d.Visible + d.InFlight + d.Delayed }

// Depth returns the number of messages in the queue.
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
		return nil, unavailable("read the attributes of "+q.url, err)
	}
	return out.Attributes, nil
}

func (q *Queue) arn(ctx context.Context) (string, error) {
	attributes, err := q.attributes(ctx, types.QueueAttributeNameQueueArn)
	return attributes[string(types.QueueAttributeNameQueueArn)], err
}

// Redrive moves the messages of a dead-letter queue back to the work queue. SQS moves them in a task: one at a time
// for each dead-letter queue, at most 500 messages a second.
type Redrive struct {
	client   *sqs.Client
	from, to string // ARNs
	fromURL  string
}

// NewRedrive looks up the ARNs of the queues.
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

// Start starts a move task. It always names the destination, because SQS does not know the source of messages that
// were sent to the dead-letter queue directly.
func (r *Redrive) Start(ctx context.Context) error {
	_, err := r.client.StartMessageMoveTask(ctx, &sqs.StartMessageMoveTaskInput{SourceArn: &r.from, DestinationArn: &r.to})
	if err != nil {
		return unavailable("redrive "+r.fromURL, err)
	}
	return nil
}

// MoveTask is the state of a move task.
type MoveTask struct {
	Status  string // RUNNING, COMPLETED, CANCELLING, CANCELLED or FAILED
	Moved   int
	ToMove  int // at the start, approximately
	Failure string
	Started time.Time
}

// Running reports whether messages may still be moved.
func (m MoveTask) Running() bool { return m.Status == "RUNNING" || m.Status == "CANCELLING" }

// Completed reports whether all messages were moved.
func (m MoveTask) Completed() bool { return m.Status == "COMPLETED" }

// Last returns the latest move task of the dead-letter queue, if there is one.
func (r *Redrive) Last(ctx context.Context) (last MoveTask, found bool, err error) {
	out, err := r.client.ListMessageMoveTasks(ctx, &sqs.ListMessageMoveTasksInput{SourceArn: &r.from, MaxResults: aws.Int32(1)})
	if err != nil {
		return MoveTask{}, false, unavailable("read the progress of the redrive of "+r.fromURL, err)
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
