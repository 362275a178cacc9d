package handler_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func TestAggregatorAnswersEachKindOfEvent(t *testing.T) {
	f := newFixture(t)
	f.openRun()
	for _, step := range []struct{ name, event, want string }{
		{"progress", `{"Records":[
			{"messageId":"m1","receiptHandle":"h","body":"{\"version\":1,\"runId\":\"unknown\"}","attributes":{"ApproximateReceiveCount":"1"},
			 "messageAttributes":{},"md5OfBody":"x","eventSource":"aws:sqs","eventSourceARN":"arn:aws:sqs:us-east-1:1:results","awsRegion":"us-east-1"},
			{"messageId":"m2","body":"unreadable"},
			{"messageId":"m3","body":"{\"version\":1,\"runId\":\"x\",\"orgId\":\"org-1\"}"},
			{"messageId":"m4","body":"{\"version\":7,\"runId\":\"x\"}"}
		]}`, `{"batchItemFailures":[{"itemIdentifier":"m2"},{"itemIdentifier":"m3"},{"itemIdentifier":"m4"}]}`},
		{"what AWS may add to a record", `{"Records":[{"messageId":"m1","body":"{\"version\":1,\"runId\":\"unknown\"}","newKey":{"a":1}}]}`, `{"batchItemFailures":[]}`},
		{"tick", `{"tick":true}`, `{"closed":["` + runID + `"],"pruned":0}`},
		{"second tick", `{"tick":true}`, `{"closed":[],"pruned":0}`},
	} {
		answer, err := f.aggregator().Handle(t.Context(), json.RawMessage(step.event))
		if err != nil {
			t.Errorf("%s: %v", step.name, err)
			continue
		}
		got, err := json.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, string(got)); diff != "" {
			t.Errorf("%s: %s", step.name, diff)
		}
	}
	if s := f.summary(); s.Status != billing.RunCompleted || s.RunID != runID {
		t.Errorf("%+v", s)
	}
}

func TestInvalidAggregatorEventsAreRefused(t *testing.T) {
	f := newFixture(t)
	for _, event := range []string{
		``, `null`, `[]`, `7`, `{}`, `{"tick":false}`, `{"tick":true,"runId":"x"}`, `{"Records":[]}`, `{"Records":[{"messageId":"m"}],"tick":true}`,
		`{"runId":""}`, `{"run":"x"}`, `{"tick":true}{}`, `{"Records":[{"messageId":"m"}],"runId":"x"}`, `{"runId":"unknown"}`,
	} {
		if answer, err := f.aggregator().Handle(t.Context(), json.RawMessage(event)); err == nil {
			t.Errorf("%s was answered with %+v", event, answer)
		}
	}
}

func TestProgressMessagesOfOneRunAreHandledOnce(t *testing.T) {
	f := newFixture(t)
	f.openRun()
	event := `{"Records":[`
	for i := range 10 {
		if i > 0 {
			event += ","
		}
		event += `{"messageId":"m` + string(rune('0'+i)) + `","body":"{\"version\":1,\"runId\":\"` + runID + `\"}"}`
	}
	if _, err := f.aggregator().Handle(t.Context(), json.RawMessage(event+`]}`)); err != nil {
		t.Fatal(err)
	}
	if n := f.Logs.Count(`"Reconciliation completed"`); n != 1 || f.status() != billing.RunCompleted {
		t.Errorf("%d summaries, run is %s", n, f.status())
	}
	if n := f.Metrics.Count(`"Organizations"`); n != 1 {
		t.Errorf("%d lines of metrics", n)
	}
}

func TestProgressDuringAnOutageIsReturned(t *testing.T) {
	f := newFixture(t)
	f.openRun()
	a := f.aggregator()
	if err := f.DB.Close(); err != nil {
		t.Fatal(err)
	}
	answer, err := a.Handle(t.Context(), json.RawMessage(`{"Records":[{"messageId":"m1","body":"{\"version\":1,\"runId\":\"`+runID+`\"}"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := json.Marshal(answer); err != nil || string(got) != `{"batchItemFailures":[{"itemIdentifier":"m1"}]}` {
		t.Errorf("%s, %v", got, err)
	}
}
