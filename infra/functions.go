package main

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambdaeventsources"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"
	"github.com/aws/jsii-runtime-go"
)

const (
	enumeratorTimeout = 15 * time.Minute // Lambda's maximum; the next tick continues the rest
	workerTimeout     = 5 * time.Minute
	aggregatorTimeout = 2 * time.Minute

	workerBatch      = 100 // loading a batch takes as many queries for any size; with retrieve, 100 take about a minute
	workerWindow     = 2 * time.Second
	aggregatorBatch  = 100 // each message is one batch of a worker; the run is checked once for all of them
	aggregatorWindow = 30 * time.Second
	aggregators      = 2 // concurrent, Lambda's minimum
	enumerators      = 2 // concurrent, of scheduled runs; Lambda's minimum
)

// functionNames are the functions' folders in functions/ and dist/.
var functionNames = []string{"enumerator", "worker", "aggregator"}

type functions struct {
	enumerator, worker, aggregator awslambda.Function

	work awslambdaeventsources.SqsEventSource // feeds the worker
}

// network is the network that the functions run in.
type network struct {
	vpc   awsec2.IVpc
	group awsec2.ISecurityGroup
}

// function holds the properties in which the functions differ.
type function struct {
	id, name, description string
	memory                float64 // MiB
	timeout               time.Duration
	environment           []pair
}

func newFunctions(stack awscdk.Stack, c stackConfig, q queues, reports *archive, assets string) functions {
	n := existingNetwork(stack, c)
	f := functions{
		enumerator: newFunction(stack, c, n, assets, function{
			id: "Enumerator", name: "enumerator", description: "Lists the organizations and sends a message for each to the work queue",
			memory: 512, timeout: enumeratorTimeout, environment: enumeratorEnvironment(c, q),
		}),
		worker: newFunction(stack, c, n, assets, function{
			id: "Worker", name: "worker", description: "Compares organizations with Stripe and repairs them",
			memory: 256, timeout: workerTimeout, environment: workerEnvironment(c, q),
		}),
		aggregator: newFunction(stack, c, n, assets, function{
			id: "Aggregator", name: "aggregator", description: "Closes runs, writes their summaries and archives their reports",
			memory: 256, timeout: aggregatorTimeout, environment: aggregatorEnvironment(c, reports),
		}),
	}
	grantQueues(stack, c, f, q)
	allowArchive(stack, c, f.aggregator.Role(), reports)
	f.work = newEventSources(c, f, q)
	newTickInvocations(f)
	return f
}

func existingNetwork(stack awscdk.Stack, c stackConfig) network {
	return network{
		vpc: awsec2.Vpc_FromVpcAttributes(stack, jsii.String("Vpc"), &awsec2.VpcAttributes{
			VpcId: &c.VPC, PrivateSubnetIds: jsii.Strings(c.Subnets...),
			AvailabilityZones: jsii.Strings("unused"), // the CDK requires one; nothing here reads it
		}),
		group: awsec2.SecurityGroup_FromSecurityGroupId(stack, jsii.String("SecurityGroup"), &c.SecurityGroup,
			&awsec2.SecurityGroupImportOptions{Mutable: jsii.Bool(false)}),
	}
}

func newFunction(stack awscdk.Stack, c stackConfig, n network, assets string, f function) awslambda.Function {
	logs := awslogs.NewLogGroup(stack, jsii.String(f.id+"Logs"), &awslogs.LogGroupProps{
		LogGroupName: jsii.String(c.logGroupName(f.name)), Retention: retention(c.LogRetentionDays),
		RemovalPolicy: awscdk.RemovalPolicy_DESTROY,
	})
	created := awslambda.NewFunction(stack, jsii.String(f.id), &awslambda.FunctionProps{
		FunctionName: jsii.String(c.name(f.name)), Description: &f.description,
		Runtime: awslambda.Runtime_PROVIDED_AL2023(), Architecture: awslambda.Architecture_ARM_64(), Handler: jsii.String("bootstrap"),
		Code:       awslambda.Code_FromAsset(jsii.String(filepath.Join(assets, f.name)), nil),
		MemorySize: &f.memory, Timeout: seconds(f.timeout), Role: newRole(stack, c, f.id, logs), LogGroup: logs,
		Vpc: n.vpc, SecurityGroups: &[]awsec2.ISecurityGroup{n.group},
	})
	for _, variable := range f.environment {
		created.AddEnvironment(&variable.name, &variable.value, nil)
	}
	return created
}

func (c stackConfig) logGroupName(function string) string {
	return "/" + strings.Replace(c.name(""), "-", "/", 1) + "/" + function
}

// retention returns the CDK's name for the days; loadConfig allows only days that have one.
func retention(days int) awslogs.RetentionDays {
	return map[int]awslogs.RetentionDays{
		1: awslogs.RetentionDays_ONE_DAY, 3: awslogs.RetentionDays_THREE_DAYS, 5: awslogs.RetentionDays_FIVE_DAYS,
		7: awslogs.RetentionDays_ONE_WEEK, 14: awslogs.RetentionDays_TWO_WEEKS, 30: awslogs.RetentionDays_ONE_MONTH,
		60: awslogs.RetentionDays_TWO_MONTHS, 90: awslogs.RetentionDays_THREE_MONTHS, 120: awslogs.RetentionDays_FOUR_MONTHS,
		150: awslogs.RetentionDays_FIVE_MONTHS, 180: awslogs.RetentionDays_SIX_MONTHS, 365: awslogs.RetentionDays_ONE_YEAR,
		400: awslogs.RetentionDays_THIRTEEN_MONTHS, 545: awslogs.RetentionDays_EIGHTEEN_MONTHS, 731: awslogs.RetentionDays_TWO_YEARS,
		1096: awslogs.RetentionDays_THREE_YEARS, 1827: awslogs.RetentionDays_FIVE_YEARS, 2192: awslogs.RetentionDays_SIX_YEARS,
		2557: awslogs.RetentionDays_SEVEN_YEARS, 2922: awslogs.RetentionDays_EIGHT_YEARS, 3288: awslogs.RetentionDays_NINE_YEARS,
		3653: awslogs.RetentionDays_TEN_YEARS,
	}[days]
}

// newEventSources connects the queues with the functions and returns the worker's event source.
func newEventSources(c stackConfig, f functions, q queues) awslambdaeventsources.SqsEventSource {
	// One message at a time: if one of several fails, all would be delivered again.
	f.enumerator.AddEventSource(awslambdaeventsources.NewSqsEventSource(q.scheduled, &awslambdaeventsources.SqsEventSourceProps{
		BatchSize: jsii.Number(1), MaxConcurrency: jsii.Number(enumerators),
	}))
	work := awslambdaeventsources.NewSqsEventSource(q.work, &awslambdaeventsources.SqsEventSourceProps{
		BatchSize: jsii.Number(workerBatch), MaxBatchingWindow: seconds(workerWindow),
		ReportBatchItemFailures: jsii.Bool(true), MaxConcurrency: jsii.Number(c.WorkerConcurrency),
	})
	f.worker.AddEventSource(work)
	f.aggregator.AddEventSource(awslambdaeventsources.NewSqsEventSource(q.results, &awslambdaeventsources.SqsEventSourceProps{
		BatchSize: jsii.Number(aggregatorBatch), MaxBatchingWindow: seconds(aggregatorWindow),
		ReportBatchItemFailures: jsii.Bool(true), MaxConcurrency: jsii.Number(aggregators),
	}))
	return work
}

// newTickInvocations turns off retries of ticks, which are asynchronous: the next tick does the same work. A failed tick
// counts as an error of its function, and many errors raise an alarm.
func newTickInvocations(f functions) {
	for _, function := range []awslambda.Function{f.enumerator, f.aggregator} {
		function.ConfigureAsyncInvoke(&awslambda.EventInvokeConfigOptions{MaxEventAge: seconds(tickInterval), RetryAttempts: jsii.Number(0)})
	}
}
