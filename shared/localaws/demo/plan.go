package demo

import (
	"strings"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// tiers has the paid tiers, from the lowest to the highest.
var tiers = []billing.Tier{billing.TierStarter, billing.TierPro, billing.TierMax}

// A plan is a paid tier with a billing interval.
type plan struct {
	tier  billing.Tier
	every interval
}

type interval struct {
	name   string
	months int
}

var (
	monthly = interval{"monthly", 1}
	yearly  = interval{"yearly", 12}
)

func (p plan) price() string { return "price_demo_" + string(p.tier) + "_" + p.every.name }

// Prices returns the environment variables that list each tier's Stripe price ids.
func Prices() map[string]string {
	variables := map[string]string{}
	for _, tier := range tiers {
		variables["STRIPE_PRICE_ID_"+strings.ToUpper(string(tier))] = plan{tier, monthly}.price() + "," + plan{tier, yearly}.price()
	}
	return variables
}
