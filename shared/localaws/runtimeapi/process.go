package runtimeapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	// initTimeout is Lambda's limit until a process requests its first event.
	initTimeout    = 10 * time.Second
	defaultTimeout = 3 * time.Second // of an invocation, as Lambda's
	region         = "us-east-1"
	account        = "123456789012"
)

// Program is the bootstrap of a function and its settings.
type Program struct {
	Path    string        // of the bootstrap
	Name    string        // of the function
	Environ []string      // NAME=value; overrides what Lambda sets
	Timeout time.Duration // of an invocation; default 3 s
	// Output receives the output of all processes, concurrently; nil discards it.
	Output io.Writer
}

// Error is the function's own error, or the end of its process.
type Error struct {
	Type    string `json:"errorType"`
	Message string `json:"errorMessage"`
}

func (e *Error) Error() string { return e.Type + ": " + e.Message }

// Lambda's types of errors that are not the function's own.
const (
	ErrorExit     = "Runtime.ExitError"
	ErrorTimedOut = "Sandbox.Timedout"
)

// Process is a running bootstrap.
type Process struct {
	program  Program
	command  *exec.Cmd
	server   *http.Server
	started  time.Time
	ready    chan struct{} // closed when it first requests an event
	events   chan *invocation
	exited   chan struct{} // closed when it has ended
	initTime time.Duration // set before ready is closed
	exit     error         // set before exited is closed

	mu      sync.Mutex
	asked   bool
	current *invocation
	refusal *Error // the error that it reported at its start
}

// invocation is one event and its response.
type invocation struct {
	id       string
	payload  []byte
	deadline time.Time
	response chan response // buffered for one
}

type response struct {
	payload []byte
	err     error
}

// Start starts a process and waits until it requests its first event. The error is an *Error if the process reported one
// or ended.
func Start(ctx context.Context, program Program) (*Process, error) {
	if program.Timeout == 0 {
		program.Timeout = defaultTimeout
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("runtime API: %w", err)
	}
	p := &Process{
		program: program, ready: make(chan struct{}), events: make(chan *invocation), exited: make(chan struct{}),
	}
	p.server = &http.Server{Handler: p.api(), ReadHeaderTimeout: initTimeout}
	// The process outlives the context of its start: Kill ends it.
	p.command = exec.CommandContext(context.WithoutCancel(ctx), program.Path)
	p.command.Env = append(p.environ(listener.Addr().String()), program.Environ...)
	p.command.Stdout, p.command.Stderr = program.Output, program.Output
	p.started = time.Now()
	go func() {
		_ = p.server.Serve(listener) // Close ends it; if the listener fails, the process notices
	}()
	if err := p.command.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", program.Path, err), p.server.Close())
	}
	go p.wait()
	if err := p.awaitReady(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// environ returns the variables that Lambda sets:
// https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
func (p *Process) environ(api string) []string {
	return []string{
		"AWS_LAMBDA_RUNTIME_API=" + api, "AWS_LAMBDA_FUNCTION_NAME=" + p.program.Name, "AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256", "AWS_LAMBDA_INITIALIZATION_TYPE=on-demand",
		"AWS_LAMBDA_LOG_GROUP_NAME=" + p.program.Name, "AWS_LAMBDA_LOG_STREAM_NAME=local", "_HANDLER=bootstrap", "TZ=:UTC",
		"AWS_REGION=" + region, "AWS_DEFAULT_REGION=" + region, "LAMBDA_TASK_ROOT=" + filepath.Dir(p.program.Path),
		"AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local", "AWS_SESSION_TOKEN=local",
	}
}

func (p *Process) wait() {
	p.exit = p.command.Wait()
	close(p.exited)
	_ = p.server.Close() // it has no client left
}

func (p *Process) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, initTimeout)
	defer cancel()
	select {
	case <-p.ready:
		return nil
	case <-p.exited:
		return p.ended()
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("function %s did not request an event: %w", p.program.Name, ctx.Err())
	}
}

// ended returns why the process has ended.
func (p *Process) ended() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refusal != nil {
		return p.refusal
	}
	status := "exit status 0"
	if p.exit != nil {
		status = p.exit.Error()
	}
	return &Error{Type: ErrorExit, Message: "Runtime exited: " + status}
}

// InitTime is the time from the start of the process to its first request for an event.
func (p *Process) InitTime() time.Duration { return p.initTime }

// PID is the process's id on this machine.
func (p *Process) PID() int { return p.command.Process.Pid }

// Kill kills the process and waits for its end.
func (p *Process) Kill() {
	_ = p.command.Process.Kill() // it may have ended already
	<-p.exited
}

// Alive reports whether the process is running.
func (p *Process) Alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Invoke waits until the process is idle, passes the event to it and returns the function's response. It kills the
// process if ctx ends.
func (p *Process) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	i := &invocation{
		id: uuid.NewString(), payload: payload, deadline: time.Now().Add(p.program.Timeout), response: make(chan response, 1),
	}
	timeout := time.NewTimer(p.program.Timeout)
	defer timeout.Stop()
	select {
	case p.events <- i:
	case <-p.exited:
		return nil, p.ended()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case a := <-i.response:
		return a.payload, a.err
	case <-p.exited:
		return i.last(p.ended())
	case <-timeout.C:
		p.Kill()
		return i.last(&Error{Type: ErrorTimedOut, Message: fmt.Sprintf("Task timed out after %.2f seconds", p.program.Timeout.Seconds())})
	case <-ctx.Done():
		p.Kill()
		return i.last(ctx.Err())
	}
}

// last returns the response if there is one, else the error.
func (i *invocation) last(err error) ([]byte, error) {
	select {
	case a := <-i.response:
		return a.payload, a.err
	default:
		return nil, err
	}
}
