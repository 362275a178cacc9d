package billing

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Rules is how subscriptions become tiers; it comes from the configuration.
type Rules struct {
	Tiers       Tiers
	Prices      map[string]Tier // Stripe price id -> tier, or [Addon]
	Products    map[string]Tier // Stripe product id -> the same of its prices that are not among Prices
	DefaultTier Tier            // for a subscription that names none; "" refuses it
}

// Addon stands for the tier of what is known to grant none.
const Addon Tier = ""

// evidence is what a tier follows from.
type evidence int

const (
	byStatus evidence = iota // nothing is paid any more, or yet
	byList
	byMetadata
	byDefault
)

// grant returns what the subscription gives: the lowest tier where nothing is paid (any more, or yet), else the
// highest that one of its items is listed for, whatever the order of the items, else that of the metadata, else
// the default. What is not known never lowers the record's tier: then the tier is unresolved.
func (r Rules) grant(s Subscription, rec Record) (Tier, error) {
	tier, by := r.tier(s)
	if tier == "" {
		return "", r.unresolved(s, "")
	}
	if recorded := r.recordedTier(s, rec); r.Tiers.rank(tier) < r.Tiers.rank(recorded) && !r.certain(s, by) {
		return "", r.unresolved(s, recorded)
	}
	return tier, nil
}

func (r Rules) tier(s Subscription) (Tier, evidence) {
	if s.Status.grantsNothing() {
		return r.Tiers.Lowest(), byStatus
	}
	if highest, _ := r.highestListed(s); highest != "" {
		return highest, byList
	}
	if tier := r.Tiers.Find(s.MetadataTier); tier != "" && tier != r.Tiers.Lowest() {
		return tier, byMetadata
	}
	return r.DefaultTier, byDefault
}

// listed is the tier, or [Addon], that the configuration has for an item: by its price or, where it does not list
// that, by its product.
func (r Rules) listed(i SubscriptionItem) (Tier, bool) {
	tier, ok := r.Prices[i.PriceID]
	if !ok {
		tier, ok = r.Products[i.ProductID]
	}
	return tier, ok
}

// highestListed is the highest tier that an item is listed for, "" where none is, and whether others are listed
// for another one.
func (r Rules) highestListed(s Subscription) (highest Tier, several bool) {
	for _, i := range s.Items {
		tier, ok := r.listed(i)
		if !ok || tier == Addon {
			continue
		}
		several = several || highest != "" && tier != highest
		if highest == "" || r.Tiers.rank(tier) > r.Tiers.rank(highest) {
			highest = tier
		}
	}
	return highest, several
}

// listedTiers of the items, each once, the lowest first.
func (r Rules) listedTiers(s Subscription) []Tier {
	var all []Tier
	for _, i := range s.Items {
		if tier, ok := r.listed(i); ok && tier != Addon && !slices.Contains(all, tier) {
			all = append(all, tier)
		}
	}
	slices.SortFunc(all, func(a, b Tier) int { return r.Tiers.rank(a) - r.Tiers.rank(b) })
	return all
}

// certain reports whether the evidence is enough to lower a tier. A licensed item that no list has may be a plan
// that is new; where there are lists, the metadata may be left over from another plan.
func (r Rules) certain(s Subscription, by evidence) bool {
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

// isUnknown: the item may grant a tier, and nothing says which. One that is paid by use is no plan.
func (r Rules) isUnknown(i SubscriptionItem) bool {
	_, listed := r.listed(i)
	return !listed && !i.Metered
}

// recordedTier is the higher of the two that the plan would write over.
func (r Rules) recordedTier(s Subscription, rec Record) Tier {
	tier := Tier(rec.Org.Tier)
	if row := rec.rowFor(s.ID); row != nil && r.Tiers.rank(Tier(row.Tier)) > r.Tiers.rank(tier) {
		tier = Tier(row.Tier)
	}
	return tier
}

// decidingPrice is the price of an item that the tier follows from, or would if anything were paid: of several
// the recorded one, else the first, an add-on's only if there is no other. What has ended without items keeps the
// recorded one.
func (r Rules) decidingPrice(s Subscription, rec Record) string {
	recorded := ""
	if row := rec.rowFor(s.ID); row != nil {
		recorded = trimmed(row.PriceID)
	}
	highest, _ := r.highestListed(s)
	first, addon := "", ""
	for _, i := range s.Items {
		switch tier, listed := r.listed(i); {
		case i.PriceID == "" || tier != highest:
		case listed && tier == Addon:
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

// unresolved says what is not known, and of what the record has where that was not lowered.
func (r Rules) unresolved(s Subscription, recorded Tier) error {
	kept := "its metadata.tier is " + fmt.Sprintf("%q", s.MetadataTier) + " and DEFAULT_TIER does not help"
	if recorded != "" {
		kept = fmt.Sprintf("the record's tier %s was not lowered", recorded)
	}
	return permanent(ReasonTierUnresolved, "the tier of subscription %s (%s) is not certain, %s; "+
		"add the price to STRIPE_PRICE_ID_<TIER> or STRIPE_PRICE_ID_ADDON, or its product to STRIPE_PRODUCT_ID_<TIER> or STRIPE_PRODUCT_ID_ADDON",
		s.ID, r.describeUnknown(s), kept)
}

func (r Rules) describeUnknown(s Subscription) string {
	var unknown []string
	for _, i := range s.Items {
		if _, ok := r.listed(i); !ok {
			unknown = append(unknown, fmt.Sprintf("price %q of product %q", i.PriceID, i.ProductID))
		}
	}
	if len(unknown) == 0 {
		return "without items"
	}
	const shown = 3
	text := strings.Join(unknown[:min(shown, len(unknown))], ", ")
	if len(unknown) > shown {
		text += fmt.Sprintf(" and %d others", len(unknown)-shown)
	}
	return text + " in no list"
}

// tierWarnings are about items and metadata that contradict each other. Of what grants nothing they say nothing.
func (r Rules) tierWarnings(s Subscription) []Warning {
	highest, several := r.highestListed(s)
	if s.Status.grantsNothing() || highest == "" {
		return nil
	}
	var all []Warning
	if several {
		tiers := r.listedTiers(s)
		all = append(all, Warning{Code: WarnSeveralTiers, Message: fmt.Sprintf(
			"the items of subscription %s are of %d tiers (%s); the highest counts, remove the others in Stripe", s.ID, len(tiers), strings.Join(texts(tiers), ", "))})
	}
	if named := r.Tiers.Find(s.MetadataTier); named != "" && named != highest {
		all = append(all, Warning{Code: WarnTierMetadataMismatch, Message: fmt.Sprintf(
			"subscription %s: %s is tier %s but metadata.tier says %s, which the webhook writes at the next event; correct the metadata in Stripe",
			s.ID, r.listing(s, highest), highest, named)})
	}
	return all
}

// listing is what the configuration lists for the tier: a price of the subscription, or a product.
func (r Rules) listing(s Subscription, tier Tier) string {
	for _, i := range s.Items {
		if r.Prices[i.PriceID] == tier {
			return "price " + i.PriceID
		}
	}
	for _, i := range s.Items {
		if listed, _ := r.listed(i); listed == tier {
			return "product " + i.ProductID
		}
	}
	return ""
}

// billingWarnings are about what Stripe does, or leaves undone, without a change of the status.
func billingWarnings(s Subscription) []Warning {
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
			"subscription %s: collecting payments is paused in Stripe, its status does not say so; resume it there or end the subscription", s.ID)})
	}
	return all
}

// MaxOtherMode is how many organizations of a run may have ids of Stripe's other mode, before it is the key that
// is taken to be of the wrong one.
const MaxOtherMode = 10

// SearchUnavailable warns of a plan that lowers access without Stripe's search.
func SearchUnavailable() Warning {
	return Warning{Code: WarnSearchUnavailable, Message: "the Stripe account has no search, so a subscription that only metadata.orgId connects with this organization would not have been found; " +
		"look for one in Stripe's dashboard if the customer complains"}
}
