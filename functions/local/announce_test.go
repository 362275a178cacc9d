package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/eventserver"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

// runOn runs local and returns its summary and its standard error.
func runOn(t *testing.T, environ map[string]string, args ...string) (billing.Summary, string) {
	t.Helper()
	var out, errs bytes.Buffer
	code := realMain(t.Context(), append(args, "--json"), environ, &out, &errs)
	var a answer
	if err := json.Unmarshal(out.Bytes(), &a); err != nil || code != cli.ExitOK {
		t.Fatalf("exit %d, %v\n%s%s", code, err, &out, &errs)
	}
	return a.Result, errs.String()
}

func wantSaid(t *testing.T, said, want string) {
	t.Helper()
	if !strings.Contains(said, want) {
		t.Errorf("it does not say %q:\n%s", want, said)
	}
}

func TestLocalAnnouncesOnTheConfiguredBus(t *testing.T) {
	events, err := eventserver.Start(eventserver.Options{Buses: []string{"application"}})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_EVENTBRIDGE": events.URL(), "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local",
	} {
		t.Setenv(name, value)
	}
	p := newPlace(t, mysqltest.New(t))
	events.SetFail(func() *eventserver.Fault { return &eventserver.AccessDenied })
	summary, said := runOn(t, p.with("EVENT_BUS", "application"))
	told := summary.Synchronized + 1
	wantSaid(t, said, billing.Count(told, "announcement")+" could not be sent to event bus application")

	events.SetFail(nil)
	_, said = runOn(t, p.with("EVENT_BUS", "application"))
	wantSaid(t, said, "announcements: sent to event bus application")
	kinds := map[string]int{}
	for _, e := range events.Events() {
		kinds[e.DetailType]++
	}
	if kinds["Organization Reconciled"] != summary.Synchronized || kinds["Reconciliation Run Finished"] != 2 {
		t.Errorf("%d repairs, announced: %v", summary.Synchronized, kinds)
	}
}

// Consumers of the functions' bus would not get what is sent to a developer's bus.
func TestLocalSendsNothingIfTheFunctionsUseAnotherBus(t *testing.T) {
	events, err := eventserver.Start(eventserver.Options{Buses: []string{"application", "dev"}})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_EVENTBRIDGE": events.URL(), "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local",
	} {
		t.Setenv(name, value)
	}
	p := newPlace(t, mysqltest.New(t))
	store := mysqlstore.New(p.db.DB)
	if _, err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	const kept = "arn:aws:events:us-east-1:000000000000:event-bus/application"
	if err := store.SetEventBus(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	summary, said := runOn(t, p.with("EVENT_BUS", "dev"))
	wantSaid(t, said, fmt.Sprintf("%s in the outbox: the functions of this database announce on %s", billing.Count(summary.Synchronized+1, "announcement"), kept))
	if bus, _, err := store.EventBus(t.Context()); bus != kept || err != nil || len(events.Events()) > 0 {
		t.Errorf("kept %q, %v; %d events", bus, err, len(events.Events()))
	}
}

func TestLocalKeepsAnnouncementsThatTheDeployedFunctionsWillSend(t *testing.T) {
	p := newPlace(t, mysqltest.New(t))
	store := mysqlstore.New(p.db.DB)
	if _, err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := store.EnsureStage(t.Context(), "production"); err != nil {
		t.Fatal(err)
	}
	if err := store.SetEventBus(t.Context(), "arn:aws:events:us-east-1::event-bus/application"); err != nil {
		t.Fatal(err)
	}
	summary, said := runOn(t, p.environ)
	wantSaid(t, said, billing.Count(summary.Synchronized+1, "announcement")+" in the outbox, which the deployed functions will send")
	if n := mysqltest.Value[int](t, p.db, `SELECT COUNT(*) FROM reconciliation_outbox WHERE detail LIKE '%"stage":"production","livemode":false%'`); n != summary.Synchronized+1 {
		t.Errorf("%d of %d announcements name the functions' stage", n, summary.Synchronized+1)
	}
}

// The bus would be the application's, and the organizations are made up.
func TestDemonstrationSaysWhatItWouldHaveAnnounced(t *testing.T) {
	environ := map[string]string{"EVENT_BUS": "application"}
	for name, args := range map[string][]string{"a run": {"--orgs", "50"}, "a dry run": {"--orgs", "50", "--dry-run"}} {
		t.Run(name, func(t *testing.T) {
			summary, _ := runOn(t, environ, args...)
			if summary.DryRun {
				summary.Synchronized = 0
			} else if summary.Synchronized == 0 {
				t.Fatal("nothing was repaired")
			}
			var out, errs bytes.Buffer
			if code := realMain(t.Context(), args, environ, &out, &errs); code != cli.ExitOK {
				t.Fatalf("exit %d\n%s", code, &errs)
			}
			wantSaid(t, errs.String(), fmt.Sprintf("%d repairs and the end of the run would have been announced", summary.Synchronized))
		})
	}
}
