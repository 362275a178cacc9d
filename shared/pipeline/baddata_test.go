package pipeline_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// override makes Stripe answer with these values in place of the subscription's.
func override(members map[string]any) func(*stripetest.Subscription) {
	return func(s *stripetest.Subscription) { s.Override = members }
}

func TestBadStripeDataIsErrorOfItsOrganizationOnly(t *testing.T) {
	year2038 := time.Date(2038, time.January, 19, 3, 14, 8, 0, time.UTC).Unix()
	bad := map[string]map[string]any{
		"no items":                    {"items": map[string]any{"object": "list", "data": []any{}}},
		"null items":                  {"items": nil},
		"null price":                  {"items": map[string]any{"object": "list", "data": []any{map[string]any{"id": "si_1", "price": nil}}}},
		"zero created":                {"created": 0},
		"zero period start":           {"current_period_start": 0},
		"zero period end":             {"current_period_end": 0},
		"null period end":             {"current_period_end": nil},
		"negative period start":       {"current_period_start": -1},
		"negative ended at":           {"ended_at": -86400},
		"zero canceled at":            {"canceled_at": 0},
		"period end after TIMESTAMP":  {"current_period_end": year2038},
		"trial end in the year 2100":  {"trial_end": time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).Unix()},
		"canceled at in milliseconds": {"canceled_at": start.UnixMilli()},
		"dates as text":               {"current_period_end": "2026-12-10"},
		"empty id":                    {"id": ""},
		"null id":                     {"id": nil},
		"id of another":               {"id": "sub_other"},
		"empty customer":              {"customer": ""},
		"null customer":               {"customer": nil},
		"status as a number":          {"status": 7},
	}
	f := newFixture(t)
	var orgs []string
	for i, name := range names(bad) {
		id := fmt.Sprintf("bad-%02d", i)
		f.Subscriber(id, override(bad[name]))
		orgs = append(orgs, id)
	}
	good := []string{"good-1", "good-2"}
	for _, id := range good {
		f.Subscriber(id, price("price_max"))
	}
	f.OpenRun(runID, append(slices.Clone(orgs), good...))
	before := f.Cells()
	results := f.deliver(f.Reconciler(nil), runID, append(slices.Clone(orgs), good...)...)
	changed := f.Cells().ChangedSince(before)
	for i, name := range names(bad) {
		t.Run(name, func(t *testing.T) {
			item, result := f.Item(runID, orgs[i]), results[orgs[i]]
			if item.Outcome != billing.OutcomeError || item.Reason != billing.ReasonInvalidSubscription || item.OrgID != orgs[i] {
				t.Errorf("the item is %s %q: %s", item.Outcome, item.Reason, item.Error)
			}
			if !strings.Contains(item.Error, "nothing was written") || strings.Contains(item.Error, "\n") {
				t.Errorf("the error is %q", item.Error)
			}
			if result.Disposition != pipeline.DeadLetter {
				t.Errorf("the disposition is %d, want a dead letter", result.Disposition)
			}
			if len(changed[orgs[i]]) > 0 {
				t.Errorf("the worker wrote %v", changed[orgs[i]])
			}
		})
	}
	for _, id := range good {
		f.wantItem(id, billing.OutcomeSynced, billing.ReasonRepaired)
	}
}

func TestRowRefusedByMySQLIsErrorOfItsOrganizationOnly(t *testing.T) {
	f := newFixture(t)
	ids := []string{"good-1", "refused", "good-2"}
	for _, id := range ids {
		f.Subscriber(id, price("price_max"))
	}
	f.Exec(`CREATE TRIGGER veto BEFORE UPDATE ON subscriptions FOR EACH ROW
		BEGIN IF NEW.org_id = 'refused' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'frozen'; END IF; END`)
	f.OpenRun(runID, ids)
	before := f.Cells()
	results := f.deliver(f.Reconciler(nil), runID, ids...)
	f.wantResult(results["refused"], pipeline.DeadLetter, billing.ReasonDatabaseRefused)
	item := f.wantItem("refused", billing.OutcomeError, billing.ReasonDatabaseRefused)
	if !strings.Contains(item.Error, "subscriptions") || !strings.Contains(item.Error, "frozen") {
		t.Errorf("the error is %q", item.Error)
	}
	if changed := f.Cells().ChangedSince(before); len(changed["refused"]) > 0 {
		t.Errorf("the worker wrote %v", changed["refused"])
	}
	for _, id := range []string{"good-1", "good-2"} {
		f.wantItem(id, billing.OutcomeSynced, billing.ReasonRepaired)
	}
	f.Exec(`DROP TRIGGER veto`)
	f.wantResult(f.deliver(f.Reconciler(nil), runID, "refused")["refused"], pipeline.Acknowledge, "")
	f.wantItem("refused", billing.OutcomeSynced, billing.ReasonRepaired)
}

func names[V any](m map[string]V) []string {
	var all []string
	for name := range m {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

func TestMetadataIsReadRegardlessOfCaseAndSpaces(t *testing.T) {
	f := newFixture(t)
	f.Org("typed", func(o *appschema.Organization) { o.SubscriptionTier = "starter" })
	f.Row("typed", func(s *appschema.Subscription) { s.StripePriceID, s.PlanTier = new("price_of_nothing"), "starter" })
	f.Sub("typed", price("price_of_nothing"), func(s *stripetest.Subscription) {
		s.Metadata = map[string]string{"tier": " Max\t", "orgId": " TYPED "}
	})
	f.OpenRun(runID, []string{"typed"})
	f.deliver(f.Reconciler(nil), runID, "typed")
	item := f.wantItem("typed", billing.OutcomeSynced, billing.ReasonRepaired)
	if want := []string{billing.FieldOrgTier, billing.FieldPlanTier}; !slices.Equal(fieldsOf(item.Changes), want) {
		t.Errorf("the changed fields are %v, want %v", fieldsOf(item.Changes), want)
	}
}

// With every strategy, in any order and in batches of any size, each organization has the same outcome.
func TestOrderOfOrganizationsDoesNotMatter(t *testing.T) {
	for _, strategy := range billing.Strategies() {
		t.Run(string(strategy), func(t *testing.T) {
			var firstItems map[string]billing.Item
			var firstRows cells
			for seed := range uint64(4) {
				items, rows := reconcileShuffled(t, strategy, seed)
				if firstItems == nil {
					firstItems, firstRows = items, rows
					continue
				}
				if diff := cmp.Diff(firstItems, items); diff != "" {
					t.Errorf("seed %d: items differ\n%s", seed, diff)
				}
				if diff := cmp.Diff(firstRows, rows); diff != "" {
					t.Errorf("seed %d: rows differ\n%s", seed, diff)
				}
			}
		})
	}
}

// reconcileShuffled reconciles every situation in the seed's order and batches. It returns the items and the
// application's tables. Two situations share a customer: an even seed has them in one order, an odd seed in the other.
func reconcileShuffled(t *testing.T, strategy billing.Strategy, seed uint64) (map[string]billing.Item, cells) {
	t.Helper()
	f := newFixture(t)
	ids := f.seed(situations)
	f.OpenRun(runID, ids)
	if strategy == billing.StrategySweep {
		f.sweepInto()
	}
	random := rand.New(rand.NewPCG(seed, 0))
	random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	a, b := slices.Index(ids, "shared-canceled"), slices.Index(ids, "shared-free")
	if (a < b) != (seed%2 == 0) {
		ids[a], ids[b] = ids[b], ids[a]
	}
	r := f.Reconciler(nil)
	for rest := ids; len(rest) > 0; {
		n := min(1+random.IntN(12), len(rest))
		f.deliver(r, runID, rest[:n]...)
		rest = rest[n:]
	}
	return f.items(), f.Cells().WithoutTimestamps()
}

// A run checks the tables when it starts. Here values become NULL after that.
func TestNullInDatabaseIsErrorOfItsOrganizationOnly(t *testing.T) {
	f := newFixture(t)
	nulls := []string{"organizations.is_deleted", "organizations.subscription_tier", "organizations.updated_at", "subscriptions.status", "subscriptions.created_at"}
	for i := range nulls {
		id := fmt.Sprintf("bad-%02d", i)
		f.Subscriber(id, price("price_max"))
	}
	for _, id := range []string{"good-1", "good-2"} {
		f.Subscriber(id, price("price_max"))
	}
	e := f.Enumerator(nil)
	e.Work = hookedSender{e.Work, once(func() {
		f.Exec(`ALTER TABLE organizations MODIFY is_deleted INT NULL, MODIFY updated_at TIMESTAMP NULL, MODIFY subscription_tier VARCHAR(10) NULL`)
		f.Exec(`ALTER TABLE subscriptions MODIFY status VARCHAR(20) NULL, MODIFY created_at TIMESTAMP NULL`)
		for i, field := range nulls {
			table, name, _ := strings.Cut(field, ".")
			key := map[string]string{"organizations": "id", "subscriptions": "org_id"}[table]
			f.Exec(fmt.Sprintf(`UPDATE %s SET %s = NULL WHERE %s = 'bad-%02d'`, table, name, key, i))
		}
	})}
	run := f.enumerate(e, scheduled)
	if run.Enqueued != len(nulls)+2 {
		t.Fatalf("%+v", run)
	}
	before := f.Cells()
	results := f.deliver(f.Reconciler(nil), run.RunID, f.ItemIDs(run.RunID)...)
	changed := f.Cells().ChangedSince(before)
	for i, field := range nulls {
		id := fmt.Sprintf("bad-%02d", i)
		f.wantResult(results[id], pipeline.DeadLetter, billing.ReasonInvalidRecord)
		if item := f.Item(run.RunID, id); item.Outcome != billing.OutcomeError || item.Reason != billing.ReasonInvalidRecord || !strings.Contains(item.Error, field) || len(changed[id]) > 0 {
			t.Errorf("%s: %+v, the worker wrote %v", field, item, changed[id])
		}
	}
	for _, id := range []string{"good-1", "good-2"} {
		if item := f.Item(run.RunID, id); item.Outcome != billing.OutcomeSynced || len(changed[id]) == 0 {
			t.Errorf("%s: %+v", id, item)
		}
	}
}

// hookedSender calls before each time before it sends messages.
type hookedSender struct {
	pipeline.WorkSender

	before func()
}

func (s hookedSender) SendWork(ctx context.Context, runID string, orgIDs []string) error {
	s.before()
	return s.WorkSender.SendWork(ctx, runID, orgIDs)
}
