package report

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// cells reads a CSV back, a map for each row.
func cells(t *testing.T, text string) []map[string]string {
	t.Helper()
	text, marked := strings.CutPrefix(text, "\uFEFF")
	if !marked {
		t.Errorf("no byte order mark: spreadsheets take the table for another encoding: %.40q", text)
	}
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

// mixed returns organizations of every kind that a report lists.
func mixed() Items {
	failed := item("d", billing.OutcomeError, billing.ReasonTierUnresolved)
	failed.Error, failed.SubscriptionID = "no tier for price_x,\nsay \"which\"", ""
	failed.Warnings = []billing.Warning{{Code: billing.WarnMultipleLive, Message: "2 live"}, {Code: billing.WarnMultipleRows, Message: "3 rows"}}
	warned := item("f", billing.OutcomeSkipped, billing.ReasonInSync)
	warned.Warnings = []billing.Warning{{Code: billing.WarnCollectionPaused, Message: "paused"}}
	withheld := item("e", billing.OutcomeError, billing.ReasonWithheld,
		billing.Change{Field: billing.FieldStatus, From: "active", To: "canceled"}, billing.Change{Field: billing.FieldOrgCustomerID, From: "cus_e", To: "cus_new"})
	withheld.Error = "withheld: the limit is reached"
	return these(
		item("a", billing.OutcomeSynced, billing.ReasonRepaired, tierChange("pro", "max"), billing.Change{Field: billing.FieldPriceID, From: "price_pro", To: "price_max"},
			billing.Change{Field: billing.FieldOrgTier, From: "free", To: "max"}, billing.Change{Field: billing.FieldCancelAtPeriodEnd, From: nil, To: true}),
		item("c", billing.OutcomeDrifted, billing.ReasonRepaired, billing.Change{Field: billing.FieldCurrentPeriodEnd, From: november, To: december}),
		failed, withheld, warned,
	)
}

func TestCSVHasARowForEachChangeErrorAndWarning(t *testing.T) {
	var b bytes.Buffer
	n, err := CSV(t.Context(), &b, mixed())
	if err != nil || n != (Written{Organizations: 3, Changes: 7, Rows: 9}) {
		t.Fatalf("wrote %+v, %v", n, err)
	}
	want := "\uFEFF" + `run_id,organization_id,organization_name,outcome,reason,applied,field,before,after,tier_changed,period_changed,access_lowered,subscription_id,customer_id,decided_at,error,warnings,event_id,event_type,event_at,event_webhooks,accepted
run-1,a,Name of a,synced,repaired,yes,subscriptions.plan_tier,pro,max,yes,no,no,sub_a,cus_a,2026-11-22 03:00:00,,,,,,,
run-1,a,Name of a,synced,repaired,yes,subscriptions.stripe_price_id,price_pro,price_max,yes,no,no,sub_a,cus_a,2026-11-22 03:00:00,,,,,,,
run-1,a,Name of a,synced,repaired,yes,organizations.subscription_tier,free,max,yes,no,no,sub_a,cus_a,2026-11-22 03:00:00,,,,,,,
run-1,a,Name of a,synced,repaired,yes,subscriptions.cancel_at_period_end,,true,yes,no,no,sub_a,cus_a,2026-11-22 03:00:00,,,,,,,
run-1,c,Name of c,drifted,repaired,no,subscriptions.current_period_end,2026-11-01 00:00:00,2026-12-01 00:00:00,no,yes,no,sub_c,cus_c,2026-11-22 03:00:00,,,,,,,
run-1,d,Name of d,error,tier_unresolved,,,,,no,no,no,,cus_d,2026-11-22 03:00:00,"no tier for price_x, say ""which""",multiple_live_subscriptions: 2 live | multiple_subscription_rows: 3 rows,,,,,
run-1,e,Name of e,error,withheld,no,subscriptions.status,active,canceled,no,no,yes,sub_e,cus_new,2026-11-22 03:00:00,withheld: the limit is reached,,,,,,
run-1,e,Name of e,error,withheld,no,organizations.stripe_customer_id,cus_e,cus_new,no,no,yes,sub_e,cus_new,2026-11-22 03:00:00,withheld: the limit is reached,,,,,,
run-1,f,Name of f,skipped,in_sync,,,,,no,no,no,sub_f,cus_f,2026-11-22 03:00:00,,collection_paused: paused,,,,,
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOrganizationsCSVHasARowForEachOrganization(t *testing.T) {
	var b bytes.Buffer
	n, err := OrganizationsCSV(t.Context(), &b, mixed())
	if err != nil || n != (Written{Organizations: 3, Changes: 7, Rows: 5}) {
		t.Fatalf("wrote %+v, %v", n, err)
	}
	want := "\uFEFF" + `run_id,organization_id,organization_name,outcome,reason,applied,tier_before,tier_after,status_before,status_after,access,price_id,subscription_id,customer_id,decided_at,error,warnings,event_id,event_type,event_at,event_webhooks,accepted
run-1,a,Name of a,synced,repaired,yes,free,max,active,active,raised,price_max,sub_a,cus_a,2026-11-22 03:00:00,,,,,,,
run-1,c,Name of c,drifted,repaired,no,pro,pro,active,active,,price_c,sub_c,cus_c,2026-11-22 03:00:00,,,,,,,
run-1,d,Name of d,error,tier_unresolved,,pro,pro,active,active,,price_d,,cus_d,2026-11-22 03:00:00,"no tier for price_x, say ""which""",multiple_live_subscriptions: 2 live | multiple_subscription_rows: 3 rows,,,,,
run-1,e,Name of e,error,withheld,no,pro,pro,active,canceled,lowered,price_e,sub_e,cus_new,2026-11-22 03:00:00,withheld: the limit is reached,,,,,,
run-1,f,Name of f,skipped,in_sync,,pro,pro,active,active,,price_f,sub_f,cus_f,2026-11-22 03:00:00,,collection_paused: paused,,,,,
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The tables and the page of a catch-up say which event named an organization.
func TestTheEventThatNamedAnOrganizationIsShown(t *testing.T) {
	named := item("a", billing.OutcomeSynced, billing.ReasonRepaired, tierChange("pro", "max"))
	named.Cause = &billing.Cause{ID: "evt_1", Type: "customer.subscription.updated", Created: now.Add(-47 * time.Minute), PendingWebhooks: 1}
	const cells = ",evt_1,customer.subscription.updated,2026-11-22 02:13:00,still pending at an endpoint,\n"
	for _, write := range []func(context.Context, io.Writer, Items) (Written, error){CSV, OrganizationsCSV} {
		var b bytes.Buffer
		if _, err := write(t.Context(), &b, these(named)); err != nil || !strings.HasSuffix(b.String(), cells) {
			t.Errorf("%v: %s", err, b.String())
		}
	}
	run := runOf(named)
	run.Summary.DriftByCause.Pending = 1
	page := render(t, run)
	wantSaid(t, page, "named by customer.subscription.updated of 02:13 UTC, still pending at an endpoint", "1 webhooks that were not delivered.", "send the events again")
	if got := island(t, page).Entries[0].Event; !strings.HasPrefix(got, "customer.subscription.updated of 02:13 UTC") {
		t.Errorf("the script is told of %q", got)
	}
}

func TestTablesMarkWhatIsAccepted(t *testing.T) {
	known := item("a", billing.OutcomeError, billing.ReasonTierUnresolved)
	known.Warnings = []billing.Warning{{Code: billing.WarnMultipleRows}, {Code: billing.WarnSeveralTiers}}
	known.Accepted = []billing.Acceptance{{Code: string(billing.ReasonTierUnresolved)}, {Code: string(billing.WarnSeveralTiers)}, {Code: string(billing.WarnCollectionPaused)}}
	for _, write := range []func(context.Context, io.Writer, Items) (Written, error){CSV, OrganizationsCSV} {
		var b bytes.Buffer
		if _, err := write(t.Context(), &b, these(known, item("b", billing.OutcomeError, billing.ReasonTierUnresolved))); err != nil {
			t.Fatal(err)
		}
		if rows := cells(t, b.String()); rows[0]["accepted"] != "tier_unresolved | several_tiers" || rows[1]["accepted"] != "" {
			t.Errorf("accepted: %q and %q", rows[0]["accepted"], rows[1]["accepted"])
		}
	}
}

// The organization has its tier already; only its row was missing.
func TestInsertedRowOfAPayingOrganizationRaisesNothing(t *testing.T) {
	inserted := item("a", billing.OutcomeSynced, billing.ReasonRowInserted, tierChange(nil, "pro"), billing.Change{Field: billing.FieldStatus, To: "active"})
	var b bytes.Buffer
	if _, err := OrganizationsCSV(t.Context(), &b, these(inserted)); err != nil {
		t.Fatal(err)
	}
	row := cells(t, b.String())[0]
	for column, want := range map[string]string{"tier_before": "pro", "tier_after": "pro", "status_before": "active", "status_after": "active", "access": ""} {
		if row[column] != want {
			t.Errorf("%s is %q, want %q", column, row[column], want)
		}
	}
	if text := seen(render(t, runOf(inserted))); strings.Contains(text, "From which tier") || strings.Contains(text, "raises access") {
		t.Errorf("the page says that something rose: %s", text)
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
			hostile.OrgName, hostile.OrgCustomerID, hostile.OrgStatus, hostile.PriceID, hostile.Error = c.value, c.value, c.value, c.value, c.value
			for _, table := range []struct {
				write   func(context.Context, io.Writer, Items) (Written, error)
				columns []string
			}{
				{CSV, []string{"organization_name", "before", "after", "customer_id", "error"}},
				{OrganizationsCSV, []string{"organization_name", "tier_before", "tier_after", "status_before", "status_after", "price_id", "customer_id", "error"}},
			} {
				var b bytes.Buffer
				if _, err := table.write(t.Context(), &b, these(hostile)); err != nil {
					t.Fatal(err)
				}
				row := cells(t, b.String())[0]
				for _, column := range table.columns {
					if row[column] != c.want {
						t.Errorf("%s is %q, want %q", column, row[column], c.want)
					}
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
