package stripetest

import (
	"net/http"
	"slices"
	"strconv"
)

var itemParams = []string{"subscription", "limit", "starting_after", "ending_before"}

// listItems serves all items of a subscription, in the order of its own list.
func (s *Server) listItems(c *call) ([]byte, *apiError) {
	if err := checkParams(c.query, itemParams); err != nil {
		return nil, err
	}
	id := c.query.Get("subscription")
	if id == "" {
		return nil, errParam(codeMissingParam, "subscription", "Missing required param: subscription.")
	}
	var q listQuery
	if err := q.parsePage(c.query); err != nil {
		return nil, err
	}
	sub, ok := s.store.subscription(id)
	if !ok || s.hides(c.key) {
		return nil, s.missing(c, id, ok, errMissing(http.StatusBadRequest, "subscription", "subscription", id))
	}
	page, more, err := q.pageOf(sub.items(mode(sub.LiveMode, s.opts.LiveMode)))
	if err != nil {
		return nil, err
	}
	b := appendValue([]byte(`{"object":"list","data":`), page)
	b = strconv.AppendBool(append(b, `,"has_more":`...), more)
	return append(b, `,"url":"/v1/subscription_items"}`...), nil
}

// pageOf returns the page of the items and whether there is more in its direction.
func (q listQuery) pageOf(items []object) (page []object, more bool, missing *apiError) {
	if q.cursor != "" {
		at := slices.IndexFunc(items, func(item object) bool { return item.fields.get("id") == q.cursor })
		switch {
		case at < 0:
			return nil, false, errMissing(http.StatusBadRequest, "subscription item", q.cursorParam(), q.cursor)
		case q.before:
			return items[max(0, at-q.limit):at], at > q.limit, nil
		}
		items = items[at+1:]
	}
	return items[:min(len(items), q.limit)], len(items) > q.limit, nil
}
