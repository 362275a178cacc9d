package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

// TestEnumeratorWithShortInvocationsFinishesEventually gives each invocation a small part of the time
// that the work takes. The clock is the test's: it moves with every call to the outside.
func TestEnumeratorWithShortInvocationsFinishesEventually(t *testing.T) {
	const orgs, subscriptions = 50_000, 3000
	const call, each, reserve = 20 * time.Millisecond, 2 * time.Second, 400 * time.Millisecond
	f := newFixture(t)
	f.customers(orgs)
	for i := range subscriptions {
		f.Stripe.PutSubscription(stripetest.Subscription{ID: fmt.Sprintf("sub_%05d", i), CustomerID: fmt.Sprintf("cus_%05d", i), Created: created.Unix() + int64(i)})
	}
	var end time.Time           // of the invocation
	var stop context.CancelFunc // what its reserve does before that
	e := f.Enumerator(&hooks{Before: func(context.Context, string) error {
		f.Clock.Advance(call)
		if f.Clock.Now().After(end.Add(-reserve)) {
			stop()
		}
		return nil
	}})
	e.PageSize, e.Streams = 500, 2
	req, invocations, sent := scheduled, 0, 0
	for done := false; !done; req = (pipeline.Request{ResumeAll: true}) {
		ctx, cancel := context.WithCancel(t.Context())
		end, stop = f.Clock.Now().Add(each), cancel
		got, err := e.Run(ctx, req)
		cancel()
		if over := f.Clock.Now().After(end); err != nil || over {
			t.Fatalf("invocation %d: %+v, %v, its time is over: %t", invocations, got, err, over)
		}
		if f.Leased() {
			t.Fatal("the lease was kept")
		}
		invocations++
		sent += got.Enqueued
		done = got.Done
	}
	run := f.Run(scheduledID)
	if run.Status != billing.RunRunning || run.Sweep != billing.SweepComplete || run.Total != orgs {
		t.Errorf("%+v", run)
	}
	if n := f.Count(`SELECT COUNT(*) FROM reconciliation_snapshots`); n != subscriptions {
		t.Errorf("%d subscriptions in the snapshot", n)
	}
	if n := f.Count(`SELECT COUNT(*) FROM reconciliation_items WHERE outcome = 'pending'`); n != orgs {
		t.Errorf("%d items", n)
	}
	// An invocation that is cut off between the queue's answer and the cursor has its last page sent once
	// more by the next; one that is cut off before the queue's answer does not count what it sent.
	if sent < orgs-invocations*e.PageSize || sent > orgs+invocations*e.PageSize {
		t.Errorf("%d messages were counted as sent", sent)
	}
	if n := len(distinct(f.SentWork(scheduledID))); n != orgs {
		t.Errorf("%d organizations were sent", n)
	}
	t.Logf("%d invocations of %v", invocations, each)
	if invocations < 3 {
		t.Errorf("%d invocations: the time was not too short", invocations)
	}
}

func TestEnumeratorKeepsAReserveOfItsTime(t *testing.T) {
	for given, most := range map[time.Duration]time.Duration{time.Hour: 15 * time.Second, 10 * time.Second: 2 * time.Second} {
		f := newFixture(t)
		ctx, cancel := context.WithTimeout(t.Context(), given)
		end, _ := ctx.Deadline()
		var kept time.Duration
		e := f.Enumerator(&hooks{Before: func(ctx context.Context, _ string) error {
			within, _ := ctx.Deadline()
			kept = end.Sub(within)
			return testworld.ErrKilled
		}})
		_, err := e.Run(ctx, scheduled)
		cancel()
		// Some of the time passed before a fifth of it was taken.
		if !errors.Is(err, testworld.ErrKilled) || kept > most || kept < most/2 {
			t.Errorf("%v of %v were kept, want %v at most; %v", kept, given, most, err)
		}
	}
}

// customers inserts organizations of which only the customer is known, many at a time.
func (f *fixture) customers(n int) {
	f.Helper()
	const chunk = 1000
	for first := 0; first < n; first += chunk {
		all := make([]appschema.Organization, chunk)
		for i := range all {
			id := fmt.Sprintf("%05d", first+i)
			all[i] = appschema.Organization{
				ID: "org-" + id, Name: id, CreatedBy: "user", StripeCustomerID: new("cus_" + id),
				SubscriptionStatus: "canceled", SubscriptionTier: "free", CreatedAt: created, UpdatedAt: created,
			}
		}
		if err := appschema.InsertOrganizations(f.Context(), f.DB.DB, all); err != nil {
			f.Fatal(err)
		}
	}
}
