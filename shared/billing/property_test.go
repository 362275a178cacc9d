package billing_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// situation is all that a plan is made from.
type situation struct {
	rules  billing.Rules
	truth  billing.Truth
	record billing.Record
}

func (s situation) plan() (billing.Plan, error) { return s.rules.Plan(s.truth, s.record) }

// The pools are small, so that truth and record, organizations and subscriptions often meet.
var (
	subscriptionIDs = []string{"sub_1", "sub_2", "sub_3", "sub_4"}
	statuses        = []billing.Status{
		"active", "trialing", "past_due", "unpaid", "paused", "incomplete", "canceled", "incomplete_expired",
		"active", "trialing", "past_due", "canceled", "suspended",
	}
	prices   = []string{"price_starter", "price_pro", "price_max", "price_pro", "price_x"}
	tierText = []string{"", "free", "starter", "pro", "max", " Pro ", "FREE", "enterprise"}
	orgIDs   = []string{"", org, " " + strings.ToUpper(org), otherOrg, strings.ToUpper(otherOrg), "nobody"}
	instants = []time.Time{
		created, periodStart, periodEnd, trialEnd, created.Add(300 * time.Millisecond),
		created.In(time.FixedZone("Tokyo", 9*3600)), time.Unix(1, 0), time.Unix(1<<31-1, 0),
	}
)

func optional[T any](g *rapid.Generator[T]) *rapid.Generator[*T] { return rapid.Ptr(g, true) }

func genInstant() *rapid.Generator[time.Time] { return rapid.SampledFrom(instants) }

// genDate is a date of Stripe's: mostly usable, sometimes null, rarely out of range.
func genDate() *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		switch n := rapid.IntRange(0, 29).Draw(t, "kind"); {
		case n == 0:
			return time.Unix(rapid.SampledFrom([]int64{0, -1, 1 << 31, 1 << 37}).Draw(t, "bad"), 0)
		case n < 8:
			return time.Time{}
		default:
			return genInstant().Draw(t, "at")
		}
	})
}

// genItems are one to three, of any price, some of them paid by use.
func genItems() *rapid.Generator[[]billing.SubscriptionItem] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) billing.SubscriptionItem {
		return billing.SubscriptionItem{
			PriceID: rapid.SampledFrom(prices).Draw(t, "price"), ProductID: rapid.SampledFrom([]string{"prod_1", "prod_2"}).Draw(t, "product"),
			Metered: rapid.IntRange(0, 4).Draw(t, "metered") == 0,
		}
	}), 1, 3)
}

func genSubscription(id string) *rapid.Generator[billing.Subscription] {
	return rapid.Custom(func(t *rapid.T) billing.Subscription {
		s := billing.Subscription{
			ID: id, CustomerID: rapid.SampledFrom([]string{"cus_1", "cus_1", "cus_2"}).Draw(t, "customer"),
			Status: rapid.SampledFrom(statuses).Draw(t, "status"), Items: genItems().Draw(t, "items"),
			OrgID: rapid.SampledFrom(orgIDs).Draw(t, "org"), MetadataTier: rapid.SampledFrom(tierText).Draw(t, "tier"),
			Created: genInstant().Draw(t, "created"), CurrentPeriodStart: genInstant().Draw(t, "start"), CurrentPeriodEnd: genInstant().Draw(t, "end"),
			TrialEnd: genDate().Draw(t, "trialEnd"), CanceledAt: genDate().Draw(t, "canceledAt"), EndedAt: genDate().Draw(t, "endedAt"),
			CancelAtPeriodEnd: rapid.Bool().Draw(t, "cancel"),
		}
		if rapid.IntRange(0, 19).Draw(t, "broken") == 0 {
			s.Items, s.CurrentPeriodEnd = nil, time.Time{}
		}
		return s
	})
}

func genTruth() *rapid.Generator[billing.Truth] {
	return rapid.Custom(func(t *rapid.T) billing.Truth {
		truth := billing.Truth{
			ReadAt: readAt, CustomerMissing: rapid.Bool().Draw(t, "customerMissing"),
			Claims: billing.Claims{RecordedBy: map[string][]string{}, Named: map[string]string{}},
		}
		for _, id := range rapid.SliceOfDistinct(rapid.SampledFrom(subscriptionIDs), rapid.ID).Draw(t, "ids") {
			truth.Subscriptions = append(truth.Subscriptions, genSubscription(id).Draw(t, id))
		}
		for _, id := range subscriptionIDs {
			if rapid.IntRange(0, 5).Draw(t, id+" is recorded elsewhere") == 0 {
				truth.Claims.RecordedBy[id] = []string{otherOrg}
			}
		}
		for _, id := range []string{"cus_1", "cus_2"} {
			if rapid.IntRange(0, 3).Draw(t, id+" is shared") == 0 {
				truth.Claims.SharedCustomers = shared(id).SharedCustomers
			}
		}
		maps.Copy(truth.Claims.Named, existing(org).Named)
		if rapid.Bool().Draw(t, "the other organization exists") {
			maps.Copy(truth.Claims.Named, existing(otherOrg).Named)
		}
		return truth
	})
}

func genRow(id string, subscriptionID *string) *rapid.Generator[billing.Row] {
	return rapid.Custom(func(t *rapid.T) billing.Row {
		return billing.Row{
			ID: id, SubscriptionID: subscriptionID,
			CustomerID:         optional(rapid.SampledFrom([]string{"cus_1", "cus_2", ""})).Draw(t, "customer"),
			PriceID:            optional(rapid.SampledFrom(prices)).Draw(t, "price"),
			Tier:               rapid.SampledFrom([]string{"free", "starter", "pro", "max", "gold"}).Draw(t, "tier"),
			Status:             string(rapid.SampledFrom(statuses).Draw(t, "status")),
			CurrentPeriodStart: optional(genInstant()).Draw(t, "start"),
			CurrentPeriodEnd:   optional(genInstant()).Draw(t, "end"),
			TrialEnd:           optional(genInstant()).Draw(t, "trialEnd"),
			CancelAtPeriodEnd:  optional(rapid.Bool()).Draw(t, "cancel"),
			CanceledAt:         optional(genInstant()).Draw(t, "canceledAt"),
			EndedAt:            optional(genInstant()).Draw(t, "endedAt"),
			CreatedAt:          rapid.SampledFrom([]time.Time{created, periodStart}).Draw(t, "createdAt"),
		}
	})
}

// genRecord keeps the tables' rules: row ids are unique, and so are subscription ids.
func genRecord() *rapid.Generator[billing.Record] {
	return rapid.Custom(func(t *rapid.T) billing.Record {
		record := billing.Record{Org: billing.Organization{
			ID: org, CustomerID: optional(rapid.SampledFrom([]string{"cus_1", "cus_2", ""})).Draw(t, "customer"),
			Status:      string(rapid.SampledFrom(statuses).Draw(t, "status")),
			Tier:        rapid.SampledFrom([]string{"free", "starter", "pro", "max", "gold"}).Draw(t, "tier"),
			TrialEndsAt: optional(genInstant()).Draw(t, "trialEndsAt"),
			Deleted:     rapid.IntRange(0, 19).Draw(t, "deleted") == 0,
		}}
		ids := rapid.Permutation(append([]string{"sub_gone"}, subscriptionIDs...)).Draw(t, "recorded")
		rowIDs := rapid.Permutation([]string{"row_1", "row_2", "row_3"}).Draw(t, "rows")
		for i, id := range rowIDs[:rapid.SampledFrom([]int{0, 1, 1, 1, 2, 3}).Draw(t, "n")] {
			subscriptionID := &ids[i]
			if rapid.IntRange(0, 5).Draw(t, "without id") == 0 {
				subscriptionID = nil
			}
			record.Rows = append(record.Rows, genRow(id, subscriptionID).Draw(t, id))
		}
		return record
	})
}

func genSituation() *rapid.Generator[situation] {
	return rapid.Custom(func(t *rapid.T) situation {
		s := situation{
			rules: billing.Rules{
				Prices:      rules.Prices,
				DefaultTier: rapid.SampledFrom([]billing.Tier{"", "starter", "max"}).Draw(t, "default"),
			},
			truth: genTruth().Draw(t, "truth"), record: genRecord().Draw(t, "record"),
		}
		// The database refuses one subscription on two rows.
		for _, id := range s.record.RecordedIDs() {
			delete(s.truth.Claims.RecordedBy, id)
		}
		return s
	})
}

// column is a pointer to where a field of a change stands.
func column(field string, o *billing.Organization, r *billing.Row) any {
	all := billing.Columns()
	i := slices.IndexFunc(all, func(c billing.Column) bool { return c.Field == field })
	if i < 0 {
		return nil
	}
	return all[i].Cell(r, o)
}

func load(at any) any {
	switch p := at.(type) {
	case *string:
		return *p
	case **string:
		if *p != nil {
			return **p
		}
	case **bool:
		if *p != nil {
			return **p
		}
	case **int64:
		if *p != nil {
			return **p
		}
	case **time.Time:
		if *p != nil {
			return (*p).UTC().Truncate(time.Second)
		}
	}
	return nil
}

func store(at, value any) error {
	ok := true
	switch p := at.(type) {
	case *string:
		*p, ok = value.(string)
	case **string:
		ok = storePointer(p, value)
	case **bool:
		ok = storePointer(p, value)
	case **int64:
		ok = storePointer(p, value)
	case **time.Time:
		ok = storePointer(p, value)
	}
	if !ok {
		return fmt.Errorf("a %T cannot hold %T %v", at, value, value)
	}
	return nil
}

func storePointer[T any](p **T, value any) bool {
	if value == nil {
		*p = nil
		return true
	}
	v, ok := value.(T)
	*p = &v
	return ok
}

// apply does to a copy of the record what the store does to the tables, and checks on the way
// that every change is one that can be made.
func apply(record billing.Record, plan billing.Plan) (billing.Record, error) {
	record.Rows = slices.Clone(record.Rows)
	at := slices.IndexFunc(record.Rows, func(r billing.Row) bool { return r.ID == plan.RowID })
	scratch := billing.Row{}
	target := &scratch
	if at >= 0 {
		target = &record.Rows[at]
	}
	seen := map[string]bool{}
	for _, c := range plan.Changes {
		where := column(c.Field, &record.Org, target)
		inRow := strings.HasPrefix(c.Field, "subscriptions.")
		switch {
		case where == nil:
			return record, fmt.Errorf("%s is no known field", c.Field)
		case seen[c.Field]:
			return record, fmt.Errorf("%s is changed twice", c.Field)
		case inRow && at < 0 && !plan.Insert:
			return record, fmt.Errorf("%s is changed but there is no row %q", c.Field, plan.RowID)
		case inRow && plan.Insert && c.From != nil:
			return record, fmt.Errorf("%s of a new row was %v", c.Field, c.From)
		case !plan.Insert || !inRow:
			if diff := cmp.Diff(load(where), c.From); diff != "" {
				return record, fmt.Errorf("%s: from is not the record's value\n%s", c.Field, diff)
			}
		}
		if cmp.Equal(c.From, c.To) {
			return record, fmt.Errorf("%s: from and to are both %v", c.Field, c.To)
		}
		if err := store(where, c.To); err != nil {
			return record, fmt.Errorf("%s: %w", c.Field, err)
		}
		seen[c.Field] = true
	}
	if plan.Insert {
		scratch.ID, scratch.CreatedAt = "row_inserted", readAt
		record.Rows = append(record.Rows, scratch)
	}
	return record, nil
}

// checkPlan holds the plan of any situation to what callers rely on.
func checkPlan(s situation) error {
	plan, err := s.plan()
	if err != nil {
		return checkRefusal(plan, err)
	}
	switch {
	case len(plan.Changes) == 0 && plan.Outcome != billing.OutcomeSkipped:
		return fmt.Errorf("outcome %s without changes", plan.Outcome)
	case len(plan.Changes) > 0 && plan.Outcome != billing.OutcomeSynced:
		return fmt.Errorf("outcome %s with changes", plan.Outcome)
	case plan.Reason == "":
		return errors.New("no reason")
	case plan.Insert && plan.RowID != "":
		return fmt.Errorf("a row is inserted and row %s updated", plan.RowID)
	}
	if _, err := json.Marshal(plan.Changes); err != nil {
		return err
	}
	s.record, err = apply(s.record, plan)
	if err != nil {
		return err
	}
	again, err := s.plan()
	if err != nil {
		return fmt.Errorf("planning again after %+v: %w", plan, err)
	}
	if len(again.Changes) > 0 || again.Outcome != billing.OutcomeSkipped {
		return fmt.Errorf("not done at once: after %+v\nstill %+v", plan, again)
	}
	if again.GoverningID != plan.GoverningID {
		return fmt.Errorf("%s governed, after its own repair %s does", plan.GoverningID, again.GoverningID)
	}
	return nil
}

func checkRefusal(plan billing.Plan, err error) error {
	f, ok := errors.AsType[*billing.Failure](err)
	if !ok || f.Class != billing.Permanent || f.Message == "" || f.Reason == "" {
		return fmt.Errorf("not a permanent failure with a reason and a message: %w", err)
	}
	plan.Warnings, plan.GoverningID = nil, ""
	if diff := cmp.Diff(billing.Plan{}, plan, cmpopts.EquateEmpty()); diff != "" {
		return fmt.Errorf("refused, but with more than warnings and what governs\n%s", diff)
	}
	return nil
}

func TestApplyingAPlanLeavesNothingToDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		if err := checkPlan(genSituation().Draw(t, "situation")); err != nil {
			t.Fatal(err)
		}
	})
}

func TestPlanChangesNothingItIsGiven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSituation().Draw(t, "situation")
		before := fmt.Sprint(asJSON(t, s.truth), asJSON(t, s.record))
		_, _ = s.plan()
		if diff := cmp.Diff(before, fmt.Sprint(asJSON(t, s.truth), asJSON(t, s.record))); diff != "" {
			t.Fatal(diff)
		}
	})
}

func asJSON(t *rapid.T, v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestOrderAndRepetitionDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSituation().Draw(t, "situation")
		plan, err := s.plan()

		if subs := s.truth.Subscriptions; len(subs) > 0 {
			repeated := rapid.SliceOfN(rapid.SampledFrom(subs), 0, 3).Draw(t, "repeated")
			s.truth.Subscriptions = rapid.Permutation(append(slices.Clone(subs), repeated...)).Draw(t, "order")
		}
		s.record.Rows = rapid.Permutation(s.record.Rows).Draw(t, "rows")
		again, errAgain := s.plan()

		if fmt.Sprint(err) != fmt.Sprint(errAgain) {
			t.Fatalf("in another order: %v, before: %v", errAgain, err)
		}
		if diff := cmp.Diff(plan, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("in another order (-before +after)\n%s", diff)
		}
	})
}

func TestUnpaidSubscriptionsGetTheLowestTierAndPaidOnesNever(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSituation().Draw(t, "situation")
		plan, err := s.plan()
		if err != nil || plan.GoverningID == "" {
			return
		}
		at := slices.IndexFunc(s.truth.Subscriptions, func(sub billing.Subscription) bool { return sub.ID == plan.GoverningID })
		governing := s.truth.Subscriptions[at]
		after, err := apply(s.record, plan)
		if err != nil {
			t.Fatal(err)
		}
		row := after.Rows[slices.IndexFunc(after.Rows, func(r billing.Row) bool { return load(&r.SubscriptionID) == governing.ID })]
		if row.Tier != after.Org.Tier {
			t.Fatalf("tier %s in one table, %s in the other", row.Tier, after.Org.Tier)
		}
		switch governing.Status {
		case billing.StatusCanceled, billing.StatusIncompleteExpired, billing.StatusIncomplete, billing.StatusPaused:
			if row.Tier != "free" {
				t.Fatalf("%s gives tier %s", governing.Status, row.Tier)
			}
		default:
			if row.Tier == "free" {
				t.Fatalf("%s gives the free tier", governing.Status)
			}
		}
	})
}

// If the recorded subscriptions decide which one governs, the plan is the same whether or not the customer's others
// were read, except for the warning that several are live.
func TestThePlanIsTheSameWithoutTheOthersIfTheRecordedSubscriptionsSuffice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSituation().Filter(func(s situation) bool { return billing.RecordedSuffice(recordedOf(s)) }).Draw(t, "situation")
		all, errAll := s.plan()
		s.truth.Subscriptions = recordedOf(s)
		alone, errAlone := s.plan()

		if fmt.Sprint(errAll) != fmt.Sprint(errAlone) {
			t.Fatalf("with the others: %v, alone: %v", errAll, errAlone)
		}
		for _, plan := range []*billing.Plan{&all, &alone} {
			plan.Warnings = slices.DeleteFunc(plan.Warnings, func(w billing.Warning) bool { return w.Code == billing.WarnMultipleLive })
		}
		if diff := cmp.Diff(all, alone, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-with the others +alone)\n%s", diff)
		}
	})
}

// Who shares a customer matters only for ambiguous customers, and there are none if the plan changes nothing: what the
// sweep settles needs no lookup.
func TestSharedCustomersMatterOnlyInDoubt(t *testing.T) {
	all := map[string][]string{"cus_1": {org, otherOrg}, "cus_2": {otherOrg}}
	rapid.Check(t, func(t *rapid.T) {
		s := genSituation().Draw(t, "situation")
		s.truth.Claims.SharedCustomers = nil
		inDoubt := billing.AmbiguousCustomers(s.truth, s.record)
		if plan, err := s.plan(); err == nil && len(plan.Changes) == 0 && len(inDoubt) > 0 && !s.record.Org.Deleted {
			t.Fatalf("in doubt about %v with nothing to change", inDoubt)
		}
		lookedUp := map[string][]string{}
		for _, id := range inDoubt {
			lookedUp[id] = all[id]
		}
		s.truth.Claims.SharedCustomers = lookedUp
		plan, err := s.plan()
		s.truth.Claims.SharedCustomers = all
		planAll, errAll := s.plan()
		if fmt.Sprint(err) != fmt.Sprint(errAll) {
			t.Fatalf("with what was looked up: %v, with all: %v", err, errAll)
		}
		if diff := cmp.Diff(plan, planAll, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-with what was looked up +with all)\n%s", diff)
		}
	})
}

func recordedOf(s situation) []billing.Subscription {
	return slices.DeleteFunc(slices.Clone(s.truth.Subscriptions), func(sub billing.Subscription) bool { return !s.record.Records(sub.ID) })
}

// A subscription of another organization makes no difference if there is any other subscription.
func TestOthersSubscriptionsDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSituation().Draw(t, "situation")
		theirs := genSubscription("sub_theirs").Draw(t, "theirs")
		if billing.OrgKey(theirs.OrgID) == org {
			theirs.OrgID = otherOrg
		}
		if rapid.Bool().Draw(t, "by row") {
			s.truth.Claims.RecordedBy[theirs.ID] = []string{otherOrg}
		} else {
			theirs.OrgID, s.truth.Claims.Named[otherOrg] = otherOrg, otherOrg
		}
		before, errBefore := s.plan()
		if len(s.truth.Subscriptions) == 0 {
			return // it may be the reason for a conflict
		}
		s.truth.Subscriptions = append(slices.Clone(s.truth.Subscriptions), theirs)
		after, errAfter := s.plan()
		if fmt.Sprint(errBefore) != fmt.Sprint(errAfter) {
			t.Fatalf("with theirs: %v, without: %v", errAfter, errBefore)
		}
		if diff := cmp.Diff(before, after, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-without +with theirs)\n%s", diff)
		}
	})
}

// Nothing is lowered where both tables already grant no more than the free tier and no access.
func TestNothingToLoseLowersNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSituation().Draw(t, "situation")
		s.record.Org.Tier, s.record.Org.Status = "free", "incomplete"
		for i := range s.record.Rows {
			s.record.Rows[i].Tier, s.record.Rows[i].Status = "free", "canceled"
		}
		if plan, err := s.plan(); err == nil && lowers(plan) {
			t.Fatalf("lowers access: %+v", plan)
		}
	})
}

// Any data leads to a plan or to a refusal that callers can rely on, never to a panic.
func TestArbitraryDataIsPlannedOrRefused(t *testing.T) {
	anyTime := rapid.OneOf(rapid.Just(time.Time{}), rapid.Map(rapid.Int64(), func(s int64) time.Time { return time.Unix(s, 0) }))
	anyText := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "sub_1", "active", "pro", org}))
	sub := rapid.Custom(func(t *rapid.T) billing.Subscription {
		return billing.Subscription{
			ID: anyText.Draw(t, "id"), CustomerID: anyText.Draw(t, "customer"), Status: billing.Status(anyText.Draw(t, "status")),
			Items: []billing.SubscriptionItem{{PriceID: anyText.Draw(t, "price")}}, OrgID: anyText.Draw(t, "org"), MetadataTier: anyText.Draw(t, "tier"),
			Created: anyTime.Draw(t, "created"), CurrentPeriodStart: anyTime.Draw(t, "start"), CurrentPeriodEnd: anyTime.Draw(t, "end"),
			TrialEnd: anyTime.Draw(t, "trialEnd"), CanceledAt: anyTime.Draw(t, "canceledAt"), EndedAt: anyTime.Draw(t, "endedAt"),
		}
	})
	anyRow := rapid.Custom(func(t *rapid.T) billing.Row {
		return billing.Row{
			ID: anyText.Draw(t, "id"), SubscriptionID: optional(anyText).Draw(t, "sub"), CustomerID: optional(anyText).Draw(t, "customer"),
			Tier: anyText.Draw(t, "tier"), Status: anyText.Draw(t, "status"), EndedAt: optional(anyTime).Draw(t, "endedAt"),
			CreatedAt: anyTime.Draw(t, "createdAt"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		s := situation{
			rules: billing.Rules{
				Prices:      rapid.MapOf(anyText, rapid.Map(anyText, func(s string) billing.Tier { return billing.Tier(s) })).Draw(t, "prices"),
				DefaultTier: billing.Tier(anyText.Draw(t, "default")),
			},
			truth: billing.Truth{
				Subscriptions: rapid.SliceOf(sub).Draw(t, "subscriptions"), CustomerMissing: rapid.Bool().Draw(t, "missing"), ReadAt: anyTime.Draw(t, "readAt"),
				Claims: billing.Claims{RecordedBy: rapid.MapOf(anyText, rapid.SliceOf(anyText)).Draw(t, "recordedBy"), Named: rapid.MapOf(anyText, anyText).Draw(t, "named")},
			},
			record: billing.Record{
				Org:  billing.Organization{ID: anyText.Draw(t, "orgId"), CustomerID: optional(anyText).Draw(t, "customer"), Tier: anyText.Draw(t, "tier")},
				Rows: rapid.SliceOf(anyRow).Draw(t, "rows"),
			},
		}
		plan, err := s.plan()
		lowers(plan)
		if err != nil {
			if err := checkRefusal(plan, err); err != nil {
				t.Fatal(err)
			}
		}
	})
}
