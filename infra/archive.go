package main

import (
	"time"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awss3"
	"github.com/aws/jsii-runtime-go"

	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

const (
	reportBucket = "REPORT_BUCKET"
	// newBucket is the value that lets the stack create the bucket.
	newBucket = "new"
	// reportKeys are the keys that the aggregator writes.
	reportKeys = "reports/*"
)

// archive is the bucket of the reports; nil: there is none.
type archive struct{ name, arn *string }

// newArchive returns a new or an existing bucket. A new bucket outlives the stack: somebody may have to keep its
// customer data. Its lifecycle deletes them.
func newArchive(stack awscdk.Stack, c stackConfig) *archive {
	switch c.ReportBucket {
	case "":
		return nil
	case newBucket:
	default:
		return &archive{name: &c.ReportBucket, arn: stack.FormatArn(&awscdk.ArnComponents{
			Service: jsii.String("s3"), Region: jsii.String(""), Account: jsii.String(""), Resource: &c.ReportBucket, ArnFormat: awscdk.ArnFormat_NO_RESOURCE_NAME,
		})}
	}
	bucket := awss3.NewBucket(stack, jsii.String("Reports"), &awss3.BucketProps{
		Encryption: awss3.BucketEncryption_S3_MANAGED, EnforceSSL: jsii.Bool(true),
		BlockPublicAccess: awss3.BlockPublicAccess_BLOCK_ALL(), ObjectOwnership: awss3.ObjectOwnership_BUCKET_OWNER_ENFORCED,
		LifecycleRules: &[]*awss3.LifecycleRule{{Expiration: awscdk.Duration_Days(jsii.Number(c.ArchiveDays))}},
		RemovalPolicy:  awscdk.RemovalPolicy_RETAIN,
	})
	bucket.Policy().ApplyRemovalPolicy(awscdk.RemovalPolicy_RETAIN)
	return &archive{name: bucket.BucketName(), arn: bucket.BucketArn()}
}

// allowArchive lets the aggregator write reports, only to a bucket of this account: after a bucket is deleted, another
// account may take its name.
func allowArchive(stack awscdk.Stack, c stackConfig, aggregator awsiam.IGrantable, reports *archive) {
	if reports == nil {
		return
	}
	conditions := calledBy(stack, c, "aggregator")
	conditions["StringEquals"] = map[string]any{"aws:ResourceAccount": c.Account}
	allowIf(aggregator, conditions, []string{"s3:PutObject"}, jsii.String(*reports.arn+"/"+reportKeys))
}

func archiveAlarms(c stackConfig) []alarm {
	if c.ReportBucket == "" {
		return nil
	}
	return []alarm{{
		id: "ReportArchive", name: "report-archive", means: "The reports of a run have not been archived for two hours",
		do: "read the aggregator's log, and check that it may write to the bucket", metric: c.customMetric(telemetry.MetricRunsToArchive, statisticMin, time.Hour, nil), periods: 2,
	}}
}
