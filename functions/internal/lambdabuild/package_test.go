package lambdabuild_test

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/lambdabuild"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

// maxZip is a limit that keeps the functions quick to deploy and to start. AWS allows ten times as much.
const maxZip = 6_000_000

func TestMain(m *testing.M) {
	mysqltest.Main(m, func() error { return os.RemoveAll(builds.dir) })
}

// builds has the functions for this machine. The first test that needs one builds them all.
var builds struct {
	once sync.Once
	dir  string
	err  error
}

// built returns the path of the bootstrap of a function, or of the empty function in testdata/hello.
func built(t testing.TB, name string) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("a bootstrap runs on Linux")
	}
	builds.once.Do(func() {
		if builds.dir, builds.err = os.MkdirTemp("", "bootstraps-"); builds.err != nil { //nolint:usetesting // the folder outlives the test
			return
		}
		for _, name := range append(lambdabuild.Functions(), "hello") {
			builds.err = errors.Join(builds.err, lambdabuild.Build(t.Context(), root(t), folder(name), filepath.Join(builds.dir, name, "bootstrap"), runtime.GOARCH))
		}
	})
	if builds.err != nil {
		t.Fatal(builds.err)
	}
	return filepath.Join(builds.dir, name, "bootstrap")
}

func folder(name string) string {
	if name == "hello" {
		return "./functions/internal/lambdabuild/testdata/hello"
	}
	return "./functions/" + name
}

func root(t testing.TB) string {
	t.Helper()
	dir, err := lambdabuild.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// copyOf copies the module's sources to another folder.
func copyOf(t *testing.T, root string) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range []string{"functions", "shared"} {
		err := fs.WalkDir(os.DirFS(root), name, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || strings.HasSuffix(path, "_test.go") {
				return err
			}
			return copyFile(root, to, path)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		if err := copyFile(root, to, name); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func copyFile(root, to, path string) error {
	content, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return err
	}
	target := filepath.Join(to, path)
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return err
	}
	return os.WriteFile(target, content, 0o600)
}

// Builds in two folders have the same bytes.
func TestBuildIsReproducibleAndSmall(t *testing.T) {
	here := root(t)
	elsewhere := copyOf(t, here)
	for _, name := range lambdabuild.Functions() {
		var builds [2][]byte
		for i, root := range []string{here, elsewhere} {
			out := filepath.Join(t.TempDir(), "bootstrap")
			if err := lambdabuild.Build(t.Context(), root, folder(name), out, "arm64"); err != nil {
				t.Fatal(err)
			}
			var err error
			if builds[i], err = os.ReadFile(out); err != nil {
				t.Fatal(err)
			}
		}
		if sha256.Sum256(builds[0]) != sha256.Sum256(builds[1]) {
			t.Errorf("the builds of %s in two folders differ", name)
		}
		if bytes.Contains(builds[0], []byte(here)) {
			t.Errorf("the build of %s has the path of its source folder", name)
		}
		size := zipped(t, builds[0])
		t.Logf("%s: %.2f MB, zipped %.2f MB", name, float64(len(builds[0]))/1e6, float64(size)/1e6)
		if size > maxZip {
			t.Errorf("%s: the zip has %d bytes, more than %d", name, size, maxZip)
		}
	}
}

func zipped(t *testing.T, content []byte) int {
	t.Helper()
	var out bytes.Buffer
	archive := zip.NewWriter(&out)
	file, err := archive.Create("bootstrap")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Len()
}

func TestTaskfileBuildsWithTheSameFlags(t *testing.T) {
	taskfile, err := os.ReadFile(filepath.Join(root(t), "Taskfile.yml"))
	if err != nil {
		t.Fatal(err)
	}
	flags := strings.ReplaceAll(strings.Join(lambdabuild.Flags, " "), "-ldflags=-s -w", "-ldflags='-s -w'")
	if command := "go build " + flags + " -o dist/{{.NAME}}/bootstrap ./functions/{{.NAME}}"; !strings.Contains(string(taskfile), command) {
		t.Errorf("Taskfile.yml does not have %q", command)
	}
	if names := "[" + strings.Join(lambdabuild.Functions(), ", ") + "]"; !strings.Contains(string(taskfile), names) {
		t.Errorf("Taskfile.yml does not build %s", names)
	}
}
