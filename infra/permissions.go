package main

import (
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"
	"github.com/aws/jsii-runtime-go"
)

// networkInterfaceActions are what Lambda itself does, with the function's role, to put the
// function into a VPC. AWS supports no resource for them.
var networkInterfaceActions = []string{
	"ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface",
	"ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses",
}

// accountActions look at the account; AWS supports no resource for them.
var accountActions = []string{"lambda:GetAccountSettings"}

// newRole returns what every function may do: run in the VPC, write its log, read the secret.
func newRole(stack awscdk.Stack, c stackConfig, id string, logs awslogs.LogGroup) awsiam.Role {
	role := awsiam.NewRole(stack, jsii.String(id+"Role"), &awsiam.RoleProps{
		AssumedBy:   awsiam.NewServicePrincipal(jsii.String("lambda.amazonaws.com"), nil),
		Description: jsii.String("The " + strings.ToLower(id) + " of the subscription reconciliation"),
	})
	allow(role, networkInterfaceActions, jsii.String("*"))
	ownCode := calledBy(stack, c, strings.ToLower(id))
	denied := newStatement(networkInterfaceActions, jsii.String("*"))
	denied.SetEffect(awsiam.Effect_DENY)
	denied.AddConditions(&ownCode)
	role.AddToPolicy(denied)
	allow(role, []string{"logs:CreateLogStream", "logs:PutLogEvents"}, logs.LogGroupArn())
	allowIf(role, ownCode, []string{"secretsmanager:GetSecretValue"}, secretArn(stack, c.SecretName))
	if c.SecretKey != "" {
		through := map[string]any{"StringEquals": map[string]any{"kms:ViaService": "secretsmanager." + c.Region + ".amazonaws.com"}}
		allowIf(role, through, []string{"kms:Decrypt"}, &c.SecretKey)
	}
	return role
}

// calledBy holds for what the function's code itself calls: neither for what Lambda does with its
// role, nor for its credentials elsewhere. The name is spelt out, since the function is made after
// its role.
func calledBy(stack awscdk.Stack, c stackConfig, function string) map[string]any {
	arn := stack.FormatArn(&awscdk.ArnComponents{
		Service: jsii.String("lambda"), Resource: jsii.String("function"), ResourceName: jsii.String(c.name(function)),
		ArnFormat: awscdk.ArnFormat_COLON_RESOURCE_NAME,
	})
	return map[string]any{"ArnEquals": map[string]any{"lambda:SourceFunctionArn": arn}}
}

// secretArn returns the secret's ARN. Secrets Manager ends it with six characters of its own
// choice, which a name does not tell: the pattern stands for exactly those.
func secretArn(stack awscdk.Stack, name string) *string {
	if strings.HasPrefix(name, "arn:") {
		return &name
	}
	return stack.FormatArn(&awscdk.ArnComponents{
		Service: jsii.String("secretsmanager"), Resource: jsii.String("secret"), ResourceName: jsii.String(name + "-??????"),
		ArnFormat: awscdk.ArnFormat_COLON_RESOURCE_NAME,
	})
}

// grantQueues lets the functions send. What they receive, their event source lets them.
func grantQueues(stack awscdk.Stack, c stackConfig, f functions, q queues) {
	send := []string{"sqs:SendMessage"}
	allowIf(f.enumerator.Role(), calledBy(stack, c, "enumerator"), send, q.work.QueueArn(), q.results.QueueArn())
	allowIf(f.worker.Role(), calledBy(stack, c, "worker"), send, q.results.QueueArn(), q.deadLetter.QueueArn())
}

// newOperatorPolicy is for the people who run this: attach it to their role.
func newOperatorPolicy(stack awscdk.Stack, c stackConfig, f functions, q queues) awsiam.ManagedPolicy {
	policy := awsiam.NewManagedPolicy(stack, jsii.String("Operators"), &awsiam.ManagedPolicyProps{
		ManagedPolicyName: jsii.String(c.globalName("operators")),
		Description:       jsii.String("Start runs, move dead letters back, read the logs of the subscription reconciliation"),
	})
	for _, statement := range []struct {
		actions   []string
		resources []*string
	}{
		{[]string{"lambda:InvokeFunction"}, []*string{f.enumerator.FunctionArn(), f.aggregator.FunctionArn()}},
		{
			[]string{
				"sqs:StartMessageMoveTask", "sqs:ListMessageMoveTasks", "sqs:CancelMessageMoveTask",
				"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl",
			},
			[]*string{q.deadLetter.QueueArn(), q.resultsDeadLetter.QueueArn()},
		},
		// To look at, and to clear: what it holds is a run to start, or a tick that is of no use any more.
		{
			[]string{"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl"},
			[]*string{q.failed.QueueArn()},
		},
		// Where dead letters are moved to; and reconcile stop tells the aggregator of the run.
		{[]string{"sqs:SendMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl"}, []*string{q.work.QueueArn(), q.results.QueueArn()}},
		// Whether the schedules are on, and when the secret was changed; not what it holds.
		{[]string{"scheduler:GetSchedule"}, scheduleArns(stack, c)},
		{[]string{"secretsmanager:DescribeSecret"}, []*string{secretArn(stack, c.SecretName)}},
		// Who uses up the account's concurrency. AWS supports no resource for the account's settings.
		{[]string{"lambda:GetFunctionConcurrency"}, []*string{f.enumerator.FunctionArn(), f.worker.FunctionArn(), f.aggregator.FunctionArn()}},
		{accountActions, []*string{jsii.String("*")}},
		{[]string{"cloudformation:DescribeStacks"}, []*string{stack.StackId()}}, // the outputs for their .env
		{
			[]string{"logs:FilterLogEvents", "logs:GetLogEvents", "logs:DescribeLogStreams"},
			[]*string{
				f.enumerator.LogGroup().LogGroupArn(), f.worker.LogGroup().LogGroupArn(), f.aggregator.LogGroup().LogGroupArn(),
			},
		},
	} {
		policy.AddStatements(newStatement(statement.actions, statement.resources...))
	}
	return policy
}

func allow(role awsiam.IGrantable, actions []string, resources ...*string) {
	role.GrantPrincipal().AddToPrincipalPolicy(newStatement(actions, resources...))
}

func allowIf(role awsiam.IGrantable, conditions map[string]any, actions []string, resources ...*string) {
	statement := newStatement(actions, resources...)
	statement.AddConditions(&conditions)
	role.GrantPrincipal().AddToPrincipalPolicy(statement)
}

func newStatement(actions []string, resources ...*string) awsiam.PolicyStatement {
	return awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{Actions: jsii.Strings(actions...), Resources: &resources})
}
