package demo_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

func TestMain(m *testing.M) { mysqltest.Main(m) }

var now = time.Date(2026, time.November, 22, 3, 4, 5, 678, time.UTC)

// world is a population in the database and in Stripe, and its readers.
type world struct {
	t      *testing.T
	db     *mysqltest.DB
	fake   *stripetest.Server
	store  *mysqlstore.Store
	source *stripesource.Client
	rules  billing.Rules
	all    demo.Population
}

func populated(t *testing.T, db *mysqltest.DB, o demo.Options) *world {
	t.Helper()
	fake, err := stripetest.Start(stripetest.Options{Now: func() time.Time { return o.Now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fake.Close() })
	all, err := demo.Populate(t.Context(), db.DB, fake, o)
	if err != nil {
		t.Fatal(err)
	}
	return &world{
		t: t, db: db, fake: fake, all: all, store: mysqlstore.New(db.DB), rules: rules(),
		source: stripesource.New(stripesource.Config{Key: fake.Key(), BaseURL: fake.URL(), Log: slog.New(slog.DiscardHandler)}),
	}
}

// rules are those of the environment, without a default tier.
func rules() billing.Rules {
	r := billing.Rules{Prices: map[string]billing.Tier{}}
	for variable, prices := range demo.Prices() {
		for price := range strings.SplitSeq(prices, ",") {
			r.Prices[price] = billing.Tier(strings.ToLower(strings.TrimPrefix(variable, "STRIPE_PRICE_ID_")))
		}
	}
	return r
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) record(orgID string) billing.Record {
	w.t.Helper()
	records, err := w.store.Records(w.t.Context(), []string{orgID})
	w.must(err)
	record, ok := records[orgID]
	if !ok {
		w.t.Fatalf("organization %s is not in the database", orgID)
	}
	return record
}

// truth returns what Stripe has for the organization.
func (w *world) truth(record billing.Record) billing.Truth {
	w.t.Helper()
	ctx := w.t.Context()
	truth := billing.Truth{ReadAt: now}
	for _, id := range record.RecordedIDs() {
		sub, exists, err := w.source.Subscription(ctx, id)
		w.must(err)
		if exists {
			truth.Subscriptions = append(truth.Subscriptions, sub)
		}
	}
	for _, id := range record.CustomerIDs() {
		subs, _, err := w.source.CustomerSubscriptions(ctx, id)
		w.must(err)
		truth.Subscriptions = append(truth.Subscriptions, subs...)
		exists, err := w.source.CustomerExists(ctx, id)
		w.must(err)
		truth.CustomerMissing = !exists
	}
	claims, err := w.store.Claims(ctx, truth.Subscriptions)
	w.must(err)
	truth.Claims = claims
	return truth
}

func (w *world) plan(orgID string) billing.Plan {
	w.t.Helper()
	record := w.record(orgID)
	plan, err := w.rules.Plan(w.truth(record), record)
	if err != nil {
		w.t.Errorf("organization %s: %v", orgID, err)
	}
	return plan
}

// found returns a plan as an expectation.
func found(e demo.Expectation, p billing.Plan) demo.Expectation {
	e.Outcome, e.Reason, e.Lowers = p.Outcome, p.Reason, billing.DefaultTiers.LowersAccess(p.Changes)
	e.Fields, e.Warnings = nil, nil
	for _, c := range p.Changes {
		e.Fields = append(e.Fields, c.Field)
	}
	slices.Sort(e.Fields)
	for _, warning := range p.Warnings {
		e.Warnings = append(e.Warnings, warning.Code)
	}
	return e
}

// repair applies the plan.
func (w *world) repair(orgID string, p billing.Plan) {
	w.t.Helper()
	if p.Insert {
		p.RowID = "row of " + orgID[:18]
		w.db.MustExec(w.t, "INSERT INTO subscriptions (id, org_id) VALUES (?, ?)", p.RowID, orgID)
	}
	w.update("organizations", orgID, p)
	w.update("subscriptions", p.RowID, p)
}

func (w *world) update(table, id string, p billing.Plan) {
	w.t.Helper()
	var columns []string
	var values []any
	for _, c := range p.Changes {
		if of, column, _ := strings.Cut(c.Field, "."); of == table {
			columns, values = append(columns, column+" = ?"), append(values, c.To)
		}
	}
	if len(columns) == 0 {
		return
	}
	if n := w.db.MustExec(w.t, "UPDATE "+table+" SET "+strings.Join(columns, ", ")+" WHERE id = ?", append(values, id)...); n != 1 {
		w.t.Errorf("%d rows of %s have the id %q", n, table, id)
	}
}

// listed returns the organizations that a run lists.
func (w *world) listed() []string {
	w.t.Helper()
	organizations, err := appschema.Organizations(w.t.Context(), w.db.DB)
	w.must(err)
	subscriptions, err := appschema.Subscriptions(w.t.Context(), w.db.DB)
	w.must(err)
	var ids []string
	for _, o := range organizations {
		hasRow := slices.ContainsFunc(subscriptions, func(s appschema.Subscription) bool { return s.OrgID == o.ID })
		if !o.IsDeleted && (hasRow || o.StripeCustomerID != nil) {
			ids = append(ids, o.ID)
		}
	}
	return ids
}

func TestOrganizationsMatchTheirExpectation(t *testing.T) {
	o := demo.Options{Orgs: 150, Drift: 0.3, Seed: 1, Now: now}
	w := populated(t, mysqltest.NewAny(t), o)

	seen := map[demo.Kind]int{}
	var listed []string
	for i := range o.Orgs {
		e := demo.Expect(o, i)
		seen[e.Kind]++
		if !e.Listed {
			continue
		}
		listed = append(listed, e.OrgID)
		plan := w.plan(e.OrgID)
		if diff := cmp.Diff(e, found(e, plan), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-expected +found):\n%s", e.Kind, diff)
		}
		w.repair(e.OrgID, plan)
	}
	for _, kind := range slices.Concat(demo.Drifts(), demo.EdgeCases(), []demo.Kind{demo.Live, demo.Canceled, demo.WithoutSubscription}) {
		if seen[kind] == 0 {
			t.Errorf("there is no %s", kind)
		}
		delete(seen, kind)
	}
	if len(seen) > 0 {
		t.Errorf("unknown kinds: %v", seen)
	}
	slices.Sort(listed)
	if diff := cmp.Diff(listed, w.listed()); diff != "" {
		t.Errorf("organizations listed (-expected +found):\n%s", diff)
	}

	for _, id := range listed {
		if plan := w.plan(id); plan.Outcome != billing.OutcomeSkipped {
			t.Errorf("organization %s after its repair: %+v", id, plan)
		}
	}
}

func TestDriftedOrganizationsHaveAnEventOfTheLastDay(t *testing.T) {
	o := demo.Options{Orgs: 300, Drift: 0.2, Seed: 4, Now: now}
	w := populated(t, mysqltest.NewAny(t), o)
	page, err := w.source.EventsPage(t.Context(), billing.EventQuery{From: now.Add(-24 * time.Hour), To: now})
	w.must(err)
	if page.More || page.Unreadable > 0 {
		t.Fatalf("more: %t, %d odd events", page.More, page.Unreadable)
	}
	told := map[string]billing.Event{}
	for _, e := range page.Events {
		told[e.OrgID] = e
	}
	var got demo.Named
	for i := range o.Orgs {
		e := demo.Expect(o, i)
		event, named := told[e.OrgID]
		if e.Listed && e.Drifted() && named != (e.Kind != demo.SubscriptionMissing) {
			t.Errorf("%s: named %t", e.Kind, named)
		}
		if named && !e.Listed {
			t.Errorf("%s is named, and no run lists it", e.Kind)
		}
		switch {
		case !named:
			continue
		case e.Drifted() && event.PendingWebhooks > 0:
			got.Pending++
		case e.Drifted():
			got.NotPending++
		}
		got.Organizations++
	}
	if got != w.all.Named || got.Pending == 0 || got.NotPending == 0 || got.Organizations == got.Pending+got.NotPending {
		t.Errorf("events name %+v, said are %+v", got, w.all.Named)
	}
}

func TestPopulationCountsAddUp(t *testing.T) {
	o := demo.Options{Orgs: 200, Drift: 0.15, Seed: 1, Now: now}
	w := populated(t, mysqltest.NewAny(t), o)

	want := demo.Population{
		Organizations: 200, Listed: 198,
		Drifted: map[demo.Kind]int{}, Other: map[demo.Kind]int{demo.Live: 80, demo.WithoutSubscription: 47, demo.Canceled: 32, demo.SharedCustomer: 2},
		Outcomes: map[billing.Outcome]int{billing.OutcomeSynced: 30, billing.OutcomeSkipped: 168},
		Reasons: map[billing.Reason]int{
			billing.ReasonRepaired: 28, billing.ReasonRowInserted: 1, billing.ReasonSubscriptionMissing: 1,
			billing.ReasonInSync: 117, billing.ReasonNoSubscription: 48, billing.ReasonCustomerMissing: 2, billing.ReasonNoStripeIdentity: 1,
		},
		Warnings: map[billing.WarningCode]int{
			billing.WarnMultipleLive: 1, billing.WarnMultipleRows: 1, billing.WarnPaidWithoutSubscription: 1, billing.WarnTierMetadataMismatch: 1,
		},
		Downgrades: 7, Subscriptions: 153, Named: demo.Named{Organizations: 45, Pending: 9, NotPending: 20},
	}
	for i, kind := range demo.Drifts() {
		want.Drifted[kind] = 1
		if i < 30-len(demo.Drifts()) {
			want.Drifted[kind] = 2
		}
	}
	for _, kind := range demo.EdgeCases() {
		if kind != demo.SharedCustomer {
			want.Other[kind] = 1
		}
	}
	if diff := cmp.Diff(want, w.all); diff != "" {
		t.Errorf("population (-want +got):\n%s", diff)
	}
	if n := mysqltest.Value[int](t, w.db, "SELECT COUNT(*) FROM organizations"); n != 200 {
		t.Errorf("%d organizations", n)
	}
	if n := strings.Count(w.stripe(), `"object":"subscription",`); n != want.Subscriptions {
		t.Errorf("%d subscriptions in Stripe, want %d", n, want.Subscriptions)
	}
}

func TestSameSeedGivesSamePopulation(t *testing.T) {
	o := demo.Options{Orgs: 150, Drift: 0.2, Seed: 7, Now: now}
	rows, stripe := populated(t, mysqltest.NewAny(t), o).both()
	again, stripeAgain := populated(t, mysqltest.NewAny(t), o).both()
	if diff := cmp.Diff(rows, again); diff != "" {
		t.Errorf("rows of the same seed (-first +second):\n%s", diff)
	}
	if diff := cmp.Diff(stripe, stripeAgain); diff != "" {
		t.Errorf("objects of the same seed (-first +second):\n%s", diff)
	}

	o.Seed++
	other, stripeOther := populated(t, mysqltest.NewAny(t), o).both()
	if rows == other || stripe == stripeOther {
		t.Error("another seed gives the same")
	}
}

// both returns all rows and all of Stripe as text.
func (w *world) both() (rows, stripe string) {
	organizations, err := appschema.Organizations(w.t.Context(), w.db.DB)
	w.must(err)
	subscriptions, err := appschema.Subscriptions(w.t.Context(), w.db.DB)
	w.must(err)
	text, err := json.MarshalIndent([]any{organizations, subscriptions}, "", " ")
	w.must(err)
	return string(text), w.stripe()
}

// stripe returns every subscription, and the customer of every organization, as Stripe serves
// them.
func (w *world) stripe() string {
	var all strings.Builder
	for after := ""; ; {
		body := w.get("/v1/subscriptions?status=all&limit=100" + after)
		all.WriteString(body)
		var page struct {
			HasMore bool `json:"has_more"`
			Data    []struct {
				ID string `json:"id"`
			} `json:"data"`
		}
		w.must(json.Unmarshal([]byte(body), &page))
		if !page.HasMore {
			break
		}
		after = "&starting_after=" + page.Data[len(page.Data)-1].ID
	}
	organizations, err := appschema.Organizations(w.t.Context(), w.db.DB)
	w.must(err)
	for _, o := range organizations {
		if o.StripeCustomerID != nil {
			all.WriteString("\n" + w.get("/v1/customers/"+*o.StripeCustomerID))
		}
	}
	return strings.ReplaceAll(all.String(), `},{"id"`, "},\n"+`{"id"`)
}

func (w *world) get(path string) string {
	request := httptest.NewRequestWithContext(w.t.Context(), http.MethodGet, path, http.NoBody)
	request.Header.Set("Authorization", "Bearer "+w.fake.Key())
	answer := httptest.NewRecorder()
	w.fake.ServeHTTP(answer, request)
	body, err := io.ReadAll(answer.Body)
	w.must(err)
	return string(body)
}

func TestTimesAreWholeSecondsAroundNow(t *testing.T) {
	o := demo.Options{Orgs: 150, Drift: 0.3, Seed: 3, Now: now}
	w := populated(t, mysqltest.NewAny(t), o)
	for _, query := range []string{
		"SELECT MAX(created_at) FROM organizations", "SELECT MAX(updated_at) FROM organizations",
		"SELECT MAX(created_at) FROM subscriptions", "SELECT MAX(updated_at) FROM subscriptions",
		"SELECT MAX(current_period_start) FROM subscriptions", "SELECT MAX(canceled_at) FROM subscriptions", "SELECT MAX(ended_at) FROM subscriptions",
	} {
		if at := mysqltest.Value[time.Time](t, w.db, query); at.After(now) {
			t.Errorf("%s: %v is in the future", query, at)
		}
	}
	if n := mysqltest.Value[int](t, w.db, "SELECT COUNT(*) FROM subscriptions s JOIN organizations o ON o.id = s.org_id WHERE s.created_at < o.created_at"); n != 0 {
		t.Errorf("%d subscriptions are older than their organization", n)
	}
	ended := string(billing.StatusCanceled)
	if n := mysqltest.Value[int](t, w.db, "SELECT COUNT(*) FROM subscriptions WHERE status = ? AND (ended_at IS NULL OR canceled_at IS NULL)", ended); n != 0 {
		t.Errorf("%d canceled ones without an end", n)
	}
}

func TestPopulationHasEachKindWhereItIsLargeEnough(t *testing.T) {
	for _, c := range []struct {
		name                      string
		o                         demo.Options
		drifted, kinds, edgeCases int
	}{
		{"none", demo.Options{}, 0, 0, 0},
		{"one", demo.Options{Orgs: 1, Drift: 1}, 1, 1, 0},
		{"fewer than kinds", demo.Options{Orgs: 18, Drift: 0.5}, 9, 9, 0},
		{"as many as kinds", demo.Options{Orgs: 20, Drift: 0.01}, 20, 20, 0},
		{"no drift", demo.Options{Orgs: 100}, 0, 0, 11},
		{"before edge cases", demo.Options{Orgs: 59, Drift: 0.1}, 20, 20, 0},
		{"with edge cases", demo.Options{Orgs: 60, Drift: 0.1}, 20, 20, 11},
		{"all drifted", demo.Options{Orgs: 60, Drift: 1}, 49, 20, 11},
		{"plain", demo.Options{Orgs: 2000, Drift: 0.1, Plain: true}, 200, 20, 0},
		{"two thousand", demo.Options{Orgs: 2000, Drift: 0.25}, 500, 20, 22},
	} {
		t.Run(c.name, func(t *testing.T) {
			kinds := map[demo.Kind]bool{}
			drifted, edgeCases := 0, 0
			for i := range c.o.Orgs {
				e := demo.Expect(c.o, i)
				if e.Drifted() {
					drifted++
					kinds[e.Kind] = true
				}
				if slices.Contains(demo.EdgeCases(), e.Kind) {
					edgeCases++
				}
			}
			if drifted != c.drifted || len(kinds) != c.kinds || edgeCases != c.edgeCases {
				t.Errorf("%d drifted of %d kinds and %d edge cases, want %d, %d and %d",
					drifted, len(kinds), edgeCases, c.drifted, c.kinds, c.edgeCases)
			}
		})
	}
}

func TestFewerThanOneInTwentyOrganizationsLoseAccess(t *testing.T) {
	for orgs := 200; orgs <= 3000; orgs += 7 {
		o := demo.Options{Orgs: orgs, Drift: 0.15}
		lowered := 0
		for i := range orgs {
			if demo.Expect(o, i).Lowers {
				lowered++
			}
		}
		if lowered == 0 || lowered*20 >= orgs {
			t.Errorf("%d of %d organizations lose access", lowered, orgs)
		}
	}
}

// The flag --drift takes every number, and "NaN" is one.
func TestDriftThatIsNotANumberIsRefused(t *testing.T) {
	if _, err := demo.Populate(t.Context(), nil, nil, demo.Options{Orgs: 1, Drift: math.NaN(), Now: now}); err == nil {
		t.Error("it was accepted")
	}
}

func TestPopulateStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	db := mysqltest.NewAny(t)
	if _, err := demo.Populate(ctx, db.DB, stripetest.New(stripetest.Options{}), demo.Options{Orgs: 10, Now: now}); err == nil {
		t.Error("went on")
	}
}

func TestPopulationOfSeveralChunksIsComplete(t *testing.T) {
	w := populated(t, mysqltest.New(t), demo.Options{Orgs: 5000, Drift: 0.15, Seed: 9, Now: now})
	if w.all.Organizations != 5000 || w.all.Outcomes[billing.OutcomeSynced] != 750 {
		t.Errorf("%+v", w.all)
	}
}

func BenchmarkPopulate(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		db := mysqltest.New(b)
		fake := stripetest.New(stripetest.Options{})
		b.StartTimer()
		if _, err := demo.Populate(b.Context(), db.DB, fake, demo.Options{Orgs: 10_000, Drift: 0.15, Seed: 1, Now: now}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(10_000*float64(b.N)/b.Elapsed().Seconds(), "orgs/s")
}
