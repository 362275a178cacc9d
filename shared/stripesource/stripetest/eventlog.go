package stripetest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sort"
	"time"
)

// An Event is a change of a subscription. Stripe keeps it for 30 days and sends it to webhook endpoints.
type Event struct {
	ID              string // default a new one
	Type            string // default "customer.subscription.updated"
	Created         int64  // seconds since 1970; default now
	PendingWebhooks int    // endpoints that have not accepted it; delivery_success means 0
	// Subscription is the object at that time. Callers must not change one that the server returned.
	Subscription *Subscription

	Override map[string]any // laid over the top level of the served object

	number int // in order of creation
}

const (
	typeCreated = "customer.subscription.created"
	typeUpdated = "customer.subscription.updated"
	typeDeleted = "customer.subscription.deleted"
	typePaused  = "customer.subscription.paused"
	typeResumed = "customer.subscription.resumed"

	statusPaused = "paused"

	// eventRetention is how long events are listed.
	eventRetention = 30 * 24 * time.Hour
)

// eventTypes returns the types of the events of a change; old is nil for a new subscription. A change to or from the
// status paused is an update too. https://docs.stripe.com/api/events/types
func eventTypes(old, sub *Subscription) []string {
	switch {
	case old == nil:
		return []string{typeCreated}
	case reflect.DeepEqual(old, sub):
		return nil
	case old.Status == sub.Status:
		return []string{typeUpdated}
	case sub.Status == statusCanceled:
		return []string{typeDeleted}
	case sub.Status == statusPaused:
		return []string{typeUpdated, typePaused}
	case old.Status == statusPaused:
		return []string{typeUpdated, typeResumed}
	default:
		return []string{typeUpdated}
	}
}

// An eventLog has events, oldest first, those of one second in order of creation. It is sorted when it is read, so that
// adding in any order is cheap.
type eventLog struct {
	list     []*Event
	unsorted bool // an added event is older than the one before it
	byID     map[string]*Event
	made     int
	failing  int // number of endpoints that do not accept the next events
}

func compareEvents(a, b *Event) int {
	return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.number, b.number))
}

// changed adds the events of a change.
func (l *eventLog) changed(old, sub *Subscription, now time.Time) {
	l.forget(now)
	for _, kind := range eventTypes(old, sub) {
		l.add(Event{Type: kind, PendingWebhooks: l.failing, Subscription: sub}, now)
	}
}

func (l *eventLog) add(e Event, now time.Time) string {
	l.made++
	e.number = l.made
	e.ID = cmp.Or(e.ID, fmt.Sprintf("evt_%014d", l.made))
	e.Type = cmp.Or(e.Type, typeUpdated)
	e.Created = cmp.Or(e.Created, now.Unix())
	if n := len(l.list); n > 0 && compareEvents(l.list[n-1], &e) > 0 {
		l.unsorted = true
	}
	l.list = append(l.list, &e)
	if l.byID == nil {
		l.byID = map[string]*Event{}
	}
	l.byID[e.ID] = &e
	return e.ID
}

// forget sorts the log and removes expired events.
func (l *eventLog) forget(now time.Time) {
	if l.unsorted {
		slices.SortFunc(l.list, compareEvents)
		l.unsorted = false
	}
	end := sort.Search(len(l.list), func(i int) bool { return l.list[i].Created >= now.Add(-eventRetention).Unix() })
	for _, e := range l.list[:end] {
		delete(l.byID, e.ID)
	}
	l.list = l.list[end:]
}

// page returns one page of the log, newest first, and whether there are more; ok is false if the cursor is unknown.
func (l *eventLog) page(q eventQuery, now time.Time) (page []*Event, more, ok bool) {
	l.forget(now)
	var cursor *Event
	if q.cursor != "" {
		if cursor = l.byID[q.cursor]; cursor == nil {
			return nil, false, false
		}
	}
	page, more = pageOf(l.between(q.from, q.to), cursor, compareEvents, q.before, q.limit, q.matches)
	return page, more, true
}

// between returns the events created from one second to another, both included.
func (l *eventLog) between(from, to int64) []*Event {
	end := sort.Search(len(l.list), func(i int) bool { return l.list[i].Created > to })
	return l.list[sort.Search(end, func(i int) bool { return l.list[i].Created >= from }):end]
}

func (e *Event) appendJSON(b []byte, live bool) []byte {
	return appendOverridden(b, e.Override, func(b []byte) []byte {
		return eventTemplate.append(b, fields{
			{"id", e.ID},
			{"created", unix(e.Created)},
			{"subscription", json.RawMessage(e.Subscription.appendJSON(nil, live))},
			{"livemode", live},
			{"pending_webhooks", e.PendingWebhooks},
			{"type", e.Type},
		})
	})
}

// AddEvent adds an event and returns its id.
func (s *Server) AddEvent(e Event) (id string) {
	if e.Subscription == nil {
		panic("stripetest: an event needs its subscription")
	}
	sub := e.Subscription.clone().withDefaults(s.opts.Now().Unix())
	e.Subscription, e.Override = &sub, maps.Clone(e.Override)
	return s.store.addEvent(e)
}

// Events returns the log, oldest first.
func (s *Server) Events() []Event { return s.store.allEvents() }

// SetPendingWebhooks sets how many endpoints have not accepted an event; it returns false for an unknown event.
func (s *Server) SetPendingWebhooks(eventID string, pending int) bool {
	return s.store.setPending(eventID, pending)
}

// FailWebhooks sets how many endpoints do not accept the events of later changes, at first none.
func (s *Server) FailWebhooks(endpoints int) { s.store.failWebhooks(endpoints) }

func (st *store) addEvent(e Event) string {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.log.add(e, st.now())
}

func (st *store) allEvents() []Event {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.log.forget(st.now())
	events := make([]Event, len(st.log.list))
	for i, e := range st.log.list {
		events[i] = *e
	}
	return events
}

// setPending replaces the event, because a reader may be encoding the old one.
func (st *store) setPending(id string, pending int) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.log.forget(st.now())
	old, ok := st.log.byID[id]
	if !ok {
		return false
	}
	e := *old
	e.PendingWebhooks = pending
	at, _ := slices.BinarySearchFunc(st.log.list, old, compareEvents)
	st.log.list[at], st.log.byID[id] = &e, &e
	return true
}

func (st *store) failWebhooks(endpoints int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.log.failing = endpoints
}

func (st *store) eventPage(q eventQuery) (page []*Event, more, ok bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.log.page(q, st.now())
}
