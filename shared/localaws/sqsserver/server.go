package sqsserver

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/uuid"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/httpserver"
)

// maxHTTPBody is well above a batch of 1 MiB with every character escaped.
const maxHTTPBody = 16 << 20

// Options of a server. The zero value is ready for use.
type Options struct {
	Clock Clock // default: package time
}

// Server is an SQS server, and an http.Handler. It is safe for concurrent use.
type Server struct {
	clock   Clock
	http    *httpserver.Server // nil unless started
	closing chan struct{}      // closed by Close: ends long polls

	mu        sync.Mutex
	closed    bool
	running   sync.WaitGroup // requests
	queues    map[string]*queue
	deleted   map[string]time.Time // when a queue of that name was deleted
	arrivals  uint64
	fail      func(action string) *Fault
	failEntry func(Entry) *Fault
}

// New returns a server without queues, which does not listen.
func New(o Options) *Server {
	s := &Server{clock: o.Clock, closing: make(chan struct{}), queues: map[string]*queue{}, deleted: map[string]time.Time{}}
	if s.clock == nil {
		s.clock = systemClock{}
	}
	return s
}

// Start returns a running server. The caller closes it.
func Start(o Options) (*Server, error) {
	s := New(o)
	var err error
	s.http, err = httpserver.Start(s)
	return s, err
}

// URL is the value of AWS_ENDPOINT_URL_SQS for a started server.
func (s *Server) URL() string { return s.http.URL() }

// AWSConfig returns settings for SQS clients of a started server, with made-up credentials.
func (s *Server) AWSConfig() aws.Config {
	c := s.http.AWSConfig()
	c.HTTPClient = HTTPClient()
	return c
}

// Close ends long polls with an empty response, waits for running requests, and stops listening. Further requests
// get 503. It may be called more than once.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.closing)
	for _, q := range s.queues {
		q.stopTasks()
	}
	s.mu.Unlock()

	if s.http == nil {
		s.running.Wait()
		return nil
	}
	return s.http.Close()
}

// begin counts a running request; it returns false if the server is closed.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.running.Add(1)
	return true
}

// request is the part of the HTTP request that actions use besides its input.
type request struct {
	ctx  context.Context
	base string // URL of this server for the client
}

type action func(s *Server, r request, body []byte) (any, error)

// decoded makes an action of a method that takes a decoded input.
func decoded[In any](method func(s *Server, r request, in *In) (any, error)) action {
	return func(s *Server, r request, body []byte) (any, error) {
		in := new(In)
		if len(body) == 0 {
			return method(s, r, in)
		}
		if err := json.Unmarshal(body, in); err != nil {
			return nil, badRequest("SerializationException", "MalformedInput", "%v", err)
		}
		return method(s, r, in)
	}
}

// onQueue makes an action of a method for one queue. The server is locked while the method runs.
func onQueue[In any](queueURL func(in *In) string, method func(s *Server, q *queue, in *In) (any, error)) action {
	return decoded(func(s *Server, _ request, in *In) (any, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		q, err := s.queueByURL(queueURL(in))
		if err != nil {
			return nil, err
		}
		return method(s, q, in)
	})
}

var actions = map[string]action{
	"CreateQueue":                  decoded((*Server).createQueue),
	"DeleteQueue":                  onQueue(func(in *deleteQueueInput) string { return in.QueueURL }, (*Server).deleteQueue),
	"GetQueueAttributes":           onQueue(func(in *getQueueAttributesInput) string { return in.QueueURL }, (*Server).getQueueAttributes),
	"SetQueueAttributes":           onQueue(func(in *setQueueAttributesInput) string { return in.QueueURL }, (*Server).setQueueAttributes),
	"SendMessage":                  onQueue(func(in *sendMessageInput) string { return in.QueueURL }, (*Server).sendMessage),
	"SendMessageBatch":             decoded((*Server).sendMessageBatch),
	"ReceiveMessage":               decoded((*Server).receiveMessage),
	"DeleteMessage":                onQueue(func(in *deleteMessageInput) string { return in.QueueURL }, (*Server).deleteMessage),
	"DeleteMessageBatch":           decoded((*Server).deleteMessageBatch),
	"ChangeMessageVisibility":      onQueue(func(in *changeMessageVisibilityInput) string { return in.QueueURL }, (*Server).changeMessageVisibility),
	"ChangeMessageVisibilityBatch": decoded((*Server).changeMessageVisibilityBatch),
	"StartMessageMoveTask":         decoded((*Server).startMessageMoveTask),
	"ListMessageMoveTasks":         decoded((*Server).listMessageMoveTasks),
}

// ServeHTTP handles one SQS request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.begin() {
		writeError(w, ServiceUnavailable.apiError())
		return
	}
	defer s.running.Done()

	name, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS.")
	if r.Method != http.MethodPost || !ok {
		writeError(w, badRequest("UnknownOperationException", "InvalidAction", "This server speaks the AWS JSON 1.0 protocol of SQS: POST with X-Amz-Target."))
		return
	}
	if r.Header.Get("Authorization") == "" {
		writeError(w, &apiError{http.StatusForbidden, "MissingAuthenticationToken", "MissingAuthenticationToken", "Request is missing Authentication Token"})
		return
	}
	do, ok := actions[name]
	if !ok {
		writeError(w, errUnsupported("The action %s is not offered by this server.", name))
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxHTTPBody))
	if err != nil {
		writeError(w, badRequest("SerializationException", "MalformedInput", "cannot read the request: %v", err))
		return
	}

	fault := s.requestFault(name)
	if fault != nil && !fault.After {
		sendFault(w, fault)
		return
	}
	out, err := do(s, request{ctx: r.Context(), base: s.baseURL(r)}, body)
	if fault != nil {
		sendFault(w, fault)
		return
	}
	if err != nil {
		writeError(w, asAPIError(err))
		return
	}
	writeJSON(w, http.StatusOK, out)
}

// baseURL is the server's URL; one that does not listen takes it from the request.
func (s *Server) baseURL(r *http.Request) string {
	if s.http != nil {
		return s.http.URL()
	}
	return "http://" + r.Host
}

func sendFault(w http.ResponseWriter, f *Fault) {
	if f.Drop {
		panic(http.ErrAbortHandler) // closes the connection without a response
	}
	writeError(w, f.apiError())
}

func writeError(w http.ResponseWriter, e *apiError) {
	fault := "Receiver"
	if e.senderFault() {
		fault = "Sender"
	}
	if e.queryCode != "" {
		w.Header().Set("X-Amzn-Query-Error", e.queryCode+";"+fault)
	}
	writeJSON(w, e.status, map[string]string{
		"__type":  "com.amazonaws.sqs#" + e.shape,
		"message": e.message,
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status = http.StatusInternalServerError
		body = []byte(`{"__type":"InternalFailure"}`)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.Header().Set("X-Amzn-Requestid", uuid.NewString())
	w.WriteHeader(status)
	_, _ = w.Write(body) // fails only if the client is gone
}
