package pipeline_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

func catchUp(r *billing.Run) { r.Strategy = billing.StrategyEvents }

func overOne(more ...func(*billing.Run)) func(*billing.Run) {
	return func(r *billing.Run) {
		r.OrgID = "org-1"
		for _, change := range more {
			change(r)
		}
	}
}

func allowDowngrade(r *billing.Run) { r.AllowDowngrade = true }

// undo writes the values before a repair back to the rows of org-1, as a webhook with an old payload does.
func (f *fixture) undo() {
	f.Helper()
	f.Exec(`UPDATE subscriptions SET plan_tier = 'pro', status = 'active', canceled_at = NULL, ended_at = NULL, updated_at = ? WHERE org_id = 'org-1'`, f.Clock.Now())
	f.Exec(`UPDATE organizations SET subscription_tier = 'pro', subscription_status = 'active', updated_at = ? WHERE id = 'org-1'`, f.Clock.Now())
}

func (f *fixture) tier() string {
	f.Helper()
	return mysqltest.Value[string](f.TB, f.DB, `SELECT CONCAT(subscription_tier, ' ', subscription_status) FROM organizations WHERE id = 'org-1'`)
}

// ended and upgraded create an organization whose access a run lowers, or raises.
func (f *fixture) ended(id string) {
	f.Subscriber(id, canceled)
}

func (f *fixture) upgraded(id string) {
	f.Subscriber(id, price("price_max"))
}

func TestLoweringUndoneWithinADayIsNotRepeated(t *testing.T) {
	fullRun := func(*billing.Run) {}
	for name, kinds := range map[string][2]func(*billing.Run){
		"full run after catch-up":            {catchUp, fullRun},
		"catch-up after full run":            {fullRun, catchUp},
		"single organization after full run": {fullRun, overOne()},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.ended("org-1")
			f.OpenRun("first", []string{"org-1"}, kinds[0])
			f.wantResult(f.deliver(f.Reconciler(nil), "first", "org-1")["org-1"], pipeline.Acknowledge, "")
			if got := f.tier(); got != "free canceled" {
				t.Fatalf("the first run wrote %s, want free canceled", got)
			}
			f.undo()
			f.Clock.Advance(23 * time.Hour)
			f.OpenRun(runID, []string{"org-1"}, kinds[1])
			f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.DeadLetter, billing.ReasonNotRepeated)
			item := f.wantItem("org-1", billing.OutcomeError, billing.ReasonNotRepeated)
			if !item.Warns(billing.WarnRepairUndone) || len(item.Changes) == 0 || !strings.Contains(item.Error, "run first") {
				t.Errorf("%+v", item)
			}
			if got, n := f.tier(), f.Run(runID).Downgrades; got != "pro active" || n != 0 {
				t.Errorf("the record is %s, want pro active; the run counts %d downgrades, want 0", got, n)
			}
			f.Clock.Advance(time.Hour)
			f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.Acknowledge, "") // redriven
			if item := f.wantItem("org-1", billing.OutcomeSynced, billing.ReasonRepaired); item.Warns(billing.WarnRepairUndone) {
				t.Errorf("%+v", item)
			}
		})
	}
}

// A worker read the record before another run repaired it, so it plans the same change. But nothing undid the repair.
func TestConcurrentRepairByAnotherRunDoesNotCountAsUndone(t *testing.T) {
	f := newFixture(t)
	f.ended("org-1")
	f.OpenRun("first", []string{"org-1"})
	f.OpenRun(runID, []string{"org-1"}, catchUp)
	meanwhile := once(func() {
		f.wantResult(f.deliver(f.Reconciler(nil), "first", "org-1")["org-1"], pipeline.Acknowledge, "")
	})
	late := f.Reconciler(&hooks{Before: func(_ context.Context, call string) error {
		if call == "Subscription" {
			meanwhile()
		}
		return nil
	}})
	f.wantResult(f.deliver(late, runID, "org-1")["org-1"], pipeline.Acknowledge, "")
	f.wantItem("org-1", billing.OutcomeSkipped, billing.ReasonInSync)
	if got, n := f.tier(), f.Run(runID).Downgrades; got != "free canceled" || n != 0 {
		t.Errorf("the record is %s, want free canceled; the run counts %d downgrades, want 0", got, n)
	}
}

func TestUndoneRaisingIsRepeatedWithWarning(t *testing.T) {
	f := newFixture(t)
	f.upgraded("org-1")
	f.OpenRun("first", []string{"org-1"})
	f.deliver(f.Reconciler(nil), "first", "org-1")
	f.undo()
	f.OpenRun(runID, []string{"org-1"}, catchUp)
	f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.Acknowledge, "")
	if item := f.wantItem("org-1", billing.OutcomeSynced, billing.ReasonRepaired); !item.Warns(billing.WarnRepairUndone) {
		t.Errorf("%+v", item)
	}
	if got := f.tier(); got != "max active" {
		t.Errorf("the record is %s", got)
	}
	f.Exec(`UPDATE reconciliation_runs SET strategy = 'sweep' WHERE id = ?`, runID)
	if err := f.Aggregator(nil).Progress(t.Context(), runID); err != nil {
		t.Fatal(err)
	}
	if lines := f.Metrics.Lines(t, "RepairUndone", nil); len(lines) != 1 || lines[0]["RepairUndone"] != 1.0 {
		t.Errorf("metrics: %v", lines)
	}
}

// Only another change, the price, was undone, and the subscription was canceled since.
func TestNewLoweringIsWrittenIfAnotherChangeWasUndone(t *testing.T) {
	f := newFixture(t)
	f.Org("org-1")
	f.Row("org-1")
	f.Exec(`UPDATE subscriptions SET stripe_price_id = 'price_old'`)
	f.Sub("org-1")
	f.OpenRun("first", []string{"org-1"})
	f.deliver(f.Reconciler(nil), "first", "org-1")
	f.Exec(`UPDATE subscriptions SET stripe_price_id = 'price_old', updated_at = ?`, f.Clock.Now())
	f.Sub("org-1", canceled)
	f.OpenRun(runID, []string{"org-1"})
	f.deliver(f.Reconciler(nil), runID, "org-1")
	if item := f.wantItem("org-1", billing.OutcomeSynced, billing.ReasonRepaired); !item.Warns(billing.WarnRepairUndone) {
		t.Errorf("%+v", item)
	}
	if got := f.tier(); got != "free canceled" {
		t.Errorf("the record is %s", got)
	}
}

func TestDryRunDoesNotWithholdOrCountUndoneLowering(t *testing.T) {
	f := newFixture(t)
	f.ended("org-1")
	f.OpenRun("first", []string{"org-1"})
	f.deliver(f.Reconciler(nil), "first", "org-1")
	f.undo()
	f.OpenRun(runID, []string{"org-1"}, testworld.DryRun)
	f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.Acknowledge, "")
	if item := f.wantItem("org-1", billing.OutcomeDrifted, billing.ReasonRepaired); !item.Warns(billing.WarnRepairUndone) {
		t.Errorf("%+v", item)
	}
	if n := f.Run(runID).Downgrades; n != 0 {
		t.Errorf("the run counts %d downgrades, want 0", n)
	}
	f.OpenRun("again", []string{"org-1"}) // a dry run does not count as a repair
	f.deliver(f.Reconciler(nil), "again", "org-1")
	if item := f.Item("again", "org-1"); item.Reason != billing.ReasonNotRepeated || !strings.Contains(item.Error, "run first") {
		t.Errorf("%+v", item)
	}
}

// A batch without a change does not query them.
func TestRecentRepairsAreQueriedOncePerBatch(t *testing.T) {
	f := newFixture(t)
	var queries atomic.Int32
	count := &hooks{Before: func(_ context.Context, call string) error {
		if call == "RecentRepairs" {
			queries.Add(1)
		}
		return nil
	}}
	ids := numbered(20)
	for i, id := range ids {
		switch i % 3 {
		case 0:
			f.ended(id)
		case 1:
			f.upgraded(id)
		default:
			f.Subscriber(id)
		}
	}
	f.OpenRun(runID, ids)
	f.deliver(f.Reconciler(count), runID, ids...)
	if n := queries.Load(); n != 1 {
		t.Errorf("%d queries for 20 organizations, want 1", n)
	}
	f.OpenRun("settled", ids)
	f.deliver(f.Reconciler(count), "settled", ids...)
	if n := queries.Load(); n != 1 {
		t.Errorf("%d queries for a batch without a change, want none", n-1)
	}
}

func TestSingleOrganizationRunDoesNotLowerWhatAnotherRunWithheld(t *testing.T) {
	for name, c := range map[string]struct {
		holder    func(*billing.Run) // the run that withholds
		meanwhile func(f *fixture)
		one       func(*billing.Run)
		reason    billing.Reason // "" if the run lowers access
	}{
		"withheld by a full run":  {holder: func(*billing.Run) {}, reason: billing.ReasonWithheldByRun},
		"withheld by a catch-up":  {holder: catchUp, reason: billing.ReasonWithheldByRun},
		"withheld by an open run": {holder: func(*billing.Run) {}, meanwhile: func(f *fixture) { f.Exec(`UPDATE reconciliation_runs SET status = 'running'`) }, reason: billing.ReasonWithheldByRun},
		"a later run could not read Stripe": {holder: func(*billing.Run) {}, meanwhile: func(f *fixture) {
			f.Clock.Advance(time.Hour)
			f.OpenRun("later", []string{"org-1"})
			f.Exec(`UPDATE reconciliation_items SET outcome = 'error', reason = 'stripe_unavailable', updated_at = ? WHERE run_key = (SELECT run_key FROM reconciliation_runs WHERE id = 'later')`, f.Clock.Now())
		}, reason: billing.ReasonWithheldByRun},
		"a dry run withholds nothing": {holder: testworld.DryRun},
		"the downgrade is allowed":    {holder: func(*billing.Run) {}, one: allowDowngrade},
		"withheld 15 days ago":        {holder: func(*billing.Run) {}, meanwhile: func(f *fixture) { f.Clock.Advance(15 * 24 * time.Hour) }},
		"approved and redriven meanwhile": {holder: func(*billing.Run) {}, meanwhile: func(f *fixture) {
			f.Exec(`UPDATE reconciliation_items SET outcome = 'synced', reason = 'repaired', changes = NULL`)
		}},
		"a later run found it in sync": {holder: func(*billing.Run) {}, meanwhile: func(f *fixture) {
			f.Clock.Advance(time.Hour)
			f.OpenRun("later", []string{"org-1"})
			f.Exec(`UPDATE reconciliation_items SET outcome = 'skipped', reason = 'in_sync', updated_at = ? WHERE run_key = (SELECT run_key FROM reconciliation_runs WHERE id = 'later')`, f.Clock.Now())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.ended("org-1")
			f.OpenRun("holder", []string{"org-1"}, c.holder, func(r *billing.Run) { r.DowngradeLimit = 0 })
			f.deliver(f.Reconciler(nil), "holder", "org-1")
			if c.meanwhile != nil {
				c.meanwhile(f)
			}
			one := overOne()
			if c.one != nil {
				one = overOne(c.one)
			}
			f.OpenRun(runID, []string{"org-1"}, one)
			result := f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"]
			if c.reason == "" {
				f.wantResult(result, pipeline.Acknowledge, "")
				f.wantItem("org-1", billing.OutcomeSynced, billing.ReasonRepaired)
				return
			}
			f.wantResult(result, pipeline.DeadLetter, c.reason)
			if item := f.wantItem("org-1", billing.OutcomeError, c.reason); !strings.Contains(item.Error, "run holder") || len(item.Changes) == 0 {
				t.Errorf("%+v", item)
			}
			if got := f.tier(); got != "pro active" {
				t.Errorf("the record is %s, want pro active", got)
			}

			// An approval raises the limit of this run. The other run still withholds the repair.
			if ok, err := f.Store.Approve(t.Context(), runID, billing.Approval{Limit: 1, By: "ops@desk", At: f.Clock.Now()}); !ok || err != nil {
				t.Fatal(ok, err)
			}
			f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.DeadLetter, c.reason)
			if got := f.tier(); got != "pro active" {
				t.Errorf("after the approval the record is %s, want pro active", got)
			}
		})
	}
}

// Both messages are in the dead-letter queue, and a redrive moves them in no order.
func TestRedrivenSingleOrganizationRunWaitsForTheRunThatWasApproved(t *testing.T) {
	f := newFixture(t)
	f.ended("org-1")
	f.OpenRun("holder", []string{"org-1"}, func(r *billing.Run) { r.DowngradeLimit = 0 })
	f.deliver(f.Reconciler(nil), "holder", "org-1")
	f.OpenRun(runID, []string{"org-1"}, overOne())
	f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.DeadLetter, billing.ReasonWithheldByRun)
	f.Clock.Advance(time.Minute)
	if ok, err := f.Store.Approve(t.Context(), "holder", billing.Approval{Limit: 1, By: "ops@desk", At: f.Clock.Now()}); !ok || err != nil {
		t.Fatal(ok, err)
	}

	f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.Redeliver, billing.ReasonWithheldByRun)
	if got := f.tier(); got != "pro active" {
		t.Errorf("the record is %s, want pro active", got)
	}
	f.wantResult(f.deliver(f.Reconciler(nil), "holder", "org-1")["org-1"], pipeline.Acknowledge, "")
	f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.Acknowledge, "")
	f.wantItem("org-1", billing.OutcomeSkipped, billing.ReasonInSync)
}

func TestRunOverOneOrganizationSaysThatTheWithholdingRunIsApproved(t *testing.T) {
	f := newFixture(t)
	f.ended("org-1")
	f.OpenRun("holder", []string{"org-1"}, func(r *billing.Run) { r.DowngradeLimit = 0 })
	f.deliver(f.Reconciler(nil), "holder", "org-1")
	f.Clock.Advance(time.Minute)
	if ok, err := f.Store.Approve(t.Context(), "holder", billing.Approval{Limit: 1, By: "ops@desk", At: f.Clock.Now()}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	f.OpenRun(runID, []string{"org-1"}, overOne())
	for _, after := range []time.Duration{0, billing.ApprovalWait} { // then redriven, too late to wait
		f.Clock.Advance(after)
		f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.DeadLetter, billing.ReasonWithheldByRun)
		if item := f.wantItem("org-1", billing.OutcomeError, billing.ReasonWithheldByRun); !strings.Contains(item.Error, "redrive, so that run holder makes it") {
			t.Errorf("%+v", item)
		}
	}
}

func TestSingleOrganizationRunRaisesWhatAnotherRunWithheld(t *testing.T) {
	f := newFixture(t)
	f.ended("org-1")
	f.OpenRun("holder", []string{"org-1"}, func(r *billing.Run) { r.DowngradeLimit = 0 })
	f.deliver(f.Reconciler(nil), "holder", "org-1")
	f.Sub("org-1", price("price_max")) // subscribed again
	f.OpenRun(runID, []string{"org-1"}, overOne())
	f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.Acknowledge, "")
	if got := f.tier(); got != "max active" {
		t.Errorf("the record is %s", got)
	}
}

func TestAllowedRunRepeatsUndoneLowering(t *testing.T) {
	f := newFixture(t)
	f.ended("org-1")
	f.OpenRun("first", []string{"org-1"})
	f.deliver(f.Reconciler(nil), "first", "org-1")
	f.undo()
	f.OpenRun(runID, []string{"org-1"}, overOne(allowDowngrade))
	f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.Acknowledge, "")
	if item := f.wantItem("org-1", billing.OutcomeSynced, billing.ReasonRepaired); !item.Warns(billing.WarnRepairUndone) {
		t.Errorf("%+v", item)
	}
}

func TestRunIsResumedOnlyWithItsAllowance(t *testing.T) {
	f := newFixture(t)
	f.ended("org-1")
	ask := pipeline.Request{OrgID: "org-1", RequestID: "request", By: "ops@desk"}
	opened, err := f.Enumerator(nil).Run(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	ask.AllowDowngrade = true
	for _, again := range []pipeline.Request{ask, {ResumeRun: opened.RunID, OrgID: "org-1", AllowDowngrade: true}} {
		if _, err := f.Enumerator(nil).Run(t.Context(), again); err == nil || billing.AsFailure(err).Reason != billing.ReasonOtherSettings {
			t.Errorf("%+v: %v", again, err)
		}
	}
	ask.RequestID = "another"
	allowed, err := f.Enumerator(nil).Run(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	if run := f.Run(allowed.RunID); !run.AllowDowngrade || run.By != "ops@desk" || f.Run(opened.RunID).AllowDowngrade {
		t.Errorf("%+v", run)
	}
	resumed, err := f.Enumerator(nil).Run(t.Context(), pipeline.Request{ResumeRun: allowed.RunID, OrgID: "org-1", AllowDowngrade: true})
	if err != nil || resumed.RunID != allowed.RunID {
		t.Errorf("%+v, %v", resumed, err)
	}
}

// With MAX_DOWNGRADES=0, only a run over one organization with the allowance may lower access.
func TestAllowanceRaisesTheLimitToOneOrganization(t *testing.T) {
	f := newFixture(t)
	f.ended("org-1")
	for allow, want := range map[bool]int{true: 1, false: 0} {
		e := f.Enumerator(nil)
		e.Downgrades = func(int) int { return 0 }
		opened, err := e.Run(t.Context(), pipeline.Request{OrgID: "org-1", AllowDowngrade: allow})
		if err != nil || f.Run(opened.RunID).DowngradeLimit != want {
			t.Errorf("AllowDowngrade %t: the limit is %d, want %d (%v)", allow, f.Run(opened.RunID).DowngradeLimit, want, err)
		}
	}
}

// The message of an accepted error is deleted, and the run ends completed, without an alarm. When the acceptance has
// expired, the error is reported again.
func TestAcceptedErrorIsNotReportedUntilItExpires(t *testing.T) {
	f := newFixture(t)
	f.Subscriber("org-1", price("price_of_nothing"))
	until := f.Clock.Now().Add(24 * time.Hour)
	if err := f.Store.Accept(t.Context(), []billing.Acceptance{{OrgID: "org-1", Code: "tier_unresolved", Why: "known", By: "ops@desk", At: f.Clock.Now(), Until: &until}}); err != nil {
		t.Fatal(err)
	}
	f.OpenRun("accepted", []string{"org-1"}, func(r *billing.Run) { r.Strategy = billing.StrategySweep })
	f.wantResult(f.deliver(f.Reconciler(nil), "accepted", "org-1")["org-1"], pipeline.Acknowledge, billing.ReasonTierUnresolved)
	if item := f.Item("accepted", "org-1"); item.Outcome != billing.OutcomeError || f.tier() != "pro active" {
		t.Errorf("%+v", item)
	}
	if err := f.Aggregator(nil).Progress(t.Context(), "accepted"); err != nil {
		t.Fatal(err)
	}
	if lines := f.Metrics.Lines(t, "Errors", nil); len(lines) != 1 || lines[0]["Errors"] != 0.0 || f.Status("accepted") != billing.RunCompleted {
		t.Errorf("the run is %s, metrics: %v", f.Status("accepted"), lines)
	}

	f.Clock.Advance(24 * time.Hour)
	f.OpenRun(runID, []string{"org-1"}, func(r *billing.Run) { r.Strategy = billing.StrategySweep })
	f.wantResult(f.deliver(f.Reconciler(nil), runID, "org-1")["org-1"], pipeline.DeadLetter, billing.ReasonTierUnresolved)
	if err := f.Aggregator(nil).Progress(t.Context(), runID); err != nil {
		t.Fatal(err)
	}
	if lines := f.Metrics.Lines(t, "Errors", nil); len(lines) != 2 || lines[1]["Errors"] != 1.0 || f.Status(runID) != billing.RunCompletedWithErrors {
		t.Errorf("the run is %s, metrics: %v", f.Status(runID), lines)
	}
}
