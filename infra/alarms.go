package main

import (
	"fmt"
	"time"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatchactions"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssns"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssnssubscriptions"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssqs"
	"github.com/aws/jsii-runtime-go"

	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

const (
	day = 24 * time.Hour

	errorsADay         = 2
	throttlesAnHour    = 10
	workerSlow         = 4 * time.Minute
	runOverdue         = 8 * day
	catchUpOverdue     = 3 * time.Hour // at least; otherwise three intervals
	missedWindow       = 3 * time.Hour
	statisticMax       = "Maximum"
	statisticMin       = "Minimum"
	statisticSum       = "Sum"
	statisticP99       = "p99"
	queueAgeOfDeadline = 4 // a message may wait for a quarter of a run's deadline
)

// alarm fires when the metric is above the threshold.
type alarm struct {
	id        string // of the construct
	name      string // of the alarm, without the stack's, and of its page in infra/runbooks
	means, do string // the description: what happened, and what to do
	metric    awscloudwatch.IMetric
	threshold float64
	periods   float64 // consecutive; 0 is one
	// missingBreaches raises the alarm without data too: then the function that reports the metric is dead.
	missingBreaches bool
}

// newAlarms creates the alarms and returns their topic.
func newAlarms(stack awscdk.Stack, c stackConfig, f functions, q queues) awssns.ITopic {
	topic := alarmTopic(stack, c)
	action := awscloudwatchactions.NewSnsAction(topic)
	for _, a := range alarms(c, f, q) {
		missing := awscloudwatch.TreatMissingData_NOT_BREACHING
		if a.missingBreaches {
			missing = awscloudwatch.TreatMissingData_BREACHING
		}
		created := awscloudwatch.NewAlarm(stack, jsii.String(a.id+"Alarm"), &awscloudwatch.AlarmProps{
			AlarmName:        jsii.String(c.name(a.name)),
			AlarmDescription: jsii.String(fmt.Sprintf("%s: %s. Runbook: infra/runbooks/%s.md", a.means, a.do, a.name)),
			Metric:           a.metric, Threshold: &a.threshold, EvaluationPeriods: jsii.Number(max(a.periods, 1)),
			ComparisonOperator: awscloudwatch.ComparisonOperator_GREATER_THAN_THRESHOLD, TreatMissingData: missing,
		})
		created.AddAlarmAction(action)
		created.AddOkAction(action) // tells people who were called out when it is over
	}
	return topic
}

func alarms(c stackConfig, f functions, q queues) []alarm {
	all := functionAlarms(f)
	all = append(all, queueAlarms(c, q)...)
	all = append(all, runAlarms(c)...)
	all = append(all, catchUpAlarms(c)...)
	return append(all, archiveAlarms(c)...)
}

func functionAlarms(f functions) []alarm {
	return []alarm{
		{
			id: "EnumeratorErrors", name: "enumerator-errors", means: "The enumerator failed more than twice in 24 hours",
			do: "read the first error in its log", metric: functionMetric(f.enumerator, "Errors", statisticSum, day), threshold: errorsADay,
		},
		{
			id: "WorkerErrors", name: "worker-errors", means: "The worker failed more than twice in 24 hours",
			do: "read the first error in its log", metric: functionMetric(f.worker, "Errors", statisticSum, day), threshold: errorsADay,
		},
		{
			id: "AggregatorErrors", name: "aggregator-errors", means: "The aggregator failed more than twice in 24 hours",
			do: "read the first error in its log", metric: functionMetric(f.aggregator, "Errors", statisticSum, day), threshold: errorsADay,
		},
		{
			id: "EnumeratorDuration", name: "enumerator-duration", means: "The enumerator took more than 80 % of its 15 minutes",
			do:     "check that the resume tick finishes the list, and find out what is slow",
			metric: functionMetric(f.enumerator, "Duration", statisticMax, time.Hour), threshold: milliseconds(enumeratorTimeout) * 0.8,
		},
		{
			id: "WorkerDuration", name: "worker-duration", means: "The slowest of a hundred batches takes more than 4 of the worker's 5 minutes",
			do:     "find out whether Stripe or the database is slow",
			metric: functionMetric(f.worker, "Duration", statisticP99, tickInterval), threshold: milliseconds(workerSlow),
		},
		{
			id: "Throttles", name: "throttles", means: "Lambda refused to run the functions more than ten times in an hour",
			do: "find out what uses up the account's concurrency", metric: throttles(f), threshold: throttlesAnHour,
		},
	}
}

func queueAlarms(c stackConfig, q queues) []alarm {
	const visible, age = "ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage"
	return []alarm{
		{
			id: "DeadLetters", name: "dead-letters", means: "Organizations could not be reconciled",
			do: "look at the reasons, fix the cause, then redrive", metric: queueMetric(q.deadLetter, visible),
		},
		{
			id: "ResultsDeadLetters", name: "results-dead-letters", means: "Progress messages could not be handled",
			do: "fix the aggregator, then move them back", metric: queueMetric(q.resultsDeadLetter, visible),
		},
		{
			id: "FailedInvocations", name: "failed-invocations", means: "A scheduled run failed for a day, or a schedule or a digest could not be delivered",
			do: "read the message, fix the cause, start the run by hand", metric: queueMetric(q.failed, visible),
		},
		{
			id: "WorkAge", name: "work-age", means: "Organizations have waited longer than a quarter of a run's deadline",
			do:     "find out what delays the workers",
			metric: queueMetric(q.work, age), threshold: (c.RunDeadline / queueAgeOfDeadline).Seconds(),
		},
	}
}

func runAlarms(c stackConfig) []alarm {
	return []alarm{
		{
			id: "RunErrors", name: "run-errors", means: "A run ended with errors",
			do: "look at the reasons of the errors, a person must decide", metric: c.runMetric(telemetry.MetricErrors),
		},
		{
			id: "RunIncomplete", name: "run-incomplete", means: "A run reached its deadline with organizations pending",
			do: "find out what delayed the workers, then resume the run", metric: c.runMetric(telemetry.MetricRunIncomplete),
		},
		{
			id: "RunSuspect", name: "run-suspect", means: "A run found nothing where the last one found something, or a catch-up could not see everything",
			do: "check the database and the Stripe account before you trust it, or start a run over all organizations", metric: c.runMetric(telemetry.MetricRunSuspect),
		},
		{
			id: "RunStopped", name: "run-stopped", means: "A run was stopped, because the key, the account or the database is wrong, or by a person",
			do: "fix the cause, then resume the run", metric: c.runMetric(telemetry.MetricRunStopped),
		},
		{
			id: "RunWithheld", name: "run-withheld", means: "A run reached its limit of downgrades and withheld the rest",
			do: "check the withheld changes before you approve them", metric: c.runMetric(telemetry.MetricWithheld),
		},
		{
			id: "RunAge", name: "run-age", means: "No run over all organizations has completed in 8 days, or its age is not reported",
			do:        "check the schedules, the tick and the last run",
			metric:    c.customMetric(telemetry.MetricLastRunAge, statisticMax, time.Hour, nil),
			threshold: runOverdue.Seconds(), periods: 2, missingBreaches: true,
		},
		{
			id: "OutboxAge", name: "outbox-age", means: "Repairs have been waiting for more than a day to be announced to the application",
			do:     "find out why the event bus does not accept them",
			metric: c.customMetric(telemetry.MetricOutboxAge, statisticMax, time.Hour, nil), threshold: day.Seconds(),
		},
		{
			id: "AccessDrift", name: "access-drift", means: "More organizations than usual had a wrong tier, status or subscription",
			do: "check the application's webhook", metric: c.runMetric(telemetry.MetricAccessDrift),
			threshold: float64(c.AccessDriftThreshold),
		},
		{
			id: "Orphans", name: "orphans", means: "More subscriptions than usual belong to no organization",
			do: "check whether customers pay for nothing", metric: c.runMetric(telemetry.MetricOrphans),
			threshold: float64(c.OrphansThreshold),
		},
	}
}

// catchUpAlarms leaves out only the age if none is scheduled: one may still be started by hand.
func catchUpAlarms(c stackConfig) []alarm {
	all := []alarm{
		{
			id: "WebhookMissed", name: "webhook-missed", means: "In three hours catch-ups found more wrong organizations than usual, because the application missed or mishandled webhooks",
			do:     "check that an endpoint is subscribed, then whether it fails",
			metric: c.customMetric(telemetry.MetricCatchUpAccessDrift, statisticSum, missedWindow, nil), threshold: float64(c.CatchUpDriftThreshold),
		},
		{
			id: "RepairUndone", name: "repair-undone", means: "Something undid a repair within a day",
			do:     "find out what else writes these columns",
			metric: c.customMetric(telemetry.MetricRepairUndone, statisticSum, time.Hour, nil),
		},
	}
	interval, scheduled := catchUpInterval(c.CatchUpSchedule)
	if !scheduled {
		return all
	}
	return append(all, alarm{
		id: "CatchUpAge", name: "catch-up-age", means: "No catch-up has ended for hours, or its age is not reported",
		do:        "check that the key may read events, and the schedule and the tick",
		metric:    c.customMetric(telemetry.MetricCatchUpAge, statisticMax, tickInterval, nil),
		threshold: max(catchUpOverdue, 3*interval).Seconds(), periods: 2, missingBreaches: true,
	})
}

// alarmTopic returns the topic for alarms: an existing one, whose policy its owner maintains, or a new one.
func alarmTopic(stack awscdk.Stack, c stackConfig) awssns.ITopic {
	var topic awssns.ITopic
	if c.AlarmTopic != "" {
		topic = awssns.Topic_FromTopicArn(stack, jsii.String("AlarmTopic"), &c.AlarmTopic)
	} else {
		topic = newTopic(stack, c)
	}
	if c.AlarmEmail != "" {
		topic.AddSubscription(awssnssubscriptions.NewEmailSubscription(&c.AlarmEmail, nil))
	}
	return topic
}

// newTopic creates the topic for alarms. It is not encrypted, because CloudWatch may not use alias/aws/sns; its
// messages hold only the text of an alarm.
func newTopic(stack awscdk.Stack, c stackConfig) awssns.Topic {
	topic := awssns.NewTopic(stack, jsii.String("AlarmTopic"), &awssns.TopicProps{
		TopicName: jsii.String(c.name("alarms")), EnforceSSL: jsii.Bool(true),
	})
	topic.AddToResourcePolicy(awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Sid:        jsii.String("AlarmsOfThisAccount"),
		Principals: &[]awsiam.IPrincipal{awsiam.NewServicePrincipal(jsii.String("cloudwatch.amazonaws.com"), nil)},
		Actions:    jsii.Strings("sns:Publish"), Resources: &[]*string{topic.TopicArn()},
		Conditions: &map[string]any{"StringEquals": map[string]any{"aws:SourceAccount": stack.Account()}},
	}))
	return topic
}

func functionMetric(f awslambda.Function, name, statistic string, period time.Duration) awscloudwatch.Metric {
	return f.Metric(&name, &awscloudwatch.MetricOptions{Statistic: &statistic, Period: seconds(period)})
}

// throttles is the sum over all functions; a function that was not invoked has no data.
func throttles(f functions) awscloudwatch.IMetric {
	using := map[string]awscloudwatch.IMetric{}
	for id, function := range map[string]awslambda.Function{"enumerator": f.enumerator, "worker": f.worker, "aggregator": f.aggregator} {
		using[id] = functionMetric(function, "Throttles", statisticSum, time.Hour)
	}
	return awscloudwatch.NewMathExpression(&awscloudwatch.MathExpressionProps{
		Expression: jsii.String("SUM(METRICS())"), UsingMetrics: &using, Period: seconds(time.Hour), Label: jsii.String("Throttles"),
	})
}

func queueMetric(q awssqs.Queue, name string) awscloudwatch.Metric {
	return q.Metric(&name, &awscloudwatch.MetricOptions{Statistic: jsii.String(statisticMax), Period: seconds(5 * time.Minute)})
}

// runMetric is a metric that each run over all organizations writes once, at its end.
func (c stackConfig) runMetric(name string) awscloudwatch.Metric {
	return c.customMetric(name, statisticMax, time.Hour, nil)
}

// customMetric is a metric that the functions write.
func (c stackConfig) customMetric(name, statistic string, period time.Duration, dimensions *map[string]*string) awscloudwatch.Metric {
	return awscloudwatch.NewMetric(&awscloudwatch.MetricProps{
		Namespace: jsii.String(telemetry.NamespaceOf(c.Stage)), MetricName: &name, Statistic: &statistic, Period: seconds(period),
		DimensionsMap: dimensions,
	})
}

func milliseconds(d time.Duration) float64 { return float64(d.Milliseconds()) }
