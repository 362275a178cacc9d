package mysqlstore

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"strings"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Records returns what the database holds for the organizations, by id, in two queries whatever
// their number. An organization that does not exist is absent.
func (s *Store) Records(ctx context.Context, orgIDs []string) (map[string]billing.Record, error) {
	records, err := readRecords(ctx, s.db, orgIDs, selectRowsAndOthers, "")
	return records, failure(err, "read organizations")
}

// readRecords reads organizations, then their subscriptions rows by id: also the order in which
// they are locked where lock is FOR UPDATE. rows selects the rows.
func readRecords(ctx context.Context, q querier, orgIDs []string, rows, lock string) (map[string]billing.Record, error) {
	records := make(map[string]billing.Record, len(orgIDs))
	// The foreign key compares as the collation does, so a row may spell the id in another case.
	spelled := make(map[string]string, len(orgIDs))
	if len(orgIDs) == 0 {
		return records, nil
	}
	err := lookUp(orgIDs, func(orgIDs []string) error {
		return query(ctx, q, func(r *sql.Rows) error {
			org, nulls, err := scanOrganization(r)
			records[org.ID] = billing.Record{Org: org, Nulls: nulls}
			spelled[billing.OrgKey(org.ID)] = org.ID
			return err
		}, selectOrganizations+in(len(orgIDs))+inOrderOfID+lock, anys(orgIDs)...)
	})
	if err != nil {
		return nil, err
	}
	err = lookUp(orgIDs, func(orgIDs []string) error {
		return query(ctx, q, func(r *sql.Rows) error {
			id, row, other, nulls, err := scanRow(r)
			if _, ok := records[id]; !ok {
				id = spelled[billing.OrgKey(id)]
			}
			if record, ok := records[id]; ok {
				record.Rows, record.Nulls = append(record.Rows, row), append(record.Nulls, nulls...)
				if other.Valid {
					record.AddElsewhere(row, other.String)
				}
				records[id] = record
			}
			return err
		}, rows+in(len(orgIDs))+inOrderOfID+lock, anys(orgIDs)...)
	})
	return records, err
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
// which organizations metadata names. Soft-deleted organizations count: their row still holds the
// unique subscription id.
func (s *Store) Claims(ctx context.Context, subs []billing.Subscription) (billing.Claims, error) {
	claims := billing.Claims{Named: map[string]string{}}
	var ids, names []string
	for _, sub := range subs {
		ids, names = append(ids, sub.ID), append(names, sub.NamedID())
	}
	var err error
	if claims.RecordedBy, err = recordedBy(ctx, s.db, ids, orPadded); err != nil {
		return claims, failure(err, "look up whose the subscriptions are")
	}
	named, err := organizationsNamed(ctx, s.db, names)
	for name, org := range named {
		claims.Named[name] = org.ID
	}
	return claims, failure(err, "look up the organizations that metadata names")
}

// recordedBy returns whose rows record each of the subscriptions, each organization once and by id.
func recordedBy(ctx context.Context, q querier, ids []string, spelled spelling) (map[string][]string, error) {
	owners := make(map[string][]string, len(ids))
	for _, id := range ids {
		owners[id] = nil
	}
	err := lookUp(ids, func(ids []string) error {
		condition, args := spelled(ids)
		return query(ctx, q, func(r *sql.Rows) error {
			var id, owner string
			err := r.Scan(&id, &owner)
			id = strings.TrimSpace(id)
			if of, wanted := owners[id]; wanted && !slices.Contains(of, owner) {
				owners[id] = append(of, owner)
			}
			return err
		}, selectOwners+`(`+condition+`)`, args...)
	})
	maps.DeleteFunc(owners, func(_ string, of []string) bool {
		slices.Sort(of)
		return len(of) == 0
	})
	return owners, err
}

// spelling says how the application's rows may spell the ids that are looked for, and takes its arguments.
type spelling func(ids []string) (condition string, args []any)

// exactly as they are.
func exactly(ids []string) (condition string, args []any) {
	return recordedIn + in(len(ids)), anys(ids)
}

// orPadded finds those with white space around them too, and reads no more of the index: what ends with it begins like
// the id. Other white space than ASCII's in front of an id is found in some collations only.
func orPadded(ids []string) (condition string, args []any) {
	condition, args = exactly(ids)
	condition += recordedPadded
	for _, id := range ids {
		condition += recordedBegins
		args = append(args, likeText(id)+"%")
	}
	return condition, args
}

// organizationsNamed returns the organizations that these texts of metadata name.
func organizationsNamed(ctx context.Context, q querier, names []string) (map[string]billing.Identity, error) {
	var found []billing.Identity
	err := lookUp(billing.Spellings(names), func(ids []string) error {
		return query(ctx, q, func(r *sql.Rows) error {
			var org billing.Identity
			err := r.Scan(&org.ID, &org.AnyCase, &org.Deleted)
			found = append(found, org)
			return err
		}, selectIdentities+in(len(ids)), anys(ids)...)
	})
	return billing.Named(names, found), err
}

// SharedCustomers returns for each of the customers the organizations, those that are deleted left
// out, that are known under it. The application has no index on customers, so this reads its tables
// through: ask for many at once, and only where it matters.
func (s *Store) SharedCustomers(ctx context.Context, customers []string) (map[string][]string, error) {
	known := map[string][]string{}
	for _, stmt := range []string{selectOrgsByCustomer, selectRowsByCustomer} {
		err := lookUp(customers, func(customers []string) error {
			return query(ctx, s.db, func(r *sql.Rows) error {
				var customer, id string
				err := r.Scan(&customer, &id)
				if customer = strings.TrimSpace(customer); slices.Contains(customers, customer) {
					known[customer] = append(known[customer], id)
				}
				return err
			}, stmt+in(len(customers))+`)`, anys(customers)...)
		})
		if err != nil {
			return nil, failure(err, "look up who shares a customer")
		}
	}
	for customer, ids := range known {
		slices.Sort(ids)
		known[customer] = slices.Compact(ids)
	}
	return known, nil
}

// OrganizationExists reports whether there is such an organization that is not deleted.
func (s *Store) OrganizationExists(ctx context.Context, orgID string) (bool, error) {
	var found []string
	err := lookUp([]string{orgID}, func(ids []string) (err error) {
		found, err = texts(ctx, s.db, selectLiving+in(len(ids)), anys(ids)...)
		return err
	})
	return len(found) > 0, failure(err, "look up the organization")
}
