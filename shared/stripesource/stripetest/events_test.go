package stripetest_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/event"
	"pgregory.net/rapid"

	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// told returns one event as a line.
func told(e stripetest.Event) string {
	return fmt.Sprintf("%s %s is %s, %d pending", strings.TrimPrefix(e.Type, "customer.subscription."), e.Subscription.ID, e.Subscription.Status, e.PendingWebhooks)
}

func TestEveryChangeAddsAnEvent(t *testing.T) {
	status := func(status string) func(s *stripetest.Server) {
		return func(s *stripetest.Server) {
			s.UpdateSubscription("sub_1", func(sub *stripetest.Subscription) { sub.Status = status })
		}
	}
	sub := stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1", Created: 1}
	for name, test := range map[string]struct {
		status string // before
		change func(s *stripetest.Server)
		want   []string
	}{
		"nothing":   {"active", func(*stripetest.Server) {}, nil},
		"as it was": {"active", status("active"), nil},
		"put again": {"active", func(s *stripetest.Server) { s.PutSubscription(sub) }, nil},
		"past due":  {"active", status("past_due"), []string{"updated sub_1 is past_due, 0 pending"}},
		"expired":   {"incomplete", status("incomplete_expired"), []string{"updated sub_1 is incomplete_expired, 0 pending"}},
		"canceled":  {"active", status("canceled"), []string{"deleted sub_1 is canceled, 0 pending"}},
		"paused":    {"trialing", status("paused"), []string{"updated sub_1 is paused, 0 pending", "paused sub_1 is paused, 0 pending"}},
		"resumed":   {"paused", status("active"), []string{"updated sub_1 is active, 0 pending", "resumed sub_1 is active, 0 pending"}},
		"given up":  {"paused", status("canceled"), []string{"deleted sub_1 is canceled, 0 pending"}},
		"of no one": {"active", func(s *stripetest.Server) { s.UpdateSubscription("sub_x", func(*stripetest.Subscription) {}) }, nil},
		"the plan":  {"active", func(s *stripetest.Server) { sub := sub; sub.PriceID = "price_pro"; s.PutSubscription(sub) }, []string{"updated sub_1 is active, 0 pending"}},
		"the owner": {"active", func(s *stripetest.Server) { sub := sub; sub.CustomerID = "cus_2"; s.PutSubscription(sub) }, []string{"updated sub_1 is active, 0 pending"}},
		"a new one": {"active", func(s *stripetest.Server) {
			s.PutSubscription(stripetest.Subscription{ID: "sub_2", CustomerID: "cus_2"})
		}, nil},
		"created": {"active", func(s *stripetest.Server) {
			s.CreateSubscription(stripetest.Subscription{ID: "sub_2", CustomerID: "cus_2"})
		}, []string{"created sub_2 is active, 0 pending"}},
		"customer":   {"active", func(s *stripetest.Server) { s.DeleteCustomer("cus_1") }, []string{"deleted sub_1 is canceled, 0 pending"}},
		"long ended": {"canceled", func(s *stripetest.Server) { s.DeleteCustomer("cus_1") }, nil},
		"not delivered": {"active", func(s *stripetest.Server) {
			s.FailWebhooks(2)
			status("unpaid")(s)
			s.FailWebhooks(0)
			status("canceled")(s)
		}, []string{"updated sub_1 is unpaid, 2 pending", "deleted sub_1 is canceled, 0 pending"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, stripetest.Options{})
			sub := sub
			sub.Status = test.status
			s.PutSubscription(sub)
			test.change(s)
			var got []string
			for _, e := range s.Events() {
				got = append(got, told(e))
			}
			if diff := gocmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestStripeGoReadsAnEvent(t *testing.T) {
	s := start(t, stripetest.Options{LiveMode: true, Now: func() time.Time { return time.Unix(1_700_000_000, 0) }})
	s.PutSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1", Created: 1, Metadata: map[string]string{"orgId": "org-1"}})
	s.FailWebhooks(1)
	s.UpdateSubscription("sub_1", func(sub *stripetest.Subscription) { sub.Status = "unpaid" })
	s.UpdateSubscription("sub_1", func(sub *stripetest.Subscription) { sub.Status = "active" }) // the event has the old object

	iterator := event.Client{B: backend(s.URL()), Key: s.Key()}.List(&stripe.EventListParams{
		DeliverySuccess: stripe.Bool(false), Types: stripe.StringSlice([]string{"customer.subscription.updated"}),
		CreatedRange: &stripe.RangeQueryParams{GreaterThanOrEqual: 1_700_000_000},
	})
	var got []*stripe.Event
	for iterator.Next() {
		got = append(got, iterator.Event())
	}
	if err := iterator.Err(); err != nil || len(got) != 2 {
		t.Fatal(len(got), err)
	}
	e := got[1]
	if e.Type != stripe.EventTypeCustomerSubscriptionUpdated || e.Created != 1_700_000_000 || !e.Livemode || e.PendingWebhooks != 1 || e.APIVersion != "2023-10-16" ||
		e.GetObjectValue("id") != "sub_1" || e.GetObjectValue("status") != "unpaid" || e.GetObjectValue("metadata", "orgId") != "org-1" {
		t.Errorf("%+v", e)
	}
}

func listEvents(t testing.TB, s *stripetest.Server, query string) listAnswer {
	t.Helper()
	status, _, body := get(t, s, "/v1/events?"+query)
	if status != http.StatusOK {
		t.Fatalf("?%s: status %d: %s", query, status, body)
	}
	return decode[listAnswer](t, body)
}

func TestEventsAreFilteredByTypeAndTime(t *testing.T) {
	s := start(t, stripetest.Options{Now: func() time.Time { return time.Unix(1000, 0) }})
	sub := stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1"}
	for i, kind := range []string{"created", "updated", "updated", "paused", "deleted"} {
		s.AddEvent(stripetest.Event{ID: fmt.Sprintf("evt_%d", i), Type: "customer.subscription." + kind, Created: int64(100 + 10*i), PendingWebhooks: i % 2, Subscription: &sub})
	}
	s.AddEvent(stripetest.Event{ID: "evt_5", Type: "invoice.paid", Created: 140, Subscription: &sub}) // in the same second as another
	const types = "types[]=customer.subscription."
	for _, test := range []struct{ query, want string }{
		{"", "5 4 3 2 1 0"},
		{"type=customer.subscription.updated", "2 1"},
		{"type=customer.subscription.*", "4 3 2 1 0"},
		{"type=*", "5 4 3 2 1 0"},
		{"type=*.paid", "5"},
		{types + "updated&" + types + "deleted", "4 2 1"},
		{"types[0]=customer.subscription.updated&types[1]=invoice.paid", "5 2 1"},
		{"types[]=customer.subscription.*", ""}, // names only
		{"delivery_success=false", "3 1"},
		{"delivery_success=true", "5 4 2 0"},
		{"created=140", "5 4"},
		{"created[gt]=110&created[lte]=130", "3 2"},
		{"created[gte]=110&created[lt]=130", "2 1"},
		{"limit=2", "5 4"},
		{"limit=2&starting_after=evt_4", "3 2"},
		{"limit=2&ending_before=evt_2", "4 3"},
		{"created[lte]=120&starting_after=evt_4", "2 1 0"},
		{"created[lte]=120&ending_before=evt_0", "2 1"},
		{"created[gt]=120&ending_before=evt_0", "5 4 3"},
		{"delivery_success=false&starting_after=evt_2", "1"},
	} {
		t.Run(test.query, func(t *testing.T) {
			want := []string{}
			for number := range strings.FieldsSeq(test.want) {
				want = append(want, "evt_"+number)
			}
			got := listEvents(t, s, test.query)
			if diff := gocmp.Diff(want, got.ids()); diff != "" {
				t.Error(diff)
			}
			if got.Object != "list" || got.URL != "/v1/events" || got.HasMore != strings.Contains(test.query, "limit") {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestInvalidListsOfEventsAreRefused(t *testing.T) {
	s := start(t, stripetest.Options{})
	s.AddEvent(stripetest.Event{ID: "evt_1", Subscription: &stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1"}})
	for query, want := range map[string]string{
		"type=a&types[]=b":                         "type",
		strings.Repeat("types[]=a&", 21):           "types",
		"delivery_success=perhaps":                 "delivery_success",
		"limit=101":                                "limit",
		"created[gte]=yesterday":                   "created[gte]",
		"starting_after=evt_x":                     "starting_after",
		"ending_before=evt_x":                      "ending_before",
		"starting_after=evt_1&ending_before=evt_1": "ending_before",
		"object_id=sub_1":                          "object_id",
		"types[]=":                                 "types[]",
	} {
		status, _, body := get(t, s, "/v1/events?"+strings.TrimSuffix(query, "&"))
		if got := decode[errorBody](t, body).Error; status != http.StatusBadRequest || got.Param != want {
			t.Errorf("?%s: status %d, %+v", query, status, got)
		}
	}
}

func TestEventsExpireAfterThirtyDays(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := start(t, stripetest.Options{Now: func() time.Time { return now }})
	old := s.AddEvent(stripetest.Event{Subscription: &stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1"}})
	now = now.Add(30 * 24 * time.Hour)
	if got := listEvents(t, s, "").ids(); !slices.Equal(got, []string{old}) {
		t.Errorf("after 30 days: %v", got)
	}
	now = now.Add(time.Second)
	status, _, _ := get(t, s, "/v1/events?starting_after="+old)
	if got := listEvents(t, s, "").ids(); len(got)+len(s.Events()) != 0 || status != http.StatusBadRequest || s.SetPendingWebhooks(old, 1) {
		t.Errorf("later: %v, and as a cursor: status %d", got, status)
	}
}

func TestPendingWebhookMayBeDeliveredLater(t *testing.T) {
	s := start(t, stripetest.Options{})
	s.FailWebhooks(1)
	s.CreateSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1"})
	id := s.Events()[0].ID
	if got := listEvents(t, s, "delivery_success=false").ids(); !slices.Equal(got, []string{id}) {
		t.Errorf("pending: %v", got)
	}
	if !s.SetPendingWebhooks(id, 0) || s.SetPendingWebhooks("evt_x", 0) {
		t.Error("SetPendingWebhooks knows one event, not the other")
	}
	if got := listEvents(t, s, "delivery_success=false").ids(); len(got) != 0 || s.Events()[0].PendingWebhooks != 0 {
		t.Errorf("still pending: %v", got)
	}
}

func TestEventsOfTheOtherModeAreHidden(t *testing.T) {
	s := start(t, stripetest.Options{LiveMode: true})
	id := s.AddEvent(stripetest.Event{Subscription: &stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1"}})
	header := http.Header{"Authorization": {"Bearer sk_test_stripetest"}}
	_, _, body := send(t, s, http.MethodGet, "/v1/events", header)
	if got := decode[listAnswer](t, body).ids(); len(got) != 0 {
		t.Errorf("listed: %v", got)
	}
	_, _, body = send(t, s, http.MethodGet, "/v1/events?starting_after="+id, header)
	if got := decode[errorBody](t, body).Error.Message; !strings.Contains(got, "a similar object exists in live mode") {
		t.Error(got)
	}
}

// The log is read in both directions, with any page size and filter.
func TestPagesOfEventsMatchAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := stripetest.New(stripetest.Options{Now: func() time.Time { return time.Unix(1000, 0) }})
		type noted struct {
			id, kind string
			created  int64
			pending  int
		}
		var model []noted // oldest first
		kinds := []string{"customer.subscription.created", "customer.subscription.updated", "customer.subscription.deleted"}
		for i := range rapid.IntRange(0, 30).Draw(rt, "events") {
			n := noted{fmt.Sprintf("evt_%d", i), rapid.SampledFrom(kinds).Draw(rt, "type"), rapid.Int64Range(100, 110).Draw(rt, "created"), rapid.IntRange(0, 1).Draw(rt, "pending")}
			s.AddEvent(stripetest.Event{ID: n.id, Type: n.kind, Created: n.created, PendingWebhooks: n.pending, Subscription: &stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1"}})
			model = append(model, n)
		}
		slices.SortStableFunc(model, func(a, b noted) int { return int(a.created - b.created) })
		slices.Reverse(model)
		from, to, kind := rapid.Int64Range(98, 112).Draw(rt, "from"), rapid.Int64Range(98, 112).Draw(rt, "to"), rapid.SampledFrom(kinds).Draw(rt, "types")
		undelivered := rapid.Bool().Draw(rt, "undelivered")
		want := []string{}
		for _, n := range model {
			if n.created >= from && n.created <= to && n.kind == kind && (!undelivered || n.pending > 0) {
				want = append(want, n.id)
			}
		}
		params := url.Values{"limit": {fmt.Sprint(rapid.IntRange(1, 7).Draw(rt, "limit"))}, "types[]": {kind}, "created[gte]": {fmt.Sprint(from)}, "created[lte]": {fmt.Sprint(to)}}
		if undelivered {
			params.Set("delivery_success", "false")
		}
		down := walk(rt, s, params, "starting_after", func(ids []string) string { return ids[len(ids)-1] })
		if diff := gocmp.Diff(want, slices.Concat(down...)); diff != "" && len(want)+len(down) > 0 {
			rt.Fatal(diff)
		}
		if len(want) == 0 {
			return
		}
		params.Set("ending_before", want[len(want)-1])
		up := walk(rt, s, params, "ending_before", func(ids []string) string { return ids[0] })
		slices.Reverse(up)
		if got := slices.Concat(up...); !slices.Equal(want[:len(want)-1], got) {
			rt.Fatalf("upwards %v, want %v", got, want[:len(want)-1])
		}
	})
}

// walk reads pages until there are no more.
func walk(rt *rapid.T, s *stripetest.Server, params url.Values, cursor string, next func(ids []string) string) (pages [][]string) {
	params = maps.Clone(params)
	for {
		page := ask(rt, s, "/v1/events?"+params.Encode())
		ids := page.ids()
		if len(ids) > 0 {
			pages = append(pages, ids)
		}
		if !page.HasMore {
			return pages
		}
		params.Set(cursor, next(ids))
	}
}

func ask(rt *rapid.T, s *stripetest.Server, path string) listAnswer {
	recorded := httptest.NewRecorder()
	request := httptest.NewRequestWithContext(rt.Context(), http.MethodGet, path, nil)
	request.Header.Set("Authorization", "Bearer "+s.Key())
	s.ServeHTTP(recorded, request)
	var page listAnswer
	if err := json.Unmarshal(recorded.Body.Bytes(), &page); err != nil || recorded.Code != http.StatusOK {
		rt.Fatalf("%s: status %d, %v: %s", path, recorded.Code, err, recorded.Body)
	}
	return page
}

// BenchmarkChange measures a change with its event, and the event's memory.
func BenchmarkChange(b *testing.B) {
	s := stripetest.New(stripetest.Options{})
	s.PutSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1"})
	b.ReportAllocs()
	for b.Loop() {
		s.UpdateSubscription("sub_1", func(sub *stripetest.Subscription) { sub.CanceledAt++ })
	}
}
