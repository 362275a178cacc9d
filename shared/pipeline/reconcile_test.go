package pipeline_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

// situation is an organization with its record and its subscriptions in Stripe, and the result of its reconciliation.
type situation struct {
	id       string
	governs  string // the governing subscription's id without the organization's id at its end; "" if none governs
	seed     func(f *fixture, id string)
	outcome  billing.Outcome
	reason   billing.Reason
	fields   []string // the written columns
	warnings []billing.WarningCode
}

func sharedCustomer(o *appschema.Organization) { o.StripeCustomerID = new("cus_shared") }

func freeRow(s *appschema.Subscription) {
	s.PlanTier, s.Status, s.StripeSubscriptionID = "free", "canceled", nil
}

// owner creates another organization, whose row records the subscription "sub_ID" of the customer "cus_ID".
func (f *fixture) owner(id string) {
	f.Helper()
	f.Org("own-"+id, func(o *appschema.Organization) { o.StripeCustomerID = new("cus_" + id) })
	f.Row("own-"+id, func(s *appschema.Subscription) {
		s.StripeSubscriptionID, s.StripeCustomerID = new("sub_"+id), new("cus_"+id)
	})
}

func meta(key, value string) func(*stripetest.Subscription) {
	return func(s *stripetest.Subscription) { s.Metadata = map[string]string{key: value} }
}

var situations = []situation{
	{
		id: "in-sync", governs: "sub_", seed: func(f *fixture, id string) { f.Subscriber(id) },
		outcome: billing.OutcomeSkipped, reason: billing.ReasonInSync,
	},
	{
		id: "upgraded", governs: "sub_", seed: func(f *fixture, id string) { f.Subscriber(id, price("price_max")) },
		outcome: billing.OutcomeSynced, reason: billing.ReasonRepaired,
		fields: []string{billing.FieldOrgTier, billing.FieldPlanTier, billing.FieldPriceID},
	},
	{
		id: "canceled", governs: "sub_", seed: func(f *fixture, id string) { f.Subscriber(id, canceled) },
		outcome: billing.OutcomeSynced, reason: billing.ReasonRepaired,
		fields: []string{billing.FieldOrgStatus, billing.FieldOrgTier, billing.FieldCanceledAt, billing.FieldEndedAt, billing.FieldPlanTier, billing.FieldStatus},
	},
	{
		id: "unpaid", governs: "sub_", seed: func(f *fixture, id string) {
			f.Subscriber(id, func(s *stripetest.Subscription) { s.Status, s.CancelAtPeriodEnd = "unpaid", true })
		},
		outcome: billing.OutcomeSynced, reason: billing.ReasonRepaired,
		fields: []string{billing.FieldOrgStatus, billing.FieldCancelAtPeriodEnd, billing.FieldStatus},
	},
	{
		id: "trialing", governs: "sub_", seed: func(f *fixture, id string) {
			f.Org(id, withoutCustomer)
			f.Row(id, func(s *appschema.Subscription) { s.CurrentPeriodEnd, s.CancelAtPeriodEnd = nil, nil })
			f.Sub(id, func(s *stripetest.Subscription) { s.Status, s.TrialEnd = "trialing", periodEnd.Unix() })
		},
		outcome: billing.OutcomeSynced, reason: billing.ReasonRepaired,
		fields: []string{
			billing.FieldOrgCustomerID, billing.FieldOrgStatus, billing.FieldOrgTrialEndsAt, billing.FieldCancelAtPeriodEnd,
			billing.FieldCurrentPeriodEnd, billing.FieldStatus, billing.FieldTrialEnd,
		},
	},
	{
		id: "row-inserted", governs: "sub_", seed: func(f *fixture, id string) { f.Org(id, free); f.Sub(id) },
		outcome: billing.OutcomeSynced, reason: billing.ReasonRowInserted,
		fields: []string{
			billing.FieldOrgStatus, billing.FieldOrgTier, billing.FieldCancelAtPeriodEnd, billing.FieldCurrentPeriodEnd, billing.FieldCurrentPeriodStart,
			billing.FieldPlanTier, billing.FieldStatus, billing.FieldCustomerID, billing.FieldPriceID, billing.FieldSubscriptionID,
		},
	},
	{
		id: "replaced", governs: "sub_second_", seed: func(f *fixture, id string) {
			f.Subscriber(id, canceled)
			f.Sub(id, func(s *stripetest.Subscription) { s.ID, s.PriceID = "sub_second_"+id, "price_starter" })
		},
		outcome: billing.OutcomeSynced, reason: billing.ReasonRepaired,
		fields: []string{billing.FieldOrgTier, billing.FieldPlanTier, billing.FieldPriceID, billing.FieldSubscriptionID},
	},
	{
		id: "two-customers", governs: "sub_new_", seed: func(f *fixture, id string) {
			f.Org(id, func(o *appschema.Organization) { o.StripeCustomerID = new("cus_new_" + id) })
			f.Row(id, func(s *appschema.Subscription) { s.Status, s.PlanTier = "canceled", "free" })
			f.Sub(id, canceled)
			f.Sub(id, func(s *stripetest.Subscription) { s.ID, s.CustomerID = "sub_new_"+id, "cus_new_"+id })
		},
		outcome: billing.OutcomeSynced, reason: billing.ReasonRepaired,
		fields: []string{billing.FieldCustomerID, billing.FieldPlanTier, billing.FieldStatus, billing.FieldSubscriptionID},
	},
	{
		id: "moved-customer", governs: "sub_new_", seed: func(f *fixture, id string) {
			f.Subscriber(id, canceled, func(s *stripetest.Subscription) { s.CustomerID = "cus_moved_" + id })
			f.Sub(id, func(s *stripetest.Subscription) { s.ID, s.CustomerID = "sub_new_"+id, "cus_moved_"+id })
		},
		outcome: billing.OutcomeSynced, reason: billing.ReasonRepaired,
		fields: []string{billing.FieldCustomerID, billing.FieldOrgCustomerID, billing.FieldSubscriptionID},
	},
	{
		id: "missing", seed: func(f *fixture, id string) {
			f.Org(id)
			f.Row(id)
			f.Stripe.PutCustomer(stripetest.Customer{ID: "cus_" + id})
		},
		outcome: billing.OutcomeSynced, reason: billing.ReasonSubscriptionMissing,
		fields: []string{billing.FieldOrgStatus, billing.FieldOrgTier, billing.FieldEndedAt, billing.FieldPlanTier, billing.FieldStatus},
	},
	{
		id: "missing-with-its-customer", seed: func(f *fixture, id string) { f.Org(id); f.Row(id) },
		outcome: billing.OutcomeSynced, reason: billing.ReasonSubscriptionMissing,
		fields: []string{billing.FieldOrgStatus, billing.FieldOrgTier, billing.FieldEndedAt, billing.FieldPlanTier, billing.FieldStatus},
	},
	{
		id: "canceled-with-its-customer", governs: "sub_", seed: func(f *fixture, id string) { f.Subscriber(id); f.Stripe.DeleteCustomer("cus_" + id) },
		outcome: billing.OutcomeSynced, reason: billing.ReasonRepaired,
		fields: []string{billing.FieldOrgStatus, billing.FieldOrgTier, billing.FieldCanceledAt, billing.FieldEndedAt, billing.FieldPlanTier, billing.FieldStatus},
	},
	{
		id: "no-subscription", seed: func(f *fixture, id string) {
			f.Org(id, free)
			f.Stripe.PutCustomer(stripetest.Customer{ID: "cus_" + id})
		},
		outcome: billing.OutcomeSkipped, reason: billing.ReasonNoSubscription,
	},
	{
		id: "paid-without-subscription", seed: func(f *fixture, id string) { f.Org(id); f.Stripe.PutCustomer(stripetest.Customer{ID: "cus_" + id}) },
		outcome: billing.OutcomeSkipped, reason: billing.ReasonNoSubscription, warnings: []billing.WarningCode{billing.WarnPaidWithoutSubscription},
	},
	{
		id: "customer-deleted", seed: func(f *fixture, id string) {
			f.Org(id)
			f.Stripe.PutCustomer(stripetest.Customer{ID: "cus_" + id, Deleted: true})
		},
		outcome: billing.OutcomeSkipped, reason: billing.ReasonCustomerMissing, warnings: []billing.WarningCode{billing.WarnPaidWithoutSubscription},
	},
	{
		id: "customer-missing", seed: func(f *fixture, id string) { f.Org(id, free) },
		outcome: billing.OutcomeSkipped, reason: billing.ReasonCustomerMissing,
	},
	{
		id: "no-identity", seed: func(f *fixture, id string) {
			f.Org(id, withoutCustomer, free)
			f.Row(id, freeRow, func(s *appschema.Subscription) { s.StripeCustomerID = nil })
		},
		outcome: billing.OutcomeSkipped, reason: billing.ReasonNoStripeIdentity,
	},
	{
		id: "deleted", seed: func(f *fixture, id string) {
			f.Org(id, func(o *appschema.Organization) { o.IsDeleted = true })
			f.Row(id)
			f.Sub(id, canceled)
		},
		outcome: billing.OutcomeSkipped, reason: billing.ReasonOrganizationDeleted,
	},
	{
		id: "of-another-row", seed: func(f *fixture, id string) { f.owner(id); f.Org(id, free); f.Sub(id) },
		outcome: billing.OutcomeError, reason: billing.ReasonSubscriptionConflict,
	},
	{
		id: "of-another-by-metadata", seed: func(f *fixture, id string) {
			f.Org("own-"+id, free, withoutCustomer)
			f.Org(id, free)
			f.Sub(id, meta("orgId", "OWN-"+id))
		},
		outcome: billing.OutcomeError, reason: billing.ReasonSubscriptionConflict,
	},
	{
		id: "governing-on-another-row", governs: "sub_", seed: func(f *fixture, id string) { f.owner(id); f.Org(id, free); f.Sub(id, meta("orgId", id)) },
		outcome: billing.OutcomeError, reason: billing.ReasonSubscriptionConflict,
	},
	{ // the shared customer subscribed again, for this organization or for the next one; neither may lose access
		id: "shared-canceled", seed: func(f *fixture, id string) {
			f.Org(id, sharedCustomer)
			f.Row(id, func(s *appschema.Subscription) { s.StripeCustomerID = new("cus_shared") })
			f.Sub(id, canceled, func(s *stripetest.Subscription) { s.CustomerID = "cus_shared" })
			f.Sub("again", func(s *stripetest.Subscription) { s.CustomerID = "cus_shared" })
		},
		outcome: billing.OutcomeError, reason: billing.ReasonSubscriptionConflict,
	},
	{
		id: "shared-free", seed: func(f *fixture, id string) { f.Org(id, free, sharedCustomer) },
		outcome: billing.OutcomeError, reason: billing.ReasonSubscriptionConflict,
	},
	{
		id: "unknown-status", seed: func(f *fixture, id string) {
			f.Subscriber(id, func(s *stripetest.Subscription) { s.Status = "frozen" })
		},
		outcome: billing.OutcomeError, reason: billing.ReasonUnknownStatus,
	},
	{
		id: "tier-unresolved", governs: "sub_", seed: func(f *fixture, id string) { f.Subscriber(id, price("price_of_nothing")) },
		outcome: billing.OutcomeError, reason: billing.ReasonTierUnresolved,
	},
	{
		id: "invalid", seed: func(f *fixture, id string) {
			f.Org(id)
			f.Row(id)
			f.Sub(id, func(s *stripetest.Subscription) {
				s.CurrentPeriodEnd = time.Date(2040, time.January, 1, 0, 0, 0, 0, time.UTC).Unix()
			})
		},
		outcome: billing.OutcomeError, reason: billing.ReasonInvalidSubscription,
	},
	{
		id: "unreadable", seed: func(f *fixture, id string) {
			f.Subscriber(id, func(s *stripetest.Subscription) { s.Override = map[string]any{"created": "yesterday"} })
		},
		outcome: billing.OutcomeError, reason: billing.ReasonInvalidSubscription,
	},
	{
		id: "metadata-disagrees", governs: "sub_", seed: func(f *fixture, id string) { f.Org(id); f.Row(id); f.Sub(id, meta("tier", "starter")) },
		outcome: billing.OutcomeSkipped, reason: billing.ReasonInSync, warnings: []billing.WarningCode{billing.WarnTierMetadataMismatch},
	},
	{
		id: "two-rows", governs: "sub_", seed: func(f *fixture, id string) {
			f.Org(id)
			f.Row(id)
			f.Row(id, func(s *appschema.Subscription) {
				s.ID, s.StripeSubscriptionID, s.CreatedAt = "row-old-"+id, nil, created.AddDate(-1, 0, 0)
			})
			f.Sub(id, pastDue)
		},
		outcome: billing.OutcomeSynced, reason: billing.ReasonRepaired, warnings: []billing.WarningCode{billing.WarnMultipleRows},
		fields: []string{billing.FieldOrgStatus, billing.FieldStatus},
	},
	{
		id: "two-live", governs: "sub_second_", seed: func(f *fixture, id string) {
			f.Org(id)
			f.Row(id, func(s *appschema.Subscription) { s.Status = "past_due" })
			f.Sub(id, pastDue)
			f.Sub(id, func(s *stripetest.Subscription) { s.ID = "sub_second_" + id })
		},
		outcome: billing.OutcomeSynced, reason: billing.ReasonRepaired, warnings: []billing.WarningCode{billing.WarnMultipleLive},
		fields: []string{billing.FieldStatus, billing.FieldSubscriptionID},
	},
}

// seed creates the organizations of the situations and returns their ids.
func (f *fixture) seed(situations []situation) []string {
	f.Helper()
	var ids []string
	for _, s := range situations {
		s.seed(f, s.id)
		ids = append(ids, s.id)
	}
	return ids
}

// cellText returns a change's value as the database formats it.
func cellText(value any) string {
	switch v := value.(type) {
	case nil:
		return "NULL"
	case bool:
		if v {
			return "1"
		}
		return "0"
	case time.Time:
		return v.Format(time.RFC3339)
	default:
		return fmt.Sprint(v)
	}
}

// written returns the columns that changed in the organization's rows, without ids and timestamps.
func written(after, before cells, org string) []string {
	return slices.DeleteFunc(after.ChangedSince(before)[org], func(field string) bool {
		_, column, _ := strings.Cut(field, ".")
		return slices.Contains([]string{"id", "org_id", "created_at", "updated_at"}, column)
	})
}

func (s situation) check(t *testing.T, item billing.Item, before, after cells) {
	t.Helper()
	want := billing.Item{RunID: runID, OrgID: s.id, Outcome: s.outcome, Reason: s.reason, Revision: 1}
	if s.governs != "" && (s.outcome != billing.OutcomeSkipped || len(s.warnings) > 0) {
		want.SubscriptionID = s.governs + s.id
	}
	if diff := cmp.Diff(want, item, cmpopts.IgnoreFields(billing.Item{}, "Changes", "Warnings", "Error")); diff != "" {
		t.Errorf("%s\nerror: %s", diff, item.Error)
	}
	if (item.Error != "") != (s.outcome == billing.OutcomeError) {
		t.Errorf("the error is %q", item.Error)
	}
	var codes []billing.WarningCode
	for _, w := range item.Warnings {
		codes = append(codes, w.Code)
	}
	if diff := cmp.Diff(s.warnings, codes, cmpopts.EquateEmpty()); diff != "" {
		t.Error("warnings (-want +got):", diff)
	}
	if diff := cmp.Diff(s.fields, fieldsOf(item.Changes), cmpopts.EquateEmpty(), cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Error("recorded changes (-want +got):", diff)
	}
	if diff := cmp.Diff(s.fields, written(after, before, s.id), cmpopts.EquateEmpty(), cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Error("written columns (-want +got):", diff)
	}
	for _, change := range item.Changes {
		for key, value := range after {
			old, existed := before[key]
			if key[0] != s.id || key[2] != change.Field || (existed && old == value) {
				continue
			}
			if !existed {
				old = "NULL"
			}
			if old != cellText(change.From) || value != cellText(change.To) {
				t.Errorf("the item records %s: %v -> %v, but it changed from %s to %s", change.Field, change.From, change.To, old, value)
			}
		}
	}
}

func TestEverySituationEndToEnd(t *testing.T) {
	f := newFixture(t)
	ids := f.seed(situations)
	f.OpenRun(runID, ids)
	before := f.Cells()

	results := f.deliver(f.Reconciler(nil), runID, ids...)

	after := f.Cells()
	for _, s := range situations {
		t.Run(s.id, func(t *testing.T) {
			s.check(t, f.Item(runID, s.id), before, after)
			got := results[s.id]
			if s.outcome == billing.OutcomeError {
				f.wantResult(got, pipeline.DeadLetter, s.reason)
			} else {
				f.wantResult(got, pipeline.Acknowledge, "")
			}
		})
		delete(results, s.id)
	}
	for org := range after.ChangedSince(before) {
		if !slices.Contains(ids, org) {
			t.Errorf("the worker wrote organization %s, which is not in the run", org)
		}
	}
}

func TestSecondRunRepairsNothing(t *testing.T) {
	f := newFixture(t)
	ids := f.seed(situations)
	f.OpenRun(runID, ids)
	f.deliver(f.Reconciler(nil), runID, ids...)
	f.OpenRun("run-2", ids)
	sum := f.Checksum()
	f.deliver(f.Reconciler(nil), "run-2", ids...)
	if f.Checksum() != sum {
		t.Error("the second run wrote to the application's tables")
	}
	for _, s := range situations {
		if item := f.Item("run-2", s.id); len(item.Changes) > 0 {
			t.Errorf("%s: %+v", s.id, item.Changes)
		}
	}
}

func TestDryRunRecordsTheChangesThatARealRunWrites(t *testing.T) {
	f := newFixture(t)
	ids := f.seed(situations)
	f.OpenRun("dry", ids, testworld.DryRun, func(r *billing.Run) { r.DowngradeLimit = 1 })
	f.OpenRun("real", ids)
	sum := f.Checksum()
	for id, result := range f.deliver(f.Reconciler(nil), "dry", ids...) {
		if result.Disposition != pipeline.Acknowledge {
			t.Errorf("%s: %+v", id, result)
		}
	}
	if f.Checksum() != sum {
		t.Error("the dry run wrote to the application's tables")
	}
	f.deliver(f.Reconciler(nil), "real", ids...)

	columns := func(run, org string) string {
		return mysqltest.Value[string](t, f.DB, `SELECT CONCAT_WS('|', outcome, reason, COALESCE(changes, '-'), COALESCE(warnings, '-'), COALESCE(error, '-'))
			FROM reconciliation_items WHERE run_key = (SELECT run_key FROM reconciliation_runs WHERE id = ?) AND org_id = ?`, run, org)
	}
	for _, s := range situations {
		dryRun, realRun := columns("dry", s.id), columns("real", s.id)
		if s.outcome == billing.OutcomeSynced {
			dryRun = strings.Replace(dryRun, "drifted|", "synced|", 1)
		}
		if diff := cmp.Diff(realRun, dryRun); diff != "" {
			t.Errorf("%s (-real +dry): %s", s.id, diff)
		}
	}
	if dryRun, realRun := f.Run("dry").Downgrades, f.Run("real").Downgrades; dryRun != realRun || dryRun < 5 {
		t.Errorf("the dry run counts %d downgrades, the real run %d", dryRun, realRun)
	}
}

func TestBatchLoadsInConstantNumberOfQueries(t *testing.T) {
	f := newFixture(t)
	ids := numbered(10)
	for _, id := range ids {
		f.Subscriber(id)
	}
	f.OpenRun(runID, ids)
	f.decide(runID, billing.OutcomeSkipped, ids...) // so that the worker only loads the batch
	pool := f.DB.Open(t)
	pool.SetMaxOpenConns(1) // so that the session's counters count all statements of the pool
	selects := func() (n int) {
		var name string
		if err := pool.QueryRowContext(t.Context(), `SHOW SESSION STATUS LIKE 'Com_select'`).Scan(&name, &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	r := f.Reconciler(nil)
	r.Store = mysqlstore.New(pool)
	var counts []int
	for _, size := range []int{1, 2, 10} {
		before := selects()
		f.deliver(r, runID, ids[:size]...)
		counts = append(counts, selects()-before)
	}
	if diff := cmp.Diff([]int{4, 4, 4}, counts); diff != "" {
		t.Error(diff)
	}
}

func TestDuplicatesChangeNothing(t *testing.T) {
	f := newFixture(t)
	ids := f.seed(situations)
	f.OpenRun(runID, ids)
	r := f.Reconciler(nil)
	twice := append(slices.Clone(ids), ids...)
	slices.Sort(twice)
	f.deliver(r, runID, twice...)
	items, content, downgrades := f.items(), f.Cells(), f.Run(runID).Downgrades
	for _, s := range situations {
		f.wantItem(s.id, s.outcome, s.reason)
	}
	if n := f.Count(`SELECT MAX(revision) FROM reconciliation_items`); n != 1 {
		t.Errorf("an item was written %d times, want once", n)
	}

	f.Clock.Advance(time.Minute)
	f.deliver(r, runID, ids...)
	f.deliver(f.Reconciler(nil), runID, ids...)
	if diff := cmp.Diff(items, f.items()); diff != "" {
		t.Error("items (-before +after):", diff)
	}
	if diff := cmp.Diff(content, f.Cells()); diff != "" {
		t.Error("rows (-before +after):", diff)
	}
	if got := f.Run(runID).Downgrades; got != downgrades {
		t.Errorf("the run counts %d downgrades, want %d as before", got, downgrades)
	}

	f.Stripe.ResetCounts()
	for _, s := range situations {
		if s.outcome != billing.OutcomeError {
			f.wantResult(f.deliver(r, runID, s.id)[s.id], pipeline.Acknowledge, "")
		}
	}
	if n := f.Stripe.Requests().Total(); n != 0 {
		t.Errorf("%d requests were sent for decided items, want none", n)
	}
}

func TestTwoWorkersWithTheSameMessagesHaveTheResultOfOne(t *testing.T) {
	f := newFixture(t)
	ids := f.seed(situations)
	f.OpenRun(runID, ids)
	before := f.Cells()
	done := make(chan map[string]pipeline.Result)
	for range 2 {
		go func() { done <- f.deliver(f.Reconciler(nil), runID, ids...) }()
	}
	<-done
	<-done
	after := f.Cells()
	for _, s := range situations {
		item := f.Item(runID, s.id)
		if s.outcome != billing.OutcomeError {
			item.Revision = 1
		} else if item.Revision > 2 {
			t.Errorf("the item of %s was written %d times, want at most 2", s.id, item.Revision)
		}
		item.Revision = 1
		s.check(t, item, before, after)
	}
}

func TestUnknownRunOrItemIsDeadLetter(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.Subscriber("org-2")
	f.OpenRun(runID, []string{"org-1"})
	unknownRun, known := billing.Work{RunID: "unknown", OrgID: "org-1"}, billing.Work{RunID: runID, OrgID: "org-1"}
	otherOrg, otherCase := billing.Work{RunID: runID, OrgID: "org-2"}, billing.Work{RunID: runID, OrgID: "ORG-1"}
	results := f.Reconciler(nil).Reconcile(t.Context(), map[billing.Work]bool{unknownRun: false, known: false, otherOrg: false, otherCase: false})
	f.wantResult(results[unknownRun], pipeline.DeadLetter, billing.ReasonUnknownRun)
	f.wantResult(results[known], pipeline.Acknowledge, "")
	f.wantResult(results[otherOrg], pipeline.DeadLetter, billing.ReasonUnknownItem)
	f.wantResult(results[otherCase], pipeline.DeadLetter, billing.ReasonUnknownItem)
	if got := f.Reconciler(nil).Reconcile(t.Context(), nil); len(got) != 0 {
		t.Errorf("an empty batch returned %v", got)
	}
}

func TestMessageOfStoppedRunIsAcknowledgedWithoutStripeRequests(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.OpenRun(runID, []string{"org-1"})
	if _, err := f.Store.StopRun(t.Context(), runID, billing.ReasonWrongAccount, "wrong", f.Clock.Now()); err != nil {
		t.Fatal(err)
	}
	f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.Acknowledge, "")
	f.wantItem("org-1", billing.OutcomePending, billing.ReasonNotDecided)
	if n := f.Stripe.Requests().Total(); n != 0 {
		t.Errorf("%d requests were sent, want none", n)
	}
}

func TestRequestsAreCountedOnTheRun(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.Org("org-2", free)
	f.Stripe.PutCustomer(stripetest.Customer{ID: "cus_org-2"})
	f.OpenRun(runID, []string{"org-1", "org-2"})
	f.Stripe.AddFault(stripetest.Fault{Kind: stripetest.RateLimited, Endpoint: stripetest.ListSubscriptions, Times: 1})
	f.deliver(f.Reconciler(nil), runID, "org-1", "org-2")
	if diff := cmp.Diff(billing.Usage{Retrieve: 1, List: 2, Other: 1, Throttled: 1}, f.Run(runID).Usage); diff != "" {
		t.Error(diff)
	}
}

// --- writes between read and write ---

// afterRead calls fn after Stripe has made its n-th answer and before it sends the response.
func (f *fixture) afterRead(n int, fn func()) {
	f.Stripe.After(func(*http.Request) {
		if n--; n == 0 {
			fn()
		}
	})
}

func TestWebhookBetweenReadAndWriteWins(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1", canceled)
	f.OpenRun(runID, []string{"org-1"})
	f.afterRead(2, func() { // in both answers of the first attempt the subscription is canceled
		f.Sub("org-1", price("price_max"))
		f.Exec(`UPDATE organizations SET subscription_tier = 'max' WHERE id = 'org-1'`)
		f.Exec(`UPDATE subscriptions SET plan_tier = 'max', stripe_price_id = 'price_max' WHERE org_id = 'org-1'`)
	})
	before := f.Cells()
	f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.Acknowledge, "")
	f.wantItem("org-1", billing.OutcomeSkipped, billing.ReasonInSync)
	if diff := cmp.Diff([]string{billing.FieldOrgTier, billing.FieldPlanTier, billing.FieldPriceID}, written(f.Cells(), before, "org-1")); diff != "" {
		t.Error(diff)
	}
	if n := f.Run(runID).Downgrades; n != 0 {
		t.Errorf("the run counts %d downgrades, want 0", n)
	}
}

func TestWebhookBetweenReadAndWriteIsRepairedAfterFreshRead(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1", price("price_starter"))
	f.OpenRun(runID, []string{"org-1"})
	f.afterRead(1, func() {
		f.Sub("org-1", price("price_max"))
		f.Exec(`UPDATE subscriptions SET cancel_at_period_end = TRUE WHERE org_id = 'org-1'`)
	})
	f.deliver(f.Reconciler(nil), runID, "org-1")
	item := f.wantItem("org-1", billing.OutcomeSynced, billing.ReasonRepaired)
	want := []billing.Change{
		{Field: billing.FieldPriceID, From: "price_pro", To: "price_max"},
		{Field: billing.FieldPlanTier, From: "pro", To: "max"},
		{Field: billing.FieldCancelAtPeriodEnd, From: true, To: false},
		{Field: billing.FieldOrgTier, From: "pro", To: "max"},
	}
	if diff := cmp.Diff(want, item.Changes); diff != "" {
		t.Error(diff)
	}
}

func TestAccessRegainedDuringWriteIsRestored(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.OpenRun(runID, []string{"org-1"})
	before := f.Cells().WithoutTimestamps()
	f.Sub("org-1", canceled)
	f.afterRead(2, func() { // Stripe changes back, and the webhook writes the same values again
		f.Sub("org-1")
		f.Exec(`UPDATE organizations SET subscription_tier = 'pro' WHERE id = 'org-1'`)
	})
	f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.Acknowledge, "")
	if diff := cmp.Diff(before, f.Cells().WithoutTimestamps()); diff != "" {
		t.Error(diff)
	}
	item := f.wantItem("org-1", billing.OutcomeSynced, billing.ReasonRepaired)
	var restored []string
	for _, c := range item.Changes[len(item.Changes)/2:] {
		restored = append(restored, c.Field)
	}
	if len(item.Changes) != 12 || !slices.Equal(fieldsOf(item.Changes[:6]), slices.Sorted(slices.Values(restored))) {
		t.Errorf("the item does not record the same six fields twice: %+v", item.Changes)
	}
	if first, last := item.Changes[0], item.Changes[6]; first.From != last.To || first.To != last.From {
		t.Errorf("%+v does not restore %+v", last, first)
	}
}

func TestWebhookDuringFollowUpCausesAnotherRead(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	before := f.Cells().WithoutTimestamps()
	f.OpenRun(runID, []string{"org-1"})
	f.Sub("org-1", canceled)
	answers := 0
	f.Stripe.After(func(*http.Request) {
		switch answers++; answers {
		case 3: // the first attempt reads the subscription, the customer's list and the search
			f.Sub("org-1")
		case 4: // the follow-up reads the subscription
			f.Exec(`UPDATE subscriptions SET cancel_at_period_end = TRUE WHERE org_id = 'org-1'`)
		}
	})
	f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.Acknowledge, "")
	if diff := cmp.Diff(before, f.Cells().WithoutTimestamps()); diff != "" {
		t.Error(diff)
	}
	if answers != 5 {
		t.Errorf("Stripe answered %d times, want 5", answers)
	}
}

func TestFollowUpKeepsTheMoreSpecificReason(t *testing.T) {
	mismatch := func() []billing.WarningCode { return []billing.WarningCode{billing.WarnTierMetadataMismatch} }
	for name, test := range map[string]struct {
		seed     func(f *fixture)
		answers  int // of Stripe, in the first attempt
		then     func(f *fixture)
		reason   billing.Reason
		governs  string
		warnings []billing.WarningCode
	}{
		"a row was inserted, then repaired": {
			seed:    func(f *fixture) { f.Org("org-1"); f.Sub("org-1", canceled) },
			answers: 2, then: func(f *fixture) { f.Sub("org-1", meta("tier", "max")) },
			reason: billing.ReasonRowInserted, governs: "sub_org-1", warnings: mismatch(),
		},
		"the subscription was missing, then existed": {
			seed:    func(f *fixture) { f.Org("org-1"); f.Row("org-1") },
			answers: 3, then: func(f *fixture) { f.Sub("org-1", meta("tier", "max")) },
			reason: billing.ReasonSubscriptionMissing, governs: "sub_org-1", warnings: mismatch(),
		},
		"the subscription existed, then was missing": {
			seed: func(f *fixture) {
				f.Subscriber("org-1", price("price_starter"), meta("tier", "max"))
			},
			answers: 3, then: func(f *fixture) { f.Stripe.RemoveSubscription("sub_org-1") },
			reason: billing.ReasonSubscriptionMissing,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			test.seed(f)
			f.OpenRun(runID, []string{"org-1"})
			f.afterRead(test.answers, func() { test.then(f) })
			f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.Acknowledge, "")
			item := f.wantItem("org-1", billing.OutcomeSynced, test.reason)
			var codes []billing.WarningCode
			for _, w := range item.Warnings {
				codes = append(codes, w.Code)
			}
			if item.Revision != 2 || item.SubscriptionID != test.governs || !slices.Equal(codes, test.warnings) {
				t.Errorf("revision %d, governing subscription %q, warnings %v; want 2, %q, %v", item.Revision, item.SubscriptionID, codes, test.governs, test.warnings)
			}
		})
	}
}

func TestFailedFollowUpIsLogged(t *testing.T) {
	for reason, meanwhile := range map[billing.Reason]func(f *fixture, answer int){
		billing.ReasonTierUnresolved: func(f *fixture, _ int) { f.Sub("org-1", price("price_of_nothing")) },
		billing.ReasonChangedConcurrently: func(f *fixture, answer int) {
			f.Sub("org-1")
			if answer > 3 {
				f.Exec(`UPDATE subscriptions SET current_period_end = ? WHERE org_id = 'org-1'`, periodEnd.AddDate(0, 0, answer))
			}
		},
	} {
		t.Run(string(reason), func(t *testing.T) {
			f := newFixture(t)
			f.Subscriber("org-1", canceled)
			f.OpenRun(runID, []string{"org-1"})
			answers := 0
			f.Stripe.After(func(*http.Request) {
				if answers++; answers > 2 { // the first attempt has three answers
					meanwhile(f, answers)
				}
			})
			f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.Acknowledge, "")
			f.wantItem("org-1", billing.OutcomeSynced, billing.ReasonRepaired)
			lines := f.Logs.Lines(t, "reason", string(reason))
			if len(lines) != 1 || lines[0]["orgId"] != "org-1" || strings.Contains(fmt.Sprint(lines[0]["message"]), "could not be read") {
				t.Errorf("%v", lines)
			}
		})
	}
}

// Another organization's row records the subscription after the worker read the claims and before it writes.
func TestItemInErrorDoesNotListUnwrittenChanges(t *testing.T) {
	f := newFixture(t)
	f.Org("org-1", free)
	f.Sub("org-1")
	f.OpenRun(runID, []string{"org-1"})
	r := f.Reconciler(&hooks{Before: func(_ context.Context, call string) error {
		if call == "begin Apply" {
			f.owner("org-1") //nolint:contextcheck // the statement is the test's, not the step's
		}
		return nil
	}})
	f.wantResult(f.deliver(r, runID, "org-1")["org-1"], pipeline.DeadLetter, billing.ReasonSubscriptionConflict)
	if item := f.wantItem("org-1", billing.OutcomeError, billing.ReasonSubscriptionConflict); len(item.Changes) > 0 {
		t.Errorf("the item lists the changes %+v, want none", item.Changes)
	}
}

func TestRequestsOfMixedBatchCountForItsLargestRun(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.Subscriber("org-2")
	work := map[billing.Work]bool{{RunID: "m", OrgID: "org-2"}: false}
	for _, run := range []string{"a", "b", "c", "m", "x", "y", "z"} {
		f.OpenRun(run, []string{"org-1", "org-2"})
		work[billing.Work{RunID: run, OrgID: "org-1"}] = false
	}
	f.Reconciler(nil).Reconcile(t.Context(), work)
	for w := range work {
		want := 0
		if w.RunID == "m" {
			want = len(work)
		}
		if got := f.Run(w.RunID).Usage.Retrieve; got != int64(want) {
			t.Errorf("run %s counts %d requests, want %d", w.RunID, got, want)
		}
	}
}

func TestOrganizationThatKeepsChangingIsReturned(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1", price("price_max"))
	f.OpenRun(runID, []string{"org-1"})
	writes := 0
	f.Stripe.After(func(*http.Request) {
		writes++
		f.Exec(`UPDATE organizations SET stripe_customer_id = ? WHERE id = 'org-1'`, fmt.Sprint("cus_", writes))
	})
	f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.Redeliver, billing.ReasonChangedConcurrently)
	if writes != 3 {
		t.Errorf("Stripe was read %d times, want 3", writes)
	}
	f.wantItem("org-1", billing.OutcomePending, billing.ReasonNotDecided)
	f.wantResult(f.deliverAs(t.Context(), f.Reconciler(nil), runID, true, "org-1")["org-1"], pipeline.DeadLetter, billing.ReasonChangedConcurrently)
	f.wantItem("org-1", billing.OutcomeError, billing.ReasonChangedConcurrently)
}

func TestOrganizationDeletedMeanwhileIsSkipped(t *testing.T) {
	for name, statement := range map[string]string{
		"marked as deleted": `UPDATE organizations SET is_deleted = 1 WHERE id = 'org-1'`, "row deleted": `DELETE FROM organizations WHERE id = 'org-1'`,
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.Subscriber("org-1", price("price_max"))
			f.OpenRun(runID, []string{"org-1"})
			f.afterRead(1, func() { f.Exec(statement) })
			f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.Acknowledge, "")
			f.wantItem("org-1", billing.OutcomeSkipped, billing.ReasonOrganizationDeleted)
			for key, value := range f.Cells() {
				if key[2] == billing.FieldPlanTier && value != "pro" {
					t.Errorf("the worker wrote %v: %s", key, value)
				}
			}
		})
	}
}

// --- failures ---

func TestRunFatalFailureStopsTheRun(t *testing.T) {
	tests := map[string]struct {
		fault  stripetest.Kind
		sub    func(*stripetest.Subscription)
		reason billing.Reason
	}{
		"401": {fault: stripetest.Unauthorized, reason: billing.ReasonStripeUnauthorized},
		"403": {fault: stripetest.Forbidden, reason: billing.ReasonStripeForbidden},
		"object of the other mode": {
			sub: func(s *stripetest.Subscription) { s.LiveMode = new(true) }, reason: billing.ReasonWrongMode,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			ids := numbered(6)
			for _, id := range ids {
				f.Subscriber(id)
				f.Exec(`UPDATE subscriptions SET plan_tier = 'max' WHERE org_id = ?`, id)
				if test.sub != nil {
					f.Sub(id, test.sub)
				}
			}
			f.OpenRun(runID, ids)
			if test.fault != 0 {
				f.Stripe.AddFault(stripetest.Fault{Kind: test.fault})
			}
			r := f.Reconciler(nil)
			r.Parallel = 1
			sum := f.Checksum()
			for id, result := range f.deliverAs(t.Context(), r, runID, true, ids...) {
				if result.Disposition != pipeline.Acknowledge {
					t.Errorf("%s: %+v", id, result)
				}
				f.wantItem(id, billing.OutcomePending, billing.ReasonNotDecided)
			}
			run := f.Run(runID)
			if run.Status != billing.RunStopped || run.StatusReason != test.reason || run.StatusMessage == "" || run.FinishedAt == nil {
				t.Errorf("%+v", run)
			}
			if f.Checksum() != sum {
				t.Error("the worker wrote to the application's tables")
			}
			if n := f.Stripe.Requests().Total(); n != 1 {
				t.Errorf("%d requests were sent, want 1", n)
			}
			if n := len(f.Logs.Lines(t, "reason", string(test.reason))); n != 1 {
				t.Errorf("%d log lines have the reason, want 1", n)
			}
		})
	}
}

func TestMessagesAreReturnedIfRunCannotBeStopped(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.OpenRun(runID, []string{"org-1"})
	f.Stripe.AddFault(stripetest.Fault{Kind: stripetest.Unauthorized})
	r := f.Reconciler(&hooks{Before: func(_ context.Context, call string) error {
		if call == "StopRun" {
			return testworld.ErrKilled
		}
		return nil
	}})
	f.wantResult(f.deliverAs(t.Context(), r, runID, true, "org-1")["org-1"], pipeline.Redeliver, billing.ReasonInternal)
	f.wantItem("org-1", billing.OutcomePending, billing.ReasonNotDecided)
}

// MySQL reports a missing column or table and a missing grant alike.
func TestMissingColumnOrTableStopsTheRun(t *testing.T) {
	for name, statement := range map[string]string{
		"no such column": `ALTER TABLE organizations DROP COLUMN trial_ends_at`,
		"no such table":  `DROP TABLE subscriptions`,
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.Subscriber("org-1")
			f.Subscriber("org-2")
			f.OpenRun(runID, []string{"org-1", "org-2"})
			f.Exec(statement)
			for id, result := range f.deliver(f.Reconciler(nil), runID, "org-1", "org-2") {
				if result.Disposition != pipeline.Acknowledge {
					t.Errorf("%s: %+v", id, result)
				}
				f.wantItem(id, billing.OutcomePending, billing.ReasonNotDecided)
			}
			if run := f.Run(runID); run.Status != billing.RunStopped || run.StatusReason != billing.ReasonDatabaseLogin {
				t.Errorf("%+v", run)
			}
		})
	}
}

var unreadable = &billing.Failure{Class: billing.Unavailable, Reason: billing.ReasonInternal, Message: "a row that cannot be read"}

func TestMessageOfUnreadableRowIsDeadLetterAtLastReceive(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.OpenRun(runID, []string{"org-1"})
	f.Exec(`UPDATE reconciliation_items SET subscription_id = 'sub_named'`)
	broken := &hooks{Before: func(_ context.Context, call string) error {
		if call == "Items" || call == "Records" {
			return unreadable
		}
		return nil
	}}
	f.wantResult(f.deliver(f.Reconciler(broken), runID, "org-1")["org-1"], pipeline.Redeliver, billing.ReasonInternal)
	f.wantItem("org-1", billing.OutcomePending, billing.ReasonNotDecided)
	result := f.deliverAs(t.Context(), f.Reconciler(broken), runID, true, "org-1")["org-1"]
	f.wantResult(result, pipeline.DeadLetter, billing.ReasonInternal)
	if item := f.wantItem("org-1", billing.OutcomeError, billing.ReasonInternal); item.SubscriptionID != "sub_named" {
		t.Errorf("the item lost its subscription's id: %+v", item)
	}
}

// The message may have an item that could not be read.
func TestMessageWithoutKnownItemIsReturnedIfBatchCannotBeLoaded(t *testing.T) {
	f := newFixture(t)
	f.OpenRun(runID, nil)
	broken := &hooks{Before: func(_ context.Context, call string) error {
		if call == "Items" {
			return unreadable
		}
		return nil
	}}
	result := f.deliverAs(t.Context(), f.Reconciler(broken), runID, true, "org-1")["org-1"]
	f.wantResult(result, pipeline.Redeliver, billing.ReasonInternal)
}

func TestErrorAtLastReceiveIsRecordedEvenIfTimeIsUp(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.OpenRun(runID, []string{"org-1"})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.Stripe.After(func(*http.Request) { cancel() })
	result := f.deliverAs(ctx, f.Reconciler(nil), runID, true, "org-1")["org-1"]
	f.wantResult(result, pipeline.DeadLetter, billing.ReasonOutOfTime)
	f.wantItem("org-1", billing.OutcomeError, billing.ReasonOutOfTime)
}

func TestBooleanValuesAboveOneAreTrue(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("cancels")
	f.Subscriber("deleted")
	f.OpenRun(runID, []string{"cancels", "deleted"})
	f.Exec(`UPDATE subscriptions SET cancel_at_period_end = 2 WHERE org_id = 'cancels'`)
	f.Exec(`UPDATE organizations SET is_deleted = 5 WHERE id = 'deleted'`)
	f.deliver(f.Reconciler(nil), runID, "cancels", "deleted")
	item := f.wantItem("cancels", billing.OutcomeSynced, billing.ReasonRepaired)
	if want := []billing.Change{{Field: billing.FieldCancelAtPeriodEnd, From: true, To: false}}; !cmp.Equal(want, item.Changes) {
		t.Errorf("the changes are %+v, want %+v", item.Changes, want)
	}
	f.wantItem("deleted", billing.OutcomeSkipped, billing.ReasonOrganizationDeleted)
}

func TestRegainedAccessIsRestoredIfWriteAnswerIsLost(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1", pastDue, func(s *stripetest.Subscription) { s.Status = "unpaid" })
	f.OpenRun(runID, []string{"org-1"})
	reactivate := once(func() { f.Sub("org-1") })
	applied := false
	r := f.Reconciler(&hooks{After: func(_ context.Context, call string) error {
		if call != "commit Apply" || applied {
			return nil
		}
		applied = true
		reactivate() // before the retry reads Stripe
		return &billing.Failure{Class: billing.Unavailable, Reason: billing.ReasonDatabaseUnavailable, Message: "the response was lost"}
	}})
	f.wantResult(f.deliver(r, runID, "org-1")["org-1"], pipeline.Acknowledge, "")
	if status := mysqltest.Value[string](t, f.DB, `SELECT status FROM subscriptions`); status != "active" {
		t.Errorf("the status is %s, want active", status)
	}
	item := f.wantItem("org-1", billing.OutcomeSynced, billing.ReasonRepaired)
	if len(item.Changes) != 4 {
		t.Errorf("the item records %+v, want two changes and their reversal", item.Changes)
	}
}

// A batch may have messages of two runs. No message may be acknowledged unless its run is stopped.
func TestRunFatalFailureStopsEveryRunOfTheBatch(t *testing.T) {
	f := newFixture(t)
	ids := numbered(3)
	for _, id := range ids {
		f.Subscriber(id)
	}
	f.OpenRun(runID, ids)
	f.OpenRun("run-2", ids)
	f.Stripe.AddFault(stripetest.Fault{Kind: stripetest.Unauthorized})
	work := map[billing.Work]bool{}
	for _, id := range ids {
		work[billing.Work{RunID: runID, OrgID: id}] = false
		work[billing.Work{RunID: "run-2", OrgID: id}] = false
	}
	r := f.Reconciler(nil)
	r.Parallel = 1
	for w, result := range r.Reconcile(t.Context(), work) {
		if result.Disposition != pipeline.Acknowledge {
			t.Errorf("%+v: %+v", w, result)
		}
	}
	for _, id := range []string{runID, "run-2"} {
		if got := f.Status(id); got != billing.RunStopped {
			t.Errorf("run %s is %s, want stopped", id, got)
		}
	}
}

// A closed run can be neither stopped nor resumed, so its redriven messages must not be lost.
func TestRunFatalFailureReturnsRedrivenMessages(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.OpenRun(runID, []string{"org-1"})
	f.decide(runID, billing.OutcomeError, "org-1")
	if err := f.Aggregator(nil).Progress(t.Context(), runID); err != nil {
		t.Fatal(err)
	}
	f.Stripe.AddFault(stripetest.Fault{Kind: stripetest.Unauthorized})
	f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.Redeliver, billing.ReasonStripeUnauthorized)
	f.wantResult(f.deliverAs(t.Context(), f.Reconciler(nil), runID, true, "org-1")["org-1"], pipeline.DeadLetter, billing.ReasonStripeUnauthorized)
	if got := f.Status(runID); got != billing.RunCompletedWithErrors {
		t.Errorf("the run is %s", got)
	}
}

// A resumed run sends messages for pending items only. So messages that were redriven go back to the dead-letter queue
// if the run stops.
func TestRedrivenMessagesAreDeadLettersAgainIfTheirRunStops(t *testing.T) {
	refuseKey := func(f *fixture) { f.Stripe.AddFault(stripetest.Fault{Kind: stripetest.Unauthorized}) }
	for name, test := range map[string]struct {
		stop   func(f *fixture)
		dryRun bool
		want   pipeline.Disposition
	}{
		"stopped before": {stop: func(f *fixture) {
			if _, err := f.Store.StopRun(f.Context(), runID, billing.ReasonWrongAccount, "wrong", start); err != nil {
				f.Fatal(err)
			}
		}, want: pipeline.DeadLetter},
		"stopped by its batch":                   {stop: refuseKey, want: pipeline.DeadLetter},
		"stopped by a batch that was not loaded": {stop: func(f *fixture) { f.Exec(`ALTER TABLE organizations DROP COLUMN trial_ends_at`) }, want: pipeline.DeadLetter},
		"a dry run, which has no dead letters":   {stop: refuseKey, dryRun: true, want: pipeline.Acknowledge},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			ids := numbered(4)
			for _, id := range ids {
				f.Subscriber(id)
			}
			f.OpenRun(runID, ids, func(r *billing.Run) { r.DryRun = test.dryRun })
			redriven := ids[:2]
			f.Exec(`UPDATE reconciliation_items SET outcome = 'error', reason = 'withheld', error = 'the limit is reached' WHERE org_id IN (?,?)`, redriven[0], redriven[1])
			test.stop(f)
			r := f.Reconciler(nil)
			r.Parallel = 1
			results := f.deliver(r, runID, ids...)
			if got := f.Status(runID); got != billing.RunStopped {
				t.Fatalf("the run is %s", got)
			}
			for _, id := range redriven {
				f.wantItem(id, billing.OutcomeError, billing.ReasonWithheld)
				if test.want == pipeline.Acknowledge {
					if results[id].Disposition != test.want {
						t.Errorf("%s: %+v", id, results[id])
					}
					continue
				}
				f.wantResult(results[id], test.want, billing.ReasonWithheld)
				if got := results[id].Failure; got == nil || got.Error() != "the limit is reached" {
					t.Errorf("the dead letter of %s has the error %v, want that of its item", id, got)
				}
			}
			for _, id := range ids[2:] {
				if results[id].Disposition != pipeline.Acknowledge {
					t.Errorf("the message of %s, which is pending, has the result %+v", id, results[id])
				}
			}
		})
	}
}

// The item may be in error or pending, so its message is neither deleted nor dead-lettered.
func TestUnreadableItemIsReturnedWhenItsRunStops(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.OpenRun(runID, []string{"org-1"})
	refused := &billing.Failure{Class: billing.RunFatal, Reason: billing.ReasonDatabaseLogin, Message: "no grant"}
	r := f.Reconciler(&hooks{Before: func(_ context.Context, call string) error {
		if call == "Items" {
			return refused
		}
		return nil
	}})
	for range 2 { // the first batch stops the run, the second finds it stopped
		f.wantResult(f.deliverAs(t.Context(), r, runID, true, "org-1")["org-1"], pipeline.Redeliver, billing.ReasonDatabaseLogin)
		if got := f.Status(runID); got != billing.RunStopped {
			t.Errorf("the run is %s", got)
		}
	}
}

func TestTransientFailuresAreRetriedInPlace(t *testing.T) {
	for name, fault := range map[string]stripetest.Fault{
		"429": {Kind: stripetest.RateLimited}, "lock timeout": {Kind: stripetest.LockTimeout}, "500": {Kind: stripetest.InternalError},
		"503": {Kind: stripetest.Unavailable}, "cut": {Kind: stripetest.CutConnection}, "truncated": {Kind: stripetest.TruncatedBody},
		"a page of HTML": {Kind: stripetest.NotJSON}, "no answer": {Kind: stripetest.Hang},
	} {
		t.Run(name, func(t *testing.T) {
			reason := billing.ReasonStripeUnavailable
			if fault.Kind == stripetest.RateLimited {
				reason = billing.ReasonStripeThrottled
			}
			f := newFixture(t)
			f.Subscriber("org-1", price("price_max"))
			f.OpenRun(runID, []string{"org-1"})
			shortTimeout := func(c *stripesource.Config) { c.Timeout = 400 * time.Millisecond }
			reconciler := func() *pipeline.Reconciler {
				r := f.Reconciler(nil)
				if fault.Kind == stripetest.Hang {
					r.Stripe = f.StripeClient(shortTimeout)
				}
				return r
			}

			fault.Times = 3 // more often than the worker retries
			f.Stripe.AddFault(fault)
			f.wantResult(f.deliver(reconciler(), runID, "org-1")["org-1"], pipeline.Redeliver, reason)
			f.wantItem("org-1", billing.OutcomePending, billing.ReasonNotDecided)
			if n := f.Stripe.Requests().Total(); n != 3 {
				t.Errorf("%d requests were sent, want 3", n)
			}

			f.Stripe.AddFault(fault)
			f.wantResult(f.deliverAs(t.Context(), reconciler(), runID, true, "org-1")["org-1"], pipeline.DeadLetter, reason)
			f.wantItem("org-1", billing.OutcomeError, reason)

			fault.Times = 2
			f.Stripe.AddFault(fault)
			f.wantResult(f.deliver(reconciler(), runID, "org-1")["org-1"], pipeline.Acknowledge, "")
			f.wantItem("org-1", billing.OutcomeSynced, billing.ReasonRepaired)
		})
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.OpenRun(runID, []string{"org-1"})
	f.Stripe.AddFault(stripetest.Fault{Kind: stripetest.RateLimited, Times: 1, RetryAfter: time.Second})
	began := time.Now()
	f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.Acknowledge, "")
	if waited := time.Since(began); waited < time.Second {
		t.Errorf("the worker waited %v, want at least 1s", waited)
	}
}

func TestRetryAfterBeyondDeadlineIsNotWaitedFor(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1")
	f.OpenRun(runID, []string{"org-1"})
	f.Stripe.AddFault(stripetest.Fault{Kind: stripetest.RateLimited, RetryAfter: time.Minute})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	began := time.Now()
	f.wantResult(f.deliverAs(ctx, f.Reconciler(nil), runID, false, "org-1")["org-1"], pipeline.Redeliver, billing.ReasonStripeThrottled)
	if waited := time.Since(began); waited > 5*time.Second {
		t.Errorf("the worker waited %v, want less than 5s", waited)
	}
}

func TestErrorsOfDryRunAreAcknowledged(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1", price("price_of_nothing"))
	f.Subscriber("org-2")
	f.OpenRun(runID, []string{"org-1", "org-2"}, testworld.DryRun)
	f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.Acknowledge, billing.ReasonTierUnresolved)
	f.wantItem("org-1", billing.OutcomeError, billing.ReasonTierUnresolved)
	f.Stripe.AddFault(stripetest.Fault{Kind: stripetest.Unavailable})
	f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-2")["org-2"], pipeline.Redeliver, billing.ReasonStripeUnavailable)
	f.wantResult(f.deliverAs(t.Context(), f.Reconciler(nil), runID, true, "org-2")["org-2"], pipeline.Acknowledge, billing.ReasonStripeUnavailable)
	f.wantItem("org-2", billing.OutcomeError, billing.ReasonStripeUnavailable)
}

func TestUnavailableDatabaseReturnsTheBatch(t *testing.T) {
	f := newFixture(t)
	ids := []string{"org-1", "org-2"}
	for _, id := range ids {
		f.Subscriber(id, price("price_max"))
	}
	f.OpenRun(runID, ids)
	for name, firstFailing := range map[string]string{"from the start": "Runs", "before the write": "begin Apply"} {
		t.Run(name, func(t *testing.T) {
			r := f.Reconciler(nil)
			r.Store = f.StoreBehind(testworld.FailingFrom(firstFailing, driver.ErrBadConn))
			for _, last := range []bool{false, true} {
				for _, result := range f.deliverAs(t.Context(), r, runID, last, ids...) {
					f.wantResult(result, pipeline.Redeliver, billing.ReasonDatabaseUnavailable)
				}
			}
			for _, id := range ids {
				f.wantItem(id, billing.OutcomePending, billing.ReasonNotDecided)
			}
		})
	}
}

func TestLostConnectionIsRetried(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1", price("price_max"))
	f.OpenRun(runID, []string{"org-1"})
	id := 0
	lose := once(func() { f.Exec(fmt.Sprintf(`KILL CONNECTION %d`, id)) })
	pool := f.DB.Intercepted(t, (&hooks{Before: func(_ context.Context, call string) error {
		if call == "begin Apply" {
			lose()
		}
		return nil
	}}).Do)
	pool.SetMaxOpenConns(1)
	if err := pool.QueryRowContext(t.Context(), `SELECT CONNECTION_ID()`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	r := f.Reconciler(nil)
	r.Store = mysqlstore.New(pool)
	f.wantResult(f.deliver(r, runID, "org-1")["org-1"], pipeline.Acknowledge, "")
	f.wantItem("org-1", billing.OutcomeSynced, billing.ReasonRepaired)
}

// lockedByAnother reports whether another transaction has locked the organization's row.
func lockedByAnother(ctx context.Context, db *sql.DB, id string) bool {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return false
	}
	defer tx.Rollback()
	_, err = tx.ExecContext(ctx, `SELECT id FROM organizations WHERE id = ? FOR UPDATE NOWAIT`, id)
	return err != nil
}

func TestDeadlockIsRetried(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1", price("price_max"))
	f.OpenRun(runID, []string{"org-1"})
	f.Exec(`CREATE TABLE heavy (n INT PRIMARY KEY)`)

	// The other transaction locks the item. It has written many rows, so MySQL rolls back the worker's transaction.
	tx, err := f.DB.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	for _, statement := range []string{
		`INSERT INTO heavy VALUES (1)` + strings.Join(slices.Collect(func(yield func(string) bool) {
			for n := 2; n < 200; n++ {
				if !yield(fmt.Sprintf(",(%d)", n)) {
					return
				}
			}
		}), ""),
		`SELECT org_id FROM reconciliation_items WHERE run_key = (SELECT run_key FROM reconciliation_runs WHERE id = 'run-1') FOR UPDATE`,
	} {
		if _, err := tx.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	applies := 0
	r := f.Reconciler(&hooks{Before: func(_ context.Context, call string) error {
		if call == "begin Apply" {
			applies++
		}
		return nil
	}})
	done := make(chan pipeline.Result)
	go func() { done <- f.deliver(r, runID, "org-1")["org-1"] }()
	for !lockedByAnother(t.Context(), f.DB.DB, "org-1") && t.Context().Err() == nil {
		runtime.Gosched()
	}
	if _, err := tx.ExecContext(t.Context(), `SELECT id FROM organizations WHERE id = 'org-1' FOR UPDATE`); err != nil {
		t.Fatalf("MySQL rolled back the test's transaction, not the worker's: %v", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	f.wantResult(<-done, pipeline.Acknowledge, "")
	f.wantItem("org-1", billing.OutcomeSynced, billing.ReasonRepaired)
	if applies < 2 {
		t.Errorf("the worker tried %d times, want at least twice", applies)
	}
}

func TestOpenCircuitBreakerReturnsTheRestWithoutRequests(t *testing.T) {
	f := newFixture(t)
	ids := numbered(10)
	for _, id := range ids {
		f.Subscriber(id)
	}
	f.Org("org-free", withoutCustomer, free)
	f.OpenRun(runID, append(ids, "org-free"))
	r := f.Reconciler(nil)
	r.Parallel = 1
	deliver := func(wantRequests int, orgs ...string) map[string]pipeline.Result {
		t.Helper()
		f.Stripe.ResetCounts()
		results := f.deliver(r, runID, orgs...)
		if n := f.Stripe.Requests().Total(); n != wantRequests {
			t.Errorf("%d requests were sent, want %d", n, wantRequests)
		}
		return results
	}

	f.Stripe.AddFault(stripetest.Fault{Kind: stripetest.Unavailable})
	for _, result := range deliver(3+1+1, ids...) { // the first organization is tried three times, as usual
		f.wantResult(result, pipeline.Redeliver, billing.ReasonStripeUnavailable)
	}
	for range 2 { // each batch sends one probe
		for _, result := range deliver(1, ids...) {
			f.wantResult(result, pipeline.Redeliver, billing.ReasonStripeUnavailable)
		}
	}
	// An organization without Stripe ids needs no request, so it does not close the circuit breaker.
	f.wantResult(deliver(0, "org-free")["org-free"], pipeline.Acknowledge, "")
	f.Exec(`UPDATE reconciliation_items SET outcome = 'pending' WHERE org_id = 'org-free'`)
	deliver(1, append(ids, "org-free")...)

	f.Stripe.ClearFaults()
	for _, result := range deliver(10, ids...) {
		f.wantResult(result, pipeline.Acknowledge, "")
	}
}

// The circuit breaker opens after failures of three organizations, not after three failures of one.
func TestCircuitBreakerCountsRepeatedFailuresOfOneOrganizationOnce(t *testing.T) {
	f := newFixture(t)
	bad := []string{"bad-1", "bad-2", "bad-3"}
	for _, id := range bad {
		f.Subscriber(id)
		f.Proxy.Break("/v1/subscriptions/sub_" + id)
	}
	f.OpenRun(runID, bad)
	r := f.Reconciler(nil)
	r.Parallel = 1
	for range 5 {
		f.deliver(r, runID, bad[0])
	}
	f.Proxy.Taken()
	f.deliver(r, runID, bad[1:]...)
	if n := len(f.Proxy.Taken()); n != 2 {
		t.Errorf("%d requests were sent for two other organizations, want 2: the circuit breaker is open", n)
	}
}

func TestUnavailableObjectDoesNotBlockOtherOrganizations(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-bad")
	f.Proxy.Break("/v1/subscriptions/sub_org-bad")
	ids := numbered(12)
	for _, id := range ids {
		f.Subscriber(id)
	}
	f.OpenRun(runID, append(ids, "org-bad"))
	r := f.Reconciler(nil)
	r.Parallel = 1
	for range 5 { // in batches without other organizations
		f.wantResult(f.deliver(r, runID, "org-bad")["org-bad"], pipeline.Redeliver, billing.ReasonStripeUnavailable)
	}
	for batch := range slices.Chunk(ids, 3) {
		results := f.deliver(r, runID, append(batch, "org-bad")...)
		f.wantResult(results["org-bad"], pipeline.Redeliver, billing.ReasonStripeUnavailable)
		for _, id := range batch {
			f.wantResult(results[id], pipeline.Acknowledge, "")
		}
	}
}

func TestOrganizationsWithoutTimeLeftAreReturnedUnstarted(t *testing.T) {
	f := newFixture(t)
	ids := numbered(8)
	for _, id := range ids {
		f.Subscriber(id, price("price_max"))
	}
	f.OpenRun(runID, ids)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var reads atomic.Int32
	f.Stripe.After(func(request *http.Request) {
		if reads.Add(1) == 3 {
			<-request.Context().Done() // until the client ends the request, because its time is over
		}
	})
	r := f.Reconciler(nil)
	r.Parallel = 1
	results := f.deliverAs(ctx, r, runID, false, ids...)
	if ctx.Err() != nil {
		t.Error("the worker returned after its deadline")
	}
	if n := reads.Load(); n != 3 {
		t.Errorf("Stripe was read %d times, want 3", n)
	}
	outcomes := map[pipeline.Disposition]int{}
	for id, result := range results {
		outcomes[result.Disposition]++
		if result.Disposition == pipeline.Redeliver {
			f.wantResult(result, pipeline.Redeliver, billing.ReasonOutOfTime)
			f.wantItem(id, billing.OutcomePending, billing.ReasonNotDecided)
		}
	}
	if diff := cmp.Diff(map[pipeline.Disposition]int{pipeline.Acknowledge: 2, pipeline.Redeliver: 6}, outcomes); diff != "" {
		t.Error(diff)
	}
	f.Stripe.After(nil)
	for _, result := range f.deliver(r, runID, ids...) {
		f.wantResult(result, pipeline.Acknowledge, "")
	}
}

func TestDowngradesBeyondTheLimitAreWithheld(t *testing.T) {
	f := newFixture(t)
	ids := numbered(5)
	for _, id := range ids {
		f.Subscriber(id, canceled)
	}
	f.Subscriber("org-upgraded", price("price_max"))
	f.OpenRun(runID, append(ids, "org-upgraded"), func(r *billing.Run) { r.DowngradeLimit = 2 })
	before := f.Cells()
	results := f.deliver(f.Reconciler(nil), runID, append(ids, "org-upgraded")...)
	changed := f.Cells().ChangedSince(before)
	f.wantResult(results["org-upgraded"], pipeline.Acknowledge, "")
	var withheld []string
	for _, id := range ids {
		item := f.Item(runID, id)
		if len(fieldsOf(item.Changes)) != 6 {
			t.Errorf("the item of %s lists changes of %v, want 6 fields", id, fieldsOf(item.Changes))
		}
		if results[id].Disposition == pipeline.Acknowledge {
			f.wantItem(id, billing.OutcomeSynced, billing.ReasonRepaired)
			continue
		}
		withheld = append(withheld, id)
		f.wantResult(results[id], pipeline.DeadLetter, billing.ReasonWithheld)
		f.wantItem(id, billing.OutcomeError, billing.ReasonWithheld)
		if len(changed[id]) > 0 {
			t.Errorf("the worker wrote %v of %s", changed[id], id)
		}
	}
	if n := f.Run(runID).Downgrades; len(withheld) != 3 || n != 2 {
		t.Errorf("%d are withheld, want 3; the run counts %d downgrades, want 2", len(withheld), n)
	}

	f.Exec(`UPDATE reconciliation_runs SET downgrade_limit = 5 WHERE id = ?`, runID) // approved
	for _, result := range f.deliver(f.Reconciler(nil), runID, withheld...) {
		f.wantResult(result, pipeline.Acknowledge, "")
	}
	for _, id := range ids {
		f.wantItem(id, billing.OutcomeSynced, billing.ReasonRepaired)
	}
	if n := f.Run(runID).Downgrades; n != 5 {
		t.Errorf("the run counts %d downgrades, want 5", n)
	}
}

func TestWorkerKilledAnywhereFinishesOnRedelivery(t *testing.T) {
	f := newFixture(t)
	var chosen []situation
	for _, s := range situations {
		if slices.Contains([]string{"in-sync", "upgraded", "canceled", "row-inserted", "replaced", "missing", "of-another-row", "no-identity"}, s.id) {
			chosen = append(chosen, s)
		}
	}
	type state struct {
		Items      map[string]billing.Item
		Rows       cells
		Downgrades int
	}
	// stateAfter calls fn on freshly seeded tables and returns the state after that.
	stateAfter := func(fn func(ids []string)) state {
		f.Exec(`DELETE FROM reconciliation_items`)
		f.EndProcesses()
		f.Exec(`DELETE FROM reconciliation_runs`)
		f.Exec(`DELETE FROM subscriptions`)
		f.Exec(`DELETE FROM organizations`)
		ids := f.seed(chosen)
		f.OpenRun(runID, ids)
		fn(ids)
		return state{f.items(), f.Cells().WithoutTimestamps(), f.Run(runID).Downgrades}
	}
	undisturbed := stateAfter(func(ids []string) { f.deliver(f.Reconciler(nil), runID, ids...) })

	testworld.EveryDeath(t, func(t *testing.T, k *testworld.Killer) {
		got := stateAfter(func(ids []string) {
			killed := f.Reconciler(k.Hooks())
			killed.Parallel, killed.Retry.Tries = 1, 1
			f.deliver(killed, runID, ids...) // a killed worker sends no answer, so the messages come again
			f.deliver(f.Reconciler(nil), runID, ids...)
		})
		if diff := cmp.Diff(undisturbed, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestChangesHaveTheFormOfTheContract(t *testing.T) {
	f := newFixture(t)
	f.Org("org-1")
	f.Row("org-1", func(s *appschema.Subscription) { s.CurrentPeriodEnd, s.CancelAtPeriodEnd = nil, nil })
	f.Sub("org-1", price("price_max"))
	f.OpenRun(runID, []string{"org-1"})
	f.deliver(f.Reconciler(nil), runID, "org-1")
	raw := mysqltest.Value[string](t, f.DB, `SELECT changes FROM reconciliation_items`)
	var changes []map[string]any
	if err := json.Unmarshal([]byte(raw), &changes); err != nil {
		t.Fatal(err)
	}
	byField := map[any]map[string]any{}
	for _, c := range changes {
		if diff := cmp.Diff([]string{"field", "from", "to"}, slices.Sorted(maps.Keys(c))); diff != "" {
			t.Error(diff)
		}
		byField[c["field"]] = c
	}
	want := map[any]map[string]any{}
	for _, c := range []map[string]any{
		{"field": "subscriptions.stripe_price_id", "from": "price_pro", "to": "price_max"},
		{"field": "subscriptions.plan_tier", "from": "pro", "to": "max"},
		{"field": "organizations.subscription_tier", "from": "pro", "to": "max"},
		{"field": "subscriptions.current_period_end", "from": nil, "to": "2026-12-10T09:30:00Z"},
		{"field": "subscriptions.cancel_at_period_end", "from": nil, "to": false},
	} {
		want[c["field"]] = c
	}
	if diff := cmp.Diff(want, byField); diff != "" {
		t.Error(diff)
	}
}
