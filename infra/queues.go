package main

import (
	"time"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssqs"
	"github.com/aws/jsii-runtime-go"
)

const (
	// progressReceives is small, because a later progress message says the same.
	progressReceives = 12

	messageRetention    = 4 * 24 * time.Hour
	deadLetterRetention = 14 * 24 * time.Hour // longer: age counts from when the message was first sent

	// A scheduled run is tried again every 15 minutes for a day. Two enumerators with the same run do no harm, because the
	// run's lease lets one work. So the message is hidden for one timeout of the enumerator, Lambda's minimum, and not for
	// six.
	scheduledVisibility = enumeratorTimeout
	scheduledReceives   = int(day / scheduledVisibility)

	// visibilityFactor is Lambda's advice: a queue hides a message for six timeouts of the function, plus the batching
	// window, which leaves time for Lambda's retries.
	visibilityFactor = 6
)

type queues struct {
	work, results                 awssqs.Queue
	scheduled                     awssqs.Queue // runs of the schedules
	deadLetter, resultsDeadLetter awssqs.Queue
	failed                        awssqs.Queue // scheduled runs that failed for a day, and events that could not be delivered
}

func newQueues(stack awscdk.Stack, c stackConfig) queues {
	q := queues{
		deadLetter:        newDeadLetterQueue(stack, c, "DeadLetterQueue", "dead-letter", "work"),
		resultsDeadLetter: newDeadLetterQueue(stack, c, "ResultsDeadLetterQueue", "results-dead-letter", "results"),
		failed:            newDeadLetterQueue(stack, c, "FailedInvocations", "failed-invocations", "scheduled-runs"),
	}
	// The worker knows this number too: at the last delivery it sends the message to the dead-letter queue with a reason.
	q.work = newQueue(stack, c, "WorkQueue", "work", visibilityFactor*workerTimeout+workerWindow, q.deadLetter, c.WorkReceives)
	q.results = newQueue(stack, c, "ResultsQueue", "results", visibilityFactor*aggregatorTimeout+aggregatorWindow, q.resultsDeadLetter, progressReceives)
	q.scheduled = newQueue(stack, c, "ScheduledRuns", "scheduled-runs", scheduledVisibility, q.failed, scheduledReceives)
	return q
}

func newQueue(stack awscdk.Stack, c stackConfig, id, name string, visibility time.Duration, deadLetter awssqs.Queue, receives int) awssqs.Queue {
	return awssqs.NewQueue(stack, &id, &awssqs.QueueProps{
		QueueName: jsii.String(c.name(name)), Encryption: awssqs.QueueEncryption_SQS_MANAGED,
		EnforceSSL: jsii.Bool(true), RetentionPeriod: seconds(messageRetention),
		VisibilityTimeout: seconds(visibility),
		DeadLetterQueue:   &awssqs.DeadLetterQueue{Queue: deadLetter, MaxReceiveCount: jsii.Number(receives)},
	})
}

// newDeadLetterQueue returns a queue that accepts dead letters of the named source only.
func newDeadLetterQueue(stack awscdk.Stack, c stackConfig, id, name, source string) awssqs.Queue {
	// By name: the two queues reference each other, and CloudFormation must create one of them first.
	sourceArn := stack.FormatArn(&awscdk.ArnComponents{Service: jsii.String("sqs"), Resource: jsii.String(c.name(source))})
	return awssqs.NewQueue(stack, &id, &awssqs.QueueProps{
		QueueName: jsii.String(c.name(name)), Encryption: awssqs.QueueEncryption_SQS_MANAGED,
		EnforceSSL: jsii.Bool(true), RetentionPeriod: seconds(deadLetterRetention),
		RedriveAllowPolicy: &awssqs.RedriveAllowPolicy{
			RedrivePermission: awssqs.RedrivePermission_BY_QUEUE,
			SourceQueues:      &[]awssqs.IQueue{awssqs.Queue_FromQueueArn(stack, jsii.String(id+"Source"), sourceArn)},
		},
	})
}

func seconds(d time.Duration) awscdk.Duration {
	return awscdk.Duration_Seconds(jsii.Number(d.Seconds()))
}
