package stripesource

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"strings"
)

// searchRPS is Stripe's limit of searches a second for an account. https://docs.stripe.com/search#rate-limits
const searchRPS = 20

// errNoSearch is the cause of a failure: the account has no search.
var errNoSearch = errors.New("the account has no search")

// SearchByOrgID returns the ids of the subscriptions, ended ones too, whose metadata.orgId is the
// organization's id, and whether the account has search: accounts in India do not.
// https://docs.stripe.com/api/subscriptions/search
//
// Search is eventually consistent: it finds a change in less than a minute, in an outage up to an hour
// later. It ignores case, and does not find an id with white space around it. So it returns ids only: the
// caller retrieves each subscription and compares its metadata. https://docs.stripe.com/search#data-freshness
func (c *Client) SearchByOrgID(ctx context.Context, orgID string) (ids []string, available bool, err error) {
	orgID = strings.TrimSpace(orgID)
	if orgID == "" {
		return nil, true, nil // metadata cannot name it
	}
	query := url.Values{"query": {"metadata['orgId']:" + quote(orgID)}, "limit": {strconv.Itoa(pageLimit)}}
	for {
		page, err := c.list(ctx, endpointSearch, "/v1/subscriptions/search", "search_result", query)
		if errors.Is(err, errNoSearch) {
			return nil, false, nil
		}
		if err != nil {
			return nil, true, err
		}
		for _, raw := range page.Data {
			var found struct {
				ID string `json:"id"`
			}
			if err := unmarshal(raw, &found); err != nil || !usable(found.ID) {
				return nil, true, invalid("Stripe's search for organization %q returned an object without a usable id (%q)", orgID, found.ID)
			}
			ids = append(ids, found.ID)
		}
		if !*page.HasMore {
			return ids, true, nil
		}
		if page.NextPage == "" || page.NextPage == query.Get("page") {
			return nil, true, unavailable("Stripe's search for organization %q has has_more=true but no next page", orgID)
		}
		query.Set("page", page.NextPage)
	}
}

// quote returns the value for a query. A backslash escapes a quote and a backslash.
// https://docs.stripe.com/search#search-query-language
func quote(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}

// withoutSearch reports whether the message says that the account has no search. It knows the two messages
// that people have reported: "The search feature is temporarily unavailable in your region." and "search
// feature unavailable for merchant". Any other refusal stays an error: taking it for "no search" could lower
// access. https://github.com/better-auth/better-auth/issues/7959
func withoutSearch(message string) bool {
	message = strings.ToLower(message)
	return strings.Contains(message, "search") && strings.Contains(message, "unavailable")
}
