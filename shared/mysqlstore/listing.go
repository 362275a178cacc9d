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

// snapshotPage is how many subscriptions of a snapshot are read at a time. With many more keys the optimizer
// prefers to scan the whole table.
const snapshotPage = 500

// ListFromSnapshot reads the next subscriptions of the run's snapshot, by id. If the metadata of one names an
// organization whose rows do not record it, that organization is listed, since nothing else may connect it with
// Stripe, and its item stores the subscription, of several the one that would govern, for when the snapshot is
// deleted. A run that was listed before this sweep keeps its organizations. unclaimed are the live
// subscriptions that no organization claims: no row of one that is not deleted records it, and its metadata
// names none. through is the next cursor, "" at the end.
func (s *Store) ListFromSnapshot(ctx context.Context, l billing.Lease, after string) (unclaimed []billing.Orphan, through string, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		subs, err := snapshotRows(ctx, tx, l.RunID, after)
		if err != nil {
			return err
		}
		if through = ""; len(subs) == snapshotPage {
			through = subs[snapshotPage-1].ID
		}
		var matches []match
		if matches, unclaimed, err = resolveOwners(ctx, tx, l.RunID, subs); err != nil {
			return err
		}
		if err := listNamed(ctx, tx, l.RunID, matches); err != nil {
			return err
		}
		return renewLease(ctx, tx, l)
	})
	return unclaimed, through, failure(err, "read the snapshot of run "+l.RunID)
}

// snapshotRows forces the index, because MySQL would not always read the rows in this order.
func snapshotRows(ctx context.Context, q querier, runID, after string) (subs []billing.Subscription, err error) {
	err = query(ctx, q, func(r *sql.Rows) error {
		row, err := scanSnapshot(r)
		subs = append(subs, row.Subscription)
		return err
	}, `SELECT `+snapshotColumns+` FROM reconciliation_snapshots n FORCE INDEX (idx_reconciliation_snapshots_subscription)
		WHERE n.run_key = `+keyOfRun+` AND n.subscription_id > ? ORDER BY n.subscription_id LIMIT ?`, runID, after, snapshotPage)
	return subs, err
}

// match is a subscription whose metadata names an organization.
type match struct {
	orgID string
	sub   billing.Subscription
}

// resolveOwners returns which of the subscriptions make the run list an organization, and which no organization
// claims. Rows written since the organizations were listed count too. Deleted organizations are not listed and
// claim nothing.
func resolveOwners(ctx context.Context, q querier, runID string, subs []billing.Subscription) (matches []match, unclaimed []billing.Orphan, err error) {
	ids := make([]string, len(subs))
	for i, sub := range subs {
		ids[i] = sub.ID
	}
	owners, _, err := recordedBy(ctx, q, ids, matchExact)
	if err != nil {
		return nil, nil, err
	}
	listed, err := listedAmong(ctx, q, runID, slices.Concat(slices.Collect(maps.Values(owners))...))
	if err != nil {
		return nil, nil, err
	}
	// Nearly all are recorded by a listed organization and name it or none.
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
	existing := func(name string) (id string, ok bool) {
		org, ok := found[name]
		return org.ID, ok && !org.Deleted
	}
	for _, sub := range subs {
		named, isNamed := existing(sub.NamedID())
		if isNamed && fitsItem(sub) && (!slices.Contains(owners[sub.ID], named) || !listed[named]) {
			matches = append(matches, match{named, sub})
		}
		isRecorded := slices.ContainsFunc(owners[sub.ID], func(owner string) bool {
			_, exists := existing(owner)
			return exists
		})
		if !isNamed && !isRecorded && sub.Status.Live() {
			unclaimed = append(unclaimed, billing.Orphan{SubscriptionID: sub.ID, CustomerID: sub.CustomerID, Status: sub.Status, OrgID: sub.OrgID})
		}
	}
	return matches, unclaimed, nil
}

// fitsItem reports whether an item has room for the subscription's id.
func fitsItem(sub billing.Subscription) bool {
	return utf8.RuneCountInString(sub.ID) <= billing.MaxIDLength
}

// listedAmong returns which of the organizations have items in the run.
func listedAmong(ctx context.Context, q querier, runID string, orgs []string) (map[string]bool, error) {
	listed := make(map[string]bool, len(orgs))
	if len(orgs) == 0 {
		return listed, nil
	}
	ids, err := selectStrings(ctx, q, `SELECT i.org_id`+itemsOfRun+`i.org_id IN `+placeholders(len(orgs)), append([]any{runID}, toAny(orgs)...)...)
	for _, id := range ids {
		listed[id] = true
	}
	return listed, err
}

// listNamed creates items for the matches, unless the run has been listed.
func listNamed(ctx context.Context, tx *sql.Tx, runID string, matches []match) error {
	if len(matches) == 0 {
		return nil
	}
	if unlisted, err := isUnlisted(ctx, tx, runID); err != nil || !unlisted {
		return err
	}
	best, err := listedSubscriptions(ctx, tx, runID, matches)
	if err != nil {
		return err
	}
	for _, m := range matches {
		if other, ok := best[m.orgID]; !ok || billing.Precedes(m.sub, other) {
			best[m.orgID] = m.sub
		}
	}
	items := make([]billing.Item, 0, len(best))
	for _, id := range slices.Sorted(maps.Keys(best)) {
		items = append(items, billing.Item{OrgID: id, SubscriptionID: best[id].ID})
	}
	return insertItems(ctx, tx, runID, items)
}

// listedSubscriptions returns the subscriptions that the organizations' items store already.
func listedSubscriptions(ctx context.Context, q querier, runID string, matches []match) (map[string]billing.Subscription, error) {
	orgs := make([]any, len(matches))
	for i, m := range matches {
		orgs[i] = m.orgID
	}
	stored := map[string]billing.Subscription{}
	err := query(ctx, q, func(r *sql.Rows) error {
		var orgID string
		row, err := scanSnapshot(r, &orgID)
		stored[orgID] = row.Subscription
		return err
	}, `SELECT `+snapshotColumns+`, i.org_id FROM reconciliation_items i
		JOIN reconciliation_snapshots n ON n.run_key = i.run_key AND n.subscription_id = i.subscription_id
		WHERE i.run_key = `+keyOfRun+` AND i.org_id IN `+placeholders(len(orgs)), append([]any{runID}, orgs...)...)
	return stored, err
}

// FindOrphans returns those of the subscriptions that belong to no organization: no organization has their customer,
// and no row records them with white space around the id. Deleted organizations do not count. For each of the others it
// notes in the run's snapshot which organization has the customer, if only one does: see [Store.Snapshot]. The
// application has no index for this: each call scans its tables.
func (s *Store) FindOrphans(ctx context.Context, l billing.Lease, unclaimed []billing.Orphan) ([]billing.Orphan, error) {
	if len(unclaimed) == 0 {
		return nil, nil
	}
	known, err := s.SharedCustomers(ctx, customersOf(unclaimed))
	if err != nil {
		return nil, err
	}
	var owned, orphans []billing.Orphan
	for _, o := range unclaimed {
		if len(known[o.CustomerID]) > 0 {
			owned = append(owned, o)
		} else {
			orphans = append(orphans, o)
		}
	}
	if err := s.saveSoleOwners(ctx, l, owned, known); err != nil {
		return nil, failure(err, "save who has the customers of run "+l.RunID)
	}
	orphans, err = s.withoutPaddedID(ctx, orphans)
	return orphans, failure(err, "look for orphans")
}

func customersOf(orphans []billing.Orphan) (customers []string) {
	for _, o := range orphans {
		if o.CustomerID != "" {
			customers = append(customers, o.CustomerID)
		}
	}
	return customers
}

// saveSoleOwners notes with each subscription which organization alone has its customer: nothing if several have it,
// also where an interrupted listing noted one.
func (s *Store) saveSoleOwners(ctx context.Context, l billing.Lease, subs []billing.Orphan, known map[string][]string) error {
	if len(subs) == 0 {
		return nil
	}
	return s.inLeasedTx(ctx, l, func(tx *sql.Tx) error {
		key, err := runKey(ctx, tx, l.RunID)
		if err != nil {
			return err
		}
		for chunk := range slices.Chunk(subs, snapshotPage) {
			var owners, ids []any
			for _, sub := range chunk {
				owners = append(owners, sub.SubscriptionID, soleOwner(known[sub.CustomerID]))
				ids = append(ids, sub.SubscriptionID)
			}
			_, err := execMatched(ctx, tx, `UPDATE reconciliation_snapshots n FORCE INDEX (idx_reconciliation_snapshots_subscription)
				SET more = JSON_SET(COALESCE(more, '{}'), '$.soleOwner', CASE subscription_id`+whenThen(len(chunk))+` END)
				WHERE n.run_key = ? AND n.subscription_id IN `+placeholders(len(chunk)), slices.Concat(owners, []any{key}, ids)...)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func soleOwner(orgs []string) string {
	if len(orgs) != 1 {
		return ""
	}
	return orgs[0]
}

func (s *Store) withoutPaddedID(ctx context.Context, orphans []billing.Orphan) ([]billing.Orphan, error) {
	if len(orphans) == 0 {
		return orphans, nil
	}
	recorded, err := selectStrings(ctx, s.db, selectPaddedIDs)
	for i, id := range recorded {
		recorded[i] = strings.TrimSpace(id)
	}
	return slices.DeleteFunc(orphans, func(o billing.Orphan) bool { return slices.Contains(recorded, o.SubscriptionID) }), err
}

// SaveOrphans stores the first orphans of the run's sweep and how many there are.
func (s *Store) SaveOrphans(ctx context.Context, l billing.Lease, first []billing.Orphan, total int) error {
	text, err := json.Marshal(first)
	if err != nil {
		return err
	}
	err = s.inLeasedTx(ctx, l, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE reconciliation_sweeps SET orphans = ?, orphans_total = ? WHERE run_id = ?`, string(text), total, l.RunID)
		return err
	})
	return failure(err, "store the orphans of run "+l.RunID)
}

// Orphans returns the first orphans of the run's sweep and how many there are.
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
