package eventserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/google/uuid"
)

const (
	region  = "us-east-1"
	account = "000000000000"

	maxEntries = 10
	maxSize    = 1 << 20
	// maxBody is well above the largest request with every character escaped.
	maxBody = 8 << 20

	// closeGrace is how long Close lets clients take their answers.
	closeGrace = 5 * time.Second
)

// Event is what a target gets of an accepted event.
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

// Entry is one event of a request.
type Entry struct {
	Source       string   `json:"Source"`
	DetailType   string   `json:"DetailType"`
	Detail       string   `json:"Detail"`
	EventBusName string   `json:"EventBusName"`
	Resources    []string `json:"Resources"`
}

// Fault is a failure to answer instead of, or after, doing the work.
type Fault struct {
	Status  int    // HTTP status; 500 and above, and ThrottlingException, are retried by SDKs
	Code    string // error code, for example "InternalException"
	Message string
	Drop    bool // closes the connection without an answer
	Hang    bool // answers nothing until the client gives up
	After   bool // does the work first, so that only the answer is lost
}

// Faults as they happen with Amazon EventBridge.
var (
	InternalException = Fault{Status: http.StatusInternalServerError, Code: "InternalException", Message: "This exception occurs due to unexpected causes."}
	Throttled         = Fault{Status: http.StatusBadRequest, Code: "ThrottlingException", Message: "Rate exceeded"}
	AccessDenied      = Fault{Status: http.StatusBadRequest, Code: "AccessDeniedException", Message: "User is not authorized to perform: events:PutEvents"}
	Dropped           = Fault{Drop: true}
	LostAnswer        = Fault{Drop: true, After: true}
	Hanging           = Fault{Hang: true}
)

// Options of a server.
type Options struct {
	Buses []string // names; nil: "default" only
	// OnEvent gets each accepted event; nil: they are kept, for Events.
	OnEvent func(Event)
}

// Server is an EventBridge. It is safe for use by several goroutines.
type Server struct {
	take func(Event)
	url  string
	http *http.Server

	mu        sync.Mutex
	buses     []string
	events    []Event
	requests  int
	looks     int
	fail      func() *Fault
	failEntry func(Entry) (code string)
}

// Start returns a server that listens on a free port of 127.0.0.1. The caller closes it.
func Start(o Options) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("eventserver: %w", err)
	}
	s := &Server{buses: o.Buses, take: o.OnEvent, url: "http://" + l.Addr().String()}
	if s.buses == nil {
		s.buses = []string{"default"}
	}
	if s.take == nil {
		s.take = s.keep
	}
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		// Serve ends with ErrServerClosed at Close; a failing listener shows in the clients, whose requests are
		// then refused.
		_ = s.http.Serve(l)
	}()
	return s, nil
}

// URL is where the server listens, for AWS_ENDPOINT_URL_EVENTBRIDGE.
func (s *Server) URL() string { return s.url }

// AWSConfig returns a configuration for EventBridge clients of this server, with made-up credentials. It must
// not be used for other AWS services.
func (s *Server) AWSConfig() aws.Config {
	return aws.Config{
		Region: region, Credentials: credentials.NewStaticCredentialsProvider("local", "local", ""), BaseEndpoint: aws.String(s.url),
	}
}

// Close stops listening, once running requests are answered or have taken too long.
func (s *Server) Close() error {
	grace, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	if s.http.Shutdown(grace) == nil {
		return nil
	}
	if err := s.http.Close(); err != nil {
		return fmt.Errorf("eventserver: %w", err)
	}
	return nil
}

// Events returns the accepted events, in their order, as often as they were sent.
func (s *Server) Events() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// PutRequests returns how many PutEvents there were.
func (s *Server) PutRequests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// DescribeRequests returns how many DescribeEventBus there were.
func (s *Server) DescribeRequests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.looks
}

// SetBuses has these buses exist from now on, and no others.
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

// SetFail has f asked before each request, whatever it is for. A nil answer lets it through. A nil f ends the faults. f may be
// called by several goroutines at once.
func (s *Server) SetFail(f func() *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

// SetFailEntry has f asked before each entry. One for which it answers an error code, such as InternalFailure, is
// refused. A nil f ends the faults. f may be called by several goroutines at once.
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

// hooks counts a request and returns what is asked for it.
func (s *Server) hooks(target string) (fail func() *Fault, failEntry func(Entry) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if target == putEvents {
		s.requests++
	} else {
		s.looks++
	}
	return s.fail, s.failEntry
}

// ServeHTTP answers one request.
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
		answerFault(w, r, *fault)
	case target == describe:
		s.describe(w, r, fault)
	default:
		s.putEvents(w, r, fault, failEntry)
	}
}

// putEvents answers with the fault, if there is one, once the work is done.
func (s *Server) putEvents(w http.ResponseWriter, r *http.Request, fault *Fault, failEntry func(Entry) string) {
	entries, err := read(w, r)
	if err != nil {
		refuse(w, http.StatusBadRequest, "ValidationException", err.Error())
		return
	}
	answer := s.put(entries, failEntry)
	if fault != nil {
		answerFault(w, r, *fault)
		return
	}
	write(w, http.StatusOK, answer)
}

// describe tells of one bus of the account.
func (s *Server) describe(w http.ResponseWriter, r *http.Request, fault *Fault) {
	var in struct{ Name string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in); err != nil {
		refuse(w, http.StatusBadRequest, "SerializationException", err.Error())
		return
	}
	name := busName(in.Name)
	switch {
	case fault != nil:
		answerFault(w, r, *fault)
	case !s.has(name):
		refuse(w, http.StatusBadRequest, "ResourceNotFoundException", "Event bus "+name+" does not exist.")
	default:
		arn := in.Name
		if !strings.HasPrefix(arn, "arn:") {
			arn = "arn:aws:events:" + region + ":" + account + ":event-bus/" + name
		}
		write(w, http.StatusOK, map[string]string{"Name": name, "Arn": arn})
	}
}

// read refuses what EventBridge refuses as a whole.
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

// wrong says why the entry cannot be an event; "" if it can.
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

type answer struct {
	FailedEntryCount int
	Entries          []result
}

func (s *Server) put(entries []Entry, failEntry func(Entry) string) answer {
	var a answer
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
			s.take(Event{
				Version: "0", ID: id, DetailType: e.DetailType, Source: e.Source, Account: account, Time: time.Now().UTC().Truncate(time.Second),
				Region: region, Resources: append([]string{}, e.Resources...), Detail: json.RawMessage(e.Detail),
			})
		}
	}
	return a
}

// busName is that of a bus named by its name, its ARN or not at all.
func busName(named string) string {
	if named == "" {
		return "default"
	}
	return named[strings.LastIndex(named, "/")+1:]
}

func answerFault(w http.ResponseWriter, r *http.Request, f Fault) {
	if f.Hang {
		_, _ = io.Copy(io.Discard, r.Body) // only then net/http sees the client go
		<-r.Context().Done()
	}
	if f.Drop || f.Hang {
		panic(http.ErrAbortHandler) // net/http closes the connection without a word
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
