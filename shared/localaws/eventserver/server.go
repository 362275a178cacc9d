package eventserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/httpserver"
)

const (
	maxEntries = 10
	maxSize    = 1 << 20
	// maxBody is well above the largest request with every character escaped.
	maxBody = 8 << 20
)

// Event is an accepted event as a target receives it.
type Event struct {
	Version    string          `json:"version"`
	ID         string          `json:"id"` // EventBridge's own
	DetailType string          `json:"detail-type"`
	Source     string          `json:"source"`
	Account    string          `json:"account"`
	Time       time.Time       `json:"time"`
	Region     string          `json:"region"`
	Resources  []string        `json:"resources"`
	Detail     json.RawMessage `json:"detail"`
}

// Entry is one event in a request.
type Entry struct {
	Source       string   `json:"Source"`
	DetailType   string   `json:"DetailType"`
	Detail       string   `json:"Detail"`
	EventBusName string   `json:"EventBusName"`
	Resources    []string `json:"Resources"`
}

// Fault is a failure before or after the request is handled.
type Fault struct {
	Status  int    // HTTP status; 500 and above, and ThrottlingException, are retried by SDKs
	Code    string // error code, for example "InternalException"
	Message string
	Drop    bool // closes the connection without a response
	Hang    bool // sends nothing until the client gives up
	After   bool // handles the request first, so that only the response is lost
}

// Faults of Amazon EventBridge.
var (
	InternalException = Fault{Status: http.StatusInternalServerError, Code: "InternalException", Message: "This exception occurs due to unexpected causes."}
	Throttled         = Fault{Status: http.StatusBadRequest, Code: "ThrottlingException", Message: "Rate exceeded"}
	AccessDenied      = Fault{Status: http.StatusBadRequest, Code: "AccessDeniedException", Message: "User is not authorized to perform: events:PutEvents"}
	Dropped           = Fault{Drop: true}
	LostResponse      = Fault{Drop: true, After: true}
	Hanging           = Fault{Hang: true}
)

// Options of a server.
type Options struct {
	Buses []string // names; nil: "default" only
	// OnEvent receives each accepted event; nil: Events returns them.
	OnEvent func(Event)
}

// Server is an EventBridge. It is safe for concurrent use.
type Server struct {
	*httpserver.Server
	onEvent func(Event)

	mu               sync.Mutex
	buses            []string
	events           []Event
	putRequests      int
	describeRequests int
	fail             func() *Fault
	failEntry        func(Entry) (code string)
}

// Start returns a running server. The caller closes it.
func Start(o Options) (*Server, error) {
	s := &Server{buses: o.Buses, onEvent: o.OnEvent}
	if s.buses == nil {
		s.buses = []string{"default"}
	}
	if s.onEvent == nil {
		s.onEvent = s.keep
	}
	var err error
	s.Server, err = httpserver.Start(s)
	return s, err
}

// Events returns the accepted events in order. One that was sent twice is there twice.
func (s *Server) Events() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// PutRequests returns the number of PutEvents requests.
func (s *Server) PutRequests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.putRequests
}

// DescribeRequests returns the number of DescribeEventBus requests.
func (s *Server) DescribeRequests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.describeRequests
}

// SetBuses replaces the existing buses.
func (s *Server) SetBuses(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buses = names
}

func (s *Server) has(bus string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.buses, busName(bus))
}

// SetFail sets a function that returns the fault of each request, or nil; nil ends the faults. f may be called
// concurrently.
func (s *Server) SetFail(f func() *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

// SetFailEntry sets a function that returns the error code of each entry, such as InternalFailure, or ""; nil ends
// the faults. f may be called concurrently.
func (s *Server) SetFailEntry(f func(Entry) (code string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failEntry = f
}

func (s *Server) keep(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

const (
	putEvents = "AWSEvents.PutEvents"
	describe  = "AWSEvents.DescribeEventBus"
)

// hooks counts the request and returns the functions that may fail it.
func (s *Server) hooks(target string) (fail func() *Fault, failEntry func(Entry) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if target == putEvents {
		s.putRequests++
	} else {
		s.describeRequests++
	}
	return s.fail, s.failEntry
}

// ServeHTTP handles one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	target := r.Header.Get("X-Amz-Target")
	if r.Method != http.MethodPost || (target != putEvents && target != describe) {
		refuse(w, http.StatusBadRequest, "UnknownOperationException", "This server speaks the AWS JSON 1.1 protocol of EventBridge: POST with X-Amz-Target "+putEvents+" or "+describe+".")
		return
	}
	if r.Header.Get("Authorization") == "" {
		refuse(w, http.StatusBadRequest, "MissingAuthenticationTokenException", "Missing Authentication Token")
		return
	}
	fail, failEntry := s.hooks(target)
	var fault *Fault
	if fail != nil {
		fault = fail()
	}
	switch {
	case fault != nil && !fault.After:
		sendFault(w, r, *fault)
	case target == describe:
		s.describe(w, r, fault)
	default:
		s.putEvents(w, r, fault, failEntry)
	}
}

// putEvents sends the fault, if there is one, after it handled the request.
func (s *Server) putEvents(w http.ResponseWriter, r *http.Request, fault *Fault, failEntry func(Entry) string) {
	entries, err := read(w, r)
	if err != nil {
		refuse(w, http.StatusBadRequest, "ValidationException", err.Error())
		return
	}
	response := s.put(entries, failEntry)
	if fault != nil {
		sendFault(w, r, *fault)
		return
	}
	write(w, http.StatusOK, response)
}

// describe handles DescribeEventBus.
func (s *Server) describe(w http.ResponseWriter, r *http.Request, fault *Fault) {
	var in struct{ Name string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in); err != nil {
		refuse(w, http.StatusBadRequest, "SerializationException", err.Error())
		return
	}
	name := busName(in.Name)
	switch {
	case fault != nil:
		sendFault(w, r, *fault)
	case !s.has(name):
		refuse(w, http.StatusBadRequest, "ResourceNotFoundException", "Event bus "+name+" does not exist.")
	default:
		arn := in.Name
		if !strings.HasPrefix(arn, "arn:") {
			arn = "arn:aws:events:" + httpserver.Region + ":" + httpserver.Account + ":event-bus/" + name
		}
		write(w, http.StatusOK, map[string]string{"Name": name, "Arn": arn})
	}
}

// read returns the entries, or the reason why EventBridge would refuse all of them.
func read(w http.ResponseWriter, r *http.Request) ([]Entry, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, err
	}
	var in struct{ Entries []Entry }
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	size, good := 0, 0
	for _, e := range in.Entries {
		size += e.size()
		if e.wrong() == "" {
			good++
		}
	}
	switch {
	case len(in.Entries) == 0 || len(in.Entries) > maxEntries:
		return nil, fmt.Errorf("%d validation error detected: Value at 'entries' failed to satisfy constraint: Member must have length from 1 to %d", 1, maxEntries)
	case size > maxSize:
		return nil, errors.New("Total size of the entries in the request is over the limit.") //nolint:revive,staticcheck // Amazon's words
	case good == 0:
		return nil, errors.New("Every entry lacks one of the parameters Source, DetailType and Detail.") //nolint:revive,staticcheck // likewise
	}
	return in.Entries, nil
}

func (e Entry) size() int {
	size := len(e.Source) + len(e.DetailType) + len(e.Detail)
	for _, r := range e.Resources {
		size += len(r)
	}
	return size
}

// wrong returns the error code of an invalid entry, or "".
func (e Entry) wrong() string {
	const maxDetailType = 128
	var object map[string]json.RawMessage
	switch {
	case e.Source == "", e.DetailType == "", e.Detail == "", len(e.DetailType) > maxDetailType:
		return "InvalidArgument"
	case json.Unmarshal([]byte(e.Detail), &object) != nil:
		return "MalformedDetail"
	default:
		return ""
	}
}

type result struct {
	EventID      string `json:"EventId,omitempty"`
	ErrorCode    string `json:",omitempty"`
	ErrorMessage string `json:",omitempty"`
}

type response struct {
	FailedEntryCount int
	Entries          []result
}

func (s *Server) put(entries []Entry, failEntry func(Entry) string) response {
	var a response
	for _, e := range entries {
		code := e.wrong()
		if code == "" && failEntry != nil {
			code = failEntry(e)
		}
		if code != "" {
			a.FailedEntryCount++
			a.Entries = append(a.Entries, result{ErrorCode: code, ErrorMessage: "The event was not accepted."})
			continue
		}
		id := uuid.NewString()
		a.Entries = append(a.Entries, result{EventID: id})
		if s.has(e.EventBusName) {
			s.onEvent(Event{
				Version: "0", ID: id, DetailType: e.DetailType, Source: e.Source, Account: httpserver.Account, Time: time.Now().UTC().Truncate(time.Second),
				Region: httpserver.Region, Resources: append([]string{}, e.Resources...), Detail: json.RawMessage(e.Detail),
			})
		}
	}
	return a
}

// busName returns the name of a bus that is given by its name, its ARN or not at all.
func busName(named string) string {
	if named == "" {
		return "default"
	}
	return named[strings.LastIndex(named, "/")+1:]
}

func sendFault(w http.ResponseWriter, r *http.Request, f Fault) {
	if f.Hang {
		_, _ = io.Copy(io.Discard, r.Body) // net/http notices a closed connection only after the body
		<-r.Context().Done()
	}
	if f.Drop || f.Hang {
		panic(http.ErrAbortHandler) // closes the connection without a response
	}
	refuse(w, f.Status, f.Code, f.Message)
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	write(w, status, map[string]string{"__type": code, "message": message})
}

func write(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"__type":"InternalFailure"}`)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-Requestid", uuid.NewString())
	w.WriteHeader(status)
	_, _ = w.Write(body) // a failed write means that the client is gone
}
