package report

import (
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func TestEveryStatusIsExplained(t *testing.T) {
	for _, status := range []billing.RunStatus{
		billing.RunEnumerating, billing.RunRunning, billing.RunCompleted, billing.RunCompletedWithErrors, billing.RunIncomplete, billing.RunSuspect, billing.RunStopped,
	} {
		if means, _ := ending(billing.Summary{RunID: "r", Status: status}); means == "" {
			t.Errorf("%s is not explained", status)
		}
	}
}
