package sqsqueue_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/sqsserver"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
)

// local is a queue on a server with a manual clock. The client does not retry, so that every retry
// is the queue's.
type local struct {
	*sqsqueue.Queue
	server *sqsserver.Server
	clock  *sqsserver.ManualClock
	client *sqs.Client
	url    string
}

func start(t *testing.T) local {
	t.Helper()
	clock := sqsserver.NewManualClock(time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC))
	server, err := sqsserver.Start(sqsserver.Options{Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	client := sqs.NewFromConfig(server.AWSConfig(), func(o *sqs.Options) { o.Retryer = aws.NopRetryer{} })
	out, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("q")})
	if err != nil {
		t.Fatal(err)
	}
	return local{sqsqueue.New(client, *out.QueueUrl), server, clock, client, *out.QueueUrl}
}

// receiveAll receives messages with the queue's visibility timeout of 30 seconds.
func (l local) receiveAll(t *testing.T) []types.Message {
	t.Helper()
	var all []types.Message
	for {
		out, err := l.client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
			QueueUrl: &l.url, MaxNumberOfMessages: 10, MessageAttributeNames: []string{"All"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(out.Messages) == 0 {
			return all
		}
		all = append(all, out.Messages...)
	}
}

// receivedWork counts the messages for each organization.
func (l local) receivedWork(t *testing.T) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for _, m := range l.receiveAll(t) {
		work, err := sqsqueue.DecodeWork(*m.Body)
		if err != nil || work.RunID != "run-1" {
			t.Fatalf("%s: %+v, error %v", *m.Body, work, err)
		}
		counts[work.OrgID]++
	}
	return counts
}

func organizations(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("org-%04d", i))
	}
	return all
}

// each is one message for each organization.
func each(orgIDs []string) map[string]int {
	counts := map[string]int{}
	for _, id := range orgIDs {
		counts[id] = 1
	}
	return counts
}

func wantUnavailable(t *testing.T, err error) {
	t.Helper()
	f, ok := errors.AsType[*billing.Failure](err)
	if !ok || f.Class != billing.Unavailable || f.Reason != billing.ReasonQueueUnavailable {
		t.Fatalf("error is %T %v", err, err)
	}
	if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
		t.Errorf("the error is not one line: %q", err)
	}
}

func TestSendWorkSendsOneMessageForEachOrganization(t *testing.T) {
	for _, n := range []int{0, 1, 9, 10, 11, 2345} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			l := start(t)
			var batches atomic.Int64
			l.server.SetFail(func(action string) *sqsserver.Fault {
				if action == "SendMessageBatch" {
					batches.Add(1)
				}
				return nil
			})
			if err := l.SendWork(t.Context(), "run-1", organizations(n)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(each(organizations(n)), l.receivedWork(t)); diff != "" {
				t.Error(diff)
			}
			if want := int64(n+9) / 10; batches.Load() != want {
				t.Errorf("%d batches, want %d", batches.Load(), want)
			}
		})
	}
}

// refusals makes the server refuse entries, and counts how often each was sent.
type refusals struct {
	mu   sync.Mutex
	sent map[string]int
}

func (l local) refuse(fault sqsserver.Fault, refuses func(body string, times int) bool) *refusals {
	r := &refusals{sent: map[string]int{}}
	l.server.SetFailEntry(func(e sqsserver.Entry) *sqsserver.Fault {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.sent[e.Body]++
		if refuses(e.Body, r.sent[e.Body]) {
			return &fault
		}
		return nil
	})
	return r
}

func TestOnlyRefusedEntriesAreSentAgain(t *testing.T) {
	for name, fault := range map[string]sqsserver.Fault{"500": sqsserver.InternalError, "throttled": sqsserver.Throttled} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := start(t)
			refused := func(body string) bool { return strings.Contains(body, "3") }
			r := l.refuse(fault, func(body string, times int) bool { return refused(body) && times < 3 })
			if err := l.SendWork(t.Context(), "run-1", organizations(40)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(each(organizations(40)), l.receivedWork(t)); diff != "" {
				t.Error(diff)
			}
			for body, times := range r.sent {
				if want := map[bool]int{true: 3, false: 1}[refused(body)]; times != want {
					t.Errorf("%s was sent %d times, want %d", body, times, want)
				}
			}
		})
	}
}

func TestEntryThatStaysRefusedIsAnErrorAndTheOthersAreSent(t *testing.T) {
	t.Parallel()
	l := start(t)
	r := l.refuse(sqsserver.InternalError, func(body string, _ int) bool {
		return strings.Contains(body, "org-0013") || strings.Contains(body, "org-0027")
	})
	err := l.SendWork(t.Context(), "run-1", organizations(100))
	wantUnavailable(t, err)
	if !strings.Contains(err.Error(), l.url) || !strings.Contains(err.Error(), "1 of 10 messages") {
		t.Errorf("error %v", err)
	}
	want := each(organizations(100))
	delete(want, "org-0013")
	delete(want, "org-0027")
	if diff := cmp.Diff(want, l.receivedWork(t)); diff != "" {
		t.Error(diff)
	}
	for body, times := range r.sent {
		if strings.Contains(body, "org-0013") != (times > 1) && strings.Contains(body, "org-0027") != (times > 1) {
			t.Errorf("%s was sent %d times", body, times)
		}
	}
}

func TestSendRetriesAfterAFailure(t *testing.T) {
	faults := map[string]sqsserver.Fault{
		"500": sqsserver.InternalError, "503": sqsserver.ServiceUnavailable, "throttled": sqsserver.Throttled, "dropped": sqsserver.Dropped,
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := start(t)
			var times atomic.Int64
			l.server.SetFail(func(action string) *sqsserver.Fault {
				if action == "SendMessageBatch" && times.Add(1) <= 3 {
					return &fault
				}
				return nil
			})
			if err := l.SendWork(t.Context(), "run-1", organizations(25)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(each(organizations(25)), l.receivedWork(t)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLostResponseMayDuplicateButNotLoseMessages(t *testing.T) {
	t.Parallel()
	l := start(t)
	var lost atomic.Bool
	l.server.SetFail(func(action string) *sqsserver.Fault {
		if action == "SendMessageBatch" && !lost.Swap(true) {
			return &sqsserver.LostResponse
		}
		return nil
	})
	if err := l.SendWork(t.Context(), "run-1", organizations(5)); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{}
	for _, id := range organizations(5) {
		want[id] = 2
	}
	if diff := cmp.Diff(want, l.receivedWork(t)); diff != "" {
		t.Error(diff)
	}
}

func TestQueueThatStaysDownIsUnavailable(t *testing.T) {
	t.Parallel()
	tests := map[string]func(t *testing.T, l local){
		"fault": func(_ *testing.T, l local) {
			l.server.SetFail(func(string) *sqsserver.Fault { return &sqsserver.AccessDenied })
		},
		"no queue": func(_ *testing.T, l local) { l.remove() },
		"closed": func(t *testing.T, l local) {
			if err := l.server.Close(); err != nil {
				t.Error(err)
			}
		},
	}
	for name, down := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := start(t)
			down(t, l)
			wantUnavailable(t, l.SendWork(t.Context(), "run-1", organizations(11)))
			wantUnavailable(t, l.SendProgress(t.Context(), "run-1"))
			wantUnavailable(t, l.SendDeadLetter(t.Context(), "b", billing.Work{}, &billing.Failure{}))
			wantUnavailable(t, l.ChangeVisibility(t.Context(), slices.Repeat([]sqsqueue.Visibility{{ReceiptHandle: "x", Timeout: time.Second}}, 21)))
		})
	}
}

func (l local) remove() {
	_, _ = l.client.DeleteQueue(context.Background(), &sqs.DeleteQueueInput{QueueUrl: &l.url}) // the sends fail if it did not
}

func TestSendEndsWithItsContext(t *testing.T) {
	l := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	l.server.SetFail(func(string) *sqsserver.Fault {
		cancel()
		return &sqsserver.InternalError
	})
	err := l.SendWork(ctx, "run-1", organizations(2345))
	if f := billing.AsFailure(err); f.Class != billing.Unavailable || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if err := l.SendProgress(ctx, "run-1"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	l.server.SetFail(nil)
	if got := l.receivedWork(t); len(got) > 0 {
		t.Errorf("%d messages were accepted", len(got))
	}
}

func TestProgressIsSent(t *testing.T) {
	l := start(t)
	if err := l.SendProgress(t.Context(), "run-1"); err != nil {
		t.Fatal(err)
	}
	all := l.receiveAll(t)
	if len(all) != 1 {
		t.Fatalf("%d messages", len(all))
	}
	if runID, err := sqsqueue.DecodeProgress(*all[0].Body); runID != "run-1" || err != nil {
		t.Errorf("%q, error %v", runID, err)
	}
}

func TestDeadLetterHasItsReason(t *testing.T) {
	tests := map[string]struct {
		body    string
		work    billing.Work
		failure billing.Failure
		want    map[string]string
	}{
		"everything": {
			"b",
			billing.Work{RunID: "run-1", OrgID: "org-1"},
			billing.Failure{Reason: "tier_unresolved", Message: "no such price"},
			map[string]string{"reason": "tier_unresolved", "error": "no such price", "runId": "run-1", "orgId": "org-1"},
		},
		"an unreadable body": {
			"\t{]\r\n",
			billing.Work{},
			billing.Failure{Reason: billing.ReasonMalformedMessage, Message: "not a message"},
			map[string]string{"reason": "malformed_message", "error": "not a message"},
		},
		"control characters": {
			"b",
			billing.Work{RunID: "run\x001", OrgID: "org\n1\x1f"},
			billing.Failure{Reason: "r", Message: "one\ntwo\x00\x1b[31m\uFFFE\uFFFF"},
			map[string]string{"reason": "r", "error": "one two  [31m  ", "runId": "run 1", "orgId": "org 1 "},
		},
		"invalid UTF-8": {
			"b",
			billing.Work{RunID: "\xff", OrgID: "\xed\xa0\x80"},
			billing.Failure{Reason: "r", Message: "a\xffb\xc3"},
			map[string]string{"reason": "r", "error": "a?b?", "runId": "?", "orgId": "?"},
		},
		"a very long error": {
			"b",
			billing.Work{},
			billing.Failure{Reason: "r", Message: strings.Repeat("x", 2<<20)},
			map[string]string{"reason": "r", "error": strings.Repeat("x", 2048)},
		},
		"a long error that is cut in a letter": {
			"b",
			billing.Work{},
			billing.Failure{Reason: "r", Message: "x" + strings.Repeat("é", 5000)},
			map[string]string{"reason": "r", "error": "x" + strings.Repeat("é", 1023)},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := start(t)
			if err := l.SendDeadLetter(t.Context(), test.body, test.work, &test.failure); err != nil {
				t.Fatal(err)
			}
			all := l.receiveAll(t)
			if len(all) != 1 || *all[0].Body != test.body {
				t.Fatalf("received %+v", all)
			}
			got := map[string]string{}
			for name, a := range all[0].MessageAttributes {
				got[name] = aws.ToString(a.StringValue)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDeadLetterAcceptsAnyErrorText(t *testing.T) {
	l := start(t)
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
		work := billing.Work{RunID: text.Draw(t, "run"), OrgID: text.Draw(t, "organization")}
		err := l.SendDeadLetter(context.Background(), "b", work, &billing.Failure{Reason: "r", Message: text.Draw(t, "error")})
		if err != nil {
			t.Fatal(err)
		}
	})
	for _, m := range l.receiveAll(t) {
		for name, a := range m.MessageAttributes {
			if !utf8.ValidString(*a.StringValue) || *a.StringValue == "" {
				t.Errorf("%s is %q", name, *a.StringValue)
			}
		}
	}
}

func TestChangeVisibilitySetsEachTimeout(t *testing.T) {
	l := start(t)
	if err := l.SendWork(t.Context(), "run-1", organizations(25)); err != nil { // three batches
		t.Fatal(err)
	}
	var delays []sqsqueue.Visibility
	var order []string
	for i, m := range l.receiveAll(t) {
		delays = append(delays, sqsqueue.Visibility{ReceiptHandle: *m.ReceiptHandle, Timeout: time.Duration(i+1) * time.Minute})
		order = append(order, *m.Body)
	}
	if err := l.ChangeVisibility(t.Context(), delays); err != nil {
		t.Fatal(err)
	}
	for i, body := range order {
		l.clock.Advance(time.Minute - time.Second)
		if got := l.receiveAll(t); len(got) > 0 {
			t.Fatalf("a second before minute %d: received %s", i+1, *got[0].Body)
		}
		l.clock.Advance(time.Second)
		got := l.receiveAll(t)
		if len(got) != 1 || *got[0].Body != body {
			t.Fatalf("minute %d: received %d messages", i+1, len(got))
		}
		if _, err := l.client.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &l.url, ReceiptHandle: got[0].ReceiptHandle}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestChangeVisibilityRoundsTheTimeoutToAtMostTwelveHours(t *testing.T) {
	for hidden, want := range map[time.Duration]time.Duration{
		1400 * time.Millisecond: time.Second,
		1500 * time.Millisecond: 2 * time.Second,
		36*time.Second + 1:      36 * time.Second,
		12 * time.Hour:          12 * time.Hour,
		36 * time.Hour:          12 * time.Hour,
	} {
		l := start(t)
		if err := l.SendProgress(t.Context(), "run-1"); err != nil {
			t.Fatal(err)
		}
		handle := *l.receiveAll(t)[0].ReceiptHandle
		if err := l.ChangeVisibility(t.Context(), []sqsqueue.Visibility{{ReceiptHandle: handle, Timeout: hidden}}); err != nil {
			t.Errorf("hidden for %v: %v", hidden, err)
			continue
		}
		l.clock.Advance(want - 1)
		if got := l.receiveAll(t); len(got) > 0 {
			t.Errorf("hidden for %v: visible after %v", hidden, want-1)
		}
		l.clock.Advance(1)
		if got := l.receiveAll(t); len(got) != 1 {
			t.Errorf("hidden for %v: not visible after %v", hidden, want)
		}
	}
}

func TestChangeVisibilityReportsRefusedMessages(t *testing.T) {
	l := start(t)
	if err := l.SendWork(t.Context(), "run-1", organizations(22)); err != nil {
		t.Fatal(err)
	}
	var delays []sqsqueue.Visibility
	for _, m := range l.receiveAll(t) {
		delays = append(delays, sqsqueue.Visibility{ReceiptHandle: *m.ReceiptHandle, Timeout: time.Hour})
	}
	delays[1].ReceiptHandle, delays[12].ReceiptHandle, delays[13].ReceiptHandle = "x", "y", "z"
	err := l.ChangeVisibility(t.Context(), delays)
	wantUnavailable(t, err)
	if !strings.Contains(err.Error(), "3 of 22") {
		t.Errorf("error %v", err)
	}
	l.clock.Advance(59 * time.Minute)
	if got := l.receiveAll(t); len(got) != 3 {
		t.Errorf("%d messages came back early, want 3", len(got))
	}
	if err := l.ChangeVisibility(t.Context(), nil); err != nil {
		t.Errorf("nothing to hide: %v", err)
	}
}

func TestBackoffDoublesUpToItsMaximum(t *testing.T) {
	want := map[int]time.Duration{
		1: 30 * time.Second, 2: time.Minute, 3: 2 * time.Minute, 4: 4 * time.Minute, 5: 8 * time.Minute, 6: 16 * time.Minute,
		7: 30 * time.Minute, 8: 30 * time.Minute, billing.MaxReceives: 30 * time.Minute,
	}
	for _, receives := range slices.Sorted(maps.Keys(want)) {
		lowest, highest := time.Duration(math.MaxInt64), time.Duration(0)
		for range 200 {
			got := sqsqueue.Backoff(30*time.Second, receives)
			lowest, highest = min(lowest, got), max(highest, got)
		}
		floor := want[receives]
		if lowest < floor || highest > floor+floor/5 {
			t.Errorf("receive %d: %v to %v, want %v to %v", receives, lowest, highest, floor, floor+floor/5)
		}
		if highest-lowest < floor/10 {
			t.Errorf("receive %d: %v to %v is hardly spread", receives, lowest, highest)
		}
	}
}
