// Package lambdabuild builds the Lambda functions with the flags of task build. Tests run and measure the built
// programs.
package lambdabuild

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Functions returns the names of the Lambda functions.
func Functions() []string { return []string{"enumerator", "worker", "aggregator"} }

// flags are the same as in Taskfile.yml. A test compares them.
var flags = []string{"-tags", "lambda.norpc", "-trimpath", "-buildvcs=false", "-ldflags=-s -w"}

// Build builds the program in folder of the module in root for Linux on the architecture, and writes it to the
// file out.
func Build(ctx context.Context, root, folder, out, arch string) error {
	args := append(append([]string{"build"}, flags...), "-o", out, folder)
	build := exec.CommandContext(ctx, "go", args...) //nolint:gosec // G204: callers build only folders of this module
	build.Dir = root
	build.Env = append(environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", folder, err, output)
	}
	return nil
}

// environ returns the process's environment without GOFLAGS, because -race would need cgo.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, "GOFLAGS=") })
}

// Root returns the root folder of the module, found from the working directory.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod above the working directory")
		}
		dir = parent
	}
}
