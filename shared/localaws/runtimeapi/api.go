package runtimeapi

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"
)

// api serves the Runtime API to the process.
func (p *Process) api() http.Handler {
	mux := http.NewServeMux()
	const runtime = "/2018-06-01/runtime/"
	mux.HandleFunc("GET "+runtime+"invocation/next", p.next)
	mux.HandleFunc("POST "+runtime+"invocation/{id}/response", p.response)
	mux.HandleFunc("POST "+runtime+"invocation/{id}/error", p.failure)
	mux.HandleFunc("POST "+runtime+"init/error", p.initFailure)
	return mux
}

// next waits for an event.
func (p *Process) next(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	if !p.asked {
		p.asked, p.initTime = true, time.Since(p.started)
		close(p.ready)
	}
	p.mu.Unlock()
	select {
	case i := <-p.events:
		p.mu.Lock()
		p.current = i
		p.mu.Unlock()
		h := w.Header()
		h.Set("Lambda-Runtime-Aws-Request-Id", i.id)
		h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(i.deadline.UnixMilli(), 10))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:"+region+":"+account+":function:"+p.program.Name)
		h.Set("Content-Type", "application/json")
		_, _ = w.Write(i.payload) // a process that is gone ends the invocation
	case <-r.Context().Done():
	}
}

func (p *Process) response(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, http.StatusBadRequest, "InvalidBody", err.Error())
		return
	}
	p.finish(w, r.PathValue("id"), response{payload: body})
}

func (p *Process) failure(w http.ResponseWriter, r *http.Request) {
	p.finish(w, r.PathValue("id"), response{err: reported(r)})
}

func (p *Process) initFailure(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.refusal = reported(r)
	p.mu.Unlock()
	accept(w)
}

// reported reads the error that a function reports.
func reported(r *http.Request) *Error {
	e := &Error{}
	if err := json.NewDecoder(r.Body).Decode(e); err != nil {
		return &Error{Type: "Runtime.UnreadableError", Message: err.Error()}
	}
	return e
}

// finish completes the current invocation, once.
func (p *Process) finish(w http.ResponseWriter, id string, a response) {
	p.mu.Lock()
	i := p.current
	if i == nil || i.id != id {
		p.mu.Unlock()
		refuse(w, http.StatusBadRequest, "InvalidRequestID", "this is not the current invocation")
		return
	}
	p.current = nil
	p.mu.Unlock()
	i.response <- a
	accept(w)
}

func accept(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, `{"status":"OK"}`) // fails only if the process has ended
}

func refuse(w http.ResponseWriter, status int, kind, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(Error{Type: kind, Message: message}) // fails only if the process has ended
}
