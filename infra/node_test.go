package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/assertions"
	"github.com/aws/jsii-runtime-go"

	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

// synthesized is the example's stack, built once for all tests. jsii allows one caller at a time, so no test here is
// parallel.
var synthesized struct {
	once     sync.Once
	template assertions.Template
	parsed   cloudFormation
	text     []byte
	err      error
}

// cloudFormation is a parsed template.
type cloudFormation struct {
	Resources map[string]resource
	Outputs   map[string]struct{ Value any }
}

type resource struct {
	Type       string
	Properties map[string]any

	DeletionPolicy, UpdateReplacePolicy string
}

func TestMain(m *testing.M) {
	code := m.Run()
	// Close waits for the Node process twice, which the race detector reports. Without Close the process ends with its
	// standard input and leaves a temporary folder.
	if synthesized.text != nil && !raceDetector {
		jsii.Close()
	}
	os.Exit(code)
}

// needNode skips the test where the CDK cannot run; with CI=true it fails.
func needNode(t *testing.T) {
	t.Helper()
	err := checkNode()
	if err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// example returns the configuration of the checked-in example.
func example(t *testing.T) stackConfig {
	t.Helper()
	c, err := loadConfig(map[string]string{"INFRA_CONFIG": "config.example.env"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// synth returns the template of the example's stack, with placeholders for the functions.
func synth(c stackConfig, folder string) (awscdk.Stack, []byte, error) {
	assets := filepath.Join(folder, "dist")
	if err := placeAssets(assets); err != nil {
		return nil, nil, err
	}
	out := filepath.Join(folder, "cdk.out")
	app := newApp(out)
	stack := newStack(app, c, assets)
	app.Synth(nil)
	text, err := os.ReadFile(filepath.Join(out, c.name("")+".template.json"))
	return stack, text, err
}

// placeAssets writes placeholders to where task build puts the functions.
func placeAssets(folder string) error {
	for _, name := range functionNames {
		if err := os.MkdirAll(filepath.Join(folder, name), 0o750); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, name, "bootstrap"), []byte("placeholder for "+name), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func synthesizeOnce(t *testing.T) {
	t.Helper()
	needNode(t)
	c := example(t)
	synthesized.once.Do(func() {
		folder, err := os.MkdirTemp("", "infra-") //nolint:usetesting // it outlives the first test
		if err != nil {
			synthesized.err = err
			return
		}
		defer func() { _ = os.RemoveAll(folder) }()
		stack, text, err := synth(c, folder)
		if err != nil {
			synthesized.err = err
			return
		}
		synthesized.text = text
		synthesized.template = assertions.Template_FromStack(stack, nil)
		synthesized.err = json.Unmarshal(text, &synthesized.parsed)
	})
	if synthesized.err != nil {
		t.Fatal(synthesized.err)
	}
}

// template returns the example's stack for the CDK's assertions.
func template(t *testing.T) assertions.Template {
	t.Helper()
	synthesizeOnce(t)
	return synthesized.template
}

// resources returns the example's resources of a type, by their logical id.
func resources(t *testing.T, kind string) map[string]map[string]any {
	t.Helper()
	synthesizeOnce(t)
	found := map[string]map[string]any{}
	for id, r := range synthesized.parsed.Resources {
		if r.Type == kind {
			found[id] = r.Properties
		}
	}
	if len(found) == 0 {
		t.Fatalf("the stack has no %s", kind)
	}
	return found
}

// has fails the test unless a resource of the type has these properties.
func has(t *testing.T, kind string, properties map[string]any) {
	t.Helper()
	made := template(t)
	defer func() {
		if failed := recover(); failed != nil {
			t.Errorf("%s: %s", kind, fmt.Sprint(failed))
		}
	}()
	made.HasResourceProperties(&kind, properties)
}

// problemsOf returns what is wrong with the configuration, one line for each variable.
func problemsOf(t *testing.T, err error) map[string]string {
	t.Helper()
	wrong, ok := err.(*config.Error) //nolint:errorlint // the type is what is promised
	if !ok {
		t.Fatalf("got %v, want a *config.Error", err)
	}
	found := map[string]string{}
	for _, problem := range wrong.Problems {
		found[problem.Variable] = problem.String()
	}
	return found
}
