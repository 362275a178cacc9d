package mysqlstore

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"strings"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Records returns the database's records of the organizations, by id, with two queries. An organization that
// does not exist is absent.
func (s *Store) Records(ctx context.Context, orgIDs []string) (map[string]billing.Record, error) {
	records, err := readRecords(ctx, s.db, orgIDs, selectRowsAndOthers, "")
	return records, failure(err, "read organizations")
}

// readRecords reads organizations, then their subscriptions rows by id. With lock FOR UPDATE it locks them in
// this order. rows is the statement that selects the rows.
func readRecords(ctx context.Context, q querier, orgIDs []string, rows, lock string) (map[string]billing.Record, error) {
	records := make(map[string]billing.Record, len(orgIDs))
	// The foreign key compares by the collation: a row may hold the organization's id in another case.
	idOf := make(map[string]string, len(orgIDs))
	if len(orgIDs) == 0 {
		return records, nil
	}
	err := queryValues(orgIDs, func(orgIDs []string) error {
		return query(ctx, q, func(r *sql.Rows) error {
			org, nulls, err := scanOrganization(r)
			records[org.ID] = billing.Record{Org: org, Nulls: nulls}
			idOf[billing.OrgKey(org.ID)] = org.ID
			return err
		}, selectOrganizations+placeholders(len(orgIDs))+orderByID+lock, toAny(orgIDs)...)
	})
	if err != nil {
		return nil, err
	}
	err = queryValues(orgIDs, func(orgIDs []string) error {
		return query(ctx, q, func(r *sql.Rows) error {
			id, row, other, nulls, err := scanRow(r)
			if _, ok := records[id]; !ok {
				id = idOf[billing.OrgKey(id)]
			}
			if record, ok := records[id]; ok {
				record.Rows, record.Nulls = append(record.Rows, row), append(record.Nulls, nulls...)
				if other.Valid {
					record.AddOtherOwner(row, other.String)
				}
				records[id] = record
			}
			return err
		}, rows+placeholders(len(orgIDs))+orderByID+lock, toAny(orgIDs)...)
	})
	return records, err
}

// notNull scans a required column. It notes a NULL in nulls, because an error would fail the whole batch.
func notNull[T any](field string, into *T, nulls *[]string) sql.Scanner {
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

// Claims returns which organizations claim the subscriptions: those whose rows record them and those that
// metadata names. A deleted organization's claim counts, because its row holds the unique subscription id, and
// is noted.
func (s *Store) Claims(ctx context.Context, subs []billing.Subscription) (billing.Claims, error) {
	claims := billing.Claims{Named: map[string]string{}}
	var ids, names []string
	for _, sub := range subs {
		ids, names = append(ids, sub.ID), append(names, sub.NamedID())
	}
	var err error
	if claims.RecordedBy, claims.Deleted, err = recordedBy(ctx, s.db, ids, matchPadded); err != nil {
		return claims, failure(err, "look up whose rows record the subscriptions")
	}
	named, err := organizationsNamed(ctx, s.db, names)
	for name, org := range named {
		claims.Named[name] = org.ID
	}
	return claims, failure(err, "look up the organizations that metadata names")
}

// recordedBy returns the organizations whose rows record each subscription, by id, and which of them are deleted or
// do not exist.
func recordedBy(ctx context.Context, q querier, ids []string, match idMatch) (owners map[string][]string, deleted map[string]bool, err error) {
	owners = make(map[string][]string, len(ids))
	deleted = map[string]bool{}
	for _, id := range ids {
		owners[id] = nil
	}
	err = queryValues(ids, func(ids []string) error {
		condition, args := match(ids)
		return query(ctx, q, func(r *sql.Rows) error {
			var id, owner string
			var isDeleted bool
			err := r.Scan(&id, &owner, &isDeleted)
			id = strings.TrimSpace(id)
			if orgs, wanted := owners[id]; wanted && !slices.Contains(orgs, owner) {
				owners[id] = append(orgs, owner)
				if isDeleted {
					deleted[owner] = true
				}
			}
			return err
		}, selectOwners+`(`+condition+`)`, args...)
	})
	maps.DeleteFunc(owners, func(_ string, orgs []string) bool {
		slices.Sort(orgs)
		return len(orgs) == 0
	})
	return owners, deleted, err
}

// idMatch returns a condition on the application's rows that finds the ids, and its arguments.
type idMatch func(ids []string) (condition string, args []any)

// matchExact finds ids without white space around them.
func matchExact(ids []string) (condition string, args []any) {
	return recordedIn + placeholders(len(ids)), toAny(ids)
}

// matchPadded also finds ids with white space around them, by the same index: with white space behind it a value still
// begins like the id. Non-ASCII white space in front of an id is found in some collations only.
func matchPadded(ids []string) (condition string, args []any) {
	condition, args = matchExact(ids)
	condition += recordedPadded
	for _, id := range ids {
		condition += recordedBegins
		args = append(args, likeText(id)+"%")
	}
	return condition, args
}

// organizationsNamed returns the organizations that these values of metadata.orgId name.
func organizationsNamed(ctx context.Context, q querier, names []string) (map[string]billing.Identity, error) {
	var found []billing.Identity
	err := queryValues(billing.Spellings(names), func(ids []string) error {
		return query(ctx, q, func(r *sql.Rows) error {
			var org billing.Identity
			err := r.Scan(&org.ID, &org.CaseInsensitive, &org.Deleted)
			found = append(found, org)
			return err
		}, selectIdentities+placeholders(len(ids)), toAny(ids)...)
	})
	return billing.Named(names, found), err
}

// SharedCustomers returns the organizations, not deleted, that each customer belongs to. The application has no
// index on customers, so this scans its tables: call it rarely and with many customers.
func (s *Store) SharedCustomers(ctx context.Context, customers []string) (map[string][]string, error) {
	known := map[string][]string{}
	for _, stmt := range []string{selectOrgsByCustomer, selectRowsByCustomer} {
		err := queryValues(customers, func(customers []string) error {
			return query(ctx, s.db, func(r *sql.Rows) error {
				var customer, id string
				err := r.Scan(&customer, &id)
				if customer = strings.TrimSpace(customer); slices.Contains(customers, customer) {
					known[customer] = append(known[customer], id)
				}
				return err
			}, stmt+placeholders(len(customers))+`)`, toAny(customers)...)
		})
		if err != nil {
			return nil, failure(err, "look up the organizations of customers")
		}
	}
	for customer, ids := range known {
		slices.Sort(ids)
		known[customer] = slices.Compact(ids)
	}
	return known, nil
}

// OrganizationExists reports whether the organization exists and is not deleted.
func (s *Store) OrganizationExists(ctx context.Context, orgID string) (bool, error) {
	var found []string
	err := queryValues([]string{orgID}, func(ids []string) (err error) {
		found, err = selectStrings(ctx, s.db, selectLiving+placeholders(len(ids)), toAny(ids)...)
		return err
	})
	return len(found) > 0, failure(err, "look up the organization")
}
