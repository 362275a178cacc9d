// Package s3server is an Amazon S3 for one machine, as far as this system speaks to it: it answers PutObject
// over HTTP, for buckets in the path, and keeps what is put in memory. Tests run it; in production the same
// code talks to Amazon S3.
//
// As S3 does, it refuses a request without an Authorization header (signatures are not verified) and a bucket
// that there is not, and keeps an object only once its whole body came.
package s3server

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

const region = "us-east-1"

// Object is what a bucket holds under a key.
type Object struct {
	ContentType string
	Body        []byte
	Puts        int // how often it was written
}

// Fault is a failure to answer.
type Fault struct {
	Status int    // HTTP status; SDKs try again from 500 on
	Code   string // such as AccessDenied
	// Lost: the object is kept, but the connection is closed without an answer.
	Lost bool
}

// Options shape a server.
type Options struct {
	Buckets []string
	// Fault is asked before each request is answered; nil fails none.
	Fault func(key string) *Fault
}

// Server is a running one.
type Server struct {
	options Options
	url     string
	server  *http.Server

	mu      sync.Mutex
	objects map[string]Object // by bucket/key
}

// Start serves on a free port of this machine until Close.
func Start(options Options) (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{options: options, url: "http://" + listener.Addr().String(), objects: map[string]Object{}}
	s.server = &http.Server{Handler: s} //nolint:gosec // G112: only this machine reaches it
	go func() {
		if err := s.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			panic(err)
		}
	}()
	return s, nil
}

// Close ends the server and its connections.
func (s *Server) Close() error { return s.server.Close() }

// URL is what AWS_ENDPOINT_URL_S3 is set to.
func (s *Server) URL() string { return s.url }

// AWSConfig returns settings whose clients speak to this server.
func (s *Server) AWSConfig() aws.Config {
	return aws.Config{
		Region: region, BaseEndpoint: &s.url, Credentials: credentials.NewStaticCredentialsProvider("local", "local", ""),
	}
}

// Objects returns what the bucket holds, by key.
func (s *Server) Objects(bucket string) map[string]Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[string]Object{}
	for name, object := range s.objects {
		if key, in := strings.CutPrefix(name, bucket+"/"); in {
			found[key] = object
		}
	}
	return found
}

// Keys returns the keys of the bucket, in their order.
func (s *Server) Keys(bucket string) []string { return slices.Sorted(maps.Keys(s.Objects(bucket))) }

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	var fault *Fault
	if s.options.Fault != nil {
		fault = s.options.Fault(key)
	}
	switch {
	case r.Method != http.MethodPut || key == "":
		refuse(w, http.StatusNotImplemented, "NotImplemented")
	case r.Header.Get("Authorization") == "":
		refuse(w, http.StatusForbidden, "AccessDenied")
	case !slices.Contains(s.options.Buckets, bucket):
		refuse(w, http.StatusNotFound, "NoSuchBucket")
	case fault != nil && !fault.Lost:
		refuse(w, fault.Status, fault.Code)
	default:
		body, err := bodyOf(r)
		if err != nil {
			refuse(w, http.StatusBadRequest, "IncompleteBody")
			return
		}
		s.keep(bucket+"/"+key, Object{ContentType: r.Header.Get("Content-Type"), Body: body})
		if fault != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

func (s *Server) keep(name string, o Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.Puts = s.objects[name].Puts + 1
	s.objects[name] = o
}

// bodyOf reads the object. SDKs may send it in chunks, with a checksum behind them.
// https://docs.aws.amazon.com/AmazonS3/latest/developerguide/sigv4-streaming-trailers.html
func bodyOf(r *http.Request) ([]byte, error) {
	if !strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
		return io.ReadAll(r.Body)
	}
	var body bytes.Buffer
	in := bufio.NewReader(r.Body)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, err
		}
		size, _, _ := strings.Cut(strings.TrimSpace(line), ";")
		n, err := strconv.ParseInt(size, 16, 64)
		if err != nil {
			return nil, fmt.Errorf("a chunk begins with %q", line)
		}
		if n == 0 {
			_, err := io.Copy(io.Discard, in)
			return body.Bytes(), err
		}
		if _, err := io.CopyN(&body, in, n); err != nil {
			return nil, err
		}
		if _, err := in.Discard(2); err != nil {
			return nil, err
		}
	}
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	answer := struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
	}{Code: code, Message: "refused: " + code}
	_ = xml.NewEncoder(w).Encode(answer) // whoever asked is gone
}
