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

// Each invocation has a small part of the time that the work takes. The test advances the clock at every call.
func TestEnumeratorWithShortInvocationsFinishesEventually(t *testing.T) {
	const orgs, subscriptions = 50_000, 3000
	const call, each, reserve = 20 * time.Millisecond, 2 * time.Second, 400 * time.Millisecond
	f := newFixture(t)
	f.customers(orgs)
	for i := range subscriptions {
		f.Stripe.PutSubscription(stripetest.Subscription{ID: fmt.Sprintf("sub_%05d", i), CustomerID: fmt.Sprintf("cus_%05d", i), Created: created.Unix() + int64(i)})
	}
	var end time.Time           // when the invocation's time is over
	var stop context.CancelFunc // called when only the reserve is left
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
			t.Fatalf("invocation %d: %+v, %v; it ended too late: %t", invocations, got, err, over)
		}
		if f.Leased() {
			t.Fatal("the invocation did not release its lease")
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
		t.Errorf("the snapshot has %d subscriptions, want %d", n, subscriptions)
	}
	if n := f.Count(`SELECT COUNT(*) FROM reconciliation_items WHERE outcome = 'pending'`); n != orgs {
		t.Errorf("%d items are pending, want %d", n, orgs)
	}
	// If an invocation ends between the queue's response and the cursor, the next one sends the page again. If it ends
	// before the queue's response, it does not count the page.
	if sent < orgs-invocations*e.PageSize || sent > orgs+invocations*e.PageSize {
		t.Errorf("the invocations counted %d messages as sent", sent)
	}
	if n := len(distinct(f.SentWork(scheduledID))); n != orgs {
		t.Errorf("messages of %d organizations were sent, want %d", n, orgs)
	}
	t.Logf("%d invocations of %v", invocations, each)
	if invocations < 3 {
		t.Errorf("only %d invocations were needed, so the test checked nothing", invocations)
	}
}

func TestEnumeratorReservesAPartOfItsTime(t *testing.T) {
	for given, most := range map[time.Duration]time.Duration{time.Hour: 15 * time.Second, 10 * time.Second: 2 * time.Second} {
		f := newFixture(t)
		ctx, cancel := context.WithTimeout(t.Context(), given)
		end, _ := ctx.Deadline()
		var reserve time.Duration
		e := f.Enumerator(&hooks{Before: func(ctx context.Context, _ string) error {
			deadline, _ := ctx.Deadline()
			reserve = end.Sub(deadline)
			return testworld.ErrKilled
		}})
		_, err := e.Run(ctx, scheduled)
		cancel()
		// The reserve is less than most, because some time passed before it was calculated.
		if !errors.Is(err, testworld.ErrKilled) || reserve > most || reserve < most/2 {
			t.Errorf("the reserve of %v is %v, want at most %v; %v", given, reserve, most, err)
		}
	}
}

// customers inserts n organizations that have only a customer, many in a statement.
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
