package billing_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func TestErrorsWithoutAClassAreUnavailable(t *testing.T) {
	throttled := &billing.Failure{Class: billing.Throttled, Reason: billing.ReasonStripeThrottled, Message: "slow down"}
	tests := map[string]struct {
		err    error
		class  billing.Class
		reason billing.Reason
	}{
		"a failure":                        {throttled, billing.Throttled, billing.ReasonStripeThrottled},
		"a failure wrapped":                {fmt.Errorf("read: %w", throttled), billing.Throttled, billing.ReasonStripeThrottled},
		"a failure joined":                 {errors.Join(io.EOF, throttled), billing.Throttled, billing.ReasonStripeThrottled},
		"a failure caused by the deadline": {&billing.Failure{Class: billing.Permanent, Reason: billing.ReasonStripeRefused, Err: context.DeadlineExceeded}, billing.Permanent, billing.ReasonStripeRefused},
		"deadline":                         {fmt.Errorf("read: %w", context.DeadlineExceeded), billing.Unavailable, billing.ReasonOutOfTime},
		"canceled":                         {context.Canceled, billing.Unavailable, billing.ReasonOutOfTime},
		"an error nobody classified":       {io.ErrUnexpectedEOF, billing.Unavailable, billing.ReasonInternal},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := billing.AsFailure(tt.err)
			if got.Class != tt.class || got.Reason != tt.reason {
				t.Errorf("AsFailure() = %s %s, want %s %s", got.Class, got.Reason, tt.class, tt.reason)
			}
			if !errors.Is(got, tt.err) && !errors.Is(tt.err, got) {
				t.Errorf("AsFailure() = %v lost its cause %v", got, tt.err)
			}
		})
	}
}
