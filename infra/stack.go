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

// prefix begins every name that people see.
const prefix = "pixell-subscription-reconciliation"

// workerEventSource is the output that the emergency steps in infra/README.md read.
const workerEventSource = "WorkerEventSource"

// name returns the name of a part of this stage; part "" is the stack. Stages can share an account and region.
func (c stackConfig) name(part string) string {
	name := prefix
	for _, more := range []string{c.Stage, part} {
		if more != "" {
			name += "-" + more
		}
	}
	return name
}

// globalName is for names that must be unique over all regions of an account.
func (c stackConfig) globalName(part string) string { return c.name(part) + "-" + c.Region }

// newStack builds the stack; assets is the folder with NAME/bootstrap of each function.
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

// tags returns the stack's tags, which AWS applies to every resource in it.
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
	id, description string
	value           *string
}

// newOutputs adds the values that operators need after a deployment and in an emergency.
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
		newOutput(stack, output.id, output.description, output.value)
	}
}

func newOutput(stack awscdk.Stack, id, description string, value *string) {
	awscdk.NewCfnOutput(stack, jsii.String("Output"+id), &awscdk.CfnOutputProps{Value: value, Description: &description}).OverrideLogicalId(&id)
}
