package sqsserver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/google/uuid"
)

const (
	defaultRegion  = "us-east-1"
	defaultAccount = "000000000000"

	// maxHTTPBody is well above a batch of 1 MiB with every character escaped.
	maxHTTPBody = 16 << 20

	// closeGrace is how long Close waits for clients to take their answers.
	closeGrace = 5 * time.Second
)

// Options of a server. The zero value is ready for use.
type Options struct {
	Clock   Clock  // default: package time
	Region  string // of queue ARNs; default us-east-1
	Account string // of queue ARNs and URLs; default 000000000000
}

// Server is an SQS server, and an http.Handler. It is safe for use by several
// goroutines.
type Server struct {
	clock   Clock
	region  string
	account string
	url     string // empty unless started
	http    *http.Server
	// answering are the connections with a request whose answer has not left yet.
	answering connections
	closing   chan struct{} // closed by Close: ends long polls

	mu        sync.Mutex
	closed    bool
	running   sync.WaitGroup // requests being answered
	queues    map[string]*queue
	deleted   map[string]time.Time // when a queue of that name was deleted
	arrivals  uint64
	fail      func(action string) *Fault
	failEntry func(Entry) *Fault
}

// New returns a server without queues, to be mounted as an http.Handler.
func New(o Options) *Server {
	s := &Server{
		clock:   o.Clock,
		region:  o.Region,
		account: o.Account,
		closing: make(chan struct{}),
		queues:  map[string]*queue{},
		deleted: map[string]time.Time{},
	}
	if s.clock == nil {
		s.clock = systemClock{}
	}
	if s.region == "" {
		s.region = defaultRegion
	}
	if s.account == "" {
		s.account = defaultAccount
	}
	return s
}

// Start returns a server that listens on a free port of 127.0.0.1. The caller
// closes it.
func Start(o Options) (*Server, error) {
	s := New(o)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("sqsserver: %w", err)
	}
	s.url = "http://" + l.Addr().String()
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, ConnState: s.answering.track}
	go func() {
		// Serve ends with ErrServerClosed at Close; a failing listener shows
		// in the clients, whose requests are then refused.
		_ = s.http.Serve(l)
	}()
	return s, nil
}

// URL is where a started server listens, for AWS_ENDPOINT_URL_SQS. It is empty
// for a server that was made by New.
func (s *Server) URL() string { return s.url }

// AWSConfig returns a configuration for SQS clients of a started server, with
// made-up credentials. It must not be used for other AWS services.
func (s *Server) AWSConfig() aws.Config {
	return aws.Config{
		Region:       s.region,
		Credentials:  credentials.NewStaticCredentialsProvider("local", "local", ""),
		BaseEndpoint: aws.String(s.url),
		HTTPClient:   HTTPClient(),
	}
}

// Close ends long polls with an empty answer, lets running requests finish,
// and stops listening. Further requests get 503. It may be called more than
// once.
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
	s.answering.waitFor(closeGrace)
	if err := s.http.Close(); err != nil {
		return fmt.Errorf("sqsserver: %w", err)
	}
	return nil
}

// begin counts a request as running, unless the server is closed.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.running.Add(1)
	return true
}

// request is what an action knows of the HTTP request besides its input.
type request struct {
	ctx  context.Context
	base string // URL of this server as the client reached it
}

type action func(s *Server, r request, body []byte) (any, error)

// decoded makes an action of a method with a typed input.
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

var actions = map[string]action{
	"CreateQueue":                  decoded((*Server).createQueue),
	"DeleteQueue":                  decoded((*Server).deleteQueue),
	"GetQueueAttributes":           decoded((*Server).getQueueAttributes),
	"SetQueueAttributes":           decoded((*Server).setQueueAttributes),
	"SendMessage":                  decoded((*Server).sendMessage),
	"SendMessageBatch":             decoded((*Server).sendMessageBatch),
	"ReceiveMessage":               decoded((*Server).receiveMessage),
	"DeleteMessage":                decoded((*Server).deleteMessage),
	"DeleteMessageBatch":           decoded((*Server).deleteMessageBatch),
	"ChangeMessageVisibility":      decoded((*Server).changeMessageVisibility),
	"ChangeMessageVisibilityBatch": decoded((*Server).changeMessageVisibilityBatch),
	"StartMessageMoveTask":         decoded((*Server).startMessageMoveTask),
	"ListMessageMoveTasks":         decoded((*Server).listMessageMoveTasks),
}

// ServeHTTP answers one SQS request.
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
		answerFault(w, fault)
		return
	}
	out, err := do(s, request{ctx: r.Context(), base: s.baseURL(r)}, body)
	if fault != nil {
		answerFault(w, fault)
		return
	}
	if err != nil {
		writeError(w, asAPIError(err))
		return
	}
	writeJSON(w, http.StatusOK, out)
}

// baseURL is the server's URL; one that was not started takes it from the request.
func (s *Server) baseURL(r *http.Request) string {
	if s.url != "" {
		return s.url
	}
	return "http://" + r.Host
}

func answerFault(w http.ResponseWriter, f *Fault) {
	if f.Drop {
		panic(http.ErrAbortHandler) // net/http closes the connection without a word
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
	// A failed write means that the client is gone.
	_, _ = w.Write(body)
}
