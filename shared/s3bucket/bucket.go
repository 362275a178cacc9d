// Package s3bucket writes files into an S3 bucket.
//
// A file is written completely or not at all, and replaces an older one, so that a write may be repeated. Its size is
// known before, so that it is neither held in memory nor sent in parts. The bucket's settings decide on encryption.
//
// The AWS SDK signs the request, but its S3 client does not send it: html/template uses reflection, so the linker
// keeps every method, and that client alone would make the function a third larger. A test compares each request with
// that client's.
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

	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

const (
	// tryTimeout bounds one try: a file of 100 MB takes a few seconds.
	tryTimeout = time.Minute
	tries      = 4
	// maxResponse bounds what is read of a response.
	maxResponse = 64 << 10
)

// Options of a bucket.
type Options struct {
	Name        string
	Region      string // of the bucket
	Endpoint    string // "" is Amazon's
	Credentials aws.CredentialsProvider
	HTTPClient  aws.HTTPClient // nil is a new one
}

// Bucket is one bucket.
type Bucket struct {
	options Options
	signer  *v4.Signer
	now     func() time.Time
}

// New returns the bucket.
func New(o Options) *Bucket {
	client, ok := o.HTTPClient.(*awshttp.BuildableClient) // such as one with its own authorities to trust
	if !ok {
		client = awshttp.NewBuildableClient()
	}
	o.HTTPClient = client.WithTimeout(tryTimeout)
	// S3 signs the path as it is sent. https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	return &Bucket{options: o, signer: signer, now: time.Now}
}

// Put writes the file. It reads the body again for each try.
func (b *Bucket) Put(ctx context.Context, key, contentType string, body io.ReaderAt) error {
	size, sum, err := measure(body)
	if err != nil {
		return err
	}
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		err := b.try(ctx, key, contentType, size, sum, body)
		if refused, ok := errors.AsType[*refusal](err); ok && !refused.retryable() {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithMaxTries(tries))
	if err != nil {
		return fmt.Errorf("write s3://%s/%s: %w", b.options.Name, key, err)
	}
	return nil
}

// measure returns the size of the body and its SHA-256, with which S3 verifies the upload.
func measure(body io.ReaderAt) (size int64, sum string, err error) {
	hash := sha256.New()
	size, err = io.Copy(hash, io.NewSectionReader(body, 0, math.MaxInt64))
	return size, hex.EncodeToString(hash.Sum(nil)), err
}

// try uses a new reader of the body: after an early response the transport may still read the previous one.
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
		_, err := io.Copy(io.Discard, io.LimitReader(response.Body, maxResponse))
		return err
	}
	return refusalOf(response)
}

// request returns a signed PutObject. https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
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

// address returns the URL of the object. The bucket is part of the host name, except for a name with dots, which no
// certificate covers, and at another endpoint than Amazon's.
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

// Address returns the URL of the file in the AWS console.
func (b *Bucket) Address(key string) string {
	query := url.Values{"region": {b.options.Region}, "prefix": {key}}
	return fmt.Sprintf("https://%s/s3/object/%s?%s", config.ConsoleHost(b.options.Region), b.options.Name, query.Encode())
}

// refusal is an error response.
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

// retryable reports whether the same request may succeed later.
// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
func (r *refusal) retryable() bool {
	return r.status >= 500 || r.status == http.StatusTooManyRequests || r.code == "RequestTimeout" || r.code == "BadDigest" || r.code == "IncompleteBody"
}

func refusalOf(response *http.Response) error {
	var parsed struct {
		Code, Message string
	}
	r := &refusal{status: response.StatusCode}
	if err := xml.NewDecoder(io.LimitReader(response.Body, maxResponse)).Decode(&parsed); err == nil {
		r.code, r.message = parsed.Code, parsed.Message
	}
	return r
}
