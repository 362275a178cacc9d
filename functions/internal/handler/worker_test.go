package handler_test

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/lambdasource"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/sqsserver"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

// newFixtureWithMessage returns a fixture with a run over org-1 and its message in the work queue.
func newFixtureWithMessage(t *testing.T, changes ...func(*stripetest.Subscription)) *fixture {
	t.Helper()
	f := newFixture(t)
	f.Subscriber("org-1", changes...)
	f.openRun("org-1")
	f.send(f.Work, workBody(runID, "org-1"))
	return f
}

func TestBatchIsReconciledAndReportedOnce(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1", price("price_max"))
	f.Subscriber("org-2")
	f.openRun("org-1", "org-2")
	f.send(f.Work, workBody(runID, "org-1"), workBody(runID, "org-2"))
	if failed := f.handle(f.worker()); len(failed) != 0 {
		t.Errorf("failed: %v", failed)
	}
	if one, two := f.outcome("org-1"), f.outcome("org-2"); one != billing.OutcomeSynced || two != billing.OutcomeSkipped {
		t.Errorf("outcomes %s and %s", one, two)
	}
	if diff := cmp.Diff([]string{`{"version":1,"runId":"` + runID + `"}`}, testworld.Bodies(f.Receive(f.Results))); diff != "" {
		t.Error("progress:", diff)
	}
	if n := f.held(f.Work) + f.held(f.DeadLetter); n != 0 {
		t.Errorf("%d messages left", n)
	}
}

func TestEmptyBatchHasNoFailures(t *testing.T) {
	f := newFixture(t)
	got, err := f.worker().Handle(t.Context(), events.SQSEvent{})
	if err != nil || got.BatchItemFailures == nil || len(got.BatchItemFailures) != 0 {
		t.Errorf("Handle() = %+v, %v", got, err)
	}
}

func TestUnreadableMessagesAreDeadLettersAndOthersAreReconciled(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1", price("price_max"))
	f.openRun("org-1")
	unreadable := []string{
		`no JSON`, `null`, `[]`, `{}`, `{"version":2,"runId":"` + runID + `","orgId":"org-1"}`, `{"version":1,"runId":"` + runID + `"}`,
		`{"version":1,"runId":"` + runID + `","orgId":"org-1","more":true}`, workBody(runID, "org-1") + "}", workBody(runID, strings.Repeat("x", 37)),
	}
	f.send(f.Work, unreadable...)
	f.send(f.Work, workBody(runID, "org-1"), workBody("unknown-run", "org-1"), workBody(runID, "org-unknown"))
	if failed := f.handle(f.worker()); len(failed) != 0 {
		t.Errorf("failed: %v", failed)
	}
	if got := f.outcome("org-1"); got != billing.OutcomeSynced {
		t.Errorf("org-1 is %s", got)
	}
	dead := f.Receive(f.DeadLetter)
	want := append(slices.Clone(unreadable), workBody("unknown-run", "org-1"), workBody(runID, "org-unknown"))
	if diff := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(testworld.Bodies(dead)))); diff != "" {
		t.Error(diff)
	}
	for _, m := range dead {
		a := attributes(m)
		if a["error"] == "" {
			t.Errorf("%s: no error", *m.Body)
		}
		delete(a, "error")
		want := map[string]string{"reason": "malformed_message"}
		switch *m.Body {
		case workBody("unknown-run", "org-1"):
			want = map[string]string{"reason": "unknown_run", "runId": "unknown-run", "orgId": "org-1"}
		case workBody(runID, "org-unknown"):
			want = map[string]string{"reason": "unknown_item", "runId": runID, "orgId": "org-unknown"}
		}
		if diff := cmp.Diff(want, a); diff != "" {
			t.Errorf("%s: %s", *m.Body, diff)
		}
	}
}

func TestFailedDeadLetterSendReturnsTheMessage(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1", price("price_of_nothing"))
	f.Subscriber("org-2")
	f.openRun("org-1", "org-2")
	f.send(f.Work, workBody(runID, "org-1"), workBody(runID, "org-2"), "unreadable")
	w := f.worker()
	w.DeadLetter = sqsqueue.New(f.Queues, f.DeadLetter+"-gone")
	if diff := cmp.Diff([]string{workBody(runID, "org-1"), "unreadable"}, f.handle(w)); diff != "" {
		t.Error(diff)
	}
	f.Clock.Advance(testworld.Visibility)
	if failed := f.handle(f.worker()); len(failed) != 0 {
		t.Errorf("failed: %v", failed)
	}
	dead := testworld.Bodies(f.Receive(f.DeadLetter))
	slices.Sort(dead) // their backoffs differ
	if diff := cmp.Diff([]string{"unreadable", workBody(runID, "org-1")}, dead); diff != "" {
		t.Error(diff)
	}
}

// A run may withhold every organization of a batch, and the time for its dead letters is short.
func TestDeadLettersOfABatchAreSentConcurrently(t *testing.T) {
	f := newFixture(t)
	f.send(f.Work, "unreadable", "unreadable too")
	var sent atomic.Int32
	both := make(chan struct{})
	f.SQS.SetFail(func(action string) *sqsserver.Fault {
		if action != "SendMessage" {
			return nil
		}
		if sent.Add(1) == 2 {
			close(both)
		}
		select {
		case <-both:
		case <-t.Context().Done():
		}
		return nil
	})
	if failed := f.handle(f.worker()); len(failed) != 0 {
		t.Errorf("failed: %v", failed)
	}
}

func TestFailedProgressSendReturnsTheMessages(t *testing.T) {
	f := newFixtureWithMessage(t, price("price_max"))
	w := f.worker()
	w.Progress = sqsqueue.New(f.Queues, f.Results+"-gone")
	if diff := cmp.Diff([]string{workBody(runID, "org-1")}, f.handle(w)); diff != "" {
		t.Error(diff)
	}
	if got := f.outcome("org-1"); got != billing.OutcomeSynced {
		t.Errorf("org-1 is %s", got)
	}
	f.Clock.Advance(testworld.Visibility)
	if failed := f.handle(f.worker()); len(failed) != 0 {
		t.Errorf("failed: %v", failed)
	}
	if n := len(f.Receive(f.Results)); n != 1 {
		t.Errorf("%d progress messages", n)
	}
	if got := f.outcome("org-1"); got != billing.OutcomeSynced {
		t.Errorf("org-1 is %s", got)
	}
}

func TestMessageWithoutResultIsDeliveredAgain(t *testing.T) {
	f := newFixtureWithMessage(t)
	event := lambdasource.Event("arn:aws:sqs:us-east-1:123456789012:work", f.Receive(f.Work))
	got := f.worker().ResponseWithoutResult(t.Context(), event.Records[0])
	want := []events.SQSBatchItemFailure{{ItemIdentifier: event.Records[0].MessageId}}
	if diff := cmp.Diff(want, got.BatchItemFailures); diff != "" {
		t.Error(diff)
	}
}

// The backoff grows with each failure.
func TestReturnedMessagesAreInvisibleForTheirBackoff(t *testing.T) {
	f := newFixtureWithMessage(t)
	f.Stripe.AddFault(stripetest.Fault{Kind: stripetest.RateLimited})
	for receive, least := range []time.Duration{backoff, 2 * backoff, 4 * backoff, 8 * backoff} {
		if failed := f.handle(f.worker()); len(failed) != 1 {
			t.Fatalf("receive %d: failed %v", receive+1, failed)
		}
		f.Clock.Advance(least - time.Second)
		if early := f.handle(f.worker()); len(early) != 0 {
			t.Fatalf("receive %d: visible too early", receive+1)
		}
		f.Clock.Advance(least/5 + 2*time.Second)
	}
	f.Stripe.ClearFaults()
	if failed := f.handle(f.worker()); len(failed) != 0 || f.outcome("org-1") != billing.OutcomeSkipped {
		t.Errorf("failed %v, org-1 is %s", failed, f.outcome("org-1"))
	}
	if n := f.held(f.Work); n != 0 {
		t.Errorf("%d messages left", n)
	}
}

func TestFailedVisibilityChangeLeavesTheQueuesTimeout(t *testing.T) {
	f := newFixtureWithMessage(t)
	f.Stripe.AddFault(stripetest.Fault{Kind: stripetest.Unavailable})
	f.SQS.SetFail(func(action string) *sqsserver.Fault {
		if action == "ChangeMessageVisibilityBatch" {
			return &sqsserver.InternalError
		}
		return nil
	})
	if failed := f.handle(f.worker()); len(failed) != 1 {
		t.Errorf("failed: %v", failed)
	}
	f.Clock.Advance(testworld.Visibility)
	if n := len(f.Receive(f.Work)); n != 1 {
		t.Errorf("%d messages", n)
	}
	if n := f.Logs.Count("the visibility timeout of messages could not be changed"); n != 1 {
		t.Errorf("%d log lines", n)
	}
}

func TestLastReceiveSendsDeadLetterWithReason(t *testing.T) {
	f := newFixtureWithMessage(t)
	f.Stripe.AddFault(stripetest.Fault{Kind: stripetest.Unavailable})
	for receive := 1; receive < maxReceive; receive++ {
		if failed := f.handle(f.worker()); len(failed) != 1 {
			t.Fatalf("receive %d: failed %v", receive, failed)
		}
		if got := f.outcome("org-1"); got != billing.OutcomePending {
			t.Fatalf("receive %d: org-1 is %s", receive, got)
		}
		f.Clock.Advance(time.Hour)
	}
	if failed := f.handle(f.worker()); len(failed) != 0 || f.outcome("org-1") != billing.OutcomeError {
		t.Errorf("failed %v, org-1 is %s", failed, f.outcome("org-1"))
	}
	dead := f.Receive(f.DeadLetter)
	if diff := cmp.Diff([]string{workBody(runID, "org-1")}, testworld.Bodies(dead)); diff != "" {
		t.Fatal(diff)
	}
	a := attributes(dead[0])
	if a["reason"] != "stripe_unavailable" || a["runId"] != runID || a["orgId"] != "org-1" || a["error"] == "" {
		t.Errorf("attributes %v", a)
	}
	if n := len(f.Receive(f.Results)); n != 1 {
		t.Errorf("%d progress messages", n)
	}

	// A redrive after the outage repairs it.
	f.Stripe.ClearFaults()
	f.send(f.Work, *dead[0].Body)
	if failed := f.handle(f.worker()); len(failed) != 0 || f.outcome("org-1") != billing.OutcomeSkipped {
		t.Errorf("failed %v, org-1 is %s", failed, f.outcome("org-1"))
	}
}

func TestLastReceiveOfOneDuplicateGivesUpBoth(t *testing.T) {
	for _, receiveCounts := range [][]int{{maxReceive, 1}, {1, maxReceive}} {
		f := newFixture(t)
		f.Subscriber("org-1")
		f.openRun("org-1")
		f.Stripe.AddFault(stripetest.Fault{Kind: stripetest.Unavailable})
		var event events.SQSEvent
		for i, n := range receiveCounts {
			event.Records = append(event.Records, events.SQSMessage{
				MessageId: fmt.Sprint("message-", i), Body: workBody(runID, "org-1"), Attributes: map[string]string{"ApproximateReceiveCount": fmt.Sprint(n)},
			})
		}
		response, err := f.worker().Handle(t.Context(), event)
		if err != nil || len(response.BatchItemFailures) != 0 || f.outcome("org-1") != billing.OutcomeError {
			t.Errorf("%+v, %v, org-1 is %s", response, err, f.outcome("org-1"))
		}
		dead := f.Receive(f.DeadLetter)
		if len(dead) != 2 || attributes(dead[0])["reason"] != "stripe_unavailable" || attributes(dead[1])["reason"] != "stripe_unavailable" {
			t.Errorf("dead letters %v", dead)
		}
	}
}

func TestMessagesOfStoppedRunAreAcknowledgedAndReported(t *testing.T) {
	f := newFixture(t)
	var ids []string
	for i := range 5 {
		ids = append(ids, fmt.Sprint("org-", i))
		f.Subscriber(ids[i])
		f.send(f.Work, workBody(runID, ids[i]))
	}
	f.openRun(ids...)
	f.Stripe.AddFault(stripetest.Fault{Kind: stripetest.Unauthorized})
	if failed := f.handle(f.worker()); len(failed) > 0 { // those that were not tried because Stripe seemed down
		for _, body := range failed {
			f.send(f.Work, body)
		}
		if again := f.handle(f.worker()); len(again) != 0 {
			t.Errorf("failed again: %v", again)
		}
	}
	if f.status() != billing.RunStopped || f.held(f.DeadLetter) != 0 || f.held(f.Results) == 0 {
		t.Errorf("run is %s, %d dead letters, %d progress messages", f.status(), f.held(f.DeadLetter), f.held(f.Results))
	}
}
