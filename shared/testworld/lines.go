package testworld

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"testing"
)

// Lines collects lines of JSON.
type Lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write adds lines.
func (b *Lines) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// Lines returns the lines whose member has the value, or any value if value is nil. If member is empty, it returns all
// lines.
func (b *Lines) Lines(t testing.TB, member string, value any) []map[string]any {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []map[string]any
	for line := range strings.Lines(b.buf.String()) {
		var parsed map[string]any
		if err := json.Unmarshal([]byte(line), &parsed); err != nil {
			t.Fatalf("%q is not JSON: %v", line, err)
		}
		if got, ok := parsed[member]; member == "" || (ok && (value == nil || got == value)) {
			all = append(all, parsed)
		}
	}
	return all
}

// Count returns how many lines contain the text.
func (b *Lines) Count(text string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range strings.Lines(b.buf.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// Reset forgets all lines.
func (b *Lines) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Reset()
}
