package mysqlstore_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// applicationNames matches the names of the application's tables in SQL, and the names of its columns anywhere, except
// those that this system's own tables have too.
func applicationNames(t *testing.T) *regexp.Regexp {
	t.Helper()
	files, err := filepath.Glob("migrations/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var own strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		own.Write(text)
	}
	columns := []string{"is_deleted"}
	for _, c := range billing.Columns() {
		if !regexp.MustCompile(`\b` + c.Name() + `\b`).MatchString(own.String()) {
			columns = append(columns, c.Name())
		}
	}
	const tables = `(?:` + billing.TableOrganizations + `|` + billing.TableSubscriptions + `)`
	return regexp.MustCompile("^" + tables + "$|\\b" + tables + `\.\w|\b(?:FROM|JOIN|UPDATE|INTO|TABLE|REFERENCES)\s+` + "`?" + tables + `\b|\b(?:` + strings.Join(columns, "|") + `)\b`)
}

func TestOnlyOneFileNamesTheApplicationsTables(t *testing.T) {
	names, found := applicationNames(t), 0
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			text, ok := n.(*ast.BasicLit)
			if !ok || text.Kind != token.STRING {
				return true
			}
			if name == "application.go" {
				found += len(names.FindAllString(text.Value, -1))
			} else if word := names.FindString(strings.Trim(text.Value, "\"`")); word != "" {
				t.Errorf("%s: %q has the application's name %q; only application.go may name it", set.Position(text.Pos()), text.Value, word)
			}
			return true
		})
	}
	if found < 20 {
		t.Errorf("application.go has only %d names, so the test looks for the wrong ones", found)
	}
}
