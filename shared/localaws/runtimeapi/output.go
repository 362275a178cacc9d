package runtimeapi

import (
	"bytes"
	"sync"
)

// OutputBuffer keeps the output of programs. It is safe for concurrent use.
type OutputBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer; it never fails.
func (p *OutputBuffer) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.Write(text)
}

// String returns the output so far.
func (p *OutputBuffer) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.String()
}
