package report

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// declared returns the values of billing's constants whose name begins like this, by name.
func declared(t *testing.T, prefix string) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../../shared/billing/outcome.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, prefix) {
			return true
		}
		value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		found[spec.Names[0].Name] = value
		return true
	})
	if len(found) < 4 {
		t.Fatalf("found only %d constants of %s", len(found), prefix)
	}
	return found
}

// ofNoOrganization are reasons of messages, requests and runs, and of who is pending: no organization ends with one.
var ofNoOrganization = map[billing.Reason]bool{
	billing.ReasonNotDecided: true, billing.ReasonMalformedMessage: true, billing.ReasonUnknownRun: true, billing.ReasonUnknownItem: true,
	billing.ReasonUnknownOrganization: true, billing.ReasonOtherSettings: true,
	billing.ReasonStripeUnauthorized: true, billing.ReasonStripeForbidden: true, billing.ReasonWrongAccount: true, billing.ReasonWrongMode: true,
	billing.ReasonInterrupted: true, billing.ReasonStoppedByOperator: true, billing.ReasonNoOrganizations: true, billing.ReasonNoSubscriptions: true, billing.ReasonDatabaseLogin: true,
	billing.ReasonDatabaseSchema: true,
}

func TestEveryReasonIsExplained(t *testing.T) {
	for name, value := range declared(t, "Reason") {
		if reason := billing.Reason(value); reasons[reason].Means == "" && !ofNoOrganization[reason] {
			t.Errorf("%s (%s) is not explained", name, value)
		}
	}
	for name, value := range declared(t, "Warn") {
		if a := warnings[billing.WarningCode(value)]; a.Means == "" || a.Do == "" {
			t.Errorf("%s (%s) is not explained, or has no remedy", name, value)
		}
	}
}

func TestEveryStatusIsExplained(t *testing.T) {
	for _, status := range []billing.RunStatus{
		billing.RunEnumerating, billing.RunRunning, billing.RunCompleted, billing.RunCompletedWithErrors, billing.RunIncomplete, billing.RunSuspect, billing.RunStopped,
	} {
		if means, _ := ending(billing.Summary{RunID: "r", Status: status}); means == "" {
			t.Errorf("%s is not explained", status)
		}
	}
}
