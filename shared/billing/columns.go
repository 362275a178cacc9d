package billing

import (
	"maps"
	"slices"
	"strings"
)

// The names of [Columns], also in reports and summaries.
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

// Kind is the type of a column's values.
type Kind int

const (
	KindText Kind = iota + 1
	KindTime
	KindFlag
	KindNumber
)

// Group combines columns of the same meaning. Most columns have none.
type Group string

const (
	GroupID     Group = "id" // ids of Stripe objects
	GroupTier   Group = "tier"
	GroupStatus Group = "status"
	GroupPeriod Group = "period"
)

// Column is a column that this system compares and repairs.
type Column struct {
	Field  string // table and column
	Kind   Kind
	Group  Group
	Values []string // all values of a status or tier, tiers in ascending order; nil for any text
	Null   bool     // NULL may be written
	// Required: the column must not contain NULL.
	Required bool
	// Cell returns a pointer to the field of the row or the organization: a *string if the column is required, else a
	// pointer to a pointer that is nil for NULL.
	Cell func(*Row, *Organization) any

	// want derives the value from the governing subscription and its tier.
	want func(*Subscription, Tier) value
}

// The tables that the columns are in.
const (
	TableOrganizations = "organizations"
	TableSubscriptions = "subscriptions"
)

// MaxIDLength limits the characters of Stripe's ids.
const MaxIDLength = 120

// columns defines everything that is compared and repaired.
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

// Columns returns all columns, those of subscriptions first, in the order of a plan's changes. Tier columns have no
// Values: see [Tiers.Columns].
func Columns() []Column { return slices.Clone(columns) }

// ColumnsOf returns the [Columns] of a table.
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

// statuses returns the column values of all of Stripe's statuses.
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

// Value returns the column's value, as in a [Change].
func (c *Column) Value(r *Row, o *Organization) any { return c.read(r, o).any() }

// Wanted returns the value that the governing subscription requires, as in a [Change].
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

// FieldsOf returns the names of a group's columns.
func FieldsOf(g Group) []string {
	return slices.DeleteFunc(Fields(), func(field string) bool { return GroupOf(field) != g })
}

// GroupOf returns the column's group, "" for an unknown column.
func GroupOf(field string) Group { return columnNamed(field).Group }

// GrantsAccess reports whether a wrong value gives a customer too much or too little: a tier, a status or a
// subscription's id.
func GrantsAccess(field string) bool {
	group := GroupOf(field)
	return group == GroupTier || group == GroupStatus || field == FieldSubscriptionID
}

// columnNamed returns the zero Column for an unknown name.
func columnNamed(field string) Column {
	for i := range columns {
		if columns[i].Field == field {
			return columns[i]
		}
	}
	return Column{}
}
