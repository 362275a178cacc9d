package sqsserver

import (
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/httpserver"
)

// recreateAfter is how long the name of a deleted queue stays taken.
const recreateAfter = 60 * time.Second

var queueName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,80}$`)

// empty is the response of actions that return nothing.
type empty struct{}

func (s *Server) arn(name string) string {
	return "arn:aws:sqs:" + httpserver.Region + ":" + httpserver.Account + ":" + name
}

func (s *Server) queueURL(r request, name string) string {
	return r.base + "/" + httpserver.Account + "/" + name
}

// queueByURL finds a queue by the path of its URL. The caller holds the lock.
func (s *Server) queueByURL(queueURL string) (*queue, error) {
	if queueURL == "" {
		return nil, missingParameter("QueueUrl")
	}
	u, err := url.Parse(queueURL)
	if err != nil {
		return nil, errQueueDoesNotExist()
	}
	name, ok := strings.CutPrefix(u.Path, "/"+httpserver.Account+"/")
	if !ok {
		return nil, errQueueDoesNotExist()
	}
	q, ok := s.queues[name]
	if !ok {
		return nil, errQueueDoesNotExist()
	}
	return q, nil
}

// queueByARN finds a queue, or returns nil. The caller holds the lock.
func (s *Server) queueByARN(arn string) *queue {
	name, ok := strings.CutPrefix(arn, s.arn(""))
	if !ok {
		return nil
	}
	return s.queues[name]
}

// checkRedrive refuses a policy whose dead-letter queue does not exist. The
// caller holds the lock.
func (s *Server) checkRedrive(a queueAttributes) error {
	if a.redrive == nil || s.queueByARN(a.redrive.target) != nil {
		return nil
	}
	return redriveError(a.redrive.String(), "Dead letter target does not exist.")
}

type createQueueInput struct {
	QueueName  string
	Attributes map[string]string
}

type queueURLOutput struct {
	QueueURL string `json:"QueueUrl"`
}

func (s *Server) createQueue(r request, in *createQueueInput) (any, error) {
	if !queueName.MatchString(in.QueueName) {
		return nil, invalidParameter("Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length")
	}
	attributes, err := defaultAttributes().with(in.Attributes)
	if err != nil {
		return nil, err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.Now()
	if q, ok := s.queues[in.QueueName]; ok {
		return queueURLOutput{s.queueURL(r, q.name)}, sameAttributes(q, attributes, in.Attributes)
	}
	if at, ok := s.deleted[in.QueueName]; ok && now.Before(at.Add(recreateAfter)) {
		return nil, errQueueDeletedRecently()
	}
	if err := s.checkRedrive(attributes); err != nil {
		return nil, err
	}
	delete(s.deleted, in.QueueName)
	s.queues[in.QueueName] = newQueue(in.QueueName, s.arn(in.QueueName), attributes, now)
	return queueURLOutput{s.queueURL(r, in.QueueName)}, nil
}

// sameAttributes refuses to create a queue again with another value of an
// attribute that the request names.
func sameAttributes(q *queue, wanted queueAttributes, named map[string]string) error {
	have, want := q.attributes.values(), wanted.values()
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if have[name] != want[name] {
			return errQueueNameExists(name)
		}
	}
	return nil
}

type deleteQueueInput struct {
	QueueURL string `json:"QueueUrl"`
}

func (s *Server) deleteQueue(q *queue, _ *deleteQueueInput) (any, error) {
	delete(s.queues, q.name)
	s.deleted[q.name] = s.clock.Now()
	q.stopTasks()
	q.wake() // waiting receives return an error
	return empty{}, nil
}

// hasSource reports whether a queue dead-letters into q. The caller holds the lock.
func (s *Server) hasSource(q *queue) bool {
	for _, source := range s.queues {
		if source.attributes.redrive != nil && source.attributes.redrive.target == q.arn {
			return true
		}
	}
	return false
}

type getQueueAttributesInput struct {
	QueueURL       string `json:"QueueUrl"`
	AttributeNames []string
}

type getQueueAttributesOutput struct {
	Attributes map[string]string `json:",omitempty"`
}

func (s *Server) getQueueAttributes(q *queue, in *getQueueAttributesInput) (any, error) {
	q.advance(s.clock.Now())
	all := q.attributes.values()
	all["QueueArn"] = q.arn
	all["CreatedTimestamp"] = strconv.FormatInt(q.created.Unix(), 10)
	all["LastModifiedTimestamp"] = strconv.FormatInt(q.modified.Unix(), 10)
	all["ApproximateNumberOfMessages"] = strconv.Itoa(q.ready.Len())
	all["ApproximateNumberOfMessagesNotVisible"] = strconv.Itoa(q.inFlightCount)
	all["ApproximateNumberOfMessagesDelayed"] = strconv.Itoa(q.delayedCount())

	out := map[string]string{}
	for _, name := range in.AttributeNames {
		if name == "All" {
			return getQueueAttributesOutput{all}, nil
		}
		value, ok := all[name]
		switch {
		case ok:
			out[name] = value
		case name != "RedrivePolicy": // which a queue may not have
			return nil, errUnknownAttribute(name)
		}
	}
	return getQueueAttributesOutput{out}, nil
}

type setQueueAttributesInput struct {
	QueueURL   string `json:"QueueUrl"`
	Attributes map[string]string
}

func (s *Server) setQueueAttributes(q *queue, in *setQueueAttributesInput) (any, error) {
	attributes, err := q.attributes.with(in.Attributes)
	if err != nil {
		return nil, err
	}
	if err := s.checkRedrive(attributes); err != nil {
		return nil, err
	}
	q.attributes = attributes
	q.modified = s.clock.Now()
	return empty{}, nil
}
