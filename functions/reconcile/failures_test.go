package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// with returns the environment with variables changed; the SDK's are changed in the process.
func (h held) with(t *testing.T, changes map[string]string) map[string]string {
	t.Helper()
	changed := maps.Clone(h.environ)
	maps.Copy(changed, changes)
	onlyTheseAWSSettings(t, changed)
	return changed
}

func TestErrorsHaveACodeOneLineAndAHint(t *testing.T) {
	h := hold(t)
	h.Subscriber("org-1")
	for name, c := range map[string]struct {
		changes map[string]string
		args    []string
		exit    int
		code    string
		says    string // in the message
		hint    string // in the hint
	}{
		"no such function": {map[string]string{"ENUMERATOR_FUNCTION": "other"}, []string{"start"}, cli.ExitFailed, codeNotFound, "function other in region us-east-1", "AWS_REGION"},
		"no such queue":    {map[string]string{"DEAD_LETTER_QUEUE_URL": h.environ["WORK_QUEUE_URL"] + "-other"}, []string{"redrive"}, cli.ExitFailed, codeNotFound, "queue in region us-east-1", "DEAD_LETTER_QUEUE_URL"},
		"no credentials":   {map[string]string{"AWS_ACCESS_KEY_ID": ""}, []string{"start"}, cli.ExitFailed, codeCredentials, "credentials", "aws sso login"},
		"no credentials for queues": {
			map[string]string{"AWS_ACCESS_KEY_ID": ""}, []string{"redrive"}, cli.ExitFailed, codeCredentials, "credentials", "AWS_PROFILE",
		},
		"no such profile":      {map[string]string{"AWS_PROFILE": "nobody"}, []string{"start"}, cli.ExitUsage, "configuration", "nobody", "AWS_PROFILE"},
		"no region":            {map[string]string{"AWS_REGION": ""}, []string{"start"}, cli.ExitUsage, "configuration", "AWS_REGION", "region"},
		"nobody answers":       {map[string]string{"AWS_ENDPOINT_URL_LAMBDA": "http://127.0.0.1:1"}, []string{"start"}, cli.ExitFailed, codeUnreachable, "refused", "network"},
		"no queue settings":    {map[string]string{"WORK_QUEUE_URL": ""}, []string{"redrive"}, cli.ExitUsage, "configuration", "WORK_QUEUE_URL", ".env.example"},
		"no function setting":  {map[string]string{"ENUMERATOR_FUNCTION": ""}, []string{"org", "org-1"}, cli.ExitUsage, "configuration", "ENUMERATOR_FUNCTION", ".env.example"},
		"watch needs database": {map[string]string{"DB_HOST": ""}, []string{"start", "--watch"}, cli.ExitUsage, "configuration", "DB_HOST", ".env.example"},
		"database is away":     {map[string]string{"DB_PORT": "1"}, []string{"start", "--watch"}, cli.ExitFailed, "database_unavailable", "DB_HOST", ""},
		"no database user":     {map[string]string{"DB_USER": ""}, []string{"org", "org-1"}, cli.ExitUsage, "configuration", "DB_USER", ".env.example"},
		"unknown run":          {nil, []string{"status", "never"}, cli.ExitFailed, "unknown_run", "pruned", "reconcile runs"},
		"unknown run to go on": {nil, []string{"start", "--resume", "never"}, cli.ExitFailed, "unknown_run", "never", "\n    reconcile runs"},
		"unknown organization": {nil, []string{"org", "org-2"}, cli.ExitFailed, "unknown_organization", "org-2", "no name contains it"},
		"near organization":    {nil, []string{"org", "ORG-"}, cli.ExitFailed, "unknown_organization", "ORG-", "org-1"},
		"unknown, no database": {map[string]string{"DB_HOST": ""}, []string{"org", "org-2"}, cli.ExitFailed, "unknown_organization", "org-2", ""},
		"unknown to explain":   {nil, []string{"org", "org-2", "--explain"}, cli.ExitFailed, "unknown_organization", "org-2", "no name contains it"},
		"wrong account":        {map[string]string{"STRIPE_ACCOUNT_ID": "acct_other"}, []string{"org", "org-1", "--explain"}, cli.ExitFailed, "wrong_account", "acct_other", ""},
		"wrong key":            {map[string]string{"STRIPE_SECRET_KEY": "sk_test_wrong"}, []string{"org", "org-1", "--explain"}, cli.ExitFailed, "stripe_unauthorized", "STRIPE_SECRET_KEY", ""},
		"unknown strategy":     {nil, []string{"start", "--strategy", "guess"}, cli.ExitUsage, "usage", "guess", "--help"},
		"beginning of no run":  {nil, []string{"start", "--since", "2h"}, cli.ExitUsage, "usage", "--strategy events", "--help"},
		"events expired":       {nil, []string{"start", "--strategy", "events", "--since", "30d"}, cli.ExitUsage, "usage", "719h is the most", "--help"},
		"no moment":            {nil, []string{"start", "--strategy", "events", "--since", "lunch"}, cli.ExitUsage, "usage", `--since "lunch" is neither`, "--help"},
		"organization missing": {nil, []string{"org"}, cli.ExitUsage, "usage", "organization id", "--help"},
		"organization empty":   {nil, []string{"org", " "}, cli.ExitUsage, "usage", "argument 2 is empty", "--help"},
		"run to go on empty":   {nil, []string{"start", "--resume", ""}, cli.ExitUsage, "usage", "after --resume is empty", "--help"},
		"run empty":            {nil, []string{"status", ""}, cli.ExitUsage, "usage", "argument 2 is empty", "--help"},
		"explain and watch":    {nil, []string{"org", "org-1", "--explain", "--watch"}, cli.ExitUsage, "usage", "--explain", "--help"},
		"explain and allow":    {nil, []string{"org", "org-1", "--explain", "--allow-downgrade"}, cli.ExitUsage, "usage", "--explain", "--help"},
		"two runs":             {nil, []string{"status", "a", "b"}, cli.ExitUsage, "usage", "one run", "--help"},
		"other shell":          {nil, []string{"completion", "csh"}, cli.ExitUsage, "usage", "csh", "--help"},
		"no shell":             {nil, []string{"completion"}, cli.ExitUsage, "usage", "bash, zsh", "--help"},
		"misspelt flag":        {nil, []string{"start", "--dryrun"}, cli.ExitUsage, "usage", "did you mean --dry-run?", "--help"},
		"unlike any flag":      {nil, []string{"start", "--nonsense"}, cli.ExitUsage, "usage", "unknown flag --nonsense", "--help"},
		"no number":            {nil, []string{"approve", "run", "--limit", "ten"}, cli.ExitUsage, "usage", `--limit is "ten", which is no whole number`, "--help"},
		"neither yes nor no":   {nil, []string{"start", "--dry-run=maybe"}, cli.ExitUsage, "usage", `--dry-run is "maybe", which is no true or false`, "--help"},
		"help about nothing":   {nil, []string{"help", "start", "strategies"}, cli.ExitUsage, "usage", `unknown command "strategies"`, "--help"},
		"misspelt topic":       {nil, []string{"help", "reason"}, cli.ExitUsage, "usage", "did you mean reasons?", "--help"},
		"misspelt command":     {nil, []string{"statsu"}, cli.ExitUsage, "usage", "did you mean status", "--help"},
	} {
		t.Run(name, func(t *testing.T) {
			code, a := run(t.Context(), t, h.with(t, c.changes), c.args...)
			if code != c.exit || a.Error.Code != c.code || !strings.Contains(a.Error.Message, c.says) || !strings.Contains(a.Error.Hint, c.hint) {
				t.Errorf("exit %d, %+v; want exit %d, code %s, %q, %q", code, a.Error, c.exit, c.code, c.says, c.hint)
			}
			if a.Error.Code != "configuration" && strings.Contains(a.Error.Message, "\n") {
				t.Errorf("more than one line: %q", a.Error.Message)
			}
		})
	}
	if n := h.Count(`SELECT COUNT(*) FROM reconciliation_runs`); n != 0 {
		t.Errorf("%d runs were opened", n)
	}
}

func TestFlagWithoutItsValueIsAUsageErrorThatNamesIt(t *testing.T) {
	var out, errs bytes.Buffer
	if code := realMain(t.Context(), []string{"start", "--strategy"}, nil, &out, &errs); code != cli.ExitUsage || !strings.HasPrefix(errs.String(), "error: --strategy needs a value\n") {
		t.Errorf("exit %d\n%s", code, &errs)
	}
}

// lambdaSays answers every invocation, and counts them.
func lambdaSays(t *testing.T, status int, header map[string]string, body string) (environ map[string]string, asked *atomic.Int32) {
	t.Helper()
	asked = new(atomic.Int32)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		for name, value := range header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, body)
	}))
	t.Cleanup(server.Close)
	environ = map[string]string{
		"AWS_ENDPOINT_URL_LAMBDA": server.URL, "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local",
		"ENUMERATOR_FUNCTION": "enumerator",
	}
	onlyTheseAWSSettings(t, environ)
	return environ, asked
}

func TestEnumeratorIsInvokedOnceWhateverItAnswers(t *testing.T) {
	functionError := map[string]string{"X-Amz-Function-Error": "Unhandled"}
	refused := func(code string) map[string]string { return map[string]string{"X-Amzn-Errortype": code} }
	for name, c := range map[string]struct {
		status int
		header map[string]string
		body   string
		code   string
		says   string
	}{
		"throttled":        {429, refused("TooManyRequestsException"), `{"message":"Rate Exceeded."}`, codeThrottled, "Rate Exceeded."},
		"broken":           {500, refused("ServiceException"), `{"Message":"internal"}`, codeRefused, "ServiceException"},
		"denied":           {403, refused("AccessDeniedException"), `{"Message":"not authorized to perform: lambda:InvokeFunction"}`, codeDenied, "lambda:InvokeFunction"},
		"expired":          {403, refused("ExpiredTokenException"), `{"message":"The security token included in the request is expired"}`, codeCredentials, "expired"},
		"wrong signature":  {403, refused("InvalidSignatureException"), `{"message":"does not match"}`, codeCredentials, "does not match"},
		"timed out":        {200, functionError, `{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: x Error: Task timed out after 900.00 seconds"}`, "function_failed", "timed out"},
		"did not start":    {200, functionError, `{"errorType":"Runtime.ExitError","errorMessage":"exit status 1"}`, "function_failed", "exit status 1"},
		"refused key":      {200, functionError, `{"errorType":"stripe_unauthorized","errorMessage":"Stripe refused\nthe key"}`, "stripe_unauthorized", "Stripe refused the key"},
		"no message":       {200, functionError, `oops`, "function_failed", "without a message"},
		"another function": {200, nil, `{"hello":"world"}`, codeRefused, "is not the enumerator's"},
	} {
		t.Run(name, func(t *testing.T) {
			environ, asked := lambdaSays(t, c.status, c.header, c.body)
			code, a := run(t.Context(), t, environ, "start")
			if code != cli.ExitFailed || a.Error.Code != c.code || !strings.Contains(a.Error.Message, c.says) || strings.Contains(a.Error.Message, "\n") {
				t.Errorf("exit %d, %+v; want code %s, %q", code, a.Error, c.code, c.says)
			}
			if n := asked.Load(); n != 1 {
				t.Errorf("asked %d times: each is another run", n)
			}
		})
	}
}

func TestStartSaysThatAPartlyEnqueuedRunContinues(t *testing.T) {
	environ, _ := lambdaSays(t, http.StatusOK, nil, `{"runId":"run-1","enqueued":5000,"done":false}`)
	var out, errs bytes.Buffer
	if code := realMain(t.Context(), []string{"start"}, environ, &out, &errs); code != cli.ExitOK {
		t.Fatalf("exit %d\n%s", code, &errs)
	}
	if want := "run run-1: 5,000 organizations enqueued so far; the enumerator continues within 15 minutes\n"; out.String() != want {
		t.Errorf("%q, want %q", &out, want)
	}
	if !strings.Contains(errs.String(), "reconcile status run-1 --watch") {
		t.Errorf("no next step in %q", &errs)
	}
}

func TestInterruptedStartSaysThatTheRunContinues(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		leave()
		<-gone
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(gone) })
	environ := map[string]string{
		"AWS_ENDPOINT_URL_LAMBDA": server.URL, "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local",
		"ENUMERATOR_FUNCTION": "enumerator",
	}
	onlyTheseAWSSettings(t, environ)
	code, a := run(ctx, t, environ, "start")
	if code != cli.ExitFailed || a.Error.Code != codeInterrupted || !strings.Contains(a.Error.Hint, "continues in AWS; to follow it:\n    reconcile status --watch") {
		t.Errorf("exit %d, %+v", code, a.Error)
	}
}

// writer calls itself when something is written.
type writer func()

func (w writer) Write(p []byte) (int, error) {
	w()
	return len(p), nil
}

func TestInterruptedWatchSaysHowToFollowTheRunAgain(t *testing.T) {
	h := hold(t)
	h.Subscriber("org-1")
	goOn := make(chan struct{})
	h.Stripe.Before(func(r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/subscriptions") {
			<-goOn // a worker is at it
		}
	})
	runID := h.run(cli.ExitOK, "start", "--strategy", "retrieve").RunID
	if open := h.run(cli.ExitOK, "status"); open.Message != "Reconciliation running" || open.Result.Pending != 1 || open.Result.FinishedAt != nil {
		t.Errorf("a run that is going: %+v", open)
	}
	if text := h.prints("status"); !strings.Contains(text, "not finished") {
		t.Errorf("a run that is going:\n%s", text)
	}
	ctx, leave := context.WithCancel(t.Context())
	var out bytes.Buffer
	code := realMain(ctx, []string{"status", "--watch", "--json"}, h.environ, &out, writer(leave)) // at the first sign of progress
	close(goOn)
	if code != cli.ExitFailed || !strings.Contains(out.String(), `"code":"interrupted"`) || !strings.Contains(out.String(), "reconcile status "+runID+" --watch") {
		t.Errorf("exit %d, %s", code, &out)
	}
	if code, a := run(t.Context(), t, h.environ, "status", runID, "--watch"); code != cli.ExitOK || a.Result.Pending != 0 {
		t.Errorf("exit %d, %+v", code, a)
	}
}

func TestRedriveFollowsOneThatIsRunning(t *testing.T) {
	h := hold(t)
	h.Subscriber("org-1")
	runID := h.run(cli.ExitOK, "org", "org-1", "--watch").Result.RunID
	settings, err := awsconfig.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	queues := sqs.NewFromConfig(settings)
	deadLetters, arns := h.environ["DEAD_LETTER_QUEUE_URL"], map[string]*string{}
	for _, variable := range []string{"DEAD_LETTER_QUEUE_URL", "WORK_QUEUE_URL"} {
		out, err := queues.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{
			QueueUrl: aws.String(h.environ[variable]), AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn},
		})
		if err != nil {
			t.Fatal(err)
		}
		arns[variable] = aws.String(out.Attributes["QueueArn"])
	}
	for range 3 { // of an organization that has its outcome: they will not come back
		body := fmt.Sprintf(`{"version":1,"runId":%q,"orgId":"org-1"}`, runID)
		if _, err := queues.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &deadLetters, MessageBody: &body}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := queues.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{
		SourceArn: arns["DEAD_LETTER_QUEUE_URL"], DestinationArn: arns["WORK_QUEUE_URL"], MaxNumberOfMessagesPerSecond: aws.Int32(1),
	}); err != nil {
		t.Fatal(err)
	}
	environ := h.with(t, map[string]string{"DB_HOST": ""}) // the queues alone are enough
	if code, a := run(t.Context(), t, environ, "redrive"); code != cli.ExitOK || a.Status != "running" || a.Moved >= 3 {
		t.Errorf("exit %d, %+v", code, a)
	}
	var out, errs bytes.Buffer
	if code := realMain(t.Context(), []string{"redrive", "--watch"}, environ, &out, &errs); code != cli.ExitOK {
		t.Fatalf("exit %d\n%s", code, &errs)
	}
	if !strings.Contains(errs.String(), "a redrive is running since") || !strings.Contains(out.String(), "moved back to the work queue\n") {
		t.Errorf("standard output %q, standard error %q", &out, &errs)
	}
}

func TestHelpOfEachCommandHasExamples(t *testing.T) {
	for _, name := range []string{"start", "org", "status", "redrive", "approve", "stop", "migrate"} {
		var out, errs bytes.Buffer
		if code := realMain(t.Context(), []string{name, "--help"}, nil, &out, &errs); code != cli.ExitOK || errs.Len() != 0 {
			t.Errorf("%s: exit %d, %s", name, code, &errs)
		}
		if !strings.Contains(out.String(), "Examples:\n  ") || !strings.Contains(out.String(), "reconcile "+name) {
			t.Errorf("%s has no example:\n%s", name, &out)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		var out, errs bytes.Buffer
		if code := realMain(t.Context(), []string{"completion", shell}, nil, &out, &errs); code != cli.ExitOK || errs.Len() != 0 || !strings.Contains(out.String(), "reconcile") {
			t.Errorf("%s: exit %d, %s", shell, code, &errs)
		}
	}
}

func TestHelpExplainsEachReasonAndWarning(t *testing.T) {
	for _, args := range [][]string{{"help", "reasons"}, {"reasons"}, {"reasons", "--json"}} {
		var out, errs bytes.Buffer
		if code := realMain(t.Context(), args, nil, &out, &errs); code != cli.ExitOK || errs.Len() != 0 {
			t.Errorf("%s: exit %d, %s", args, code, &errs)
		}
		unwrapped := strings.Join(strings.Fields(out.String()), " ")
		for _, a := range billing.AllAdvice() {
			for _, want := range append([]string{a.Code, a.Means, a.Do}, a.Commands...) {
				if !strings.Contains(unwrapped, want) {
					t.Errorf("%s: %q is not in\n%s", args, want, &out)
				}
			}
		}
	}
}

func TestReasonsOfOneCodeExplainsItAlone(t *testing.T) {
	for _, args := range [][]string{{"help", "reasons", "withheld"}, {"reasons", "withheld"}} {
		var out, errs bytes.Buffer
		code := realMain(t.Context(), args, nil, &out, &errs)
		text := out.String()
		if code != cli.ExitOK || !strings.Contains(text, "  withheld\n") || !strings.Contains(text, "reconcile approve RUN --limit N") || strings.Contains(text, "in_sync") {
			t.Errorf("%v: exit %d, %s%s", args, code, &out, &errs)
		}
		errs.Reset()
		args[len(args)-1] = "withhld"
		if code := realMain(t.Context(), args, nil, &out, &errs); code != cli.ExitUsage || !strings.Contains(errs.String(), `no reason or warning "withhld"; did you mean withheld?`) {
			t.Errorf("%v: exit %d, %s", args, code, &errs)
		}
	}
}

func TestEveryCommandInAdviceExists(t *testing.T) {
	for _, a := range billing.AllAdvice() {
		for _, command := range a.Commands {
			args := strings.Fields(strings.Replace(command, "--limit N", "--limit 1", 1))[1:]
			var out, errs bytes.Buffer
			code := realMain(t.Context(), append(args, "--help"), nil, &out, &errs) // flags are read up to --help
			if code != cli.ExitOK || !strings.Contains(out.String(), "Usage:\n  reconcile "+args[0]) {
				t.Errorf("%s: %s: exit %d, %s%s", a.Code, command, code, &errs, &out)
			}
		}
	}
}
