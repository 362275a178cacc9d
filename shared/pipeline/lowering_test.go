package pipeline_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

// worldSubscriptions are the ids that a world's subscriptions may have.
const worldSubscriptions = 6

// randomWorld replaces everything by a few organizations and subscriptions, connected in every possible way: several
// rows, customers and items, products, subscriptions that only metadata connects, and ids of the other mode.
func (f *fixture) randomWorld(t *rapid.T) {
	f.Exec(`DELETE FROM subscriptions`)
	f.Exec(`DELETE FROM organizations`)
	f.Stripe.PutInOtherMode("sub_stray", "cus_stray")
	f.Rules = randomRules(t)
	orgs := rapid.IntRange(1, 4).Draw(t, "organizations")
	customer := rapid.Custom(func(t *rapid.T) string { return fmt.Sprintf("cus_%d", rapid.IntRange(0, 3).Draw(t, "customer")) })
	recordedCustomer := rapid.Custom(func(t *rapid.T) string {
		if rapid.IntRange(0, 11).Draw(t, "of the other mode") == 0 {
			return "cus_stray"
		}
		return customer.Draw(t, "of the key's mode")
	})
	tier := rapid.SampledFrom([]string{"free", "starter", "pro"})
	recorded := rapid.Permutation([]string{"sub_0", "sub_1", "sub_2", "sub_3", "sub_4", "sub_5"}).Draw(t, "recorded")
	stray := rapid.IntRange(0, 8).Draw(t, "organization with a subscription of the other mode")
	for i := range orgs {
		id := fmt.Sprintf("org-%d", i)
		f.Org(id, func(o *appschema.Organization) {
			o.StripeCustomerID, o.SubscriptionTier = nil, tier.Draw(t, id+" tier")
			o.SubscriptionStatus = rapid.SampledFrom([]string{"active", "past_due", "canceled"}).Draw(t, id+" status")
			if rapid.IntRange(0, 3).Draw(t, id+" has a customer") > 0 {
				o.StripeCustomerID = new(recordedCustomer.Draw(t, id))
			}
		})
		for n := range rapid.SampledFrom([]int{0, 1, 1, 1, 2}).Draw(t, id+" rows") {
			f.Row(id, func(s *appschema.Subscription) {
				s.ID, s.StripeSubscriptionID, s.PlanTier = fmt.Sprintf("row-%d-%d", i, n), new(recorded[2*i%6+n]), tier.Draw(t, id+" plan")
				s.CreatedAt = created.AddDate(0, 0, n)
				s.StripeCustomerID = new(recordedCustomer.Draw(t, id+" of row"))
				if rapid.IntRange(0, 4).Draw(t, id+" recorded") == 0 || i == 3 {
					s.StripeSubscriptionID = nil
				}
				if n == 0 && i == stray {
					s.StripeSubscriptionID = new("sub_stray")
				}
			})
		}
	}
	for i := range worldSubscriptions {
		id := fmt.Sprintf("sub_%d", i)
		f.Stripe.RemoveSubscription(id)
		if rapid.IntRange(0, 3).Draw(t, id+" is missing") == 0 {
			continue
		}
		s := stripetest.Subscription{
			ID: id, CustomerID: customer.Draw(t, id), Items: randomItems(t, id),
			Status:  rapid.SampledFrom([]string{"active", "trialing", "past_due", "canceled", "unpaid", "paused", "incomplete", "dormant"}).Draw(t, id+" status"),
			Created: created.AddDate(0, 0, rapid.IntRange(0, 3).Draw(t, id+" created")).Unix(), CurrentPeriodStart: periodStart.Unix(), CurrentPeriodEnd: periodEnd.Unix(),
		}
		if rapid.Bool().Draw(t, id+" has metadata") {
			spelling := rapid.SampledFrom([]string{"org-%d", "org-%d", "ORG-%d"}).Draw(t, id+" spelling")
			s.Metadata = map[string]string{"orgId": fmt.Sprintf(spelling, rapid.IntRange(0, 4).Draw(t, id+" names"))}
		}
		f.Stripe.PutSubscription(s)
	}
}

// randomRules list some prices and products, and may have a default tier.
func randomRules(t *rapid.T) billing.Rules {
	r := rules
	r.Prices = maps.Clone(rules.Prices)
	r.Prices["price_seats"] = billing.Addon
	r.Products = map[string]billing.Tier{"prod_starter": billing.TierStarter, "prod_seats": billing.Addon}
	r.DefaultTier = rapid.SampledFrom([]billing.Tier{"", billing.TierStarter}).Draw(t, "DEFAULT_TIER")
	return r
}

// randomItems returns one to three items of any price and product, some of them usage-based. Sometimes it adds ten
// more, so that they do not fit into the subscription and must be listed.
func randomItems(t *rapid.T, subscriptionID string) []stripetest.Item {
	item := rapid.Custom(func(t *rapid.T) stripetest.Item {
		return stripetest.Item{
			PriceID:   rapid.SampledFrom([]string{"price_pro", "price_pro", "price_starter", "price_seats", "price_unknown", "price_use"}).Draw(t, "price"),
			ProductID: rapid.SampledFrom([]string{"", "", "prod_starter", "prod_seats"}).Draw(t, "product"),
			Metered:   rapid.IntRange(0, 3).Draw(t, "metered") == 0,
		}
	})
	all := rapid.SliceOfN(item, 1, 3).Draw(t, subscriptionID+" items")
	if rapid.IntRange(0, 9).Draw(t, subscriptionID+" has add-ons") == 0 {
		for range 10 {
			all = append([]stripetest.Item{{PriceID: "price_seats"}}, all...)
		}
	}
	for i := range all {
		all[i].ID = fmt.Sprintf("si_%s_%d", subscriptionID, i)
	}
	return all
}

// expectation is everything that the world has about an organization, found without the reconciler.
type expectation struct {
	record billing.Record
	truth  billing.Truth
	// byMetadata is true if only metadata connects one of the truth's subscriptions with the organization.
	byMetadata bool
}

// expectations reads all records and all subscriptions, and returns those that concern each organization.
func (f *fixture) expectations() map[string]expectation {
	f.Helper()
	records, err := f.Store.Records(f.Context(), f.Texts(`SELECT id FROM organizations`))
	if err != nil {
		f.Fatal(err)
	}
	var all []billing.Subscription
	client := f.StripeClient()
	for i := range worldSubscriptions {
		sub, exists, err := client.Subscription(f.Context(), fmt.Sprintf("sub_%d", i))
		if err != nil {
			f.Fatal(err)
		}
		if exists {
			all = append(all, sub)
		}
	}
	claims, err := f.Store.Claims(f.Context(), all)
	if err == nil {
		claims.SharedCustomers, err = f.Store.SharedCustomers(f.Context(), []string{"cus_0", "cus_1", "cus_2", "cus_3"})
	}
	if err != nil {
		f.Fatal(err)
	}
	exists := map[string]bool{}
	for _, id := range []string{"cus_0", "cus_1", "cus_2", "cus_3"} {
		if exists[id], err = client.CustomerExists(f.Context(), id); err != nil {
			f.Fatal(err)
		}
	}
	for _, sub := range all {
		exists[sub.ID] = true
	}
	expectations := map[string]expectation{}
	for id, record := range records {
		e := expectation{record: record, truth: billing.Truth{ReadAt: f.Clock.Now(), Claims: claims}}
		customers := record.CustomerIDs()
		for _, sub := range all {
			if record.Records(sub.ID) {
				customers = append(customers, sub.CustomerID)
			}
		}
		for _, sub := range all {
			byRecord := record.Records(sub.ID) || slices.Contains(customers, sub.CustomerID)
			if byMetadata := strings.EqualFold(sub.OrgID, id); byRecord || byMetadata {
				e.truth.Subscriptions = append(e.truth.Subscriptions, sub)
				e.byMetadata = e.byMetadata || !byRecord
			}
		}
		for _, id := range append(record.RecordedIDs(), record.CustomerIDs()...) {
			if strings.HasSuffix(id, "_stray") {
				e.truth.OtherMode = append(e.truth.OtherMode, id)
			}
			e.truth.InKeyMode = e.truth.InKeyMode || exists[id]
		}
		expectations[id] = e
	}
	return expectations
}

// Without a sweep, a worker searches for subscriptions that only metadata connects only before it lowers access. So an
// organization may keep less access than the sweep would give it, but it is never lowered because of that.
func TestBothStrategiesDecideTheSame(t *testing.T) {
	f := newFixture(t)
	reasons := map[billing.Reason]int{}
	byMetadata := 0
	rapid.Check(t, func(t *rapid.T) {
		f.randomWorld(t)
		if rapid.Bool().Draw(t, "repaired before") {
			f.decidedBy(billing.StrategyRetrieve, false)
		}
		expectations := f.expectations()
		sweep, retrieve := f.decidedBy(billing.StrategySweep, true), f.decidedBy(billing.StrategyRetrieve, true)
		for _, d := range sweep {
			reasons[d.Reason]++
		}
		for id := range sweep {
			switch {
			case expectations[id].byMetadata && !retrieve[id].Lowers:
				byMetadata++
				delete(sweep, id)
				delete(retrieve, id)
			case sweep[id].Reason == billing.ReasonNoSubscription && retrieve[id].Reason == billing.ReasonOtherMode:
				sweep[id] = retrieve[id] // only a request for the customer shows its mode, and the organization has no access to lose
			}
		}
		if diff := cmp.Diff(retrieve, sweep, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("-retrieve +sweep:\n%s", diff)
		}
	})
	if byMetadata == 0 {
		t.Error("in no world did only metadata connect an organization with a subscription")
	}
	for _, reason := range []billing.Reason{
		billing.ReasonInSync, billing.ReasonRepaired, billing.ReasonRowInserted, billing.ReasonNoSubscription, billing.ReasonSubscriptionConflict,
		billing.ReasonUnknownStatus, billing.ReasonTierUnresolved, billing.ReasonOtherMode,
	} {
		if reasons[reason] == 0 {
			t.Errorf("no organization had the reason %s; the reasons were %v", reason, slices.Sorted(maps.Keys(reasons)))
		}
	}
}

// A plan lowers access only if every endpoint that could name a candidate was read. Then it equals the plan for all
// subscriptions. The search lags, the account may have no search, and an endpoint may be unavailable.
func TestPlanLowersAccessOnlyIfEveryEndpointThatCouldNameACandidateAnswered(t *testing.T) {
	var mu sync.Mutex
	worlds := map[string]int{} // kind -> number, of both strategies: of 100 worlds of one, some kinds may be missing
	t.Cleanup(func() {         // after the subtests, which run in parallel
		for _, kind := range []string{"nothing lowered", "lowered", "lowered without search", "lowered while an endpoint was unavailable"} {
			if worlds[kind] == 0 {
				t.Errorf("no world was of the kind %q: %v", kind, worlds)
			}
		}
		t.Log(worlds)
	})
	for _, strategy := range []billing.Strategy{billing.StrategySweep, billing.StrategyRetrieve} {
		t.Run(string(strategy), func(t *testing.T) {
			f := newFixture(t)
			rapid.Check(t, func(t *rapid.T) {
				f.randomWorld(t)
				kind := f.checkLowerings(t, strategy)
				mu.Lock()
				defer mu.Unlock()
				worlds[kind]++
			})
		})
	}
}

// checkLowerings reconciles the world in a dry run, checks every plan that lowers access, and returns the kind of the
// world.
func (f *fixture) checkLowerings(t *rapid.T, strategy billing.Strategy) (kind string) {
	lag := time.Duration(rapid.IntRange(0, 60).Draw(t, "seconds that the search lags")) * time.Second
	hasSearch := rapid.IntRange(0, 3).Draw(t, "search") > 0
	searchLags := rapid.IntRange(0, 3).Draw(t, "search still lags") == 0
	unavailable := rapid.SampledFrom([]stripetest.Endpoint{
		"", "", "", stripetest.SearchSubscriptions, stripetest.ListSubscriptions, stripetest.RetrieveSubscription, stripetest.ListItems,
	}).Draw(t, "unavailable")
	f.Stripe.SetSearch(hasSearch, lag)
	if !searchLags {
		f.Clock.Advance(lag)
	}
	expectations := f.expectations()
	f.resetRuns()
	f.enumerate(f.Enumerator(nil), pipeline.Request{ScheduledFor: start, DryRun: true, Strategy: strategy})
	if unavailable != "" {
		defer f.Stripe.AddFault(stripetest.Fault{Endpoint: unavailable, Kind: stripetest.Unavailable})()
	}
	f.Proxy.Answers()
	f.deliver(f.Reconciler(nil), scheduledID, f.ItemIDs(scheduledID)...)
	requests := f.Proxy.Answers()
	kind = "nothing lowered"
	for id, d := range f.decided(scheduledID) {
		if !d.Lowers {
			continue
		}
		kind = "lowered"
		e := expectations[id]
		if unread := e.unread(requests, strategy); len(unread) > 0 {
			t.Errorf("the plan lowers %s, but these were not read: %v", id, unread)
		}
		warns := slices.ContainsFunc(f.Item(scheduledID, id).Warnings, func(w billing.Warning) bool { return w.Code == billing.WarnSearchUnavailable })
		if want := !hasSearch && strategy == billing.StrategyRetrieve; warns != want {
			t.Errorf("%s: the warning %s is present: %t, want %t", id, billing.WarnSearchUnavailable, warns, want)
		}
		if strategy == billing.StrategyRetrieve && e.byMetadata && (!hasSearch || searchLags && lag > 0) {
			continue // the search cannot find these subscriptions, which is documented
		}
		want, err := f.Rules.Plan(e.truth, e.record)
		if diff := cmp.Diff(changesText(f.TB, want.Changes), d.Changes); err != nil || diff != "" || want.GoverningID != d.SubscriptionID {
			t.Errorf("%s: governing subscription %s, want %s, %v (-want +got)\n%s", id, d.SubscriptionID, want.GoverningID, err, diff)
		}
	}
	switch {
	case kind == "lowered" && unavailable != "":
		return "lowered while an endpoint was unavailable"
	case kind == "lowered" && !hasSearch:
		return "lowered without search"
	default:
		return kind
	}
}

// unread returns the sources that could name a candidate of the organization, and for which no request was answered.
func (e expectation) unread(requests []testworld.Answered, strategy billing.Strategy) (sources []string) {
	answered := func(path, key, value string) bool {
		return slices.ContainsFunc(requests, func(r testworld.Answered) bool {
			if key != "" && r.URL.Query().Get(key) != value {
				return false
			}
			return r.URL.Path == path && r.Status < http.StatusInternalServerError
		})
	}
	customers := e.record.CustomerIDs()
	for _, sub := range e.truth.Subscriptions {
		if e.record.Records(sub.ID) {
			customers = append(customers, sub.CustomerID)
		}
	}
	for _, id := range customers {
		if !answered("/v1/subscriptions", "customer", id) {
			sources = append(sources, id)
		}
	}
	isOfCustomers := func(id string) bool {
		return slices.ContainsFunc(e.truth.Subscriptions, func(sub billing.Subscription) bool { return sub.ID == id && slices.Contains(customers, sub.CustomerID) })
	}
	retrieved := e.record.RecordedIDs()
	for _, sub := range e.truth.Subscriptions {
		if strategy == billing.StrategySweep && strings.EqualFold(sub.OrgID, e.record.Org.ID) {
			retrieved = append(retrieved, sub.ID)
		}
		if len(sub.Items) > 10 && isOfCustomers(sub.ID) && !answered("/v1/subscription_items", "subscription", sub.ID) {
			sources = append(sources, "items of "+sub.ID)
		}
	}
	for _, id := range retrieved {
		if !answered("/v1/subscriptions/"+id, "", "") && !isOfCustomers(id) {
			sources = append(sources, id)
		}
	}
	if strategy == billing.StrategyRetrieve && !answered("/v1/subscriptions/search", "query", "metadata['orgId']:'"+e.record.Org.ID+"'") {
		sources = append(sources, "search")
	}
	return sources
}

func changesText(t testing.TB, changes []billing.Change) string {
	t.Helper()
	text, err := json.Marshal(changes)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
