package stripetest_test

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/stripe/stripe-go/v76"
	"pgregory.net/rapid"

	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

type listAnswer struct {
	Object  string
	Data    []struct{ ID string }
	HasMore bool `json:"has_more"`
	URL     string
}

func (l listAnswer) ids() []string {
	ids := []string{}
	for _, sub := range l.Data {
		ids = append(ids, sub.ID)
	}
	return ids
}

func getList(t testing.TB, s *stripetest.Server, query string) listAnswer {
	t.Helper()
	status, _, body := get(t, s, "/v1/subscriptions?"+query)
	if status != http.StatusOK {
		t.Fatalf("?%s: status %d: %s", query, status, body)
	}
	return decode[listAnswer](t, body)
}

func list(t testing.TB, s *stripetest.Server, query string) []string {
	t.Helper()
	return getList(t, s, query).ids()
}

func TestSubscriptionsAreFiltered(t *testing.T) {
	s := start(t, stripetest.Options{})
	statuses := []string{"active", "trialing", "past_due", "unpaid", "paused", "incomplete", "incomplete_expired", "canceled"}
	for i, status := range statuses {
		s.PutSubscription(stripetest.Subscription{
			ID: "sub_" + status, CustomerID: fmt.Sprintf("cus_%d", i%2), Status: status, Created: int64(100 + 10*i),
		})
	}
	s.PutCustomer(stripetest.Customer{ID: "cus_idle"})
	tests := []struct{ query, want string }{
		{"", "incomplete_expired incomplete paused unpaid past_due trialing active"},
		{"status=all", "canceled incomplete_expired incomplete paused unpaid past_due trialing active"},
		{"status=ended", "canceled incomplete_expired"},
		{"status=canceled", "canceled"},
		{"status=past_due", "past_due"},
		{"customer=cus_0", "incomplete_expired paused past_due active"},
		{"customer=cus_1&status=all", "canceled incomplete unpaid trialing"},
		{"customer=cus_1&status=trialing", "trialing"},
		{"customer=cus_idle", ""},
		{"created=120", "past_due"},
		{"created=121", ""},
		{"created[gt]=140", "incomplete_expired incomplete"},
		{"created[gte]=140", "incomplete_expired incomplete paused"},
		{"created[lt]=120", "trialing active"},
		{"created[lte]=120", "past_due trialing active"},
		{"created[gte]=110&created[lt]=130", "past_due trialing"},
		{"created[gt]=130&created[lt]=110", ""},
		{"limit=2", "incomplete_expired incomplete"},
		{"limit=2&starting_after=sub_incomplete", "paused unpaid"},
		{"starting_after=sub_canceled", "incomplete_expired incomplete paused unpaid past_due trialing active"},
		{"limit=2&ending_before=sub_past_due", "paused unpaid"},
		{"created[lte]=110&ending_before=sub_past_due", ""},
		{"created[lte]=120&ending_before=sub_active", "past_due trialing"},
		{"created[lte]=110&starting_after=sub_past_due", "trialing active"},
		{"customer=cus_0&starting_after=sub_unpaid", "past_due active"},
		{"starting_after=sub_active", ""},
	}
	for _, test := range tests {
		t.Run(test.query, func(t *testing.T) {
			want := []string{}
			for name := range strings.FieldsSeq(test.want) {
				want = append(want, "sub_"+name)
			}
			if diff := gocmp.Diff(want, list(t, s, test.query)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestPageHasTenByDefault(t *testing.T) {
	s := start(t, stripetest.Options{})
	for i := range 101 {
		s.PutSubscription(stripetest.Subscription{ID: fmt.Sprintf("sub_%03d", i), CustomerID: "cus_1", Created: 100})
	}
	for query, want := range map[string]int{"": 10, "limit=1": 1, "limit=100": 100} {
		got := getList(t, s, query)
		if len(got.Data) != want || !got.HasMore || got.Object != "list" || got.URL != "/v1/subscriptions" {
			t.Errorf("?%s: %d of %s, has_more %t, url %s", query, len(got.Data), got.Object, got.HasMore, got.URL)
		}
	}
	if got := getList(t, s, "limit=100&starting_after=sub_001"); len(got.Data) != 1 || got.HasMore {
		t.Errorf("last page: %v, has_more %t", got.ids(), got.HasMore)
	}
}

func TestPagingReturnsEachSubscriptionOnceWhileNewOnesAreAdded(t *testing.T) {
	s := start(t, stripetest.Options{})
	const n = 250
	for i := range n {
		s.PutSubscription(stripetest.Subscription{
			ID: fmt.Sprintf("sub_%03d", i*7%n), CustomerID: "cus_1", Created: int64(100 + i/3), // several in the same second
		})
	}
	arrived := 0
	s.After(func(*http.Request) {
		arrived++
		s.PutSubscription(stripetest.Subscription{ID: fmt.Sprintf("sub_new%d", arrived), CustomerID: "cus_1", Created: 1000})
	})
	seen := map[string]int{}
	iter := subscriptions(s).List(&stripe.SubscriptionListParams{
		Status: stripe.String("all"), ListParams: stripe.ListParams{Limit: stripe.Int64(20)},
	})
	for iter.Next() {
		seen[iter.Subscription().ID]++
	}
	if err := iter.Err(); err != nil {
		t.Fatal(err)
	}
	for id, times := range seen {
		if times != 1 {
			t.Errorf("%s was seen %d times", id, times)
		}
	}
	if len(seen) != n || arrived != 13 {
		t.Errorf("saw %d subscriptions in %d pages, want %d in 13", len(seen), arrived, n)
	}
}

// The model filters, sorts and cuts the whole list.
func TestListsMatchAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := start(t, stripetest.Options{})
		model := map[string]stripetest.Subscription{}
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			id := fmt.Sprintf("sub_%d", rapid.IntRange(0, 12).Draw(rt, "id"))
			switch rapid.SampledFrom([]string{"put", "put", "put", "update", "remove", "list"}).Draw(rt, "step") {
			case "put":
				sub := stripetest.Subscription{
					ID:         id,
					CustomerID: rapid.SampledFrom([]string{"cus_1", "cus_2"}).Draw(rt, "customer"),
					Created:    rapid.Int64Range(1, 5).Draw(rt, "created"),
					Status:     rapid.SampledFrom([]string{"active", "canceled"}).Draw(rt, "status"),
				}
				s.PutSubscription(sub)
				model[id] = sub
			case "update":
				created := rapid.Int64Range(1, 5).Draw(rt, "created")
				s.UpdateSubscription(id, func(sub *stripetest.Subscription) { sub.Created = created })
				if sub, ok := model[id]; ok {
					sub.Created = created
					model[id] = sub
				}
			case "remove":
				s.RemoveSubscription(id)
				delete(model, id)
			case "list":
				compareLists(t, rt, s, model)
			}
		}
		compareLists(t, rt, s, model)
	})
}

func compareLists(t *testing.T, rt *rapid.T, s *stripetest.Server, model map[string]stripetest.Subscription) {
	limit := rapid.IntRange(1, 4).Draw(rt, "limit")
	from := rapid.Int64Range(0, 4).Draw(rt, "from")
	query := fmt.Sprintf("limit=%d&created[gte]=%d", limit, from)
	var all []stripetest.Subscription
	for _, sub := range model {
		if sub.Created >= from && sub.Status != "canceled" {
			all = append(all, sub)
		}
	}
	slices.SortFunc(all, func(a, b stripetest.Subscription) int {
		return cmp.Or(cmp.Compare(b.Created, a.Created), cmp.Compare(b.ID, a.ID))
	})
	var got []string
	for cursor := ""; ; {
		page := getList(t, s, query+cursor)
		got = append(got, page.ids()...)
		if !page.HasMore {
			break
		}
		cursor = "&starting_after=" + got[len(got)-1]
	}
	var want []string
	for _, sub := range all {
		want = append(want, sub.ID)
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		rt.Fatalf("?%s (-want +got):\n%s", query, diff)
	}
}
