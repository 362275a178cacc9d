package stripetest

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// An eventQuery is a parsed request for the list of events.
type eventQuery struct {
	listQuery
	pattern   string // of the type; a star matches any text
	types     []string
	delivered *bool
}

const (
	maxEventTypes   = 20
	paramTypes      = "types[]"
	deliverySuccess = "delivery_success"
)

var eventParams = []string{
	"type", paramTypes, deliverySuccess, "limit", "starting_after", "ending_before",
	"created", "created[gt]", "created[gte]", "created[lt]", "created[lte]",
}

var typesElement = regexp.MustCompile(`^types\[\d*\]$`)

func parseEvents(values url.Values) (eventQuery, *apiError) {
	values = withTypes(values)
	q := eventQuery{listQuery: listQuery{from: math.MinInt64, to: math.MaxInt64}}
	if err := checkParams(values, eventParams); err != nil {
		return q, err
	}
	if err := q.parseTypes(values); err != nil {
		return q, err
	}
	if values.Has(deliverySuccess) {
		success, err := strconv.ParseBool(values.Get(deliverySuccess))
		if err != nil {
			return q, errParam("", deliverySuccess, "Invalid boolean: "+values.Get(deliverySuccess))
		}
		q.delivered = &success
	}
	if err := q.parsePage(values); err != nil {
		return q, err
	}
	err := q.parseCreated(values)
	return q, err
}

// withTypes joins the elements of types, which may be numbered.
func withTypes(values url.Values) url.Values {
	gathered := url.Values{}
	for name, vs := range values {
		if typesElement.MatchString(name) {
			name = paramTypes
		}
		gathered[name] = append(gathered[name], vs...)
	}
	return gathered
}

func (q *eventQuery) parseTypes(values url.Values) *apiError {
	q.pattern, q.types = values.Get("type"), values[paramTypes]
	if len(q.types) > maxEventTypes {
		return errParam("", "types", fmt.Sprintf("You may pass at most %d types.", maxEventTypes))
	}
	if q.pattern != "" && len(q.types) > 0 {
		return errParam("", "type", "You may pass either `type` or `types`, but not both.")
	}
	return nil
}

func (q eventQuery) matches(e *Event) bool {
	if q.delivered != nil && *q.delivered != (e.PendingWebhooks == 0) {
		return false
	}
	if q.pattern != "" {
		return matchesType(q.pattern, e.Type)
	}
	return len(q.types) == 0 || slices.Contains(q.types, e.Type)
}

func matchesType(pattern, kind string) bool {
	start, end, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == kind
	}
	return len(kind) >= len(start)+len(end) && strings.HasPrefix(kind, start) && strings.HasSuffix(kind, end)
}

// listEvents serves the log, to keys of its mode only.
func (s *Server) listEvents(c *call) ([]byte, *apiError) {
	q, err := parseEvents(c.query)
	if err != nil {
		return nil, err
	}
	page, more, ok := s.store.eventPage(q)
	hidden := s.hides(c.key)
	if q.cursor != "" && (hidden || !ok) {
		return nil, s.missing(c, q.cursor, ok, errMissing(http.StatusBadRequest, "event", q.cursorParam(), q.cursor))
	}
	if hidden {
		page, more = nil, false
	}
	b := []byte(`{"object":"list","data":[`)
	for i, e := range page {
		b = e.appendJSON(appendComma(b, i), s.opts.LiveMode)
	}
	b = strconv.AppendBool(append(b, `],"has_more":`...), more)
	return append(b, `,"url":"/v1/events"}`...), nil
}
