package stripetest

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// searchRate is Stripe's limit of searches a second. https://docs.stripe.com/search#rate-limits
	searchRate = 20
	// maxSearchLag is the age from which search finds a change. https://docs.stripe.com/search#data-freshness
	maxSearchLag = time.Minute
)

// A version is the state of a subscription from a time on; nil if it was removed.
type version struct {
	at  time.Time
	sub *Subscription
}

// index adds a version for later searches and drops those that no search can find.
func (st *store) index(id string, sub *Subscription) {
	now := st.now()
	versions := st.searchable[id]
	for len(versions) > 1 && !versions[1].at.After(now.Add(-maxSearchLag)) {
		versions = versions[1:]
	}
	st.searchable[id] = append(versions, version{now, sub})
}

// search returns the subscriptions that matched at a time, with their state at that time, newest first.
func (st *store) search(asOf time.Time, matches func(*Subscription) bool) []*Subscription {
	st.mu.Lock()
	defer st.mu.Unlock()
	var found []*Subscription
	for _, versions := range st.searchable {
		for _, v := range slices.Backward(versions) {
			if v.at.After(asOf) {
				continue
			}
			if v.sub != nil && matches(v.sub) {
				found = append(found, v.sub)
			}
			break
		}
	}
	slices.SortFunc(found, func(a, b *Subscription) int { return compareAge(b, a) })
	return found
}

// A searchQuery is a parsed search request.
type searchQuery struct {
	key, value string // of the metadata
	skip       int    // number of results on previous pages
	limit      int
}

var searchParams = []string{"query", "limit", "page"}

// metadataClause is the only clause that is supported. A backslash escapes a quote.
// https://docs.stripe.com/search#search-query-language
var metadataClause = regexp.MustCompile(`(?s)^\s*metadata\[` + quoted + `\]\s*:\s*` + quoted + `\s*$`)

const quoted = `('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")`

var escaped = regexp.MustCompile(`(?s)\\(.)`)

func unquote(text string) string { return escaped.ReplaceAllString(text[1:len(text)-1], "$1") }

const pagePrefix = "page_"

func parseSearch(values url.Values) (searchQuery, *apiError) {
	if err := checkParams(values, searchParams); err != nil {
		return searchQuery{}, err
	}
	if !values.Has("query") {
		return searchQuery{}, errParam(codeMissingParam, "query", "Missing required param: query.")
	}
	clause := metadataClause.FindStringSubmatch(values.Get("query"))
	if clause == nil {
		return searchQuery{}, errParam("", "query", fmt.Sprintf("We were unable to parse your search query. This fake understands "+
			"metadata['key']:'value' only, not %q.", values.Get("query")))
	}
	q := searchQuery{key: unquote(clause[1]), value: unquote(clause[2])}
	var common listQuery
	if err := common.parsePage(values); err != nil {
		return q, err
	}
	q.limit = common.limit
	if values.Has("page") {
		skip, ok := strings.CutPrefix(values.Get("page"), pagePrefix)
		n, err := strconv.Atoi(skip)
		if !ok || err != nil || n < 0 {
			return q, errParam("", "page", "Invalid page: "+values.Get("page"))
		}
		q.skip = n
	}
	return q, nil
}

// matches ignores case, as Stripe's exact match does.
func (q searchQuery) matches(sub *Subscription) bool {
	value, ok := sub.Metadata[q.key]
	return ok && strings.EqualFold(value, q.value)
}

func (s *Server) searchSubscriptions(c *call) ([]byte, *apiError) {
	s.mu.Lock()
	search := s.search
	s.mu.Unlock()
	if search.off {
		return nil, newError(http.StatusBadRequest, "", "The search feature is temporarily unavailable in your region.")
	}
	q, err := parseSearch(c.query)
	if err != nil {
		return nil, err
	}
	var found []*Subscription
	if !s.hides(c.key) {
		found = s.store.search(s.opts.Now().Add(-search.lag), q.matches)
	}
	found = found[min(q.skip, len(found)):]
	more, next := len(found) > q.limit, nullable("")
	if more {
		found, next = found[:q.limit], nullable(pagePrefix+strconv.Itoa(q.skip+q.limit))
	}
	b := []byte(`{"object":"search_result","data":[`)
	for i, sub := range found {
		b = sub.appendJSON(appendComma(b, i), s.opts.LiveMode)
	}
	b = strconv.AppendBool(append(b, `],"has_more":`...), more)
	b = appendValue(append(b, `,"next_page":`...), next)
	return append(b, `,"url":"/v1/subscriptions/search"}`...), nil
}
