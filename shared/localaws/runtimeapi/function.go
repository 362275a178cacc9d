package runtimeapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/aws/aws-lambda-go/events"
)

// Function is a program and its processes, one for each concurrent invocation.
type Function struct {
	program Program

	mu      sync.Mutex
	closed  bool
	running []*Process
	idle    []*Process // of the running ones
}

// New returns a function without processes.
func New(program Program) *Function { return &Function{program: program} }

var errClosed = errors.New("the function is closed")

// Invoke passes the event to an idle or new process and returns its response.
func (f *Function) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	p, err := f.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer f.release(p)
	return p.Invoke(ctx, payload)
}

// HandleSQS invokes the function with a batch; it is a handler for lambdasource.
func (f *Function) HandleSQS(ctx context.Context, batch events.SQSEvent) (response events.SQSEventResponse, err error) {
	payload, err := json.Marshal(batch)
	if err != nil {
		return response, err
	}
	body, err := f.Invoke(ctx, payload)
	if err != nil {
		return response, err
	}
	if err := json.Unmarshal(body, &response); err != nil {
		return response, fmt.Errorf("function %s answered a batch with %s: %w", f.program.Name, body, err)
	}
	return response, nil
}

func (f *Function) acquire(ctx context.Context) (*Process, error) {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil, errClosed
	}
	for len(f.idle) > 0 {
		last := len(f.idle) - 1
		p := f.idle[last]
		f.idle = f.idle[:last]
		if p.Alive() {
			f.mu.Unlock()
			return p, nil
		}
	}
	f.mu.Unlock()
	p, err := Start(ctx, f.program)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		p.Kill()
		return nil, errClosed
	}
	f.running = slices.DeleteFunc(append(f.running, p), func(p *Process) bool { return !p.Alive() })
	return p, nil
}

func (f *Function) release(p *Process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.Alive() {
		f.idle = append(f.idle, p)
	}
}

// Processes returns the running processes, idle or not, the oldest first.
func (f *Function) Processes() []*Process {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running = slices.DeleteFunc(f.running, func(p *Process) bool { return !p.Alive() })
	return slices.Clone(f.running)
}

// Close kills every process. Running invocations fail.
func (f *Function) Close() {
	f.mu.Lock()
	f.closed = true
	processes := f.running
	f.running, f.idle = nil, nil
	f.mu.Unlock()
	for _, p := range processes {
		p.Kill()
	}
}
