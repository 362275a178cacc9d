package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/jsii-runtime-go"

	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

// distribution is the folder into which task build puts the functions.
const distribution = "dist"

func main() {
	if err := synthesize(config.Environ(os.Environ())); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// synthesize writes the stack's template and the functions' archives to CDK_OUTDIR.
func synthesize(environ map[string]string) error {
	c, err := loadConfig(environ)
	if err != nil {
		return err
	}
	if err := errors.Join(checkNode(), checkAssets(distribution)); err != nil {
		return err
	}
	defer jsii.Close()
	app := newApp("")
	newStack(app, c, distribution)
	app.Synth(nil)
	_, err = fmt.Println(connections(c))
	return err
}

// newApp returns an app that writes to the folder, or to CDK_OUTDIR if the folder is empty.
func newApp(folder string) awscdk.App {
	props := &awscdk.AppProps{
		AnalyticsReporting: jsii.Bool(false),
		TreeMetadata:       jsii.Bool(false),
		Context: &map[string]any{
			// Find errors here that CloudFormation would report only during a deployment.
			"@aws-cdk/core:validateAgainstDefaultRules": true,
			"@aws-cdk/aws-iam:minimizePolicies":         true,
		},
	}
	if folder != "" {
		props.Outdir = &folder
	}
	return awscdk.NewApp(props)
}

// checkNode checks that Node.js, which the CDK needs, is installed.
func checkNode() error {
	if _, err := exec.LookPath("node"); err != nil {
		return errors.New("the CDK needs Node.js 20 or newer, and there is no node on PATH: apt-get install nodejs, or see https://nodejs.org")
	}
	return nil
}

// checkAssets checks that the functions are built.
func checkAssets(folder string) error {
	var problems []error
	for _, name := range functionNames {
		path := filepath.Join(folder, name, "bootstrap")
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			problems = append(problems, fmt.Errorf("%s is missing: build the functions with `task build`, and run this from the repository root", path))
		}
	}
	return errors.Join(problems...)
}
