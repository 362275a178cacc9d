package billing_test

import (
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func TestCountIsSingularOnlyForOne(t *testing.T) {
	for n, want := range map[int]string{0: "0 organizations", 1: "1 organization", 2: "2 organizations", 999: "999 organizations", 1000: "1,000 organizations", 4300: "4,300 organizations", 1_234_567: "1,234,567 organizations"} {
		if got := billing.Count(n, "organization"); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
