// Package s3server is the part of Amazon S3 that this system uses, for tests: it serves PutObject over HTTP, for
// buckets in the path, and keeps the objects in memory.
//
// As S3 does, it refuses a request without an Authorization header (signatures are not verified) and a bucket that
// does not exist, and stores an object only after its whole body arrived.
package s3server

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/httpserver"
)

// Object is a stored object.
type Object struct {
	ContentType string
	Body        []byte
	Puts        int // number of times it was written
}

// Fault is a failed request.
type Fault struct {
	Status int    // HTTP status; SDKs retry from 500 on
	Code   string // such as AccessDenied
	// Lost: the object is stored, but the connection is closed without a response.
	Lost bool
}

// Options of a server.
type Options struct {
	Buckets []string
	// Fault returns the fault of each request, or nil; a nil Fault fails none.
	Fault func(key string) *Fault
}

// Server is an S3. It is safe for concurrent use.
type Server struct {
	*httpserver.Server
	options Options

	mu      sync.Mutex
	objects map[string]Object // by bucket/key
}

// Start returns a running server. The caller closes it.
func Start(options Options) (*Server, error) {
	s := &Server{options: options, objects: map[string]Object{}}
	var err error
	s.Server, err = httpserver.Start(s)
	return s, err
}

// Objects returns the objects of the bucket, by key.
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

// Keys returns the sorted keys of the bucket.
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

// bodyOf reads the object. SDKs may send it in chunks, followed by a checksum.
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
			return nil, fmt.Errorf("a chunk starts with %q", line)
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
	response := struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
	}{Code: code, Message: "refused: " + code}
	_ = xml.NewEncoder(w).Encode(response) // fails only if the client is gone
}
