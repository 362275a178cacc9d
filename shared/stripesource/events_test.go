package stripesource_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stripe/stripe-go/v76"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

func TestEventTypesAreNamedAsInStripesLibrary(t *testing.T) {
	want := []stripe.EventType{
		stripe.EventTypeCustomerSubscriptionCreated, stripe.EventTypeCustomerSubscriptionUpdated, stripe.EventTypeCustomerSubscriptionDeleted,
		stripe.EventTypeCustomerSubscriptionPaused, stripe.EventTypeCustomerSubscriptionResumed,
		stripe.EventTypeCustomerSubscriptionPendingUpdateApplied, stripe.EventTypeCustomerSubscriptionPendingUpdateExpired,
	}
	var got []stripe.EventType
	for _, kind := range billing.EventTypes() {
		got = append(got, stripe.EventType(kind))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// clock is a settable clock.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func TestEventHasOrganizationAndPendingWebhooks(t *testing.T) {
	c := &clock{unix(1_700_000_000)}
	fake := serve(t, stripetest.Options{Now: c.Now})
	fake.CreateSubscription(stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1", Metadata: map[string]string{"orgId": " org-1 "}})
	c.now = c.now.Add(time.Minute)
	fake.FailWebhooks(2)
	fake.UpdateSubscription("sub_1", func(s *stripetest.Subscription) { s.Status, s.Metadata = "past_due", nil })
	page, err := newClient(fake).EventsPage(t.Context(), billing.EventQuery{})
	if err != nil {
		t.Fatal(err)
	}
	want := billing.EventPage{Events: []billing.Event{
		{
			ID: "evt_00000000000002", Type: "customer.subscription.updated", Created: unix(1_700_000_060),
			SubscriptionID: "sub_1", CustomerID: "cus_1", PendingWebhooks: 2,
		},
		{
			ID: "evt_00000000000001", Type: "customer.subscription.created", Created: unix(1_700_000_000),
			SubscriptionID: "sub_1", CustomerID: "cus_1", OrgID: "org-1",
		},
	}}
	if diff := cmp.Diff(want, page); diff != "" {
		t.Error(diff)
	}
}

// putEvents adds n events, the i-th i seconds after the first, every third one undelivered.
func putEvents(fake *stripetest.Server, first time.Time, n int) {
	for i := range n {
		e := stripetest.Event{
			ID: fmt.Sprintf("evt_%03d", i), Created: first.Unix() + int64(i),
			Subscription: &stripetest.Subscription{ID: fmt.Sprintf("sub_%03d", i), CustomerID: "cus_1"},
		}
		if i%3 == 0 {
			e.PendingWebhooks = 1
		}
		fake.AddEvent(e)
	}
}

func TestEventsAreReadPageByPageNewestFirst(t *testing.T) {
	first := unix(1_700_000_000)
	fake := serve(t, stripetest.Options{Now: func() time.Time { return first.Add(time.Hour) }})
	putEvents(fake, first, 250)
	fake.AddEvent(stripetest.Event{Type: "customer.subscription.trial_will_end", Subscription: &stripetest.Subscription{ID: "sub_trial", CustomerID: "cus_1"}})
	client := newClient(fake)
	for name, test := range map[string]struct {
		q           billing.EventQuery
		newest      int
		count, step int
		more        bool
	}{
		"everything":      {billing.EventQuery{}, 249, 100, 1, true},
		"the next page":   {billing.EventQuery{StartingAfter: "evt_150"}, 149, 100, 1, true},
		"the last page":   {billing.EventQuery{StartingAfter: "evt_050"}, 49, 50, 1, false},
		"from a second":   {billing.EventQuery{From: first.Add(240 * time.Second)}, 249, 10, 1, false},
		"up to a second":  {billing.EventQuery{To: first.Add(30*time.Second + time.Second - 1)}, 30, 31, 1, false},
		"between":         {billing.EventQuery{From: first.Add(10 * time.Second), To: first.Add(19 * time.Second)}, 19, 10, 1, false},
		"not delivered":   {billing.EventQuery{Undelivered: true}, 249, 84, 3, false},
		"those of a part": {billing.EventQuery{Undelivered: true, To: first.Add(32 * time.Second)}, 30, 11, 3, false},
		"nothing":         {billing.EventQuery{From: first.Add(2 * time.Hour)}, 0, 0, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			page, err := client.EventsPage(t.Context(), test.q)
			if err != nil {
				t.Fatal(err)
			}
			var got, want []string
			for _, e := range page.Events {
				got = append(got, e.ID)
			}
			for i := range test.count {
				want = append(want, fmt.Sprintf("evt_%03d", test.newest-i*test.step))
			}
			if diff := cmp.Diff(want, got); diff != "" || page.More != test.more {
				t.Errorf("more: %t; %s", page.More, diff)
			}
		})
	}
}

// An event may have any API version that the account has had.
func TestEventThatIsReadInPartIsCountedAndLogged(t *testing.T) {
	named := map[string]any{"id": "sub_1", "object": "subscription", "customer": "cus_1", "metadata": map[string]string{"orgId": "org-1"}}
	but := func(name string, value any) map[string]any {
		object := map[string]any{}
		for k, v := range named {
			object[k] = v
		}
		object[name] = value
		return map[string]any{"data": map[string]any{"object": object}}
	}
	from := unix(1_600_000_000)
	whole := billing.Event{
		ID: "evt_1", Type: "customer.subscription.updated", Created: unix(1_700_000_000),
		SubscriptionID: "sub_1", CustomerID: "cus_1", OrgID: "org-1", PendingWebhooks: 1,
	}
	for name, test := range map[string]struct {
		override map[string]any
		lacks    func(*billing.Event)
		odd      []string
	}{
		"of a version without periods": {map[string]any{"data": map[string]any{"object": named}}, func(*billing.Event) {}, nil},
		"an expanded customer":         {but("customer", map[string]any{"id": "cus_1", "object": "customer"}), func(*billing.Event) {}, nil},
		"no metadata":                  {but("metadata", nil), func(e *billing.Event) { e.OrgID = "" }, nil},
		"no organization":              {but("metadata", map[string]any{"tier": 7}), func(e *billing.Event) { e.OrgID = "" }, nil},
		"an organization's id that is too long": {
			but("metadata", map[string]string{"orgId": strings.Repeat("o", 501)}), func(e *billing.Event) { e.OrgID = "" }, nil,
		},
		"an organization's number": {
			but("metadata", map[string]any{"orgId": 7}), func(e *billing.Event) { e.OrgID = "" }, []string{"data.object.metadata.orgId"},
		},
		"metadata of another type": {but("metadata", "org-1"), func(e *billing.Event) { e.OrgID = "" }, []string{"data.object.metadata"}},
		"no customer":              {but("customer", nil), func(e *billing.Event) { e.CustomerID = "" }, []string{"data.object.customer"}},
		"no subscription":          {but("id", 5), func(e *billing.Event) { e.SubscriptionID = "" }, []string{"data.object.id"}},
		"a subscription's id that is too long": {
			but("id", strings.Repeat("s", 256)), func(e *billing.Event) { e.SubscriptionID = "" }, []string{"data.object.id"},
		},
		"another object": {
			but("object", "invoice"), func(e *billing.Event) { e.SubscriptionID, e.CustomerID, e.OrgID = "", "", "" }, []string{"data"},
		},
		"no object": {
			map[string]any{"data": nil}, func(e *billing.Event) { e.SubscriptionID, e.CustomerID, e.OrgID = "", "", "" }, []string{"data"},
		},
		"no mode":            {map[string]any{"livemode": nil}, func(*billing.Event) {}, []string{"livemode"}},
		"no time":            {map[string]any{"created": "now"}, func(e *billing.Event) { e.Created = from }, []string{"created"}},
		"a time far ahead":   {map[string]any{"created": 1 << 40}, func(e *billing.Event) { e.Created = from }, []string{"created"}},
		"another type":       {map[string]any{"type": "invoice.paid"}, func(e *billing.Event) { e.Type = "" }, []string{"type"}},
		"half an endpoint":   {map[string]any{"pending_webhooks": 0.5}, func(e *billing.Event) { e.PendingWebhooks = 0 }, []string{"pending_webhooks"}},
		"negative endpoints": {map[string]any{"pending_webhooks": -1}, func(e *billing.Event) { e.PendingWebhooks = 0 }, []string{"pending_webhooks"}},
		"several things":     {map[string]any{"type": 1, "livemode": "test"}, func(e *billing.Event) { e.Type = "" }, []string{"livemode", "type"}},
	} {
		t.Run(name, func(t *testing.T) {
			fake := serve(t, stripetest.Options{Now: func() time.Time { return whole.Created }})
			sub := stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1", Metadata: map[string]string{"orgId": "org-1"}}
			fake.AddEvent(stripetest.Event{ID: "evt_0", Subscription: &sub})
			fake.AddEvent(stripetest.Event{ID: "evt_1", PendingWebhooks: 1, Subscription: &sub, Override: test.override})
			var log bytes.Buffer
			client := newClient(fake, func(c *stripesource.Config) { c.Log = slog.New(slog.NewJSONHandler(&log, nil)) })
			page, err := client.EventsPage(t.Context(), billing.EventQuery{From: from})
			if err != nil || len(page.Events) != 2 {
				t.Fatal(page, err)
			}
			want := whole
			test.lacks(&want)
			if diff := cmp.Diff(want, page.Events[0]); diff != "" {
				t.Error(diff)
			}
			type line struct {
				Level, Event string
				Odd          []string
			}
			var logged []line
			if test.odd != nil {
				logged = []line{{"WARN", "evt_1", test.odd}}
			}
			if diff := cmp.Diff(logged, readLog[line](t, &log)); diff != "" || page.Unreadable != len(logged) {
				t.Errorf("%d odd ones; logged: %s", page.Unreadable, diff)
			}
		})
	}
}

func TestEventOfTheOtherModeStopsTheRun(t *testing.T) {
	fake := serve(t, stripetest.Options{})
	fake.AddEvent(stripetest.Event{Subscription: &stripetest.Subscription{ID: "sub_1", CustomerID: "cus_1"}, Override: map[string]any{"livemode": true}})
	_, err := newClient(fake).EventsPage(t.Context(), billing.EventQuery{})
	wantFailure(t, err, billing.RunFatal, billing.ReasonWrongMode)
}

func TestInvalidPageOfEventsIsAnError(t *testing.T) {
	for name, body := range map[string]string{
		"no list":                 `{"object":"event","data":[],"has_more":false}`,
		"more, but none":          `{"object":"list","data":[],"has_more":true}`,
		"more after the same one": `{"object":"list","data":[{"id":"evt_1"}],"has_more":true}`,
		"no id":                   `{"object":"list","data":[{"type":"customer.subscription.updated"}],"has_more":false}`,
		"an odd id":               `{"object":"list","data":[{"id":5}],"has_more":false}`,
		"no object":               `{"object":"list","data":[5],"has_more":false}`,
	} {
		t.Run(name, func(t *testing.T) {
			fake, url := serveThrough(t, func(w http.ResponseWriter, _ *http.Request) bool { return respond(w, http.StatusOK, body) })
			_, err := newClient(fake, withBaseURL(url)).EventsPage(t.Context(), billing.EventQuery{StartingAfter: "evt_1"})
			wantFailure(t, err, billing.Unavailable, billing.ReasonStripeUnavailable)
		})
	}
}

func TestEventsWithVanishedCursorAreReadFromTheStart(t *testing.T) {
	c := &clock{unix(1_700_000_000)}
	fake := serve(t, stripetest.Options{Now: c.Now})
	putEvents(fake, c.now, 150)
	c.now = c.now.Add(billing.EventRetention + 20*time.Second)
	client := newClient(fake)
	page, err := client.EventsPage(t.Context(), billing.EventQuery{StartingAfter: "evt_010"}) // expired
	if err != nil || len(page.Events) != 100 || page.Events[0].ID != "evt_149" || !page.More {
		t.Fatal(len(page.Events), page.More, err)
	}
	page, err = client.EventsPage(t.Context(), billing.EventQuery{StartingAfter: page.Events[99].ID})
	if err != nil || len(page.Events) != 30 || page.Events[29].ID != "evt_020" || page.More {
		t.Error(len(page.Events), page.More, err)
	}
}

func TestForbiddenEventsNameThePermission(t *testing.T) {
	fake := serve(t, stripetest.Options{})
	fake.AddFault(stripetest.Fault{Kind: stripetest.Forbidden, Endpoint: stripetest.ListEvents})
	client := newClient(fake)
	_, err := client.EventsPage(t.Context(), billing.EventQuery{})
	wantFailure(t, err, billing.RunFatal, billing.ReasonStripeForbidden)
	for _, hint := range []string{"rak_event_read", "read on Events", "CATCH_UP_SCHEDULE=off"} {
		if !strings.Contains(err.Error(), hint) {
			t.Errorf("%q is not in: %v", hint, err)
		}
	}
	if _, err := client.SweepPage(t.Context(), billing.Range{}); err != nil {
		t.Errorf("the sweep needs no such permission: %v", err)
	}
}

func TestOnlyEventsOfSubscriptionsAreRequested(t *testing.T) {
	var asked url.Values
	fake, url := serveThrough(t, func(_ http.ResponseWriter, r *http.Request) bool { asked = r.URL.Query(); return false })
	from := time.Now().Add(-time.Hour)
	if _, err := newClient(fake, withBaseURL(url)).EventsPage(t.Context(), billing.EventQuery{From: from, To: from.Add(time.Minute), Undelivered: true}); err != nil {
		t.Fatal(err)
	}
	if asked.Get("limit") != "100" || asked.Get("delivery_success") != "false" || !slices.Equal(asked["types[]"], billing.EventTypes()) ||
		asked.Get("created[gte]") != fmt.Sprint(from.Unix()) || asked.Get("created[lte]") != fmt.Sprint(from.Add(time.Minute).Unix()) {
		t.Errorf("asked for %v", asked)
	}
}
