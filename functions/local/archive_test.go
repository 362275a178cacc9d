package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/s3server"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

func TestReportsAreArchivedIfBucketRegionAndCredentialsAreSet(t *testing.T) {
	p := newPlace(t, mysqltest.New(t))
	server, err := s3server.Start(s3server.Options{Buckets: []string{"acme"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_PROFILE": "",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL_S3": server.URL(),
	} {
		t.Setenv(name, value)
	}
	environ := p.with("REPORT_BUCKET", "acme")
	says := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if code := realMain(t.Context(), args, environ, &out, &errs); code != cli.ExitOK {
			t.Fatalf("exit %d: %s", code, &errs)
		}
		return errs.String()
	}
	if text := says("--dry-run"); !strings.Contains(text, "the report is not archived: REPORT_BUCKET is set, and AWS_REGION is not") {
		t.Errorf("without a region: %s", text)
	}
	t.Setenv("AWS_REGION", "us-east-1")
	if text := says("--dry-run"); !strings.Contains(text, "the report is not archived: REPORT_BUCKET is set, and there are no AWS credentials") {
		t.Errorf("without credentials: %s", text)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	says("--demo", "--orgs", "3", "--dry-run")
	if keys := server.Keys("acme"); len(keys) != 0 {
		t.Errorf("made-up organizations are archived: %v", keys)
	}
	says("--dry-run")
	if keys := server.Keys("acme"); len(keys) != 2 || !strings.HasSuffix(keys[0], "/changes.csv") || !strings.HasSuffix(keys[1], "/report.html") {
		t.Errorf("archived %v", keys)
	}
	environ = p.with("REPORT_BUCKET", "gone")
	if text := says("--dry-run"); !strings.Contains(text, "warning: the report of run ") || !strings.Contains(text, "NoSuchBucket") || !strings.Contains(text, "to write it now:\n  reconcile report ") {
		t.Errorf("a report that was not archived: %s", text)
	}
}
