package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

// No other command writes what the guard withheld, unless a person allows it. What was withheld counts as drift.
func TestWithheldRepairIsWrittenOnlyIfAPersonAllowsIt(t *testing.T) {
	h := hold(t)
	for _, id := range []string{"org-1", "org-2", "org-3"} {
		h.Subscriber(id, canceled)
	}
	week := h.run(cli.ExitNotOK, "start", "--watch").Result
	if week.Synchronized != 1 || week.Withheld() != 2 || week.Drifted() != 3 || week.DriftByField[billing.FieldPlanTier] != 3 || week.By != cli.Operator() {
		t.Fatalf("%+v", week)
	}
	dry := h.run(cli.ExitOK, "start", "--dry-run", "--watch").Result
	if dry.Drifted() != week.Withheld() || dry.DriftByField[billing.FieldPlanTier] != 2 {
		t.Errorf("a dry run right after shows %d that differ: %+v", dry.Drifted(), dry.DriftByField)
	}
	held := mysqltest.Value[string](t, h.DB, `SELECT id FROM organizations WHERE subscription_tier = 'pro' ORDER BY id LIMIT 1`)

	explained := h.run(cli.ExitOK, "org", held, "--explain")
	if explained.Plan.Reason != billing.ReasonWithheldByRun || len(explained.Plan.Changes) == 0 || !explained.Plan.LowersAccess || !strings.Contains(explained.Plan.Error, week.RunID) {
		t.Errorf("%+v", explained.Plan)
	}
	text := h.prints("org", held, "--explain")
	for _, want := range []string{
		"reconcile status " + week.RunID + "\n", "reconcile report " + week.RunID + " --html FILE\n", "reconcile approve " + week.RunID + " --limit N\n",
		"reconcile redrive --watch\n", "this run withholds 2 organizations and has downgraded 1\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the next step %q of an explanation is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "--explain") || strings.Contains(text, "--allow-downgrade") {
		t.Errorf("the next steps lead around the limit:\n%s", text)
	}
	wantWriterStoppedFirst(t, h, held)
	if text := h.prints("org", held, "--dry-run", "--watch"); !strings.Contains(text, "would be withheld, 1\n") || !strings.Contains(text, "another run withholds that") ||
		!strings.Contains(text, "reconcile org "+held+" --explain\n") {
		t.Errorf("a dry run does not say that a run that writes would withhold it:\n%s", text)
	}
	one := h.run(cli.ExitNotOK, "org", held, "--watch").Result
	if one.Reasons[billing.ReasonWithheldByRun] != 1 || one.Downgrades != 0 || !strings.Contains(one.Details[0].Error, week.RunID) {
		t.Errorf("%+v", one)
	}
	allowed := h.run(cli.ExitOK, "org", held, "--allow-downgrade", "--watch").Result
	if allowed.Synchronized != 1 || !allowed.AllowDowngrade || allowed.By != cli.Operator() {
		t.Errorf("%+v", allowed)
	}

	h.run(cli.ExitFailed, "approve", week.RunID, "--limit", "4")
	h.run(cli.ExitOK, "approve", week.RunID, "--limit", "3")
	h.run(cli.ExitOK, "redrive", "--watch")
	if left := h.Count(`SELECT COUNT(*) FROM organizations WHERE subscription_tier <> 'free'`); left != 0 {
		t.Errorf("%d were not lowered", left)
	}
	status := h.run(cli.ExitOK, "status", week.RunID).Result
	if status.Approval == nil || status.Approval.Limit != 3 || status.Approval.By != cli.Operator() || status.DowngradeLimit != 3 {
		t.Errorf("%+v", status.Approval)
	}
	for _, want := range []string{"3 approved by " + cli.Operator(), "asked for by"} {
		if text := h.prints("status", week.RunID); !strings.Contains(text, want) {
			t.Errorf("status does not say %q:\n%s", want, text)
		}
	}
	if page := h.prints("report", week.RunID, "--html", "-"); !strings.Contains(page, "Approved: 3 downgrades in all, by "+cli.Operator()) {
		t.Error("the page does not say who approved")
	}
}

// wantWriterStoppedFirst checks the explanation of a withheld organization whose repair was undone: stop what undoes it,
// since a higher limit would not help.
func wantWriterStoppedFirst(t *testing.T, h held, orgID string) {
	t.Helper()
	becomes := func(reason billing.Reason) {
		h.Exec(`UPDATE reconciliation_items SET reason = ?, updated_at = updated_at WHERE org_id = ? AND outcome = 'error'`, reason, orgID)
	}
	becomes(billing.ReasonNotRepeated)
	text := h.prints("org", orgID, "--explain")
	stop, allow := strings.Index(text, billing.ReasonNotRepeated.Advice().Do), strings.Index(text, "reconcile org "+orgID+" --allow-downgrade\n")
	if stop < 0 || allow < stop || strings.Contains(text, "approve") || strings.Contains(text, "raise the limit") {
		t.Errorf("a repair that was undone is explained by\n%s", text)
	}
	becomes(billing.ReasonWithheld)
}

func TestCallerIsTheIdentityOfTheCredentialsElseTheOperator(t *testing.T) {
	answer := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(answer)
		if err := r.ParseForm(); err != nil || r.PostForm.Get("Action") != "GetCallerIdentity" {
			t.Errorf("asked for %v (%v)", r.PostForm, err)
		}
		_, _ = w.Write([]byte(`<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>` +
			`<Arn>arn:aws:sts::123456789012:assumed-role/ops/someone</Arn></GetCallerIdentityResult></GetCallerIdentityResponse>`))
	}))
	defer server.Close()
	t.Setenv("AWS_ENDPOINT_URL_STS", server.URL)
	settings := aws.Config{Region: "eu-central-1", Credentials: credentials.NewStaticCredentialsProvider("id", "secret", ""), BaseEndpoint: &server.URL}
	settings.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	c := &command{environ: map[string]string{}}
	if got, want := c.caller(t.Context(), settings), "arn:aws:sts::123456789012:assumed-role/ops/someone"; got != want {
		t.Errorf("it is %q, want %q", got, want)
	}
	answer = http.StatusForbidden
	if got := c.caller(t.Context(), settings); got != cli.Operator() {
		t.Errorf("refused, it is %q", got)
	}
	c.environ["AWS_ENDPOINT_URL_LAMBDA"] = "http://127.0.0.1:1" // local's
	if got := c.caller(t.Context(), settings); got != cli.Operator() {
		t.Errorf("with an enumerator of local's it is %q", got)
	}
}
