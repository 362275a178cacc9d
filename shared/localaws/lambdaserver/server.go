package lambdaserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/lambda/messages"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/google/uuid"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/httpserver"
)

// maxPayload is Lambda's limit for a synchronous invocation.
// https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
const maxPayload = 6 << 20

// Function is a Lambda function: it receives the event and returns a value that becomes JSON. It must return when
// its context ends.
type Function func(ctx context.Context, event json.RawMessage) (any, error)

// Server handles invocations. It is safe for concurrent use.
type Server struct {
	*httpserver.Server
	functions map[string]Function
	timeout   time.Duration

	ctx     context.Context // parent of all invocations' contexts
	cancel  context.CancelFunc
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// Start returns a running server of these functions, by name. timeout is that of each invocation. The caller
// closes the server.
func Start(functions map[string]Function, timeout time.Duration) (*Server, error) {
	s := &Server{functions: functions, timeout: timeout}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	mux := http.NewServeMux()
	mux.HandleFunc("POST /2015-03-31/functions/{name}/invocations", s.serve)
	var err error
	s.Server, err = httpserver.Start(mux)
	return s, err
}

// Close cancels the context of running invocations, waits for them and their responses, and stops listening. It
// may be called more than once.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.running.Wait()
	return s.Server.Close()
}

// serve handles one request.
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
	s.respond(w, r.Header.Get("X-Amz-Invocation-Type"), i) //nolint:contextcheck // an invocation outlives its caller
}

// invocation is one call of a function.
type invocation struct {
	id, name string
	function Function
	event    json.RawMessage
}

func (s *Server) respond(w http.ResponseWriter, kind string, i invocation) {
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

// result is the body of a response, and whether the function failed.
type result struct {
	body   []byte
	failed bool
}

// invoke starts the function; it returns false if the server is closing. The result arrives when the function
// returns, or at its deadline.
func (s *Server) invoke(i invocation) (<-chan result, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false
	}
	s.running.Add(1)
	ctx, cancel := context.WithTimeout(s.ctx, s.timeout)
	ctx = lambdacontext.NewContext(ctx, &lambdacontext.LambdaContext{AwsRequestID: i.id, InvokedFunctionArn: arn(i.name)})
	returned, delivered := make(chan result, 1), make(chan result, 1)
	go func() {
		defer s.running.Done()
		returned <- i.call(ctx)
	}()
	go func() {
		defer cancel()
		select {
		case r := <-returned:
			delivered <- r
		case <-ctx.Done():
			delivered <- s.afterDeadline(ctx, returned)
		}
	}()
	return delivered, true
}

// afterDeadline returns a timeout. If the context ended because the server closes, it waits for the function's
// own result.
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
	response, err := i.function(ctx, i.event)
	if err != nil {
		return failureOf(err)
	}
	body, err := json.Marshal(response)
	if err != nil {
		return failureOf(err)
	}
	return result{body: body}
}

// failureOf returns the error in the format of the Go runtime for Lambda.
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

// plainName returns the name of a function that is given as NAME or
// arn:aws:lambda:REGION:ACCOUNT:function:NAME, with or without a qualifier such as :1.
func plainName(name string) string {
	if _, after, found := strings.Cut(name, ":function:"); found {
		name = after
	}
	name, _, _ = strings.Cut(name, ":")
	return name
}

func arn(name string) string {
	return fmt.Sprintf("arn:aws:lambda:%s:%s:function:%s", httpserver.Region, httpserver.Account, name)
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
	_, _ = w.Write(body) // fails only if the caller is gone
}
