package billing_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func TestSummaryWithoutOrganizationsHasEveryKeyAndNoNullList(t *testing.T) {
	run := billing.Run{ID: "2026-11-22T03:00:00Z", Status: billing.RunRunning, StartedAt: readAt}
	assertJSON(t, billing.Summarize(run, nil, billing.Drift{}, nil), `{
  "runId": "2026-11-22T03:00:00Z",
  "status": "running",
  "dryRun": false,
  "totalOrganizations": 0,
  "synchronized": 0,
  "errors": 0,
  "skipped": 0,
  "pending": 0,
  "details": [],
  "reasons": {},
  "warnings": {},
  "accepted": {},
  "driftByField": {},
  "driftByCause": {
    "pending": 0,
    "notPending": 0
  },
  "access": {
    "raised": {
      "organizations": 0,
      "first": []
    },
    "lowered": {
      "organizations": 0,
      "first": []
    }
  },
  "orphans": [],
  "orphansTotal": 0,
  "stripeRequests": {
    "list": 0,
    "retrieve": 0,
    "other": 0,
    "throttled": 0
  },
  "downgrades": 0,
  "downgradeLimit": 0,
  "startedAt": "2026-11-22T03:00:00Z",
  "finishedAt": null,
  "durationMs": 0
}`)
}

func TestSummaryOfAFinishedRunHasItsJSONKeys(t *testing.T) {
	finished := readAt.Add(90*time.Second + 250*time.Millisecond)
	run := billing.Run{
		ID: "2026-11-22T03:00:00Z", Status: billing.RunStopped, DryRun: true,
		Downgrades: 3, DowngradeLimit: 10, StatusReason: billing.ReasonWrongMode, StatusMessage: "live key, test mode",
		Usage:     billing.Usage{List: 1, Retrieve: 2, Other: 3, Throttled: 4},
		StartedAt: readAt, FinishedAt: &finished,
	}
	tallies := []billing.Tally{
		{Outcome: "synced", Reason: "repaired", Items: 5},
		{Outcome: "synced", Reason: "row_inserted", Items: 1},
		{Outcome: "drifted", Reason: "repaired", Items: 2},
		{Outcome: "skipped", Reason: "in_sync", Items: 40},
		{Outcome: "error", Reason: "unknown_status", Items: 3},
		{Outcome: "pending", Items: 7},
	}
	drift := billing.Drift{
		ByField:       map[string]int{billing.FieldPlanTier: 6, billing.FieldStatus: 2},
		Warnings:      map[billing.WarningCode]int{billing.WarnMultipleRows: 4},
		AccessChanges: billing.AccessChanges{Lowered: billing.Affected{Organizations: 1, First: []string{org}}},
	}
	notable := []billing.Item{
		{OrgID: org, Outcome: "synced", Reason: "repaired", Changes: []billing.Change{
			{Field: billing.FieldPlanTier, From: "pro", To: "free"},
			{Field: billing.FieldCancelAtPeriodEnd, From: nil, To: false},
			{Field: billing.FieldEndedAt, From: nil, To: endedAt},
		}},
		{OrgID: otherOrg, Outcome: "error", Reason: "unknown_status", Error: "status \"x\"", Warnings: []billing.Warning{
			{Code: billing.WarnMultipleRows, Message: "2 rows"},
		}},
	}
	assertJSON(t, billing.Summarize(run, tallies, drift, notable), `{
  "runId": "2026-11-22T03:00:00Z",
  "status": "stopped",
  "dryRun": true,
  "totalOrganizations": 58,
  "synchronized": 8,
  "errors": 3,
  "skipped": 40,
  "pending": 7,
  "details": [
    {
      "orgId": "0a4f6c1e-0000-4000-8000-00000000000a",
      "action": "synced",
      "reason": "repaired",
      "changes": [
        {
          "field": "subscriptions.plan_tier",
          "from": "pro",
          "to": "free"
        },
        {
          "field": "subscriptions.cancel_at_period_end",
          "from": null,
          "to": false
        },
        {
          "field": "subscriptions.ended_at",
          "from": null,
          "to": "2026-11-12T08:00:01Z"
        }
      ],
      "error": "",
      "warnings": []
    },
    {
      "orgId": "0a4f6c1e-0000-4000-8000-00000000000b",
      "action": "error",
      "reason": "unknown_status",
      "changes": [],
      "error": "status \"x\"",
      "warnings": [
        {
          "code": "multiple_subscription_rows",
          "message": "2 rows"
        }
      ]
    }
  ],
  "reasons": {
    "in_sync": 40,
    "repaired": 7,
    "row_inserted": 1,
    "unknown_status": 3
  },
  "warnings": {
    "multiple_subscription_rows": 4
  },
  "accepted": {},
  "driftByField": {
    "subscriptions.plan_tier": 6,
    "subscriptions.status": 2
  },
  "driftByCause": {
    "pending": 0,
    "notPending": 0
  },
  "access": {
    "raised": {
      "organizations": 0,
      "first": []
    },
    "lowered": {
      "organizations": 1,
      "first": [
        "0a4f6c1e-0000-4000-8000-00000000000a"
      ]
    }
  },
  "orphans": [],
  "orphansTotal": 0,
  "stripeRequests": {
    "list": 1,
    "retrieve": 2,
    "other": 3,
    "throttled": 4
  },
  "downgrades": 3,
  "downgradeLimit": 10,
  "statusReason": "wrong_mode",
  "statusMessage": "live key, test mode",
  "startedAt": "2026-11-22T03:00:00Z",
  "finishedAt": "2026-11-22T03:01:30.25Z",
  "durationMs": 90250
}`)
}

// Who closes a run has another clock than who began it.
func TestDurationIsNeverNegative(t *testing.T) {
	run := billing.Run{StartedAt: periodStart, FinishedAt: ptr(periodStart.Add(-time.Second))}
	if got := billing.Summarize(run, nil, billing.Drift{}, nil).DurationMs; got != 0 {
		t.Errorf("%d ms", got)
	}
}

func TestOrphanHasItsJSONKeys(t *testing.T) {
	assertJSON(t, billing.Orphan{SubscriptionID: "sub_1", CustomerID: "cus_1", Status: "active"}, `{
  "subscriptionId": "sub_1",
  "customerId": "cus_1",
  "status": "active",
  "orgId": ""
}`)
}

func TestSummaryListsAtMost100Organizations(t *testing.T) {
	var notable []billing.Item
	for i := range billing.MaxDetails + 1 {
		notable = append(notable, billing.Item{OrgID: fmt.Sprint(i), Outcome: "error"})
	}
	for _, n := range []int{0, 1, 99, 100, 101} {
		details := billing.Summarize(billing.Run{}, nil, billing.Drift{}, notable[:n]).Details
		if len(details) != min(n, 100) {
			t.Errorf("%d items: %d details", n, len(details))
		}
		for i, d := range details {
			if d.OrgID != fmt.Sprint(i) {
				t.Fatalf("detail %d is of organization %s", i, d.OrgID)
			}
		}
	}
}

func TestErrorsLeaveRoomForWarningsAndRepairs(t *testing.T) {
	tests := map[string]struct{ errors, warned, repaired, wantErrors, wantWarned, wantRepaired int }{
		"all fit":               {30, 30, 40, 30, 30, 40},
		"many of each":          {500, 500, 500, 50, 25, 25},
		"errors only":           {500, 0, 0, 100, 0, 0},
		"warnings only":         {0, 500, 0, 0, 100, 0},
		"repairs only":          {0, 0, 500, 0, 0, 100},
		"one warning":           {500, 1, 0, 99, 1, 0},
		"few errors":            {10, 500, 500, 10, 65, 25},
		"few errors, few of it": {10, 5, 500, 10, 5, 85},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var notable []billing.Item
			for range tt.errors {
				notable = append(notable, billing.Item{Outcome: "error", Warnings: []billing.Warning{{Code: "w"}}})
			}
			for n := range tt.warned {
				notable = append(notable, billing.Item{Outcome: []billing.Outcome{"skipped", "synced"}[n%2], Warnings: []billing.Warning{{Code: "w"}}})
			}
			for range tt.repaired {
				notable = append(notable, billing.Item{Outcome: "synced"})
			}
			var errors, warned, repaired int
			for _, d := range billing.Summarize(billing.Run{}, nil, billing.Drift{}, notable).Details {
				switch {
				case d.Action == "error":
					errors++
				case len(d.Warnings) > 0:
					warned++
				default:
					repaired++
				}
			}
			if errors != tt.wantErrors || warned != tt.wantWarned || repaired != tt.wantRepaired {
				t.Errorf("%d errors, %d warned, %d repaired; want %d, %d, %d", errors, warned, repaired, tt.wantErrors, tt.wantWarned, tt.wantRepaired)
			}
		})
	}
}

func TestTotalsAddUp(t *testing.T) {
	tally := rapid.Custom(func(t *rapid.T) billing.Tally {
		return billing.Tally{
			Outcome: rapid.SampledFrom([]billing.Outcome{"pending", "synced", "drifted", "skipped", "error"}).Draw(t, "outcome"),
			Reason:  rapid.SampledFrom([]billing.Reason{"in_sync", "repaired", "withheld"}).Draw(t, "reason"),
			Items:   rapid.IntRange(0, 1_000_000).Draw(t, "items"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		tallies := rapid.SliceOf(tally).Draw(t, "tallies")
		s := billing.Summarize(billing.Run{}, tallies, billing.Drift{}, nil)
		items := 0
		for _, tally := range tallies {
			items += tally.Items
		}
		if s.TotalOrganizations != items || s.Synchronized+s.Errors+s.Skipped+s.Pending != items {
			t.Fatalf("summary of %d items does not add up: %+v", items, s)
		}
		decided := 0
		for n := range maps.Values(s.Reasons) {
			decided += n
		}
		if decided != items-s.Pending {
			t.Fatalf("reasons of %d, want of every organization that is not pending: %+v", decided, s)
		}
		slices.Reverse(tallies)
		if diff := cmp.Diff(s, billing.Summarize(billing.Run{}, tallies, billing.Drift{}, nil)); diff != "" {
			t.Fatalf("another order of the tallies changed the summary\n%s", diff)
		}
	})
}

func TestErrorsAndPendingOrganizationsDecideTheFinalStatus(t *testing.T) {
	tests := map[string]struct {
		summary billing.Summary
		want    billing.RunStatus
	}{
		"nothing listed":     {billing.Summary{}, "completed"},
		"all decided":        {billing.Summary{TotalOrganizations: 3, Synchronized: 1, Skipped: 2}, "completed"},
		"an error":           {billing.Summary{TotalOrganizations: 3, Errors: 1, Skipped: 2}, "completed_with_errors"},
		"pending":            {billing.Summary{TotalOrganizations: 3, Pending: 1, Skipped: 2}, "incomplete"},
		"pending and errors": {billing.Summary{TotalOrganizations: 3, Pending: 1, Errors: 2}, "incomplete"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.summary.FinalStatus(); got != tt.want {
				t.Errorf("FinalStatus() = %s, want %s", got, tt.want)
			}
		})
	}
}

func assertJSON(t *testing.T, v any, want string) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("JSON (-want +got)\n%s", diff)
	}
}

// What a guard holds back differs from Stripe as much as what was repaired: a wave of downgrades that
// the guard cuts off shows at its full height, and a dry run right after the run shows no more.
func TestDriftCountsRepairedAndWithheldOrganizations(t *testing.T) {
	run := billing.Summarize(billing.Run{}, []billing.Tally{
		{Outcome: billing.OutcomeSynced, Reason: billing.ReasonRepaired, Items: 5},
		{Outcome: billing.OutcomeError, Reason: billing.ReasonWithheld, Items: 23},
		{Outcome: billing.OutcomeError, Reason: billing.ReasonTierUnresolved, Items: 2},
		{Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync, Items: 70},
	}, billing.Drift{}, nil)
	if run.Drifted() != 28 || run.Withheld() != 23 || run.OtherErrors() != 2 || run.DriftRate() != 0.28 {
		t.Errorf("drifted %d, withheld %d, other errors %d, rate %v", run.Drifted(), run.Withheld(), run.OtherErrors(), run.DriftRate())
	}
	dry := billing.Summarize(billing.Run{DryRun: true}, []billing.Tally{
		{Outcome: billing.OutcomeDrifted, Reason: billing.ReasonRepaired, Items: 23},
		{Outcome: billing.OutcomeError, Reason: billing.ReasonTierUnresolved, Items: 2},
		{Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync, Items: 75},
	}, billing.Drift{}, nil)
	if dry.Drifted() != run.Withheld() {
		t.Errorf("a dry run after the run finds %d, which is not what it withheld", dry.Drifted())
	}
	if none := (billing.Summary{}); none.DriftRate() != 0 {
		t.Errorf("without organizations the rate is %v", none.DriftRate())
	}
}

func TestDryRunCountsWhatARunThatWritesWouldWithhold(t *testing.T) {
	lowered := func(n int) billing.AccessChanges {
		return billing.AccessChanges{Lowered: billing.Affected{Organizations: n}}
	}
	undone := map[billing.WarningCode]int{billing.WarnRepairUndone: 1}
	for name, c := range map[string]struct {
		s    billing.Summary
		want map[billing.Reason]int
	}{
		"beyond the limit":                   {billing.Summary{DryRun: true, TotalOrganizations: 50, Downgrades: 5, DowngradeLimit: 2, Access: lowered(5)}, map[billing.Reason]int{billing.ReasonWithheld: 3}},
		"within the limit":                   {billing.Summary{DryRun: true, TotalOrganizations: 50, Downgrades: 2, DowngradeLimit: 2, Access: lowered(2)}, map[billing.Reason]int{}},
		"something undid the repair":         {billing.Summary{DryRun: true, TotalOrganizations: 50, DowngradeLimit: 2, Access: lowered(1), Warnings: undone}, map[billing.Reason]int{billing.ReasonNotRepeated: 1}},
		"another run withholds the only one": {billing.Summary{DryRun: true, TotalOrganizations: 1, DowngradeLimit: 2, Access: lowered(1)}, map[billing.Reason]int{billing.ReasonWithheldByRun: 1}},
		"undone, of the only one":            {billing.Summary{DryRun: true, TotalOrganizations: 1, DowngradeLimit: 2, Access: lowered(1), Warnings: undone}, map[billing.Reason]int{billing.ReasonNotRepeated: 1}},
		"a run that writes":                  {billing.Summary{TotalOrganizations: 50, Downgrades: 5, DowngradeLimit: 2, Access: lowered(5)}, map[billing.Reason]int{}},
	} {
		if got := c.s.WouldWithhold(); !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
