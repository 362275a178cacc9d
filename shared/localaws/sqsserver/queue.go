package sqsserver

import (
	"container/heap"
	"time"
)

// maxInFlight is how many messages a standard queue may have in flight
// (SQS quotas: about 120,000).
const maxInFlight = 120_000

// maxVisibility is how long a message may stay in flight from its receive,
// however often its visibility is changed.
const maxVisibility = 12 * time.Hour

type messageState int

const (
	ready messageState = iota
	delayed
	inFlight
)

type message struct {
	id         string
	body       string
	md5        string
	attributes messageAttributes

	sentAt        time.Time // first enqueue time: kept in a dead-letter queue
	firstReceived time.Time
	receivedAt    time.Time
	receives      int    // across all queues; also tells the latest receipt handle
	queueReceives int    // in this queue: counts towards maxReceiveCount
	source        string // ARN of the queue that dead-lettered it; empty: sent here directly
	duplicates    int    // further deliveries asked for by Duplicate

	state     messageState
	visibleAt time.Time
	arrival   uint64 // breaks ties of visibleAt
	position  int    // in the queue's ready or hidden heap
	agePlace  int    // in the queue's heap by age
}

// queue holds messages in heaps: those that can be received, those that become
// visible later, and all of them by age for the retention period.
type queue struct {
	name       string
	arn        string
	created    time.Time
	modified   time.Time
	attributes queueAttributes

	messages      map[string]*message // by message id
	ready         messageHeap
	hidden        messageHeap // delayed and in flight
	byAge         messageHeap
	inFlightCount int // number in flight; the rest of hidden is delayed

	changed chan struct{} // closed when waiting receives must try again; nil while none waits
	tasks   []*moveTask   // oldest first
}

func newQueue(name, arn string, attributes queueAttributes, now time.Time) *queue {
	place := func(m *message, i int) { m.position = i }
	return &queue{
		name: name, arn: arn, created: now, modified: now, attributes: attributes,
		messages: map[string]*message{},
		ready:    messageHeap{before: visibleBefore, place: place},
		hidden:   messageHeap{before: visibleBefore, place: place},
		byAge:    messageHeap{before: sentBefore, place: func(m *message, i int) { m.agePlace = i }},
	}
}

// advance sets the queue to now: messages past the retention period are deleted,
// and those whose delay or visibility timeout ended become ready.
func (q *queue) advance(now time.Time) {
	for q.byAge.Len() > 0 {
		oldest := q.byAge.items[0]
		if oldest.sentAt.Add(q.attributes.retention).After(now) {
			break
		}
		q.remove(oldest)
	}
	for q.hidden.Len() > 0 {
		next := q.hidden.items[0]
		if next.visibleAt.After(now) {
			break
		}
		q.move(next, ready, next.visibleAt)
	}
}

// nextChange is when the next hidden message becomes ready.
func (q *queue) nextChange() (time.Time, bool) {
	if q.hidden.Len() == 0 {
		return time.Time{}, false
	}
	return q.hidden.items[0].visibleAt, true
}

// add adds a message in the given state until visibleAt.
func (q *queue) add(m *message, state messageState, visibleAt time.Time) {
	q.messages[m.id] = m
	heap.Push(&q.byAge, m)
	q.put(m, state, visibleAt)
}

// remove deletes a message.
func (q *queue) remove(m *message) {
	q.take(m)
	heap.Remove(&q.byAge, m.agePlace)
	delete(q.messages, m.id)
}

// move moves a message of the queue to another state until visibleAt.
func (q *queue) move(m *message, state messageState, visibleAt time.Time) {
	q.take(m)
	q.put(m, state, visibleAt)
}

func (q *queue) take(m *message) {
	if m.state == ready {
		heap.Remove(&q.ready, m.position)
		return
	}
	heap.Remove(&q.hidden, m.position)
	if m.state == inFlight {
		q.inFlightCount--
	}
}

func (q *queue) put(m *message, state messageState, visibleAt time.Time) {
	m.state = state
	m.visibleAt = visibleAt
	if state == ready {
		heap.Push(&q.ready, m)
		q.wake()
		return
	}
	heap.Push(&q.hidden, m)
	if state == inFlight {
		q.inFlightCount++
	}
	if m.position == 0 {
		q.wake() // it becomes visible earlier than the others
	}
}

// wake makes waiting receives try again.
func (q *queue) wake() {
	if q.changed == nil {
		return
	}
	close(q.changed)
	q.changed = nil
}

// waiting returns the channel that the next wake closes.
func (q *queue) waiting() <-chan struct{} {
	if q.changed == nil {
		q.changed = make(chan struct{})
	}
	return q.changed
}

// delayedCount is how many messages were sent with a delay that has not ended.
func (q *queue) delayedCount() int { return q.hidden.Len() - q.inFlightCount }

// messageHeap is a container/heap of messages that know their place in it.
type messageHeap struct {
	items  []*message
	before func(a, b *message) bool
	place  func(m *message, i int)
}

func (h *messageHeap) Len() int           { return len(h.items) }
func (h *messageHeap) Less(i, j int) bool { return h.before(h.items[i], h.items[j]) }

func (h *messageHeap) Swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	h.place(h.items[i], i)
	h.place(h.items[j], j)
}

func (h *messageHeap) Push(x any) {
	m := x.(*message) //nolint:forcetypeassert // only the queue pushes, and only messages
	h.place(m, len(h.items))
	h.items = append(h.items, m)
}

func (h *messageHeap) Pop() any {
	last := len(h.items) - 1
	m := h.items[last]
	h.items[last] = nil
	h.items = h.items[:last]
	return m
}

func visibleBefore(a, b *message) bool {
	if !a.visibleAt.Equal(b.visibleAt) {
		return a.visibleAt.Before(b.visibleAt)
	}
	return a.arrival < b.arrival
}

func sentBefore(a, b *message) bool { return a.sentAt.Before(b.sentAt) }
