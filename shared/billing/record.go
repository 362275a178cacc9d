package billing

import (
	"slices"
	"strings"
	"time"
)

// Record is what the application's database holds for one organization.
type Record struct {
	Org  Organization
	Rows []Row // the organization's subscriptions rows, in any order; usually one
	// Nulls are the required columns that contain NULL. Their fields are zero.
	Nulls []string
	// OtherOwners maps subscriptions that the rows record to another organization, not deleted, whose row records
	// them too. It is empty if the column has a unique key.
	OtherOwners map[string]string
}

// Organization is the part of an organizations row that this system reads. Nil means NULL.
// Statuses and tiers are plain strings: an unknown value is drift, not an error.
type Organization struct {
	ID          string
	CustomerID  *string
	Status      string
	Tier        string
	TrialEndsAt *time.Time
	Deleted     bool
	UpdatedAt   time.Time
}

// Row is the part of a subscriptions row that this system reads. Nil means NULL.
type Row struct {
	ID                 string
	SubscriptionID     *string
	CustomerID         *string
	PriceID            *string
	Tier               string
	Status             string
	CurrentPeriodStart *time.Time
	CurrentPeriodEnd   *time.Time
	TrialEnd           *time.Time
	CancelAtPeriodEnd  *bool
	CanceledAt         *time.Time
	EndedAt            *time.Time
	CreatedAt          time.Time
	UpdatedAt          time.Time
}

// Same reports whether two readings of the organization agree in all columns.
func (r Record) Same(other Record) bool {
	return r.Org.same(&other.Org) && slices.Equal(r.Nulls, other.Nulls) &&
		slices.EqualFunc(r.Rows, other.Rows, func(a, b Row) bool { return a.same(&b) })
}

func (o *Organization) same(other *Organization) bool {
	return o.ID == other.ID && o.Deleted == other.Deleted && o.UpdatedAt.Equal(other.UpdatedAt) &&
		!slices.ContainsFunc(columns, func(c Column) bool { return c.Table() != TableSubscriptions && c.read(nil, o) != c.read(nil, other) })
}

func (r *Row) same(other *Row) bool {
	return r.ID == other.ID && r.CreatedAt.Equal(other.CreatedAt) && r.UpdatedAt.Equal(other.UpdatedAt) &&
		!slices.ContainsFunc(columns, func(c Column) bool { return c.Table() == TableSubscriptions && c.read(r, nil) != c.read(other, nil) })
}

// AddOtherOwner adds an organization whose row records the row's subscription too.
func (r *Record) AddOtherOwner(row Row, orgID string) {
	if r.OtherOwners == nil {
		r.OtherOwners = map[string]string{}
	}
	r.OtherOwners[trimmed(row.SubscriptionID)] = orgID
}

// validate refuses a record with NULL in a required column.
func (r Record) validate() error {
	if len(r.Nulls) == 0 {
		return nil
	}
	return permanent(ReasonInvalidRecord, "the database has NULL in %s of organization %s; nothing was written, give it a value there",
		strings.Join(r.Nulls, ", "), r.Org.ID)
}

// RecordedIDs returns the Stripe subscription ids that the rows name.
func (r Record) RecordedIDs() []string {
	var ids []string
	for _, row := range r.Rows {
		if id := trimmed(row.SubscriptionID); id != "" {
			ids = append(ids, id)
		}
	}
	return ids
}

// CustomerIDs returns the Stripe customers of the rows, the latest row first, then that of the organization, each once.
// They differ if a returning customer's checkout reached only one table; all must be read, since any of them may pay.
func (r Record) CustomerIDs() []string {
	rows := slices.Clone(r.Rows)
	slices.SortFunc(rows, func(a, b Row) int {
		if a.newerThan(b) {
			return -1
		}
		return 1
	})
	var ids []string
	for _, row := range rows {
		ids = append(ids, trimmed(row.CustomerID))
	}
	return distinct(append(ids, trimmed(r.Org.CustomerID)))
}

// distinct returns the nonempty texts, each once, in their order.
func distinct(texts []string) []string {
	var all []string
	for _, s := range texts {
		if s != "" && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// HasStripeIdentity reports whether the record names anything in Stripe.
func (r Record) HasStripeIdentity() bool {
	return len(r.RecordedIDs()) > 0 || len(r.CustomerIDs()) > 0
}

// Records reports whether one of the rows names the subscription.
func (r Record) Records(subscriptionID string) bool {
	if subscriptionID == "" {
		return false
	}
	for i := range r.Rows {
		if trimmed(r.Rows[i].SubscriptionID) == subscriptionID {
			return true
		}
	}
	return false
}

// rowFor returns the row to repair: the one that records the governing subscription, else the latest; nil if there is
// none.
func (r *Record) rowFor(subscriptionID string) *Row {
	for i := range r.Rows {
		if trimmed(r.Rows[i].SubscriptionID) == subscriptionID {
			return &r.Rows[i]
		}
	}
	return r.latest(func(Row) bool { return true })
}

// lastRecorded returns the latest row that records a subscription; nil if there is none.
func (r *Record) lastRecorded() *Row {
	return r.latest(func(row Row) bool { return trimmed(row.SubscriptionID) != "" })
}

func (r *Record) latest(fits func(Row) bool) (latest *Row) {
	for i := range r.Rows {
		row := &r.Rows[i]
		if fits(*row) && (latest == nil || row.newerThan(*latest)) {
			latest = row
		}
	}
	return latest
}

// highestTier returns the highest tier in either table.
func (r Record) highestTier(tiers Tiers) Tier {
	highest := Tier(r.Org.Tier)
	for _, row := range r.Rows {
		if tier := Tier(row.Tier); tiers.rank(tier) > tiers.rank(highest) {
			highest = tier
		}
	}
	return highest
}

func (r Row) newerThan(other Row) bool {
	if !r.CreatedAt.Equal(other.CreatedAt) {
		return r.CreatedAt.After(other.CreatedAt)
	}
	return r.ID > other.ID
}

// trimmed returns the id without surrounding white space, "" for NULL.
func trimmed(s *string) string {
	if s == nil {
		return ""
	}
	return strings.TrimSpace(*s)
}
