package report

import (
	"bytes"
	"encoding/csv"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// cells reads a CSV back, a map for each row.
func cells(t *testing.T, text string) []map[string]string {
	t.Helper()
	lines, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	var rows []map[string]string
	for _, line := range lines[1:] {
		row := map[string]string{}
		for i, cell := range line {
			row[lines[0][i]] = cell
		}
		rows = append(rows, row)
	}
	return rows
}

func TestCSVHasARowForEachChange(t *testing.T) {
	var b bytes.Buffer
	n, err := CSV(t.Context(), &b, these(
		item("a", billing.OutcomeSynced, billing.ReasonRepaired, tierChange("pro", "free"), billing.Change{Field: billing.FieldCancelAtPeriodEnd, From: nil, To: true}),
		item("b", billing.OutcomeSkipped, billing.ReasonInSync, tierChange("never", "seen")),
		item("c", billing.OutcomeDrifted, billing.ReasonRepaired, billing.Change{Field: billing.FieldCurrentPeriodEnd, From: november, To: december}),
		item("d", billing.OutcomeError, billing.ReasonInternal),
		item("e", billing.OutcomeError, billing.ReasonWithheld, billing.Change{Field: billing.FieldOrgCustomerID, From: "cus_e", To: "cus_new"}),
	))
	if err != nil || n != (Written{Organizations: 3, Changes: 4}) {
		t.Fatalf("wrote %+v, %v", n, err)
	}
	want := `run_id,organization_id,organization_name,outcome,reason,applied,field,before,after,tier_changed,period_changed,access_lowered,subscription_id,customer_id,decided_at
run-1,a,Name of a,synced,repaired,yes,subscriptions.plan_tier,pro,free,yes,no,yes,sub_a,cus_a,2026-11-22T03:00:00Z
run-1,a,Name of a,synced,repaired,yes,subscriptions.cancel_at_period_end,,true,yes,no,yes,sub_a,cus_a,2026-11-22T03:00:00Z
run-1,c,Name of c,drifted,repaired,no,subscriptions.current_period_end,2026-11-01T00:00:00Z,2026-12-01T00:00:00Z,no,yes,no,sub_c,cus_c,2026-11-22T03:00:00Z
run-1,e,Name of e,error,withheld,no,organizations.stripe_customer_id,cus_e,cus_new,no,no,no,sub_e,cus_new,2026-11-22T03:00:00Z
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSpreadsheetsGetNoFormula(t *testing.T) {
	for name, c := range map[string]struct{ value, want string }{
		"equals":               {`=HYPERLINK("https://example.com","x")`, `'=HYPERLINK("https://example.com","x")`},
		"plus":                 {"+1", "'+1"},
		"minus":                {"-1+cmd|' /C calc'!A0", "'-1+cmd|' /C calc'!A0"},
		"at":                   {"@SUM(A1)", "'@SUM(A1)"},
		"wide equals":          {"＝1", "'＝1"},
		"after a space":        {"  =1", "'  =1"},
		"after a tab":          {"\t=1", "' =1"},
		"after a return":       {"\r=1", "'\uFFFD=1"},
		"several lines":        {"a\n=1", "a =1"},
		"terminal sequence":    {"\x1b[31mred", "\uFFFD[31mred"},
		"turned direction":     {"a\u202Eb", "a\uFFFDb"},
		"broken encoding":      {"a\xffb", "a\uFFFDb"},
		"quotes and commas":    {`say "hi", twice`, `say "hi", twice`},
		"sign inside":          {"a=b", "a=b"},
		"second cell":          {`x;=HYPERLINK(A1)`, `x;'=HYPERLINK(A1)`},
		"later cells":          {"x;y; @A1;+1", "x;y;' @A1;'+1"},
		"semicolon as it is":   {"x; y", "x; y"},
		"Arabic as it is":      {"شركة", "شركة"},
		"nothing":              {"", ""},
		"a sign of more bytes": {"é=1", "é=1"},
	} {
		t.Run(name, func(t *testing.T) {
			hostile := item("a", billing.OutcomeSynced, billing.ReasonRepaired, tierChange(c.value, c.value))
			hostile.OrgName, hostile.OrgCustomerID = c.value, c.value
			var b bytes.Buffer
			if _, err := CSV(t.Context(), &b, these(hostile)); err != nil {
				t.Fatal(err)
			}
			row := cells(t, b.String())[0]
			for _, column := range []string{"organization_name", "before", "after", "customer_id"} {
				if row[column] != c.want {
					t.Errorf("%s is %q, want %q", column, row[column], c.want)
				}
			}
		})
	}
}

type brokenPipe struct{}

var errBroken = errors.New("broken pipe")

func (brokenPipe) Write([]byte) (int, error) { return 0, errBroken }

func TestCSVThatCannotBeWrittenIsAnError(t *testing.T) {
	for _, n := range []int{1, 10_000} { // at the end, and on the way
		if _, err := CSV(t.Context(), brokenPipe{}, these(many(n)...)); !errors.Is(err, errBroken) {
			t.Errorf("%d organizations: %v", n, err)
		}
	}
}
