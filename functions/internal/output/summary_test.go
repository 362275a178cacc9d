package output

import (
	"strings"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// A summary without orphans must not read as if the run had looked for orphans and found none.
func TestSummaryOfAbandonedSweepSaysThatOrphansWereNotLookedFor(t *testing.T) {
	for _, abandoned := range []bool{true, false} {
		var b strings.Builder
		if err := Summary(&b, billing.Summary{RunID: "run", Status: billing.RunCompleted, SweepAbandoned: abandoned}, View{Queued: true}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(b.String(), "orphans were not looked for"); got != abandoned {
			t.Errorf("abandoned %t:\n%s", abandoned, b.String())
		}
	}
}

// wholeRun returns a run that lists one organization of each kind.
func wholeRun() billing.Summary {
	withheld := billing.Detail{
		OrgID: "org-1", Action: billing.OutcomeError, Reason: billing.ReasonWithheld, Error: "withheld: the limit was reached",
		Changes: []billing.Change{{Field: billing.FieldPlanTier, From: "pro", To: "free"}},
	}
	return billing.Summary{
		RunID: "run-1", Status: billing.RunCompletedWithErrors, TotalOrganizations: 160, Synchronized: 150, Errors: 10, Downgrades: 2, DowngradeLimit: 2,
		Reasons: map[billing.Reason]int{billing.ReasonRepaired: 150, billing.ReasonWithheld: 8, billing.ReasonTierUnresolved: 2},
		Details: []billing.Detail{
			withheld,
			{OrgID: "org-2", Action: billing.OutcomeError, Reason: billing.ReasonTierUnresolved, Error: "no tier for price_x"},
			{OrgID: "org-3", Action: billing.OutcomeSynced, Reason: billing.ReasonRepaired, Changes: []billing.Change{{Field: billing.FieldOrgTier, From: nil, To: "pro"}}},
		},
	}
}

func shown(t *testing.T, s billing.Summary, v View) string {
	t.Helper()
	var b strings.Builder
	if err := Summary(&b, s, v); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestACatchUpTellsWhichEventNamedAnOrganizationAndWhatToDoAboutItsWebhook(t *testing.T) {
	s := wholeRun()
	s.StartedAt = time.Date(2026, 11, 29, 3, 0, 0, 0, time.UTC)
	if text := shown(t, s, View{}); strings.Contains(text, "webhook") || strings.Contains(text, "named by") {
		t.Errorf("a run that is no catch-up says\n%s", text)
	}
	s.Details[2].Event = &billing.Cause{ID: "evt_1", Type: "customer.subscription.updated", Created: s.StartedAt.Add(-47 * time.Minute), PendingWebhooks: 1}
	s.DriftByCause = billing.DriftByCause{Pending: 4}
	text := shown(t, s, View{})
	for _, want := range []string{
		"synced   org-3  repaired\n    named by customer.subscription.updated of 02:13 UTC, still pending at an endpoint\n",
		"webhooks that were not delivered", "Some endpoint has not taken the event", "send the events again",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "not handled") {
		t.Errorf("it tells of none that was not handled:\n%s", text)
	}
}

func TestNamesStandBesideIDsAndTheWithheldSentenceOnce(t *testing.T) {
	text := shown(t, wholeRun(), View{Names: map[string]string{"org-1": "Acme\x1b[2J GmbH"}})
	for _, want := range []string{
		"error    org-1  Acme [2J GmbH  withheld\n    subscriptions.plan_tier              pro -> free\n",
		"error    org-2  tier_unresolved\n    no tier for price_x\n", "synced   org-3  repaired\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "the limit was reached\n") {
		t.Errorf("the guard's sentence stands beside the organization too:\n%s", text)
	}
}

func TestViewDecidesWhichOrganizationsAreListed(t *testing.T) {
	s := wholeRun()
	all, errors, none := shown(t, s, View{Stored: true}), shown(t, s, View{Stored: true, OnlyErrors: true}), shown(t, s, View{OnlyFigures: true})
	for text, want := range map[string]string{
		all: "... and 157 more; reconcile report run-1 --csv changes.csv has all of them\n", errors: "... and 8 more; ", none: "run run-1: ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(errors, "org-3") || !strings.Contains(errors, "org-2") || strings.Contains(none, "org-") {
		t.Errorf("errors only:\n%s\nfigures only:\n%s", errors, none)
	}
	if text := shown(t, s, View{}); !strings.Contains(text, "local --hold") {
		t.Errorf("where the database is gone:\n%s", text)
	}
}

func TestDryRunSaysWhatWouldBeRepairedAndWithheld(t *testing.T) {
	s := wholeRun()
	s.DryRun, s.Status, s.Downgrades = true, billing.RunCompleted, 5
	s.Details[2].Action = billing.OutcomeDrifted
	text := shown(t, s, View{Queued: true})
	for _, want := range []string{
		"would repair  org-3  repaired\n", "error         org-2",
		"    would repair                               147\n    would be withheld                            3\n    error ",
		"\nwould be withheld, 3\n  A run that writes would lower access beyond its limit of downgrades, and withhold these.\n" +
			"  Look at the changes. If they are right, start a run, then approve what it withholds.\n  reconcile org ORG --explain\n  reconcile start\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	s.Downgrades = s.DowngradeLimit
	if text := shown(t, s, View{}); strings.Contains(text, wouldBeWithheld) {
		t.Errorf("within the limit it says\n%s", text)
	}
}

func TestDryRunMarksTheOrganizationsThatWouldBeWithheld(t *testing.T) {
	const dependsNote = "of those that lower access would be withheld"
	lowered := func(id string, warnings ...billing.Warning) billing.Detail {
		return billing.Detail{
			OrgID: id, Action: billing.OutcomeDrifted, Reason: billing.ReasonRepaired, Warnings: warnings,
			Changes: []billing.Change{{Field: billing.FieldPlanTier, From: "pro", To: "free"}},
		}
	}
	undone := billing.Warning{Code: billing.WarnRepairUndone, Message: "undone"}
	raised := billing.Detail{OrgID: "org-9", Action: billing.OutcomeDrifted, Reason: billing.ReasonRepaired, Changes: []billing.Change{{Field: billing.FieldPlanTier, From: "free", To: "pro"}}}
	for name, c := range map[string]struct {
		details        []billing.Detail
		limit, counted int
		want           []string
		depends        bool
	}{
		"beyond the limit": {[]billing.Detail{lowered("org-1"), lowered("org-2"), raised}, 1, 2, []string{"would repair  org-1  repaired  lowers access\n", "would repair  org-9  repaired\n", "1 of those that lower"}, true},
		"no downgrade":     {[]billing.Detail{lowered("org-1"), lowered("org-2"), raised}, 0, 2, []string{"would be withheld  org-1  withheld\n", "would repair       org-9  repaired\n"}, false},
		"repeated":         {[]billing.Detail{lowered("org-1", undone), lowered("org-2"), raised}, 5, 1, []string{"would be withheld  org-1  not_repeated\n", "would repair       org-2  repaired\n"}, false},
		"of another run":   {[]billing.Detail{lowered("org-1")}, 1, 0, []string{"would be withheld  org-1  withheld_by_run\n"}, false},
		"within the limit": {[]billing.Detail{lowered("org-1"), raised}, 1, 1, []string{"would repair  org-1  repaired\n"}, false},
	} {
		s := billing.Summary{
			RunID: "run-1", Status: billing.RunCompleted, DryRun: true, TotalOrganizations: len(c.details), Synchronized: len(c.details), Details: c.details,
			Downgrades: c.counted, DowngradeLimit: c.limit, Warnings: map[billing.WarningCode]int{},
		}
		for _, d := range c.details {
			if billing.DefaultTiers.LowersAccess(d.Changes) {
				s.Access.Lowered.Organizations++
			}
			if len(d.Warnings) > 0 {
				s.Warnings[billing.WarnRepairUndone]++
			}
		}
		text := shown(t, s, View{Queued: true, Tiers: billing.DefaultTiers})
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", name, want, text)
			}
		}
		if strings.Contains(text, dependsNote) != c.depends {
			t.Errorf("%s: it says whether that depends on the order:\n%s", name, text)
		}
		if text := shown(t, s, View{}); strings.Contains(text, "  lowers access\n") || strings.Contains(text, "would be withheld  org-") {
			t.Errorf("%s: without the tiers it says\n%s", name, text)
		}
	}
}

func TestTheNextCommandOfEachEndIsShown(t *testing.T) {
	for status, want := range map[billing.RunStatus]string{
		billing.RunStopped: "  reconcile start --resume r\n", billing.RunIncomplete: "  reconcile start --resume r\n", billing.RunRunning: "  reconcile status r --watch\n",
	} {
		s := billing.Summary{RunID: "r", Status: status}
		if text := shown(t, s, View{Queued: true}); !strings.HasSuffix(text, want) {
			t.Errorf("%s: %q is not the end of\n%s", status, want, text)
		}
		if text := shown(t, s, View{}); strings.Contains(text, "reconcile ") {
			t.Errorf("%s: there is no queue for\n%s", status, text)
		}
	}
}

func TestASummaryOfALocalRunOffersLocalsCommands(t *testing.T) {
	withheld := billing.Summary{
		RunID: "run-1", Status: billing.RunCompletedWithErrors, TotalOrganizations: 9, Downgrades: 2, DowngradeLimit: 2, Errors: 4,
		Reasons: map[billing.Reason]int{billing.ReasonWithheld: 3, billing.ReasonTierUnresolved: 1},
	}
	dry := billing.Summary{RunID: "run-1", Status: billing.RunCompleted, DryRun: true, TotalOrganizations: 9, Synchronized: 5, Downgrades: 5, DowngradeLimit: 2}
	one := withheld
	one.TotalOrganizations, one.Reasons = 1, map[billing.Reason]int{billing.ReasonTierUnresolved: 1}
	one.Details = []billing.Detail{{OrgID: "org-1", Action: billing.OutcomeError, Reason: billing.ReasonTierUnresolved}}
	oneWithheld := one
	oneWithheld.Reasons = map[billing.Reason]int{billing.ReasonWithheld: 1}
	oneWithheld.Details = []billing.Detail{{OrgID: "org-1", Action: billing.OutcomeError, Reason: billing.ReasonWithheld}}
	stopped := billing.Summary{RunID: "run-1", Status: billing.RunStopped, StatusReason: billing.ReasonInterrupted}
	for name, c := range map[string]struct {
		summary billing.Summary
		stored  bool
		want    []string
	}{
		"withheld":           {withheld, true, []string{"  reconcile org ORG --explain\n  MAX_DOWNGRADES=3 local\n", billing.ReasonTierUnresolved.Advice().Do + "\n  local\n"}},
		"in a demonstration": {withheld, false, []string{"\n  MAX_DOWNGRADES=5 local --demo\n"}},
		"one withheld":       {oneWithheld, true, []string{"\n  MAX_DOWNGRADES=1 local --org org-1\n"}},
		"dry run":            {dry, true, []string{"run it with a higher limit.\n  reconcile org ORG --explain\n  MAX_DOWNGRADES=5 local\n"}},
		"one":                {one, true, []string{"\n  local --org org-1\n"}},
		"stopped":            {stopped, true, []string{"stopped: It was interrupted.", "\n  local --resume run-1\n"}},
	} {
		text := shown(t, c.summary, View{Stored: c.stored})
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", name, want, text)
			}
		}
		if strings.Contains(text, "redrive") || strings.Contains(text, "approve") {
			t.Errorf("%s: there is no queue for\n%s", name, text)
		}
	}
}

func TestASummaryTellsWhatToDo(t *testing.T) {
	s := billing.Summary{
		RunID: "run-1", Status: billing.RunCompletedWithErrors, Downgrades: 2, DowngradeLimit: 2,
		Reasons:  map[billing.Reason]int{billing.ReasonInSync: 7, billing.ReasonWithheld: 3, billing.ReasonTierUnresolved: 1},
		Warnings: map[billing.WarningCode]int{billing.WarnMultipleLive: 240, "unheard_of": 1},
	}
	tasks := func(queued bool) string {
		var b strings.Builder
		if err := Summary(&b, s, View{Queued: queued}); err != nil {
			t.Fatal(err)
		}
		_, tasks, _ := strings.Cut(b.String(), "not finished\n")
		return tasks
	}
	unresolved, withheld, several := billing.ReasonTierUnresolved.Advice(), billing.ReasonWithheld.Advice(), billing.WarnMultipleLive.Advice()
	want := "\ncompleted_with_errors: Every organization has an outcome, but some need a person.\n\ntier_unresolved, 1\n  " + unresolved.Means + "\n  " + unresolved.Do + "\n  reconcile redrive --watch\n" +
		"\nwithheld, 3\n  " + withheld.Means + "\n  " + withheld.Do +
		"\n  reconcile org ORG --explain\n  reconcile approve run-1 --limit 5\n  reconcile redrive --watch\n" +
		"\nwarning multiple_live_subscriptions, 240\n  " + several.Means + "\n  " + several.Do + "\n"
	if got := tasks(true); got != want {
		t.Errorf("%s\nwant%s", got, want)
	}
	if got := tasks(false); strings.Contains(got, "reconcile") || !strings.Contains(got, withheld.Do) {
		t.Errorf("without queues:%s", got)
	}
	s = billing.Summary{RunID: "run-1", Status: billing.RunStopped, StatusReason: billing.ReasonWrongMode}
	if got := tasks(true); !strings.Contains(got, billing.ReasonWrongMode.Advice().Means) || !strings.Contains(got, "reconcile start --resume run-1") {
		t.Errorf("stopped:%s", got)
	}
}

func TestASummaryCountsWarningsAndWhatItDoesNotList(t *testing.T) {
	s := billing.Summary{
		Synchronized: 150, Errors: 2,
		Warnings: map[billing.WarningCode]int{billing.WarnMultipleRows: 3, billing.WarnMultipleLive: 240},
		Details:  []billing.Detail{{Action: "error"}, {Action: "skipped"}, {Action: "synced"}},
	}
	text := shown(t, s, View{})
	for _, want := range []string{"  warnings\n    multiple_live_subscriptions                240\n    multiple_subscription_rows                   3\n", "... and 150 more;"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
