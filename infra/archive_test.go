package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-cdk-go/awscdk/v2/assertions"
)

func TestANewBucketIsPrivateAndOutlivesTheStack(t *testing.T) {
	has(t, "AWS::S3::Bucket", object{
		"BucketName":                     assertions.Match_Absent(), // a fixed name would collide with the bucket that a deleted stack leaves
		"BucketEncryption":               object{"ServerSideEncryptionConfiguration": []any{object{"ServerSideEncryptionByDefault": object{"SSEAlgorithm": "AES256"}}}},
		"PublicAccessBlockConfiguration": object{"BlockPublicAcls": true, "BlockPublicPolicy": true, "IgnorePublicAcls": true, "RestrictPublicBuckets": true},
		"OwnershipControls":              object{"Rules": []any{object{"ObjectOwnership": "BucketOwnerEnforced"}}},
		"LifecycleConfiguration":         object{"Rules": []any{object{"ExpirationInDays": 400, "Status": "Enabled"}}},
	})
	has(t, "AWS::S3::BucketPolicy", object{"PolicyDocument": object{"Statement": []any{object{
		"Effect": "Deny", "Principal": object{"AWS": "*"}, "Action": "s3:*", "Condition": object{"Bool": object{"aws:SecureTransport": "false"}},
	}}}})
	for _, kind := range []string{"AWS::S3::Bucket", "AWS::S3::BucketPolicy"} {
		for id, r := range synthesized.parsed.Resources {
			if r.Type == kind && (r.DeletionPolicy != "Retain" || r.UpdateReplacePolicy != "Retain") {
				t.Errorf("%s goes with the stack: %q, %q", id, r.DeletionPolicy, r.UpdateReplacePolicy)
			}
		}
	}
}

// parts returns what a deployment with this bucket has for its archive.
func parts(t *testing.T, bucket string) (made cloudFormation, types map[string]int, mayWrite []statement) {
	t.Helper()
	c := example(t)
	c.ReportBucket = bucket
	made, _ = synthOf(t, c)
	types = map[string]int{}
	for id, r := range made.Resources {
		types[r.Type]++
		if !strings.HasPrefix(id, "AggregatorRoleDefaultPolicy") {
			continue
		}
		for _, s := range statements(t, r.Properties) {
			if slices.Contains(s.Action, any("s3:PutObject")) {
				mayWrite = append(mayWrite, s)
			}
		}
	}
	return made, types, mayWrite
}

func TestAnExistingBucketReceivesReports(t *testing.T) {
	made, types, mayWrite := parts(t, "acme-reports")
	if types["AWS::S3::Bucket"] != 0 || types["AWS::CloudWatch::Alarm"] != 23 || made.Outputs["ReportBucket"].Value != "acme-reports" {
		t.Errorf("%d buckets, %d alarms, output %v", types["AWS::S3::Bucket"], types["AWS::CloudWatch::Alarm"], made.Outputs["ReportBucket"].Value)
	}
	if len(mayWrite) != 1 || nameOf(mayWrite[0].Resource[0]) != "acme-reports/reports/*" {
		t.Fatalf("the aggregator may write %+v", mayWrite)
	}
	if of, _ := mayWrite[0].Condition["StringEquals"].(map[string]any); of["aws:ResourceAccount"] != "123456789012" {
		t.Errorf("also in somebody else's account: %v", mayWrite[0].Condition)
	}
}

func TestWithoutABucketNothingIsArchived(t *testing.T) {
	made, types, mayWrite := parts(t, "")
	if types["AWS::S3::Bucket"]+types["AWS::S3::BucketPolicy"] != 0 || types["AWS::CloudWatch::Alarm"] != 22 || len(mayWrite) != 0 || made.Outputs["ReportBucket"].Value != nil {
		t.Errorf("%v, %v, %v", types, mayWrite, made.Outputs["ReportBucket"])
	}
	if slices.Contains(variablesOf(made, prefix+"-aggregator"), reportBucket) {
		t.Error("the aggregator has the variable of a bucket")
	}
}
