package mysqlstore

import (
	"context"
	"database/sql"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

const (
	organizationColumns = `id, stripe_customer_id, subscription_status, subscription_tier, trial_ends_at, is_deleted <> 0, updated_at`
	rowColumns          = `id, org_id, stripe_subscription_id, stripe_customer_id, stripe_price_id, plan_tier, status,
		current_period_start, current_period_end, trial_end, cancel_at_period_end <> 0, canceled_at, ended_at, created_at, updated_at`
)

// Records returns what the database holds for the organizations, by id, in two queries whatever
// their number. An organization that does not exist is absent.
func (s *Store) Records(ctx context.Context, orgIDs []string) (map[string]billing.Record, error) {
	records, err := readRecords(ctx, s.db, orgIDs, "")
	return records, failure(err, "read organizations")
}

// readRecords reads organizations, then their subscriptions rows by id: also the order in which
// they are locked where lock is FOR UPDATE.
func readRecords(ctx context.Context, q querier, orgIDs []string, lock string) (map[string]billing.Record, error) {
	records := make(map[string]billing.Record, len(orgIDs))
	// The foreign key compares as the collation does, so a row may spell the id in another case.
	spelled := make(map[string]string, len(orgIDs))
	if len(orgIDs) == 0 {
		return records, nil
	}
	err := query(ctx, q, func(r *sql.Rows) error {
		org, nulls, err := scanOrganization(r)
		records[org.ID] = billing.Record{Org: org, Nulls: nulls}
		spelled[billing.OrgKey(org.ID)] = org.ID
		return err
	}, `SELECT `+organizationColumns+` FROM organizations WHERE id IN `+in(len(orgIDs))+` ORDER BY id `+lock, anys(orgIDs)...)
	if err != nil {
		return nil, err
	}
	err = query(ctx, q, func(r *sql.Rows) error {
		orgID, row, nulls, err := scanRow(r)
		id := spelled[billing.OrgKey(orgID)]
		if record, ok := records[id]; ok {
			record.Rows, record.Nulls = append(record.Rows, row), append(record.Nulls, nulls...)
			records[id] = record
		}
		return err
	}, `SELECT `+rowColumns+` FROM subscriptions WHERE org_id IN `+in(len(orgIDs))+` ORDER BY id `+lock, anys(orgIDs)...)
	return records, err
}

func scanOrganization(r *sql.Rows) (o billing.Organization, nulls []string, err error) {
	err = r.Scan(&o.ID, &o.CustomerID, needed(billing.FieldOrgStatus, &o.Status, &nulls), needed(billing.FieldOrgTier, &o.Tier, &nulls),
		&o.TrialEndsAt, needed("organizations.is_deleted", &o.Deleted, &nulls), needed("organizations.updated_at", &o.UpdatedAt, &nulls))
	return o, nulls, err
}

func scanRow(r *sql.Rows) (orgID string, row billing.Row, nulls []string, err error) {
	err = r.Scan(needed("subscriptions.id", &row.ID, &nulls), &orgID, &row.SubscriptionID, &row.CustomerID, &row.PriceID,
		needed(billing.FieldPlanTier, &row.Tier, &nulls), needed(billing.FieldStatus, &row.Status, &nulls),
		&row.CurrentPeriodStart, &row.CurrentPeriodEnd, &row.TrialEnd, &row.CancelAtPeriodEnd, &row.CanceledAt, &row.EndedAt,
		needed("subscriptions.created_at", &row.CreatedAt, &nulls), needed("subscriptions.updated_at", &row.UpdatedAt, &nulls))
	return orgID, row, nulls, err
}

// needed reads a column whose NULL is noted: an error would be about the whole batch.
func needed[T any](field string, into *T, nulls *[]string) sql.Scanner {
	return scanFunc(func(value any) error {
		var v sql.Null[T]
		err := v.Scan(value)
		if err == nil && !v.Valid {
			*nulls = append(*nulls, field)
		}
		*into = v.V
		return err
	})
}

type scanFunc func(value any) error

func (f scanFunc) Scan(value any) error { return f(value) }

// Claims returns which organizations account for the subscriptions: whose row records each, and
// which organizations named by metadata exist. Soft-deleted organizations count: their row still
// holds the unique subscription id.
func (s *Store) Claims(ctx context.Context, subs []billing.Subscription) (billing.Claims, error) {
	claims := billing.Claims{RecordedBy: map[string]string{}, Existing: map[string]bool{}}
	ids, named := claimKeys(subs)
	if len(ids) > 0 {
		err := query(ctx, s.db, func(r *sql.Rows) error {
			var id, owner string
			err := r.Scan(&id, &owner)
			claims.RecordedBy[id] = owner
			return err
		}, `SELECT stripe_subscription_id, org_id FROM subscriptions WHERE org_id IS NOT NULL AND stripe_subscription_id IN `+in(len(ids)), anys(ids)...)
		if err != nil {
			return claims, failure(err, "look up whose the subscriptions are")
		}
	}
	if len(named) > 0 {
		existing, err := texts(ctx, s.db, `SELECT id FROM organizations WHERE id IN `+in(len(named)), anys(named)...)
		if err != nil {
			return claims, failure(err, "look up the organizations that metadata names")
		}
		for _, id := range existing {
			claims.Existing[billing.OrgKey(id)] = true
		}
	}
	return claims, nil
}

func claimKeys(subs []billing.Subscription) (ids, named []string) {
	for _, sub := range subs {
		ids = append(ids, sub.ID)
		if key := billing.OrgKey(sub.OrgID); key != "" {
			named = append(named, key)
		}
	}
	return ids, named
}

// SharedCustomers maps those of the customers that another organization than this one, not a
// deleted one, is known under to the first such organization. The application has no index on
// customers, so this reads its tables through: ask only where it matters.
func (s *Store) SharedCustomers(ctx context.Context, customers []string, orgID string) (map[string]string, error) {
	shared := map[string]string{}
	if len(customers) == 0 {
		return shared, nil
	}
	args := append(anys(customers), orgID)
	err := query(ctx, s.db, func(r *sql.Rows) error {
		var customer, other string
		err := r.Scan(&customer, &other)
		if first, ok := shared[customer]; !ok || other < first {
			shared[customer] = other
		}
		return err
	}, `SELECT stripe_customer_id, id FROM organizations WHERE stripe_customer_id IN `+in(len(customers))+` AND id <> ? AND is_deleted IS NOT TRUE
		UNION SELECT s.stripe_customer_id, o.id FROM subscriptions s JOIN organizations o ON o.id = s.org_id
		WHERE s.stripe_customer_id IN `+in(len(customers))+` AND o.id <> ? AND o.is_deleted IS NOT TRUE`, append(args, args...)...)
	return shared, failure(err, "look up who shares a customer with organization "+orgID)
}

// OrganizationExists reports whether there is such an organization that is not deleted.
func (s *Store) OrganizationExists(ctx context.Context, orgID string) (bool, error) {
	ids, err := texts(ctx, s.db, `SELECT id FROM organizations WHERE id = ? AND is_deleted IS NOT TRUE`, orgID)
	return len(ids) > 0, failure(err, "look up the organization")
}
