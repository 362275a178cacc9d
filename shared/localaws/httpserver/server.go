// Package httpserver listens on this machine for the stand-ins of AWS's services: how they start, which settings
// AWS clients need to reach them, and how they close.
package httpserver

import (
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

// The region and account of every stand-in.
const (
	Region  = "us-east-1"
	Account = "000000000000"
)

// closeTimeout bounds how long Close waits for responses.
const closeTimeout = 5 * time.Second

// Server is a listening HTTP server.
type Server struct {
	url  string
	http *http.Server

	mu     sync.Mutex
	active map[net.Conn]bool // with a request whose response is not finished
}

// Start serves on a free port of 127.0.0.1 until Close.
func Start(handler http.Handler) (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("local AWS server: %w", err)
	}
	s := &Server{url: "http://" + listener.Addr().String(), active: map[net.Conn]bool{}}
	s.http = &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ConnState: s.track}
	go func() {
		_ = s.http.Serve(listener) // Close ends it; if the listener fails, requests are refused
	}()
	return s, nil
}

// URL is the value of AWS_ENDPOINT_URL_... for the service.
func (s *Server) URL() string { return s.url }

// AWSConfig returns settings for clients of this service, with made-up credentials.
func (s *Server) AWSConfig() aws.Config {
	return aws.Config{
		Region: Region, Credentials: credentials.NewStaticCredentialsProvider("local", "local", ""), BaseEndpoint: aws.String(s.url),
	}
}

// Close stops the server after the current responses, or after 5 s. http.Server.Shutdown would also wait for
// connections without a request, and clients open such connections in reserve.
func (s *Server) Close() error {
	tick, timeout := time.NewTicker(time.Millisecond), time.NewTimer(closeTimeout)
	defer tick.Stop()
	defer timeout.Stop()
	for waiting := true; waiting && s.isActive(); {
		select {
		case <-tick.C:
		case <-timeout.C:
			waiting = false
		}
	}
	if err := s.http.Close(); err != nil {
		return fmt.Errorf("local AWS server: %w", err)
	}
	return nil
}

func (s *Server) track(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == http.StateActive {
		s.active[conn] = true
	} else {
		delete(s.active, conn)
	}
}

func (s *Server) isActive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.active) > 0
}
