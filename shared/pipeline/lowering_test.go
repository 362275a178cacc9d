package pipeline_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
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

// world is a few organizations and subscriptions, related in every way that a record or metadata names: several rows,
// customers and items, products, what metadata alone connects, and ids of the other mode.
func (f *fixture) world(t *rapid.T) {
	f.Exec(`DELETE FROM subscriptions`)
	f.Exec(`DELETE FROM organizations`)
	f.Stripe.PutInOtherMode("sub_stray", "cus_stray")
	f.Rules = worldRules(t)
	orgs := rapid.IntRange(1, 4).Draw(t, "organizations")
	customer := rapid.Custom(func(t *rapid.T) string { return fmt.Sprintf("cus_%d", rapid.IntRange(0, 3).Draw(t, "customer")) })
	known := rapid.Custom(func(t *rapid.T) string {
		if rapid.IntRange(0, 11).Draw(t, "of the other mode") == 0 {
			return "cus_stray"
		}
		return customer.Draw(t, "known")
	})
	tier := rapid.SampledFrom([]string{"free", "starter", "pro"})
	recorded := rapid.Permutation([]string{"sub_0", "sub_1", "sub_2", "sub_3", "sub_4", "sub_5"}).Draw(t, "recorded")
	stray := rapid.IntRange(0, 8).Draw(t, "whose subscription is of the other mode")
	for i := range orgs {
		id := fmt.Sprintf("org-%d", i)
		f.Org(id, func(o *appschema.Organization) {
			o.StripeCustomerID, o.SubscriptionTier = nil, tier.Draw(t, id+" tier")
			o.SubscriptionStatus = rapid.SampledFrom([]string{"active", "past_due", "canceled"}).Draw(t, id+" status")
			if rapid.IntRange(0, 3).Draw(t, id+" has a customer") > 0 {
				o.StripeCustomerID = new(known.Draw(t, id))
			}
		})
		for n := range rapid.SampledFrom([]int{0, 1, 1, 1, 2}).Draw(t, id+" rows") {
			f.Row(id, func(s *appschema.Subscription) {
				s.ID, s.StripeSubscriptionID, s.PlanTier = fmt.Sprintf("row-%d-%d", i, n), new(recorded[2*i%6+n]), tier.Draw(t, id+" plan")
				s.CreatedAt = created.AddDate(0, 0, n)
				s.StripeCustomerID = new(known.Draw(t, id+" of row"))
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
			ID: id, CustomerID: customer.Draw(t, id), Items: items(t, id),
			Status:  rapid.SampledFrom([]string{"active", "trialing", "past_due", "canceled", "unpaid", "paused", "incomplete", "dormant"}).Draw(t, id+" status"),
			Created: created.AddDate(0, 0, rapid.IntRange(0, 3).Draw(t, id+" created")).Unix(), CurrentPeriodStart: periodStart.Unix(), CurrentPeriodEnd: periodEnd.Unix(),
		}
		if rapid.Bool().Draw(t, id+" has metadata") {
			spell := rapid.SampledFrom([]string{"org-%d", "org-%d", "ORG-%d"}).Draw(t, id+" spells")
			s.Metadata = map[string]string{"orgId": fmt.Sprintf(spell, rapid.IntRange(0, 4).Draw(t, id+" names"))}
		}
		f.Stripe.PutSubscription(s)
	}
}

// worldRules are those of a world: some prices and products are listed, and there may be a default.
func worldRules(t *rapid.T) billing.Rules {
	r := rules
	r.Prices = maps.Clone(rules.Prices)
	r.Prices["price_seats"] = billing.Addon
	r.Products = map[string]billing.Tier{"prod_starter": billing.TierStarter, "prod_seats": billing.Addon}
	r.DefaultTier = rapid.SampledFrom([]billing.Tier{"", billing.TierStarter}).Draw(t, "DEFAULT_TIER")
	return r
}

// items are one to three, of any price and product, some paid by use; or more than a subscription holds.
func items(t *rapid.T, of string) []stripetest.Item {
	item := rapid.Custom(func(t *rapid.T) stripetest.Item {
		return stripetest.Item{
			PriceID:   rapid.SampledFrom([]string{"price_pro", "price_pro", "price_starter", "price_seats", "price_unknown", "price_use"}).Draw(t, "price"),
			ProductID: rapid.SampledFrom([]string{"", "", "prod_starter", "prod_seats"}).Draw(t, "product"),
			Metered:   rapid.IntRange(0, 3).Draw(t, "metered") == 0,
		}
	})
	all := rapid.SliceOfN(item, 1, 3).Draw(t, of+" items")
	if rapid.IntRange(0, 9).Draw(t, of+" has add-ons") == 0 {
		for range 10 {
			all = append([]stripetest.Item{{PriceID: "price_seats"}}, all...)
		}
	}
	for i := range all {
		all[i].ID = fmt.Sprintf("si_%s_%d", of, i)
	}
	return all
}

// known is what a world has of an organization, whoever asks for it.
type known struct {
	record billing.Record
	truth  billing.Truth
	// connected by the metadata alone are some of the truth's subscriptions.
	connected bool
}

// known looks at all there is, and finds what concerns each organization in a way of its own.
func (f *fixture) known() map[string]known {
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
	found := map[string]known{}
	for id, record := range records {
		k := known{record: record, truth: billing.Truth{ReadAt: f.Clock.Now(), Claims: claims}}
		customers := record.CustomerIDs()
		for _, sub := range all {
			if record.Records(sub.ID) {
				customers = append(customers, sub.CustomerID)
			}
		}
		for _, sub := range all {
			led := record.Records(sub.ID) || slices.Contains(customers, sub.CustomerID)
			if named := strings.EqualFold(sub.OrgID, id); led || named {
				k.truth.Subscriptions = append(k.truth.Subscriptions, sub)
				k.connected = k.connected || !led
			}
		}
		for _, id := range append(record.RecordedIDs(), record.CustomerIDs()...) {
			if strings.HasSuffix(id, "_stray") {
				k.truth.OtherMode = append(k.truth.OtherMode, id)
			}
			k.truth.InKeyMode = k.truth.InKeyMode || exists[id]
		}
		found[id] = k
	}
	return found
}

// Without a sweep what metadata alone connects is searched for only before access is lowered: else an organization may
// have less than the sweep would find for it, never be lowered to less.
func TestBothStrategiesDecideAlike(t *testing.T) {
	f := newFixture(t)
	reasons := map[billing.Reason]int{}
	connected := 0
	rapid.Check(t, func(t *rapid.T) {
		f.world(t)
		if rapid.Bool().Draw(t, "was repaired before") {
			f.decidedBy(billing.StrategyRetrieve, false)
		}
		known := f.known()
		sweep, retrieve := f.decidedBy(billing.StrategySweep, true), f.decidedBy(billing.StrategyRetrieve, true)
		for _, d := range sweep {
			reasons[d.Reason]++
		}
		for id := range sweep {
			switch {
			case known[id].connected && !retrieve[id].Lowers:
				connected++
				delete(sweep, id)
				delete(retrieve, id)
			case sweep[id].Reason == billing.ReasonNoSubscription && retrieve[id].Reason == billing.ReasonOtherMode:
				sweep[id] = retrieve[id] // only a request for the customer tells, and nobody has anything to lose
			}
		}
		if diff := cmp.Diff(retrieve, sweep, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("-retrieve +sweep:\n%s", diff)
		}
	})
	if connected == 0 {
		t.Error("metadata alone connected no organization with a subscription")
	}
	for _, reason := range []billing.Reason{
		billing.ReasonInSync, billing.ReasonRepaired, billing.ReasonRowInserted, billing.ReasonNoSubscription, billing.ReasonSubscriptionConflict,
		billing.ReasonSubscriptionMissing, billing.ReasonUnknownStatus, billing.ReasonTierUnresolved, billing.ReasonOtherMode,
	} {
		if reasons[reason] == 0 {
			t.Errorf("no organization was %s; there were %v", reason, slices.Sorted(maps.Keys(reasons)))
		}
	}
}

// No plan lowers access unless every endpoint that could name a candidate was asked and answered; what is planned then
// is what all that there is leads to. The search lags, an account may have none, and Stripe may be away.
func TestNoPlanLowersAccessUnlessEveryEndpointThatCouldNameACandidateAnswered(t *testing.T) {
	for _, strategy := range []billing.Strategy{billing.StrategySweep, billing.StrategyRetrieve} {
		t.Run(string(strategy), func(t *testing.T) {
			f := newFixture(t)
			seen := map[string]int{}
			rapid.Check(t, func(t *rapid.T) {
				f.world(t)
				seen[f.lowerings(t, strategy)]++
			})
			for _, kind := range []string{"nothing lowered", "lowered", "lowered without search", "lowered while an endpoint was away"} {
				if seen[kind] == 0 {
					t.Errorf("in no world was %s: %v", kind, seen)
				}
			}
			t.Log(seen)
		})
	}
}

// lowerings has the world reconciled, checks what was lowered, and says which kind of world it was.
func (f *fixture) lowerings(t *rapid.T, strategy billing.Strategy) (kind string) {
	lag := time.Duration(rapid.IntRange(0, 60).Draw(t, "seconds that the search lags")) * time.Second
	search := rapid.IntRange(0, 3).Draw(t, "search") > 0
	fresh := rapid.IntRange(0, 3).Draw(t, "found by the search already") == 0
	away := rapid.SampledFrom([]stripetest.Endpoint{
		"", "", "", stripetest.SearchSubscriptions, stripetest.ListSubscriptions, stripetest.RetrieveSubscription, stripetest.ListItems,
	}).Draw(t, "away")
	f.Stripe.SetSearch(search, lag)
	if !fresh {
		f.Clock.Advance(lag)
	}
	known := f.known()
	f.resetRuns()
	f.enumerate(f.Enumerator(nil), pipeline.Request{ScheduledFor: start, DryRun: true, Strategy: strategy})
	if away != "" {
		defer f.Stripe.AddFault(stripetest.Fault{Endpoint: away, Kind: stripetest.Unavailable})()
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
		k := known[id]
		if missed := k.unanswered(requests, strategy); len(missed) > 0 {
			t.Errorf("%s was lowered, but %v did not answer", id, missed)
		}
		unavailable := slices.ContainsFunc(f.Item(scheduledID, id).Warnings, func(w billing.Warning) bool { return w.Code == billing.WarnSearchUnavailable })
		if want := !search && strategy == billing.StrategyRetrieve; unavailable != want {
			t.Errorf("%s has the warning that there is no search: %t", id, unavailable)
		}
		if strategy == billing.StrategyRetrieve && k.connected && (!search || fresh && lag > 0) {
			continue // not found, as is said
		}
		want, err := f.Rules.Plan(k.truth, k.record)
		if diff := cmp.Diff(changesText(f.TB, want.Changes), d.Changes); err != nil || diff != "" || want.GoverningID != d.SubscriptionID {
			t.Errorf("%s: all there is leads to %s, %v; planned was %s (-want +got)\n%s", id, want.GoverningID, err, d.SubscriptionID, diff)
		}
	}
	switch {
	case kind == "lowered" && away != "":
		return "lowered while an endpoint was away"
	case kind == "lowered" && !search:
		return "lowered without search"
	default:
		return kind
	}
}

// unanswered is what could name a candidate of the organization and did not answer.
func (k known) unanswered(requests []testworld.Answered, strategy billing.Strategy) (missed []string) {
	answer := func(path, key, value string) bool {
		return slices.ContainsFunc(requests, func(r testworld.Answered) bool {
			if key != "" && r.URL.Query().Get(key) != value {
				return false
			}
			return r.URL.Path == path && r.Status < http.StatusInternalServerError
		})
	}
	customers := k.record.CustomerIDs()
	for _, sub := range k.truth.Subscriptions {
		if k.record.Records(sub.ID) {
			customers = append(customers, sub.CustomerID)
		}
	}
	for _, id := range customers {
		if !answer("/v1/subscriptions", "customer", id) {
			missed = append(missed, id)
		}
	}
	ofCustomers := func(id string) bool {
		return slices.ContainsFunc(k.truth.Subscriptions, func(sub billing.Subscription) bool { return sub.ID == id && slices.Contains(customers, sub.CustomerID) })
	}
	singly := k.record.RecordedIDs()
	for _, sub := range k.truth.Subscriptions {
		if strategy == billing.StrategySweep && strings.EqualFold(sub.OrgID, k.record.Org.ID) {
			singly = append(singly, sub.ID)
		}
		if len(sub.Items) > 10 && ofCustomers(sub.ID) && !answer("/v1/subscription_items", "subscription", sub.ID) {
			missed = append(missed, "items of "+sub.ID)
		}
	}
	for _, id := range singly {
		if !answer("/v1/subscriptions/"+id, "", "") && !ofCustomers(id) {
			missed = append(missed, id)
		}
	}
	if strategy == billing.StrategyRetrieve && !answer("/v1/subscriptions/search", "query", "metadata['orgId']:'"+k.record.Org.ID+"'") {
		missed = append(missed, "search")
	}
	return missed
}

func changesText(t testing.TB, changes []billing.Change) string {
	t.Helper()
	text, err := json.Marshal(changes)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
