package billing_test

import (
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func TestAMessageIsReceivedUntilItsRunsDeadline(t *testing.T) {
	for _, test := range []struct {
		base, deadline time.Duration
		want           int
	}{
		{30 * time.Second, 12 * time.Hour, 30},
		{30 * time.Second, 72 * time.Hour, 150},
		{30 * time.Second, time.Minute, 3},
		{30 * time.Minute, time.Minute, 2},
		{time.Second, 72 * time.Hour, billing.MaxReceives},
	} {
		got := billing.Receives(test.base, test.deadline)
		if got != test.want {
			t.Errorf("Receives(%v, %v) = %d, want %d", test.base, test.deadline, got, test.want)
		}
		var waited time.Duration
		for n := 1; n < got; n++ {
			waited += billing.Backoff(test.base, n)
		}
		if waited < test.deadline && got < billing.MaxReceives {
			t.Errorf("%d receives are used up after %v, before %v", got, waited, test.deadline)
		}
	}
}
