package billing

import (
	"maps"
	"slices"
)

// Kind is what a column's values are.
type Kind string

const (
	KindText Kind = "text"
	KindTime Kind = "time"
	KindFlag Kind = "flag"
)

// Column is one that this system compares and repairs, and what is written to it.
type Column struct {
	Field  string
	Kind   Kind
	Values []string // every value of a status or tier, a tier's from the lowest; nil for any text
	Ranked bool     // it holds a tier: [Tiers.Columns] knows its values, whose order means something
	Null   bool     // NULL is written too
	// Required: NULL says nothing that could be compared.
	Required bool
}

// MaxText is the most characters that are written of an id of Stripe's.
const MaxText = 120

// Columns are all that are compared, each table's in the order of its changes.
func Columns() []Column {
	return []Column{
		{Field: FieldSubscriptionID, Kind: KindText},
		{Field: FieldCustomerID, Kind: KindText},
		{Field: FieldPriceID, Kind: KindText},
		{Field: FieldPlanTier, Kind: KindText, Ranked: true, Required: true},
		{Field: FieldStatus, Kind: KindText, Values: statuses(rowStatus), Required: true},
		{Field: FieldCurrentPeriodStart, Kind: KindTime},
		{Field: FieldCurrentPeriodEnd, Kind: KindTime},
		{Field: FieldTrialEnd, Kind: KindTime, Null: true},
		{Field: FieldCancelAtPeriodEnd, Kind: KindFlag},
		{Field: FieldCanceledAt, Kind: KindTime, Null: true},
		{Field: FieldEndedAt, Kind: KindTime, Null: true},

		{Field: FieldOrgCustomerID, Kind: KindText},
		{Field: FieldOrgTier, Kind: KindText, Ranked: true, Required: true},
		{Field: FieldOrgStatus, Kind: KindText, Values: statuses(orgStatus), Required: true},
		{Field: FieldOrgTrialEndsAt, Kind: KindTime, Null: true},
	}
}

func texts[T ~string](values []T) []string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = string(v)
	}
	return all
}

// statuses are what a table's column says of each status of Stripe's.
func statuses(as func(Status) string) []string {
	var all []string
	for s := range maps.Keys(precedence) {
		all = append(all, as(s))
	}
	slices.Sort(all)
	return slices.Compact(all)
}
