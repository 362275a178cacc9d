package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/jsii-runtime-go"
)

// newBreakGlassPolicy is for an emergency: it stops everything at once and sets it going again, as
// infra/README.md says, without the rights of a deployment.
func newBreakGlassPolicy(stack awscdk.Stack, c stackConfig, f functions) {
	policy := awsiam.NewManagedPolicy(stack, jsii.String("BreakGlass"), &awsiam.ManagedPolicyProps{
		ManagedPolicyName: jsii.String(c.globalName("break-glass")),
		Description:       jsii.String("Stop the subscription reconciliation at once, and set it going again"),
	})
	policy.AddStatements(
		newStatement([]string{"lambda:UpdateEventSourceMapping"}, f.work.EventSourceMappingArn()),
		newStatement([]string{"lambda:PutFunctionConcurrency", "lambda:DeleteFunctionConcurrency"}, f.enumerator.FunctionArn()),
		newStatement([]string{"cloudformation:DescribeStacks"}, stack.StackId()), // the outputs name the event source
	)
}
