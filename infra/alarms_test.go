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

func TestAlarmsWatchWhatTheyPromise(t *testing.T) {
	const lambda, queue, own = "AWS/Lambda", "AWS/SQS", telemetry.Namespace
	const hidden, heard = "notBreaching", "breaching"
	type watch struct {
		namespace, metric, statistic string
		of                           string // function or queue
		threshold                    float64
		period, periods              float64 // seconds
		silence                      string
	}
	want := map[string]watch{
		"enumerator-errors":    {lambda, "Errors", "Sum", "enumerator", 2, 86400, 1, hidden},
		"worker-errors":        {lambda, "Errors", "Sum", "worker", 2, 86400, 1, hidden},
		"aggregator-errors":    {lambda, "Errors", "Sum", "aggregator", 2, 86400, 1, hidden},
		"enumerator-duration":  {lambda, "Duration", "Maximum", "enumerator", 720_000, 3600, 1, hidden},
		"worker-duration":      {lambda, "Duration", "p99", "worker", 240_000, 900, 1, hidden},
		"throttles":            {lambda, "Throttles", "Sum", "aggregator+enumerator+worker", 10, 3600, 1, hidden},
		"dead-letters":         {queue, "ApproximateNumberOfMessagesVisible", "Maximum", "dead-letter", 0, 300, 1, hidden},
		"results-dead-letters": {queue, "ApproximateNumberOfMessagesVisible", "Maximum", "results-dead-letter", 0, 300, 1, hidden},
		"failed-invocations":   {queue, "ApproximateNumberOfMessagesVisible", "Maximum", "failed-invocations", 0, 300, 1, hidden},
		"work-age":             {queue, "ApproximateAgeOfOldestMessage", "Maximum", "work", 10_800, 300, 1, hidden},
		"run-errors":           {own, "Errors", "Maximum", "", 0, 3600, 1, hidden},
		"run-incomplete":       {own, "RunIncomplete", "Maximum", "", 0, 3600, 1, hidden},
		"run-suspect":          {own, "RunSuspect", "Maximum", "", 0, 3600, 1, hidden},
		"run-stopped":          {own, "RunStopped", "Maximum", "", 0, 3600, 1, hidden},
		"run-withheld":         {own, "Withheld", "Maximum", "", 0, 3600, 1, hidden},
		"run-age":              {own, "LastRunAge", "Maximum", "", 691_200, 3600, 2, heard},
		"access-drift":         {own, "AccessDrift", "Maximum", "", 10, 3600, 1, hidden},
		"webhook-missed":       {own, "CatchUpAccessDrift", "Sum", "", 5, 10_800, 1, hidden},
		"repair-undone":        {own, "RepairUndone", "Sum", "", 0, 3600, 1, hidden},
		"catch-up-age":         {own, "CatchUpAge", "Maximum", "", 10_800, 900, 2, heard},
		"outbox-age":           {own, "OutboxAge", "Maximum", "", 86_400, 3600, 1, hidden},
		"report-archive":       {own, "RunsToArchive", "Minimum", "", 0, 3600, 2, hidden},
		"orphans":              {own, "Orphans", "Maximum", "", 10, 3600, 1, hidden},
	}
	topic := slices.Collect(maps.Keys(resources(t, "AWS::SNS::Topic")))[0]
	got := map[string]watch{}
	for _, a := range resources(t, "AWS::CloudWatch::Alarm") {
		name := strings.TrimPrefix(a["AlarmName"].(string), prefix+"-")
		w := watch{threshold: a["Threshold"].(float64), periods: a["EvaluationPeriods"].(float64), silence: a["TreatMissingData"].(string)}
		var of []string
		for _, m := range measured(t, a) {
			w.namespace, w.metric, w.statistic, w.period = m.namespace, m.name, m.statistic, m.period
			of = append(of, watched(t, m.of))
		}
		slices.Sort(of)
		w.of = strings.Join(of, "+")
		got[name] = w
		for _, when := range []string{"AlarmActions", "OKActions"} {
			actions, _ := a[when].([]any)
			if a["ComparisonOperator"] != "GreaterThanThreshold" || len(actions) != 1 || target(actions[0]) != topic {
				t.Errorf("%s: %v tells %v (%s)", name, a["ComparisonOperator"], actions, when)
			}
		}
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(watch{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCatchUpsAreWatchedAsTheyAreScheduled(t *testing.T) {
	for schedule, overdue := range map[string]float64{"": 0, "rate(5 minutes)": 10_800, "rate(60 minutes)": 10_800, "rate(6 hours)": 64_800} {
		c := example(t)
		c.CatchUp = schedule
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
			t.Errorf("%q: scheduled %v, alarmed of after %v s", schedule, scheduled, threshold)
		}
	}
}

// measurement is a metric that an alarm watches, alone or in a sum.
type measurement struct {
	namespace, name, statistic string
	period                     float64 // seconds
	of                         any     // dimensions
}

func measured(t *testing.T, alarm object) []measurement {
	t.Helper()
	queries, isSum := alarm["Metrics"].([]any)
	if !isSum {
		statistic, _ := alarm["Statistic"].(string)
		if extended, ok := alarm["ExtendedStatistic"].(string); ok {
			statistic = extended
		}
		return []measurement{{alarm["Namespace"].(string), alarm["MetricName"].(string), statistic, alarm["Period"].(float64), alarm["Dimensions"]}}
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
		all = append(all, measurement{m["Namespace"].(string), m["MetricName"].(string), stat["Stat"].(string), stat["Period"].(float64), m["Dimensions"]})
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

func TestAlarmsGoToTheirAddressOnly(t *testing.T) {
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

func TestAlarmsGoToATopicThatExists(t *testing.T) {
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

func TestWhatIsWatchedIsWhatTheFunctionsWrite(t *testing.T) {
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
	// The other way round: what is written is there to be looked at.
	for name := range written {
		if !used[name] && name != telemetry.MetricOrganizations { // the sum of the outcomes, which are shown
			t.Errorf("%s is written and shown nowhere", name)
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

func TestTheDashboardShowsWhatARunDid(t *testing.T) {
	shown := map[string]int{}
	for _, w := range dashboardWidgets(t) {
		shown[w.Properties.Title] = len(w.Properties.Metrics)
	}
	want := map[string]int{
		"Outcomes of each run (organizations)": 6, "Drift of each run (organizations; orphans: subscriptions)": 4,
		"Drift by field (changes)": len(billing.Fields()), "Requests to Stripe in each run": 4,
		"Queues (messages)": 6, "Oldest message (seconds)": 6, "Duration of the functions (ms)": 3, "Failed invocations": 3,
		"Duration of each run (ms)": 1, "Since the last completed run (seconds)": 1,
		"Found by catch-ups (organizations)": 2, "Since the last catch-up (seconds)": 1,
		"Announcements": 3, "First announcement in the outbox (seconds)": 1,
	}
	if diff := cmp.Diff(want, shown); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

var descriptionForm = regexp.MustCompile(`^[A-Z][^.]+: [^.]+\. Runbook: infra/runbooks/([a-z-]+)\.md$`)

func TestEachAlarmHasItsRunbook(t *testing.T) {
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
