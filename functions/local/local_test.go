package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/wiring"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/localdb"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

func TestMain(m *testing.M) { mysqltest.Main(m) }

const (
	orgs  = 200
	drift = 0.15
)

// place is a database and a fake Stripe with organizations, and the environment that names them.
type place struct {
	db      *mysqltest.DB
	stripe  *stripetest.Server
	environ map[string]string
	planted demo.Population
}

func newPlace(t *testing.T, db *mysqltest.DB) place {
	t.Helper()
	stripe, err := stripetest.Start(stripetest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stripe.Close(); err != nil {
			t.Error(err)
		}
	})
	o := demo.Options{Orgs: orgs, Drift: drift, Seed: 7, Now: time.Now().UTC().Truncate(time.Second)}
	planted, err := demo.Populate(t.Context(), db.DB, stripe, o)
	if err != nil {
		t.Fatal(err)
	}
	environ := db.Environ()
	environ["STRIPE_SECRET_KEY"], environ["STRIPE_API_BASE"], environ["STRIPE_RPS"] = stripe.Key(), stripe.URL(), "100"
	maps.Copy(environ, demo.Prices())
	return place{db: db, stripe: stripe, environ: environ, planted: planted}
}

// with returns the environment with one variable changed.
func (p place) with(name, value string) map[string]string {
	changed := maps.Clone(p.environ)
	changed[name] = value
	return changed
}

// answer is what a command printed with --json.
type answer struct {
	Message string          `json:"message"`
	Result  billing.Summary `json:"result"`
	Error   struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Hint    string `json:"hint"`
	} `json:"error"`
}

func local(ctx context.Context, t *testing.T, environ map[string]string, args ...string) (int, answer) {
	t.Helper()
	var out, errs bytes.Buffer
	code := realMain(ctx, append(args, "--json"), environ, &out, &errs)
	var a answer
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		t.Fatalf("standard output is no JSON: %v\n%s\nstandard error:\n%s", err, &out, &errs)
	}
	if a.Error.Code != "" && a.Error.Hint == "" {
		t.Errorf("an error without a hint: %+v", a.Error)
	}
	if s := a.Result; s.TotalOrganizations != s.Synchronized+s.Errors+s.Skipped+s.Pending {
		t.Errorf("%d organizations are not %d synchronized + %d errors + %d skipped + %d pending", s.TotalOrganizations, s.Synchronized, s.Errors, s.Skipped, s.Pending)
	}
	return code, a
}

// A sweep does not read customers, so it cannot find that one is missing.
func TestRetrieveStrategyFindsAMissingCustomer(t *testing.T) {
	_, a := local(t.Context(), t, nil, "--strategy", "retrieve")
	if a.Result.Reasons[billing.ReasonCustomerMissing] == 0 || a.Result.StripeRequests.Other == 0 {
		t.Errorf("%+v", a.Result)
	}
}

func TestDemonstrationHasEveryKindOfDrift(t *testing.T) {
	code, a := local(t.Context(), t, nil)
	if code != cli.ExitOK || a.Result.Status != billing.RunCompleted || a.Message != "Reconciliation completed" {
		t.Fatalf("exit %d, status %s, message %q", code, a.Result.Status, a.Message)
	}
	for _, reason := range []billing.Reason{
		billing.ReasonRepaired, billing.ReasonRowInserted, billing.ReasonSubscriptionMissing, billing.ReasonInSync,
		billing.ReasonNoSubscription, billing.ReasonNoStripeIdentity,
	} {
		if a.Result.Reasons[reason] == 0 {
			t.Errorf("no organization is %s; there are %v", reason, a.Result.Reasons)
		}
	}
	if a.Result.OrphansTotal == 0 || len(a.Result.Orphans) == 0 {
		t.Error("there is no orphan")
	}
	for _, field := range billing.Fields() {
		if a.Result.DriftByField[field] == 0 {
			t.Errorf("%s never drifted", field)
		}
	}
}

func TestMissingServerProgramIsAConfigurationError(t *testing.T) {
	t.Setenv("MYSQLD", "/nowhere/mysqld")
	code, a := local(t.Context(), t, nil)
	if code != cli.ExitUsage || a.Error.Code != "configuration" || a.Error.Hint == "" || strings.Contains(a.Error.Message, "\n") ||
		!strings.Contains(a.Error.Message, "MYSQLD") || !strings.Contains(a.Error.Message, "/nowhere/mysqld") {
		t.Errorf("exit %d, error %+v", code, a.Error)
	}
}

// onOwnParts starts own parts on the given database; they end with the test.
func onOwnParts(t *testing.T, database func(context.Context) (*localdb.Server, error)) *ownParts {
	t.Helper()
	own, err := startOwnParts(t.Context(), demoOptions{orgs: orgs, drift: 100 * drift, seed: 7}, database, output.NewProgress(t.Output()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := own.close(); err != nil {
			t.Error(err)
		}
	})
	return own
}

// reconcileOn runs once on parts that stay.
func reconcileOn(t *testing.T, own *ownParts) billing.Summary {
	t.Helper()
	c, err := config.Load(own.environ(), config.NeedDatabase, config.NeedStripe)
	if err != nil {
		t.Fatal(err)
	}
	s, err := connect(t.Context(), options{}, c, own, slog.New(slog.DiscardHandler), output.NewProgress(t.Output()))
	if err != nil {
		t.Fatal(err)
	}
	summary, err := s.reconcile(t.Context(), options{})
	if err := errors.Join(err, s.close()); err != nil {
		t.Fatal(err)
	}
	return summary
}

func server(t *testing.T) func(context.Context) (*localdb.Server, error) {
	t.Helper()
	if db := mysqltest.NewAny(t); !db.Concurrent {
		t.Skip("there is no MariaDB or MySQL here to compare with")
	}
	return localdb.Start
}

func TestSecondRunFindsNothingToDo(t *testing.T) {
	for name, database := range map[string]func(context.Context) (*localdb.Server, error){"best": startDatabase, "in process": localdb.StartInProcess} {
		t.Run(name, func(t *testing.T) {
			own := onOwnParts(t, database)
			first := reconcileOn(t, own)
			if first.Status != billing.RunCompleted || first.Synchronized == 0 {
				t.Fatalf("first run: %+v", first)
			}
			before := rowsOf(t, own)
			second := reconcileOn(t, own)
			if second.Status != billing.RunCompleted || second.Synchronized != 0 || second.TotalOrganizations != first.TotalOrganizations {
				t.Errorf("second run: %+v", second)
			}
			if diff := cmp.Diff(before, rowsOf(t, own)); diff != "" {
				t.Errorf("the second run wrote to the application's tables:\n%s", diff)
			}
		})
	}
}

func TestServerAndInProcessDatabaseEndAlike(t *testing.T) {
	a, b := onOwnParts(t, server(t)), onOwnParts(t, localdb.StartInProcess)
	if diff := cmp.Diff(lasting(reconcileOn(t, a)), lasting(reconcileOn(t, b))); diff != "" {
		t.Errorf("summaries differ (-server +in process):\n%s", diff)
	}
	// Both were seeded relative to the time of day, a moment apart.
	soon := cmp.Comparer(func(a, b time.Time) bool { return a.Sub(b).Abs() < time.Minute })
	if diff := cmp.Diff(rowsOf(t, a), rowsOf(t, b), soon); diff != "" {
		t.Errorf("tables differ (-server +in process):\n%s", diff)
	}
}

// lasting returns the summary without what differs from run to run.
func lasting(s billing.Summary) billing.Summary {
	s.RunID, s.StartedAt, s.FinishedAt, s.DurationMs = "", time.Time{}, nil, 0
	for i := range s.Details {
		for j, c := range s.Details[i].Changes {
			s.Details[i].Changes[j] = billing.Change{Field: c.Field, From: kind(c.From), To: kind(c.To)}
		}
	}
	return s
}

// kind replaces a time by a text, because the two databases are seeded a moment apart.
func kind(v any) any {
	if _, ok := v.(time.Time); ok {
		return "a time"
	}
	return v
}

type tables struct {
	Organizations []appschema.Organization
	Subscriptions []appschema.Subscription
}

func rowsOf(t *testing.T, own *ownParts) tables {
	t.Helper()
	db, err := own.open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	o, err := appschema.Organizations(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	s, err := appschema.Subscriptions(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	return tables{o, s}
}

func TestDryRunPlansTheSameAndWritesNothing(t *testing.T) {
	p := newPlace(t, mysqltest.New(t))
	before := checksum(t, p.db.DB)
	code, dry := local(t.Context(), t, p.environ, "--dry-run")
	if code != cli.ExitOK || !dry.Result.DryRun || dry.Result.Synchronized == 0 {
		t.Fatalf("dry run: exit %d, %+v", code, dry.Result)
	}
	if checksum(t, p.db.DB) != before {
		t.Error("the dry run wrote to the application's tables")
	}
	_, wet := local(t.Context(), t, p.environ)
	// ended_at of a subscription that vanished is the time of the run; all else must be equal.
	if diff := cmp.Diff(changesOf(dry.Result), changesOf(wet.Result)); diff != "" {
		t.Errorf("planned and applied changes differ (-dry +wet):\n%s", diff)
	}
}

// MySQL would refuse the row each time, so it is not tried again.
func TestRowThatMySQLRefusesIsAnErrorOfItsOrganizationOnly(t *testing.T) {
	p := newPlace(t, mysqltest.New(t))
	_, dry := local(t.Context(), t, p.environ, "--dry-run")
	drifted := slices.IndexFunc(dry.Result.Details, func(d billing.Detail) bool { return d.Reason == billing.ReasonRepaired })
	if drifted < 0 {
		t.Fatal("no organization drifted")
	}
	refused := dry.Result.Details[drifted].OrgID
	for table, column := range map[string]string{"organizations": "id", "subscriptions": "org_id"} {
		p.db.MustExec(t, `CREATE TRIGGER veto_`+table+` BEFORE UPDATE ON `+table+` FOR EACH ROW
			BEGIN IF NEW.`+column+` = '`+refused+`' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'frozen by support'; END IF; END`)
	}
	code, a := local(t.Context(), t, p.environ)
	if code != cli.ExitNotOK || a.Result.Reasons[billing.ReasonDatabaseRefused] != 1 || a.Result.Errors != dry.Result.Errors+1 ||
		a.Result.Synchronized != dry.Result.Synchronized-1 {
		t.Errorf("exit %d, %+v; dry: %+v", code, a.Result, dry.Result)
	}
	for _, d := range a.Result.Details {
		if d.OrgID == refused && (d.Reason != billing.ReasonDatabaseRefused || !strings.Contains(d.Error, "frozen by support")) {
			t.Errorf("got %+v", d)
		}
	}
}

func changesOf(s billing.Summary) map[string][]billing.Change {
	changes := map[string][]billing.Change{}
	for _, d := range s.Details {
		for _, c := range d.Changes {
			if d.Reason == billing.ReasonSubscriptionMissing && c.Field == billing.FieldEndedAt {
				c.To = kind(c.To)
			}
			changes[d.OrgID] = append(changes[d.OrgID], c)
		}
	}
	return changes
}

func TestBadInputIsRefusedInOneLineBeforeAnythingStarts(t *testing.T) {
	p := newPlace(t, mysqltest.New(t))
	before := checksum(t, p.db.DB)
	tests := map[string]struct {
		environ map[string]string
		args    []string
		exit    int
		code    string
		says    string
	}{
		"no server at the address":     {p.with("DB_PORT", "1"), nil, cli.ExitFailed, "database_unavailable", "DB_HOST"},
		"wrong password":               {p.with("DB_PASSWORD", "wrong-password"), nil, cli.ExitFailed, "database_login", "DB_PASSWORD"},
		"no such database":             {p.with("DB_NAME", "nowhere"), nil, cli.ExitFailed, "database_login", "DB_NAME"},
		"wrong key":                    {p.with("STRIPE_SECRET_KEY", "sk_test_wrong"), nil, cli.ExitFailed, "stripe_unauthorized", "STRIPE_SECRET_KEY"},
		"no Stripe at the address":     {p.with("STRIPE_API_BASE", "http://127.0.0.1:1"), nil, cli.ExitFailed, "stripe_unavailable", "STRIPE_API_BASE"},
		"account of somebody else":     {p.with("STRIPE_ACCOUNT_ID", "acct_other"), nil, cli.ExitFailed, "wrong_account", "STRIPE_ACCOUNT_ID"},
		"key of the other mode":        {p.with("STRIPE_MODE", "live"), nil, cli.ExitUsage, "configuration", "STRIPE_MODE"},
		"database without Stripe":      {p.with("STRIPE_SECRET_KEY", ""), nil, cli.ExitUsage, "usage", "STRIPE_SECRET_KEY"},
		"two problems of the settings": {p.with("DB_PORT", "x"), nil, cli.ExitUsage, "configuration", "DB_PORT"},
		"unknown flag":                 {p.environ, []string{"--nonsense"}, cli.ExitUsage, "usage", "nonsense"},
		"unknown argument":             {p.environ, []string{"nonsense"}, cli.ExitUsage, "usage", "nonsense"},
		"empty organization":           {p.environ, []string{"--org", ""}, cli.ExitUsage, "usage", "after --org is empty"},
		"empty run":                    {p.environ, []string{"--resume= "}, cli.ExitUsage, "usage", "--resume is empty"},
		"a beginning of no catch-up":   {p.environ, []string{"--since", "2h"}, cli.ExitUsage, "usage", "--strategy events"},
		"a catch-up of one":            {p.environ, []string{"--strategy", "events", "--org", "org-1"}, cli.ExitUsage, "usage", "for one organization"},
		"a beginning to come":          {p.environ, []string{"--strategy", "events", "--since", "2099-01-01"}, cli.ExitUsage, "usage", "in the future"},
		"unknown strategy":             {p.environ, []string{"--strategy", "guess"}, cli.ExitUsage, "usage", "guess"},
		"unknown organization":         {p.environ, []string{"--org", "nobody"}, cli.ExitFailed, "unknown_organization", "nobody"},
		"unknown run":                  {p.environ, []string{"--resume", "never"}, cli.ExitFailed, "unknown_run", "never"},
		"hold of parts of others":      {p.environ, []string{"--hold"}, cli.ExitUsage, "usage", "--hold"},
		"shape of parts of others":     {p.environ, []string{"--orgs", "5"}, cli.ExitUsage, "usage", "--orgs"},
		"live key, nobody to ask":      {p.with("STRIPE_SECRET_KEY", "rk_live_wrong"), nil, cli.ExitUsage, "usage", "--yes"},
		"live key, a dry run":          {p.with("STRIPE_SECRET_KEY", "rk_live_wrong"), []string{"--dry-run"}, cli.ExitFailed, "stripe_unauthorized", "STRIPE_SECRET_KEY"},
		"live key, said yes":           {p.with("STRIPE_SECRET_KEY", "rk_live_wrong"), []string{"--yes"}, cli.ExitFailed, "stripe_unauthorized", "STRIPE_SECRET_KEY"},
		"settings of a demonstration":  {map[string]string{"MAX_DOWNGRADES": "many"}, nil, cli.ExitUsage, "configuration", "MAX_DOWNGRADES"},
		"run of a demonstration":       {p.environ, []string{"--demo", "--resume", "run"}, cli.ExitUsage, "usage", "--resume"},
		"impossible demonstration":     {nil, []string{"--orgs", "0"}, cli.ExitUsage, "usage", "--orgs"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			code, a := local(t.Context(), t, test.environ, test.args...)
			if code != test.exit || a.Error.Code != test.code || !strings.Contains(a.Error.Message, test.says) {
				t.Errorf("exit %d, error %+v; want exit %d, code %s, a message with %q", code, a.Error, test.exit, test.code, test.says)
			}
			if a.Error.Code != "configuration" && strings.Contains(a.Error.Message, "\n") {
				t.Errorf("more than one line: %q", a.Error.Message)
			}
			for _, secret := range []string{p.db.Password, p.stripe.Key(), "wrong-password", "sk_test_wrong", "rk_live_wrong"} {
				if secret != "" && strings.Contains(a.Error.Message+a.Error.Hint, secret) {
					t.Errorf("a secret is in the error: %+v", a.Error)
				}
			}
		})
	}
	if checksum(t, p.db.DB) != before {
		t.Error("something was written")
	}
}

func TestDemonstrationWritesToNoOtherDatabase(t *testing.T) {
	p := newPlace(t, mysqltest.New(t))
	before := checksum(t, p.db.DB)
	t.Chdir(t.TempDir())
	if err := os.WriteFile(".env", []byte("DB_HOST=db.example.com\nnot a line of it\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, a := local(t.Context(), t, nil); code != cli.ExitUsage || a.Error.Code != "configuration" {
		t.Errorf("a broken .env: exit %d, %+v", code, a.Error)
	}
	code, a := local(t.Context(), t, p.environ, "--demo", "--orgs", "7", "--drift", "100")
	if code != cli.ExitOK || a.Result.TotalOrganizations != 7 || a.Result.Synchronized != 7 {
		t.Errorf("exit %d, %+v", code, a)
	}
	if checksum(t, p.db.DB) != before {
		t.Error("the demonstration wrote to another database")
	}
}

func TestSettingsAreCheckedBeforeTheDemonstrationIsSeeded(t *testing.T) {
	var out, errs bytes.Buffer
	code := realMain(t.Context(), nil, map[string]string{"MAX_DOWNGRADES": "many"}, &out, &errs)
	if code != cli.ExitUsage || strings.Contains(errs.String(), "seeding") || strings.Contains(errs.String(), "database:") {
		t.Errorf("exit %d\n%s", code, &errs)
	}
}

func TestDemonstrationSaysWhichWebhooksItLostAndWhatIsNext(t *testing.T) {
	var out, errs bytes.Buffer
	if code := realMain(t.Context(), []string{"--orgs", "60"}, nil, &out, &errs); code != cli.ExitOK {
		t.Fatalf("exit %d\n%s", code, &errs)
	}
	_, end, found := strings.Cut(errs.String(), "Webhooks that the demonstration lost on purpose: changed plans ")
	if !found || !strings.Contains(end, "reconcile help reasons") || !strings.Contains(end, "  local --demo --hold\n") {
		t.Errorf("%s", &errs)
	}
}

func TestRevokedKeyStopsTheRunAndResumingCompletesIt(t *testing.T) {
	p := newPlace(t, mysqltest.New(t))
	p.stripe.AddFault(stripetest.Fault{Endpoint: stripetest.RetrieveSubscription, Kind: stripetest.Unauthorized, After: 5})
	code, a := local(t.Context(), t, p.environ)
	if code != cli.ExitNotOK || a.Result.Status != billing.RunStopped || a.Result.StatusReason != billing.ReasonStripeUnauthorized || a.Result.Errors != 0 || a.Result.Pending == 0 {
		t.Fatalf("exit %d, %+v", code, a.Result)
	}
	p.stripe.ClearFaults()
	code, b := local(t.Context(), t, p.environ, "--resume", a.Result.RunID)
	if code != cli.ExitOK || b.Result.RunID != a.Result.RunID || b.Result.TotalOrganizations != a.Result.TotalOrganizations || b.Result.Pending != 0 {
		t.Errorf("resumed: exit %d, %+v", code, b.Result)
	}
}

func TestInterruptedRunSaysHowToResumeIt(t *testing.T) {
	p := newPlace(t, mysqltest.New(t))
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var seen atomic.Int32
	p.stripe.Before(func(*http.Request) {
		if seen.Add(1) == 50 {
			interrupt()
		}
	})
	code, a := local(ctx, t, p.environ, "--strategy", "retrieve")
	p.stripe.Before(nil)
	_, rest, found := strings.Cut(a.Error.Hint, "--resume ")
	runID := rest
	if code != cli.ExitFailed || a.Error.Code != "interrupted" || !found {
		t.Fatalf("exit %d, error %+v", code, a.Error)
	}
	if status := mysqltest.Value[billing.RunStatus](t, p.db, `SELECT status FROM reconciliation_runs`); status != billing.RunStopped {
		t.Errorf("the interrupted run is %s: another process would continue it", status)
	}
	code, b := local(t.Context(), t, p.environ, "--resume", runID)
	if code != cli.ExitOK || b.Result.Pending != 0 || b.Result.RunID != runID {
		t.Errorf("resumed: exit %d, %+v", code, b.Result)
	}
}

func TestOtherRunsInTheDatabaseAreNotChanged(t *testing.T) {
	p := newPlace(t, mysqltest.New(t))
	local(t.Context(), t, p.environ, "--dry-run") // creates the tables
	long := time.Now().UTC().AddDate(0, 0, -400)
	for id, status := range map[string]billing.RunStatus{
		"old": billing.RunCompleted, "late": billing.RunRunning, "unfinished": billing.RunEnumerating, "drained": billing.RunRunning,
	} {
		p.db.MustExec(t, `INSERT INTO reconciliation_runs (id, status, dry_run, strategy, started_at, deadline_at) VALUES (?,?,FALSE,'retrieve',?,?)`, id, status, long, long)
	}
	const others = `SELECT GROUP_CONCAT(CONCAT(id, status) ORDER BY id) FROM reconciliation_runs WHERE id IN ('old','late','unfinished','drained')`
	before := mysqltest.Value[string](t, p.db, others)
	p.stripe.SetLatency(200 * time.Millisecond) // longer than it takes to look after the run
	if code, a := local(t.Context(), t, p.environ); code != cli.ExitOK {
		t.Fatalf("exit %d, %+v", code, a)
	}
	if after := mysqltest.Value[string](t, p.db, others); after != before {
		t.Errorf("the other runs were %s, now they are %s", before, after)
	}
}

func TestOrganizationIsFoundByItsStripeCustomer(t *testing.T) {
	p := newPlace(t, mysqltest.New(t))
	orgID := mysqltest.Value[string](t, p.db, `SELECT MIN(id) FROM organizations WHERE stripe_customer_id <> '' AND is_deleted = 0`)
	customer := mysqltest.Value[string](t, p.db, `SELECT stripe_customer_id FROM organizations WHERE id = '`+orgID+`'`)
	var out, errs bytes.Buffer
	if code := realMain(t.Context(), []string{"--org", customer, "--dry-run"}, p.environ, &out, &errs); code != cli.ExitOK || !strings.Contains(errs.String(), "customer "+customer+" is organization "+orgID) {
		t.Errorf("exit %d\n%s", code, &errs)
	}
	if code, a := local(t.Context(), t, p.environ, "--org", "cus_of_nobody"); code != cli.ExitFailed || a.Error.Code != "unknown_organization" {
		t.Errorf("exit %d, %+v", code, a.Error)
	}
}

func TestRunOverOneOrganizationRepairsOnlyThat(t *testing.T) {
	p := newPlace(t, mysqltest.New(t))
	_, dry := local(t.Context(), t, p.environ, "--dry-run")
	drifted := dry.Result.Details[slices.IndexFunc(dry.Result.Details, func(d billing.Detail) bool { return d.Reason == billing.ReasonRepaired })]
	code, a := local(t.Context(), t, p.environ, "--org", drifted.OrgID)
	if code != cli.ExitOK || a.Result.TotalOrganizations != 1 || a.Result.Synchronized != 1 || a.Result.Details[0].OrgID != drifted.OrgID {
		t.Errorf("exit %d, %+v", code, a.Result)
	}
}

// A catch-up that a person starts reads events up to now: EVENTS_SETTLE is 0 in local.
func TestCatchUpRepairsOnlyOrganizationsThatEventsName(t *testing.T) {
	p := newPlace(t, mysqltest.New(t))
	named := p.planted.Named
	code, a := local(t.Context(), t, p.environ, "--strategy", "events")
	s := a.Result
	if code != cli.ExitOK || s.Status != billing.RunCompleted || s.TotalOrganizations != named.Organizations || s.Synchronized != named.Pending+named.NotPending || s.Errors != 0 {
		t.Fatalf("exit %d, %+v; events name %+v", code, s, named)
	}
	if s.DriftByCause != (billing.DriftByCause{Pending: named.Pending, NotPending: named.NotPending}) || s.DriftByCause.Pending == 0 || s.DriftByCause.NotPending == 0 {
		t.Errorf("drift by cause %+v, events name %+v", s.DriftByCause, named)
	}
	for _, d := range s.Details {
		if d.Event == nil || d.Event.ID == "" {
			t.Errorf("%s has the event %+v", d.OrgID, d.Event)
		}
	}
	if n := p.stripe.Requests(); n.ListEvents != 2 || n.RetrieveSubscription > 2*named.Organizations {
		t.Errorf("%+v requests for %d organizations", n, named.Organizations)
	}

	p.stripe.FailWebhooks(1)
	sub := p.stripe.Events()[0].Subscription.ID
	p.stripe.UpdateSubscription(sub, func(s *stripetest.Subscription) { s.TrialEnd = 1_900_000_000 })
	code, a = local(t.Context(), t, p.environ, "--strategy", "events", "--since", "1m")
	if s := a.Result; code != cli.ExitOK || s.TotalOrganizations != 1 || s.Synchronized != 1 || s.DriftByCause.Pending != 1 || s.Details[0].Event.Type != "customer.subscription.updated" {
		t.Errorf("of the last minute: exit %d, %+v", code, s)
	}

	var out, errs bytes.Buffer
	if code := realMain(t.Context(), []string{"--resume", a.Result.RunID}, p.environ, &out, &errs); code != cli.ExitOK || !strings.Contains(out.String(), "Stripe's events from") {
		t.Errorf("resumed, it shows no window: exit %d\n%s%s", code, &out, &errs)
	}

	code, a = local(t.Context(), t, p.environ)
	if left := p.planted.Outcomes[billing.OutcomeSynced] - s.Synchronized; code != cli.ExitOK || a.Result.Synchronized != left || a.Result.Reasons[billing.ReasonSubscriptionMissing] != left || left == 0 {
		t.Errorf("the run over all: exit %d, %+v", code, a.Result)
	}
}

func TestUnusableTablesAreRefusedBeforeOwnTablesAreCreated(t *testing.T) {
	p := newPlace(t, mysqltest.New(t))
	p.db.MustExec(t, `ALTER TABLE organizations MODIFY is_deleted INT NULL`)
	p.db.MustExec(t, `ALTER TABLE subscriptions DROP COLUMN trial_end`)
	code, a := local(t.Context(), t, p.environ)
	if code != cli.ExitFailed || a.Error.Code != "database_schema" || !strings.HasPrefix(a.Error.Message, "nothing was started: ") ||
		!strings.Contains(a.Error.Message, "organizations.is_deleted") || !strings.Contains(a.Error.Message, "subscriptions.trial_end") || strings.Contains(a.Error.Message, "\n") {
		t.Errorf("exit %d, %+v", code, a.Error)
	}
	if n := mysqltest.Value[int](t, p.db, `SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name LIKE 'reconciliation\_%'`); n != 0 {
		t.Errorf("%d own tables were made", n)
	}
}

func TestMissingForeignKeyIsPrintedAsAWarning(t *testing.T) {
	p := newPlace(t, mysqltest.New(t))
	p.db.MustExec(t, `ALTER TABLE subscriptions DROP FOREIGN KEY fk_subscriptions_org`)
	var out, errs bytes.Buffer
	if code := realMain(t.Context(), nil, p.environ, &out, &errs); code != cli.ExitOK || !strings.Contains(errs.String(), "warning: subscriptions has no foreign key") {
		t.Errorf("exit %d\n%s", code, &errs)
	}
}

func TestOutputHasEveryChangeAndTheFigures(t *testing.T) {
	p := newPlace(t, mysqltest.New(t))
	var out, errs bytes.Buffer
	if code := realMain(t.Context(), nil, p.environ, &out, &errs); code != cli.ExitOK {
		t.Fatalf("exit %d\n%s", code, &errs)
	}
	for _, want := range []string{"organizations", billing.FieldPlanTier, "synced", "drift by field", "Stripe requests"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in the output:\n%s", want, &out)
		}
	}
}

func checksum(t *testing.T, db *sql.DB) string {
	t.Helper()
	sum, err := appschema.Checksum(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// holding is the standard error of local --hold. ready gets the file that it tells people to read.
type holding struct {
	text  bytes.Buffer
	ready chan string
}

func (h *holding) Write(p []byte) (int, error) {
	n, err := h.text.Write(p)
	if _, line, found := strings.Cut(string(p), "\n  . "); found {
		h.ready <- strings.TrimSpace(line)
	}
	return n, err
}

// exported returns the variables of a shell that reads the file.
func exported(t *testing.T, file string) map[string]string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "env", "-i", "/bin/sh", "-c", `. "$0"; env`, file).Output()
	if err != nil {
		t.Fatal(err)
	}
	return config.Environ(strings.Split(string(out), "\n"))
}

func TestHoldWritesAFileThatAShellReads(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile(".env", []byte("AWS_PROFILE=other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"A": "it's $HOME and `id`", "EMPTY": "", "AWS_PROFILE": "", "AWS_SESSION_TOKEN": ""}
	file, err := writeExports(want)
	delete(want, "AWS_SESSION_TOKEN") // .env does not set it, and the aws command line refuses some empty settings
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
	})
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	got := exported(t, file)
	delete(got, "PWD")
	delete(got, "SHLVL")
	delete(got, "_")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestHeldPipelineIsReachedWithThePrintedEnvironment(t *testing.T) {
	server(t) // there must be one that others can connect to
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	held, ended := &holding{ready: make(chan string, 1)}, make(chan int, 1)
	var out bytes.Buffer
	go func() {
		ended <- realMain(ctx, []string{"--hold", "--orgs", "20", "--json"}, nil, &out, held)
	}()
	var file string
	select {
	case file = <-held.ready:
	case code := <-ended:
		t.Fatalf("exit %d\n%s", code, &held.text)
	}
	environ := exported(t, file)
	c, err := config.Load(environ, config.NeedDatabase, config.NeedStripe, config.NeedEnumerator, config.NeedWorkQueue, config.NeedResultsQueue, config.NeedDeadLetterQueue)
	if err != nil {
		t.Fatal(err)
	}
	client := lambda.New(lambda.Options{
		Region: environ["AWS_REGION"], BaseEndpoint: aws.String(environ["AWS_ENDPOINT_URL_LAMBDA"]),
		Credentials: credentials.NewStaticCredentialsProvider(environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"], ""),
	})
	answer, err := client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &c.EnumeratorFunction, Payload: []byte(`{"dryRun":true}`)})
	if err != nil || answer.FunctionError != nil {
		t.Fatalf("%s, %v", answer.Payload, err)
	}
	store, err := mysqlstore.Open(t.Context(), wiring.DatabaseConfig(c))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for run := (billing.Run{Status: billing.RunEnumerating}); run.Status.Open(); {
		var found bool
		if run, found, err = store.LatestRun(t.Context()); err != nil || !found || !run.DryRun {
			t.Fatalf("%+v, found %t, %v", run, found, err)
		}
	}
	stop()
	if code := <-ended; code != cli.ExitOK {
		t.Errorf("exit %d\n%s", code, &held.text)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file outlives what it leads to: %v", err)
	}
	if !json.Valid(out.Bytes()) {
		t.Errorf("standard output is not the summary alone:\n%s", &out)
	}
}
