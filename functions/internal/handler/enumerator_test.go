package handler_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambda/messages"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/handler"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

func TestEnumeratorEventBecomesItsRequest(t *testing.T) {
	for event, want := range map[string]pipeline.Request{
		`{}`: {},
		`{"scheduledFor":"2026-11-22T03:00:00Z"}`:                            {ScheduledFor: start},
		`{"scheduledFor":"2026-11-22T04:00:00+01:00","strategy":"retrieve"}`: {ScheduledFor: start, Strategy: billing.StrategyRetrieve},
		`{"orgId":"org-1","dryRun":true,"strategy":""}`:                      {OrgID: "org-1", DryRun: true},
		`{"strategy":"events","dryRun":true}`:                                {Strategy: billing.StrategyEvents, DryRun: true},
		`{"strategy":"events","since":"2026-11-22T01:00:00Z"}`:               {Strategy: billing.StrategyEvents, Since: start.Add(-2 * time.Hour)},
		`{"resume":true}`: {ResumeAll: true},
		`{"resume":"2026-11-22T03:00:00Z","dryRun":true}`:         {ResumeRun: runID, DryRun: true},
		`{"orgId":"org-1","allowDowngrade":true,"by":"ops@desk"}`: {OrgID: "org-1", AllowDowngrade: true, By: "ops@desk"},
		"  {\n}\n": {},
	} {
		got, err := handler.EnumeratorRequest(json.RawMessage(event), start)
		if err != nil {
			t.Errorf("%s: %v", event, err)
			continue
		}
		if !got.ScheduledFor.Equal(want.ScheduledFor) {
			t.Errorf("%s: scheduled for %v", event, got.ScheduledFor)
		}
		got.ScheduledFor, want.ScheduledFor = time.Time{}, time.Time{}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", event, diff)
		}
	}
}

var refusedEvents = []string{
	``, ` `, `null`, `true`, `"org-1"`, `[]`, `[{}]`, `7`, `{`, `{}{}`, `{} x`, `{}]`,
	`{"orgID":"org-1","organization":"x"}`, `{"dry_run":true}`, `{"dryRun":"yes"}`, `{"dryRun":1}`,
	`{"scheduledFor":"tomorrow"}`, `{"scheduledFor":"<aws.scheduler.scheduled-time>"}`, `{"scheduledFor":1700000000}`,
	`{"dryRun":null}`, `{"dryRun":true,"dryRun":null}`, `{"strategy":null}`, `{"scheduledFor":null}`, `{"strategy":"sweep up"}`, `{"strategy":1}`, `{"orgId":7}`, `{"orgId":""}`, `{"orgId":" "}`, `{"orgId":null}`, `{"orgId":"a","orgId":null}`,
	`{"allowDowngrade":true}`, `{"allowDowngrade":true,"resume":"2026-11-22T03:00:00Z"}`, `{"orgId":"org-1","allowDowngrade":null}`, `{"by":7}`, `{"by":null}`,
	`{"resume":false}`, `{"resume":null}`, `{"resume":""}`, `{"resume":1}`, `{"resume":["a"]}`, `{"resume":{}}`,
	`{"strategy":"events","orgId":"org-1"}`, `{"since":"2026-11-22T01:00:00Z"}`, `{"strategy":"sweep","since":"2026-11-22T01:00:00Z"}`,
	`{"strategy":"events","since":"2h"}`, `{"strategy":"events","since":"2126-11-22T01:00:00Z"}`,
	`{"strategy":"events","since":"2026-11-22T01:00:00Z","resume":"2026-11-22T03:00:00Z"}`, `{"resume":"2026-11-22T03:00:00Z","scheduledFor":"2026-11-22T03:00:00Z"}`,
}

func TestRefusedEnumeratorEventsStartNothing(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	for _, event := range refusedEvents {
		got, err := f.enumerator().Handle(t.Context(), json.RawMessage(event))
		if err == nil || !strings.Contains(err.Error(), "nothing was started") {
			t.Errorf("%s: %+v, %v", event, got, err)
		}
	}
	if n := f.Count(`SELECT COUNT(*) FROM reconciliation_runs`); n != 0 || f.held(f.Work) != 0 {
		t.Errorf("%d runs", n)
	}
}

func TestEnumeratorAnswersWithItsRun(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.Subscriber("org-2")
	got, err := f.enumerator().Handle(t.Context(), json.RawMessage(`{"scheduledFor":"2026-11-22T03:00:00Z"}`))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"runId":"2026-11-22T03:00:00Z","enqueued":2,"done":true}`; string(answer) != want {
		t.Errorf("%s, want %s", answer, want)
	}
	if diff := cmp.Diff([]string{workBody(runID, "org-1"), workBody(runID, "org-2")}, testworld.Bodies(f.Receive(f.Work))); diff != "" {
		t.Error(diff)
	}
}

func TestEnumeratorErrorCarriesItsReason(t *testing.T) {
	f := newFixture(t)
	for event, want := range map[string]messages.InvokeResponse_Error{
		`{"orgId":"nobody"}`: {Type: "unknown_organization", Message: "there is no organization nobody, or it is deleted; check the id"},
		`{"resume":"never"}`: {Type: "unknown_run", Message: "there is no run never; it may have been pruned, or belong to another database"},
		`[]`:                 {Type: "internal_error", Message: "the event is refused, nothing was started: it is not a JSON object"},
	} {
		_, err := f.enumerator().Invoke(t.Context(), json.RawMessage(event))
		if diff := cmp.Diff(error(want), err); diff != "" {
			t.Errorf("%s: %s", event, diff)
		}
	}
	if got, err := f.enumerator().Invoke(t.Context(), json.RawMessage(`{}`)); err != nil || !got.Done {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRepeatedInvocationStartsOneRun(t *testing.T) {
	f := newFixture(t)
	var ids []string
	for _, request := range []string{"request-1", "request-1", "request-2"} {
		ctx := lambdacontext.NewContext(t.Context(), &lambdacontext.LambdaContext{AwsRequestID: request})
		got, err := f.enumerator().Handle(ctx, json.RawMessage(`{"dryRun":true}`))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, got.RunID)
	}
	if ids[0] != ids[1] || ids[0] == ids[2] {
		t.Errorf("runs %v", ids)
	}
}

// The schedule's events are bodies of a queue's messages. A failed one is delivered again.
func TestEnumeratorTakesEventsFromItsQueue(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	message := func(id, body string) json.RawMessage {
		text, err := json.Marshal(map[string]any{"Records": []any{map[string]any{
			"messageId": id, "receiptHandle": "h", "body": body, "eventSource": "aws:sqs", "newKey": 1,
			"attributes": map[string]string{"ApproximateReceiveCount": "2"},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for range 2 { // the same run, although the invocations differ
		ctx := lambdacontext.NewContext(t.Context(), &lambdacontext.LambdaContext{AwsRequestID: uuid.NewString()})
		got, err := f.enumerator().Handle(ctx, message("m1", `{"scheduledFor":"`+runID+`"}`))
		if err != nil || got.RunID != runID || !got.Done {
			t.Errorf("%+v, %v", got, err)
		}
		if got, err = f.enumerator().Handle(ctx, message("m2", `{"dryRun":true}`)); err != nil || !got.Done {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if n := f.Count(`SELECT COUNT(*) FROM reconciliation_runs`); n != 2 {
		t.Errorf("%d runs, want the scheduled one and the other", n)
	}
	for body, want := range map[string]string{
		`{"orgId":"nobody"}`: "unknown_organization", `unreadable`: "internal_error", `{"tick":true}`: "internal_error",
		`{"Records":[{"messageId":"m","body":"{}"}]}`: "internal_error",
	} {
		_, err := f.enumerator().Invoke(t.Context(), message("m3", body))
		if e, ok := errors.AsType[messages.InvokeResponse_Error](err); !ok || e.Type != want {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
	for _, event := range []string{`{"Records":[]}`, `{"Records":null}`, `{"Records":[{"body":"{}"}],"dryRun":true}`} {
		if got, err := f.enumerator().Handle(t.Context(), json.RawMessage(event)); err == nil {
			t.Errorf("%s: %+v", event, got)
		}
	}
}

func FuzzEnumeratorEvent(f *testing.F) {
	for _, event := range refusedEvents {
		f.Add([]byte(event))
	}
	f.Add([]byte(`{"scheduledFor":"2026-11-22T03:00:00Z","orgId":"org-1","dryRun":true,"strategy":"retrieve","resume":"run"}`))
	f.Add([]byte(`{"resume":true}`))
	f.Fuzz(func(t *testing.T, event []byte) {
		req, err := handler.EnumeratorRequest(event, start)
		if err != nil {
			if req != (pipeline.Request{}) {
				t.Errorf("refused, and yet %+v", req)
			}
			return
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(event, &object); err != nil || object == nil {
			t.Fatalf("%q is no object: %v", event, err)
		}
		resume := false
		for key := range object {
			switch strings.ToLower(key) {
			case "resume":
				resume = true
			case "scheduledfor", "orgid", "dryrun", "strategy", "since":
			default:
				if !strings.ContainsFunc(key, func(r rune) bool { return r > 127 }) { // encoding/json compares keys case-insensitively, with Unicode folding
					t.Errorf("key %q was accepted", key)
				}
			}
		}
		if resume != (req.ResumeAll || req.ResumeRun != "") || (req.ResumeAll && req.ResumeRun != "") {
			t.Errorf("%q: %+v", event, req)
		}
	})
}
