package main

import (
	"fmt"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssns"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

// prefix begins every name that people meet.
const prefix = "pixell-subscription-reconciliation"

// workerEventSource is the output that infra/README.md's emergency steps ask for.
const workerEventSource = "WorkerEventSource"

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
		Tags:        tags(c), TerminationProtection: &c.Protected,
	})
	awscdk.Annotations_Of(stack).AcknowledgeWarning(jsii.String("@aws-cdk/aws-ec2:noSubnetRouteTableId"), jsii.String("nothing here reads a route table"))
	q := newQueues(stack, c)
	reports := newArchive(stack, c)
	f := newFunctions(stack, c, q, reports, assets)
	newSchedules(stack, c, f, q)
	operators := newOperatorPolicy(stack, c, f, q)
	newBreakGlassPolicy(stack, c, f)
	newAnnouncements(stack, c, f)
	topic := newAlarms(stack, c, f, q)
	newDigest(stack, c, q, topic)
	newDashboard(stack, c, f, q)
	newOutputs(stack, c, f, q, operators, topic)
	if reports != nil {
		newOutput(stack, "ReportBucket", "Where the reports of runs are archived: they hold customer data", reports.name)
	}
	return stack
}

// tags returns those of the stack, which AWS gives to everything in it.
func tags(c stackConfig) *map[string]*string {
	all := map[string]*string{}
	for name, value := range c.Tags {
		all[name] = &value
	}
	all["application"] = jsii.String(prefix)
	if c.Stage != "" {
		all["stage"] = &c.Stage
	}
	return &all
}

type output struct {
	id, says string
	value    *string
}

// newOutputs prints, after a deployment, what its operators need, and an emergency.
func newOutputs(stack awscdk.Stack, c stackConfig, f functions, q queues, operators awsiam.ManagedPolicy, topic awssns.ITopic) {
	dotEnv := []string{
		"AWS_REGION=" + c.Region,
		"ENUMERATOR_FUNCTION=" + *f.enumerator.FunctionName(),
		"WORK_QUEUE_URL=" + *q.work.QueueUrl(),
		"RESULTS_QUEUE_URL=" + *q.results.QueueUrl(),
		"DEAD_LETTER_QUEUE_URL=" + *q.deadLetter.QueueUrl(),
	}
	if c.Stage != "" {
		dotEnv = append(dotEnv, "STAGE="+c.Stage)
	}
	dashboard := fmt.Sprintf("https://%s/cloudwatch/home?region=%s#dashboards/dashboard/%s", config.ConsoleHost(c.Region), c.Region, c.globalName(""))
	outputs := []output{
		{"DotEnv", "Lines for the operators' .env", jsii.String(strings.Join(dotEnv, "\n"))},
		{"OperatorPolicy", "The policy to attach to the operators' role", operators.ManagedPolicyArn()},
		{"AlarmTopic", "Where alarms go, to subscribe to", topic.TopicArn()},
		{"DashboardUrl", "Outcomes, drift, queues and durations", &dashboard},
		{workerEventSource, "What an emergency switches off", f.work.EventSourceMappingId()},
	}
	if c.eventBus() != "" {
		outputs = append(outputs, output{
			"AnnouncementPattern", "The pattern of a rule on the event bus that gets each repair of this stage", jsii.String(c.announcementPattern(billing.AnnounceReconciled)),
		})
	}
	for _, output := range outputs {
		newOutput(stack, output.id, output.says, output.value)
	}
}

func newOutput(stack awscdk.Stack, id, says string, value *string) {
	awscdk.NewCfnOutput(stack, jsii.String("Output"+id), &awscdk.CfnOutputProps{Value: value, Description: &says}).OverrideLogicalId(&id)
}
