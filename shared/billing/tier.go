package billing

import (
	"fmt"
	"slices"
	"strings"
)

// Tier is what an organization may use.
type Tier string

const (
	TierFree    Tier = "free"
	TierStarter Tier = "starter"
	TierPro     Tier = "pro"
	TierMax     Tier = "max"
)

// tiers from the lowest, which nobody pays for, to the highest.
var tiers = []Tier{TierFree, TierStarter, TierPro, TierMax}

// rank orders tiers. One we do not know ranks highest, so that taking it away counts as a
// downgrade and the guard sees it.
func (t Tier) rank() int {
	if i := slices.Index(tiers, t); i >= 0 {
		return i
	}
	return len(tiers)
}

func (t Tier) paid() bool { return t == TierStarter || t == TierPro || t == TierMax }

// Rules is how subscriptions become tiers; it comes from the configuration.
type Rules struct {
	Prices      map[string]Tier // Stripe price id -> tier
	DefaultTier Tier            // for a subscription that names none; "" refuses it
}

// tier of a subscription: free where nothing is paid (any more, or yet), else by price, else by
// metadata, else the default.
func (r Rules) tier(s Subscription) (Tier, error) {
	if s.Status.grantsNothing() {
		return TierFree, nil
	}
	if tier, ok := r.Prices[s.PriceID]; ok {
		return tier, nil
	}
	if tier := metadataTier(s); tier.paid() {
		return tier, nil
	}
	if r.DefaultTier != "" {
		return r.DefaultTier, nil
	}
	return "", permanent(ReasonTierUnresolved,
		"price %q of subscription %s is in no STRIPE_PRICE_ID_* and its metadata.tier %q is no paid tier; add the price to the configuration or correct the metadata in Stripe",
		s.PriceID, s.ID, s.MetadataTier)
}

func metadataTier(s Subscription) Tier {
	return Tier(strings.ToLower(strings.TrimSpace(s.MetadataTier)))
}

// tierMismatch warns where price and metadata disagree: the application's webhook writes
// metadata.tier, so it would undo the repair at the next event.
func (r Rules) tierMismatch(s Subscription) (Warning, bool) {
	byPrice, ok := r.Prices[s.PriceID]
	byMetadata := metadataTier(s)
	known := byMetadata.paid() || byMetadata == TierFree
	if !ok || !known || byPrice == byMetadata || s.Status.grantsNothing() {
		return Warning{}, false
	}
	return Warning{Code: WarnTierMetadataMismatch, Message: fmt.Sprintf(
		"subscription %s: price %s is tier %s but metadata.tier says %s, which the webhook writes at the next event; correct the metadata in Stripe",
		s.ID, s.PriceID, byPrice, byMetadata)}, true
}

// rowStatus is the status as the subscriptions table's ENUM has it.
func rowStatus(s Status) string {
	if s == StatusPaused {
		return string(StatusIncomplete)
	}
	return string(s)
}

// orgStatus is the status as the organizations table's ENUM has it.
func orgStatus(s Status) string {
	switch s {
	case StatusUnpaid:
		return string(StatusPastDue)
	case StatusIncompleteExpired:
		return string(StatusCanceled)
	case StatusPaused:
		return string(StatusIncomplete)
	default:
		return string(s)
	}
}
