package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"

	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/s3bucket"
)

// credentialsTime bounds the search for credentials: outside of AWS the metadata service does not answer.
const credentialsTime = 5 * time.Second

// New returns the archive in REPORT_BUCKET, reached with the process's AWS settings; nil where it is not set.
func New(ctx context.Context, c config.Config, store *mysqlstore.Store) (pipeline.Archive, error) {
	if c.ReportBucket == "" {
		return nil, nil //nolint:nilnil // without a bucket nothing is archived
	}
	settings, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("AWS settings: %w", err)
	}
	if settings.Region == "" {
		return nil, errors.New("REPORT_BUCKET is set, and AWS_REGION is not")
	}
	retrieving, cancel := context.WithTimeout(ctx, credentialsTime)
	defer cancel()
	if _, err := settings.Credentials.Retrieve(retrieving); err != nil {
		return nil, fmt.Errorf("REPORT_BUCKET is set, and there are no AWS credentials: %w", err)
	}
	bucket := s3bucket.New(s3bucket.Options{
		Name: c.ReportBucket, Region: settings.Region, Credentials: settings.Credentials, HTTPClient: settings.HTTPClient,
		Endpoint: cmp.Or(os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL")),
	})
	return Reports{Store: store, Bucket: bucket, Mode: c.Stripe.Mode, Now: time.Now}, nil
}
