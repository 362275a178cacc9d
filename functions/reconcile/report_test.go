package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

var lastSunday = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

// withRuns returns the environment of a database with two runs: "old", which repaired
// organization a, and a week later "new", a dry run in which b drifted and c met an error.
func withRuns(t *testing.T) (*mysqltest.DB, map[string]string) {
	t.Helper()
	w := testworld.New(t)
	db, store := w.DB, w.Store
	organizations := []appschema.Organization{
		{ID: "a", Name: "Alpha", CreatedBy: "u"}, {ID: "b", Name: "=Beta", CreatedBy: "u", StripeCustomerID: new("cus_b")}, {ID: "c", Name: "Gamma", CreatedBy: "u"},
	}
	if err := appschema.InsertOrganizations(t.Context(), db.DB, organizations); err != nil {
		t.Fatal(err)
	}
	changes := []billing.Change{{Field: billing.FieldPlanTier, From: "pro", To: "free"}, {Field: billing.FieldOrgTier, From: "pro", To: "free"}}
	for id, run := range map[string]billing.Run{
		"old": {StartedAt: lastSunday.AddDate(0, 0, -7)}, "new": {StartedAt: lastSunday, DryRun: true},
	} {
		run.ID, run.DeadlineAt = id, run.StartedAt.Add(time.Hour)
		if _, err := store.OpenRun(t.Context(), run); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range []billing.Item{
		{RunID: "old", OrgID: "a", Outcome: billing.OutcomeSynced, Reason: billing.ReasonRepaired, SubscriptionID: "sub_a", Changes: changes},
		{RunID: "new", OrgID: "a", Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync},
		{RunID: "new", OrgID: "b", Outcome: billing.OutcomeDrifted, Reason: billing.ReasonRepaired, SubscriptionID: "sub_b", Changes: changes[:1]},
		{RunID: "new", OrgID: "c", Outcome: billing.OutcomeError, Reason: billing.ReasonTierUnresolved, Error: "no tier for price_x"},
	} {
		db.MustExec(t, `INSERT INTO reconciliation_items (run_key, org_id) VALUES ((SELECT run_key FROM reconciliation_runs WHERE id = ?), ?)`, i.RunID, i.OrgID)
		if err := store.Decide(t.Context(), i, false, lastSunday); err != nil {
			t.Fatal(err)
		}
	}
	db.MustExec(t, `UPDATE reconciliation_runs SET status = 'completed', finished_at = ? WHERE id = 'old'`, lastSunday.AddDate(0, 0, -7).Add(754*time.Second))
	environ := db.Environ()
	environ["STRIPE_MODE"] = "live"
	return db, environ
}

// reconcile runs the command line, which must end with this exit code.
func reconcile(t *testing.T, environ map[string]string, exit int, args ...string) (out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	if code := realMain(t.Context(), args, environ, &o, &e); code != exit {
		t.Fatalf("%v: exit %d, want %d: %s%s", args, code, exit, &o, &e)
	}
	return o.String(), e.String()
}

func TestReportIsOfTheLastRunUnlessOneIsNamed(t *testing.T) {
	_, environ := withRuns(t)
	for _, c := range []struct {
		args []string
		orgs string
		says string
	}{
		{[]string{"report", "--csv", "-"}, "b c", "1 change of 1 organization, 2 rows"},
		{[]string{"report", "old", "--csv", "-"}, "a a", "2 changes of 1 organization, 2 rows"},
		{[]string{"report", "old", "--csv-organizations", "-"}, "a", "2 changes of 1 organization, 1 row"},
	} {
		out, errs := reconcile(t, environ, cli.ExitOK, c.args...)
		rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		var orgs []string
		for _, row := range rows[1:] {
			orgs = append(orgs, row[1])
		}
		if strings.Join(orgs, " ") != c.orgs || !strings.Contains(errs, "to standard output: "+c.says) {
			t.Errorf("%v said %q and wrote of %v", c.args, errs, orgs)
		}
	}
}

func TestReportFileIsReadableByItsOwnerOnly(t *testing.T) {
	_, environ := withRuns(t)
	folder := t.TempDir()
	for format, rows := range map[string]string{"html": "", "csv": ", 2 rows", "csv-organizations": ", 2 rows"} {
		file := filepath.Join(folder, "report."+format)
		if err := os.WriteFile(file, []byte("an older report"), 0o644); err != nil {
			t.Fatal(err)
		}
		out, errs := reconcile(t, environ, cli.ExitOK, "report", "--"+format, file)
		if out != "wrote run new to "+file+": 1 change of 1 organization"+rows+"\n" || errs != "" {
			t.Errorf("said %q and %q", out, errs)
		}
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", format, info.Mode(), err)
		}
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), "=Beta") || strings.Contains(string(text), "older report") {
			t.Errorf("%s: %v, %s", format, err, text)
		}
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) != 3 {
		t.Errorf("beside the reports: %v, %v", left, err)
	}
}

func TestReportWithJSONPrintsRunFileAndCounts(t *testing.T) {
	_, environ := withRuns(t)
	file := filepath.Join(t.TempDir(), "r.html")
	out, _ := reconcile(t, environ, cli.ExitOK, "report", "old", "--html", file, "--json")
	var got written
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.RunID != "old" || got.File != file || got.Changes != 2 || got.Organizations != 1 {
		t.Errorf("%v: %s", err, out)
	}
}

func TestPageHasFiguresHistoryAndLinks(t *testing.T) {
	_, environ := withRuns(t)
	page, _ := reconcile(t, environ, cli.ExitOK, "report", "--html", "-")
	for _, want := range []string{
		"tier_unresolved", "no tier for price_x", "<span>reconcile start</span> <span>--dry-run</span>", "https://dashboard.stripe.com/subscriptions/sub_b",
		"https://dashboard.stripe.com/customers/cus_b", "2026-11-15 03:00", "subscriptions.plan_tier", "100.0\u00a0%", "Gamma",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	delete(environ, "STRIPE_MODE")
	if page, _ := reconcile(t, environ, cli.ExitOK, "report", "--html", "-"); strings.Contains(page, "dashboard.stripe.com") {
		t.Error("there are links, though the mode is not known")
	}
}

func TestFailedReportKeepsTheExistingFile(t *testing.T) {
	db, environ := withRuns(t)
	folder := t.TempDir()
	file := filepath.Join(folder, "report.csv")
	if err := os.WriteFile(file, []byte("an older report"), 0o600); err != nil {
		t.Fatal(err)
	}
	db.MustExec(t, `UPDATE reconciliation_items SET changes = 'broken' WHERE run_key = (SELECT run_key FROM reconciliation_runs WHERE id = 'new') AND org_id = 'b'`)
	_, errs := reconcile(t, environ, cli.ExitFailed, "report", "--csv", file)
	if !strings.HasPrefix(errs, "error: the report was not written: ") {
		t.Errorf("said %q", errs)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "an older report" {
		t.Errorf("the file holds %q, %v", text, err)
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) != 1 {
		t.Errorf("in the folder: %v, %v", left, err)
	}
}

func TestReportIsWrittenToADeviceWithoutReplacingIt(t *testing.T) {
	_, environ := withRuns(t)
	reconcile(t, environ, cli.ExitOK, "report", "--csv", os.DevNull)
	if info, err := os.Stat(os.DevNull); err != nil || info.Mode().IsRegular() {
		t.Fatalf("%s was replaced: %v, %v", os.DevNull, info, err)
	}
}

func TestReportAndRunsRefuseInvalidRequests(t *testing.T) {
	db, environ := withRuns(t)
	folder := t.TempDir()
	for name, c := range map[string]struct {
		args []string
		exit int
		code string
		says string
	}{
		"no format":      {[]string{"report"}, cli.ExitUsage, "usage", "--csv FILE"},
		"two tables":     {[]string{"report", "--csv", "a", "--csv-organizations", "b"}, cli.ExitUsage, "usage", "one of --html"},
		"both formats":   {[]string{"report", "--csv", "a", "--html", "b"}, cli.ExitUsage, "usage", "one of --html"},
		"two runs":       {[]string{"report", "old", "new", "--csv", "a"}, cli.ExitUsage, "usage", "one run"},
		"unknown run":    {[]string{"report", "older", "--csv", "a"}, cli.ExitFailed, "unknown_run", "older"},
		"json to stdout": {[]string{"report", "--csv", "-"}, cli.ExitUsage, "usage", "standard output"},
		"a folder":       {[]string{"report", "--csv", folder}, cli.ExitUsage, "usage", "is a folder"},
		"no such folder": {[]string{"report", "--csv", filepath.Join(folder, "no", "a")}, cli.ExitUsage, "usage", "no such file"},
		"no limit":       {[]string{"runs", "--limit", "0"}, cli.ExitUsage, "usage", "--limit"},
		"unknown kind":   {[]string{"runs", "--kind", "daily"}, cli.ExitUsage, "usage", "all, full, catch-up, one"},
		"too many runs":  {[]string{"runs", "--limit", "501"}, cli.ExitUsage, "usage", "--limit"},
	} {
		t.Run(name, func(t *testing.T) {
			out, _ := reconcile(t, environ, c.exit, append(c.args, "--json")...)
			wantError(t, out, c.code, c.says)
		})
	}
	db.MustExec(t, `DELETE FROM reconciliation_runs`)
	out, _ := reconcile(t, environ, cli.ExitFailed, "report", "--csv", filepath.Join(folder, "a"), "--json")
	wantError(t, out, "unknown_run", "no run yet")
}

func wantError(t *testing.T, out, code, says string) {
	t.Helper()
	var answer struct {
		Error struct{ Code, Message, Hint string } `json:"error"`
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if answer.Error.Code != code || !strings.Contains(answer.Error.Message, says) {
		t.Errorf("%+v; want code %s and a message with %q", answer.Error, code, says)
	}
}

func TestRunsAreListedLatestFirst(t *testing.T) {
	db, environ := withRuns(t)
	db.MustExec(t, `INSERT INTO reconciliation_runs (id, status, dry_run, strategy, org_id, started_at, deadline_at)
		VALUES ('one', 'stopped', FALSE, 'retrieve', 'a', ?, ?)`, lastSunday.Add(time.Hour), lastSunday.Add(2*time.Hour))
	out, errs := reconcile(t, environ, cli.ExitOK, "runs", "--kind", "all")
	want := `RUN                                     TOTAL  DRIFTED  ERRORS    DRIFT
one                                         0        0       0    0.0 %
  stopped, 2026-11-22 04:00 UTC, organization a
new                                         3        1       1   33.3 %
  enumerating, 2026-11-22 03:00 UTC, dry run
old                                         1        1       0  100.0 %
  completed, 2026-11-15 03:00 UTC, took 12m34s
`
	if out != want || errs != "" {
		t.Errorf("got\n%s%s, want\n%s", out, errs, want)
	}
	if out, _ := reconcile(t, environ, cli.ExitOK, "runs", "--limit", "1"); strings.Count(out, "\n") != 3 {
		t.Errorf("--limit 1 shows\n%s", out)
	}
	out, _ = reconcile(t, environ, cli.ExitOK, "runs", "--kind", "all", "--json")
	var runs []pastRun
	if err := json.Unmarshal([]byte(out), &runs); err != nil || len(runs) != 3 {
		t.Fatalf("%v: %s", err, out)
	}
	if r := runs[2]; r.RunID != "old" || r.DurationMs != 754_000 || r.DriftRate != 1 || r.TotalOrganizations != 1 || !r.StartedAt.Equal(lastSunday.AddDate(0, 0, -7)) {
		t.Errorf("the last is %+v", r)
	}
	if !runs[1].DryRun || runs[0].OrgID != "a" || runs[1].FinishedAt != nil {
		t.Errorf("got %+v", runs)
	}
	if r := runs[0]; r.Kind != billing.KindOne || runs[1].Kind != billing.KindFull || r.Day != "" {
		t.Errorf("got %+v", runs)
	}
	db.MustExec(t, `DELETE FROM reconciliation_runs`)
	if out, errs := reconcile(t, environ, cli.ExitOK, "runs"); out != "" || !strings.Contains(errs, "no run yet") {
		t.Errorf("without runs: %q and %q", out, errs)
	}
	if out, _ := reconcile(t, environ, cli.ExitOK, "runs", "--json"); out != "[]\n" {
		t.Errorf("without runs: %q", out)
	}
}

func TestCatchUpsAreListedByDayBetweenOtherRuns(t *testing.T) {
	db, environ := withRuns(t)
	for i, status := range []billing.RunStatus{billing.RunCompleted, billing.RunStopped, billing.RunCompletedWithErrors} {
		db.MustExec(t, `INSERT INTO reconciliation_runs (id, status, dry_run, strategy, org_id, started_at, deadline_at, total, summary)
			VALUES (?, ?, FALSE, 'events', '', ?, ?, 4, '{"synchronized":1,"errors":1,"skipped":2,"reasons":{"withheld":1}}')`,
			fmt.Sprintf("events-%d", i), status, lastSunday.Add(time.Duration(i)*time.Hour), lastSunday.Add(time.Hour))
	}
	db.MustExec(t, `INSERT INTO reconciliation_runs (id, status, dry_run, strategy, org_id, started_at, deadline_at)
		VALUES ('one', 'completed', FALSE, 'retrieve', 'a', ?, ?)`, lastSunday, lastSunday)
	out, errs := reconcile(t, environ, cli.ExitOK, "runs")
	want := `RUN                                     TOTAL  DRIFTED  ERRORS    DRIFT
catch-ups of 2026-11-22                    12        6       3   50.0 %
  1 completed, 1 completed_with_errors, 1 stopped, the last at 05:00 UTC
new                                         3        1       1   33.3 %
  enumerating, 2026-11-22 03:00 UTC, dry run
old                                         1        1       0  100.0 %
  completed, 2026-11-15 03:00 UTC, took 12m34s
`
	if out != want || errs != "" {
		t.Errorf("got\n%s%s, want\n%s", out, errs, want)
	}
	out, _ = reconcile(t, environ, cli.ExitOK, "runs", "--json", "--limit", "2")
	var runs []pastRun
	if err := json.Unmarshal([]byte(out), &runs); err != nil || len(runs) != 2 {
		t.Fatalf("%v: %s", err, out)
	}
	if day := runs[0]; day.Kind != billing.KindCatchUp || day.Day != "2026-11-22" || day.Statuses[billing.RunStopped] != 1 || day.Withheld != 3 || runs[1].RunID != "new" {
		t.Errorf("got %+v", runs)
	}
	out, _ = reconcile(t, environ, cli.ExitOK, "runs", "--kind", "catch-up")
	if strings.Count(out, "catch-up") != 3 || !strings.Contains(out, "events-2 ") || strings.Contains(out, "new") {
		t.Errorf("each of them:\n%s", out)
	}
	out, _ = reconcile(t, environ, cli.ExitOK, "status", "--json", "--summary")
	if !strings.Contains(out, `"runId":"new"`) {
		t.Errorf("the last run over all organizations is not %s", out)
	}
}
