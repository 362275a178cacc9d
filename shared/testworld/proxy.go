package testworld

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
)

// Proxy passes requests to the fake Stripe and records them. It answers some requests itself if the test wants that.
type Proxy struct {
	to     http.Handler
	server *httptest.Server

	Refuse func(*http.Request) bool // whether to answer the request with 400

	mu     sync.Mutex
	broken map[string]bool // paths whose requests are answered with 500
	paths  []string        // the paths of all requests
	done   []Answered
}

// Answered is a request and its response's status.
type Answered struct {
	URL    *url.URL
	Status int
}

// statusRecorder records the status of the answer.
type statusRecorder struct {
	http.ResponseWriter

	status int
}

func (s *statusRecorder) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
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
	answer := &statusRecorder{w, http.StatusOK}
	p.to.ServeHTTP(answer, r)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = append(p.done, Answered{r.URL, answer.status})
}

// Taken returns the paths of the requests since its last call.
func (p *Proxy) Taken() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	paths := p.paths
	p.paths = nil
	return paths
}

// Answers returns the requests that Stripe answered since its last call.
func (p *Proxy) Answers() []Answered {
	p.mu.Lock()
	defer p.mu.Unlock()
	done := p.done
	p.done = nil
	return done
}

// Break makes requests for the path fail.
func (p *Proxy) Break(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken == nil {
		p.broken = map[string]bool{}
	}
	p.broken[path] = true
}
