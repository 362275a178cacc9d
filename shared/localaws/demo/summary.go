package demo

import (
	"fmt"
	"strings"
)

// topics group the kinds of drift for people.
var topics = []struct {
	name  string
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

// Summary returns the number of drifted organizations by topic, in one line.
func (p Population) Summary() string {
	var all []string
	for _, topic := range topics {
		n := 0
		for _, kind := range topic.kinds {
			n += p.Drifted[kind]
		}
		if n > 0 {
			all = append(all, fmt.Sprintf("%s %d", topic.name, n))
		}
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}
