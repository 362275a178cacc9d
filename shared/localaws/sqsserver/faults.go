package sqsserver

import "net/http"

// Fault is a failure before or after the request is handled.
type Fault struct {
	Status  int    // HTTP status; 500 and above, and RequestThrottled, are retried by SDKs
	Code    string // error code, for example "InternalError"
	Message string
	// Drop closes the connection without a response.
	Drop bool
	// After handles the request first, so that only the response is lost.
	After bool
}

// Faults of Amazon SQS.
var (
	InternalError      = Fault{Status: http.StatusInternalServerError, Code: "InternalError", Message: "We encountered an internal error. Please try again."}
	ServiceUnavailable = Fault{Status: http.StatusServiceUnavailable, Code: "ServiceUnavailable", Message: "Service is temporarily unavailable."}
	Throttled          = Fault{Status: http.StatusForbidden, Code: "RequestThrottled", Message: "Rate exceeded"}
	AccessDenied       = Fault{Status: http.StatusForbidden, Code: "AccessDenied", Message: "Access to the resource is denied."}
	Dropped            = Fault{Drop: true}
	LostResponse       = Fault{Drop: true, After: true}
)

// SetFail sets a function that returns the fault of each request, or nil. Its
// argument is the action, such as "SendMessageBatch". A nil f ends the faults.
// f may be called concurrently.
func (s *Server) SetFail(f func(action string) *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

// Entry is one entry of a batch request, as a hook for failing entries sees it.
type Entry struct {
	Action string // "SendMessageBatch", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"
	Queue  string // the queue's name
	ID     string // the entry's id in the batch
	Body   string // the message's body; empty unless the action sends
}

// SetFailEntry sets a function that returns the fault of each entry of a
// batch, or nil. An entry with a fault is not carried out and is listed under
// Failed, with SenderFault for a status below 500. A nil f ends the faults. f
// may be called concurrently.
func (s *Server) SetFailEntry(f func(Entry) *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failEntry = f
}

// requestFault returns the fault of one request, or nil.
func (s *Server) requestFault(action string) *Fault {
	s.mu.Lock()
	f := s.fail
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(action)
}

// entryFault returns the fault of one entry of a batch, or nil.
func (s *Server) entryFault(e Entry) *apiError {
	s.mu.Lock()
	f := s.failEntry
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	fault := f(e)
	if fault == nil {
		return nil
	}
	return fault.apiError()
}

func (f *Fault) apiError() *apiError {
	return &apiError{status: f.Status, shape: f.Code, queryCode: f.Code, message: f.Message}
}

// Duplicate delivers a message of the queue once more, as a standard queue may
// at any time: a message in flight becomes visible at once, a visible one is
// returned by two receives. It reports whether the queue has the message.
func (s *Server) Duplicate(queueURL, messageID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.queueByURL(queueURL)
	if err != nil {
		return false
	}
	now := s.clock.Now()
	q.advance(now)
	m, ok := q.messages[messageID]
	if !ok {
		return false
	}
	if m.state == inFlight {
		q.move(m, ready, now)
		return true
	}
	m.duplicates++
	return true
}
