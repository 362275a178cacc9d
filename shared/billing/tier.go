package billing

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Tier is what an organization may use, as the application's columns spell it.
type Tier string

// The tiers where the configuration names no others.
const (
	TierFree    Tier = "free"
	TierStarter Tier = "starter"
	TierPro     Tier = "pro"
	TierMax     Tier = "max"
)

// DefaultTiers are the tiers where the configuration names no others.
var DefaultTiers = Tiers{TierFree, TierStarter, TierPro, TierMax}

// Tiers are all that there are, from the lowest, which nobody pays for, to the highest. The zero
// value stands for [DefaultTiers].
type Tiers []Tier

// tierName is what can be part of a variable's name.
var tierName = regexp.MustCompile(`^[A-Za-z0-9_]+$`)

// UnmarshalText reads names separated by commas, the lowest tier first. Its errors complete
// "TIERS ..." and do not repeat the text.
func (t *Tiers) UnmarshalText(text []byte) error {
	var all Tiers
	for i, name := range strings.Split(string(text), ",") {
		name = strings.TrimSpace(name)
		if !tierName.MatchString(name) {
			return fmt.Errorf("has as entry %d something else than a name of letters, digits and underscores", i+1)
		}
		if strings.EqualFold(name, "addon") {
			return fmt.Errorf("has as entry %d a name that STRIPE_PRICE_ID_ADDON has for what grants no tier", i+1)
		}
		if len(all) > 0 && all.Find(name) != "" {
			return fmt.Errorf("has as entry %d a name that stands before it already, maybe in other case", i+1)
		}
		all = append(all, Tier(name))
	}
	if len(all) < 2 {
		return errors.New("has only one entry")
	}
	*t = all
	return nil
}

// String returns the names as UnmarshalText reads them.
func (t Tiers) String() string { return strings.Join(texts(t.All()), ",") }

// All returns the tiers, the lowest first.
func (t Tiers) All() []Tier {
	if len(t) == 0 {
		return DefaultTiers
	}
	return t
}

// Lowest is the tier of an organization that pays for nothing.
func (t Tiers) Lowest() Tier { return t.All()[0] }

// Find returns the tier with this name, whatever case and white space it is written with; "" if
// there is none.
func (t Tiers) Find(name string) Tier {
	name = strings.TrimSpace(name)
	for _, tier := range t.All() {
		if strings.EqualFold(string(tier), name) {
			return tier
		}
	}
	return ""
}

// rank orders tiers. One that is not known ranks highest, so that taking it away counts as a
// downgrade and the guard sees it.
func (t Tiers) rank(tier Tier) int {
	all := t.All()
	if i := slices.Index(all, tier); i >= 0 {
		return i
	}
	return len(all)
}

// Columns are [Columns] with the tiers as the values of those that hold one.
func (t Tiers) Columns() []Column {
	all := Columns()
	for i := range all {
		if all[i].Group == GroupTier {
			all[i].Values = texts(t.All())
		}
	}
	return all
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
