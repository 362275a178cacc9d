package present

import (
	"strings"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Without orphans in it, a summary must not read as if there were none.
func TestASummaryTellsThatNobodyLookedForOrphans(t *testing.T) {
	for _, abandoned := range []bool{true, false} {
		var b strings.Builder
		if err := Summary(&b, billing.Summary{RunID: "run", Status: billing.RunCompleted, SweepAbandoned: abandoned}, true); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(b.String(), "nobody looked for orphans"); got != abandoned {
			t.Errorf("given up %t:\n%s", abandoned, b.String())
		}
	}
}

func TestASummaryTellsWhatToDo(t *testing.T) {
	s := billing.Summary{
		RunID: "run-1", Status: billing.RunCompletedWithErrors, Downgrades: 2, DowngradeLimit: 2,
		Reasons: map[billing.Reason]int{billing.ReasonInSync: 7, billing.ReasonWithheld: 3, billing.ReasonTierUnresolved: 1},
		Details: []billing.Detail{{Warnings: []billing.Warning{{Code: billing.WarnMultipleLive}}}, {Warnings: []billing.Warning{{Code: billing.WarnMultipleLive}, {Code: "unheard_of"}}}},
	}
	tasks := func(queued bool) string {
		var b strings.Builder
		if err := Summary(&b, s, queued); err != nil {
			t.Fatal(err)
		}
		_, tasks, _ := strings.Cut(b.String(), "not finished\n")
		return tasks
	}
	unresolved, withheld, several := billing.ReasonTierUnresolved.Advice(), billing.ReasonWithheld.Advice(), billing.WarnMultipleLive.Advice()
	want := "\ntier_unresolved, 1\n  " + unresolved.Means + "\n  " + unresolved.Do + "\n  reconcile redrive --watch\n" +
		"\nwithheld, 3\n  " + withheld.Means + "\n  " + withheld.Do +
		"\n  reconcile org ORG --explain\n  reconcile approve run-1 --limit 5\n  reconcile redrive --watch\n" +
		"\nwarning multiple_live_subscriptions\n  " + several.Means + "\n  " + several.Do + "\n"
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
