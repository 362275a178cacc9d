package billing_test

import (
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func TestRefusedCredentialsAreUnavailableForTenMinutesAndThenAboutTheRun(t *testing.T) {
	var r billing.Refusals
	refused := &billing.Failure{Class: billing.RunFatal, Reason: billing.ReasonStripeUnauthorized}
	start := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	for _, step := range []struct {
		after    time.Duration
		accepted bool
		want     billing.Class
	}{
		{0, false, billing.Unavailable},
		{9*time.Minute + 59*time.Second, false, billing.Unavailable},
		{10 * time.Minute, false, billing.RunFatal},
		{11 * time.Minute, true, billing.Unavailable}, // they were accepted in between
		{20 * time.Minute, false, billing.Unavailable},
		{21 * time.Minute, false, billing.RunFatal},
	} {
		if step.accepted {
			r.Reset()
		}
		if got := r.Classify(refused, start.Add(step.after)); got.Class != step.want || got.Reason != refused.Reason {
			t.Errorf("after %v: %v, %s", step.after, got.Class, got.Reason)
		}
	}
	if refused.Class != billing.RunFatal {
		t.Error("the failure that was judged has changed")
	}
}
