package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/jsii-runtime-go"
)

// newBreakGlassPolicy is for an emergency: it allows to stop everything and start it again, as infra/README.md
// describes, without the rights of a deployment.
func newBreakGlassPolicy(stack awscdk.Stack, c stackConfig, f functions) {
	policy := awsiam.NewManagedPolicy(stack, jsii.String("BreakGlass"), &awsiam.ManagedPolicyProps{
		ManagedPolicyName: jsii.String(c.globalName("break-glass")),
		Description:       jsii.String("Stop the subscription reconciliation at once, and start it again"),
	})
	policy.AddStatements(
		newStatement([]string{"lambda:UpdateEventSourceMapping"}, f.work.EventSourceMappingArn()),
		newStatement([]string{"lambda:PutFunctionConcurrency", "lambda:DeleteFunctionConcurrency"}, f.enumerator.FunctionArn()),
		newStatement([]string{"cloudformation:DescribeStacks"}, stack.StackId()), // the outputs name the event source
	)
}
