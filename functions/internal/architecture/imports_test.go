// Package architecture tests which package may import which, and that the links between the pages work.
package architecture

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/pixell-global/subscription-reconciliation/"

// mayImport lists for each package the packages of this module that its code may import, and the guarded ones. Imports
// point downwards, and sources, stores and queues do not import each other.
var mayImport = map[string]string{
	// The domain is pure; everything may use it and the two below it.
	"shared/billing":   "",
	"shared/config":    "shared/billing godotenv", // .env is read for the command lines only
	"shared/telemetry": "",

	"shared/pipeline":                "shared/billing shared/telemetry", // it declares interfaces for the rest
	"shared/stripesource":            "shared/billing shared/telemetry stripe-go",
	"shared/stripesource/stripetest": "",
	"shared/mysqlstore":              "shared/billing shared/mysqlstore/internal/driverconn shared/telemetry sql go-sql-driver",
	"shared/mysqlstore/appschema":    "sql",
	"shared/mysqlstore/mysqltest": "shared/localaws/localdb shared/mysqlstore/appschema shared/mysqlstore/internal/driverconn " +
		"sql go-sql-driver",
	"shared/mysqlstore/internal/driverconn": "sql",
	"shared/sqsqueue":                       "shared/billing sqs",
	"shared/s3bucket":                       "shared/config",
	"shared/eventbus":                       "shared/billing shared/telemetry eventbridge",
	// Of tests only.
	"shared/testworld": "shared/billing shared/localaws/sqsserver shared/mysqlstore shared/mysqlstore/appschema shared/mysqlstore/mysqltest " +
		"shared/pipeline shared/sqsqueue shared/stripesource shared/stripesource/stripetest shared/telemetry sql sqs",

	// What stands in for AWS on one machine.
	"shared/localaws/demo":         "shared/billing shared/mysqlstore/appschema shared/stripesource/stripetest sql",
	"shared/localaws/eventserver":  "shared/localaws/httpserver",
	"shared/localaws/httpserver":   "",
	"shared/localaws/lambdaserver": "shared/localaws/httpserver",
	"shared/localaws/lambdasource": "shared/telemetry sqs",
	"shared/localaws/localdb":      "sql go-sql-driver dolthub",
	"shared/localaws/runtimeapi":   "",
	"shared/localaws/s3server":     "shared/localaws/httpserver",
	"shared/localaws/sqsserver":    "shared/localaws/httpserver",

	// What runs in AWS: nothing local in it.
	"functions/aggregator":       "functions/internal/archive functions/internal/startup functions/internal/wiring shared/config shared/telemetry",
	"functions/internal/archive": "functions/internal/report shared/billing shared/config shared/mysqlstore shared/pipeline shared/s3bucket",
	"functions/enumerator":       "functions/internal/startup functions/internal/wiring shared/config",
	"functions/worker":           "functions/internal/startup functions/internal/wiring shared/config",
	"functions/internal/handler": "shared/billing shared/pipeline shared/sqsqueue shared/telemetry",
	"functions/internal/startup": "functions/internal/handler functions/internal/wiring shared/config shared/mysqlstore shared/pipeline " +
		"shared/stripesource shared/telemetry sqs",
	"functions/internal/wiring": "functions/internal/handler shared/billing shared/config shared/eventbus shared/mysqlstore shared/pipeline " +
		"shared/sqsqueue shared/stripesource shared/telemetry sqs secretsmanager",

	// The operator's command line carries none of local's parts.
	"functions/reconcile": "functions/internal/cli functions/internal/find functions/internal/output functions/internal/report functions/internal/wiring " +
		"shared/billing shared/config shared/mysqlstore shared/pipeline shared/sqsqueue shared/telemetry",
	"functions/internal/cli":    "functions/internal/output shared/billing shared/config",
	"functions/internal/find":   "functions/internal/cli functions/internal/output shared/billing shared/mysqlstore shared/telemetry",
	"functions/internal/output": "shared/billing shared/pipeline shared/telemetry",
	"functions/internal/report": "shared/billing shared/config shared/mysqlstore shared/pipeline shared/telemetry",

	// The whole pipeline in one process; local seeds the database that it starts.
	"functions/local": "functions/internal/archive functions/internal/cli functions/internal/find functions/internal/inprocess functions/internal/output functions/internal/wiring " +
		"shared/billing shared/config shared/localaws/demo shared/localaws/localdb shared/mysqlstore shared/mysqlstore/appschema " +
		"shared/pipeline shared/stripesource shared/stripesource/stripetest shared/telemetry sql go-sql-driver",
	"functions/internal/inprocess": "functions/internal/handler functions/internal/wiring shared/config shared/localaws/lambdaserver " +
		"shared/localaws/lambdasource shared/localaws/sqsserver shared/mysqlstore shared/pipeline shared/stripesource shared/telemetry sqs",

	// The stack deploys programs and imports none: it shares names and rules only.
	"infra":           "shared/billing shared/config shared/telemetry aws-cdk-go constructs-go jsii-runtime-go",
	"infra/preflight": "",

	"functions/internal/architecture": "",
	"functions/internal/lambdabuild":  "",
	"functions/internal/chaos":        "",
}

// testsMayImport lists the same for the tests below a folder; the nearest folder counts.
var testsMayImport = map[string]string{
	"functions":           "functions/... shared/... sql go-sql-driver sqs secretsmanager chromedp",
	"infra":               "infra/... shared/billing shared/config shared/telemetry aws-cdk-go constructs-go jsii-runtime-go",
	"shared":              "shared/... sql go-sql-driver sqs s3 secretsmanager dolthub",
	"shared/config":       "shared/billing shared/config shared/telemetry",
	"shared/stripesource": "shared/... stripe-go sql go-sql-driver",
	"shared/telemetry":    "shared/config shared/telemetry",
}

// guarded are packages that a row must name, by the last element of their path: one package speaks SQL, one speaks to
// Stripe, and a browser is for tests.
var guarded = []string{
	"database/sql",
	"github.com/aws/aws-cdk-go",
	"github.com/aws/aws-sdk-go-v2/service/eventbridge",
	"github.com/aws/aws-sdk-go-v2/service/s3",
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager",
	"github.com/aws/aws-sdk-go-v2/service/sqs",
	"github.com/aws/constructs-go",
	"github.com/aws/jsii-runtime-go",
	"github.com/chromedp",
	"github.com/dolthub",
	"github.com/go-sql-driver",
	"github.com/joho/godotenv",
	"github.com/stripe/stripe-go",
}

// instead lists the packages that are not used here, with what is used instead.
var instead = map[string]string{
	"github.com/pkg/errors": "the standard library wraps errors",
	"io/ioutil":             "os and io have it",
	"log":                   "log/slog through shared/telemetry",
	"math/rand":             "math/rand/v2 needs no seed",
}

func TestEveryImportIsAllowed(t *testing.T) {
	root := os.DirFS("../../..")
	seen := map[string]bool{}
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && name != "." && !ours(entry.Name()) {
			return fs.SkipDir
		}
		if entry.IsDir() || path.Ext(name) != ".go" {
			return nil
		}
		seen[path.Dir(name)] = true
		checkFile(t, root, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range mayImport {
		if !seen[pkg] {
			t.Errorf("mayImport has a row for %s, which does not exist", pkg)
		}
	}
}

// ours reports whether Go looks for packages in a folder of this name.
func ours(folder string) bool {
	return !strings.HasPrefix(folder, ".") && folder != "testdata" && folder != "node_modules"
}

func checkFile(t *testing.T, root fs.FS, name string) {
	t.Helper()
	text, err := fs.ReadFile(root, name)
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	allowed, known := rowOf(name)
	if !known {
		t.Errorf("%s: its package has no row in mayImport", name)
	}
	for _, spec := range file.Imports {
		pkg, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if why := instead[pkg]; why != "" {
			t.Errorf("%s imports %s: %s", name, pkg, why)
		}
		if !permitted(allowed, pkg) {
			t.Errorf("%s imports %s, and its row does not name it", name, pkg)
		}
		if path.Dir(name) == "shared/billing" && !strings.HasSuffix(name, "_test.go") && !pure(pkg) {
			t.Errorf("%s imports %s: the domain knows no SDK, no network, no files and no environment", name, pkg)
		}
	}
}

// rowOf returns what the file may import.
func rowOf(name string) (allowed []string, known bool) {
	pkg := path.Dir(name)
	row, known := mayImport[pkg]
	if known && strings.HasSuffix(name, "_test.go") {
		for folder := pkg; folder != "."; folder = path.Dir(folder) {
			if tests, found := testsMayImport[folder]; found {
				row = tests
				break
			}
		}
	}
	return strings.Fields(row), known
}

// permitted reports whether a file with this row may import the package: the row must name packages of this module and
// guarded ones.
func permitted(allowed []string, pkg string) bool {
	if name, isOurs := strings.CutPrefix(pkg, module); isOurs {
		return slices.ContainsFunc(allowed, func(a string) bool {
			folder, whole := strings.CutSuffix(a, "...")
			return name == a || whole && strings.HasPrefix(name, folder)
		})
	}
	i := slices.IndexFunc(guarded, func(g string) bool { return pkg == g || strings.HasPrefix(pkg, g+"/") })
	return i < 0 || slices.Contains(allowed, path.Base(guarded[i]))
}

// pure reports whether the package is of the standard library and reaches nothing outside the process.
func pure(pkg string) bool {
	first, _, _ := strings.Cut(pkg, "/")
	return !strings.Contains(first, ".") && first != "os" && first != "net"
}
