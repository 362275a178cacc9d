package sqsserver

import (
	"slices"
	"time"

	"github.com/google/uuid"
)

const (
	maxMoveRate   = 500 // messages per second
	maxTasksShown = 10

	// moveInterval is how often a task with a rate moves its next messages.
	moveInterval = time.Second
)

// Statuses of a message move task.
const (
	taskRunning   = "RUNNING"
	taskCompleted = "COMPLETED"
	taskCancelled = "CANCELLED" // its queue was deleted
	taskFailed    = "FAILED"
)

// moveTask moves the messages of a dead-letter queue.
type moveTask struct {
	handle      string
	source      *queue
	destination string // ARN; empty: each message's own source queue
	rate        int    // messages per second; 0: without a limit
	started     time.Time
	status      string
	failure     string
	toMove      int
	moved       int
	stop        func() bool // of the next step; nil before the first
}

type startMessageMoveTaskInput struct {
	SourceARN                    string `json:"SourceArn"`
	DestinationARN               string `json:"DestinationArn"`
	MaxNumberOfMessagesPerSecond *int
}

type startMessageMoveTaskOutput struct {
	TaskHandle string
}

func (s *Server) startMessageMoveTask(_ request, in *startMessageMoveTaskInput) (any, error) {
	if in.SourceARN == "" {
		return nil, missingParameter("SourceArn")
	}
	rate := 0
	if in.MaxNumberOfMessagesPerSecond != nil {
		rate = *in.MaxNumberOfMessagesPerSecond
		if rate < 1 || rate > maxMoveRate {
			return nil, invalidParameter("Value for parameter MaxNumberOfMessagesPerSecond is invalid. Reason: You must enter a number that's between 1 and %d.", maxMoveRate)
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	source, err := s.taskSource(in.SourceARN)
	if err != nil {
		return nil, err
	}
	if !s.hasSource(source) {
		return nil, invalidParameter("Source queue must be configured as a Dead Letter Queue.")
	}
	if in.DestinationARN == in.SourceARN {
		return nil, invalidParameter("Source queue arn and destination queue arn cannot be the same.")
	}
	if in.DestinationARN != "" && s.queueByARN(in.DestinationARN) == nil {
		return nil, errResourceNotFound("The resource that you specified for the DestinationArn parameter doesn't exist.")
	}
	if slices.ContainsFunc(source.tasks, func(t *moveTask) bool { return t.status == taskRunning }) {
		return nil, invalidParameter("There is already a task running. Only one active task is allowed for a source queue arn at a given time.")
	}

	now := s.clock.Now()
	source.advance(now)
	t := &moveTask{
		handle:      uuid.NewString(),
		source:      source,
		destination: in.DestinationARN,
		rate:        rate,
		started:     now,
		status:      taskRunning,
		toMove:      source.ready.Len(),
	}
	source.tasks = append(source.tasks, t)
	if len(source.tasks) > maxTasksShown {
		source.tasks = source.tasks[1:]
	}
	s.move(t, now)
	return startMessageMoveTaskOutput{t.handle}, nil
}

// taskSource finds the queue of a task. The caller holds the lock.
func (s *Server) taskSource(arn string) (*queue, error) {
	q := s.queueByARN(arn)
	if q == nil {
		return nil, errResourceNotFound("The resource that you specified for the SourceArn parameter doesn't exist.")
	}
	return q, nil
}

// step moves the next messages of a task with a rate.
func (s *Server) step(t *moveTask) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || t.status != taskRunning {
		return
	}
	now := s.clock.Now()
	t.source.advance(now)
	s.move(t, now)
}

// move moves the messages that the rate allows now, and schedules the next
// step if there are more. The caller holds the lock.
func (s *Server) move(t *moveTask, now time.Time) {
	for n := 0; t.source.ready.Len() > 0; n++ {
		if t.rate > 0 && n == t.rate {
			t.stop = s.clock.AfterFunc(moveInterval, func() { s.step(t) })
			return
		}
		m := t.source.ready.items[0]
		destination := t.destination
		if destination == "" {
			destination = m.source
		}
		if destination == "" {
			t.fail("CouldNotDetermineMessageSource")
			return
		}
		target := s.queueByARN(destination)
		if target == nil {
			t.fail(queryPrefix + "NonExistentQueue")
			return
		}
		s.redrive(m, t.source, target, now)
		t.moved++
	}
	t.status = taskCompleted
}

func (t *moveTask) fail(reason string) {
	t.status = taskFailed
	t.failure = reason
}

// redrive turns a message of a dead-letter queue into a new one of the target:
// "redriven messages are considered new messages with a new messageID and
// enqueueTime" (developer guide, dead-letter queue redrive). The caller holds
// the lock.
func (s *Server) redrive(m *message, from, to *queue, now time.Time) {
	from.remove(m)
	to.advance(now)
	to.add(&message{
		id:         uuid.NewString(),
		body:       m.body,
		md5:        m.md5,
		attributes: m.attributes,
		sentAt:     now,
		arrival:    s.nextArrival(),
	}, ready, now)
}

// stopTasks ends the running task, if any.
func (q *queue) stopTasks() {
	for _, t := range q.tasks {
		if t.status == taskRunning {
			t.status = taskCancelled
			if t.stop != nil {
				t.stop()
			}
		}
	}
}

type listMessageMoveTasksInput struct {
	SourceARN  string `json:"SourceArn"`
	MaxResults *int
}

type listMessageMoveTasksOutput struct {
	Results []shownTask
}

type shownTask struct {
	TaskHandle                        string `json:",omitempty"`
	Status                            string
	SourceARN                         string `json:"SourceArn"`
	DestinationARN                    string `json:"DestinationArn,omitempty"`
	MaxNumberOfMessagesPerSecond      int    `json:",omitempty"`
	ApproximateNumberOfMessagesMoved  int
	ApproximateNumberOfMessagesToMove int
	FailureReason                     string `json:",omitempty"`
	StartedTimestamp                  int64  // milliseconds
}

func (s *Server) listMessageMoveTasks(_ request, in *listMessageMoveTasksInput) (any, error) {
	if in.SourceARN == "" {
		return nil, missingParameter("SourceArn")
	}
	limit := 1
	if in.MaxResults != nil {
		limit = *in.MaxResults
	}
	if limit < 1 || limit > maxTasksShown {
		return nil, invalidParameter("Value for parameter MaxResults is invalid. Reason: You must enter a number that's between 1 and %d.", maxTasksShown)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.taskSource(in.SourceARN)
	if err != nil {
		return nil, err
	}
	out := listMessageMoveTasksOutput{Results: []shownTask{}}
	for _, t := range slices.Backward(q.tasks) {
		if len(out.Results) == limit {
			break
		}
		out.Results = append(out.Results, t.shown())
	}
	return out, nil
}

func (t *moveTask) shown() shownTask {
	shown := shownTask{
		Status:                            t.status,
		SourceARN:                         t.source.arn,
		DestinationARN:                    t.destination,
		MaxNumberOfMessagesPerSecond:      t.rate,
		ApproximateNumberOfMessagesMoved:  t.moved,
		ApproximateNumberOfMessagesToMove: t.toMove,
		FailureReason:                     t.failure,
		StartedTimestamp:                  t.started.UnixMilli(),
	}
	if t.status == taskRunning {
		shown.TaskHandle = t.handle
	}
	return shown
}
