package pipeline_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

// inBothStrategies prepares a fixture, reconciles all its organizations and checks the result: once with a run that
// reads Stripe for each organization, and once with a run that swept Stripe.
func inBothStrategies(t *testing.T, prepare func(f *fixture), check func(t *testing.T, f *fixture)) {
	t.Helper()
	for _, strategy := range []billing.Strategy{billing.StrategyRetrieve, billing.StrategySweep} {
		t.Run(string(strategy), func(t *testing.T) {
			f := newFixture(t)
			prepare(f)
			ids := f.Texts(`SELECT id FROM organizations ORDER BY id`)
			f.OpenRun(runID, ids)
			if strategy == billing.StrategySweep {
				f.sweepInto()
			}
			for _, id := range ids {
				f.deliver(f.Reconciler(nil), runID, id)
			}
			check(t, f)
		})
	}
}

// paidByNewCustomer creates an organization whose recorded subscription has ended. A new customer pays now, and only
// the metadata of its subscription connects it with the organization.
func paidByNewCustomer(f *fixture) {
	f.Subscriber("a", canceled)
	f.Sub("new", func(s *stripetest.Subscription) { s.Metadata = map[string]string{"orgId": "a"} })
}

func TestAccessIsKeptIfOnlyMetadataConnectsTheNewCustomer(t *testing.T) {
	inBothStrategies(t, paidByNewCustomer, func(t *testing.T, f *fixture) {
		if item := f.wantItem("a", billing.OutcomeSynced, billing.ReasonRepaired); item.SubscriptionID != "sub_new" {
			t.Errorf("the governing subscription is %s, want sub_new", item.SubscriptionID)
		}
		if got := f.Texts(`SELECT subscription_tier FROM organizations`); got[0] != "pro" {
			t.Errorf("the tier is %s, want pro", got[0])
		}
	})
	t.Run("explain", func(t *testing.T) {
		f := newFixture(t)
		paidByNewCustomer(f)
		e, err := f.Reconciler(nil).Explain(t.Context(), "a")
		if err != nil || e.Choice.GoverningID != "sub_new" || e.LowersAccess {
			t.Errorf("%+v, %v", e.Choice, err)
		}
	})
	t.Run("after an abandoned sweep", func(t *testing.T) {
		f := newFixture(t)
		paidByNewCustomer(f)
		f.OpenRun(runID, []string{"a"})
		f.sweepInto()
		f.Exec(`UPDATE reconciliation_sweeps SET state = 'abandoned'`)
		f.deliver(f.Reconciler(nil), runID, "a")
		if item := f.wantItem("a", billing.OutcomeSynced, billing.ReasonRepaired); item.SubscriptionID != "sub_new" {
			t.Errorf("the governing subscription is %s, want sub_new", item.SubscriptionID)
		}
	})
}

func TestAccessIsLoweredOnlyAfterSearchAnswered(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("a", canceled)
	f.OpenRun(runID, []string{"a"})
	end := f.Stripe.AddFault(stripetest.Fault{Kind: stripetest.Unavailable, Endpoint: stripetest.SearchSubscriptions})
	f.wantResult(f.deliver(f.Reconciler(nil), runID, "a")["a"], pipeline.Redeliver, billing.ReasonStripeUnavailable)
	f.wantItem("a", billing.OutcomePending, billing.ReasonNotDecided)
	end()
	f.deliver(f.Reconciler(nil), runID, "a")
	if item := f.wantItem("a", billing.OutcomeSynced, billing.ReasonRepaired); len(item.Warnings) > 0 {
		t.Errorf("the warnings are %v, want none", item.Warnings)
	}
	if n := f.Stripe.Requests().SearchSubscriptions; n == 0 {
		t.Error("the worker sent no search request")
	}
}

func TestNoSearchIfAccessIsNotLowered(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("a")
	f.Org("b")
	f.Row("b", func(s *appschema.Subscription) { s.PlanTier = "starter" })
	f.Sub("b")
	f.OpenRun(runID, []string{"a", "b"})
	f.deliver(f.Reconciler(nil), runID, "a", "b")
	f.wantItem("b", billing.OutcomeSynced, billing.ReasonRepaired)
	if n := f.Stripe.Requests().SearchSubscriptions; n != 0 {
		t.Errorf("%d searches were sent, want none", n)
	}
}

func TestAccountWithoutSearchLowersWithWarningAndLogsOnce(t *testing.T) {
	f := newFixture(t)
	f.Stripe.SetSearch(false, 0)
	for _, id := range []string{"a", "b"} {
		f.Subscriber(id, canceled)
	}
	f.OpenRun(runID, []string{"a", "b"})
	f.deliver(f.Reconciler(nil), runID, "a", "b")
	for _, id := range []string{"a", "b"} {
		item := f.wantItem(id, billing.OutcomeSynced, billing.ReasonRepaired)
		if len(item.Warnings) != 1 || item.Warnings[0].Code != billing.WarnSearchUnavailable {
			t.Errorf("the warnings of %s are %v, want only search_unavailable", id, item.Warnings)
		}
	}
	if lines := f.Logs.Lines(t, "message", "the Stripe account has no search: access is lowered without looking for subscriptions that only metadata.orgId connects"); len(lines) != 1 {
		t.Errorf("the warning was logged %d times, want once", len(lines))
	}
}

func TestPlanAfterTenAddOnsIsRead(t *testing.T) {
	inBothStrategies(t, func(f *fixture) {
		f.Org("a")
		f.Row("a")
		f.Sub("a", func(s *stripetest.Subscription) {
			for i := range 10 {
				s.Items = append(s.Items, stripetest.Item{PriceID: fmt.Sprintf("price_addon_%d", i)})
			}
			s.Items = append(s.Items, stripetest.Item{PriceID: "price_pro"})
		})
	}, func(_ *testing.T, f *fixture) {
		f.wantItem("a", billing.OutcomeSkipped, billing.ReasonInSync)
	})
}

func TestMeteredItemBeforeThePlanChangesNothing(t *testing.T) {
	inBothStrategies(t, func(f *fixture) {
		f.Org("a")
		f.Row("a")
		f.Sub("a", func(s *stripetest.Subscription) {
			s.Items = []stripetest.Item{{PriceID: "price_use", Metered: true}, {PriceID: "price_pro"}}
			s.Metadata = map[string]string{"orgId": "a", "tier": "starter"}
		})
	}, func(_ *testing.T, f *fixture) {
		f.wantItem("a", billing.OutcomeSkipped, billing.ReasonInSync)
	})
}

func TestTierIsKeptIfPriceIsUnlisted(t *testing.T) {
	inBothStrategies(t, func(f *fixture) {
		for _, id := range numbered(15) {
			f.Subscriber(id, price("price_new"), func(s *stripetest.Subscription) { s.Metadata = map[string]string{"tier": "starter"} })
		}
	}, func(t *testing.T, f *fixture) {
		for _, id := range numbered(15) {
			f.wantItem(id, billing.OutcomeError, billing.ReasonTierUnresolved)
		}
		if tiers := f.Texts(`SELECT DISTINCT subscription_tier FROM organizations`); len(tiers) != 1 || tiers[0] != "pro" {
			t.Errorf("the tiers are %v, want only pro", tiers)
		}
	})
}

func TestRecordedIDsWithWhiteSpaceAreRepaired(t *testing.T) {
	inBothStrategies(t, func(f *fixture) {
		f.Org("a", func(o *appschema.Organization) { o.StripeCustomerID = new(" cus_a") })
		f.Row("a", func(s *appschema.Subscription) {
			s.StripeSubscriptionID, s.StripeCustomerID = new("sub_a\n"), new("cus_a ")
		})
		f.Sub("a")
	}, func(t *testing.T, f *fixture) {
		f.wantItem("a", billing.OutcomeSynced, billing.ReasonRepaired)
		if got := f.Texts(`SELECT CONCAT(stripe_subscription_id, '|', stripe_customer_id, '|', plan_tier) FROM subscriptions`); got[0] != "sub_a|cus_a|pro" {
			t.Errorf("the row is %q", got[0])
		}
	})
}

func TestOneOrganizationOfOtherModeDoesNotStopTheRun(t *testing.T) {
	f := newFixture(t)
	ids := numbered(30)
	for i, id := range ids {
		f.Org(id)
		f.Row(id, func(s *appschema.Subscription) {
			if i > 0 {
				s.PlanTier = "starter"
			}
		})
		if i > 0 {
			f.Sub(id)
		}
	}
	f.Stripe.PutInOtherMode("sub_"+ids[0], "cus_"+ids[0])
	f.OpenRun(runID, ids)
	f.deliver(f.Reconciler(nil), runID, ids...)
	f.wantItem(ids[0], billing.OutcomeError, billing.ReasonOtherMode)
	for _, id := range ids[1:] {
		f.wantItem(id, billing.OutcomeSynced, billing.ReasonRepaired)
	}
	if got := f.Status(runID); got != billing.RunRunning {
		t.Errorf("the run is %s", got)
	}
}

func TestKeyOfOtherModeStopsRunAtEleventhOrganization(t *testing.T) {
	for name, oneIsOfKeyMode := range map[string]bool{"all are of the other mode": false, "the last one is of the key's mode": true} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			ids := numbered(14)
			for _, id := range ids {
				f.Org(id)
				f.Row(id)
				f.Stripe.PutInOtherMode("sub_"+id, "cus_"+id)
			}
			f.Subscriber("org-right")
			all := append([]string{}, ids...)
			f.OpenRun(runID, append(all, "org-right"))
			r := f.Reconciler(nil)
			r.Parallel = 1
			f.deliver(r, runID, ids[:10]...)
			if oneIsOfKeyMode {
				f.deliver(r, runID, "org-right")
			}
			for _, id := range ids[10:] {
				f.deliver(r, runID, id)
			}
			want, errors := billing.RunStopped, 11
			if oneIsOfKeyMode {
				want, errors = billing.RunRunning, 14
			}
			if got := f.Status(runID); got != want {
				t.Errorf("the run is %s, want %s", got, want)
			}
			if n := len(f.Texts(`SELECT org_id FROM reconciliation_items WHERE outcome = 'error' AND reason = 'other_mode'`)); n != errors {
				t.Errorf("%d organizations have the error other_mode, want %d", n, errors)
			}
			if tiers := f.Texts(`SELECT DISTINCT subscription_tier FROM organizations`); len(tiers) != 1 || tiers[0] != "pro" {
				t.Errorf("the tiers are %v, want only pro", tiers)
			}
		})
	}
}

func TestPanicFailsItsOrganizationOnly(t *testing.T) {
	f := newFixture(t)
	for _, id := range []string{"a", "b", "c"} {
		f.Org(id)
		f.Row(id, func(s *appschema.Subscription) { s.PlanTier = "starter" })
		f.Sub(id)
	}
	f.OpenRun(runID, []string{"a", "b", "c"})
	r := f.Reconciler(nil)
	r.Stripe = panicking{testworld.Stripe{Client: f.StripeClient()}}
	results := f.deliver(r, runID, "a", "b", "c")
	f.wantResult(results["b"], pipeline.DeadLetter, billing.ReasonInternal)
	if item := f.wantItem("b", billing.OutcomeError, billing.ReasonInternal); !strings.Contains(item.Error, "no such thing") {
		t.Errorf("the error is %q", item.Error)
	}
	for _, id := range []string{"a", "c"} {
		f.wantItem(id, billing.OutcomeSynced, billing.ReasonRepaired)
	}
	if lines := f.Logs.Lines(t, "message", "internal error (panic)"); len(lines) != 1 || lines[0]["stack"] == nil {
		t.Errorf("log lines of the panic: %v", lines)
	}
}

// panicking panics when it reads the subscription of organization b.
type panicking struct{ testworld.Stripe }

func (p panicking) Subscription(ctx context.Context, id string) (billing.Subscription, bool, error) {
	if id == "sub_b" {
		panic("no such thing")
	}
	return p.Stripe.Subscription(ctx, id)
}

// A new sweep of the run replaces the snapshot while the worker reads it, so the worker's part of it is incomplete.
func TestAccessIsNotLoweredIfSnapshotIsReplacedMeanwhile(t *testing.T) {
	f := newFixture(t)
	paidByNewCustomer(f)
	f.OpenRun(runID, []string{"a"})
	f.sweepInto()
	replace := once(func() {
		f.Exec(`DELETE FROM reconciliation_snapshots WHERE subscription_id = 'sub_new'`)
		f.Exec(`UPDATE reconciliation_sweeps SET began_at = began_at + INTERVAL 1 MINUTE`)
	})
	r := f.Reconciler(&hooks{Before: func(_ context.Context, call string) error {
		if call == "Snapshot" {
			replace()
		}
		return nil
	}})
	f.deliver(r, runID, "a")
	if item := f.wantItem("a", billing.OutcomeSynced, billing.ReasonRepaired); item.SubscriptionID != "sub_new" {
		t.Errorf("the governing subscription is %s, want sub_new", item.SubscriptionID)
	}
}

// The application's table may lack a unique key for subscription ids.
func TestSubscriptionRecordedTwiceIsConflictOfTheOrganizationThatMetadataDoesNotName(t *testing.T) {
	const conflict = billing.ReasonSubscriptionConflict
	for name, test := range map[string]struct {
		metadata map[string]string
		idA, idB string // as the rows of a and b spell the subscription's id
		want     map[string]billing.Reason
	}{
		"neither is named":                   {nil, "sub_a", "sub_a", map[string]billing.Reason{"a": conflict, "b": conflict}},
		"neither is named, both white space": {nil, " sub_a", "sub_a\n", map[string]billing.Reason{"a": conflict, "b": conflict}},
		"one is named":                       {map[string]string{"orgId": "b"}, "sub_a", "sub_a", map[string]billing.Reason{"a": conflict, "b": billing.ReasonInSync}},
		"one is named in upper case":         {map[string]string{"orgId": " B"}, "sub_a", "sub_a", map[string]billing.Reason{"a": conflict, "b": billing.ReasonInSync}},
		"one is named, with white space":     {map[string]string{"orgId": "b"}, "sub_a", "\tsub_a", map[string]billing.Reason{"a": billing.ReasonInSync, "b": billing.ReasonRepaired}},
	} {
		t.Run(name, func(t *testing.T) {
			inBothStrategies(t, func(f *fixture) {
				f.Exec(`ALTER TABLE subscriptions DROP INDEX stripe_subscription_id`)
				f.Subscriber("a")
				f.Exec(`UPDATE subscriptions SET stripe_subscription_id = ?`, test.idA)
				f.Org("b", underCustomerOf("a"))
				f.Row("b", func(s *appschema.Subscription) {
					s.StripeSubscriptionID, s.StripeCustomerID = new(test.idB), new("cus_a")
				})
				f.Subscriber("c")
				f.Stripe.UpdateSubscription("sub_a", func(s *stripetest.Subscription) { s.Metadata = test.metadata })
			}, func(t *testing.T, f *fixture) {
				for id, want := range test.want {
					if item := f.Item(runID, id); item.Reason != want {
						t.Errorf("%s is %s %s (%s), want %s", id, item.Outcome, item.Reason, item.Error, want)
					}
				}
				f.wantItem("c", billing.OutcomeSkipped, billing.ReasonInSync)
				if tiers := f.Texts(`SELECT DISTINCT subscription_tier FROM organizations`); len(tiers) != 1 || tiers[0] != "pro" {
					t.Errorf("the tiers are %v, want only pro", tiers)
				}
			})
		})
	}
}

// The other organization's row has white space around the id, so a unique key does not prevent a second row.
func TestSubscriptionRecordedElsewhereWithWhiteSpaceIsNotTaken(t *testing.T) {
	for name, padded := range map[string]string{"before": "\nsub_b", "after": "sub_b\t"} {
		t.Run(name, func(t *testing.T) {
			inBothStrategies(t, func(f *fixture) {
				f.Org("a", underCustomerOf("b"), free)
				f.Org("b", withoutCustomer)
				f.Row("b", func(s *appschema.Subscription) { s.StripeSubscriptionID, s.StripeCustomerID = new(padded), nil })
				f.Sub("b")
			}, func(t *testing.T, f *fixture) {
				f.wantItem("a", billing.OutcomeError, billing.ReasonSubscriptionConflict)
				f.wantItem("b", billing.OutcomeSynced, billing.ReasonRepaired)
				if rows := f.Texts(`SELECT CONCAT(org_id, ' ', stripe_subscription_id) FROM subscriptions`); len(rows) != 1 || rows[0] != "b sub_b" {
					t.Errorf("the rows are %q", rows)
				}
			})
		})
	}
}

// Both organizations record the customer, one of them with white space after the id.
func TestCustomerRecordedElsewhereWithWhiteSpaceIsShared(t *testing.T) {
	inBothStrategies(t, func(f *fixture) {
		f.Org("a", free)
		f.Org("b", free, func(o *appschema.Organization) { o.StripeCustomerID = new("cus_a\n") })
		f.Sub("a")
	}, func(_ *testing.T, f *fixture) {
		f.wantItem("a", billing.OutcomeError, billing.ReasonSubscriptionConflict)
		f.wantItem("b", billing.OutcomeError, billing.ReasonSubscriptionConflict)
	})
}

// If one recorded id is of the other mode, the organization is still repaired through another recorded id.
func TestIDOfOtherModeIsRepairedIfAnotherIDIsOfKeyMode(t *testing.T) {
	strayRow := func(s *appschema.Subscription) { s.StripeSubscriptionID = new("sub_stray") }
	strayCustomer := func(o *appschema.Organization) { o.StripeCustomerID = new("cus_stray") }
	tests := map[string]struct {
		prepare func(f *fixture)
		outcome billing.Outcome
		reason  billing.Reason
		rows    []string
	}{
		"the subscription is stray, the customer has another": {
			func(f *fixture) { f.Org("a"); f.Row("a", strayRow); f.Sub("a") },
			billing.OutcomeSynced, billing.ReasonRepaired,
			[]string{"sub_a pro cus_a"},
		},
		"the organization's customer is stray": {
			func(f *fixture) { f.Org("a", strayCustomer); f.Row("a"); f.Sub("a", pastDue) },
			billing.OutcomeSynced, billing.ReasonRepaired,
			[]string{"sub_a pro cus_a"},
		},
		"a second row's subscription is stray": {
			func(f *fixture) {
				f.Subscriber("a")
				f.Row("a", strayRow, func(s *appschema.Subscription) { s.ID = "row-b" })
			},
			billing.OutcomeSkipped, billing.ReasonInSync,
			[]string{"sub_a pro cus_a", "sub_stray pro cus_a"},
		},
		"the subscription is stray and the customer's other one has ended": {
			func(f *fixture) { f.Org("a"); f.Row("a", strayRow); f.Sub("a", canceled) },
			billing.OutcomeSynced, billing.ReasonRepaired,
			[]string{"sub_a free cus_a"},
		},
		"the subscription is stray and the customer has none": {
			func(f *fixture) {
				f.Org("a")
				f.Row("a", strayRow)
				f.Stripe.PutCustomer(stripetest.Customer{ID: "cus_a"})
			},
			billing.OutcomeError, billing.ReasonOtherMode,
			[]string{"sub_stray pro cus_a"},
		},
		"the subscription is stray and the customer unknown": {
			func(f *fixture) { f.Org("a"); f.Row("a", strayRow) },
			billing.OutcomeError, billing.ReasonOtherMode,
			[]string{"sub_stray pro cus_a"},
		},
		"all are stray, only metadata names the organization": {
			func(f *fixture) {
				f.Org("a", strayCustomer)
				f.Row("a", strayRow, func(s *appschema.Subscription) { s.StripeCustomerID = new("cus_stray") })
				f.Sub("a", func(s *stripetest.Subscription) { s.Metadata = map[string]string{"orgId": "a"} })
			},
			billing.OutcomeError, billing.ReasonOtherMode,
			[]string{"sub_stray pro cus_stray"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inBothStrategies(t, func(f *fixture) {
				f.Stripe.PutInOtherMode("sub_stray", "cus_stray")
				test.prepare(f)
			}, func(t *testing.T, f *fixture) {
				item := f.wantItem("a", test.outcome, test.reason)
				if test.outcome == billing.OutcomeError && !strings.Contains(item.Error, "sub_stray") {
					t.Errorf("the error is %q", item.Error)
				}
				if diff := cmp.Diff(test.rows, f.Texts(`SELECT CONCAT(stripe_subscription_id, ' ', plan_tier, ' ', stripe_customer_id) FROM subscriptions ORDER BY id`)); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestWorkerWithKeyOfAnotherAccountStopsRunBeforeFirstWrite(t *testing.T) {
	f := newFixture(t)
	ids := numbered(12)
	for _, id := range ids {
		f.Subscriber(id)
	}
	f.enumerate(f.Enumerator(nil), pipeline.Request{ScheduledFor: start, Strategy: billing.StrategyRetrieve})
	if got := f.Run(scheduledID).AccountID; got != "acct_test" {
		t.Errorf("the run reads account %q", got)
	}
	before := f.Checksum()
	r := f.Reconciler(nil)
	r.Stripe = f.OtherAccount()
	for id, result := range f.deliver(r, scheduledID, ids...) {
		if result.Disposition != pipeline.Acknowledge {
			t.Errorf("%s: %+v", id, result)
		}
	}
	run := f.Run(scheduledID)
	if run.Status != billing.RunStopped || run.StatusReason != billing.ReasonWrongAccount || !strings.Contains(run.StatusMessage, "acct_other") || !strings.Contains(run.StatusMessage, "acct_test") {
		t.Errorf("the run is %s, %s: %s", run.Status, run.StatusReason, run.StatusMessage)
	}
	if f.Checksum() != before || len(f.Texts(`SELECT org_id FROM reconciliation_items WHERE outcome <> 'pending'`)) > 0 {
		t.Error("the worker wrote to the application's tables or decided an item")
	}
	f.enumerate(f.Enumerator(nil), pipeline.Request{ResumeRun: scheduledID})
	f.Stripe.ResetCounts()
	r = f.Reconciler(nil)
	f.deliver(r, scheduledID, ids[:6]...)
	f.deliver(r, scheduledID, ids[6:]...)
	if got := f.Stripe.Requests(); got.RetrieveAccount != 1 || got.RetrieveSubscription != len(ids) {
		t.Errorf("requests %+v", got)
	}
	if n := len(f.Texts(`SELECT org_id FROM reconciliation_items WHERE reason = 'in_sync'`)); n != len(ids) || f.Checksum() != before {
		t.Errorf("%d organizations are in sync, want %d, or the application's tables changed", n, len(ids))
	}
}

// rotatedStripe has the key of the first account until a subscription is read. Then its key belongs to another account.
type rotatedStripe struct {
	pipeline.Stripe // with the key of the other account
	first           pipeline.Stripe
	keyVersion      atomic.Int64
}

func (s *rotatedStripe) KeyVersion() int64 { return s.keyVersion.Load() }

func (s *rotatedStripe) Account(ctx context.Context) (string, error) {
	if s.keyVersion.Load() == 0 {
		return s.first.Account(ctx)
	}
	return s.Stripe.Account(ctx)
}

func (s *rotatedStripe) Subscription(ctx context.Context, id string) (billing.Subscription, bool, error) {
	s.keyVersion.Store(1)
	return s.Stripe.Subscription(ctx, id)
}

// In the other account every subscription is missing. So the worker must not write what it read with that key.
func TestKeyRotatedToAnotherAccountStopsRunBeforeFirstWrite(t *testing.T) {
	f := newFixture(t)
	ids := numbered(3)
	for _, id := range ids {
		f.Subscriber(id)
	}
	f.enumerate(f.Enumerator(nil), pipeline.Request{ScheduledFor: start, Strategy: billing.StrategyRetrieve})
	before := f.Checksum()
	r := f.Reconciler(nil)
	r.Stripe = &rotatedStripe{Stripe: f.OtherAccount(), first: r.Stripe}
	f.deliver(r, scheduledID, ids...)
	if run := f.Run(scheduledID); run.Status != billing.RunStopped || run.StatusReason != billing.ReasonWrongAccount {
		t.Errorf("the run is %s, %s: %s", run.Status, run.StatusReason, run.StatusMessage)
	}
	if f.Checksum() != before {
		t.Error("the worker lowered access")
	}
}

// A warm worker has compared its key with the run. If the run is resumed with another account, it compares again.
func TestWorkerComparesAccountsAgainAfterRunIsResumed(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.Subscriber("org-2")
	f.enumerate(f.Enumerator(nil), pipeline.Request{ScheduledFor: start, Strategy: billing.StrategyRetrieve})
	r := f.Reconciler(nil)
	f.deliver(r, scheduledID, "org-1")
	f.Exec(`UPDATE reconciliation_accounts SET account_id = 'acct_other'`)
	f.deliver(r, scheduledID, "org-2")
	if run := f.Run(scheduledID); run.Status != billing.RunStopped || run.StatusReason != billing.ReasonWrongAccount {
		t.Errorf("the run is %s, %s: %s", run.Status, run.StatusReason, run.StatusMessage)
	}
}

func TestEnumeratorWithKeyOfAnotherAccountStopsTheResumedRun(t *testing.T) {
	f := newFixture(t)
	f.customersOnly(numbered(4)...)
	if _, err := f.Enumerator(testworld.DyingAt("CountItems")).Run(t.Context(), scheduled); err == nil {
		t.Fatal("the enumerator was not killed")
	}
	f.Clock.Advance(2 * time.Minute)
	f.Received(f.Work)
	wrong := f.Enumerator(nil)
	wrong.Stripe = f.OtherAccount()
	_, err := wrong.Run(t.Context(), pipeline.Request{ResumeAll: true})
	wantReason(t, err, billing.RunFatal, billing.ReasonWrongAccount)
	if run := f.Run(scheduledID); run.Status != billing.RunStopped || len(f.Received(f.Work)) > 0 {
		t.Errorf("the run is %s, want stopped, and no messages", run.Status)
	}
	// A person who resumes a stopped run decides which account it reads.
	f.enumerate(wrong, pipeline.Request{ResumeRun: scheduledID})
	if run := f.Run(scheduledID); run.Status != billing.RunRunning || run.AccountID != "acct_other" {
		t.Errorf("the run is %s and reads account %q", run.Status, run.AccountID)
	}
}

// The key needs the permission to read its account only if STRIPE_ACCOUNT_ID is set.
func TestKeyWithoutAccountPermissionIsNotCompared(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("a")
	retrieve := pipeline.Request{ScheduledFor: start, Strategy: billing.StrategyRetrieve}
	end := f.Stripe.AddFault(stripetest.Fault{Endpoint: stripetest.RetrieveAccount, Kind: stripetest.Forbidden})
	f.enumerate(f.Enumerator(nil), retrieve)
	if got := f.Run(scheduledID).AccountID; got != "" {
		t.Errorf("the run reads account %q", got)
	}
	f.resetRuns()
	end()
	f.enumerate(f.Enumerator(nil), retrieve)
	f.Stripe.AddFault(stripetest.Fault{Endpoint: stripetest.RetrieveAccount, Kind: stripetest.Forbidden})
	f.deliver(f.Reconciler(nil), scheduledID, "a")
	if item := f.Item(scheduledID, "a"); item.Reason != billing.ReasonInSync {
		t.Errorf("%+v", item)
	}
	if n := len(f.Logs.Lines(t, "message", "the Stripe key may not read its account, so it is not compared with that of the run")); n != 1 {
		t.Errorf("the warning was logged %d times, want once", n)
	}
	f.Stripe.ClearFaults()
	strict := f.Enumerator(nil)
	strict.AccountID = "acct_test"
	f.Stripe.AddFault(stripetest.Fault{Endpoint: stripetest.RetrieveAccount, Kind: stripetest.Forbidden})
	_, err := strict.Run(t.Context(), pipeline.Request{})
	wantReason(t, err, billing.RunFatal, billing.ReasonStripeForbidden)
}

func TestOrganizationWithoutActiveRowIsReadByItsCustomersListOnly(t *testing.T) {
	for status, want := range map[string]stripetest.Counts{
		"active":   {RetrieveSubscription: 1},
		"trialing": {ListSubscriptions: 1},
		"past_due": {ListSubscriptions: 1},
	} {
		t.Run(status, func(t *testing.T) {
			f := newFixture(t)
			f.Org("org", func(o *appschema.Organization) { o.SubscriptionStatus = status })
			f.Row("org", func(s *appschema.Subscription) { s.Status = status })
			f.Sub("org", func(s *stripetest.Subscription) { s.Status = status })
			f.OpenRun(runID, []string{"org"})
			f.deliver(f.Reconciler(nil), runID, "org")
			got := f.Stripe.Requests()
			if got.RetrieveSubscription != want.RetrieveSubscription || got.ListSubscriptions != want.ListSubscriptions {
				t.Errorf("%+v", got)
			}
		})
	}
}
