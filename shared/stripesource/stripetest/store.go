package stripetest

import (
	"cmp"
	"math"
	"net/http"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
)

// A store has the objects. A change replaces an object and never modifies it, so that responses are encoded without the
// lock.
type store struct {
	mu            sync.Mutex
	customers     map[string]*Customer
	subscriptions map[string]*Subscription
	all           timeline
	byCustomer    map[string]*timeline
	otherMode     map[string]bool // ids of objects that are in the other mode
	searchable    map[string][]version
	log           eventLog
	now           func() time.Time
}

func newStore(now func() time.Time) *store {
	return &store{
		customers:     map[string]*Customer{},
		subscriptions: map[string]*Subscription{},
		byCustomer:    map[string]*timeline{},
		otherMode:     map[string]bool{},
		searchable:    map[string][]version{},
		now:           now,
	}
}

func (st *store) putInOtherMode(ids []string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, id := range ids {
		st.otherMode[id] = true
	}
}

func (st *store) inOtherMode(id string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.otherMode[id]
}

func (st *store) customer(id string) (*Customer, bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	c, ok := st.customers[id]
	return c, ok
}

func (st *store) subscription(id string) (*Subscription, bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	sub, ok := st.subscriptions[id]
	return sub, ok
}

func (st *store) putCustomer(c *Customer) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.customers[c.ID] = c
}

// putSubscription adds the event of a new subscription only if created is set.
func (st *store) putSubscription(sub *Subscription, created bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if old := st.subscriptions[sub.ID]; old != nil || created {
		st.log.changed(old, sub, st.now())
	}
	st.put(sub)
}

func (st *store) updateSubscription(id string, change func(Subscription) *Subscription) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	old, ok := st.subscriptions[id]
	if ok {
		sub := change(*old)
		st.log.changed(old, sub, st.now())
		st.put(sub)
	}
	return ok
}

func (st *store) removeSubscription(id string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if old, ok := st.subscriptions[id]; ok {
		st.remove(old)
	}
}

// deleteCustomer marks the customer as deleted and cancels its subscriptions.
func (st *store) deleteCustomer(id string, now int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	c, ok := st.customers[id]
	if !ok {
		return
	}
	deleted := *c
	deleted.Deleted = true
	st.customers[id] = &deleted
	for _, sub := range st.ofCustomer(id) {
		canceled := *sub
		canceled.cancel(now)
		st.log.changed(sub, &canceled, st.now())
		st.put(&canceled)
	}
}

// removeCustomer removes the customer and its subscriptions.
func (st *store) removeCustomer(id string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	delete(st.customers, id)
	for _, sub := range st.ofCustomer(id) {
		st.remove(sub)
	}
}

func (st *store) ofCustomer(id string) []*Subscription {
	if tl := st.byCustomer[id]; tl != nil {
		return slices.Clone(tl.sorted())
	}
	return nil
}

func (st *store) put(sub *Subscription) {
	old := st.subscriptions[sub.ID]
	if old != nil && old.Created == sub.Created && old.CustomerID == sub.CustomerID {
		st.all.replace(old, sub)
		st.byCustomer[sub.CustomerID].replace(old, sub)
		st.subscriptions[sub.ID] = sub
		st.index(sub.ID, sub)
		return
	}
	if old != nil {
		st.remove(old)
	}
	if st.customers[sub.CustomerID] == nil {
		st.customers[sub.CustomerID] = &Customer{ID: sub.CustomerID, Created: sub.Created}
	}
	if st.byCustomer[sub.CustomerID] == nil {
		st.byCustomer[sub.CustomerID] = &timeline{}
	}
	st.subscriptions[sub.ID] = sub
	st.all.add(sub)
	st.byCustomer[sub.CustomerID].add(sub)
	st.index(sub.ID, sub)
}

func (st *store) remove(sub *Subscription) {
	delete(st.subscriptions, sub.ID)
	st.index(sub.ID, nil)
	st.all.remove(sub)
	st.byCustomer[sub.CustomerID].remove(sub)
}

// page returns one page of a list and whether there are more.
func (st *store) page(q listQuery) (page []*Subscription, more bool, missing *apiError) {
	st.mu.Lock()
	defer st.mu.Unlock()
	tl := &st.all
	if q.customer != "" {
		if st.customers[q.customer] == nil {
			return nil, false, errMissing(http.StatusBadRequest, "customer", "customer", q.customer)
		}
		if tl = st.byCustomer[q.customer]; tl == nil {
			tl = &timeline{}
		}
	}
	cursor := st.subscriptions[q.cursor]
	if q.cursor != "" && cursor == nil {
		return nil, false, errMissing(http.StatusBadRequest, "subscription", q.cursorParam(), q.cursor)
	}
	page, more = tl.page(q, cursor)
	return page, more, nil
}

// A timeline has subscriptions, oldest first, those of the same time by id. It is sorted when it is read, so that adding
// in any order is cheap.
type timeline struct {
	subs     []*Subscription
	unsorted bool
}

func compareAge(a, b *Subscription) int {
	return cmp.Or(cmp.Compare(a.Created, b.Created), strings.Compare(a.ID, b.ID))
}

func (tl *timeline) add(sub *Subscription) {
	if n := len(tl.subs); n > 0 && compareAge(tl.subs[n-1], sub) > 0 {
		tl.unsorted = true
	}
	tl.subs = append(tl.subs, sub)
}

func (tl *timeline) remove(sub *Subscription) {
	if i, ok := tl.find(sub); ok {
		tl.subs = slices.Delete(tl.subs, i, i+1)
	}
}

func (tl *timeline) replace(old, sub *Subscription) {
	if i, ok := tl.find(old); ok {
		tl.subs[i] = sub
	}
}

func (tl *timeline) find(sub *Subscription) (int, bool) {
	return slices.BinarySearchFunc(tl.sorted(), sub, compareAge)
}

func (tl *timeline) sorted() []*Subscription {
	if tl.unsorted {
		slices.SortFunc(tl.subs, compareAge)
		tl.unsorted = false
	}
	return tl.subs
}

// page returns one page, newest first, after the cursor or before it.
func (tl *timeline) page(q listQuery, cursor *Subscription) (page []*Subscription, more bool) {
	return pageOf(tl.between(q.from, q.to), cursor, compareAge, q.before, q.limit, q.matches)
}

// pageOf returns at most limit matching elements of a sorted list, newest first, and whether there are more. They come
// after the cursor, or directly before it. The newest element of list is the last.
func pageOf[T any](list []*T, cursor *T, compare func(a, b *T) int, before bool, limit int, matches func(*T) bool) (page []*T, more bool) {
	if cursor != nil {
		i, found := slices.BinarySearchFunc(list, cursor, compare)
		switch {
		case !before:
			list = list[:i]
		case found:
			list = list[i+1:]
		default:
			list = list[i:]
		}
	}
	for n := range list {
		one := list[len(list)-1-n]
		if before {
			one = list[n]
		}
		if !matches(one) {
			continue
		}
		if len(page) == limit {
			more = true
			break
		}
		page = append(page, one)
	}
	if before {
		slices.Reverse(page)
	}
	return page, more
}

// between returns the subscriptions created from one second to another, both included.
func (tl *timeline) between(from, to int64) []*Subscription {
	subs := tl.sorted()
	if to < math.MaxInt64 {
		subs = subs[:sort.Search(len(subs), func(i int) bool { return subs[i].Created > to })]
	}
	return subs[sort.Search(len(subs), func(i int) bool { return subs[i].Created >= from }):]
}
