package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// policyFile returns the statements of a policy in policies/.
func policyFile(t *testing.T, name string) []statement {
	t.Helper()
	text, err := os.ReadFile("policies/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var document any
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	return statements(t, map[string]any{"PolicyDocument": document})
}

// The deployer may make every call of the preflight, except the optional one that reads the secret.
func TestTheDeployerMayMakeTheCallsOfThePreflight(t *testing.T) {
	allowed := map[string]bool{
		"secretsmanager:getsecretvalue": true,
		"sts:getcalleridentity":         true, // needs no permission, says AWS
	}
	for _, s := range policyFile(t, "deployer.json") {
		for _, action := range s.Action {
			allowed[strings.ToLower(fmt.Sprint(action))] = true
		}
	}
	text, err := os.ReadFile("preflight/check.go")
	if err != nil {
		t.Fatal(err)
	}
	calls := regexp.MustCompile(`aws\.call\(ctx, &\w+, "([a-z0-9]+)", "([a-z-]+)"`).FindAllStringSubmatch(string(text), -1)
	if len(calls) < 6 {
		t.Errorf("found %d calls", len(calls))
	}
	for _, call := range calls {
		if action := call[1] + ":" + strings.ReplaceAll(call[2], "-", ""); !allowed[action] {
			t.Errorf("the deployer may not %s", action)
		}
	}
}

// With this policy CloudFormation can create every type of resource in the stack.
func TestCloudFormationMayCreateTheStack(t *testing.T) {
	synthesizeOnce(t)
	allowed := map[string]bool{}
	for _, s := range policyFile(t, "cloudformation.json") {
		for _, action := range s.Action {
			allowed[fmt.Sprint(action)] = true
		}
	}
	makes := map[string]string{
		"AWS::SQS::Queue": "sqs:*", "AWS::SQS::QueuePolicy": "sqs:*", "AWS::Logs::LogGroup": "logs:*", "AWS::IAM::Role": "iam:CreateRole",
		"AWS::IAM::Policy": "iam:PutRolePolicy", "AWS::IAM::ManagedPolicy": "iam:CreatePolicy", "AWS::Lambda::Function": "lambda:*",
		"AWS::Lambda::EventSourceMapping": "lambda:CreateEventSourceMapping", "AWS::Lambda::EventInvokeConfig": "lambda:*",
		"AWS::Scheduler::Schedule": "scheduler:*", "AWS::Scheduler::ScheduleGroup": "scheduler:*", "AWS::SNS::Topic": "sns:*",
		"AWS::SNS::TopicPolicy": "sns:*", "AWS::SNS::Subscription": "sns:Subscribe", "AWS::CloudWatch::Alarm": "cloudwatch:*",
		"AWS::CloudWatch::Dashboard": "cloudwatch:*", "AWS::S3::Bucket": "s3:*", "AWS::S3::BucketPolicy": "s3:*",
	}
	for id, r := range synthesized.parsed.Resources {
		if action := makes[r.Type]; !allowed[action] {
			t.Errorf("%s, %s: %q is not allowed", id, r.Type, action)
		}
	}
	for name := range physicalNames(t, synthesized.parsed) {
		if !strings.Contains(name, " pixell-subscription-reconciliation") && !strings.Contains(name, " /pixell/subscription-reconciliation") {
			t.Errorf("%s fits no resource of the policy", name)
		}
	}
}
