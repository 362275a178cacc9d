package stripetest

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	defaultLimit = 10
	maxLimit     = 100
)

// A listQuery is a parsed list request.
type listQuery struct {
	customer string
	status   string
	from, to int64 // created, both included
	cursor   string
	before   bool // the cursor is ending_before
	limit    int
}

var listParams = []string{
	"customer", "status", "limit", "starting_after", "ending_before",
	"created", "created[gt]", "created[gte]", "created[lt]", "created[lte]",
}

var statuses = []string{
	statusActive, "past_due", "unpaid", statusCanceled, "incomplete",
	statusIncompleteExpired, "trialing", "paused", "all", "ended",
}

func parseList(values url.Values) (listQuery, *apiError) {
	q := listQuery{
		customer: values.Get("customer"),
		status:   values.Get("status"),
		from:     math.MinInt64,
		to:       math.MaxInt64,
	}
	if err := checkParams(values, listParams); err != nil {
		return q, err
	}
	if q.status != "" && !slices.Contains(statuses, q.status) {
		return q, errParam("", "status", "Invalid status: must be one of "+strings.Join(statuses, ", "))
	}
	if err := q.parsePage(values); err != nil {
		return q, err
	}
	err := q.parseCreated(values)
	return q, err
}

// parsePage parses the parameters of every list.
func (q *listQuery) parsePage(values url.Values) *apiError {
	q.cursor, q.limit = values.Get("starting_after"), defaultLimit
	if before := values.Get("ending_before"); before != "" {
		if q.cursor != "" {
			return errParam("", "ending_before", "You cannot pass both starting_after and ending_before.")
		}
		q.cursor, q.before = before, true
	}
	return q.parseLimit(values)
}

func (q *listQuery) parseLimit(values url.Values) *apiError {
	if !values.Has("limit") {
		return nil
	}
	limit, err := parseInteger(values, "limit")
	switch {
	case err != nil:
		return err
	case limit < 1:
		return errParam(codeInvalidInteger, "limit", "This value must be greater than or equal to 1.")
	case limit > maxLimit:
		return errParam(codeInvalidInteger, "limit",
			fmt.Sprintf("This value must be less than or equal to %d (it currently is '%d').", maxLimit, limit))
	}
	q.limit = int(limit)
	return nil
}

func (q *listQuery) parseCreated(values url.Values) *apiError {
	bounds := map[string]func(t int64){
		"created":      func(t int64) { q.from, q.to = max(q.from, t), min(q.to, t) },
		"created[gt]":  func(t int64) { q.from = max(q.from, t+1) },
		"created[gte]": func(t int64) { q.from = max(q.from, t) },
		"created[lt]":  func(t int64) { q.to = min(q.to, t-1) },
		"created[lte]": func(t int64) { q.to = min(q.to, t) },
	}
	for name, narrow := range bounds {
		if !values.Has(name) {
			continue
		}
		t, err := parseInteger(values, name)
		if err != nil {
			return err
		}
		narrow(t)
	}
	return nil
}

func (q listQuery) cursorParam() string {
	if q.before {
		return "ending_before"
	}
	return "starting_after"
}

func (q listQuery) matches(sub *Subscription) bool {
	switch q.status {
	case "":
		return sub.Status != statusCanceled
	case "all":
		return true
	case "ended":
		return sub.ended()
	default:
		return sub.Status == q.status
	}
}

// checkParams refuses what Stripe refuses: unknown parameters and empty values. An empty customer
// would otherwise list the whole account.
func checkParams(values url.Values, known []string) *apiError {
	for name, vs := range values {
		if !slices.Contains(known, name) {
			return errParam(codeUnknownParam, name, "Received unknown parameter: "+name)
		}
		if slices.Contains(vs, "") {
			return errParam(codeInvalidEmpty, name, fmt.Sprintf("You passed an empty string for '%s'. We assume "+
				"empty values are an attempt to unset a parameter; however '%s' cannot be unset. You should remove "+
				"'%s' from your request or supply a non-empty value.", name, name, name))
		}
	}
	return nil
}

func parseInteger(values url.Values, name string) (int64, *apiError) {
	n, err := strconv.ParseInt(values.Get(name), 10, 64)
	if err != nil {
		return 0, errParam(codeInvalidInteger, name, "Invalid integer: "+values.Get(name))
	}
	return n, nil
}

func encodeList(page []*Subscription, more, live bool) []byte {
	const usualSize = 3 << 10 // of a subscription
	b := make([]byte, 0, (len(page)+1)*usualSize)
	b = append(b, `{"object":"list","data":[`...)
	for i, sub := range page {
		b = appendComma(b, i)
		b = sub.appendJSON(b, live)
	}
	b = append(b, `],"has_more":`...)
	b = strconv.AppendBool(b, more)
	return append(b, `,"url":"/v1/subscriptions"}`...)
}
