package lambdabuild_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/runtimeapi"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

const scheduledRun = "2026-11-22T03:00:00Z"

// The run goes from the schedule's event to the summary. A worker is killed in the middle of a batch, which is then
// delivered to two other workers at the same time.
func TestDeployedProgramsReconcile(t *testing.T) {
	population := demo.Options{Orgs: 60, Drift: 0.4, Seed: 7, Now: time.Now().UTC().Truncate(time.Second)}
	s := newStack(t, population)
	want := map[string]string{}
	wantErrors := 0
	for i := range population.Orgs {
		if e := demo.Expect(population, i); e.Listed {
			if e.Reason == billing.ReasonCustomerMissing {
				e.Reason = billing.ReasonNoSubscription // a sweep does not ask for customers
			}
			want[e.OrgID] = string(e.Outcome) + " " + string(e.Reason)
			if e.Outcome == billing.OutcomeError {
				wantErrors++
			}
		}
	}
	if n := s.ownTables(); n != 0 {
		t.Fatalf("%d own tables exist before the first run", n)
	}

	enumerator := s.function("enumerator")
	wantJSON(t, s.invoke(enumerator, `{"scheduledFor":"`+scheduledRun+`"}`), map[string]any{"runId": scheduledRun, "enqueued": float64(len(want)), "done": true})
	wantJSON(t, s.invoke(enumerator, `{"scheduledFor":"`+scheduledRun+`"}`), map[string]any{"runId": scheduledRun, "enqueued": 0.0, "done": true}) // delivered twice
	if answer := s.invoke(enumerator, `{"resume":true}`); !strings.Contains(answer, `"done":true`) {
		t.Errorf("the tick was answered with %s", answer)
	}

	batch := s.receive(s.work)
	if len(batch.Records) != len(want) {
		t.Fatalf("%d messages, want one for each of %d organizations", len(batch.Records), len(want))
	}
	worker := s.function("worker")
	s.killInTheMiddle(worker, batch)
	s.deliverTwiceAtOnce(worker, batch)
	if n := s.undecided(); n != 0 {
		t.Errorf("%d organizations are pending", n)
	}
	if diff := cmp.Diff(want, s.outcomes()); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	if got := len(deadOrganizations(t, s.receive(s.deadLetter))); got != wantErrors {
		t.Errorf("%d organizations have dead letters, want %d", got, wantErrors)
	}

	aggregator := s.function("aggregator")
	progress := s.receive(s.results)
	if len(progress.Records) < 3 { // one of the enumerator and one of each worker
		t.Errorf("%d progress messages, want at least 3", len(progress.Records))
	}
	if answer, err := aggregator.HandleSQS(t.Context(), progress); err != nil || len(answer.BatchItemFailures) != 0 {
		t.Errorf("the progress messages were answered with %+v, %v", answer, err)
	}
	wantJSON(t, s.invoke(aggregator, `{"tick":true}`), map[string]any{"closed": []any{}, "pruned": 0.0})
	var summary billing.Summary
	if err := json.Unmarshal([]byte(s.invoke(aggregator, `{"runId":"`+scheduledRun+`"}`)), &summary); err != nil {
		t.Fatal(err)
	}
	if summary.TotalOrganizations != len(want) || summary.Errors != wantErrors || summary.Pending != 0 || summary.Status.Open() || summary.Status == billing.RunSuspect {
		t.Errorf("summary %+v", summary)
	}
	s.wantAnnounced()
	wantEveryMetric(t, s.printed["aggregator"].String())
}

// wantAnnounced checks that exactly the repairs and the end of the run were announced, with the key's mode.
func (s *stack) wantAnnounced() {
	s.Helper()
	var got []string
	for _, e := range s.bus.Events() {
		var detail struct {
			OrgID    string `json:"orgId"`
			Status   any    `json:"status"`
			LiveMode bool   `json:"livemode"`
		}
		if err := json.Unmarshal(e.Detail, &detail); err != nil {
			s.Fatal(err)
		}
		if detail.LiveMode != strings.Contains(s.stripe.Key(), "_live_") {
			s.Errorf("livemode is %t", detail.LiveMode)
		}
		if detail.OrgID == "" {
			detail.OrgID = e.DetailType
		}
		got = append(got, detail.OrgID)
	}
	want := []string{string(billing.AnnounceRunFinished)}
	for orgID, outcome := range s.outcomes() {
		if strings.HasPrefix(outcome, string(billing.OutcomeSynced)) {
			want = append(want, orgID)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) || len(want) < 2 {
		s.Errorf("announced: %q, want %q", got, want)
	}
}

// killInTheMiddle gives the batch to a worker and kills it after it has decided some of the organizations.
func (s *stack) killInTheMiddle(worker *runtimeapi.Function, batch events.SQSEvent) {
	s.Helper()
	total := s.undecided()
	reached, killed := make(chan struct{}), make(chan struct{})
	s.onRequest(func(n int) {
		switch {
		case n == 12:
			close(reached)
			<-killed
		case n > 12:
			<-killed
		}
	})
	failed := make(chan error, 1)
	go func() {
		_, err := worker.HandleSQS(s.Context(), batch)
		failed <- err
	}()
	select {
	case <-reached:
	case err := <-failed:
		s.Fatalf("the worker ended too early: %v", err)
	case <-time.After(patience):
		s.Fatal("the worker did not send 12 requests to Stripe")
	}
	for _, p := range worker.Processes() {
		p.Kill()
	}
	err := <-failed
	close(killed)
	if e, ok := errors.AsType[*runtimeapi.Error](err); !ok || e.Type != runtimeapi.ErrorExit {
		s.Errorf("the killed worker ended with %v", err)
	}
	if pending := s.undecided(); pending == 0 || pending == total {
		s.Errorf("%d of %d organizations are pending, so the worker was not killed in the middle", pending, total)
	}
}

// deliverTwiceAtOnce gives the same batch to two processes at the same time.
func (s *stack) deliverTwiceAtOnce(worker *runtimeapi.Function, batch events.SQSEvent) {
	s.Helper()
	bothStarted := make(chan struct{})
	s.onRequest(func(n int) {
		if n > 1 {
			return
		}
		select { // the first request to Stripe waits for the second process
		case <-bothStarted:
		case <-time.After(patience):
			s.Error("no second process started")
		}
	})
	type ended struct {
		response events.SQSEventResponse
		err      error
	}
	ends := make(chan ended, 2)
	deliver := func() {
		response, err := worker.HandleSQS(s.Context(), batch)
		ends <- ended{response, err}
	}
	go deliver()
	go deliver()
	for deadline := time.Now().Add(patience); len(worker.Processes()) < 2; {
		if time.Now().After(deadline) {
			s.Fatal("the second invocation did not start a process")
		}
		time.Sleep(time.Millisecond)
	}
	close(bothStarted)
	for range 2 {
		if e := <-ends; e.err != nil || len(e.response.BatchItemFailures) != 0 {
			s.Errorf("%+v, %v", e.response, e.err)
		}
	}
}

// outcomes returns the outcome and the reason of each organization.
func (s *stack) outcomes() map[string]string {
	s.Helper()
	rows, err := s.db.QueryContext(s.Context(), `SELECT org_id, outcome, reason FROM reconciliation_items`)
	if err != nil {
		s.Fatal(err)
	}
	defer rows.Close()
	all := map[string]string{}
	for rows.Next() {
		var org, outcome, reason string
		if err := rows.Scan(&org, &outcome, &reason); err != nil {
			s.Fatal(err)
		}
		all[org] = outcome + " " + reason
	}
	if err := rows.Err(); err != nil {
		s.Fatal(err)
	}
	return all
}

// deadOrganizations returns the organizations of the dead letters, each once.
func deadOrganizations(t *testing.T, deadLetters events.SQSEvent) []string {
	t.Helper()
	organizations := map[string]bool{}
	for _, deadLetter := range deadLetters.Records {
		org, reason := deadLetter.MessageAttributes["orgId"].StringValue, deadLetter.MessageAttributes["reason"].StringValue
		if org == nil || reason == nil {
			t.Errorf("a dead letter without organization or reason: %+v", deadLetter)
			continue
		}
		organizations[*org] = true
	}
	return slices.Sorted(maps.Keys(organizations))
}

func wantJSON(t *testing.T, answer string, want map[string]any) {
	t.Helper()
	var got map[string]any
	if err := json.Unmarshal([]byte(answer), &got); err != nil {
		t.Fatalf("%s: %v", answer, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// wantEveryMetric checks that the aggregator printed every metric, in the format of CloudWatch:
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
func wantEveryMetric(t *testing.T, printed string) {
	t.Helper()
	emitted, fields := map[string]int{}, map[string]bool{}
	for line := range strings.Lines(printed) {
		var members map[string]any
		if err := json.Unmarshal([]byte(line), &members); err != nil {
			t.Errorf("the line %q is not JSON", line)
			continue
		}
		for _, metric := range metricsOf(t, line) {
			if _, ok := members[metric.Name].(float64); !ok {
				t.Errorf("metric %s has the value %v", metric.Name, members[metric.Name])
			}
			for _, dimension := range metric.Dimensions {
				if _, ok := members[dimension].(string); !ok {
					t.Errorf("dimension %s of %s has the value %v", dimension, metric.Name, members[dimension])
				}
			}
			emitted[signature(metric)]++
			if metric.Name == telemetry.MetricFieldDrift {
				fields[members[telemetry.DimensionField].(string)] = true
			}
		}
	}
	want := map[string]int{}
	for _, metric := range telemetry.All() {
		want[signature(metric)] = 1
		if metric.Name == telemetry.MetricFieldDrift {
			want[signature(metric)] = len(billing.Fields())
		}
	}
	delete(want, telemetry.MetricCatchUpAccessDrift+"()") // only catch-ups emit it
	if diff := cmp.Diff(want, emitted); diff != "" {
		t.Errorf("metrics (-want +printed):\n%s", diff)
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(billing.Fields())), slices.Sorted(maps.Keys(fields))); diff != "" {
		t.Errorf("fields (-want +printed):\n%s", diff)
	}
}

func signature(m telemetry.Emitted) string {
	return m.Name + "(" + strings.Join(m.Dimensions, ",") + ")"
}

// metricsOf returns a line's metrics, which must be in this system's namespace.
func metricsOf(t *testing.T, line string) []telemetry.Emitted {
	t.Helper()
	var embedded struct {
		AWS struct {
			Timestamp         int64
			CloudWatchMetrics []struct {
				Namespace  string
				Dimensions [][]string
				Metrics    []struct{ Name string }
			}
		} `json:"_aws"`
	}
	if err := json.Unmarshal([]byte(line), &embedded); err != nil {
		t.Error(err)
	}
	var all []telemetry.Emitted
	for _, directive := range embedded.AWS.CloudWatchMetrics {
		if directive.Namespace != telemetry.Namespace || len(directive.Dimensions) != 1 {
			t.Errorf("namespace %q, dimensions %v", directive.Namespace, directive.Dimensions)
			continue
		}
		if age := time.Since(time.UnixMilli(embedded.AWS.Timestamp)); age < -time.Minute || age > time.Hour {
			t.Errorf("the timestamp of a metric is %v ago", age)
		}
		for _, metric := range directive.Metrics {
			all = append(all, telemetry.Emitted{Name: metric.Name, Dimensions: directive.Dimensions[0]})
		}
	}
	return all
}

func TestFailedStartReturnsItsErrorToTheInvoker(t *testing.T) {
	s := newStack(t, demo.Options{Orgs: 1, Seed: 1, Now: time.Now().UTC()})
	for name, c := range map[string]struct {
		function string
		changes  []string
		parts    []string // of the message
	}{
		"no secret":    {"worker", []string{"SECRET_NAME", "pixell/other"}, []string{`"pixell/other"`, "does not exist"}},
		"no queue":     {"enumerator", []string{"WORK_QUEUE_URL", ""}, []string{"WORK_QUEUE_URL is not set"}},
		"wrong tables": {"aggregator", []string{"DB_NAME", "no_such_database"}, []string{"no_such_database", "DB_NAME"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.function(c.function, c.changes...).Invoke(t.Context(), []byte(`{"tick":true}`))
			e, ok := errors.AsType[*runtimeapi.Error](err)
			if !ok || e.Type != "Function.CannotStart" {
				t.Fatalf("got %v", err)
			}
			for _, part := range c.parts {
				if !strings.Contains(e.Message, part) || !strings.Contains(s.printed[c.function].String(), strings.Trim(part, `"`)) {
					t.Errorf("%q is missing in the message %q or in the log: %s", part, e.Message, s.printed[c.function])
				}
			}
			if strings.Contains(e.Message, s.stripe.Key()) {
				t.Error("the message has Stripe's key")
			}
		})
	}
}

// Two stages with one database would repair with different settings.
func TestFunctionOfAnotherStageDoesNotStart(t *testing.T) {
	s := newStack(t, demo.Options{Orgs: 1, Seed: 1, Now: time.Now().UTC()})
	s.invoke(s.function("aggregator", "STAGE", "production"), `{"tick":true}`)
	for _, stage := range []string{"", "staging"} {
		_, err := s.function("enumerator", "STAGE", stage).Invoke(t.Context(), []byte(`{"resume":true}`))
		e, ok := errors.AsType[*runtimeapi.Error](err)
		if want := fmt.Sprintf("STAGE is %q, and this database belongs to stage %q", stage, "production"); !ok || !strings.Contains(e.Message, want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	s.invoke(s.function("enumerator", "STAGE", "production"), `{"resume":true}`)
}

// A tick may come before the first run of a fresh deployment.
func TestEveryProgramMigratesOwnTables(t *testing.T) {
	s := newStack(t, demo.Options{Orgs: 1, Seed: 1, Now: time.Now().UTC()})
	wantJSON(t, s.invoke(s.function("aggregator"), `{"tick":true}`), map[string]any{"closed": []any{}, "pruned": 0.0})
	if n := s.ownTables(); n < 3 {
		t.Errorf("%d own tables exist, want at least 3", n)
	}
	if printed := s.printed["aggregator"].String(); !strings.Contains(printed, `"`+telemetry.MetricLastRunAge+`":`) {
		t.Errorf("the aggregator did not print the age of the last run: %s", printed)
	}
}
