package main

import (
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"
	"github.com/aws/jsii-runtime-go"
)

// networkInterfaceActions are the actions that Lambda itself needs, with the function's role, to run the function in a
// VPC. AWS supports no resource for them.
var networkInterfaceActions = []string{
	"ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface",
	"ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses",
}

// accountActions read the account's settings; AWS supports no resource for them.
var accountActions = []string{"lambda:GetAccountSettings"}

// newRole returns a role that allows what every function needs: run in the VPC, write its log, read the secret.
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

// calledBy is the condition that the function's own code makes the call: not Lambda with the function's role, and not
// somebody elsewhere with its credentials. The ARN is built from the name, because the function is created after its
// role.
func calledBy(stack awscdk.Stack, c stackConfig, function string) map[string]any {
	arn := stack.FormatArn(&awscdk.ArnComponents{
		Service: jsii.String("lambda"), Resource: jsii.String("function"), ResourceName: jsii.String(c.name(function)),
		ArnFormat: awscdk.ArnFormat_COLON_RESOURCE_NAME,
	})
	return map[string]any{"ArnEquals": map[string]any{"lambda:SourceFunctionArn": arn}}
}

// secretArn returns the secret's ARN. Secrets Manager appends six random characters to the name; the pattern matches
// exactly these.
func secretArn(stack awscdk.Stack, name string) *string {
	if strings.HasPrefix(name, "arn:") {
		return &name
	}
	return stack.FormatArn(&awscdk.ArnComponents{
		Service: jsii.String("secretsmanager"), Resource: jsii.String("secret"), ResourceName: jsii.String(name + "-??????"),
		ArnFormat: awscdk.ArnFormat_COLON_RESOURCE_NAME,
	})
}

// grantQueues lets the functions send. The event sources grant receiving.
func grantQueues(stack awscdk.Stack, c stackConfig, f functions, q queues) {
	send := []string{"sqs:SendMessage"}
	allowIf(f.enumerator.Role(), calledBy(stack, c, "enumerator"), send, q.work.QueueArn(), q.results.QueueArn())
	allowIf(f.worker.Role(), calledBy(stack, c, "worker"), send, q.results.QueueArn(), q.deadLetter.QueueArn())
}

// newOperatorPolicy is the policy to attach to the operators' role.
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
		// To read and to clear: it holds runs to start, and ticks that are obsolete.
		{
			[]string{"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl"},
			[]*string{q.failed.QueueArn()},
		},
		// Dead letters are moved to the work queue; reconcile stop sends to the results queue.
		{[]string{"sqs:SendMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl"}, []*string{q.work.QueueArn(), q.results.QueueArn()}},
		// To see whether the schedules are on, and when the secret was changed, but not its value.
		{[]string{"scheduler:GetSchedule"}, scheduleArns(stack, c)},
		{[]string{"secretsmanager:DescribeSecret"}, []*string{secretArn(stack, c.SecretName)}},
		// To see what uses up the account's concurrency. AWS supports no resource for the account's settings.
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
