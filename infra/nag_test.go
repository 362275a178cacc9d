package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/assertions"
	"github.com/cdklabs/cdk-nag-go/cdknag/v2"
	"github.com/google/go-cmp/cmp"
)

// accepted are findings of AwsSolutions that stay, with the reason.
// https://github.com/cdklabs/cdk-nag/blob/main/RULES.md
var accepted = map[string]string{
	"AwsSolutions-S1": "CloudTrail can record who reads reports; access logs would be one more bucket with customer data",
	"AwsSolutions-IAM5[Resource::<Reports65402A0A.Arn>/reports/*]": "the aggregator writes the reports of every run, and nothing else",
	"AwsSolutions-IAM5[Resource::*]":                               "AWS supports no resource for network interfaces and the account's settings, see permissions.go",
}

// accepted lists exactly the findings, and the rules that could not be checked.
func TestAwsSolutionsFindsOnlyAcceptedFindings(t *testing.T) {
	needNode(t)
	folder := t.TempDir()
	if err := placeAssets(filepath.Join(folder, "dist")); err != nil {
		t.Fatal(err)
	}
	app := newApp(filepath.Join(folder, "cdk.out"))
	c, err := loadConfig(map[string]string{"INFRA_CONFIG": "config.example.env", "EVENT_BUS": "application", "DIGEST_EMAIL": "finance@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	stack := newStack(app, c, filepath.Join(folder, "dist"))
	awscdk.Aspects_Of(stack).Add(cdknag.NewAwsSolutionsChecks(&cdknag.NagPackProps{}), nil)
	all := assertions.Match_StringLikeRegexp(ptr("(AwsSolutions-|CdkNagValidationFailure).*"))
	annotations := assertions.Annotations_FromStack(stack)
	found := map[string]bool{}
	for _, message := range slices.Concat(*annotations.FindError(ptr("*"), all), *annotations.FindWarning(ptr("*"), all)) {
		rule := regexp.MustCompile(`(AwsSolutions-[A-Z0-9]+|CdkNagValidationFailure)(\[[^]]*\])?`).FindString(fmt.Sprint(message.Entry.Data)) //nolint:staticcheck // SA1019: the CDK's assertions still return this type
		found[rule] = true
		if accepted[rule] == "" {
			t.Errorf("%s: %v", *message.Id, message.Entry.Data) //nolint:staticcheck // SA1019, as above
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(accepted)), slices.Sorted(maps.Keys(found))); diff != "" {
		t.Errorf("(-accepted +found):\n%s", diff)
	}
}
