package mysqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// snapshotPage is how many subscriptions of a snapshot are looked at at a time. Of many more keys than
// these the optimizer thinks that the whole table is read sooner.
const snapshotPage = 500

// ListFromSnapshot looks at the next subscriptions of the run's snapshot, by id. Each whose metadata names an
// organization and that no row of it records leads the run there: the organization is listed if it was not, for
// nothing else may connect it with Stripe, and its item keeps the subscription, of several the one that would
// govern, for the time when the snapshot is gone. A run that was listed before it was swept anew keeps the
// organizations that it has. unclaimed are the live ones that no organization claims by
// itself: no row of one that is not deleted records it, and its metadata names none. through is where to go on;
// empty at the end.
func (s *Store) ListFromSnapshot(ctx context.Context, l billing.Lease, after string) (unclaimed []billing.Orphan, through string, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		subs, err := pageOfSnapshot(ctx, tx, l.RunID, after)
		if err != nil {
			return err
		}
		if through = ""; len(subs) == snapshotPage {
			through = subs[snapshotPage-1].ID
		}
		var leads []lead
		if leads, unclaimed, err = whose(ctx, tx, l.RunID, subs); err != nil {
			return err
		}
		if err := list(ctx, tx, l.RunID, leads); err != nil {
			return err
		}
		return renew(ctx, tx, l)
	})
	return unclaimed, through, failure(err, "look through what the sweep of run "+l.RunID+" saw")
}

// pageOfSnapshot forces the index because MySQL would not always read the rows in this order.
func pageOfSnapshot(ctx context.Context, q querier, runID, after string) (subs []billing.Subscription, err error) {
	err = query(ctx, q, func(r *sql.Rows) error {
		sub, err := scanSnapshot(r)
		subs = append(subs, sub)
		return err
	}, `SELECT `+snapshotColumns+` FROM reconciliation_snapshots n FORCE INDEX (idx_reconciliation_snapshots_subscription)
		WHERE n.run_key = `+keyOfRun+` AND n.subscription_id > ? ORDER BY n.subscription_id LIMIT ?`, runID, after, snapshotPage)
	return subs, err
}

// lead is a subscription that leads to an organization.
type lead struct {
	orgID string
	sub   billing.Subscription
}

// whose returns which of the subscriptions lead to an organization, and which no organization claims. A row
// that was written since the organizations were listed leads to its organization too. Who is deleted is led to
// by none and claims none.
func whose(ctx context.Context, q querier, runID string, subs []billing.Subscription) (leads []lead, unclaimed []billing.Orphan, err error) {
	ids := make([]string, len(subs))
	for i, sub := range subs {
		ids[i] = sub.ID
	}
	owners, err := recordedBy(ctx, q, ids, exactly)
	if err != nil {
		return nil, nil, err
	}
	listed, err := itemsAmong(ctx, q, runID, slices.Concat(slices.Collect(maps.Values(owners))...))
	if err != nil {
		return nil, nil, err
	}
	// Nearly all are recorded by a listed organization, and name it or none.
	subs = slices.DeleteFunc(subs, func(sub billing.Subscription) bool {
		name := sub.NamedID()
		return slices.ContainsFunc(owners[sub.ID], func(owner string) bool { return listed[owner] && (name == "" || name == owner) })
	})
	names := make([]string, 0, 2*len(subs))
	for _, sub := range subs {
		names = append(append(names, sub.NamedID()), owners[sub.ID]...)
	}
	found, err := organizationsNamed(ctx, q, names)
	if err != nil {
		return nil, nil, err
	}
	living := func(name string) (id string, ok bool) {
		org, ok := found[name]
		return org.ID, ok && !org.Deleted
	}
	for _, sub := range subs {
		named, isNamed := living(sub.NamedID())
		if isNamed && fitsItem(sub) && (!slices.Contains(owners[sub.ID], named) || !listed[named]) {
			leads = append(leads, lead{named, sub})
		}
		isRecorded := slices.ContainsFunc(owners[sub.ID], func(owner string) bool {
			_, lives := living(owner)
			return lives
		})
		if !isNamed && !isRecorded && sub.Status.Live() {
			unclaimed = append(unclaimed, billing.Orphan{SubscriptionID: sub.ID, CustomerID: sub.CustomerID, Status: sub.Status, OrgID: sub.OrgID})
		}
	}
	return leads, unclaimed, nil
}

// fitsItem reports whether an item has room for the subscription's id.
func fitsItem(sub billing.Subscription) bool {
	return utf8.RuneCountInString(sub.ID) <= billing.MaxText
}

// itemsAmong returns which of the organizations the run has.
func itemsAmong(ctx context.Context, q querier, runID string, orgs []string) (map[string]bool, error) {
	listed := make(map[string]bool, len(orgs))
	if len(orgs) == 0 {
		return listed, nil
	}
	ids, err := texts(ctx, q, `SELECT i.org_id`+itemsOfRun+`i.org_id IN `+in(len(orgs)), append([]any{runID}, anys(orgs)...)...)
	for _, id := range ids {
		listed[id] = true
	}
	return listed, err
}

// list gives the run an item for each organization that the leads lead to, unless it was listed.
func list(ctx context.Context, tx *sql.Tx, runID string, leads []lead) error {
	if len(leads) == 0 {
		return nil
	}
	if unlisted, err := isUnlisted(ctx, tx, runID); err != nil || !unlisted {
		return err
	}
	best, err := ledTo(ctx, tx, runID, leads)
	if err != nil {
		return err
	}
	for _, l := range leads {
		if other, ok := best[l.orgID]; !ok || billing.Precedes(l.sub, other) {
			best[l.orgID] = l.sub
		}
	}
	items := make([]billing.Item, 0, len(best))
	for _, id := range slices.Sorted(maps.Keys(best)) {
		items = append(items, billing.Item{OrgID: id, SubscriptionID: best[id].ID})
	}
	return insertItems(ctx, tx, runID, items)
}

// ledTo returns the subscriptions that the organizations' items keep already.
func ledTo(ctx context.Context, q querier, runID string, leads []lead) (map[string]billing.Subscription, error) {
	orgs := make([]any, len(leads))
	for i, l := range leads {
		orgs[i] = l.orgID
	}
	led := map[string]billing.Subscription{}
	err := query(ctx, q, func(r *sql.Rows) error {
		var orgID string
		sub, err := scanSnapshot(r, &orgID)
		led[orgID] = sub
		return err
	}, `SELECT `+snapshotColumns+`, i.org_id FROM reconciliation_items i
		JOIN reconciliation_snapshots n ON n.run_key = i.run_key AND n.subscription_id = i.subscription_id
		WHERE i.run_key = `+keyOfRun+` AND i.org_id IN `+in(len(orgs)), append([]any{runID}, orgs...)...)
	return led, err
}

// WithoutKnownCustomer returns those of the subscriptions whose customer no organization that is not
// deleted knows, and that no row of one records with white space around the id. The application has no
// index for that: each call goes through its tables.
func (s *Store) WithoutKnownCustomer(ctx context.Context, unclaimed []billing.Orphan) ([]billing.Orphan, error) {
	customer := func(o billing.Orphan) string { return o.CustomerID }
	rest, err := s.without(ctx, unclaimed, customer, selectCustomersOfOrgs)
	if err == nil {
		rest, err = s.without(ctx, rest, customer, selectCustomersOfRows)
	}
	if err == nil {
		rest, err = s.withoutPadded(ctx, rest)
	}
	return rest, failure(err, "look for the customers of orphans")
}

func (s *Store) withoutPadded(ctx context.Context, live []billing.Orphan) ([]billing.Orphan, error) {
	if len(live) == 0 {
		return live, nil
	}
	padded, err := texts(ctx, s.db, selectPaddedIDs)
	for i, id := range padded {
		padded[i] = strings.TrimSpace(id)
	}
	return slices.DeleteFunc(live, func(o billing.Orphan) bool { return slices.Contains(padded, o.SubscriptionID) }), err
}

// without returns those whose key is not in what the statement returns for all keys.
func (s *Store) without(ctx context.Context, live []billing.Orphan, key func(billing.Orphan) string, stmt string) ([]billing.Orphan, error) {
	var keys []string
	for _, o := range live {
		if k := key(o); k != "" {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return live, nil
	}
	var list []string
	err := lookUp(keys, func(keys []string) error {
		some, err := texts(ctx, s.db, stmt+in(len(keys))+`)`, anys(keys)...)
		list = append(list, some...)
		return err
	})
	known := make(map[string]bool, len(list))
	for _, k := range list {
		known[strings.TrimSpace(k)] = true
	}
	return slices.DeleteFunc(live, func(o billing.Orphan) bool { return known[key(o)] }), err
}

// SaveOrphans records what the run's sweep found: the first of the orphans and how many there are.
func (s *Store) SaveOrphans(ctx context.Context, l billing.Lease, first []billing.Orphan, total int) error {
	text, err := json.Marshal(first)
	if err != nil {
		return err
	}
	err = s.underLease(ctx, l, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE reconciliation_sweeps SET orphans = ?, orphans_total = ? WHERE run_id = ?`, string(text), total, l.RunID)
		return err
	})
	return failure(err, "record the orphans of run "+l.RunID)
}

// Orphans returns what the run's sweep found: the first of the orphans and how many there are.
func (s *Store) Orphans(ctx context.Context, runID string) (first []billing.Orphan, total int, err error) {
	first = []billing.Orphan{}
	err = query(ctx, s.db, func(r *sql.Rows) error {
		var text sql.NullString
		if err := r.Scan(&text, &total); err != nil {
			return err
		}
		return fromJSON(text, &first)
	}, `SELECT orphans, orphans_total FROM reconciliation_sweeps WHERE run_id = ?`, runID)
	return first, total, failure(err, "read the orphans of run "+runID)
}
