package runtimeapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/runtimeapi"
)

// TestMain runs this test binary as a Lambda function if a test started it as one.
func TestMain(m *testing.M) {
	switch os.Getenv("AS_FUNCTION") {
	case "":
		os.Exit(m.Run())
	case "exits":
		os.Exit(3)
	case "refuses":
		refuse()
	default:
		fmt.Println("started")
		lambda.Start(handle)
	}
}

// refuse ends a function that cannot start.
func refuse() {
	response, err := http.Post("http://"+os.Getenv("AWS_LAMBDA_RUNTIME_API")+"/2018-06-01/runtime/init/error", "application/json",
		strings.NewReader(`{"errorType":"Function.CannotStart","errorMessage":"no database"}`))
	if err != nil {
		panic(err)
	}
	response.Body.Close()
	os.Exit(1)
}

// event is the function's instruction.
type event struct {
	Fail  string `json:"fail"`
	Panic bool   `json:"panic"`
	Call  string `json:"call"` // a URL to call

	Records []events.SQSMessage `json:"Records"`
}

// report is what the function sees.
type report struct {
	PID       int
	Environ   []string
	RequestID string
	ARN       string
	Left      time.Duration // until its deadline

	BatchItemFailures []events.SQSBatchItemFailure `json:"batchItemFailures"`
}

func handle(ctx context.Context, e event) (report, error) {
	if e.Fail != "" {
		return report{}, errors.New(e.Fail)
	}
	if e.Panic {
		panic("no way")
	}
	if e.Call != "" {
		response, err := http.Get(e.Call)
		if err != nil {
			return report{}, err
		}
		if err := response.Body.Close(); err != nil {
			return report{}, err
		}
	}
	invocation, _ := lambdacontext.FromContext(ctx)
	deadline, _ := ctx.Deadline()
	r := report{
		PID: os.Getpid(), Environ: os.Environ(), RequestID: invocation.AwsRequestID, ARN: invocation.InvokedFunctionArn, Left: time.Until(deadline),
		BatchItemFailures: []events.SQSBatchItemFailure{},
	}
	for _, m := range e.Records {
		r.BatchItemFailures = append(r.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: m.MessageId})
	}
	return r, nil
}

func program(t *testing.T, as string, timeout time.Duration) runtimeapi.Program {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return runtimeapi.Program{Path: path, Name: "test-function", Environ: []string{"AS_FUNCTION=" + as}, Timeout: timeout, Output: io.Discard}
}

const long = 30 * time.Second

func newFunction(t *testing.T, timeout time.Duration) *runtimeapi.Function {
	t.Helper()
	f := runtimeapi.New(program(t, "handler", timeout))
	t.Cleanup(f.Close)
	return f
}

func invoke(t *testing.T, f *runtimeapi.Function, e event) (r report, err error) {
	t.Helper()
	payload, err := json.Marshal(e)
	if err != nil {
		t.Error(err)
	}
	answer, err := f.Invoke(t.Context(), payload)
	if err == nil {
		err = json.Unmarshal(answer, &r)
	}
	return r, err
}

func wantError(t *testing.T, err error, kind, message string) {
	t.Helper()
	e, ok := errors.AsType[*runtimeapi.Error](err)
	if !ok || (kind != "" && e.Type != kind) || !strings.Contains(e.Message, message) {
		t.Errorf("got %v, want %s with %q", err, kind, message)
	}
}

func TestFunctionSeesItsInvocationButNotOurEnvironment(t *testing.T) {
	t.Setenv("OURS", "secret")
	r, err := invoke(t, newFunction(t, long), event{})
	if err != nil {
		t.Fatal(err)
	}
	if r.RequestID == "" || r.ARN != "arn:aws:lambda:us-east-1:123456789012:function:test-function" || r.Left <= 0 || r.Left > long {
		t.Errorf("%+v", r)
	}
	if !slices.Contains(r.Environ, "AWS_LAMBDA_FUNCTION_NAME=test-function") || !slices.Contains(r.Environ, "AS_FUNCTION=handler") {
		t.Errorf("environment %q", r.Environ)
	}
	for _, name := range []string{"OURS=", "PATH=", "HOME="} {
		if slices.ContainsFunc(r.Environ, func(entry string) bool { return strings.HasPrefix(entry, name) }) {
			t.Errorf("the function sees our %s", name)
		}
	}
}

func TestProcessSurvivesAnErrorButNotAPanic(t *testing.T) {
	f := newFunction(t, long)
	first, err := invoke(t, f, event{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = invoke(t, f, event{Fail: "out of paper"})
	wantError(t, err, "errorString", "out of paper")
	second, err := invoke(t, f, event{})
	if err != nil || second.PID != first.PID || second.RequestID == first.RequestID {
		t.Errorf("%v, process %d, then %d", err, first.PID, second.PID)
	}
	_, err = invoke(t, f, event{Panic: true})
	wantError(t, err, "", "no way")
	third, err := invoke(t, f, event{})
	if err != nil && third.PID == 0 { // the process may have received the event before it ended
		wantError(t, err, runtimeapi.ErrorExit, "exit")
		third, err = invoke(t, f, event{})
	}
	if err != nil || third.PID == first.PID {
		t.Errorf("%v, process %d after the panic of %d", err, third.PID, first.PID)
	}
}

// gate is a server that responds after it is opened.
type gate struct {
	url     string
	arrived chan struct{}
	open    chan struct{}
}

func newGate(t *testing.T) gate {
	t.Helper()
	g := gate{arrived: make(chan struct{}), open: make(chan struct{})}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case g.arrived <- struct{}{}:
		case <-r.Context().Done():
			return
		}
		select {
		case <-g.open:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	g.url = server.URL
	return g
}

func TestConcurrentInvocationsUseSeparateProcessesThatAreReused(t *testing.T) {
	f, g := newFunction(t, long), newGate(t)
	pids := make([]int, 3)
	var group sync.WaitGroup
	for i := range pids {
		group.Go(func() {
			r, err := invoke(t, f, event{Call: g.url})
			if err != nil {
				t.Error(err)
			}
			pids[i] = r.PID
		})
	}
	for range pids {
		<-g.arrived
	}
	close(g.open)
	group.Wait()
	if len(f.Processes()) != 3 || pids[0] == pids[1] || pids[1] == pids[2] || pids[0] == pids[2] {
		t.Errorf("%d processes, %v", len(f.Processes()), pids)
	}
	r, err := invoke(t, f, event{})
	if err != nil || !slices.Contains(pids, r.PID) || len(f.Processes()) != 3 {
		t.Errorf("%v, process %d of %v, %d in all", err, r.PID, pids, len(f.Processes()))
	}
}

func TestKilledProcessFailsItsInvocationAndIsReplaced(t *testing.T) {
	f, g := newFunction(t, long), newGate(t)
	failed := make(chan error)
	go func() {
		_, err := invoke(t, f, event{Call: g.url})
		failed <- err
	}()
	<-g.arrived
	f.Processes()[0].Kill()
	wantError(t, <-failed, runtimeapi.ErrorExit, "signal: killed")
	if n := len(f.Processes()); n != 0 {
		t.Errorf("%d processes run", n)
	}
	if _, err := invoke(t, f, event{}); err != nil {
		t.Error(err)
	}
}

func TestInvocationEndsWithItsTimeoutOrContext(t *testing.T) {
	g := newGate(t)
	go func() {
		for range g.arrived {
		}
	}()
	f := newFunction(t, 200*time.Millisecond)
	_, err := invoke(t, f, event{Call: g.url})
	wantError(t, err, runtimeapi.ErrorTimedOut, "0.20 seconds")
	if n := len(f.Processes()); n != 0 {
		t.Errorf("%d processes outlive the timeout", n)
	}

	f = newFunction(t, long)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := f.Invoke(ctx, []byte(`{"call":"`+g.url+`"}`)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Invoke() = %v", err)
	}
	if n := len(f.Processes()); n != 0 {
		t.Errorf("%d processes outlive the context", n)
	}
}

func TestFailedStartReportsTheCause(t *testing.T) {
	for as, want := range map[string]runtimeapi.Error{
		"exits":   {Type: runtimeapi.ErrorExit, Message: "exit status 3"},
		"refuses": {Type: "Function.CannotStart", Message: "no database"},
	} {
		_, err := runtimeapi.New(program(t, as, long)).Invoke(t.Context(), []byte(`{}`))
		wantError(t, err, want.Type, want.Message)
	}
	missing := program(t, "handler", long)
	missing.Path = "/no/such/bootstrap"
	if _, err := runtimeapi.Start(t.Context(), missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Start() = %v", err)
	}
}

func TestOutputAndInitTimeAreRecorded(t *testing.T) {
	var out bytes.Buffer
	printing := program(t, "handler", long)
	printing.Output = &out
	p, err := runtimeapi.Start(t.Context(), printing)
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	if p.InitTime() <= 0 || p.InitTime() > long || out.String() != "started\n" || p.Alive() {
		t.Errorf("init %v, printed %q, alive %v", p.InitTime(), &out, p.Alive())
	}
	if _, err := p.Invoke(t.Context(), []byte(`{}`)); err == nil {
		t.Error("a dead process answered")
	}
}

func TestBatchResponseIsDecodedAsInLambda(t *testing.T) {
	f := newFunction(t, long)
	response, err := f.HandleSQS(t.Context(), events.SQSEvent{Records: []events.SQSMessage{{MessageId: "m1"}, {MessageId: "m2"}}})
	if err != nil || len(response.BatchItemFailures) != 2 || response.BatchItemFailures[1].ItemIdentifier != "m2" {
		t.Errorf("%+v, %v", response, err)
	}
	f.Close()
	if _, err := f.HandleSQS(t.Context(), events.SQSEvent{}); err == nil || len(f.Processes()) != 0 {
		t.Errorf("a closed function answered: %v, %d processes", err, len(f.Processes()))
	}
}
