package sqsserver

import "net/http"

// Fault is a failure to answer instead of, or after, doing the work.
type Fault struct {
	Status  int    // HTTP status; 500 and above, and RequestThrottled, are retried by SDKs
	Code    string // error code, for example "InternalError"
	Message string
	// Drop closes the connection without an answer.
	Drop bool
	// After does the work first, so that only the answer is lost.
	After bool
}

// Faults as they happen with Amazon SQS.
var (
	InternalError      = Fault{Status: http.StatusInternalServerError, Code: "InternalError", Message: "We encountered an internal error. Please try again."}
	ServiceUnavailable = Fault{Status: http.StatusServiceUnavailable, Code: "ServiceUnavailable", Message: "Service is temporarily unavailable."}
	Throttled          = Fault{Status: http.StatusForbidden, Code: "RequestThrottled", Message: "Rate exceeded"}
	AccessDenied       = Fault{Status: http.StatusForbidden, Code: "AccessDenied", Message: "Access to the resource is denied."}
	Dropped            = Fault{Drop: true}
	LostAnswer         = Fault{Drop: true, After: true}
)

// SetFail has f asked before each request, with the action's name such as
// "SendMessageBatch". A nil answer lets the request through. A nil f ends the
// faults. f may be called by several goroutines at once.
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

// SetFailEntry has f asked before each entry of a batch. An entry for which it
// answers a fault is not carried out and is listed under Failed, with
// SenderFault for a status below 500. A nil f ends the faults. f may be called
// by several goroutines at once.
func (s *Server) SetFailEntry(f func(Entry) *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failEntry = f
}

// requestFault asks the hook about one request.
func (s *Server) requestFault(action string) *Fault {
	s.mu.Lock()
	f := s.fail
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(action)
}

// entryFault asks the hook about one entry of a batch.
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

// Duplicate has a message of the queue delivered once more than it would be,
// as a standard queue may at any time: a message in flight becomes visible at
// once although its receiver still works on it, a visible one is handed out
// by two receives. It reports whether the queue holds the message.
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
		q.hide(m, ready, now)
		return true
	}
	m.duplicates++
	return true
}
