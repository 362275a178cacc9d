package testworld

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
)

// Proxy passes requests to the fake Stripe, notes them, and answers for it where the test wants that.
type Proxy struct {
	to     http.Handler
	server *httptest.Server

	Refuse func(*http.Request) bool // what answers 400

	mu     sync.Mutex
	broken map[string]bool // paths that answer 500
	paths  []string        // of every request
	done   []Answered
}

// Answered is a request and its answer's status.
type Answered struct {
	URL    *url.URL
	Status int
}

// noting keeps the status of what is written.
type noting struct {
	http.ResponseWriter

	status int
}

func (n *noting) WriteHeader(status int) {
	n.status = status
	n.ResponseWriter.WriteHeader(status)
}

// ServeHTTP answers for Stripe.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.paths = append(p.paths, r.URL.Path)
	broken := p.broken[r.URL.Path]
	p.mu.Unlock()
	if broken {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write([]byte(`{"error":{"type":"api_error","message":"this object is broken"}}`))
		return
	}
	if p.Refuse != nil && p.Refuse(r) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error":{"type":"invalid_request_error","message":"this is refused"}}`))
		return
	}
	n := &noting{w, http.StatusOK}
	p.to.ServeHTTP(n, r)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = append(p.done, Answered{r.URL, n.status})
}

// Taken returns the paths of the requests since it was last called.
func (p *Proxy) Taken() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	paths := p.paths
	p.paths = nil
	return paths
}

// Answers returns the requests that were answered since it was last called.
func (p *Proxy) Answers() []Answered {
	p.mu.Lock()
	defer p.mu.Unlock()
	done := p.done
	p.done = nil
	return done
}

// Break has requests for the path fail.
func (p *Proxy) Break(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken == nil {
		p.broken = map[string]bool{}
	}
	p.broken[path] = true
}
