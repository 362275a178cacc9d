package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// digesting is the example with a bus and these variables.
func digesting(t *testing.T, more map[string]string) (stackConfig, cloudFormation) {
	t.Helper()
	environ := map[string]string{"INFRA_CONFIG": "config.example.env", "EVENT_BUS": "application"}
	for name, value := range more {
		environ[name] = value
	}
	c, err := loadConfig(environ)
	if err != nil {
		t.Fatal(err)
	}
	made, _ := synthOf(t, c)
	return c, made
}

// digestRule returns the one rule.
func digestRule(t *testing.T, made cloudFormation) (id string, rule map[string]any) {
	t.Helper()
	for of, r := range made.Resources {
		if r.Type != "AWS::Events::Rule" {
			continue
		}
		if id != "" {
			t.Fatalf("%s and %s are rules", id, of)
		}
		id = of
	}
	if id == "" {
		t.Fatal("there is no rule")
	}
	return id, made.Resources[id].Properties
}

func TestDigestsGoToTheAlarmTopicOrToTheirAddress(t *testing.T) {
	const there = "arn:aws:sns:us-east-1:123456789012:on-call"
	for name, test := range map[string]struct {
		set    map[string]string
		target any // a logical id without its hash, or an ARN
		mails  []string
		topics int
	}{
		"to the alarms' topic":         {nil, "AlarmTopic", []string{"operators@example.com to AlarmTopic"}, 1},
		"to a topic that exists":       {map[string]string{"ALARM_TOPIC_ARN": there}, there, []string{"operators@example.com to " + there}, 0},
		"to an address of their own":   {map[string]string{"DIGEST_EMAIL": "finance@example.com"}, "DigestTopic", []string{"finance@example.com to DigestTopic", "operators@example.com to AlarmTopic"}, 2},
		"to an address beside a topic": {map[string]string{"DIGEST_EMAIL": "finance@example.com", "ALARM_TOPIC_ARN": there}, "DigestTopic", []string{"finance@example.com to DigestTopic", "operators@example.com to " + there}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			_, made := digesting(t, test.set)
			_, rule := digestRule(t, made)
			to := onlyTarget(t, rule)
			if got := topicOf(to["Arn"]); got != test.target {
				t.Errorf("the rule's target is %s", got)
			}
			var mails []string
			topics := 0
			for _, r := range made.Resources {
				switch r.Type {
				case "AWS::SNS::Subscription":
					mails = append(mails, fmt.Sprint(r.Properties["Endpoint"], " to ", topicOf(r.Properties["TopicArn"])))
				case "AWS::SNS::Topic":
					topics++
					if r.Properties["KmsMasterKeyId"] != nil {
						t.Error("EventBridge may not use the key of an encrypted topic")
					}
				}
			}
			slices.Sort(mails)
			if diff := cmp.Diff(test.mails, mails); diff != "" || topics != test.topics {
				t.Errorf("%d topics, (-want +got):\n%s", topics, diff)
			}
			if _, has := made.Outputs["DigestTopic"]; has != (test.target == "DigestTopic") {
				t.Errorf("the output says a topic for digests: %t", has)
			}
		})
	}
}

func onlyTarget(t *testing.T, rule map[string]any) object {
	t.Helper()
	targets, _ := rule["Targets"].([]any)
	if len(targets) != 1 {
		t.Fatalf("the targets are %v", targets)
	}
	return targets[0].(object)
}

// topicOf returns the logical id, without its hash, or the ARN.
func topicOf(arn any) string {
	if id := target(arn); id != "" {
		return withoutHash(id)
	}
	return fmt.Sprint(arn)
}

// The rule matches every announced end of a run, of one stage and mode only.
func TestTheDigestRuleMatchesRunsOfItsStageAndModeOnly(t *testing.T) {
	for stage, mode := range map[string]string{"": "live", "staging": "test"} {
		c, made := digesting(t, map[string]string{"STAGE": stage, "STRIPE_MODE": mode})
		_, rule := digestRule(t, made)
		want := object{
			"source": []any{"subscription-reconciliation"}, "detail-type": []any{"Reconciliation Run Finished"},
			"detail": object{"stage": []any{stage}, "livemode": []any{mode == "live"}},
		}
		if diff := cmp.Diff(want, rule["EventPattern"]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if rule["EventBusName"] != "application" || rule["Name"] != c.name("digest") {
			t.Errorf("%v is on %v", rule["Name"], rule["EventBusName"])
		}
	}
}

// The test fills the template as EventBridge does: a name is replaced by its value, or by nothing if there is none.
func TestADigestArrivesLineByLine(t *testing.T) {
	_, made := digesting(t, nil)
	_, rule := digestRule(t, made)
	transformer := onlyTarget(t, rule)["InputTransformer"].(object)
	paths, template := transformer["InputPathsMap"].(object), transformer["InputTemplate"].(string)
	if len(paths) != billing.MaxDigestLines || len(paths) > 100 || len(template) > 8192 { // AWS's limits
		t.Errorf("%d paths, a template of %d characters", len(paths), len(template))
	}
	event, err := json.Marshal(billing.RunFinished{Lines: billing.TemplateLines("All went \"well\".\nNothing needs a person.")})
	if err != nil {
		t.Fatal(err)
	}
	var detail struct{ Lines []string }
	if err := json.Unmarshal(event, &detail); err != nil {
		t.Fatal(err)
	}
	filled := template
	for name, path := range paths {
		var index int
		if _, err := fmt.Sscanf(path.(string), "$.detail.lines[%d]", &index); err != nil {
			t.Fatalf("%v: %v", path, err)
		}
		value := ""
		if index < len(detail.Lines) {
			value = detail.Lines[index]
		}
		filled = strings.ReplaceAll(filled, "<"+name+">", value)
	}
	want := "\"All went 'well'.\"\n\"Nothing needs a person.\"" + strings.Repeat("\n\"\"", billing.MaxDigestLines-2)
	if diff := cmp.Diff(want, filled); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// EventBridge may publish, and send undelivered digests to the queue, for this rule only.
func TestOnlyTheRuleMayPublishDigests(t *testing.T) {
	for name, set := range map[string]map[string]string{"AlarmTopic": nil, "DigestTopic": {"DIGEST_EMAIL": "finance@example.com"}} {
		_, made := digesting(t, set)
		id, rule := digestRule(t, made)
		condition := object{"ArnEquals": object{"aws:SourceArn": object{"Fn::GetAtt": []any{id, "Arn"}}}}
		got := map[string]int{}
		for _, r := range made.Resources {
			if r.Type != "AWS::SNS::TopicPolicy" && r.Type != "AWS::SQS::QueuePolicy" {
				continue
			}
			for _, s := range statementsOf(t, r.Properties) {
				if s.Principal.Service != eventsService {
					continue
				}
				got[fmt.Sprint(s.Action, withoutHash(target(s.Resource[0])))]++
				if diff := cmp.Diff(condition, s.Condition); diff != "" || s.Effect != "Allow" || len(s.Resource) != 1 {
					t.Errorf("%+v (-want +got):\n%s", s, diff)
				}
			}
		}
		if diff := cmp.Diff(map[string]int{"[sns:Publish]" + name: 1, "[sqs:SendMessage]FailedInvocations": 1}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		dead := onlyTarget(t, rule)["DeadLetterConfig"].(object)["Arn"]
		if got := withoutHash(target(dead)); got != "FailedInvocations" {
			t.Errorf("what is not delivered goes to %s", got)
		}
	}
}

// resourceStatement is a statement of a resource policy, which has a principal.
type resourceStatement struct {
	statement

	Principal struct{ Service string }
}

func statementsOf(t *testing.T, policy map[string]any) []resourceStatement {
	t.Helper()
	var all []resourceStatement
	for i, s := range statements(t, policy) {
		document := policy["PolicyDocument"].(object)["Statement"].([]any)[i].(object)
		service, _ := document["Principal"].(object)
		name, _ := service["Service"].(string)
		one := resourceStatement{statement: s}
		one.Principal.Service = name
		all = append(all, one)
	}
	return all
}

// The stack creates no rule on a bus of another account or region, and refuses DIGEST_EMAIL there.
func TestABusElsewhereGetsNoRuleAndRefusesADigestAddress(t *testing.T) {
	for _, bus := range []string{"", "arn:aws:events:eu-central-1:123456789012:event-bus/application", "arn:aws:events:us-east-1:999999999999:event-bus/application"} { // secret-scan:allow made-up accounts
		environ := map[string]string{"INFRA_CONFIG": "config.example.env", "EVENT_BUS": bus}
		c, err := loadConfig(environ)
		if err != nil {
			t.Fatal(err)
		}
		made, _ := synthOf(t, c)
		for id, r := range made.Resources {
			if r.Type == "AWS::Events::Rule" || made.Outputs["DigestRule"].Value != nil {
				t.Errorf("%q: %s, %v", bus, id, made.Outputs["DigestRule"].Value)
			}
		}
		environ["DIGEST_EMAIL"] = "finance@example.com"
		_, err = loadConfig(environ)
		if found := problemsOf(t, err); len(found) != 1 || !strings.Contains(found["DIGEST_EMAIL"], "EVENT_BUS") {
			t.Errorf("%q: found %v", bus, found)
		}
	}
	_, err := loadConfig(map[string]string{"INFRA_CONFIG": "config.example.env", "EVENT_BUS": "application", "DIGEST_EMAIL": "finance"})
	if found := problemsOf(t, err); len(found) != 1 || !strings.Contains(found["DIGEST_EMAIL"], "e-mail address") {
		t.Errorf("an invalid address is reported as %v", found)
	}
	_, made := digesting(t, map[string]string{"EVENT_BUS": "arn:aws:events:us-east-1:123456789012:event-bus/application", "DIGEST_EMAIL": "finance@example.com"})
	if _, rule := digestRule(t, made); rule["EventBusName"] != "arn:aws:events:us-east-1:123456789012:event-bus/application" {
		t.Errorf("the rule is on %v", rule["EventBusName"])
	}
}

// The table of costs counts the alarms and metrics of the stack.
func TestTheCostTableCountsAlarmsAndMetrics(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	alarms, watched := 0, 0
	for _, a := range resources(t, "AWS::CloudWatch::Alarm") {
		alarms++
		watched += len(measured(t, a))
	}
	const always, ofTheBus = 5, 4
	weekly := len(telemetry.All()) - 1 + len(billing.Fields()) - always - ofTheBus // one metric of all has a dimension
	for _, want := range []string{
		fmt.Sprintf("| fixed: %d alarms, dashboard, secret, metrics | %.2f |", alarms, 0.1*float64(watched)+3+0.4+0.3*always+0.3*float64(weekly)*52/12/730),
		fmt.Sprintf("each of the %d metrics that they watch", watched), fmt.Sprintf("%d others one", weekly),
	} {
		if !strings.Contains(strings.Join(strings.Fields(string(text)), " "), want) {
			t.Errorf("it does not say %q", want)
		}
	}
}
