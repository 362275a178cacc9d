package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

func TestMain(m *testing.M) { mysqltest.Main(m) }

// runWithWithheld returns the environment of a database with run-1, which used 2 of its limit of
// 2 downgrades and withheld 3.
func runWithWithheld(t *testing.T) (*mysqltest.DB, map[string]string) {
	t.Helper()
	w := testworld.New(t)
	db, store := w.DB, w.Store
	now := time.Now().UTC()
	if _, err := store.OpenRun(t.Context(), billing.Run{ID: "run-1", StartedAt: now, DeadlineAt: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	db.MustExec(t, `UPDATE reconciliation_runs SET status = 'completed_with_errors', downgrades = 2, downgrade_limit = 2`)
	for _, org := range []string{"a", "b", "c"} {
		db.MustExec(t, `INSERT INTO reconciliation_items (run_key, org_id, outcome, reason) VALUES ((SELECT run_key FROM reconciliation_runs WHERE id = 'run-1'), ?, 'error', 'withheld')`, org)
	}
	environ := db.Environ()
	return db, environ
}

func TestApproveRaisesTheLimitAndSaysWhatIsNext(t *testing.T) {
	db, environ := runWithWithheld(t)
	var out, errs bytes.Buffer
	if code := realMain(t.Context(), []string{"approve", "run-1", "--limit", "5"}, environ, &out, &errs); code != cli.ExitOK {
		t.Fatalf("exit %d: %s", code, &errs)
	}
	if want := "run run-1 may now downgrade 5 organizations; it has downgraded 2 and withheld 3; approved by " + cli.Operator() + "\n"; out.String() != want || errs.String() != "to apply what was withheld:\n  reconcile redrive --watch\n" {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
	if limit := mysqltest.Value[int](t, db, `SELECT downgrade_limit FROM reconciliation_runs`); limit != 5 {
		t.Errorf("the limit is %d, want 5", limit)
	}
}

func TestApprovalOfARunOfLocalNamesTheLimitToRunItWith(t *testing.T) {
	db, environ := runWithWithheld(t)
	db.MustExec(t, `INSERT INTO reconciliation_orders (run_id, asked_by) VALUES ('run-1', 'ops@desk (local)')`)
	for queue, want := range map[string]string{
		"": "run it with a higher limit:\n  MAX_DOWNGRADES=3 local\n",
		"https://sqs.eu-central-1.amazonaws.com/000000000000/dead": "to apply what was withheld:\n  reconcile redrive --watch\n",
	} {
		environ["DEAD_LETTER_QUEUE_URL"] = queue
		_, errs := reconcile(t, environ, cli.ExitOK, "approve", "run-1", "--limit", "5")
		if !strings.HasSuffix(errs, want) {
			t.Errorf("%q: %s", queue, errs)
		}
	}
}

func TestApprovalOfTheUsedLimitSaysThatItAllowsNothing(t *testing.T) {
	_, environ := runWithWithheld(t)
	if _, errs := reconcile(t, environ, cli.ExitOK, "approve", "run-1", "--limit", "2"); errs != "that allows no further downgrade; --limit 5 allows all that it withheld\n" {
		t.Errorf("%q", errs)
	}
}

func TestApproveNamesNoRedriveIfNothingWasWithheld(t *testing.T) {
	db, environ := runWithWithheld(t)
	db.MustExec(t, `UPDATE reconciliation_items SET reason = 'repaired'`)
	var out, errs bytes.Buffer
	if code := realMain(t.Context(), []string{"approve", "run-1", "--limit", "5", "--force"}, environ, &out, &errs); code != cli.ExitOK {
		t.Fatalf("exit %d: %s", code, &errs)
	}
	if want := "run run-1 may now downgrade 5 organizations; it has downgraded 2 and withheld 0; approved by " + cli.Operator() + "\n"; out.String() != want || errs.Len() != 0 {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
}

func TestApproveWithJSONPrintsLimitAndWithheld(t *testing.T) {
	_, environ := runWithWithheld(t)
	var out, errs bytes.Buffer
	if code := realMain(t.Context(), []string{"approve", "run-1", "--limit", "5", "--json"}, environ, &out, &errs); code != cli.ExitOK {
		t.Fatalf("exit %d: %s", code, &errs)
	}
	if want := `{"runId":"run-1","downgrades":2,"downgradeLimit":5,"withheld":3,"by":"` + cli.Operator() + `"}` + "\n"; out.String() != want {
		t.Errorf("printed %s, want %s", &out, want)
	}
}

func TestItemsAreCountedIfTheStoredSummaryIsOutdated(t *testing.T) {
	db, _ := runWithWithheld(t)
	store := mysqlstore.New(db.DB)
	db.MustExec(t, `UPDATE reconciliation_runs SET summary_revision = 1, summary = '{"runId":"run-1","status":"completed_with_errors","totalOrganizations":3,"errors":3}'`)
	before := billing.Run{ID: "run-1"}
	if s, err := amendedSummary(t.Context(), store, before, time.Minute); err != nil || s.Errors != 3 || len(s.Details) != 0 {
		t.Errorf("what is written is right: %+v, %v", s, err)
	}
	db.MustExec(t, `UPDATE reconciliation_items SET outcome = 'synced', reason = 'repaired' WHERE org_id = 'a'`)
	if s, err := amendedSummary(t.Context(), store, before, lookEvery); err != nil || s.Errors != 2 || s.Synchronized != 1 || s.TotalOrganizations != 3 {
		t.Errorf("what is written is out of date: %+v, %v", s, err)
	}
}

func TestApproveRefusesInvalidLimitsAndUnknownRuns(t *testing.T) {
	db, environ := runWithWithheld(t)
	for name, c := range map[string]struct {
		args []string
		exit int
		code string
		says string
	}{
		"no run":             {[]string{"approve", "--limit", "5"}, cli.ExitUsage, "usage", "run"},
		"no limit":           {[]string{"approve", "run-1"}, cli.ExitUsage, "usage", "--limit"},
		"below what is used": {[]string{"approve", "run-1", "--limit", "1"}, cli.ExitFailed, cli.CodeConflict, "2 organizations already"},
		"more than withheld": {[]string{"approve", "run-1", "--limit", "6"}, cli.ExitFailed, cli.CodeConflict, "allows more than that"},
		"unknown run":        {[]string{"approve", "run-2", "--limit", "5"}, cli.ExitFailed, "unknown_run", "run-2"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			code := realMain(t.Context(), append(c.args, "--json"), environ, &out, &errs)
			var answer struct {
				Error struct{ Code, Message, Hint string } `json:"error"`
			}
			if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
				t.Fatalf("%v: %s", err, &out)
			}
			if code != c.exit || answer.Error.Code != c.code || !strings.Contains(answer.Error.Message, c.says) {
				t.Errorf("exit %d, %+v; want exit %d, code %s, a message with %q", code, answer.Error, c.exit, c.code, c.says)
			}
		})
	}
	if limit := mysqltest.Value[int](t, db, `SELECT downgrade_limit FROM reconciliation_runs`); limit != 2 {
		t.Errorf("the limit is %d, want 2", limit)
	}
}

func TestApproveRaisesOrReducesTheLimitAndRecordsWhoDidIt(t *testing.T) {
	db, environ := runWithWithheld(t)
	for _, args := range [][]string{{"--limit", "40", "--force"}, {"--limit", "30"}, {"--limit", "2"}} { // 30 is more than was withheld, but less than before
		var out, errs bytes.Buffer
		if code := realMain(t.Context(), append([]string{"approve", "run-1"}, args...), environ, &out, &errs); code != cli.ExitOK {
			t.Fatalf("%v: exit %d: %s", args, code, &errs)
		}
		if limit := mysqltest.Value[string](t, db, `SELECT downgrade_limit FROM reconciliation_runs`); limit != args[1] {
			t.Errorf("%v: the limit is %s", args, limit)
		}
		kept := mysqltest.Value[string](t, db, `SELECT CONCAT(approved_limit, ' by ', approved_by, ' ', approved_at > UTC_TIMESTAMP() - INTERVAL 1 MINUTE) FROM reconciliation_orders`)
		if want := args[1] + " by " + cli.Operator() + " 1"; kept != want {
			t.Errorf("%v: kept %q, want %q", args, kept, want)
		}
	}
}

func TestApprovalOfOneCatchUpKeepsTheSharedLimit(t *testing.T) {
	db, environ := runWithWithheld(t)
	db.MustExec(t, `UPDATE reconciliation_runs SET strategy = 'events', downgrade_limit = 50`)
	var out, errs bytes.Buffer
	if code := realMain(t.Context(), []string{"approve", "run-1", "--limit", "6"}, environ, &out, &errs); code != cli.ExitFailed {
		t.Errorf("exit %d: %s%s", code, &out, &errs)
	}
	if code := realMain(t.Context(), []string{"approve", "run-1", "--limit", "5"}, environ, &out, &errs); code != cli.ExitOK {
		t.Fatalf("exit %d: %s", code, &errs)
	}
	if !strings.HasPrefix(out.String(), "run run-1 may now downgrade 5 organizations") {
		t.Errorf("printed %q", &out)
	}
	if limit := mysqltest.Value[int](t, db, `SELECT downgrade_limit FROM reconciliation_runs`); limit != 50 {
		t.Errorf("the limit that catch-ups share became %d", limit)
	}
}
