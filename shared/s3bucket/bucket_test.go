package s3bucket

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/s3server"
)

const key = "reports/2026-11-29T03:00:00Z/a b+ü.html"

var someone = credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "session")

// kept records a request and returns success.
type kept struct{ request *http.Request }

func (k *kept) Do(r *http.Request) (*http.Response, error) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, err
	}
	k.request = r
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

// at signs as if it were that time.
type at struct {
	*v4.Signer

	time time.Time
}

func (s at) SignHTTP(ctx context.Context, c aws.Credentials, r *http.Request, hash, service, region string, _ time.Time, options ...func(*v4.SignerOptions)) error {
	return s.Signer.SignHTTP(ctx, c, r, hash, service, region, s.time, options...)
}

func TestRequestMatchesThatOfAmazonsClient(t *testing.T) {
	now := time.Date(2026, 11, 29, 3, 5, 0, 0, time.UTC)
	for name, where := range map[string]struct{ bucket, region, endpoint string }{
		"plain":           {"acme-reports", "eu-central-1", ""},
		"dots":            {"reports.acme.com", "eu-central-1", ""},
		"us-east-1":       {"acme-reports", "us-east-1", ""},
		"China":           {"acme-reports", "cn-north-1", ""},
		"United States":   {"acme-reports", "us-gov-west-1", ""},
		"custom endpoint": {"acme-reports", "us-east-1", "http://127.0.0.1:9000"},
	} {
		t.Run(name, func(t *testing.T) {
			theirs := &kept{}
			client := s3.New(s3.Options{
				Region: where.region, Credentials: someone, HTTPClient: theirs,
				HTTPSignerV4: at{v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }), now},
			}, func(o *s3.Options) {
				if where.endpoint != "" {
					o.BaseEndpoint, o.UsePathStyle = &where.endpoint, true
				}
			})
			_, err := client.PutObject(t.Context(), &s3.PutObjectInput{
				Bucket: &where.bucket, Key: aws.String(key), ContentType: aws.String("text/html"), Body: strings.NewReader("the report"),
			})
			if err != nil {
				t.Fatal(err)
			}
			bucket := New(Options{Name: where.bucket, Region: where.region, Endpoint: where.endpoint, Credentials: someone})
			bucket.now = func() time.Time { return now }
			ours, err := bucket.request(t.Context(), key, "text/html", 10, "0123", strings.NewReader("the report"))
			if err != nil {
				t.Fatal(err)
			}
			want := theirs.request
			if ours.Method != want.Method || ours.URL.Scheme != want.URL.Scheme || ours.URL.Host != want.URL.Host || ours.URL.EscapedPath() != want.URL.EscapedPath() {
				t.Errorf("%s %s, Amazon's client sends %s %s", ours.Method, ours.URL, want.Method, want.URL)
			}
			if got := ours.Header.Get("Content-Type"); got != want.Header.Get("Content-Type") {
				t.Errorf("content type %s", got)
			}
			signature := want.Header.Get("Authorization")
			want.Header.Del("Authorization")
			if err := bucket.signer.SignHTTP(t.Context(), must(someone.Retrieve(t.Context())), want, want.Header.Get("X-Amz-Content-Sha256"), "s3", where.region, now); err != nil {
				t.Fatal(err)
			}
			if got := want.Header.Get("Authorization"); got != signature || signature == "" {
				t.Errorf("its request is signed\n%s\nby us\n%s", signature, got)
			}
			if !strings.Contains(ours.Header.Get("Authorization"), "/"+where.region+"/s3/aws4_request") || ours.Header.Get("X-Amz-Security-Token") != "session" {
				t.Errorf("our request: %v", ours.Header)
			}
		})
	}
}

func must(c aws.Credentials, err error) aws.Credentials {
	if err != nil {
		panic(err)
	}
	return c
}

// start returns a server whose faults are given in turn, nil for none, and its bucket.
func start(t *testing.T, faults ...*s3server.Fault) (*s3server.Server, *Bucket) {
	t.Helper()
	var n atomic.Int64
	server, err := s3server.Start(s3server.Options{Buckets: []string{"acme"}, Fault: func(string) *s3server.Fault {
		if i := int(n.Add(1)); i <= len(faults) {
			return faults[i-1]
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server, New(Options{Name: "acme", Region: "us-east-1", Endpoint: server.URL(), Credentials: someone})
}

func TestPutWritesTheWholeFileAfterRetries(t *testing.T) {
	file := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for name, faults := range map[string][]*s3server.Fault{
		"at once":           nil,
		"slow down":         {{Status: http.StatusServiceUnavailable, Code: "SlowDown"}, {Status: http.StatusInternalServerError, Code: "InternalError"}},
		"a lost response":   {{Lost: true}},
		"a request timeout": {{Status: http.StatusBadRequest, Code: "RequestTimeout"}},
	} {
		t.Run(name, func(t *testing.T) {
			server, bucket := start(t, faults...)
			if err := bucket.Put(t.Context(), key, "text/html", bytes.NewReader(file)); err != nil {
				t.Fatal(err)
			}
			if got := server.Objects("acme")[key]; !bytes.Equal(got.Body, file) || got.ContentType != "text/html" {
				t.Errorf("%d bytes of %s are kept under %v", len(got.Body), got.ContentType, server.Keys("acme"))
			}
		})
	}
}

func TestRefusalIsReportedAndNotRetried(t *testing.T) {
	server, bucket := start(t, &s3server.Fault{Status: http.StatusForbidden, Code: "AccessDenied"})
	err := bucket.Put(t.Context(), key, "text/html", strings.NewReader("x"))
	if err == nil || err.Error() != "write s3://acme/"+key+": S3 answered 403 AccessDenied: refused: AccessDenied" || len(server.Keys("acme")) != 0 {
		t.Errorf("%v, and %v", err, server.Keys("acme"))
	}
	bucket.options.Name = "other"
	if err := bucket.Put(t.Context(), key, "text/html", strings.NewReader("x")); err == nil || !strings.Contains(err.Error(), "404 NoSuchBucket") {
		t.Errorf("a bucket that there is not: %v", err)
	}
	bucket.options.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{}, errors.New("no role")
	})
	if err := bucket.Put(t.Context(), key, "text/html", strings.NewReader("x")); err == nil || !strings.Contains(err.Error(), "AWS credentials: no role") {
		t.Errorf("without credentials: %v", err)
	}
}

func TestPutEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, bucket := start(t, &s3server.Fault{Status: http.StatusInternalServerError, Code: "InternalError"})
	cancel()
	if err := bucket.Put(ctx, key, "text/html", strings.NewReader("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// The fake accepts the requests of Amazon's client.
func TestAmazonsClientWritesToTheFake(t *testing.T) {
	server, _ := start(t)
	client := s3.NewFromConfig(server.AWSConfig(), func(o *s3.Options) { o.UsePathStyle = true })
	_, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("acme"), Key: aws.String(key), Body: strings.NewReader("by the client")})
	if got := server.Objects("acme")[key]; err != nil || string(got.Body) != "by the client" {
		t.Errorf("%v, kept %q", err, got.Body)
	}
}

func TestAddressIsAPageOfTheConsole(t *testing.T) {
	bucket := New(Options{Name: "acme", Region: "eu-central-1"})
	want := "https://eu-central-1.console.aws.amazon.com/s3/object/acme?prefix=reports%2F2026-11-29T03%3A00%3A00Z%2Freport.html&region=eu-central-1"
	if got := bucket.Address("reports/2026-11-29T03:00:00Z/report.html"); got != want {
		t.Errorf("%s", got)
	}
}
