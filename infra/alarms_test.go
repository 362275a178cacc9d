package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

func TestAnAlarmNotifiesTheTopicWhenItStartsAndWhenItEnds(t *testing.T) {
	topic := slices.Collect(maps.Keys(resources(t, "AWS::SNS::Topic")))[0]
	for id, a := range resources(t, "AWS::CloudWatch::Alarm") {
		for _, when := range []string{"AlarmActions", "OKActions"} {
			actions, _ := a[when].([]any)
			if len(actions) != 1 || target(actions[0]) != topic {
				t.Errorf("%s: %s are %v", id, when, actions)
			}
		}
	}
}

// Without data the alarms on absent progress are raised, and no others.
func TestMissingDataIsAnAlarmOnlyForAbsentProgress(t *testing.T) {
	var raised []string
	for _, a := range resources(t, "AWS::CloudWatch::Alarm") {
		if a["TreatMissingData"] == "breaching" {
			raised = append(raised, strings.TrimPrefix(a["AlarmName"].(string), prefix+"-"))
		} else if a["TreatMissingData"] != "notBreaching" {
			t.Errorf("%s treats missing data as %v", a["AlarmName"], a["TreatMissingData"])
		}
	}
	slices.Sort(raised)
	if want := []string{"catch-up-age", "run-age"}; !slices.Equal(raised, want) {
		t.Errorf("raised without data: %q, want %q", raised, want)
	}
}

// An alarm is named after the function or queue whose metric it reads; throttles sums all functions.
func TestAlarmsReadTheFunctionOrQueueOfTheirName(t *testing.T) {
	for _, a := range resources(t, "AWS::CloudWatch::Alarm") {
		name := strings.TrimPrefix(a["AlarmName"].(string), prefix+"-")
		for _, m := range measured(t, a) {
			of := watched(t, m.of)
			if strings.HasPrefix(m.namespace, "AWS/") && (of == "" || !strings.HasPrefix(name, of) && name != "throttles") {
				t.Errorf("%s reads %s of %q", name, m.name, of)
			}
		}
	}
}

func TestCatchUpAgeAlarmsAfterThreeIntervalsAndIsAbsentWithoutASchedule(t *testing.T) {
	for schedule, overdue := range map[string]float64{"": 0, "rate(5 minutes)": 10_800, "rate(60 minutes)": 10_800, "rate(6 hours)": 64_800} {
		c := example(t)
		c.CatchUpSchedule = schedule
		made, _ := synthOf(t, c)
		var scheduled, threshold any
		for _, r := range made.Resources {
			switch {
			case r.Properties["Name"] == c.name(catchUp):
				scheduled = r.Properties["ScheduleExpression"]
			case r.Properties["AlarmName"] == c.name("catch-up-age"):
				threshold = r.Properties["Threshold"]
			}
		}
		if schedule == "" && (scheduled != nil || threshold != nil) || schedule != "" && (scheduled != schedule || threshold != overdue) {
			t.Errorf("%q: scheduled %v, alarm after %v s", schedule, scheduled, threshold)
		}
	}
}

// measurement is a metric that an alarm reads, alone or in a sum.
type measurement struct {
	namespace, name string
	of              any // dimensions
}

func measured(t *testing.T, alarm object) []measurement {
	t.Helper()
	queries, isSum := alarm["Metrics"].([]any)
	if !isSum {
		return []measurement{{alarm["Namespace"].(string), alarm["MetricName"].(string), alarm["Dimensions"]}}
	}
	var all []measurement
	for _, query := range queries {
		q := query.(object)
		stat, isMetric := q["MetricStat"].(object)
		if !isMetric {
			if q["Expression"] != "SUM(METRICS())" {
				t.Errorf("%v is no sum", q["Expression"])
			}
			continue
		}
		m := stat["Metric"].(object)
		all = append(all, measurement{m["Namespace"].(string), m["MetricName"].(string), m["Dimensions"]})
	}
	return all
}

// watched returns the name of the queue or function that the dimensions point to.
func watched(t *testing.T, dimensions any) string {
	t.Helper()
	all, _ := dimensions.([]any)
	for _, dimension := range all {
		of := synthesized.parsed.Resources[target(dimension.(object)["Value"])].Properties
		for _, property := range []string{"QueueName", "FunctionName"} {
			if name, ok := of[property].(string); ok {
				return strings.TrimPrefix(name, prefix+"-")
			}
		}
	}
	return ""
}

func TestTheAlarmTopicSendsToTheAddressAndAcceptsOnlyThisAccount(t *testing.T) {
	topic := slices.Collect(maps.Keys(resources(t, "AWS::SNS::Topic")))[0]
	has(t, "AWS::SNS::Subscription", object{"Protocol": "email", "Endpoint": "operators@example.com", "TopicArn": object{"Ref": topic}})
	for _, policy := range resources(t, "AWS::SNS::TopicPolicy") {
		for _, s := range statements(t, policy) {
			if s.Effect == "Allow" && fmt.Sprint(s.Condition) != "map[StringEquals:map[aws:SourceAccount:123456789012]]" {
				t.Errorf("publishing is allowed where %v", s.Condition)
			}
		}
	}
	if key := resources(t, "AWS::SNS::Topic")[topic]["KmsMasterKeyId"]; key != nil {
		t.Errorf("CloudWatch cannot publish to a topic encrypted with %v", key)
	}
}

func TestAnExistingTopicReceivesAlarmsAndNoTopicIsCreated(t *testing.T) {
	const topic = "arn:aws:sns:us-east-1:123456789012:on-call"
	for email, subscriptions := range map[string]int{"": 0, "operators@example.com": 1} {
		c := example(t)
		c.AlarmTopic, c.AlarmEmail = topic, email
		made, _ := synthOf(t, c)
		count := map[string]int{}
		for id, r := range made.Resources {
			count[r.Type]++
			if r.Type == "AWS::CloudWatch::Alarm" && fmt.Sprint(r.Properties["AlarmActions"], r.Properties["OKActions"]) != "["+topic+"] ["+topic+"]" {
				t.Errorf("%s tells %v", id, r.Properties["AlarmActions"])
			}
		}
		if count["AWS::SNS::Topic"]+count["AWS::SNS::TopicPolicy"] != 0 || count["AWS::SNS::Subscription"] != subscriptions {
			t.Errorf("with %q there are %v", email, count)
		}
		if made.Outputs["AlarmTopic"].Value != topic {
			t.Errorf("the output says %v", made.Outputs["AlarmTopic"].Value)
		}
	}
}

// metric is one that an alarm or the dashboard reads.
type metric struct {
	namespace, name string
	dimensions      map[string]string
}

func TestTheMetricsReadAreThoseTheFunctionsWrite(t *testing.T) {
	written := map[string][]string{}
	for _, m := range telemetry.All() {
		written[m.Name] = m.Dimensions
	}
	read := append(alarmMetrics(t), dashboardMetrics(t)...)
	used := map[string]bool{}
	for _, m := range read {
		if strings.HasPrefix(m.namespace, "AWS/") {
			continue
		}
		dimensions, known := written[m.name]
		if m.namespace != telemetry.Namespace || !known || !slices.Equal(slices.Sorted(maps.Keys(m.dimensions)), dimensions) {
			t.Errorf("no function writes %+v", m)
		}
		if field, ok := m.dimensions[telemetry.DimensionField]; ok && !slices.Contains(billing.Fields(), field) {
			t.Errorf("no function writes the drift of %q", field)
		}
		used[m.name] = true
	}
	// And each metric that is written is read.
	for name := range written {
		if !used[name] && name != telemetry.MetricOrganizations { // the sum of the outcomes, which are shown
			t.Errorf("%s is written but not read", name)
		}
	}
}

func alarmMetrics(t *testing.T) []metric {
	t.Helper()
	var found []metric
	for _, a := range resources(t, "AWS::CloudWatch::Alarm") {
		for _, watched := range measured(t, a) {
			m := metric{watched.namespace, watched.name, map[string]string{}}
			dimensions, _ := watched.of.([]any)
			for _, dimension := range dimensions {
				m.dimensions[dimension.(object)["Name"].(string)] = fmt.Sprint(dimension.(object)["Value"])
			}
			found = append(found, m)
		}
	}
	return found
}

// dashboardMetrics reads the widgets: [namespace, name, dimension, value, ..., {how to show it}].
func dashboardMetrics(t *testing.T) []metric {
	t.Helper()
	var found []metric
	for _, widget := range dashboardWidgets(t) {
		for _, shown := range widget.Properties.Metrics {
			if _, ok := shown[len(shown)-1].(object); ok {
				shown = shown[:len(shown)-1]
			}
			if len(shown) < 2 || len(shown)%2 != 0 {
				t.Errorf("%s: cannot read %v", widget.Properties.Title, shown)
				continue
			}
			m := metric{shown[0].(string), shown[1].(string), map[string]string{}}
			for i := 2; i < len(shown); i += 2 {
				m.dimensions[shown[i].(string)] = fmt.Sprint(shown[i+1])
			}
			found = append(found, m)
		}
	}
	return found
}

type widget struct {
	Properties struct {
		Title   string
		Metrics [][]any
	}
}

func dashboardWidgets(t *testing.T) []widget {
	t.Helper()
	for _, dashboard := range resources(t, "AWS::CloudWatch::Dashboard") {
		body, _ := dashboard["DashboardBody"].(object)
		join, _ := body["Fn::Join"].([]any)
		var text strings.Builder
		for _, part := range join[1].([]any) {
			if literal, ok := part.(string); ok {
				text.WriteString(literal)
			} else {
				text.WriteString(target(part))
			}
		}
		var parsed struct{ Widgets []widget }
		if err := json.Unmarshal([]byte(text.String()), &parsed); err != nil {
			t.Fatalf("%v in %s", err, text.String())
		}
		return parsed.Widgets
	}
	return nil
}

var descriptionForm = regexp.MustCompile(`^[A-Z][^.]+: [^.]+\. Runbook: infra/runbooks/([a-z-]+)\.md$`)

func TestEachAlarmHasARunbookAndEachRunbookAnAlarm(t *testing.T) {
	files, err := filepath.Glob("runbooks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	var pages, alarmed []string
	for _, file := range files {
		pages = append(pages, strings.TrimSuffix(filepath.Base(file), ".md"))
	}
	for id, a := range resources(t, "AWS::CloudWatch::Alarm") {
		match := descriptionForm.FindStringSubmatch(a["AlarmDescription"].(string))
		if len(match) != 2 || a["AlarmName"] != prefix+"-"+match[1] {
			t.Errorf("%s: description %q is not what it means, what to do and the runbook", id, a["AlarmDescription"])
			continue
		}
		alarmed = append(alarmed, match[1])
	}
	slices.Sort(alarmed)
	if diff := cmp.Diff(alarmed, pages); diff != "" {
		t.Errorf("alarms and pages (-alarms +pages):\n%s", diff)
	}
}

func TestARunbookSaysWhatItMeansWhatToLookAtAndWhatToDo(t *testing.T) {
	synthesizeOnce(t)
	files, err := filepath.Glob("runbooks/*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("no runbooks: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := prefix + "-" + strings.TrimSuffix(filepath.Base(file), ".md")
		for _, part := range []string{"# " + name + "\n", "\n## What it means\n", "\n## What to look at\n", "\n## What to do\n", "\n    "} {
			if !strings.Contains(string(text), part) {
				t.Errorf("%s has no %q", file, part)
			}
		}
		commands := strings.ReplaceAll(string(text), "${STAGE:+-$STAGE}", "")
		for _, resource := range regexp.MustCompile(prefix+`-[a-z-]+|/pixell/subscription-reconciliation/[a-z-]+`).FindAllString(commands, -1) {
			if resource != name && !bytesContain(synthesized.text, resource) {
				t.Errorf("%s names %s, which is not in the stack", file, resource)
			}
		}
	}
}

func bytesContain(text []byte, part string) bool { return strings.Contains(string(text), `"`+part+`"`) }
