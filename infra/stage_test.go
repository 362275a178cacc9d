package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// synthOf returns the template of a configuration other than the example's.
func synthOf(t *testing.T, c stackConfig) (made cloudFormation, text []byte) {
	t.Helper()
	needNode(t)
	_, text, err := synth(c, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &made); err != nil {
		t.Fatal(err)
	}
	return made, text
}

// physicalNames returns the names that the template gives, each with the type of what has it.
func physicalNames(t *testing.T, made cloudFormation) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for id, r := range made.Resources {
		for property, value := range r.Properties {
			name, isText := value.(string)
			if !isText || !strings.HasSuffix(property, "Name") {
				continue
			}
			switch r.Type + "." + property {
			case "AWS::IAM::Policy.PolicyName", "AWS::CloudWatch::Alarm.MetricName": // of its role; of the namespace
			case "AWS::EventSchemas::Schema.SchemaName", "AWS::Events::Rule.EventBusName", "AWS::SNS::Topic.DisplayName": // of its registry; the application's; no name
			case "AWS::SQS::Queue.QueueName", "AWS::Lambda::Function.FunctionName", "AWS::Logs::LogGroup.LogGroupName", "AWS::SNS::Topic.TopicName",
				"AWS::Scheduler::Schedule.Name", "AWS::Scheduler::ScheduleGroup.Name", "AWS::CloudWatch::Alarm.AlarmName",
				"AWS::CloudWatch::Dashboard.DashboardName", "AWS::IAM::ManagedPolicy.ManagedPolicyName", "AWS::Events::Rule.Name", "AWS::EventSchemas::Registry.RegistryName":
				names[r.Type+" "+name] = true
			default:
				t.Errorf("%s: is %s a name of its own?", id, property)
			}
		}
	}
	return names
}

func TestTwoStagesShareNoName(t *testing.T) {
	everything := func(stage string) (cloudFormation, []byte) {
		c, err := loadConfig(map[string]string{"INFRA_CONFIG": "config.example.env", "EVENT_BUS": "application", "DIGEST_EMAIL": "finance@example.com", "STAGE": stage})
		if err != nil {
			t.Fatal(err)
		}
		return synthOf(t, c)
	}
	first, _ := everything("")
	made, text := everything("staging")
	one, other := physicalNames(t, first), physicalNames(t, made)
	if len(one) < 30 || len(one) != len(other) {
		t.Errorf("%d and %d names", len(one), len(other))
	}
	for name := range one {
		if other[name] {
			t.Errorf("both have %s", name)
		}
	}
	// No stage names the other's parts, in policies and targets either.
	for _, found := range regexp.MustCompile(`(pixell-|/pixell/)subscription-reconciliation[a-z/-]*`).FindAllString(string(text), -1) {
		if found != prefix && !strings.Contains(found, "subscription-reconciliation-staging") { // the tag "application" is the same in all stages
			t.Errorf("staging names %s", found)
		}
	}
	for _, r := range made.Resources {
		if namespace, ok := r.Properties["Namespace"].(string); ok && !strings.HasPrefix(namespace, "AWS/") && namespace != telemetry.Namespace+"/staging" {
			t.Errorf("an alarm of staging reads %s", namespace)
		}
	}
}

// Operators can copy the lines into their .env.
func TestTheOutputsHaveTheOperatorsLinesAndLinks(t *testing.T) {
	synthesizeOnce(t)
	c := example(t)
	c.Stage = "staging"
	staged, _ := synthOf(t, c)
	for _, of := range []struct {
		made        cloudFormation
		name, lines string
	}{{synthesized.parsed, prefix, ""}, {staged, prefix + "-staging", "\nSTAGE=staging"}} {
		made := of.made
		var dotEnv strings.Builder
		join, _ := made.Outputs["DotEnv"].Value.(object)["Fn::Join"].([]any)
		for _, part := range join[1].([]any) {
			if id := target(part); id != "" {
				dotEnv.WriteString(withoutHash(id))
			} else {
				dotEnv.WriteString(part.(string))
			}
		}
		want := "AWS_REGION=us-east-1\nENUMERATOR_FUNCTION=Enumerator\nWORK_QUEUE_URL=WorkQueue\nRESULTS_QUEUE_URL=ResultsQueue\nDEAD_LETTER_QUEUE_URL=DeadLetterQueue" + of.lines
		dashboard := "https://us-east-1.console.aws.amazon.com/cloudwatch/home?region=us-east-1#dashboards/dashboard/" + of.name + "-us-east-1"
		if dotEnv.String() != want || made.Outputs["DashboardUrl"].Value != dashboard {
			t.Errorf("%q and %v", dotEnv.String(), made.Outputs["DashboardUrl"].Value)
		}
		for output, of := range map[string]string{"OperatorPolicy": "Operators", "AlarmTopic": "AlarmTopic"} {
			if got := withoutHash(target(made.Outputs[output].Value)); got != of {
				t.Errorf("%s is %s", output, got)
			}
		}
	}
}

func TestTheStackHasTheConfiguredTagsAndProtection(t *testing.T) {
	needNode(t)
	c, err := loadConfig(map[string]string{
		"INFRA_CONFIG": "config.example.env", "STAGE": "staging", "TAGS": "team=billing, cost-center=1 2", "TERMINATION_PROTECTION": "false",
	})
	if err != nil {
		t.Fatal(err)
	}
	stack, text, err := synth(c, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if *stack.TerminationProtection() {
		t.Error("the stack is protected")
	}
	for name, value := range map[string]string{"application": prefix, "stage": "staging", "team": "billing", "cost-center": "1 2"} {
		if (*stack.Tags().TagValues())[name] == nil || *(*stack.Tags().TagValues())[name] != value {
			t.Errorf("tag %s is not %s", name, value)
		}
	}
	if len(text) == 0 || !example(t).Protected {
		t.Error("the example's stack is not protected")
	}
}

// The names of IAM policies and CloudWatch dashboards are global.
func TestTwoRegionsShareNoGlobalName(t *testing.T) {
	synthesizeOnce(t)
	c := example(t)
	c.Region = "eu-central-1"
	made, _ := synthOf(t, c)
	there := physicalNames(t, made)
	for name := range physicalNames(t, synthesized.parsed) {
		if (strings.HasPrefix(name, "AWS::IAM::") || strings.HasPrefix(name, "AWS::CloudWatch::Dashboard ")) && there[name] {
			t.Errorf("both regions have %s", name)
		}
	}
}

// AWS allows 64 characters in the name of a function or a schedule.
func TestNamesFitWithTheLongestStage(t *testing.T) {
	c := example(t)
	c.Stage = "productionx2"
	for _, part := range append([]string{fullRun, catchUp, resumeTick, aggregatorTick}, functionNames...) {
		if name := c.name(part); len(name) > 64 {
			t.Errorf("%s has %d characters", name, len(name))
		}
	}
	if c.logGroupName("worker") != "/pixell/subscription-reconciliation-productionx2/worker" {
		t.Error(c.logGroupName("worker"))
	}
}

// A command in a document works for every stage.
func TestCommandsNameTheStage(t *testing.T) {
	pages, err := filepath.Glob("runbooks/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no runbooks: %v", err)
	}
	named := regexp.MustCompile(`(pixell-|/pixell/)subscription-reconciliation([^\s"']*)`)
	for _, page := range append(pages, "README.md", "../Taskfile.yml") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "    ") {
				continue
			}
			for _, name := range named.FindAllStringSubmatch(line, -1) {
				if !strings.HasPrefix(name[2], "${STAGE:+-$STAGE}") {
					t.Errorf("%s: %s", page, strings.TrimSpace(line))
				}
			}
		}
	}
}
