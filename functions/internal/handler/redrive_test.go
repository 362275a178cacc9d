package handler_test

import (
	"encoding/json"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

// redriven moves the dead letters back and returns the finished task.
func (f *fixture) redriven() sqsqueue.MoveTask {
	f.Helper()
	redrive, err := sqsqueue.NewRedrive(f.Context(), sqsqueue.New(f.Queues, f.DeadLetter), sqsqueue.New(f.Queues, f.Work))
	if err != nil {
		f.Fatal(err)
	}
	if err := redrive.Start(f.Context()); err != nil {
		f.Fatal(err)
	}
	move, found, err := redrive.Last(f.Context())
	if err != nil || !found {
		f.Fatalf("found %t, %v", found, err)
	}
	return move
}

// sumUp runs the aggregator on the workers' progress messages.
func (f *fixture) sumUp() {
	f.Helper()
	for _, body := range testworld.Bodies(f.Receive(f.Results)) {
		runID, err := sqsqueue.DecodeProgress(body)
		if err == nil {
			err = f.aggregator().Aggregator.Progress(f.Context(), runID)
		}
		if err != nil {
			f.Fatal(err)
		}
	}
}

func TestRedriveAmendsSummary(t *testing.T) {
	f := newFixture(t)
	f.giveUpAfter(maxReceive)
	f.Subscriber("org-fine", price("price_max"))
	f.Subscriber("org-priced-unknown", price("price_of_nothing"))
	f.Subscriber("org-status-unknown", func(s *stripetest.Subscription) { s.Status = "invented" })
	if _, err := f.enumerator().Handle(t.Context(), json.RawMessage(`{"scheduledFor":"`+runID+`"}`)); err != nil {
		t.Fatal(err)
	}
	f.handle(f.worker())
	f.sumUp()
	if s := f.summary(); s.Status != billing.RunCompletedWithErrors || s.Errors != 2 || s.Synchronized != 1 || f.held(f.DeadLetter) != 2 {
		t.Fatalf("before: %+v, %d dead letters", s, f.held(f.DeadLetter))
	}

	f.Sub("org-priced-unknown", price("price_max"))
	f.Sub("org-status-unknown") // active again, as recorded
	if move := f.redriven(); !move.Completed() || move.Moved != 2 || move.ToMove != 2 || move.Started != start {
		t.Errorf("moved: %+v", move)
	}
	if failed := f.handle(f.worker()); len(failed) != 0 {
		t.Errorf("failed: %v", failed)
	}
	f.sumUp()
	s := f.summary()
	if s.Status != billing.RunCompleted || s.Errors != 0 || s.Synchronized != 2 || s.Skipped != 1 || f.held(f.DeadLetter) != 0 {
		t.Errorf("after: %+v, %d dead letters", s, f.held(f.DeadLetter))
	}
	if completed, amended := f.Logs.Count(`"Reconciliation completed"`), f.Logs.Count(`"Reconciliation amended"`); completed != 1 || amended != 1 {
		t.Errorf("%d summaries and %d amendments were logged, want one each", completed, amended)
	}
	if n := f.Metrics.Count(`"Organizations"`); n != 1 {
		t.Errorf("%d lines of outcome metrics, want 1", n)
	}
}
