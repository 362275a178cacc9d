package handler_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/handler"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

const (
	customers = 40
	guard     = 7 // the run's downgrade limit
)

// week plays a scheduled run, with every message delivered twice, and returns the summary.
func (f *fixture) week(at time.Time, e handler.Enumerator, w handler.Worker) billing.Summary {
	f.Helper()
	e.Enumerator.Now = func() time.Time { return at }
	e.Enumerator.Downgrades = func(int) int { return guard }
	answer, err := e.Handle(f.Context(), json.RawMessage(`{"scheduledFor":"`+at.Format(time.RFC3339)+`"}`))
	if err != nil || !answer.Done {
		f.Fatalf("%+v, %v", answer, err)
	}
	for i := range customers {
		f.send(f.Work, workBody(answer.RunID, customer(i)))
	}
	return f.drain(answer.RunID, w)
}

// drain runs the worker until the queue is empty and returns the run's summary.
func (f *fixture) drain(run string, w handler.Worker) billing.Summary {
	f.Helper()
	if failed := f.handle(w); len(failed) > 0 {
		f.Fatalf("%d messages came back", len(failed))
	}
	a := f.aggregator()
	if _, err := a.Handle(f.Context(), json.RawMessage(`{"Records":[{"messageId":"1","body":"{\"version\":1,\"runId\":\"`+run+`\"}"}]}`)); err != nil {
		f.Fatal(err)
	}
	runs, err := f.Store.Runs(f.Context(), []string{run})
	if err != nil {
		f.Fatal(err)
	}
	summary, err := a.Aggregator.Summary(f.Context(), run)
	if err != nil {
		f.Fatal(err)
	}
	if summary.Status != runs[run].Status {
		f.Fatalf("the summary says %s, the run %s", summary.Status, runs[run].Status)
	}
	return summary
}

func customer(i int) string { return fmt.Sprintf("org-%02d", i) }

func (f *fixture) customers(changes ...func(*stripetest.Subscription)) {
	f.Helper()
	for i := range customers {
		f.Subscriber(customer(i), changes...)
	}
}

// onTier counts the organizations that are on the tier in both tables.
func (f *fixture) onTier(tier string) int {
	f.Helper()
	return f.Count(`SELECT COUNT(*) FROM organizations o JOIN subscriptions s ON s.org_id = o.id
		WHERE o.subscription_tier = ? AND s.plan_tier = ?`, tier, tier)
}

// deadLetters returns the reasons of the organizations in the dead-letter queue.
func (f *fixture) deadLetters() (orgs, reasons []string) {
	f.Helper()
	for _, m := range f.Receive(f.DeadLetter) {
		a := attributes(m)
		orgs, reasons = append(orgs, a["orgId"]), append(reasons, a["reason"])
	}
	slices.Sort(orgs)
	slices.Sort(reasons)
	return slices.Compact(orgs), slices.Compact(reasons)
}

func TestWrongPriceMappingLowersNoMoreThanTheLimit(t *testing.T) {
	f := newFixture(t)
	f.customers()
	f.giveUpAfter(maxReceive)
	wrong := f.worker()
	wrong.Reconciler.Rules = billing.Rules{Prices: map[string]billing.Tier{"price_pro": billing.TierStarter}}

	s := f.week(start, f.enumerator(), wrong)
	if s.Status != billing.RunCompletedWithErrors || s.Downgrades != guard || s.Synchronized != guard || s.Reasons[billing.ReasonWithheld] != customers-guard {
		t.Fatalf("%+v", s)
	}
	if lowered, kept := f.onTier("starter"), f.onTier("pro"); lowered != guard || kept != customers-guard {
		t.Fatalf("%d organizations were lowered and %d kept, want %d and %d", lowered, kept, guard, customers-guard)
	}
	for _, d := range s.Details {
		if d.Reason == billing.ReasonWithheld && (len(d.Changes) == 0 || d.Error == "") {
			t.Errorf("withheld without its changes or the remedy: %+v", d)
		}
	}
	if orgs, reasons := f.deadLetters(); len(orgs) != customers-guard || !slices.Equal(reasons, []string{"withheld"}) {
		t.Errorf("dead letters of %d organizations with reasons %v", len(orgs), reasons)
	}

	// The mapping is corrected: the redrive finds the withheld ones in sync, and the next run raises the others again,
	// which no limit prevents.
	f.Clock.Advance(testworld.Visibility)
	f.redrive()
	if s = f.drain(s.RunID, f.worker()); s.Status != billing.RunCompleted || s.Reasons[billing.ReasonInSync] != customers-guard {
		t.Errorf("after the redrive: %+v", s)
	}
	if s = f.week(start.Add(7*24*time.Hour), f.enumerator(), f.worker()); s.Status != billing.RunCompleted || s.Synchronized != guard || f.onTier("pro") != customers {
		t.Errorf("the next week: %+v", s)
	}
}

func TestRedriveAppliesApprovedDowngrades(t *testing.T) {
	f := newFixture(t)
	f.customers(canceled)
	f.giveUpAfter(maxReceive)
	s := f.week(start, f.enumerator(), f.worker())
	if s.Downgrades != guard || f.onTier("free") != guard {
		t.Fatalf("%d downgrades, %d on the free tier, want %d", s.Downgrades, f.onTier("free"), guard)
	}
	for _, limit := range []int{guard + 5, customers} {
		if raised, err := f.Store.Approve(t.Context(), s.RunID, billing.Approval{Limit: limit, By: "ops@desk", At: time.Now()}); !raised || err != nil {
			t.Fatal(raised, err)
		}
		f.redrive()
		s = f.drain(s.RunID, f.worker())
		if s.Downgrades != limit || s.Synchronized != limit || f.onTier("free") != limit {
			t.Errorf("limit %d: %d downgrades, %d synchronized, %d on the free tier", limit, s.Downgrades, s.Synchronized, f.onTier("free"))
		}
	}
	if s.Status != billing.RunCompleted {
		t.Errorf("the run is %s", s.Status)
	}
}

func TestKeyOfAnotherAccountLowersAtMostTheLimitAndRunIsSuspect(t *testing.T) {
	f := newFixture(t)
	f.customers()
	f.giveUpAfter(maxReceive)
	if s := f.week(start, f.enumerator(), f.worker()); s.Status != billing.RunCompleted {
		t.Fatalf("the good week: %+v", s)
	}
	e, w := f.enumerator(), f.worker()
	e.Enumerator.Stripe, w.Reconciler.Stripe = f.OtherAccount(), f.OtherAccount()
	s := f.week(start.Add(7*24*time.Hour), e, w)
	if s.Status != billing.RunSuspect || s.StatusReason != billing.ReasonNoSubscriptions || s.StatusMessage == "" {
		t.Errorf("status %s, %s: %s", s.Status, s.StatusReason, s.StatusMessage)
	}
	if s.Downgrades != guard || f.onTier("free") != guard || f.onTier("pro") != customers-guard {
		t.Errorf("%d downgrades, %d on the free tier, limit %d", s.Downgrades, f.onTier("free"), guard)
	}
}

func TestKeyOfOtherModeStopsRunBeforeListing(t *testing.T) {
	f := newFixture(t)
	f.customers(canceled)
	e := f.enumerator()
	e.Enumerator.Stripe = f.StripeClient(func(c *stripesource.Config) { c.LiveMode = true })
	_, err := e.Handle(t.Context(), json.RawMessage(`{}`))
	if failure := billing.AsFailure(err); failure.Reason != billing.ReasonWrongMode {
		t.Fatalf("got %v", err)
	}
	stopped := f.Count(`SELECT COUNT(*) FROM reconciliation_runs WHERE status = 'stopped' AND status_reason = 'wrong_mode' AND listed = FALSE`)
	if stopped != 1 || f.onTier("pro") != customers {
		t.Errorf("%d runs stopped, %d still on pro", stopped, f.onTier("pro"))
	}
}

func TestKeyOfOtherModeStopsRunWithoutChanges(t *testing.T) {
	f := newFixture(t)
	f.customers(canceled) // all would be lowered
	w := f.worker()
	w.Reconciler.Stripe = f.StripeClient(func(c *stripesource.Config) { c.LiveMode = true })
	s := f.week(start, f.enumerator(), w)
	if s.Status != billing.RunStopped || s.StatusReason != billing.ReasonWrongMode || s.Pending != customers || f.onTier("pro") != customers {
		t.Errorf("%+v; %d still on pro", s, f.onTier("pro"))
	}
	if f.held(f.DeadLetter) != 0 {
		t.Errorf("%d dead letters", f.held(f.DeadLetter))
	}
	answer, err := f.enumerator().Handle(t.Context(), json.RawMessage(`{"resume":"`+s.RunID+`"}`))
	if err != nil || answer.Enqueued != customers {
		t.Fatalf("%+v, %v", answer, err)
	}
	if s = f.drain(s.RunID, f.worker()); s.Pending != 0 || s.Downgrades != guard || s.Errors != customers-guard {
		t.Errorf("resumed with the right key: %+v", s)
	}
}
