package pipeline_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// inDoubt makes an organization whose customer has an active subscription that nothing gives to it
// but that customer.
func (f *fixture) inDoubt(id string) {
	f.Org(id, free)
	f.Sub(id)
}

func underCustomerOf(id string) func(*appschema.Organization) {
	return func(o *appschema.Organization) { o.StripeCustomerID = new("cus_" + id) }
}

// calls notes the steps' calls, in their order.
type calls struct {
	mu   sync.Mutex
	made []string
}

func (c *calls) tap() *hooks {
	return &hooks{Before: func(_ context.Context, call string) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.made = append(c.made, call)
		return nil
	}}
}

func (c *calls) count(call string) int {
	return len(slices.DeleteFunc(slices.Clone(c.made), func(s string) bool { return s != call }))
}

// The application has no index on customers.
func TestSharedCustomersAreQueriedOncePerBatch(t *testing.T) {
	f := newFixture(t)
	ids := numbered(30)
	want := map[string]billing.Reason{}
	for i, id := range ids {
		switch i % 3 {
		case 0:
			f.Subscriber(id)
			want[id] = billing.ReasonInSync
		case 1:
			f.inDoubt(id)
			want[id] = billing.ReasonRowInserted
		default:
			f.inDoubt(id)
			f.Org("other of "+id, underCustomerOf(id))
			want[id] = billing.ReasonSubscriptionConflict
		}
	}
	f.OpenRun(runID, ids)
	var c calls
	r := f.Reconciler(c.tap())
	f.deliver(r, runID, ids...)
	got := map[string]billing.Reason{}
	for id, item := range f.items() {
		got[id] = item.Reason
		if item.Reason == billing.ReasonSubscriptionConflict && !strings.Contains(item.Error, "other of "+id) {
			t.Errorf("%s: %s", id, item.Error)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if n := c.count("SharedCustomers"); n != 2 { // in two tables
		t.Errorf("looked up by %d statements", n)
	}
	if n := c.count("CustomerSubscriptions"); n != 20 {
		t.Errorf("%d customers were read in Stripe, want each once", n)
	}
	// Who subscribes is known under the customer before: so no look-up comes before Stripe is read.
	if slices.Contains(c.made[slices.Index(c.made, "SharedCustomers"):], "CustomerSubscriptions") {
		t.Errorf("Stripe was read after the look-up: %v", c.made)
	}
}

// An application without metadata.orgId would otherwise scan its tables for every batch with drift.
func TestOwnersFoundByTheListingAreNotLookedUpAgain(t *testing.T) {
	f := newFixture(t)
	f.inDoubt("org-1")
	ids := f.swept()
	var c calls
	f.deliver(f.Reconciler(c.tap()), scheduledID, ids...)
	if item := f.Item(scheduledID, "org-1"); item.Reason != billing.ReasonRowInserted || item.SubscriptionID != "sub_org-1" {
		t.Errorf("%+v", item)
	}
	if n := c.count("SharedCustomers"); n != 0 {
		t.Errorf("looked up by %d statements", n)
	}
}

func TestOwnersAreLookedUpWhereTheListingDoesNotSuffice(t *testing.T) {
	other := func(f *fixture) { f.Org("other", underCustomerOf("org-1"), free) }
	for name, test := range map[string]struct {
		before, after func(f *fixture) // the sweep
		want          billing.Reason
	}{
		"another organization has the customer": {before: other, want: billing.ReasonSubscriptionConflict},
		"Stripe has a subscription since the sweep": {
			after: func(f *fixture) {
				f.Sub("org-1", func(s *stripetest.Subscription) { s.ID, s.Created = "sub_later", s.Created+1 })
				other(f)
			},
			want: billing.ReasonSubscriptionConflict,
		},
		"access would be lowered": {
			before: func(f *fixture) { f.Exec(`UPDATE organizations SET subscription_tier = 'max' WHERE id = 'org-1'`) },
			after:  other,
			want:   billing.ReasonSubscriptionConflict,
		},
		"the snapshot is too old": {after: func(f *fixture) { f.Clock.Advance(billing.SnapshotTTL) }, want: billing.ReasonRowInserted},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.inDoubt("org-1")
			for _, step := range []func(*fixture){test.before, func(f *fixture) { f.swept() }, test.after} {
				if step != nil {
					step(f)
				}
			}
			var c calls
			f.deliver(f.Reconciler(c.tap()), scheduledID, "org-1")
			if got := f.Item(scheduledID, "org-1"); got.Reason != test.want {
				t.Errorf("%+v, want %s", got, test.want)
			}
			if n := c.count("SharedCustomers"); n != 2 { // in two tables
				t.Errorf("looked up by %d statements", n)
			}
		})
	}
}

// What changes while an organization waits for the look-up is seen.
func TestOrganizationChangedDuringLookUpIsReadAgain(t *testing.T) {
	f := newFixture(t)
	f.inDoubt("org-1")
	f.inDoubt("org-2")
	f.OpenRun(runID, []string{"org-1", "org-2"})
	var c calls
	noted := c.tap()
	change := once(func() {
		f.Exec(`UPDATE organizations SET name = 'renamed', updated_at = updated_at + INTERVAL 1 DAY WHERE id = 'org-1'`)
		f.Org("org-3", underCustomerOf("org-1"))
	})
	r := f.Reconciler(&hooks{Before: noted.Before, After: func(_ context.Context, call string) error {
		if call == "SharedCustomers" {
			change()
		}
		return nil
	}})
	f.deliver(r, runID, "org-1", "org-2")
	f.wantItem("org-1", billing.OutcomeError, billing.ReasonSubscriptionConflict)
	f.wantItem("org-2", billing.OutcomeSynced, billing.ReasonRowInserted)
	if n := c.count("SharedCustomers"); n != 2*2 {
		t.Errorf("looked up by %d statements, want once more in both tables for what is read anew", n)
	}
}

func TestFailedLookUpDoesNotBlockOthers(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.inDoubt("org-2")
	f.OpenRun(runID, []string{"org-1", "org-2"})
	fails := &hooks{Before: func(_ context.Context, call string) error {
		if call == "SharedCustomers" {
			return &billing.Failure{Class: billing.Unavailable, Reason: billing.ReasonDatabaseUnavailable, Err: errors.New("gone")}
		}
		return nil
	}}
	got := f.deliver(f.Reconciler(fails), runID, "org-1", "org-2")
	f.wantResult(got["org-1"], pipeline.Acknowledge, "")
	f.wantResult(got["org-2"], pipeline.Redeliver, billing.ReasonDatabaseUnavailable)
	f.wantItem("org-2", billing.OutcomePending, billing.ReasonNotDecided)
	f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-2")["org-2"], pipeline.Acknowledge, "")
	f.wantItem("org-2", billing.OutcomeSynced, billing.ReasonRowInserted)
}

// The one that tells whether Stripe is back may be in doubt too.
func TestProbeThatNeedsALookUpIsDecided(t *testing.T) {
	f := newFixture(t)
	ids := numbered(4)
	for _, id := range ids {
		f.inDoubt(id)
	}
	f.OpenRun(runID, ids)
	r := f.Reconciler(nil)
	f.Stripe.AddFault(stripetest.Fault{Kind: stripetest.Unavailable})
	f.deliver(r, runID, ids...)
	f.Stripe.ClearFaults()
	for id, result := range f.deliver(r, runID, ids...) {
		f.wantResult(result, pipeline.Acknowledge, "")
		f.wantItem(id, billing.OutcomeSynced, billing.ReasonRowInserted)
	}
}
