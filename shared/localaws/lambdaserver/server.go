package lambdaserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/lambda/messages"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/google/uuid"
)

const (
	region  = "us-east-1"
	account = "000000000000"

	// maxPayload is Lambda's limit of a synchronous invocation.
	// https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
	maxPayload = 6 << 20

	// closeGrace is how long Close lets callers take their answers.
	closeGrace = 5 * time.Second
)

// Function is a Lambda function: it gets the event and answers with a value
// that becomes JSON. It must end when its context does.
type Function func(ctx context.Context, event json.RawMessage) (any, error)

// Server answers invocations. It is safe for use by several goroutines.
type Server struct {
	functions map[string]Function
	timeout   time.Duration
	url       string
	http      *http.Server

	life    context.Context // of all invocations
	end     context.CancelFunc
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// Start returns a server of these functions, by name, on a free port of
// 127.0.0.1. Each invocation may take as long as timeout. The caller closes it.
func Start(functions map[string]Function, timeout time.Duration) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("lambdaserver: %w", err)
	}
	s := &Server{functions: functions, timeout: timeout, url: "http://" + l.Addr().String()}
	s.life, s.end = context.WithCancel(context.Background())
	mux := http.NewServeMux()
	mux.HandleFunc("POST /2015-03-31/functions/{name}/invocations", s.serve)
	s.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		// Serve ends with ErrServerClosed at Close; a failing listener shows
		// in the callers, whose requests are then refused.
		_ = s.http.Serve(l)
	}()
	return s, nil
}

// URL is where the server listens, for AWS_ENDPOINT_URL_LAMBDA.
func (s *Server) URL() string { return s.url }

// AWSConfig returns a configuration for Lambda clients of this server, with
// made-up credentials. It must not be used for other AWS services.
func (s *Server) AWSConfig() aws.Config {
	return aws.Config{
		Region:       region,
		Credentials:  credentials.NewStaticCredentialsProvider("local", "local", ""),
		BaseEndpoint: aws.String(s.url),
	}
}

// Close ends the context of running invocations, waits for them and their
// answers, and stops listening. It may be called more than once.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
	s.running.Wait()
	grace, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	if s.http.Shutdown(grace) == nil {
		return nil
	}
	// Somebody opened a connection in reserve, or does not take the answer.
	if err := s.http.Close(); err != nil {
		return fmt.Errorf("lambdaserver: %w", err)
	}
	return nil
}

// serve answers one request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	id := uuid.NewString()
	w.Header().Set("X-Amzn-Requestid", id)
	if r.Header.Get("Authorization") == "" {
		refuse(w, http.StatusForbidden, "MissingAuthenticationTokenException", "Missing Authentication Token")
		return
	}
	function, ok := s.functions[plainName(r.PathValue("name"))]
	if !ok {
		refuse(w, http.StatusNotFound, "ResourceNotFoundException", "Function not found: "+arn(plainName(r.PathValue("name"))))
		return
	}
	event, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPayload))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		refuse(w, http.StatusRequestEntityTooLarge, "RequestTooLargeException", fmt.Sprintf("Request must be smaller than %d bytes for the InvokeFunction operation", maxPayload))
		return
	}
	if len(event) == 0 {
		event = []byte("{}")
	}
	if err != nil || !json.Valid(event) {
		refuse(w, http.StatusBadRequest, "InvalidRequestContentException", "Could not parse request body into json")
		return
	}
	i := invocation{id: id, name: plainName(r.PathValue("name")), function: function, event: event}
	s.answer(w, r.Header.Get("X-Amz-Invocation-Type"), i) //nolint:contextcheck // a caller that goes away ends nothing
}

// invocation is one call of a function.
type invocation struct {
	id, name string
	function Function
	event    json.RawMessage
}

func (s *Server) answer(w http.ResponseWriter, kind string, i invocation) {
	switch kind {
	case "", "RequestResponse":
		done, ok := s.invoke(i)
		if !ok {
			refuse(w, http.StatusInternalServerError, "ServiceException", "The server is closing.")
			return
		}
		result := <-done
		w.Header().Set("X-Amz-Executed-Version", "$LATEST")
		if result.failed {
			w.Header().Set("X-Amz-Function-Error", "Unhandled")
		}
		writeJSON(w, http.StatusOK, result.body)
	case "Event":
		if _, ok := s.invoke(i); !ok {
			refuse(w, http.StatusInternalServerError, "ServiceException", "The server is closing.")
			return
		}
		w.WriteHeader(http.StatusAccepted)
	case "DryRun":
		w.WriteHeader(http.StatusNoContent)
	default:
		refuse(w, http.StatusBadRequest, "InvalidParameterValueException", "Unknown invocation type "+kind)
	}
}

// result is the body of an answer, and whether it tells of a failure.
type result struct {
	body   []byte
	failed bool
}

// invoke starts the function and reports false where the server is closing.
// The result comes when the function returns, or at its deadline.
func (s *Server) invoke(i invocation) (<-chan result, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false
	}
	s.running.Add(1)
	ctx, cancel := context.WithTimeout(s.life, s.timeout)
	ctx = lambdacontext.NewContext(ctx, &lambdacontext.LambdaContext{AwsRequestID: i.id, InvokedFunctionArn: arn(i.name)})
	returned, told := make(chan result, 1), make(chan result, 1)
	go func() {
		defer s.running.Done()
		returned <- i.call(ctx)
	}()
	go func() {
		defer cancel()
		select {
		case r := <-returned:
			told <- r
		case <-ctx.Done():
			told <- s.afterDeadline(ctx, returned)
		}
	}()
	return told, true
}

// afterDeadline is what a caller hears whose function did not return in time.
// One that ended because the server closes still gives its own answer.
func (s *Server) afterDeadline(ctx context.Context, returned <-chan result) result {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return failure("Sandbox.Timedout", fmt.Sprintf("Task timed out after %.2f seconds", s.timeout.Seconds()))
	}
	return <-returned
}

// call runs the function; a panic becomes its error.
func (i invocation) call(ctx context.Context) (r result) {
	defer func() {
		if p := recover(); p != nil {
			r = failure("Runtime.Panic", fmt.Sprint(p))
		}
	}()
	answer, err := i.function(ctx, i.event)
	if err != nil {
		return failureOf(err)
	}
	body, err := json.Marshal(answer)
	if err != nil {
		return failureOf(err)
	}
	return result{body: body}
}

// failureOf tells of an error as the Go runtime for Lambda does.
func failureOf(err error) result {
	if e, ok := err.(messages.InvokeResponse_Error); ok { //nolint:errorlint // the runtime does not unwrap either
		return failure(e.Type, e.Message)
	}
	t := reflect.TypeOf(err)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return failure(t.Name(), err.Error())
}

func failure(kind, message string) result {
	body, err := json.Marshal(messages.InvokeResponse_Error{Message: message, Type: kind})
	if err != nil { // two texts: it cannot happen
		body = []byte(`{}`)
	}
	return result{body: body, failed: true}
}

// plainName of a function that may be named by its ARN or with a qualifier:
// NAME, NAME:1, arn:aws:lambda:REGION:ACCOUNT:function:NAME, and that with :1.
func plainName(name string) string {
	if _, after, found := strings.Cut(name, ":function:"); found {
		name = after
	}
	name, _, _ = strings.Cut(name, ":")
	return name
}

func arn(name string) string {
	return fmt.Sprintf("arn:aws:lambda:%s:%s:function:%s", region, account, name)
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("X-Amzn-Errortype", code)
	body, err := json.Marshal(map[string]string{"Type": "User", "Message": message})
	if err != nil { // two texts: it cannot happen
		body = []byte(`{}`)
	}
	writeJSON(w, status, body)
}

func writeJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A failed write means that the caller is gone.
	_, _ = w.Write(body)
}
