package mysqlstore

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

const (
	// baselineWindows are the windows of the catch-ups that decide where the next one begins.
	baselineWindows = `reconciliation_windows w JOIN reconciliation_runs r ON r.id = w.run_id WHERE r.dry_run = FALSE AND w.own_since = FALSE`
	// isCoverage: the catch-up listed to its end, and its items are decided or being decided.
	isCoverage = `r.listed AND r.status NOT IN ('stopped','incomplete')`
	// isUncovered: the catch-up stopped or ran out of time, and neither a full run nor another catch-up has covered the
	// part of its window that Stripe still lists. Its arguments are when the last full run began, and the later of that
	// and the beginning of Stripe's event log.
	isUncovered = `r.status IN ('stopped','incomplete') AND w.to_at > ? AND NOT EXISTS (SELECT 1 FROM reconciliation_windows g JOIN reconciliation_runs q ON q.id = g.run_id
		WHERE q.dry_run = FALSE AND q.listed AND q.status NOT IN ('stopped','incomplete') AND (g.from_at <= w.from_at OR g.from_at <= ?) AND g.to_at >= w.to_at)`
)

// CatchUpCoverage returns what runs have covered. It ignores times after by, which a wrong clock has set.
func (s *Store) CatchUpCoverage(ctx context.Context, by time.Time) (at billing.Coverage, err error) {
	latest := func(stmt string, args ...any) (t time.Time) {
		var found sql.NullTime
		if err == nil {
			err = s.db.QueryRowContext(ctx, stmt, args...).Scan(&found)
		}
		return found.Time
	}
	at.Full = latest(`SELECT MAX(started_at) FROM reconciliation_runs WHERE started_at <= ? AND `+isFullRun+` AND dry_run = FALSE
		AND status IN ('completed','completed_with_errors')`, by)
	at.Through = latest(`SELECT MAX(w.to_at) FROM `+baselineWindows+` AND w.to_at <= ? AND `+isCoverage, by)
	fullFrom := laterOf(at.Full, time.Unix(0, 0).UTC()) // databases do not accept the zero time
	at.Interrupted = latest(`SELECT MIN(w.from_at) FROM `+baselineWindows+` AND w.to_at <= ? AND `+isUncovered, by, fullFrom, laterOf(fullFrom, by.Add(-billing.EventRetention)))
	if !at.Interrupted.IsZero() {
		at.Interrupted = laterOf(at.Interrupted, at.Full)
	}
	return at, failure(err, "read what earlier runs have covered")
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// lockCatchUps locks one row until the transaction ends, so that catch-ups are opened one at a time.
const lockCatchUps = `INSERT INTO reconciliation_settings (name, content) VALUES ('catch-up', '') ON DUPLICATE KEY UPDATE name = VALUES(name)`

// OpenCatchUp creates the run and its window, and returns it. It returns an existing run instead if this one
// was opened before (a second delivery) or another catch-up is still enumerating.
func (s *Store) OpenCatchUp(ctx context.Context, run billing.Run, w billing.Window) (billing.Run, error) {
	var ids []string
	err := s.inTx(ctx, func(tx *sql.Tx) (err error) {
		if _, err := tx.ExecContext(ctx, lockCatchUps); err != nil {
			return err
		}
		if ids, err = selectStrings(ctx, tx, `SELECT id FROM reconciliation_runs WHERE id = ? OR request_id = ?`, run.ID, requestID(run)); err != nil || len(ids) > 0 {
			return err
		}
		ids, err = enumeratingCatchUps(ctx, tx)
		if err != nil || len(ids) > 0 {
			return err
		}
		if err := insertRun(ctx, tx, run); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO reconciliation_windows (run_id, from_at, to_at, own_since, expired) VALUES (?,?,?,?,?)`,
			run.ID, w.From, w.To, w.Since, w.Expired)
		ids = []string{run.ID}
		return err
	})
	if err != nil {
		return billing.Run{}, failure(err, "open catch-up "+run.ID)
	}
	return s.existingRun(ctx, billing.Run{ID: ids[0]})
}

func enumeratingCatchUps(ctx context.Context, q querier) ([]string, error) {
	return selectStrings(ctx, q, `SELECT id FROM reconciliation_runs WHERE status = ? AND strategy = ? ORDER BY started_at`, billing.RunEnumerating, billing.StrategyEvents)
}

// requireOnlyCatchUp fails if the run is a catch-up and another one is enumerating. No other can be opened
// before the transaction ends.
func requireOnlyCatchUp(ctx context.Context, tx *sql.Tx, runID string) error {
	catchUp, err := selectStrings(ctx, tx, `SELECT id FROM reconciliation_runs WHERE id = ? AND strategy = ?`, runID, billing.StrategyEvents)
	if err != nil || len(catchUp) == 0 {
		return err
	}
	if _, err := tx.ExecContext(ctx, lockCatchUps); err != nil {
		return err
	}
	listing, err := enumeratingCatchUps(ctx, tx)
	for _, id := range listing {
		if id != runID {
			return billing.CatchUpListing(id)
		}
	}
	return err
}

const (
	// eventColumns end with created_at, because an upsert must compare it before setting it.
	eventColumns      = `event_id, type, pending_webhooks, subscription_id, customer_id, org_id, created_at`
	insertEvents      = `INSERT INTO reconciliation_events (run_key, subject, ` + eventColumns + `) VALUES `
	eventPage         = 500
	customerPage      = 2000
	insertUndelivered = `INSERT INTO reconciliation_undelivered (seen_key, seen_at, ` + eventColumns + `) VALUES `
	updateUndelivered = ` ON DUPLICATE KEY UPDATE pending_webhooks = VALUES(pending_webhooks), seen_at = VALUES(seen_at), seen_key = GREATEST(seen_key, VALUES(seen_key))`
	deleteUndelivered = `DELETE FROM reconciliation_undelivered WHERE event_id IN `
	insertLate        = `INSERT INTO reconciliation_late (run_key, ` + eventColumns + `) VALUES `
	updateLate        = ` ON DUPLICATE KEY UPDATE run_key = VALUES(run_key), pending_webhooks = VALUES(pending_webhooks)`
	deleteEvents      = `DELETE FROM reconciliation_events WHERE run_key = ? AND subject IN `
	upsertUnreadable  = `INSERT INTO reconciliation_unreadable (run_id, events) VALUES (?,?) ON DUPLICATE KEY UPDATE events = VALUES(events)`
	insertNamed       = `INSERT INTO reconciliation_named (run_key, org_id, event_id, type, pending_webhooks, subscription_id, created_at) VALUES `
)

// updateIfLater updates an existing row if the new event is later. Of two events of one second the first to be
// read stays: Stripe lists the newest first.
func updateIfLater(columns ...string) string {
	sets := make([]string, len(columns))
	for i, c := range columns {
		sets[i] = c + ` = CASE WHEN VALUES(created_at) > created_at THEN VALUES(` + c + `) ELSE ` + c + ` END`
	}
	return ` ON DUPLICATE KEY UPDATE ` + strings.Join(sets, `, `) + `, created_at = GREATEST(created_at, VALUES(created_at))`
}

var (
	updateEvent = updateIfLater("event_id", "type", "pending_webhooks", "subscription_id", "customer_id", "org_id")
	updateNamed = updateIfLater("event_id", "type", "pending_webhooks")
)

// SaveEvents saves a page of the events that the window reads, and the window after the page, in one
// transaction. It drops events that lead to no organization.
func (s *Store) SaveEvents(ctx context.Context, l billing.Lease, w billing.Window, events []billing.Event, next billing.Window, now time.Time) error {
	events = slices.DeleteFunc(slices.Clone(events), billing.Event.NamesNothing)
	err := s.inLeasedTx(ctx, l, func(tx *sql.Tx) error {
		key, err := runKey(ctx, tx, l.RunID)
		if err != nil {
			return err
		}
		if w.State == billing.WindowUndelivered {
			err = saveUndelivered(ctx, tx, key, events, now)
		} else {
			err = saveEvents(ctx, tx, key, events)
		}
		if err != nil {
			return err
		}
		if next.Unreadable != w.Unreadable {
			if _, err := tx.ExecContext(ctx, upsertUnreadable, l.RunID, next.Unreadable); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, `UPDATE reconciliation_windows SET state = ?, after_id = ? WHERE run_id = ?`, next.State, next.After, l.RunID)
		return err
	})
	return failure(err, "store the events of catch-up "+l.RunID)
}

// saveUndelivered saves events that some endpoint has not taken yet. If fewer endpoints are pending than when
// the event was last listed, one has taken it late.
func saveUndelivered(ctx context.Context, tx *sql.Tx, key int64, events []billing.Event, now time.Time) error {
	if len(events) == 0 {
		return nil
	}
	ids := make([]any, len(events))
	for i, e := range events {
		ids[i] = e.ID
	}
	pending := make(map[string]int, len(events))
	err := query(ctx, tx, func(r *sql.Rows) error {
		var id string
		var n int
		err := r.Scan(&id, &n)
		pending[id] = n
		return err
	}, `SELECT event_id, pending_webhooks FROM reconciliation_undelivered WHERE event_id IN `+placeholders(len(ids)), ids...)
	if err != nil {
		return err
	}
	var late []billing.Event
	for _, e := range events {
		if e.PendingWebhooks < pending[e.ID] {
			late = append(late, e)
		}
	}
	if err := saveLateEvents(ctx, tx, key, late); err != nil {
		return err
	}
	return upsert(ctx, tx, insertUndelivered, updateUndelivered, events, func(e billing.Event) []any { return append([]any{key, now}, eventValues(e)...) })
}

// saveEvents saves the latest event of each subject: a subscription, or the event itself if it names none.
func saveEvents(ctx context.Context, tx *sql.Tx, key int64, events []billing.Event) error {
	return upsert(ctx, tx, insertEvents, updateEvent, events, func(e billing.Event) []any {
		subject := e.SubscriptionID
		if subject == "" {
			subject = e.ID
		}
		return append([]any{key, subject}, eventValues(e)...)
	})
}

// eventValues returns the values of eventColumns. An orgId longer than its column is no organization's and is
// dropped.
func eventValues(e billing.Event) []any {
	orgID := strings.TrimSpace(e.OrgID)
	if utf8.RuneCountInString(orgID) > orgIDWidth {
		orgID = ""
	}
	return []any{e.ID, e.Type, e.PendingWebhooks, e.SubscriptionID, e.CustomerID, orgID, e.Created}
}

// upsert inserts all rows, which may be none, with one statement.
func upsert[T any](ctx context.Context, tx *sql.Tx, insert, onDuplicate string, rows []T, values func(T) []any) error {
	if len(rows) == 0 {
		return nil
	}
	var args []any
	columns := 0
	for _, row := range rows {
		v := values(row)
		args, columns = append(args, v...), len(v)
	}
	return insertRows(ctx, tx, insert, columns, args, onDuplicate)
}

func scanEvent(r *sql.Rows, more ...any) (e billing.Event, err error) {
	err = r.Scan(append([]any{&e.ID, &e.Type, &e.PendingWebhooks, &e.SubscriptionID, &e.CustomerID, &e.OrgID, &e.Created}, more...)...)
	return e, err
}

// AddLateEvents adds a batch of events that were delivered late to the events to look up, and reports whether
// there may be more. Late are events that left Stripe's list of undelivered ones since it was last read, and
// those of catch-ups that stopped or ran out of time; [Store.SaveEvents] adds those that the list still has for
// another endpoint. Each is kept until the last catch-up that added it has completed.
func (s *Store) AddLateEvents(ctx context.Context, l billing.Lease, w billing.Window) (more bool, err error) {
	err = s.inLeasedTx(ctx, l, func(tx *sql.Tx) error {
		key, err := runKey(ctx, tx, l.RunID)
		if err != nil {
			return err
		}
		if more, err = adoptLateEvents(ctx, tx, key); err != nil || more {
			return err
		}
		more, err = addDelivered(ctx, tx, key, w)
		return err
	})
	return more, failure(err, "look for events that were delivered late")
}

// saveLateEvents assigns late events to the run and adds them to the events to look up.
func saveLateEvents(ctx context.Context, tx *sql.Tx, key int64, late []billing.Event) error {
	err := upsert(ctx, tx, insertLate, updateLate, late, func(e billing.Event) []any { return append([]any{key}, eventValues(e)...) })
	if err != nil {
		return err
	}
	return saveEvents(ctx, tx, key, late)
}

// addDelivered adds events that left the list of undelivered ones since it was last read. Either all endpoints
// have taken them, or they are too old to be listed and Stripe may have sent them again after they were last
// listed.
func addDelivered(ctx context.Context, tx *sql.Tx, key int64, w billing.Window) (more bool, err error) {
	var ids []any
	var late []billing.Event
	err = query(ctx, tx, func(r *sql.Rows) error {
		var lastListed time.Time
		e, err := scanEvent(r, &lastListed)
		ids = append(ids, e.ID)
		if !e.Created.Before(w.UndeliveredFrom()) {
			e.PendingWebhooks = 0
			late = append(late, e)
		} else if lastListed.Before(e.Created.Add(billing.Redelivery)) {
			late = append(late, e)
		}
		return err
	}, `SELECT `+eventColumns+`, seen_at FROM reconciliation_undelivered WHERE seen_key < ? AND created_at <= ? ORDER BY seen_key, event_id LIMIT ? FOR UPDATE`,
		key, w.To, eventPage)
	if err != nil || len(ids) == 0 {
		return false, err
	}
	if err := saveLateEvents(ctx, tx, key, late); err != nil {
		return false, err
	}
	_, err = tx.ExecContext(ctx, deleteUndelivered+placeholders(len(ids)), ids...)
	return len(ids) == eventPage, err
}

// adoptLateEvents takes over late events of catch-ups that stopped, ran out of time or were deleted, since
// their organizations may not have been read. It deletes those of completed catch-ups.
func adoptLateEvents(ctx context.Context, tx *sql.Tx, key int64) (more bool, err error) {
	others := map[int64]billing.RunStatus{}
	err = query(ctx, tx, func(r *sql.Rows) error {
		var other int64
		var status billing.RunStatus
		err := r.Scan(&other, &status)
		others[other] = status
		return err
	}, `SELECT DISTINCT l.run_key, COALESCE(r.status, '') FROM reconciliation_late l LEFT JOIN reconciliation_runs r ON r.run_key = l.run_key WHERE l.run_key <> ?`, key)
	if err != nil {
		return false, err
	}
	for other, status := range others {
		if status.Open() {
			continue
		}
		var some bool
		if status == billing.RunCompleted || status == billing.RunCompletedWithErrors {
			some, err = execMatched(ctx, tx, `DELETE FROM reconciliation_late WHERE run_key = ? ORDER BY event_id LIMIT ?`, other, pruneBatch)
		} else {
			some, err = adoptLateEventsOf(ctx, tx, other, key)
		}
		if err != nil {
			return false, err
		}
		more = more || some
	}
	return more, nil
}

func adoptLateEventsOf(ctx context.Context, tx *sql.Tx, other, key int64) (some bool, err error) {
	var late []billing.Event
	err = query(ctx, tx, func(r *sql.Rows) error {
		e, err := scanEvent(r)
		late = append(late, e)
		return err
	}, `SELECT `+eventColumns+` FROM reconciliation_late WHERE run_key = ? ORDER BY event_id LIMIT ? FOR UPDATE`, other, eventPage)
	if err != nil {
		return false, err
	}
	return len(late) > 0, saveLateEvents(ctx, tx, key, late)
}

// storedEvent is an event of the catch-up with its subject and the organizations that it leads to.
type storedEvent struct {
	billing.Event

	subject string
	orgIDs  []string
}

func (s *Store) storedEvents(ctx context.Context, runID, after string, limit int) (page []storedEvent, err error) {
	err = query(ctx, s.db, func(r *sql.Rows) error {
		var e storedEvent
		var err error
		e.Event, err = scanEvent(r, &e.subject)
		page = append(page, e)
		return err
	}, `SELECT `+eventColumns+`, subject FROM reconciliation_events WHERE run_key = `+keyOfRun+` AND subject > ? ORDER BY subject LIMIT ?`, runID, after, limit)
	return page, err
}

// ListFromEvents lists the organizations whose rows record the subscriptions of the next events, and those that
// the events' metadata names. through is the next cursor, "" at the end. Events that lead to none of them are
// left for [Store.ListByEventCustomers].
func (s *Store) ListFromEvents(ctx context.Context, l billing.Lease, after string) (through string, err error) {
	page, err := s.storedEvents(ctx, l.RunID, after, eventPage)
	if err != nil {
		return "", failure(err, "read the events of catch-up "+l.RunID)
	}
	if len(page) == eventPage {
		through = page[len(page)-1].subject
	}
	var ids []string
	for _, e := range page {
		if e.SubscriptionID != "" {
			ids = append(ids, e.SubscriptionID)
		}
	}
	owners, _, err := recordedBy(ctx, s.db, ids, matchPadded)
	if err != nil {
		return "", failure(err, "look up whose rows record the subscriptions of events")
	}
	var names []string
	for _, e := range page {
		names = append(append(names, e.OrgID), owners[e.SubscriptionID]...)
	}
	found, err := organizationsNamed(ctx, s.db, names)
	if err != nil {
		return "", failure(err, "look up the organizations that events name")
	}
	for i := range page {
		e := &page[i]
		for _, name := range append([]string{e.OrgID}, owners[e.SubscriptionID]...) {
			if org, ok := found[name]; ok && name != "" && !org.Deleted {
				e.orgIDs = append(e.orgIDs, org.ID)
			}
		}
	}
	page = slices.DeleteFunc(page, func(e storedEvent) bool { return len(e.orgIDs) == 0 })
	return through, s.listEventOrganizations(ctx, l, page)
}

// ListByEventCustomers lists the organizations known under the customers of some of the events that are left,
// and reports whether there may be more. The application has no index on customers: each call scans its tables
// once.
func (s *Store) ListByEventCustomers(ctx context.Context, l billing.Lease) (more bool, err error) {
	page, err := s.storedEvents(ctx, l.RunID, "", customerPage)
	if err != nil || len(page) == 0 {
		return false, failure(err, "read the events of catch-up "+l.RunID)
	}
	var customers []string
	for _, e := range page {
		if e.CustomerID != "" {
			customers = append(customers, e.CustomerID)
		}
	}
	known, err := s.SharedCustomers(ctx, customers)
	if err != nil {
		return false, err
	}
	for i := range page {
		page[i].orgIDs = known[page[i].CustomerID]
	}
	return len(page) == customerPage, s.listEventOrganizations(ctx, l, page)
}

// listEventOrganizations creates an item for each organization of the events, saves which subscriptions the
// events name for it, and deletes the events.
func (s *Store) listEventOrganizations(ctx context.Context, l billing.Lease, page []storedEvent) error {
	if len(page) == 0 {
		return nil
	}
	type naming struct {
		orgID string
		event billing.Event
	}
	var items []billing.Item
	var namings []naming
	var subjects []any
	listed := map[string]bool{}
	for _, e := range page {
		subjects = append(subjects, e.subject)
		for _, orgID := range slices.Compact(slices.Sorted(slices.Values(e.orgIDs))) {
			namings = append(namings, naming{orgID, e.Event})
			if !listed[orgID] {
				listed[orgID] = true
				items = append(items, billing.Item{OrgID: orgID})
			}
		}
	}
	err := s.inLeasedTx(ctx, l, func(tx *sql.Tx) error {
		key, err := runKey(ctx, tx, l.RunID)
		if err != nil {
			return err
		}
		if err := insertItems(ctx, tx, l.RunID, items); err != nil {
			return err
		}
		err = upsert(ctx, tx, insertNamed, updateNamed, namings, func(n naming) []any {
			e := n.event
			return []any{key, n.orgID, e.ID, e.Type, e.PendingWebhooks, e.SubscriptionID, e.Created}
		})
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, deleteEvents+placeholders(len(subjects)), append([]any{key}, subjects...)...)
		return err
	})
	return failure(err, "list the organizations of the events of catch-up "+l.RunID)
}

// EventSubscriptions returns the subscriptions that events named for these items, with one query for each run.
func (s *Store) EventSubscriptions(ctx context.Context, work []billing.Work) (map[billing.Work][]string, error) {
	named := map[billing.Work][]string{}
	orgs := map[string][]any{}
	for _, w := range work {
		orgs[w.RunID] = append(orgs[w.RunID], w.OrgID)
	}
	for runID, ids := range orgs {
		err := query(ctx, s.db, func(r *sql.Rows) error {
			w := billing.Work{RunID: runID}
			var id string
			err := r.Scan(&w.OrgID, &id)
			named[w] = append(named[w], id)
			return err
		}, `SELECT org_id, subscription_id FROM reconciliation_named WHERE run_key = `+keyOfRun+` AND subscription_id <> '' AND org_id IN `+placeholders(len(ids)),
			append([]any{runID}, ids...)...)
		if err != nil {
			return nil, failure(err, "read which subscriptions events name")
		}
	}
	return named, nil
}

// addCauses gives the items of a catch-up their causes.
func (s *Store) addCauses(ctx context.Context, runID string, items []*billing.Item) error {
	if len(items) == 0 {
		return nil
	}
	byOrg := make(map[string]*billing.Item, len(items))
	args := []any{runID, billing.StrategyEvents}
	for _, i := range items {
		byOrg[i.OrgID] = i
		args = append(args, i.OrgID)
	}
	return query(ctx, s.db, func(r *sql.Rows) error {
		var org string
		var c billing.Cause
		err := r.Scan(&org, &c.ID, &c.Type, &c.PendingWebhooks, &c.Created)
		if i := byOrg[org]; i != nil && (i.Cause == nil || i.Cause.Before(c)) {
			i.Cause = &c
		}
		return err
	}, `SELECT n.org_id, n.event_id, n.type, n.pending_webhooks, n.created_at FROM reconciliation_runs r JOIN reconciliation_named n ON n.run_key = r.run_key
		WHERE r.id = ? AND r.strategy = ? AND n.org_id IN `+placeholders(len(items)), args...)
}

// LatestCause returns the latest event on record that made a catch-up list the organization; nil if there is
// none.
func (s *Store) LatestCause(ctx context.Context, orgID string) (latest *billing.Cause, err error) {
	err = query(ctx, s.db, func(r *sql.Rows) error {
		var c billing.Cause
		err := r.Scan(&c.ID, &c.Type, &c.PendingWebhooks, &c.Created)
		latest = &c
		return err
	}, `SELECT n.event_id, n.type, n.pending_webhooks, n.created_at FROM reconciliation_runs r JOIN reconciliation_named n ON n.run_key = r.run_key
		WHERE r.strategy = ? AND n.org_id = ? ORDER BY n.created_at DESC, r.started_at DESC, n.event_id DESC LIMIT 1`, billing.StrategyEvents, orgID)
	return latest, failure(err, "look for the events that name organization "+orgID)
}

// LastCatchUpAt returns when the last catch-up that was no dry run completed; before the first one, when the
// tables of catch-ups were created. It ignores times after by, which a wrong clock has set.
func (s *Store) LastCatchUpAt(ctx context.Context, by time.Time) (time.Time, error) {
	var at sql.NullTime
	err := s.db.QueryRowContext(ctx, `SELECT MAX(finished_at) FROM reconciliation_runs
		WHERE strategy = ? AND dry_run = FALSE AND status IN ('completed','completed_with_errors') AND finished_at <= ?`, billing.StrategyEvents, by).Scan(&at)
	if err == nil && !at.Valid {
		err = s.db.QueryRowContext(ctx, `SELECT MAX(tstamp) FROM reconciliation_migrations WHERE version_id = ?`, catchUpMigration).Scan(&at)
	}
	return at.Time, failure(err, "look for the last catch-up")
}

// catchUpMigration is the migration that created the tables of catch-ups.
const catchUpMigration = 5

// pruneEvents deletes a run's events and the subscriptions that they name.
func (s *Store) pruneEvents(ctx context.Context, key int64) error {
	for _, stmt := range []string{
		`DELETE FROM reconciliation_named WHERE run_key = ? ORDER BY org_id, subscription_id LIMIT ?`,
		`DELETE FROM reconciliation_events WHERE run_key = ? ORDER BY subject LIMIT ?`,
	} {
		for more := true; more; {
			var err error
			if more, err = execMatched(ctx, s.db, stmt, key, pruneBatch); err != nil {
				return err
			}
		}
	}
	return nil
}
