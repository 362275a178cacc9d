package main

import (
	"time"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssqs"
	"github.com/aws/jsii-runtime-go"
)

const (
	// progressReceives is how often a progress message is delivered: a later one says the same.
	progressReceives = 12

	messageRetention    = 4 * 24 * time.Hour
	deadLetterRetention = 14 * 24 * time.Hour // longer: a message keeps the time it was first sent

	// A scheduled run is tried again every quarter of an hour for a day, then given up. Who gets it
	// while another still is at it does no harm, the run's lease lets one work: so it is hidden only as
	// long as an enumerator may take, the least that Lambda allows, not for the six times of it.
	scheduledVisibility = enumeratorTimeout
	scheduledReceives   = int(day / scheduledVisibility)

	// visibilityFactor is Lambda's advice: a queue hides a message for so many timeouts of the
	// function, and the batching window, which leaves room for its own retries.
	visibilityFactor = 6
)

type queues struct {
	work, results                 awssqs.Queue
	scheduled                     awssqs.Queue // runs that the schedule asks for
	deadLetter, resultsDeadLetter awssqs.Queue
	failed                        awssqs.Queue // scheduled runs that were given up, and what no schedule could deliver
}

func newQueues(stack awscdk.Stack, c stackConfig) queues {
	q := queues{
		deadLetter:        newDeadLetterQueue(stack, c, "DeadLetterQueue", "dead-letter", "work"),
		resultsDeadLetter: newDeadLetterQueue(stack, c, "ResultsDeadLetterQueue", "results-dead-letter", "results"),
		failed:            newDeadLetterQueue(stack, c, "FailedInvocations", "failed-invocations", "scheduled-runs"),
	}
	// The worker, which knows the number too, gives a message up at the last delivery with a reason.
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

// newDeadLetterQueue returns a queue that takes dead letters of the named queue only.
func newDeadLetterQueue(stack awscdk.Stack, c stackConfig, id, name, source string) awssqs.Queue {
	// By its name: each of the two queues names the other, and CloudFormation cannot make both first.
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
