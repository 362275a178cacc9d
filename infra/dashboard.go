package main

import (
	"time"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/jsii-runtime-go"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

const (
	halfOfTheWidth = 12
	widgetHeight   = 6
)

func newDashboard(stack awscdk.Stack, c stackConfig, f functions, q queues) {
	awscloudwatch.NewDashboard(stack, jsii.String("Dashboard"), &awscloudwatch.DashboardProps{
		DashboardName: jsii.String(c.globalName("")), Start: jsii.String("-P5W"),
		Widgets: &[]*[]awscloudwatch.IWidget{
			{
				graph("Outcomes of each run (organizations)", c.runMetrics(telemetry.MetricSynchronized, telemetry.MetricSkipped,
					telemetry.MetricErrors, telemetry.MetricWithheld, telemetry.MetricPending, telemetry.MetricDowngrades)),
				graph("Drift of each run (organizations; orphans: subscriptions)", c.runMetrics(telemetry.MetricAccessDrift, telemetry.MetricDetailDrift,
					telemetry.MetricTierMetadataMismatch, telemetry.MetricOrphans)),
			},
			{
				graph("Drift by field (changes)", c.fieldMetrics()),
				graph("Requests to Stripe in each run", c.runMetrics(telemetry.MetricStripeList, telemetry.MetricStripeRetrieve,
					telemetry.MetricStripeOther, telemetry.MetricStripeThrottled)),
			},
			{
				graph("Queues (messages)", queueMetrics("ApproximateNumberOfMessagesVisible", q)),
				graph("Oldest message (seconds)", queueMetrics("ApproximateAgeOfOldestMessage", q)),
			},
			{
				graph("Duration of the functions (ms)", []awscloudwatch.IMetric{
					functionMetric(f.enumerator, "Duration", statisticMax, tickInterval), functionMetric(f.worker, "Duration", statisticP99, tickInterval),
					functionMetric(f.aggregator, "Duration", statisticP99, tickInterval),
				}),
				graph("Failed invocations", []awscloudwatch.IMetric{
					functionMetric(f.enumerator, "Errors", statisticSum, tickInterval), functionMetric(f.worker, "Errors", statisticSum, tickInterval),
					functionMetric(f.aggregator, "Errors", statisticSum, tickInterval),
				}),
			},
			{
				graph("Duration of each run (ms)", c.runMetrics(telemetry.MetricRunDuration)),
				graph("Since the last completed run (seconds)", c.runMetrics(telemetry.MetricLastRunAge)),
			},
			{
				graph("Found by catch-ups (organizations)", []awscloudwatch.IMetric{
					c.customMetric(telemetry.MetricCatchUpAccessDrift, statisticSum, time.Hour, nil), c.customMetric(telemetry.MetricRepairUndone, statisticSum, time.Hour, nil),
				}),
				graph("Since the last catch-up (seconds)", c.runMetrics(telemetry.MetricCatchUpAge)),
			},
			{
				graph("Announcements", []awscloudwatch.IMetric{
					c.customMetric(telemetry.MetricAnnounced, statisticSum, time.Hour, nil), c.customMetric(telemetry.MetricAnnouncementErrors, statisticSum, time.Hour, nil),
					c.runMetric(telemetry.MetricOutboxSize),
				}),
				graph("First announcement in the outbox (seconds)", c.runMetrics(telemetry.MetricOutboxAge)),
			},
		},
	})
}

func graph(title string, metrics []awscloudwatch.IMetric) awscloudwatch.IWidget {
	return awscloudwatch.NewGraphWidget(&awscloudwatch.GraphWidgetProps{
		Title: &title, Left: &metrics, Width: jsii.Number(halfOfTheWidth), Height: jsii.Number(widgetHeight),
		LeftYAxis: &awscloudwatch.YAxisProps{Min: jsii.Number(0), ShowUnits: jsii.Bool(false)},
	})
}

func (c stackConfig) runMetrics(names ...string) []awscloudwatch.IMetric {
	metrics := make([]awscloudwatch.IMetric, 0, len(names))
	for _, name := range names {
		metrics = append(metrics, c.runMetric(name))
	}
	return metrics
}

func (c stackConfig) fieldMetrics() []awscloudwatch.IMetric {
	var metrics []awscloudwatch.IMetric
	for _, field := range billing.Fields() {
		metrics = append(metrics, c.customMetric(telemetry.MetricFieldDrift, statisticMax, time.Hour,
			&map[string]*string{telemetry.DimensionField: jsii.String(field)}))
	}
	return metrics
}

func queueMetrics(name string, q queues) []awscloudwatch.IMetric {
	return []awscloudwatch.IMetric{
		queueMetric(q.scheduled, name), queueMetric(q.work, name), queueMetric(q.results, name), queueMetric(q.deadLetter, name),
		queueMetric(q.resultsDeadLetter, name), queueMetric(q.failed, name),
	}
}
