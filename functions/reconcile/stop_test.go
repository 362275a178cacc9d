package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

func TestStoppedRunContinuesWhenItIsResumed(t *testing.T) {
	h := hold(t)
	h.Subscriber("org-1", price("price_max"))
	h.Subscriber("org-2", price("price_max"))
	var first sync.Once
	asked, goOn := make(chan struct{}), make(chan struct{})
	h.Stripe.Before(func(r *http.Request) {
		if r.URL.Path == "/v1/account" { // the enumerator asks for that
			return
		}
		first.Do(func() { close(asked) })
		<-goOn
	})
	runID := h.run(cli.ExitOK, "start", "--strategy", "retrieve").RunID
	<-asked // a worker has it in hand

	var out, errs bytes.Buffer
	code := realMain(t.Context(), []string{"stop", runID, "--reason", "prices are being migrated", "--json"}, h.environ, &out, &errs)
	var stopped halt
	if err := json.Unmarshal(out.Bytes(), &stopped); err != nil || code != cli.ExitOK {
		t.Fatalf("exit %d, %v: %s\n%s", code, err, &out, &errs)
	}
	want := halt{RunID: runID, Status: billing.RunStopped, Reason: billing.ReasonStoppedByOperator, Message: cli.Operator() + ": prices are being migrated", Pending: 2}
	if stopped != want {
		t.Errorf("%+v, want %+v", stopped, want)
	}
	close(goOn)
	status := h.run(cli.ExitNotOK, "status", runID).Result
	if status.Status != billing.RunStopped || status.StatusReason != billing.ReasonStoppedByOperator || !strings.Contains(status.StatusMessage, "prices are being migrated") {
		t.Errorf("%+v", status)
	}
	h.run(cli.ExitOK, "start", "--resume", runID)
	if ended := h.run(cli.ExitOK, "status", runID, "--watch").Result; ended.Status != billing.RunCompleted || ended.Synchronized != 2 || ended.StatusReason != "" {
		t.Errorf("%+v", ended)
	}
}

// openRun makes run-1 of [runWithWithheld] a running one with one pending organization.
func openRun(t *testing.T) (*mysqltest.DB, map[string]string) {
	t.Helper()
	db, environ := runWithWithheld(t)
	db.MustExec(t, `UPDATE reconciliation_runs SET status = 'running'`)
	db.MustExec(t, `UPDATE reconciliation_items SET outcome = 'pending', reason = 'not_decided_yet' WHERE org_id = 'a'`)
	return db, environ
}

func TestStopSaysWhatIsPendingAndWhatIsNext(t *testing.T) {
	db, environ := openRun(t)
	var out, errs bytes.Buffer
	if code := realMain(t.Context(), []string{"stop", "run-1", "--reason", "why"}, environ, &out, &errs); code != cli.ExitOK {
		t.Fatalf("exit %d: %s", code, &errs)
	}
	if want := "run run-1 is stopped; 1 organization pending\n"; out.String() != want {
		t.Errorf("printed %q, want %q", &out, want)
	}
	if want := "to continue it:\n  reconcile start --resume run-1\n"; errs.String() != want {
		t.Errorf("standard error %q, want %q", &errs, want)
	}
	if got := mysqltest.Value[string](t, db, `SELECT CONCAT(status, ' ', status_reason, ' ', status_message) FROM reconciliation_runs`); got != "stopped stopped_by_operator "+cli.Operator()+": why" {
		t.Errorf("the run's row has %q", got)
	}
}

func TestRunIsStoppedEvenIfTheResultsQueueIsUnreachable(t *testing.T) {
	db, environ := openRun(t)
	environ["RESULTS_QUEUE_URL"] = "http://127.0.0.1:1/000000000000/results"
	onlyTheseAWSSettings(t, nil) // no credentials
	var out, errs bytes.Buffer
	if code := realMain(t.Context(), []string{"stop", "run-1", "--reason", "why"}, environ, &out, &errs); code != cli.ExitOK {
		t.Fatalf("exit %d: %s", code, &errs)
	}
	if !strings.Contains(errs.String(), "summary follows within 15 minutes") || strings.Count(errs.String(), "\n") != 3 {
		t.Errorf("standard error: %s", &errs)
	}
	if status := mysqltest.Value[string](t, db, `SELECT status FROM reconciliation_runs`); status != "stopped" {
		t.Errorf("the run is %s", status)
	}
}

func TestStopRefusesClosedAndUnknownRuns(t *testing.T) {
	_, environ := runWithWithheld(t)
	for name, c := range map[string]struct {
		args []string
		exit int
		code string
		says string
	}{
		"no run":      {[]string{"stop", "--reason", "why"}, cli.ExitUsage, "usage", "run"},
		"no reason":   {[]string{"stop", "run-1"}, cli.ExitUsage, "usage", "--reason"},
		"closed run":  {[]string{"stop", "run-1", "--reason", "why"}, cli.ExitFailed, cli.CodeConflict, "completed_with_errors already"},
		"unknown run": {[]string{"stop", "run-2", "--reason", "why"}, cli.ExitFailed, "unknown_run", "run-2"},
	} {
		t.Run(name, func(t *testing.T) {
			code, a := run(t.Context(), t, environ, c.args...)
			if code != c.exit || a.Error.Code != c.code || !strings.Contains(a.Error.Message, c.says) {
				t.Errorf("exit %d, %+v; want exit %d, code %s, a message with %q", code, a.Error, c.exit, c.code, c.says)
			}
		})
	}
}
