package billing_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func BenchmarkPlan(b *testing.B) {
	s, inSync := everything()
	_, drifted := everything()
	drifted.Rows[0].Tier, drifted.Rows[0].Status, drifted.Rows[0].CurrentPeriodEnd = "free", "canceled", nil
	drifted.Org.Tier, drifted.Org.Status = "free", "canceled"

	// a customer who tried a hundred times and pays once
	attempts := []billing.Subscription{subscription("sub_1", "active")}
	for i := range 100 {
		attempts = append(attempts, subscription(fmt.Sprintf("sub_try_%d", i), "incomplete_expired", createdAt(created.Add(time.Duration(i)*time.Minute))))
	}

	for _, bb := range []struct {
		name   string
		truth  billing.Truth
		record billing.Record
		drift  bool
	}{
		{"in sync", truth(s), inSync, false},
		{"with drift", truth(s), drifted, true},
		{"row inserted", truth(s), customerOnly(), true},
		{"in sync among 101 subscriptions", truth(attempts...), recorded("sub_1"), false},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if plan := mustPlan(b, rules, bb.truth, bb.record); (len(plan.Changes) > 0) != bb.drift {
					b.Fatalf("plan = %+v", plan)
				}
			}
		})
	}
}
