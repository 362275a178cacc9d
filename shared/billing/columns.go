package billing

import (
	"maps"
	"slices"
	"strings"
)

// The columns of [Columns] that code asks for by name, as reports and summaries name them.
const (
	FieldSubscriptionID     = "subscriptions.stripe_subscription_id"
	FieldCustomerID         = "subscriptions.stripe_customer_id"
	FieldPriceID            = "subscriptions.stripe_price_id"
	FieldPlanTier           = "subscriptions.plan_tier"
	FieldStatus             = "subscriptions.status"
	FieldCurrentPeriodStart = "subscriptions.current_period_start"
	FieldCurrentPeriodEnd   = "subscriptions.current_period_end"
	FieldTrialEnd           = "subscriptions.trial_end"
	FieldCancelAtPeriodEnd  = "subscriptions.cancel_at_period_end"
	FieldCanceledAt         = "subscriptions.canceled_at"
	FieldEndedAt            = "subscriptions.ended_at"

	FieldOrgCustomerID  = "organizations.stripe_customer_id"
	FieldOrgTier        = "organizations.subscription_tier"
	FieldOrgStatus      = "organizations.subscription_status"
	FieldOrgTrialEndsAt = "organizations.trial_ends_at"
)

// Kind is what a column's values are.
type Kind string

const (
	KindText   Kind = "text"
	KindTime   Kind = "time"
	KindFlag   Kind = "flag"
	KindNumber Kind = "number"
)

// Group is what columns tell together; most columns stand for themselves and have none.
type Group string

const (
	GroupID     Group = "id" // names something in Stripe
	GroupTier   Group = "tier"
	GroupStatus Group = "status"
	GroupPeriod Group = "period"
)

// Column is one that this system compares and repairs, and what is written to it.
type Column struct {
	Field  string // table and column
	Kind   Kind
	Group  Group
	Values []string // every value of a status or tier, a tier's from the lowest; nil for any text
	Null   bool     // NULL is written too
	// Required: NULL says nothing that could be compared.
	Required bool
	// Cell points at the field of the row or, where it is a column of organizations, of the
	// organization: at a string where it is required, else at a pointer that is nil for NULL.
	Cell func(*Row, *Organization) any

	// want is what follows from the subscription that governs and from its tier.
	want func(*Subscription, Tier) value
}

// The tables that the columns are in.
const (
	TableOrganizations = "organizations"
	TableSubscriptions = "subscriptions"
)

// MaxIDLength is the most characters that are written of an id of Stripe's.
const MaxIDLength = 120

// columns is the one place that says what is compared: all else follows from it.
var columns = []Column{
	{
		Field: FieldSubscriptionID, Kind: KindText, Group: GroupID,
		Cell: func(r *Row, _ *Organization) any { return &r.SubscriptionID },
		want: func(s *Subscription, _ Tier) value { return textValue(s.ID) },
	},
	{
		Field: FieldCustomerID, Kind: KindText, Group: GroupID,
		Cell: func(r *Row, _ *Organization) any { return &r.CustomerID },
		want: func(s *Subscription, _ Tier) value { return textValue(s.CustomerID) },
	},
	{
		Field: FieldPriceID, Kind: KindText, Group: GroupID,
		Cell: func(r *Row, _ *Organization) any { return &r.PriceID },
		want: func(s *Subscription, _ Tier) value { return textOrNull(s.PriceID) },
	},
	{
		Field: FieldPlanTier, Kind: KindText, Group: GroupTier, Required: true,
		Cell: func(r *Row, _ *Organization) any { return &r.Tier },
		want: func(_ *Subscription, tier Tier) value { return textValue(string(tier)) },
	},
	{
		Field: FieldStatus, Kind: KindText, Group: GroupStatus, Values: statuses(rowStatus), Required: true,
		Cell: func(r *Row, _ *Organization) any { return &r.Status },
		want: func(s *Subscription, _ Tier) value { return textValue(rowStatus(s.Status)) },
	},
	{
		Field: FieldCurrentPeriodStart, Kind: KindTime, Group: GroupPeriod,
		Cell: func(r *Row, _ *Organization) any { return &r.CurrentPeriodStart },
		want: func(s *Subscription, _ Tier) value { return timeOrNull(s.CurrentPeriodStart) },
	},
	{
		Field: FieldCurrentPeriodEnd, Kind: KindTime, Group: GroupPeriod,
		Cell: func(r *Row, _ *Organization) any { return &r.CurrentPeriodEnd },
		want: func(s *Subscription, _ Tier) value { return timeOrNull(s.CurrentPeriodEnd) },
	},
	{
		Field: FieldTrialEnd, Kind: KindTime, Null: true,
		Cell: func(r *Row, _ *Organization) any { return &r.TrialEnd },
		want: func(s *Subscription, _ Tier) value { return timeOrNull(s.TrialEnd) },
	},
	{
		Field: FieldCancelAtPeriodEnd, Kind: KindFlag,
		Cell: func(r *Row, _ *Organization) any { return &r.CancelAtPeriodEnd },
		want: func(s *Subscription, _ Tier) value { return flagValue(s.CancelAtPeriodEnd) },
	},
	{
		Field: FieldCanceledAt, Kind: KindTime, Null: true,
		Cell: func(r *Row, _ *Organization) any { return &r.CanceledAt },
		want: func(s *Subscription, _ Tier) value { return timeOrNull(s.CanceledAt) },
	},
	{
		Field: FieldEndedAt, Kind: KindTime, Null: true,
		Cell: func(r *Row, _ *Organization) any { return &r.EndedAt },
		want: func(s *Subscription, _ Tier) value { return timeOrNull(s.EndedAt) },
	},

	{
		Field: FieldOrgCustomerID, Kind: KindText, Group: GroupID,
		Cell: func(_ *Row, o *Organization) any { return &o.CustomerID },
		want: func(s *Subscription, _ Tier) value { return textValue(s.CustomerID) },
	},
	{
		Field: FieldOrgTier, Kind: KindText, Group: GroupTier, Required: true,
		Cell: func(_ *Row, o *Organization) any { return &o.Tier },
		want: func(_ *Subscription, tier Tier) value { return textValue(string(tier)) },
	},
	{
		Field: FieldOrgStatus, Kind: KindText, Group: GroupStatus, Values: statuses(orgStatus), Required: true,
		Cell: func(_ *Row, o *Organization) any { return &o.Status },
		want: func(s *Subscription, _ Tier) value { return textValue(orgStatus(s.Status)) },
	},
	{
		Field: FieldOrgTrialEndsAt, Kind: KindTime, Null: true,
		Cell: func(_ *Row, o *Organization) any { return &o.TrialEndsAt },
		want: func(s *Subscription, _ Tier) value { return timeOrNull(s.TrialEnd) },
	},
}

// Columns are all that are compared, in the order of their changes: first those of a subscriptions
// row, then the organization's. A tier's have no Values: see [Tiers.Columns].
func Columns() []Column { return slices.Clone(columns) }

// ColumnsOf returns the columns of a table, in the order of their changes, a tier's without Values.
func ColumnsOf(table string) []Column {
	return slices.DeleteFunc(slices.Clone(columns), func(c Column) bool { return c.Table() != table })
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

// Table is the name of the application's table that the column is in.
func (c *Column) Table() string {
	table, _, _ := strings.Cut(c.Field, ".")
	return table
}

// Name is the column's name in its table.
func (c *Column) Name() string {
	_, name, _ := strings.Cut(c.Field, ".")
	return name
}

// Value is what stands in the column, as a [Change] has it.
func (c *Column) Value(r *Row, o *Organization) any { return c.read(r, o).any() }

// Wanted is what is to stand in the column where the subscription governs, as a [Change] has it.
func (c *Column) Wanted(s Subscription, tier Tier) any { return c.want(&s, tier).any() }

func (c *Column) read(r *Row, o *Organization) value {
	return valueIn(c.Cell(r, o))
}

// Fields returns the names of [Columns].
func Fields() []string {
	names := make([]string, len(columns))
	for i := range columns {
		names[i] = columns[i].Field
	}
	return names
}

// FieldsOf returns those of the columns of a group.
func FieldsOf(g Group) []string {
	return slices.DeleteFunc(Fields(), func(field string) bool { return GroupOf(field) != g })
}

// GroupOf returns the column's group; none where it is not compared.
func GroupOf(field string) Group { return columnNamed(field).Group }

// GrantsAccess reports whether the column is a tier, a status or a subscription's id: a customer
// has or lacks something where it is wrong.
func GrantsAccess(field string) bool {
	group := GroupOf(field)
	return group == GroupTier || group == GroupStatus || field == FieldSubscriptionID
}

// columnNamed is the zero Column where none has the name.
func columnNamed(field string) Column {
	for i := range columns {
		if columns[i].Field == field {
			return columns[i]
		}
	}
	return Column{}
}
