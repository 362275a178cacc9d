package billing

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Tier is a plan's level of access, as in the application's columns.
type Tier string

// The tiers of [DefaultTiers].
const (
	TierFree    Tier = "free"
	TierStarter Tier = "starter"
	TierPro     Tier = "pro"
	TierMax     Tier = "max"
)

// DefaultTiers are used if none are configured.
var DefaultTiers = Tiers{TierFree, TierStarter, TierPro, TierMax}

// Tiers are all tiers in ascending order; the lowest is free of charge. The zero value means [DefaultTiers].
type Tiers []Tier

// tierName matches names that can be part of a variable's name.
var tierName = regexp.MustCompile(`^[A-Za-z0-9_]+$`)

// UnmarshalText reads names separated by commas, the lowest tier first. Its errors continue a sentence that starts with
// "TIERS" and do not repeat the text.
func (t *Tiers) UnmarshalText(text []byte) error {
	var all Tiers
	for i, name := range strings.Split(string(text), ",") {
		name = strings.TrimSpace(name)
		if !tierName.MatchString(name) {
			return fmt.Errorf("has an entry %d that is not a name of letters, digits and underscores", i+1)
		}
		if strings.EqualFold(name, "addon") {
			return fmt.Errorf("has an entry %d named ADDON, which is reserved for STRIPE_PRICE_ID_ADDON", i+1)
		}
		if len(all) > 0 && all.Find(name) != "" {
			return fmt.Errorf("has an entry %d that repeats an earlier name, ignoring case", i+1)
		}
		all = append(all, Tier(name))
	}
	if len(all) < 2 {
		return errors.New("has only one entry")
	}
	*t = all
	return nil
}

// String returns the names in the form that UnmarshalText reads.
func (t Tiers) String() string { return strings.Join(texts(t.All()), ",") }

// All returns the tiers, the lowest first.
func (t Tiers) All() []Tier {
	if len(t) == 0 {
		return DefaultTiers
	}
	return t
}

// Lowest returns the tier of an organization that pays nothing.
func (t Tiers) Lowest() Tier { return t.All()[0] }

// Find returns the tier with this name, ignoring case and surrounding white space; "" if there is none.
func (t Tiers) Find(name string) Tier {
	name = strings.TrimSpace(name)
	for _, tier := range t.All() {
		if strings.EqualFold(string(tier), name) {
			return tier
		}
	}
	return ""
}

// rank orders tiers. An unknown tier ranks highest, so that replacing it counts as a downgrade.
func (t Tiers) rank(tier Tier) int {
	all := t.All()
	if i := slices.Index(all, tier); i >= 0 {
		return i
	}
	return len(all)
}

// Columns returns [Columns] with the Values of tier columns.
func (t Tiers) Columns() []Column {
	all := Columns()
	for i := range all {
		if all[i].Group == GroupTier {
			all[i].Values = texts(t.All())
		}
	}
	return all
}

// rowStatus returns the status for the subscriptions table's ENUM.
func rowStatus(s Status) string {
	if s == StatusPaused {
		return string(StatusIncomplete)
	}
	return string(s)
}

// orgStatus returns the status for the organizations table's ENUM.
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
