package billing_test

import (
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func TestCauseIsDescribedWithTypeTimeAndDelivery(t *testing.T) {
	at := time.Date(2026, 11, 29, 2, 13, 59, 0, time.UTC)
	for want, c := range map[string]struct {
		cause billing.Cause
		on    time.Time
	}{
		"customer.subscription.updated of 02:13 UTC, still pending at an endpoint": {
			billing.Cause{Type: "customer.subscription.updated", Created: at, PendingWebhooks: 1}, at.Add(time.Hour),
		},
		"customer.subscription.deleted of 2026-11-29 02:13 UTC, pending at no endpoint": {
			billing.Cause{Type: "customer.subscription.deleted", Created: at}, at.Add(24 * time.Hour),
		},
		"an event of 02:13 UTC, still pending at 3 endpoints": {
			billing.Cause{Created: at.In(time.FixedZone("", 7200)), PendingWebhooks: 3}, at.In(time.FixedZone("", -36000)),
		},
	} {
		if got := c.cause.Describe(c.on); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestUndeliveredAndUnhandledWebhooksAreCountedSeparately(t *testing.T) {
	for d, want := range map[billing.DriftByCause][]int{
		{}: nil, {Pending: 3}: {3}, {NotPending: 2}: {2}, {Pending: 3, NotPending: 2}: {3, 2},
	} {
		var got []int
		for _, m := range d.Missed() {
			got = append(got, m.Organizations)
			if m.What == "" || m.Means == "" || m.Do == "" {
				t.Errorf("%+v", m)
			}
		}
		if len(got) != len(want) || len(want) > 0 && got[0] != want[0] {
			t.Errorf("%+v: %v, want %v", d, got, want)
		}
	}
}
