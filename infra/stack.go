package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// prefix begins every name that people meet.
const prefix = "pixell-subscription-reconciliation"

// name returns the name of a part of this stage, "" of its stack: stages stand side by side in one
// account and region.
func (c stackConfig) name(part string) string {
	name := prefix
	for _, more := range []string{c.Stage, part} {
		if more != "" {
			name += "-" + more
		}
	}
	return name
}

// globalName is for what has one name in all regions of an account.
func (c stackConfig) globalName(part string) string { return c.name(part) + "-" + c.Region }

// newStack builds everything; assets is the folder with NAME/bootstrap of each function.
func newStack(scope constructs.Construct, c stackConfig, assets string) awscdk.Stack {
	stack := awscdk.NewStack(scope, jsii.String(c.name("")), &awscdk.StackProps{
		Env:         &awscdk.Environment{Account: &c.Account, Region: &c.Region},
		Description: jsii.String("Keeps the subscriptions in the application's database as Stripe has them"),
		Tags:        &map[string]*string{"application": jsii.String(prefix)},
	})
	awscdk.Annotations_Of(stack).AcknowledgeWarning(jsii.String("@aws-cdk/aws-ec2:noSubnetRouteTableId"), jsii.String("nothing here reads a route table"))
	q := newQueues(stack, c)
	f := newFunctions(stack, c, q, assets)
	newSchedules(stack, c, f, q)
	newOperatorPolicy(stack, c, f, q)
	newAlarms(stack, c, f, q)
	newDashboard(stack, c, f, q)
	newOutputs(stack, f, q)
	return stack
}

// newOutputs prints, after a deployment, what an operator's .env needs.
func newOutputs(stack awscdk.Stack, f functions, q queues) {
	for _, output := range []struct {
		id, says string
		value    *string
	}{
		{"WorkQueueUrl", "WORK_QUEUE_URL of the operator's .env", q.work.QueueUrl()},
		{"ResultsQueueUrl", "RESULTS_QUEUE_URL of the operator's .env", q.results.QueueUrl()},
		{"DeadLetterQueueUrl", "DEAD_LETTER_QUEUE_URL of the operator's .env", q.deadLetter.QueueUrl()},
		{"EnumeratorFunction", "ENUMERATOR_FUNCTION of the operator's .env", f.enumerator.FunctionName()},
	} {
		awscdk.NewCfnOutput(stack, &output.id, &awscdk.CfnOutputProps{Value: output.value, Description: &output.says})
	}
}
