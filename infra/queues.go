package main

import (
	"time"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssqs"
	"github.com/aws/jsii-runtime-go"
)

const (
	// maxReceiveCount is how often a message is delivered before SQS itself gives it up. The
	// worker, which knows the number too, gives it up at the last delivery with a reason.
	maxReceiveCount = 12

	messageRetention    = 4 * 24 * time.Hour
	deadLetterRetention = 14 * 24 * time.Hour // longer: a message keeps the time it was first sent

	// visibilityFactor is Lambda's advice: a queue hides a message for so many timeouts of the
	// function, which leaves room for its own retries.
	visibilityFactor = 6
)

type queues struct {
	work, results                 awssqs.Queue
	deadLetter, resultsDeadLetter awssqs.Queue
	failed                        awssqs.Queue // what never reached a function, or failed there
}

func newQueues(stack awscdk.Stack) queues {
	q := queues{
		deadLetter:        newDeadLetterQueue(stack, "DeadLetterQueue", "dead-letter", "work"),
		resultsDeadLetter: newDeadLetterQueue(stack, "ResultsDeadLetterQueue", "results-dead-letter", "results"),
		failed: awssqs.NewQueue(stack, jsii.String("FailedInvocations"), &awssqs.QueueProps{
			QueueName: jsii.String(prefix + "-failed-invocations"), Encryption: awssqs.QueueEncryption_SQS_MANAGED,
			EnforceSSL: jsii.Bool(true), RetentionPeriod: seconds(deadLetterRetention),
		}),
	}
	q.work = newQueue(stack, "WorkQueue", "work", workerTimeout, q.deadLetter)
	q.results = newQueue(stack, "ResultsQueue", "results", aggregatorTimeout, q.resultsDeadLetter)
	return q
}

func newQueue(stack awscdk.Stack, id, name string, consumerTimeout time.Duration, deadLetter awssqs.Queue) awssqs.Queue {
	return awssqs.NewQueue(stack, &id, &awssqs.QueueProps{
		QueueName: jsii.String(prefix + "-" + name), Encryption: awssqs.QueueEncryption_SQS_MANAGED,
		EnforceSSL: jsii.Bool(true), RetentionPeriod: seconds(messageRetention),
		VisibilityTimeout: seconds(visibilityFactor * consumerTimeout),
		DeadLetterQueue:   &awssqs.DeadLetterQueue{Queue: deadLetter, MaxReceiveCount: jsii.Number(maxReceiveCount)},
	})
}

// newDeadLetterQueue returns a queue that takes dead letters of the named queue only.
func newDeadLetterQueue(stack awscdk.Stack, id, name, source string) awssqs.Queue {
	// By its name: each of the two queues names the other, and CloudFormation cannot make both first.
	sourceArn := stack.FormatArn(&awscdk.ArnComponents{Service: jsii.String("sqs"), Resource: jsii.String(prefix + "-" + source)})
	return awssqs.NewQueue(stack, &id, &awssqs.QueueProps{
		QueueName: jsii.String(prefix + "-" + name), Encryption: awssqs.QueueEncryption_SQS_MANAGED,
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
