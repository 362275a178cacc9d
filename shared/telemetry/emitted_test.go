package telemetry_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// The constants are read from the source, so that one added later is checked too.
func TestAllHasEveryMetricConstant(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "names.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var named, all []string
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Metric") {
			return true
		}
		name, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Error(err)
		}
		named = append(named, name)
		return false
	})
	for _, metric := range telemetry.All() {
		all = append(all, metric.Name)
	}
	slices.Sort(named)
	slices.Sort(all)
	if diff := cmp.Diff(named, all); diff != "" || len(all) == 0 {
		t.Errorf("(-named +all):\n%s", diff)
	}
}
