package handler_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/lambdasource"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

const (
	workers = 2
	// deathsPerCall is how many invocations die at a call before the next ones die one call later.
	deathsPerCall = 4
)

// seed creates organizations for every outcome.
func (f *fixture) seed() {
	f.Helper()
	for i := range 30 {
		id := fmt.Sprintf("org-%02d", i)
		switch i % 6 {
		case 0:
			f.Subscriber(id)
		case 1:
			f.Subscriber(id, price("price_max"))
		case 2:
			f.Subscriber(id, canceled)
		case 3:
			f.Subscriber(id, price("price_of_nothing"))
		case 4: // paid for again after a cancellation
			f.Subscriber(id, canceled)
			f.Sub(id, func(s *stripetest.Subscription) { s.ID = "sub_second_" + id })
		case 5: // the subscription does not exist in Stripe
			f.Subscriber(id)
			f.Stripe.RemoveSubscription("sub_" + id)
		}
	}
}

// fullRun is one run through all handlers and queues, from the schedule's event to the summary.
type fullRun struct {
	*fixture
	disturbed bool

	mu          sync.Mutex
	invocations int
	deaths      int
	seen        map[string]int // deliveries by message
	seenTwice   map[string]chan struct{}
}

// endState is the state after a full run.
type endState struct {
	Organizations []appschema.Organization
	Subscriptions []appschema.Subscription
	Items         map[string]string
	Summary       billing.Summary
	DeadLetters   []string // each once
}

func (p *fullRun) run() endState {
	p.Helper()
	p.seed()
	answer, err := p.enumerator().Handle(p.Context(), json.RawMessage(`{"scheduledFor":"`+runID+`"}`))
	if err != nil || !answer.Done || answer.Enqueued != 30 {
		p.Fatalf("enumerator: %+v, %v", answer, err)
	}
	if p.disturbed {
		p.duplicateAll()
	}
	ctx, stop := context.WithCancel(p.Context())
	defer stop()
	var sources sync.WaitGroup
	for _, source := range []*lambdasource.Source{
		{Queue: p.Work, Handler: p.invoke, MaxConcurrency: workers},
		{Queue: p.Results, Handler: p.aggregator().HandleRecords},
	} {
		source.Client, source.Timeout, source.Log = p.QueueClient(p.Connections()), 30*time.Second, p.Logger()
		sources.Go(func() {
			if err := source.Run(ctx); err != nil {
				p.Error(err)
			}
		})
	}
	for {
		p.Clock.BlockUntil(workers + 1) // all wait for messages
		if p.held(p.Work)+p.held(p.Results) == 0 {
			break
		}
		p.Clock.Advance(testworld.Visibility)
	}
	stop()
	sources.Wait()
	return p.endState()
}

// duplicateAll delivers each message of the work queue twice.
func (p *fullRun) duplicateAll() {
	p.Helper()
	for _, m := range p.Receive(p.Work) {
		p.seenTwice[*m.MessageId] = make(chan struct{})
		for range 2 { // visible again, then handed out twice
			if !p.SQS.Duplicate(p.Work, *m.MessageId) {
				p.Errorf("message %s is gone", *m.MessageId)
			}
		}
	}
}

// invoke invokes the worker in a process that may die.
func (p *fullRun) invoke(ctx context.Context, event events.SQSEvent) (events.SQSEventResponse, error) {
	if !p.disturbed {
		return p.worker().Handle(ctx, event)
	}
	p.awaitDuplicates(ctx, event)
	p.mu.Lock()
	p.invocations++
	n := p.invocations
	p.mu.Unlock()
	process := &testworld.Killer{At: 1 + n/deathsPerCall, After: n%4 < 2}
	pool := p.DB.Intercepted(p.TB, process.Hooks().Do)
	defer pool.Close()
	w := p.workerOn(mysqlstore.New(pool), p.QueueClient(process.HTTP(p.Connections())))
	w.MaxReceive = 1000 // so many crashes must not give a message up
	w.Reconciler.Parallel = 4
	response, err := w.Handle(ctx, event)
	if !process.Dead() {
		return response, err
	}
	p.mu.Lock()
	p.deaths++
	p.mu.Unlock()
	if n%2 == 0 {
		panic("killed")
	}
	return events.SQSEventResponse{}, testworld.ErrKilled
}

// awaitDuplicates returns when every message of the batch was delivered to another worker too.
func (p *fullRun) awaitDuplicates(ctx context.Context, event events.SQSEvent) {
	p.mu.Lock()
	for _, m := range event.Records {
		if p.seen[m.MessageId]++; p.seen[m.MessageId] == 2 {
			close(p.seenTwice[m.MessageId])
		}
	}
	p.mu.Unlock()
	for _, m := range event.Records {
		select {
		case <-p.seenTwice[m.MessageId]:
		case <-ctx.Done():
			return
		}
	}
}

func (p *fullRun) endState() (e endState) {
	p.Helper()
	var err error
	if e.Organizations, err = appschema.Organizations(p.Context(), p.DB.DB); err != nil {
		p.Fatal(err)
	}
	if e.Subscriptions, err = appschema.Subscriptions(p.Context(), p.DB.DB); err != nil {
		p.Fatal(err)
	}
	e.Items = map[string]string{}
	rows, err := p.DB.QueryContext(p.Context(), `SELECT org_id, CONCAT_WS('|', outcome, reason, COALESCE(changes, '-'), COALESCE(warnings, '-')) FROM reconciliation_items`)
	if err != nil {
		p.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var org, text string
		if err := rows.Scan(&org, &text); err != nil {
			p.Fatal(err)
		}
		e.Items[org] = text
	}
	if err := rows.Err(); err != nil {
		p.Fatal(err)
	}
	e.Summary = p.summary()
	e.DeadLetters = testworld.Bodies(p.Receive(p.DeadLetter))
	slices.Sort(e.DeadLetters)
	e.DeadLetters = slices.Compact(e.DeadLetters)
	return e
}

func TestCrashesAndDuplicatesDoNotChangeTheOutcome(t *testing.T) {
	undisturbed := (&fullRun{fixture: newFixture(t)}).run()
	if s := undisturbed.Summary; s.Status != billing.RunCompletedWithErrors || s.TotalOrganizations != 30 || s.Synchronized != 20 || s.Errors != 5 || s.Skipped != 5 || s.Downgrades != 10 {
		t.Fatalf("undisturbed: %+v", s)
	}
	if len(undisturbed.DeadLetters) != 5 {
		t.Fatalf("undisturbed: dead letters %v", undisturbed.DeadLetters)
	}

	p := &fullRun{fixture: newFixture(t), disturbed: true, seen: map[string]int{}, seenTwice: map[string]chan struct{}{}}
	disturbed := p.run()
	opts := cmp.Options{
		cmpopts.IgnoreFields(billing.Summary{}, "StartedAt", "FinishedAt", "DurationMs", "StripeRequests"),
		cmpopts.IgnoreFields(appschema.Organization{}, "UpdatedAt"), cmpopts.IgnoreFields(appschema.Subscription{}, "UpdatedAt"),
	}
	if diff := cmp.Diff(undisturbed, disturbed, opts); diff != "" {
		t.Error(diff)
	}
	for id, n := range p.seen {
		if n < 2 {
			t.Errorf("message %s was delivered %d times", id, n)
		}
	}
	if p.deaths < 30 || len(p.seen) != 30 {
		t.Errorf("%d processes died over %d messages", p.deaths, len(p.seen))
	}
	if n := p.Logs.Count(`"Reconciliation completed"`); n != 1 {
		t.Errorf("%d summaries were logged", n)
	}
	if n := p.Metrics.Count(`"Organizations"`); n != 1 {
		t.Errorf("%d lines of outcome metrics", n)
	}
}

// Messages that the redrive policy moved can be redriven like those that a worker sent.
func TestRedriveRepairsDeadLetters(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1", price("price_max"))
	f.openRun("org-1")
	f.giveUpAfter(2)
	f.send(f.Work, workBody(runID, "org-1"))
	for range 3 { // workers that crashed
		f.Receive(f.Work)
		f.Clock.Advance(testworld.Visibility)
	}
	if f.held(f.DeadLetter) != 1 || f.outcome("org-1") != billing.OutcomePending {
		t.Fatalf("%d dead letters, org-1 is %s", f.held(f.DeadLetter), f.outcome("org-1"))
	}
	f.redrive()
	if failed := f.handle(f.worker()); len(failed) != 0 || f.outcome("org-1") != billing.OutcomeSynced {
		t.Errorf("failed %v, org-1 is %s", failed, f.outcome("org-1"))
	}
}
