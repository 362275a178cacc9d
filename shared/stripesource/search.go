package stripesource

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"strings"
)

// searchRPS is what Stripe lets an account search in a second. https://docs.stripe.com/search#rate-limits
const searchRPS = 20

// errNoSearch is inside the failure of a search that the account does not have.
var errNoSearch = errors.New("the account has no search")

// SearchByOrgID returns the ids of the subscriptions, ended ones too, whose metadata.orgId is the
// organization's id, and whether the account has search at all: merchants in India do not.
// https://docs.stripe.com/api/subscriptions/search
//
// Search is eventually consistent: what is written is found in less than a minute, during an outage up
// to an hour later. So only ids are returned, what they stand for is to be read singly, and its metadata
// decides whom it names: Stripe compares without case, and metadata with white space around the id is
// not found. https://docs.stripe.com/search#data-freshness
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
				return nil, true, invalid("Stripe's search for organization %q found something without a usable id (%q)", orgID, found.ID)
			}
			ids = append(ids, found.ID)
		}
		if !*page.HasMore {
			return ids, true, nil
		}
		if page.NextPage == "" || page.NextPage == query.Get("page") {
			return nil, true, broken("Stripe's search for organization %q promises more but gives none", orgID)
		}
		query.Set("page", page.NextPage)
	}
}

// quote makes a value of a query: a backslash escapes a quote, and itself.
// https://docs.stripe.com/search#search-query-language
func quote(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}

// withoutSearch recognizes Stripe's refusal to search for such an account, by the two sentences that
// people have reported ("The search feature is temporarily unavailable in your region." and "search
// feature unavailable for merchant"). Any other refusal is one: who takes it for an answer may take
// access away. https://github.com/better-auth/better-auth/issues/7959
func withoutSearch(message string) bool {
	message = strings.ToLower(message)
	return strings.Contains(message, "search") && strings.Contains(message, "unavailable")
}
