// Package s3bucket writes files into an S3 bucket.
//
// A file is written whole or not at all, and over the one that stands there: who is interrupted, or does not
// hear the answer, writes it again. It is of a known size, so that it is neither held in memory nor sent in
// parts. Whether and how it is encrypted says the bucket.
//
// The request is signed by the AWS SDK and sent without its S3 client: beside html/template, whose use of
// reflection keeps every method in a program, that client alone would make a function a third larger. A test
// holds each request to what that client sends.
package s3bucket

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go/encoding/httpbinding"
	"github.com/cenkalti/backoff/v5"
)

const (
	// tryTime bounds one try of a request: a file of 100 MB takes a few seconds.
	tryTime = time.Minute
	tries   = 4
	// maxAnswer is how much is read of what S3 says is wrong.
	maxAnswer = 64 << 10
)

// Options say which bucket, and how it is reached.
type Options struct {
	Name        string
	Region      string // of the bucket
	Endpoint    string // "" is Amazon's own
	Credentials aws.CredentialsProvider
	HTTPClient  aws.HTTPClient // nil: one of its own
}

// Bucket is one bucket.
type Bucket struct {
	options Options
	signer  *v4.Signer
	now     func() time.Time
}

// New returns the bucket.
func New(o Options) *Bucket {
	own, ok := o.HTTPClient.(*awshttp.BuildableClient) // with the authorities to trust, say
	if !ok {
		own = awshttp.NewBuildableClient()
	}
	o.HTTPClient = own.WithTimeout(tryTime)
	// S3 signs the path as it is sent. https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	return &Bucket{options: o, signer: signer, now: time.Now}
}

// Put writes the file. The body is read from its beginning, more than once where a try fails.
func (b *Bucket) Put(ctx context.Context, key, contentType string, body io.ReaderAt) error {
	size, sum, err := measure(body)
	if err != nil {
		return err
	}
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		err := b.try(ctx, key, contentType, size, sum, body)
		if refused, ok := errors.AsType[*refusal](err); ok && !refused.passes() {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithMaxTries(tries))
	if err != nil {
		return fmt.Errorf("write s3://%s/%s: %w", b.options.Name, key, err)
	}
	return nil
}

// measure returns how many bytes the body has, and their SHA-256, with which S3 checks what came.
func measure(body io.ReaderAt) (size int64, sum string, err error) {
	hash := sha256.New()
	size, err = io.Copy(hash, io.NewSectionReader(body, 0, math.MaxInt64))
	return size, hex.EncodeToString(hash.Sum(nil)), err
}

// try reads the body by a reader of its own: after an early answer the transport may still be reading the last one's.
func (b *Bucket) try(ctx context.Context, key, contentType string, size int64, sum string, body io.ReaderAt) (err error) {
	request, err := b.request(ctx, key, contentType, size, sum, io.NewSectionReader(body, 0, size))
	if err != nil {
		return backoff.Permanent(err)
	}
	response, err := b.options.HTTPClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode == http.StatusOK {
		_, err := io.Copy(io.Discard, io.LimitReader(response.Body, maxAnswer))
		return err
	}
	return refusalOf(response)
}

// request is PutObject. https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
func (b *Bucket) request(ctx context.Context, key, contentType string, size int64, sum string, body io.Reader) (*http.Request, error) {
	address, err := b.address(key)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, address.String(), io.NopCloser(body))
	if err != nil {
		return nil, err
	}
	request.URL, request.ContentLength = address, size
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("X-Amz-Content-Sha256", sum)
	credentials, err := b.options.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, fmt.Errorf("AWS credentials: %w", err)
	}
	return request, b.signer.SignHTTP(ctx, credentials, request, sum, "s3", b.options.Region, b.now())
}

// address is that of the object: the bucket is part of the host's name, but for one with dots, for which no
// certificate holds, and at another endpoint than Amazon's.
func (b *Bucket) address(key string) (*url.URL, error) {
	domain := "amazonaws.com"
	if strings.HasPrefix(b.options.Region, "cn-") {
		domain = "amazonaws.com.cn"
	}
	host := "s3." + b.options.Region + "." + domain
	address, err := url.Parse(cmp.Or(b.options.Endpoint, "https://"+host))
	if err != nil {
		return nil, fmt.Errorf("the endpoint of S3: %w", err)
	}
	path := "/" + b.options.Name + "/" + key
	if b.options.Endpoint == "" && !strings.Contains(b.options.Name, ".") {
		address.Host, path = b.options.Name+"."+host, "/"+key
	}
	address.Path, address.RawPath = path, httpbinding.EscapePath(path, false)
	return address, nil
}

// Address is the page of AWS's console that shows the file to who may read the bucket.
func (b *Bucket) Address(key string) string {
	query := url.Values{"region": {b.options.Region}, "prefix": {key}}
	return fmt.Sprintf("https://%s.console.aws.amazon.com/s3/object/%s?%s", b.options.Region, b.options.Name, query.Encode())
}

// refusal is an answer that is none.
type refusal struct {
	status        int
	code, message string
}

func (r *refusal) Error() string {
	if r.code == "" {
		return fmt.Sprintf("S3 answered %d", r.status)
	}
	return fmt.Sprintf("S3 answered %d %s: %s", r.status, r.code, r.message)
}

// passes reports whether the same request may be taken later.
// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
func (r *refusal) passes() bool {
	return r.status >= 500 || r.status == http.StatusTooManyRequests || r.code == "RequestTimeout" || r.code == "BadDigest" || r.code == "IncompleteBody"
}

func refusalOf(response *http.Response) error {
	var answer struct {
		Code, Message string
	}
	r := &refusal{status: response.StatusCode}
	if err := xml.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&answer); err == nil {
		r.code, r.message = answer.Code, answer.Message
	}
	return r
}
