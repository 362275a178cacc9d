package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/inprocess"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/wiring"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

var price, canceled = testworld.Price, testworld.Canceled

// held is everything that `local --hold` keeps up, and the environment in which the command line
// reaches it. One downgrade is allowed.
type held struct {
	*testworld.World
	environ map[string]string
}

func hold(t *testing.T) held {
	t.Helper()
	onlyTheseAWSSettings(t, nil)
	h := held{World: testworld.New(t)}
	h.Clock.Advance(time.Since(testworld.Start)) // the programs have the machine's
	h.environ = h.Environ()
	maps.Copy(h.environ, map[string]string{
		"STRIPE_RPS": "100", "STRIPE_PRICE_ID_PRO": "price_pro", "STRIPE_PRICE_ID_MAX": "price_max", "MAX_DOWNGRADES": "1", "RETRY_BACKOFF": "1s",
	})
	h.serve()
	return h
}

// serve holds the pipeline until the test ends.
func (h held) serve() {
	h.Helper()
	c, err := config.Load(h.environ, config.NeedDatabase, config.NeedStripe)
	if err != nil {
		h.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	p, err := inprocess.Start(h.Context(), c, h.Store, wiring.Stripe(c, 1, log), log)
	if err != nil {
		h.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(h.Context()))
	ready, done := make(chan map[string]string, 1), make(chan error, 1)
	go func() { done <- p.Serve(ctx, func(environ map[string]string) { ready <- environ }) }()
	h.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, p.Close()); err != nil {
			h.Error(err)
		}
	})
	select {
	case environ := <-ready:
		onlyTheseAWSSettings(h.TB, environ)
		maps.Copy(h.environ, environ)
	case err := <-done:
		h.Fatal(err)
	}
}

// onlyTheseAWSSettings hides this machine's settings from the AWS SDK, which reads the process's environment.
func onlyTheseAWSSettings(t testing.TB, environ map[string]string) {
	t.Helper()
	for name, value := range map[string]string{
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "",
	} {
		t.Setenv(name, value)
	}
	for name, value := range environ {
		if strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, value)
		}
	}
}

// answer is what any command prints with --json.
type answer struct {
	pipeline.Enumeration // of start and org

	Message string            `json:"message"`
	Result  billing.Summary   `json:"result"`
	Runs    []billing.Summary `json:"runs"`
	Status  string            `json:"status"`
	Moved   int               `json:"moved"`
	Steps   int               `json:"steps"`
	Governs string            `json:"governs"`
	Why     string            `json:"why"`
	Plan    planned           `json:"plan"`
	Error   struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Hint    string `json:"hint"`
	} `json:"error"`
}

// run runs the command with --json. Standard output must be one JSON value.
func run(ctx context.Context, t testing.TB, environ map[string]string, args ...string) (int, answer) {
	t.Helper()
	var out, errs bytes.Buffer
	code := realMain(ctx, append(args, "--json"), environ, &out, &errs)
	var a answer
	decoder := json.NewDecoder(&out)
	if err := decoder.Decode(&a); err != nil {
		t.Fatalf("%v: exit %d, standard output is no JSON: %v\n%s", args, code, err, &errs)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		t.Errorf("%v: there is more on standard output than one answer", args)
	}
	if a.Error.Code != "" && a.Error.Hint == "" {
		t.Errorf("%v: an error without a hint: %+v", args, a.Error)
	}
	return code, a
}

func (h held) run(wantExit int, args ...string) answer {
	h.Helper()
	code, a := run(h.Context(), h.TB, h.environ, args...)
	if code != wantExit {
		h.Fatalf("%v: exit %d, want %d: %+v", args, code, wantExit, a)
	}
	return a
}

// prints runs the command and returns its standard output.
func (h held) prints(args ...string) string {
	h.Helper()
	var out, errs bytes.Buffer
	if code := realMain(h.Context(), args, h.environ, &out, &errs); code != cli.ExitOK {
		h.Fatalf("%v: exit %d\n%s", args, code, &errs)
	}
	return out.String()
}

func TestASecondMigrationTakesNoStep(t *testing.T) {
	w := testworld.Unmigrated(t)
	_, first := run(t.Context(), t, w.Environ(), "migrate")
	_, second := run(t.Context(), t, w.Environ(), "migrate")
	if first.Steps == 0 || second.Steps != 0 {
		t.Errorf("migrate took %d steps, then %d", first.Steps, second.Steps)
	}
}

func TestRunIsStartedApprovedRedrivenAndResumed(t *testing.T) {
	h := hold(t)
	h.run(cli.ExitFailed, "status") // there is no run yet
	h.Subscriber("org-fine")
	h.Subscriber("org-drifted", price("price_max"))
	h.Subscriber("org-left-1", canceled)
	h.Subscriber("org-left-2", canceled)
	h.Subscriber("org-unknown-price", price("price_of_nothing"))

	started := h.run(cli.ExitNotOK, "start", "--watch").Result
	if started.Status != billing.RunCompletedWithErrors || started.TotalOrganizations != 5 || started.Reasons[billing.ReasonWithheld] != 1 || started.Reasons[billing.ReasonTierUnresolved] != 1 {
		t.Fatalf("%+v", started)
	}
	if status := h.run(cli.ExitNotOK, "status"); status.Result.RunID != started.RunID || status.Result.Errors != 2 || status.Message != "Reconciliation completed" {
		t.Errorf("%+v", status)
	}

	h.Sub("org-unknown-price", price("price_max"))
	h.run(cli.ExitOK, "approve", started.RunID, "--limit", "2")
	redrive := h.run(cli.ExitOK, "redrive", "--watch")
	if redrive.Status != "completed" || redrive.Moved < 2 || len(redrive.Runs) != 1 || redrive.Runs[0].RunID != started.RunID || redrive.Runs[0].Errors != 0 || redrive.Runs[0].Synchronized != 4 {
		t.Errorf("%+v", redrive)
	}
	if status := h.run(cli.ExitOK, "status", started.RunID, "--watch"); status.Result.Status != billing.RunCompleted || status.Result.Errors != 0 {
		t.Errorf("%+v", status)
	}
	if again := h.run(cli.ExitOK, "redrive", "--watch"); again.Status != "empty" || again.Moved != 0 {
		t.Errorf("%+v", again)
	}
	if resumed := h.run(cli.ExitOK, "start", "--resume", started.RunID); resumed.RunID != started.RunID || !resumed.Done || resumed.Enqueued != 0 {
		t.Errorf("%+v", resumed)
	}
	dry := h.run(cli.ExitOK, "start", "--dry-run")
	if dry.RunID == started.RunID || !dry.Done || dry.Enqueued != 5 {
		t.Errorf("%+v", dry)
	}
	if status := h.run(cli.ExitOK, "status", "--watch"); status.Result.RunID != dry.RunID || !status.Result.DryRun || status.Result.Synchronized != 0 {
		t.Errorf("%+v", status)
	}
}

func TestRedriveOfAnEmptyQueueNamesTheRunsThatStillHaveErrors(t *testing.T) {
	h := hold(t)
	h.Subscriber("org-1")
	run := h.run(cli.ExitOK, "start", "--watch").Result.RunID
	if text := h.prints("redrive", "--watch"); strings.Contains(text, "start a new run") {
		t.Errorf("without an error it says\n%s", text)
	}
	h.Exec(`UPDATE reconciliation_items SET outcome = 'error', reason = 'withheld'`) // as a run of local leaves it
	text := h.prints("redrive", "--watch")
	for _, want := range []string{"the dead-letter queue is empty", "run " + run + " has 1 error\n", "local made the run", "\n  reconcile start --watch\n  local\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	settings, err := awsSettings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	waiting := &sqs.SendMessageInput{QueueUrl: new(h.environ["WORK_QUEUE_URL"]), MessageBody: new("{}"), DelaySeconds: 900}
	if _, err := wiring.Queues(settings).SendMessage(t.Context(), waiting); err != nil {
		t.Fatal(err)
	}
	if text := h.prints("redrive", "--watch"); strings.Contains(text, "start a new run") {
		t.Errorf("while the workers have messages it says\n%s", text)
	}
}

func TestExplanationOnAFaultySchemaNamesTheColumn(t *testing.T) {
	h := hold(t)
	h.Subscriber("org-1")
	h.Exec(`ALTER TABLE subscriptions DROP COLUMN trial_end`)
	a := h.run(cli.ExitFailed, "org", "org-1", "--explain")
	if a.Error.Code != string(billing.ReasonDatabaseSchema) || !strings.Contains(a.Error.Message, "subscriptions.trial_end is missing") {
		t.Errorf("%+v", a.Error)
	}
}

func TestOneOrganizationIsExplainedThenReconciled(t *testing.T) {
	h := hold(t)
	h.Subscriber("org-drifted", price("price_max"))
	explained := h.run(cli.ExitOK, "org", "org-drifted", "--explain")
	if explained.Governs != "sub_org-drifted" || explained.Why == "" || explained.Plan.Outcome != billing.OutcomeSynced || len(explained.Plan.Changes) != 3 || explained.Plan.LowersAccess {
		t.Errorf("%+v", explained)
	}
	text := h.prints("org", "org-drifted", "--explain")
	for _, want := range []string{
		"stripe_price_id          price_pro", "sub_org-drifted  active  governs (a subscriptions row records it)", "price                    price_max",
		"governs  sub_org-drifted: it is recorded and active", billing.FieldPlanTier, "pro -> max", "nothing was written",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if n := h.Count(`SELECT COUNT(*) FROM reconciliation_runs`); n != 0 {
		t.Errorf("explaining opened %d runs", n)
	}
	if dry := h.run(cli.ExitOK, "org", "org-drifted", "--dry-run", "--watch"); dry.Result.TotalOrganizations != 1 || len(dry.Result.Details) != 1 || dry.Result.Details[0].Action != billing.OutcomeDrifted {
		t.Errorf("%+v", dry)
	}
	if text := h.prints("org", "org-drifted", "--watch"); !strings.Contains(text, "synced") || !strings.Contains(text, billing.FieldPlanTier) || !strings.Contains(text, "pro -> max") {
		t.Errorf("%s", text)
	}
	if settled := h.run(cli.ExitOK, "org", "org-drifted", "--explain"); settled.Plan.Reason != billing.ReasonInSync {
		t.Errorf("%+v", settled)
	}
	h.Sub("org-drifted", price("price_of_nothing"))
	if refused := h.run(cli.ExitOK, "org", "org-drifted", "--explain"); refused.Plan.Outcome != billing.OutcomeError || refused.Plan.Reason != billing.ReasonTierUnresolved || refused.Plan.Error == "" {
		t.Errorf("%+v", refused)
	}
	text = h.prints("org", "org-drifted", "--explain")
	if a := billing.ReasonTierUnresolved.Advice(); !strings.Contains(text, a.Means) || !strings.Contains(text, a.Do) || !strings.Contains(text, "reconcile org org-drifted\n") {
		t.Errorf("what to do is not in\n%s", text)
	}
	if enqueued := h.run(cli.ExitOK, "org", "org-drifted"); !enqueued.Done || enqueued.Enqueued != 1 {
		t.Errorf("%+v", enqueued)
	}
}

// Two of three changed in the last hours, one of them with a webhook that failed; both are caught up with, and
// the third waits for the next run over all organizations.
func TestCatchUpRepairsTheOrganizationsOfItsWindow(t *testing.T) {
	h := hold(t)
	var events []stripetest.Event
	for id, hours := range map[string]int{"org-failed": 2, "org-mishandled": 1, "org-long-ago": 30} {
		h.Subscriber(id, price("price_max"))
		sub, _ := h.Stripe.Subscription("sub_" + id)
		events = append(events, stripetest.Event{Created: time.Now().Add(-time.Duration(hours) * time.Hour).Unix(), Subscription: &sub})
		if id == "org-failed" {
			events[len(events)-1].PendingWebhooks = 1
		}
	}
	for _, e := range events {
		h.Stripe.AddEvent(e)
	}
	caught := h.run(cli.ExitOK, "start", "--strategy", "events", "--since", "3h", "--watch").Result
	if caught.Status != billing.RunCompleted || caught.TotalOrganizations != 2 || caught.Synchronized != 2 || caught.DriftByCause != (billing.DriftByCause{Pending: 1, NotPending: 1}) {
		t.Errorf("%+v", caught)
	}
	for id, want := range map[string]string{"org-failed": "named in a catch-up by customer.subscription.updated of ", "org-long-ago": ""} {
		text := h.prints("org", id, "--explain")
		if strings.Contains(text, "named in a catch-up") != (want != "") || !strings.Contains(text, want) || want != "" && !strings.Contains(text, "still pending at an endpoint") {
			t.Errorf("%s is explained without %q:\n%s", id, want, text)
		}
	}
	if text := h.prints("start", "--strategy", "events", "--since", "1m", "--watch"); !strings.Contains(text, "Stripe's events from") || !strings.Contains(text, "no event in this window names an organization\n") {
		t.Errorf("a catch-up with nothing to do does not say what it read:\n%s", text)
	}
	if again := h.run(cli.ExitOK, "start", "--strategy", "events", "--watch").Result; again.TotalOrganizations != 2 || again.Synchronized != 0 {
		t.Errorf("of the last day, for nobody has asked for that before: %+v", again)
	}
	if full := h.run(cli.ExitOK, "start", "--watch").Result; full.TotalOrganizations != 3 || full.Synchronized != 1 {
		t.Errorf("%+v", full)
	}
	if listed := h.prints("runs", "--kind", "catch-up"); strings.Count(listed, "completed") != 3 {
		t.Errorf("listed are\n%s", listed)
	}
}

func TestOrganizationIsFoundByCustomerSubscriptionOrName(t *testing.T) {
	h := hold(t)
	h.Subscriber("org-1")
	h.Subscriber("org-2")
	for text, says := range map[string]string{
		"cus_org-1": "customer cus_org-1 is organization org-1  Name of org-1\n", "sub_org-1": "subscription sub_org-1 is organization org-1  Name of org-1\n",
		"Name of org-1": "Name of org-1 is organization org-1\n", "org-1": "",
	} {
		var out, errs bytes.Buffer
		code := realMain(t.Context(), []string{"org", text, "--explain"}, h.environ, &out, &errs)
		if code != cli.ExitOK || !strings.HasPrefix(out.String(), "organization org-1  Name of org-1\n") || errs.String() != says {
			t.Errorf("%s: exit %d\n%s%s", text, code, &out, &errs)
		}
	}
	h.Exec(`UPDATE organizations SET name = 'Twin'`)
	if a := h.run(cli.ExitFailed, "org", "Twin"); a.Error.Code != "ambiguous_organization" || !strings.Contains(a.Error.Hint, "org-1") || !strings.Contains(a.Error.Hint, "org-2") {
		t.Errorf("%+v", a.Error)
	}
	if a := h.run(cli.ExitFailed, "org", "cus_of_nobody"); a.Error.Code != "unknown_organization" || !strings.Contains(a.Error.Message, "cus_of_nobody") {
		t.Errorf("%+v", a.Error)
	}
	delete(h.environ, "DB_HOST")
	if a := h.run(cli.ExitUsage, "org", "cus_org-1"); !strings.Contains(a.Error.Message, "DB_HOST") {
		t.Errorf("without a database: %+v", a.Error)
	}
	if n := h.Count(`SELECT COUNT(*) FROM reconciliation_runs`); n != 0 {
		t.Errorf("%d runs were opened", n)
	}
}

func TestSimilarOrganizationsAreOfferedWithoutControlCharacters(t *testing.T) {
	h := hold(t)
	h.Subscriber("0a4f6c1e-one")
	h.Exec("UPDATE organizations SET name = ?", "evil\x1b[2J\nname")
	for _, explain := range []bool{false, true} {
		args := []string{"org", "0a4f6c1e-two"}
		if explain {
			args = append(args, "--explain")
		}
		var out, errs bytes.Buffer
		code := realMain(t.Context(), args, h.environ, &out, &errs)
		if code != cli.ExitFailed || out.Len() != 0 || !strings.Contains(errs.String(), "did you mean") || !strings.Contains(errs.String(), "0a4f6c1e-one evil") {
			t.Errorf("exit %d, standard output %q\n%s", code, &out, &errs)
		}
		if strings.ContainsRune(errs.String(), '\x1b') {
			t.Errorf("a name reached the terminal as it is: %q", &errs)
		}
	}
}

func TestRedrivePrintsWhatMovedBeforeTheAmendedSummaries(t *testing.T) {
	h := hold(t)
	h.Subscriber("org-1", price("price_of_nothing"))
	runID := h.run(cli.ExitNotOK, "start", "--watch").Result.RunID
	h.Sub("org-1", price("price_max"))
	text := h.prints("redrive", "--watch")
	if !strings.HasPrefix(text, "1 message moved back to the work queue\n\nsynced ") || !strings.Contains(text, "run "+runID+": completed\n") {
		t.Errorf("%s", text)
	}
}

func TestRedriveShowsTheWindowOfACatchUp(t *testing.T) {
	h := hold(t)
	h.Subscriber("org-1", price("price_of_nothing"))
	sub, _ := h.Stripe.Subscription("sub_org-1")
	h.Stripe.AddEvent(stripetest.Event{Created: time.Now().Add(-time.Hour).Unix(), Subscription: &sub})
	h.run(cli.ExitNotOK, "start", "--strategy", "events", "--since", "3h", "--watch")
	h.Sub("org-1", price("price_max"))
	if text := h.prints("redrive", "--watch"); !strings.Contains(text, "Stripe's events from") {
		t.Errorf("the summary of a catch-up lacks its window:\n%s", text)
	}
}

func TestStartWarnsOfAnOpenRun(t *testing.T) {
	h := hold(t)
	h.Subscriber("org-1")
	first := h.run(cli.ExitOK, "start", "--dry-run", "--watch").Result.RunID
	starts := func() string {
		t.Helper()
		var out, errs bytes.Buffer
		if code := realMain(t.Context(), []string{"start", "--dry-run"}, h.environ, &out, &errs); code != cli.ExitOK {
			t.Fatalf("exit %d\n%s", code, &errs)
		}
		return errs.String()
	}
	if text := starts(); strings.Contains(text, "warning") {
		t.Errorf("none is open:\n%s", text)
	}
	h.Exec(`UPDATE reconciliation_runs SET status = 'completed'`)
	h.Exec(`UPDATE reconciliation_runs SET status = 'running' WHERE id = ?`, first)
	text := starts()
	for _, want := range []string{"warning: run " + first + " over all organizations is still running, 1 of 1 organization done", "reconcile status " + first + " --watch\n", "reconcile stop " + first + " --reason TEXT\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}
