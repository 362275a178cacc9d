package stripesource_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// said is the decoded result of a response.
type said struct {
	Exists  bool
	Subs    []billing.Subscription
	IDs     []string
	Account string
	Events  []billing.Event
}

var errOdd = errors.New("an event was noticed to be odd")

const manyItems = "subscription of many items"

var oddReads = map[string]func(context.Context, *stripesource.Client) (said, error){
	"subscription":         readSubscription("sub_1"),
	"missing subscription": readSubscription("sub_missing"),
	"subscriptions of a customer": func(ctx context.Context, c *stripesource.Client) (said, error) {
		subs, exists, err := c.CustomerSubscriptions(ctx, "cus_1")
		return said{Exists: exists, Subs: subs}, err
	},
	"customer":         readCustomer("cus_1"),
	"missing customer": readCustomer("cus_missing"),
	"account": func(ctx context.Context, c *stripesource.Client) (said, error) {
		id, err := c.Account(ctx)
		return said{Account: id}, err
	},
	"page of all": func(ctx context.Context, c *stripesource.Client) (said, error) {
		page, err := c.SweepPage(ctx, billing.Range{})
		return said{Exists: page.More, Subs: page.Subscriptions}, err
	},
	manyItems: readSubscription("sub_many"),
	"events": func(ctx context.Context, c *stripesource.Client) (said, error) {
		page, err := c.EventsPage(ctx, billing.EventQuery{})
		if err == nil && page.Unreadable > 0 {
			err = errOdd
		}
		return said{Exists: page.More, Events: page.Events}, err
	},
	"search": func(ctx context.Context, c *stripesource.Client) (said, error) {
		ids, available, err := c.SearchByOrgID(ctx, "org-1")
		return said{Exists: available, IDs: ids}, err
	},
}

func readSubscription(id string) func(context.Context, *stripesource.Client) (said, error) {
	return func(ctx context.Context, c *stripesource.Client) (said, error) {
		sub, exists, err := c.Subscription(ctx, id)
		return said{Exists: exists, Subs: []billing.Subscription{sub}}, err
	}
}

func readCustomer(id string) func(context.Context, *stripesource.Client) (said, error) {
	return func(ctx context.Context, c *stripesource.Client) (said, error) {
		exists, err := c.CustomerExists(ctx, id)
		return said{Exists: exists}, err
	}
}

// Each value of each response is replaced in turn. The result is unchanged, or an error that does not stop the run.
func TestValueOfAnotherTypeNeverChangesTheResult(t *testing.T) {
	for name, read := range oddReads {
		t.Run(name, func(t *testing.T) {
			change := func(body []byte) []byte { return body }
			fake := stripetest.New(stripetest.Options{})
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				recorded := httptest.NewRecorder()
				fake.ServeHTTP(recorded, r)
				respond(w, recorded.Code, string(change(recorded.Body.Bytes())))
			}))
			t.Cleanup(server.Close)
			for _, id := range []string{"sub_1", "sub_2"} {
				fake.CreateSubscription(stripetest.Subscription{
					ID: id, CustomerID: "cus_1", Created: 1_700_000_000, TrialEnd: 1_800_000_000, PriceID: "price_1",
					Metadata: map[string]string{"orgId": "org-1", "tier": "pro"},
				})
			}
			if name == manyItems { // the other reads would have too many values to try
				fake.PutSubscription(stripetest.Subscription{
					ID: "sub_many", CustomerID: "cus_1", Created: 1_700_000_000, CancelAt: 1_800_000_000, CollectionPaused: true,
					Items: slices.Repeat([]stripetest.Item{{PriceID: "price_1", Metered: true}}, 12),
				})
			}
			client := newClient(fake, withBaseURL(server.URL))
			truth, err := read(t.Context(), client)
			if err != nil {
				t.Fatal(err)
			}
			unharmed, refused := 0, 0
			for draw := range uint64(2000) {
				change = func(body []byte) []byte { return stripetest.WithWrongType(body, draw) }
				got, err := read(t.Context(), client)
				if err != nil && billing.AsFailure(err).Class == billing.RunFatal {
					t.Errorf("draw %d stops the run: %v", draw, err)
				}
				if err != nil {
					refused++
					continue
				}
				unharmed++
				if diff := cmp.Diff(truth.butFor(got.Subs), got); diff != "" {
					t.Errorf("draw %d: %s", draw, diff)
				}
			}
			if refused == 0 {
				t.Errorf("%d answers were read as without their odd value, none was refused", unharmed)
			}
		})
	}
}

// butFor removes what no caller uses: of an unreadable subscription in a snapshot only its ids matter,
// because the caller retrieves it, and the rules refuse a subscription without a price.
func (s said) butFor(read []billing.Subscription) said {
	s.Subs = slices.Clone(s.Subs)
	for i := range min(len(s.Subs), len(read)) {
		switch want := &s.Subs[i]; {
		case read[i].Unreadable:
			*want = billing.Subscription{ID: want.ID, CustomerID: want.CustomerID, OrgID: want.OrgID, Created: read[i].Created, Unreadable: true}
		case read[i].PriceID == "":
			want.PriceID = ""
		}
	}
	return s
}
