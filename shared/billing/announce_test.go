package billing_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func TestAnnouncementHasTheStateAfterTheRepair(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	end := at.AddDate(0, 1, 0)
	org := billing.Organization{ID: "org", Tier: "free", Status: "incomplete"}
	row := billing.Row{ID: "row", SubscriptionID: new("sub_old"), CustomerID: new("cus"), Tier: "pro", Status: "active", CurrentPeriodStart: &at, CurrentPeriodEnd: &at}
	for name, test := range map[string]struct {
		record billing.Record
		plan   billing.Plan
		want   billing.OrganizationReconciled
	}{
		"a renewed period": {
			billing.Record{Org: org, Rows: []billing.Row{{ID: "other"}, row}},
			billing.Plan{GoverningID: "sub_old", RowID: "row", Changes: []billing.Change{{Field: billing.FieldCurrentPeriodEnd, From: at, To: end}, {Field: billing.FieldOrgTier, From: "free", To: "pro"}}},
			billing.OrganizationReconciled{
				SubscriptionID: "sub_old", CustomerID: "cus", Tier: billing.Transition{From: "free", To: "pro"}, Status: billing.Transition{From: "active", To: "active"},
				Period: billing.Period{From: at, To: end},
			},
		},
		"a new row": {
			billing.Record{Org: org},
			billing.Plan{GoverningID: "sub_new", Insert: true, Changes: []billing.Change{
				{Field: billing.FieldSubscriptionID, To: "sub_new"},
				{Field: billing.FieldCustomerID, To: "cus_new"},
				{Field: billing.FieldStatus, To: "trialing"},
				{Field: billing.FieldCurrentPeriodStart, To: at},
				{Field: billing.FieldCurrentPeriodEnd, To: end},
			}},
			billing.OrganizationReconciled{
				SubscriptionID: "sub_new", CustomerID: "cus_new", Tier: billing.Transition{From: "free", To: "free"}, Status: billing.Transition{To: "trialing"},
				Period: billing.Period{From: at, To: end},
			},
		},
		"a subscription that is gone": {
			billing.Record{Org: org, Rows: []billing.Row{row}},
			billing.Plan{RowID: "row", Changes: []billing.Change{{Field: billing.FieldStatus, From: "active", To: "canceled"}}},
			billing.OrganizationReconciled{
				SubscriptionID: "sub_old", CustomerID: "cus", Tier: billing.Transition{From: "free", To: "free"}, Status: billing.Transition{From: "active", To: "canceled"},
				Period: billing.Period{From: at, To: at}, AccessLowered: true,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			want := test.want
			want.Version, want.RunID, want.OrgID, want.DecidedAt, want.Changes = 1, "run", "org", at, test.plan.Changes
			got := billing.DefaultTiers.Reconciled(test.record, test.plan, "run", at)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestEndIsAnnouncedOfFullRunsAndOfCatchUpsThatFoundSomething(t *testing.T) {
	full, catchUp := billing.Run{Strategy: billing.StrategySweep}, billing.Run{Strategy: billing.StrategyEvents}
	for name, test := range map[string]struct {
		run     billing.Run
		summary billing.Summary
		want    bool
	}{
		"a full run, though all is well":   {full, billing.Summary{Status: billing.RunCompleted}, true},
		"a dry run":                        {billing.Run{DryRun: true}, billing.Summary{Status: billing.RunCompleted}, true},
		"one organization":                 {billing.Run{OrgID: "org"}, billing.Summary{Status: billing.RunCompletedWithErrors, Errors: 1}, false},
		"a catch-up that found nothing":    {catchUp, billing.Summary{Status: billing.RunCompleted, Skipped: 4}, false},
		"a catch-up that repaired":         {catchUp, billing.Summary{Status: billing.RunCompleted, Synchronized: 1}, true},
		"a catch-up with errors":           {catchUp, billing.Summary{Status: billing.RunCompletedWithErrors}, true},
		"a catch-up that began too late":   {catchUp, billing.Summary{Status: billing.RunCompleted, StatusReason: billing.ReasonEventsExpired}, true},
		"a catch-up that did not complete": {catchUp, billing.Summary{Status: billing.RunIncomplete}, true},
	} {
		if got := billing.AnnouncesEnd(test.run, test.summary); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestAnnouncedEndHasNoDetailsAndNoPeople(t *testing.T) {
	text, err := json.Marshal(billing.RunFinished{Summary: billing.Summary{RunID: "run", By: "alice@desk", Approval: &billing.Approval{By: "bob@desk"}, Details: []billing.Detail{{OrgID: "org"}}}})
	if err != nil {
		t.Fatal(err)
	}
	var told map[string]any
	if err := json.Unmarshal(text, &told); err != nil {
		t.Fatal(err)
	}
	if _, has := told["details"]; has || told["runId"] != "run" || strings.Contains(string(text), "@desk") {
		t.Errorf("%s", text)
	}
}

func TestRefusedAnnouncementWaitsLongerEachTime(t *testing.T) {
	var waits []time.Duration
	for attempts := range 12 {
		waits = append(waits, billing.Announcement{Attempts: attempts}.Backoff())
	}
	if waits[0] != 5*time.Second || waits[1] != 10*time.Second || waits[9] != 2560*time.Second || waits[10] != time.Hour || waits[11] != time.Hour {
		t.Errorf("%v", waits)
	}
	if got := (billing.Announcement{Attempts: 1 << 40}).Backoff(); got != time.Hour {
		t.Errorf("%v", got)
	}
}

func TestSummaryIsNewsIfMoreThanItsRequestsChanged(t *testing.T) {
	before := billing.Summary{Status: billing.RunCompleted, Synchronized: 1, StripeRequests: billing.Usage{Retrieve: 1}}
	after := before
	after.StripeRequests.Retrieve, after.DurationMs = 9, 1
	if after.IsNewsAfter(before) {
		t.Error("they are")
	}
	for name, change := range map[string]func(*billing.Summary){
		"status": func(s *billing.Summary) { s.Status = billing.RunSuspect }, "a repair": func(s *billing.Summary) { s.Synchronized++ },
		"an error": func(s *billing.Summary) { s.Errors++ }, "one still pending": func(s *billing.Summary) { s.Pending++ },
		"a skip": func(s *billing.Summary) { s.Skipped++ }, "a downgrade": func(s *billing.Summary) { s.Downgrades++ }, "an orphan": func(s *billing.Summary) { s.OrphansTotal++ },
	} {
		after := before
		change(&after)
		if !after.IsNewsAfter(before) {
			t.Errorf("%s is no news", name)
		}
	}
}

func TestBusIsTheSameIfRegionNameAndKnownAccountsAgree(t *testing.T) {
	const bus = "arn:aws:events:us-east-1:123456789012:event-bus/application"
	for other, same := range map[string]bool{
		bus: true, "arn:aws:events:us-east-1::event-bus/application": true, "arn:aws-us-gov:events:us-east-1:123456789012:event-bus/application": true,
		"arn:aws:events:us-east-1:000000000000:event-bus/application": false, "arn:aws:events:eu-west-1::event-bus/application": false,
		"arn:aws:events:us-east-1::event-bus/app": false, "true": false, "": false,
	} {
		if billing.SameBus(bus, other) != same || billing.SameBus(other, bus) != same {
			t.Errorf("%s: want %t", other, same)
		}
	}
}

// Whatever the digest has in it, each line fits between the quotes of a template.
func TestLinesFitIntoATemplate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		digest := strings.Join(rapid.SliceOfN(rapid.StringMatching(`[a-z"\\\\ <>é]{0,9}`), 1, 30).Draw(t, "lines"), "\n")
		lines := billing.TemplateLines(digest)
		want := strings.Split(digest, "\n")
		if len(lines) != min(len(want), billing.MaxDigestLines) {
			t.Fatalf("%d lines of %d", len(lines), len(want))
		}
		for i, line := range lines {
			var read string
			if err := json.Unmarshal([]byte(`"`+line+`"`), &read); err != nil || read != line {
				t.Fatalf("%q breaks its template: %q, %v", line, read, err)
			}
			if strings.NewReplacer(`"`, "'", `\`, "/").Replace(want[i]) != line {
				t.Fatalf("%q became %q", want[i], line)
			}
		}
	})
}
