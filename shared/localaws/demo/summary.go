package demo

import (
	"fmt"
	"strings"
)

// chapters group the kinds of drift as people would tell of them.
var chapters = []struct {
	about string
	kinds []Kind
}{
	{"changed plans", []Kind{MissedUpgrade, MissedDowngrade, IntervalChanged, Replaced}},
	{"payments", []Kind{PaymentFailed, PaymentRecovered, Unpaid}},
	{"renewals", []Kind{RenewalMissed}},
	{"cancellations", []Kind{CancelAtPeriodEnd, CanceledInStripe, SubscriptionMissing, Resumed}},
	{"trials", []Kind{TrialEnded, TrialExtended, Paused}},
	{"checkouts", []Kind{RowMissing, AbandonedCheckout, CheckoutExpired}},
	{"half-written copies", []Kind{OrganizationStale, OrgCustomerMissing}},
}

// Summary tells of the drift that was planted, in a few words: what it is about, and how often.
func (p Population) Summary() string {
	var all []string
	for _, chapter := range chapters {
		n := 0
		for _, kind := range chapter.kinds {
			n += p.Drifted[kind]
		}
		if n > 0 {
			all = append(all, fmt.Sprintf("%s %d", chapter.about, n))
		}
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}
