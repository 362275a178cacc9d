package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-cdk-go/awscdk/v2/assertions"
	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

type object = map[string]any

func TestTwoSynthsGiveTheSameBytes(t *testing.T) {
	synthesizeOnce(t)
	_, again, err := synth(example(t), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(synthesized.text, again) {
		t.Error(cmp.Diff(string(synthesized.text), string(again)))
	}
}

func TestTheStackHasOnlyKnownTypesOfResources(t *testing.T) {
	synthesizeOnce(t)
	got := map[string]int{}
	for _, r := range synthesized.parsed.Resources {
		got[r.Type]++
	}
	want := map[string]int{
		"AWS::SQS::Queue": 6, "AWS::SQS::QueuePolicy": 6, "AWS::Logs::LogGroup": 3, "AWS::IAM::Role": 4, "AWS::IAM::Policy": 4,
		"AWS::IAM::ManagedPolicy": 2, "AWS::Lambda::Function": 3, "AWS::Lambda::EventSourceMapping": 3, "AWS::Lambda::EventInvokeConfig": 2,
		"AWS::Scheduler::Schedule": 4, "AWS::Scheduler::ScheduleGroup": 1, "AWS::SNS::Topic": 1, "AWS::SNS::TopicPolicy": 1,
		"AWS::SNS::Subscription": 1, "AWS::CloudWatch::Alarm": 23, "AWS::CloudWatch::Dashboard": 1, "AWS::S3::Bucket": 1, "AWS::S3::BucketPolicy": 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestQueuesHaveRetentionVisibilityAndDeadLetters(t *testing.T) {
	needNode(t) // for the CDK's matchers below
	for name, queue := range map[string]object{
		"work":    {"VisibilityTimeout": 1802, "MessageRetentionPeriod": 345600, "RedrivePolicy": object{"maxReceiveCount": 30}},
		"results": {"VisibilityTimeout": 750, "MessageRetentionPeriod": 345600, "RedrivePolicy": object{"maxReceiveCount": 12}},
		// A day of deliveries, and kept for longer.
		"scheduled-runs": {"VisibilityTimeout": 900, "MessageRetentionPeriod": 345600, "RedrivePolicy": object{"maxReceiveCount": 96}},
		"dead-letter": {"MessageRetentionPeriod": 1209600, "RedriveAllowPolicy": object{
			"redrivePermission": "byQueue", "sourceQueueArns": assertions.Match_ArrayWith(&[]any{endsWith(":" + prefix + "-work")}),
		}},
		"results-dead-letter": {"MessageRetentionPeriod": 1209600, "RedriveAllowPolicy": object{
			"redrivePermission": "byQueue", "sourceQueueArns": assertions.Match_ArrayWith(&[]any{endsWith(":" + prefix + "-results")}),
		}},
		"failed-invocations": {"MessageRetentionPeriod": 1209600, "RedriveAllowPolicy": object{
			"redrivePermission": "byQueue", "sourceQueueArns": assertions.Match_ArrayWith(&[]any{endsWith(":" + prefix + "-scheduled-runs")}),
		}},
	} {
		queue["QueueName"] = prefix + "-" + name
		queue["SqsManagedSseEnabled"] = true
		has(t, "AWS::SQS::Queue", queue)
	}
	for from, to := range map[string]string{"work": "dead-letter", "results": "results-dead-letter", "scheduled-runs": "failed-invocations"} {
		redrive, _ := named(t, "AWS::SQS::Queue", "QueueName", prefix+"-"+from)["RedrivePolicy"].(object)
		if got, want := target(redrive["deadLetterTargetArn"]), idOf(t, "AWS::SQS::Queue", "QueueName", prefix+"-"+to); got != want {
			t.Errorf("%s gives up to %s, want %s", from, got, want)
		}
	}
}

// endsWith matches an ARN that ends so; the CDK joins it with the partition.
func endsWith(text string) object {
	return object{"Fn::Join": assertions.Match_ArrayWith(&[]any{assertions.Match_ArrayWith(&[]any{assertions.Match_StringLikeRegexp(ptr(text + "$"))})})}
}

func TestQueuesRefuseRequestsWithoutTLS(t *testing.T) {
	covered := map[string]bool{}
	for _, policy := range resources(t, "AWS::SQS::QueuePolicy") {
		for _, s := range statements(t, policy) {
			if s.Effect == "Deny" && strings.Contains(fmt.Sprint(s.Condition), "aws:SecureTransport:false") {
				for _, resource := range s.Resource {
					covered[target(resource)] = true
				}
			}
		}
	}
	for id := range resources(t, "AWS::SQS::Queue") {
		if !covered[id] {
			t.Errorf("queue %s takes plain http", id)
		}
	}
}

func TestFunctionsRunInThePrivateSubnetsOnArm(t *testing.T) {
	for name, function := range map[string]object{
		"enumerator": {"Timeout": 900, "MemorySize": 512},
		"worker":     {"Timeout": 300, "MemorySize": 256},
		"aggregator": {"Timeout": 120, "MemorySize": 256},
	} {
		maps.Copy(function, object{
			"FunctionName": prefix + "-" + name, "Runtime": "provided.al2023", "Architectures": []any{"arm64"}, "Handler": "bootstrap",
			"VpcConfig": object{
				"SubnetIds":        []any{"subnet-0123456789abcdef0", "subnet-0123456789abcdef1"},
				"SecurityGroupIds": []any{"sg-0123456789abcdef0"},
			},
			"LoggingConfig": object{"LogGroup": object{"Ref": idOf(t, "AWS::Logs::LogGroup", "LogGroupName", example(t).logGroupName(name))}},
		})
		has(t, "AWS::Lambda::Function", function)
		has(t, "AWS::Logs::LogGroup", object{"LogGroupName": example(t).logGroupName(name), "RetentionInDays": 90})
	}
}

func TestEachFunctionHasARoleOfItsOwn(t *testing.T) {
	seen := map[string]string{}
	for id, function := range resources(t, "AWS::Lambda::Function") {
		role := target(function["Role"])
		if other, taken := seen[role]; taken {
			t.Errorf("%s and %s share %s", id, other, role)
		}
		seen[role] = id
	}
}

// Each function gets exactly the variables that its code reads.
func TestFunctionsGetTheirVariablesAndNoSecret(t *testing.T) {
	database := []string{"SECRET_NAME", "DB_HOST", "DB_PORT", "DB_USER", "DB_NAME", "DB_TLS", "TIERS", "LOG_LEVEL", "STAGE"}
	stripe := []string{"STRIPE_MODE", "STRIPE_RPS"}
	c := example(t)
	for _, name := range configurable(config.Names(nil)) { // all, also those that the example does not set
		c.Functions[name] = "set"
	}
	made, _ := synthOf(t, c)
	for name, want := range map[string][]string{
		"enumerator": slices.Concat(database, stripe, []string{"STRIPE_ACCOUNT_ID", "MAX_DOWNGRADES", "RUN_DEADLINE", "EVENTS_SETTLE", "WORK_QUEUE_URL", "RESULTS_QUEUE_URL"}),
		"worker": slices.Concat(database, stripe, []string{
			"STRIPE_PRICE_ID_FREE", "STRIPE_PRICE_ID_STARTER", "STRIPE_PRICE_ID_PRO", "STRIPE_PRICE_ID_MAX", "STRIPE_PRODUCT_ID_FREE",
			"STRIPE_PRODUCT_ID_STARTER", "STRIPE_PRODUCT_ID_PRO", "STRIPE_PRODUCT_ID_MAX", "STRIPE_PRICE_ID_ADDON", "STRIPE_PRODUCT_ID_ADDON", "DEFAULT_TIER", "WORKER_CONCURRENCY", "EVENT_BUS",
			"RETRY_BACKOFF", "MAX_RECEIVE_COUNT", "WORK_QUEUE_URL", "RESULTS_QUEUE_URL", "DEAD_LETTER_QUEUE_URL",
		}),
		"aggregator": slices.Concat(database, []string{"RETENTION_DAYS", "STRIPE_MODE", "EVENT_BUS", "REPORT_BUCKET"}),
	} {
		slices.Sort(want)
		if diff := cmp.Diff(want, variablesOf(made, prefix+"-"+name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func variablesOf(made cloudFormation, function string) []string {
	for _, r := range made.Resources {
		if r.Properties["FunctionName"] == function {
			environment, _ := r.Properties["Environment"].(object)
			variables, _ := environment["Variables"].(object)
			return slices.Sorted(maps.Keys(variables))
		}
	}
	return nil
}

// An unknown variable would be ignored silently.
func TestFunctionsKnowTheVariablesThatTheyGet(t *testing.T) {
	for id, function := range resources(t, "AWS::Lambda::Function") {
		environment, _ := function["Environment"].(object)
		variables, _ := environment["Variables"].(object)
		for name := range variables {
			if name == "SECRET_NAME" { // the only variable that a secret cannot hold
				continue
			}
			known, err := config.FromSecret("x", fmt.Sprintf(`{%q:"x"}`, name))
			if err != nil || len(known) != 1 {
				t.Errorf("%s gets %s, which shared/config does not know (%v)", id, name, err)
			}
		}
	}
}

func TestFunctionsGetTheValuesThatTheStackUses(t *testing.T) {
	has(t, "AWS::Lambda::Function", object{"FunctionName": prefix + "-worker", "Environment": object{"Variables": object{
		"WORKER_CONCURRENCY": "10", "MAX_RECEIVE_COUNT": "30", "SECRET_NAME": "pixell/subscription-reconciliation", "DB_TLS": "rds",
		"WORK_QUEUE_URL": object{"Ref": idOf(t, "AWS::SQS::Queue", "QueueName", prefix+"-work")},
	}}})
	has(t, "AWS::Lambda::Function", object{"FunctionName": prefix + "-enumerator", "Environment": object{"Variables": object{"RUN_DEADLINE": "12h0m0s"}}})
}

func TestQueuesFeedFunctionsInBatches(t *testing.T) {
	for function, source := range map[string]object{
		"worker": {"BatchSize": 100, "MaximumBatchingWindowInSeconds": 2, "ScalingConfig": object{"MaximumConcurrency": 10}, "queue": "work"},
		"aggregator": {
			"BatchSize": 100, "MaximumBatchingWindowInSeconds": 30, "ScalingConfig": object{"MaximumConcurrency": 2}, "queue": "results",
		},
		// Its answer names no messages: after an error its one message is delivered again.
		"enumerator": {"BatchSize": 1, "ScalingConfig": object{"MaximumConcurrency": 2}, "queue": "scheduled-runs", "FunctionResponseTypes": assertions.Match_Absent()},
	} {
		queue := idOf(t, "AWS::SQS::Queue", "QueueName", prefix+"-"+source["queue"].(string))
		delete(source, "queue")
		source["EventSourceArn"] = object{"Fn::GetAtt": []any{queue, "Arn"}}
		source["FunctionName"] = object{"Ref": idOf(t, "AWS::Lambda::Function", "FunctionName", prefix+"-"+function)}
		if _, set := source["FunctionResponseTypes"]; !set {
			source["FunctionResponseTypes"] = []any{"ReportBatchItemFailures"}
		}
		has(t, "AWS::Lambda::EventSourceMapping", source)
	}
}

func TestSchedulesDeliverTheirPayload(t *testing.T) {
	failed := object{"Fn::GetAtt": []any{idOf(t, "AWS::SQS::Queue", "QueueName", prefix+"-failed-invocations"), "Arn"}}
	function := func(name string) string { return idOf(t, "AWS::Lambda::Function", "FunctionName", prefix+"-"+name) }
	scheduled := idOf(t, "AWS::SQS::Queue", "QueueName", prefix+"-scheduled-runs")
	for name, s := range map[string]struct{ expression, target, payload string }{
		"scheduled-run":   {"cron(0 3 ? * SUN *)", scheduled, `{"scheduledFor":"<aws.scheduler.scheduled-time>"}`},
		"catch-up":        {"rate(1 hour)", scheduled, `{"strategy":"events","scheduledFor":"<aws.scheduler.scheduled-time>"}`},
		"resume-tick":     {"rate(15 minutes)", function("enumerator"), `{"resume":true}`},
		"aggregator-tick": {"rate(15 minutes)", function("aggregator"), `{"tick":true}`},
	} {
		has(t, "AWS::Scheduler::Schedule", object{
			"Name": prefix + "-" + name, "ScheduleExpression": s.expression, "ScheduleExpressionTimezone": "UTC", "State": "ENABLED",
			"FlexibleTimeWindow": object{"Mode": "OFF"},
			"Target": object{
				"Arn":   object{"Fn::GetAtt": []any{s.target, "Arn"}},
				"Input": s.payload, "DeadLetterConfig": object{"Arn": failed},
			},
		})
	}
}

// The next tick does the same work, and an alarm counts the function's errors.
func TestTicksThatFailAreNotTriedAgain(t *testing.T) {
	for _, function := range []string{"enumerator", "aggregator"} {
		has(t, "AWS::Lambda::EventInvokeConfig", object{
			"FunctionName":             object{"Ref": idOf(t, "AWS::Lambda::Function", "FunctionName", prefix+"-"+function)},
			"MaximumEventAgeInSeconds": 900, "MaximumRetryAttempts": 0, "DestinationConfig": assertions.Match_Absent(),
		})
	}
}

func TestAMissingBuildIsReportedWithItsCommand(t *testing.T) {
	folder := t.TempDir()
	if err := os.MkdirAll(filepath.Join(folder, "worker"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "worker", "bootstrap"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := checkAssets(folder)
	if err == nil || !strings.Contains(err.Error(), "task build") || strings.Contains(err.Error(), "worker") || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("checkAssets() = %v, want a line for the enumerator and the aggregator", err)
	}
}

func ptr[T any](value T) *T { return &value }

// named returns the one resource of the type whose property has this value.
func named(t *testing.T, kind, property, value string) map[string]any {
	t.Helper()
	return resources(t, kind)[idOf(t, kind, property, value)]
}

func idOf(t *testing.T, kind, property string, value any) string {
	t.Helper()
	for id, properties := range resources(t, kind) {
		if properties[property] == value {
			return id
		}
	}
	t.Fatalf("no %s has %s %v", kind, property, value)
	return ""
}

// target returns the logical id that a Ref or Fn::GetAtt points to.
func target(value any) string {
	reference, _ := value.(object)
	if id, ok := reference["Ref"].(string); ok {
		return id
	}
	if parts, ok := reference["Fn::GetAtt"].([]any); ok {
		id, _ := parts[0].(string)
		return id
	}
	return ""
}
