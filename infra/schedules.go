package main

import (
	"fmt"
	"time"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsscheduler"
	"github.com/aws/jsii-runtime-go"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// tickInterval is the interval of the ticks: schedules that invoke a function to go on with what is open.
const tickInterval = 15 * time.Minute

// maxRetries is the largest number that EventBridge Scheduler allows.
const maxRetries = 185

// Names of the schedules, without the stack's name as prefix.
const (
	fullRun        = "scheduled-run"
	catchUp        = "catch-up"
	resumeTick     = "resume-tick"
	aggregatorTick = "aggregator-tick"
)

// schedule hands a payload to a function or a queue.
type schedule struct {
	id, name, description, expression, payload string
	target                                     *string       // ARN
	maxAge                                     time.Duration // how long the scheduler tries to deliver
	retries                                    float64
}

func newSchedules(stack awscdk.Stack, c stackConfig, f functions, q queues) {
	group := awsscheduler.NewCfnScheduleGroup(stack, jsii.String("Schedules"), &awsscheduler.CfnScheduleGroupProps{Name: jsii.String(c.name(""))})
	role := newSchedulerRole(stack, c, f, q)
	for _, s := range schedules(c, f, q) {
		newSchedule(stack, c, s, group, role, q)
	}
}

func schedules(c stackConfig, f functions, q queues) []schedule {
	all := []schedule{
		{
			id: "ScheduledRun", name: fullRun, description: "A run over all organizations", expression: c.Schedule,
			// The scheduler inserts the time. It is the run's id, so a second delivery starts no second run.
			payload: `{"scheduledFor":"<aws.scheduler.scheduled-time>"}`,
			// Through a queue: the scheduler does not see that a function failed, and Lambda retries only twice.
			target: q.scheduled.QueueArn(), maxAge: 6 * time.Hour, retries: maxRetries,
		},
		{
			id: "ResumeTick", name: resumeTick, description: "Continues runs whose enumeration was interrupted",
			expression: rate(tickInterval), payload: `{"resume":true}`, target: f.enumerator.FunctionArn(), maxAge: tickInterval, retries: 3,
		},
		{
			id: "AggregatorTick", name: aggregatorTick, description: "Closes runs that are done or past their deadline, deletes old ones, reports the age of the last one",
			expression: rate(tickInterval), payload: `{"tick":true}`, target: f.aggregator.FunctionArn(), maxAge: tickInterval, retries: 3,
		},
	}
	if c.CatchUpSchedule == "" {
		return all
	}
	return append(all, schedule{
		id: "CatchUp", name: catchUp, description: "A run over the organizations that Stripe's latest events name", expression: c.CatchUpSchedule,
		payload: `{"strategy":"` + string(billing.StrategyEvents) + `","scheduledFor":"<aws.scheduler.scheduled-time>"}`,
		// If the event is not delivered within the hour, the next catch-up reads from where the last successful one ended.
		target: q.scheduled.QueueArn(), maxAge: time.Hour, retries: maxRetries,
	})
}

// rate is the expression of a schedule with this interval.
func rate(interval time.Duration) string {
	return fmt.Sprintf("rate(%d minutes)", int(interval.Minutes()))
}

func newSchedule(stack awscdk.Stack, c stackConfig, s schedule, group awsscheduler.CfnScheduleGroup, role awsiam.Role, q queues) {
	created := awsscheduler.NewCfnSchedule(stack, &s.id, &awsscheduler.CfnScheduleProps{
		Name: jsii.String(c.name(s.name)), GroupName: group.Ref(), Description: &s.description,
		ScheduleExpression: &s.expression, ScheduleExpressionTimezone: jsii.String("UTC"),
		State:              jsii.String("ENABLED"), // the default, but only what the template has is compared by `task deploy -- --revert-drift`
		FlexibleTimeWindow: &awsscheduler.CfnSchedule_FlexibleTimeWindowProperty{Mode: jsii.String("OFF")},
		Target: &awsscheduler.CfnSchedule_TargetProperty{
			Arn: s.target, RoleArn: role.RoleArn(), Input: &s.payload,
			DeadLetterConfig: &awsscheduler.CfnSchedule_DeadLetterConfigProperty{Arn: q.failed.QueueArn()},
			RetryPolicy: &awsscheduler.CfnSchedule_RetryPolicyProperty{
				MaximumEventAgeInSeconds: jsii.Number(s.maxAge.Seconds()), MaximumRetryAttempts: &s.retries,
			},
		},
	})
	// The scheduler checks the role's rights when the schedule is created.
	created.Node().AddDependency(role)
}

func scheduleArns(stack awscdk.Stack, c stackConfig) []*string {
	var arns []*string
	names := []string{fullRun, resumeTick, aggregatorTick}
	if c.CatchUpSchedule != "" {
		names = append(names, catchUp)
	}
	for _, name := range names {
		arns = append(arns, stack.FormatArn(&awscdk.ArnComponents{
			Service: jsii.String("scheduler"), Resource: jsii.String("schedule"), ResourceName: jsii.String(c.name("") + "/" + c.name(name)),
		}))
	}
	return arns
}

func newSchedulerRole(stack awscdk.Stack, c stackConfig, f functions, q queues) awsiam.Role {
	// Only schedules of this group, in this account, may assume the role.
	group := stack.FormatArn(&awscdk.ArnComponents{
		Service: jsii.String("scheduler"), Resource: jsii.String("schedule-group"), ResourceName: jsii.String(c.name("")),
	})
	conditions := map[string]any{"StringEquals": map[string]any{"aws:SourceAccount": stack.Account(), "aws:SourceArn": group}}
	role := awsiam.NewRole(stack, jsii.String("SchedulerRole"), &awsiam.RoleProps{
		AssumedBy:   awsiam.NewServicePrincipal(jsii.String("scheduler.amazonaws.com"), &awsiam.ServicePrincipalOpts{Conditions: &conditions}),
		Description: jsii.String("EventBridge Scheduler: starts runs and invokes the enumerator and the aggregator"),
	})
	allow(role, []string{"lambda:InvokeFunction"}, f.enumerator.FunctionArn(), f.aggregator.FunctionArn())
	allow(role, []string{"sqs:SendMessage"}, q.scheduled.QueueArn(), q.failed.QueueArn())
	return role
}
