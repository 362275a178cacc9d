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
		if err := Summary(&b, billing.Summary{RunID: "run", Status: billing.RunCompleted, SweepAbandoned: abandoned}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(b.String(), "nobody looked for orphans"); got != abandoned {
			t.Errorf("given up %t:\n%s", abandoned, b.String())
		}
	}
}
