package billing

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Rules map subscriptions to tiers. They come from the configuration.
type Rules struct {
	Tiers       Tiers
	Prices      map[string]Tier // Stripe price id -> tier, or [Addon]
	Products    map[string]Tier // Stripe product id -> tier, or [Addon]; for prices that Prices does not list
	DefaultTier Tier            // of a subscription without a listed price or product; "" makes that an error
}

// Addon is the tier of prices and products that grant none.
const Addon Tier = ""

// evidence is what a tier was derived from.
type evidence int

const (
	byStatus evidence = iota // nothing is paid
	byList
	byMetadata
	byDefault
)

// grant returns the tier of the subscription, given the listed tiers of its items. Uncertain evidence never lowers the
// record's tier: the tier is then unresolved.
func (r Rules) grant(s *Subscription, listed []Tier, rec Record) (Tier, error) {
	tier, by := r.tier(s, listed)
	if tier == "" {
		return "", r.unresolved(s, "")
	}
	if recorded := r.recordedTier(s, rec); r.Tiers.rank(tier) < r.Tiers.rank(recorded) && !r.certain(s, by) {
		return "", r.unresolved(s, recorded)
	}
	return tier, nil
}

func (r Rules) tier(s *Subscription, listed []Tier) (Tier, evidence) {
	if s.Status.grantsNothing() {
		return r.Tiers.Lowest(), byStatus
	}
	if len(listed) > 0 {
		return highest(listed), byList
	}
	if tier := r.Tiers.Find(s.MetadataTier); tier != "" && tier != r.Tiers.Lowest() {
		return tier, byMetadata
	}
	return r.DefaultTier, byDefault
}

// listed returns the configured tier, or [Addon], of an item's price, else of its product.
func (r Rules) listed(i SubscriptionItem) (Tier, bool) {
	tier, ok := r.Prices[i.PriceID]
	if !ok {
		tier, ok = r.Products[i.ProductID]
	}
	return tier, ok
}

// listedTiers returns the tiers that the items are listed for, each once, the lowest first.
func (r Rules) listedTiers(items []SubscriptionItem) []Tier {
	var all []Tier
	for _, i := range items {
		if tier, ok := r.listed(i); ok && tier != Addon && !slices.Contains(all, tier) {
			all = append(all, tier)
		}
	}
	slices.SortFunc(all, func(a, b Tier) int { return r.Tiers.rank(a) - r.Tiers.rank(b) })
	return all
}

// highest returns the last of the listed tiers, "" if there is none.
func highest(listed []Tier) Tier {
	if len(listed) == 0 {
		return ""
	}
	return listed[len(listed)-1]
}

// certain reports whether the evidence is good enough to lower a tier. An unlisted licensed item may be a new plan;
// where prices or products are listed, the metadata may be left over from an earlier plan.
func (r Rules) certain(s *Subscription, by evidence) bool {
	switch by {
	case byStatus:
		return true
	case byList:
		return !slices.ContainsFunc(s.Items, r.isUnknown)
	case byMetadata:
		return len(r.Prices)+len(r.Products) == 0
	default:
		return false
	}
}

// isUnknown reports whether the item may grant a tier that is not configured. A metered item is no plan.
func (r Rules) isUnknown(i SubscriptionItem) bool {
	_, listed := r.listed(i)
	return !listed && !i.Metered
}

// recordedTier returns the higher of the two tiers that the plan would overwrite.
func (r Rules) recordedTier(s *Subscription, rec Record) Tier {
	tier := Tier(rec.Org.Tier)
	if row := rec.rowFor(s.ID); row != nil && r.Tiers.rank(Tier(row.Tier)) > r.Tiers.rank(tier) {
		tier = Tier(row.Tier)
	}
	return tier
}

// decidingPrice returns the price of an item with the highest listed tier: the recorded price if it is one of them, else
// the first; an add-on's only if there is no other. An ended subscription without items keeps the recorded price.
func (r Rules) decidingPrice(s *Subscription, listed []Tier, rec Record) string {
	recorded := ""
	if row := rec.rowFor(s.ID); row != nil {
		recorded = trimmed(row.PriceID)
	}
	first, addon := "", ""
	for _, i := range s.Items {
		switch tier, ok := r.listed(i); {
		case i.PriceID == "" || tier != highest(listed):
		case ok && tier == Addon:
			addon = cmp.Or(addon, i.PriceID)
		case i.PriceID == recorded:
			return recorded
		default:
			first = cmp.Or(first, i.PriceID)
		}
	}
	if first = cmp.Or(first, addon); first == "" && s.Status.ended() {
		return recorded
	}
	return first
}

// unresolved is the failure of a subscription whose tier is unknown, or uncertain and lower than the recorded tier.
func (r Rules) unresolved(s *Subscription, recorded Tier) error {
	kept := fmt.Sprintf("its metadata.tier is %q and DEFAULT_TIER does not help", s.MetadataTier)
	if recorded != "" {
		kept = fmt.Sprintf("the record's tier %s was not lowered", recorded)
	}
	return permanent(ReasonTierUnresolved, "the tier of subscription %s (%s) is not certain, %s; "+
		"add the price to STRIPE_PRICE_ID_<TIER> or STRIPE_PRICE_ID_ADDON, or its product to STRIPE_PRODUCT_ID_<TIER> or STRIPE_PRODUCT_ID_ADDON",
		s.ID, r.describeUnlisted(s.Items), kept)
}

func (r Rules) describeUnlisted(items []SubscriptionItem) string {
	var unlisted []string
	for _, i := range items {
		if _, ok := r.listed(i); !ok {
			unlisted = append(unlisted, fmt.Sprintf("price %q of product %q", i.PriceID, i.ProductID))
		}
	}
	if len(unlisted) == 0 {
		return "without items"
	}
	const shown = 3
	text := strings.Join(unlisted[:min(shown, len(unlisted))], ", ")
	if len(unlisted) > shown {
		text += fmt.Sprintf(" and %d others", len(unlisted)-shown)
	}
	return text + " in no list"
}

// tierWarnings are about items and metadata that contradict each other. A subscription that grants nothing has none.
func (r Rules) tierWarnings(s *Subscription, listed []Tier) []Warning {
	if s.Status.grantsNothing() || len(listed) == 0 {
		return nil
	}
	var all []Warning
	if len(listed) > 1 {
		all = append(all, Warning{Code: WarnSeveralTiers, Message: fmt.Sprintf(
			"the items of subscription %s are of %d tiers (%s); the highest counts, remove the others in Stripe", s.ID, len(listed), strings.Join(texts(listed), ", "))})
	}
	top := highest(listed)
	if named := r.Tiers.Find(s.MetadataTier); named != "" && named != top {
		all = append(all, Warning{Code: WarnTierMetadataMismatch, Message: fmt.Sprintf(
			"subscription %s: %s is tier %s but metadata.tier says %s, which the webhook writes at the next event; correct the metadata in Stripe",
			s.ID, r.listing(s.Items, top), top, named)})
	}
	return all
}

// listing names the price, else the product, that is listed for the tier.
func (r Rules) listing(items []SubscriptionItem, tier Tier) string {
	for _, i := range items {
		if r.Prices[i.PriceID] == tier {
			return "price " + i.PriceID
		}
	}
	for _, i := range items {
		if listed, _ := r.listed(i); listed == tier {
			return "product " + i.ProductID
		}
	}
	return ""
}

// billingWarnings are about states of a subscription that its status does not show.
func billingWarnings(s *Subscription) []Warning {
	if s.Status.ended() {
		return nil
	}
	var all []Warning
	if !s.CancelAt.IsZero() && !s.CancelAtPeriodEnd {
		all = append(all, Warning{Code: WarnCancellationScheduled, Message: fmt.Sprintf(
			"subscription %s ends on %s by its cancel_at; cancel_at_period_end stays false, as in Stripe", s.ID, s.CancelAt.UTC().Format("2006-01-02"))})
	}
	if s.CollectionPaused {
		all = append(all, Warning{Code: WarnCollectionPaused, Message: fmt.Sprintf(
			"subscription %s: payment collection is paused in Stripe, which its status does not show; resume it there or end the subscription", s.ID)})
	}
	return all
}
