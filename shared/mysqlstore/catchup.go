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
	// windowsOfRuns are those of catch-ups that the next one goes by.
	windowsOfRuns = `reconciliation_windows w JOIN reconciliation_runs r ON r.id = w.run_id WHERE r.dry_run = FALSE AND w.own_since = FALSE`
	// yardstick: the catch-up listed to its end, and what it listed is done or being done.
	yardstick = `r.listed AND r.status NOT IN ('stopped','incomplete')`
	// undone: it is not, and neither a full run nor another catch-up has been through what a catch-up can still read
	// of its window. The parameters are when the last full run began, and the later of that and of where Stripe's log
	// begins.
	undone = `r.status IN ('stopped','incomplete') AND w.to_at > ? AND NOT EXISTS (SELECT 1 FROM reconciliation_windows g JOIN reconciliation_runs q ON q.id = g.run_id
		WHERE q.dry_run = FALSE AND q.listed AND q.status NOT IN ('stopped','incomplete') AND (g.from_at <= w.from_at OR g.from_at <= ?) AND g.to_at >= w.to_at)`
)

// CatchUpCoverage returns what runs have seen to by the given time: a wrong clock may have dated one into the future.
func (s *Store) CatchUpCoverage(ctx context.Context, by time.Time) (at billing.CaughtUp, err error) {
	latest := func(stmt string, args ...any) (t time.Time) {
		var found sql.NullTime
		if err == nil {
			err = s.db.QueryRowContext(ctx, stmt, args...).Scan(&found)
		}
		return found.Time
	}
	at.Full = latest(`SELECT MAX(started_at) FROM reconciliation_runs WHERE started_at <= ? AND `+full+` AND dry_run = FALSE
		AND status IN ('completed','completed_with_errors')`, by)
	at.Through = latest(`SELECT MAX(w.to_at) FROM `+windowsOfRuns+` AND w.to_at <= ? AND `+yardstick, by)
	fullFrom := later(at.Full, time.Unix(0, 0).UTC()) // no database compares with the zero time
	at.Undone = latest(`SELECT MIN(w.from_at) FROM `+windowsOfRuns+` AND w.to_at <= ? AND `+undone, by, fullFrom, later(fullFrom, by.Add(-billing.EventsReach)))
	if !at.Undone.IsZero() {
		at.Undone = later(at.Undone, at.Full)
	}
	return at, failure(err, "look what earlier runs have seen to")
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// takeTurns lets catch-ups be opened one after another: it locks a row until the transaction ends.
const takeTurns = `INSERT INTO reconciliation_settings (name, content) VALUES ('catch-up', '') ON DUPLICATE KEY UPDATE name = VALUES(name)`

// OpenCatchUp creates the run with its window, and returns the one that stands: another one where this was
// opened before (a second delivery), or where another catch-up is still listing whom events name.
func (s *Store) OpenCatchUp(ctx context.Context, run billing.Run, w billing.Window) (billing.Run, error) {
	var stands []string
	err := s.inTx(ctx, func(tx *sql.Tx) (err error) {
		if _, err := tx.ExecContext(ctx, takeTurns); err != nil {
			return err
		}
		if stands, err = texts(ctx, tx, `SELECT id FROM reconciliation_runs WHERE id = ? OR request_id = ?`, run.ID, requestID(run)); err != nil || len(stands) > 0 {
			return err
		}
		stands, err = listingCatchUps(ctx, tx)
		if err != nil || len(stands) > 0 {
			return err
		}
		if err := insertRun(ctx, tx, run); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO reconciliation_windows (run_id, from_at, to_at, own_since, expired) VALUES (?,?,?,?,?)`,
			run.ID, w.From, w.To, w.Since, w.Expired)
		stands = []string{run.ID}
		return err
	})
	if err != nil {
		return billing.Run{}, failure(err, "open catch-up "+run.ID)
	}
	return s.opened(ctx, billing.Run{ID: stands[0]})
}

func listingCatchUps(ctx context.Context, q querier) ([]string, error) {
	return texts(ctx, q, `SELECT id FROM reconciliation_runs WHERE status = ? AND strategy = ? ORDER BY started_at`, billing.RunEnumerating, billing.StrategyEvents)
}

// beOnlyCatchUp refuses a catch-up while another one lists, until the transaction ends; it lets other runs pass.
func beOnlyCatchUp(ctx context.Context, tx *sql.Tx, runID string) error {
	catchUp, err := texts(ctx, tx, `SELECT id FROM reconciliation_runs WHERE id = ? AND strategy = ?`, runID, billing.StrategyEvents)
	if err != nil || len(catchUp) == 0 {
		return err
	}
	if _, err := tx.ExecContext(ctx, takeTurns); err != nil {
		return err
	}
	listing, err := listingCatchUps(ctx, tx)
	for _, id := range listing {
		if id != runID {
			return billing.CatchUpListing(id)
		}
	}
	return err
}

const (
	// eventColumns tell of an event, created_at last: an upsert must compare it before it is set.
	eventColumns      = `event_id, type, pending_webhooks, subscription_id, customer_id, org_id, created_at`
	insertEvents      = `INSERT INTO reconciliation_events (run_key, subject, ` + eventColumns + `) VALUES `
	eventPage         = 500
	customerPage      = 2000
	undeliveredOfs    = `INSERT INTO reconciliation_undelivered (seen_key, seen_at, ` + eventColumns + `) VALUES `
	seenAgain         = ` ON DUPLICATE KEY UPDATE pending_webhooks = VALUES(pending_webhooks), seen_at = VALUES(seen_at), seen_key = GREATEST(seen_key, VALUES(seen_key))`
	deleteUndelivered = `DELETE FROM reconciliation_undelivered WHERE event_id IN `
	insertLate        = `INSERT INTO reconciliation_late (run_key, ` + eventColumns + `) VALUES `
	lateAgain         = ` ON DUPLICATE KEY UPDATE run_key = VALUES(run_key), pending_webhooks = VALUES(pending_webhooks)`
	deleteEvents      = `DELETE FROM reconciliation_events WHERE run_key = ? AND subject IN `
	keepUnreadable    = `INSERT INTO reconciliation_unreadable (run_id, events) VALUES (?,?) ON DUPLICATE KEY UPDATE events = VALUES(events)`
	insertNamed       = `INSERT INTO reconciliation_named (run_key, org_id, event_id, type, pending_webhooks, subscription_id, created_at) VALUES `
)

// keepLatest is for rows that stand for the latest event, by its columns. Of two of one second the one that
// was read first stays, for Stripe lists the newest first.
func keepLatest(columns ...string) string {
	sets := make([]string, len(columns))
	for i, c := range columns {
		sets[i] = c + ` = CASE WHEN VALUES(created_at) > created_at THEN VALUES(` + c + `) ELSE ` + c + ` END`
	}
	return ` ON DUPLICATE KEY UPDATE ` + strings.Join(sets, `, `) + `, created_at = GREATEST(created_at, VALUES(created_at))`
}

var (
	latestEvent = keepLatest("event_id", "type", "pending_webhooks", "subscription_id", "customer_id", "org_id")
	latestCause = keepLatest("event_id", "type", "pending_webhooks")
)

// SaveEvents keeps what a page of the list that the window reads tells, and that the window stands at next
// from now on, in one transaction. Events that name nobody are left out.
func (s *Store) SaveEvents(ctx context.Context, l billing.Lease, w billing.Window, events []billing.Event, next billing.Window, now time.Time) error {
	events = slices.DeleteFunc(slices.Clone(events), billing.Event.NamesNobody)
	err := s.underLease(ctx, l, func(tx *sql.Tx) error {
		key, err := runKey(ctx, tx, l.RunID)
		if err != nil {
			return err
		}
		if w.State == billing.WindowUndelivered {
			err = putUndelivered(ctx, tx, key, events, now)
		} else {
			err = putEvents(ctx, tx, key, events)
		}
		if err != nil {
			return err
		}
		if next.Unreadable != w.Unreadable {
			if _, err := tx.ExecContext(ctx, keepUnreadable, l.RunID, next.Unreadable); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, `UPDATE reconciliation_windows SET state = ?, after_id = ? WHERE run_id = ?`, next.State, next.After, l.RunID)
		return err
	})
	return failure(err, "store the events of catch-up "+l.RunID)
}

// putUndelivered remembers events that some endpoint has not taken. Of one that fewer endpoints have not taken than
// when it was last seen, one took it meanwhile.
func putUndelivered(ctx context.Context, tx *sql.Tx, key int64, events []billing.Event, now time.Time) error {
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
	}, `SELECT event_id, pending_webhooks FROM reconciliation_undelivered WHERE event_id IN `+in(len(ids)), ids...)
	if err != nil {
		return err
	}
	var late []billing.Event
	for _, e := range events {
		if e.PendingWebhooks < pending[e.ID] {
			late = append(late, e)
		}
	}
	if err := keepLate(ctx, tx, key, late); err != nil {
		return err
	}
	return upsert(ctx, tx, undeliveredOfs, seenAgain, events, func(e billing.Event) []any { return append([]any{key, now}, eventValues(e)...) })
}

// putEvents keeps the latest event of each subject.
func putEvents(ctx context.Context, tx *sql.Tx, key int64, events []billing.Event) error {
	return upsert(ctx, tx, insertEvents, latestEvent, events, func(e billing.Event) []any {
		subject := e.SubscriptionID
		if subject == "" {
			subject = e.ID
		}
		return append([]any{key, subject}, eventValues(e)...)
	})
}

// eventValues are those of eventColumns. No organization has an id that is longer than its column.
func eventValues(e billing.Event) []any {
	orgID := strings.TrimSpace(e.OrgID)
	if utf8.RuneCountInString(orgID) > orgIDWidth {
		orgID = ""
	}
	return []any{e.ID, e.Type, e.PendingWebhooks, e.SubscriptionID, e.CustomerID, orgID, e.Created}
}

// upsert is one statement for all rows, of which there may be none.
func upsert[T any](ctx context.Context, tx *sql.Tx, insert, otherwise string, rows []T, values func(T) []any) error {
	if len(rows) == 0 {
		return nil
	}
	var args []any
	columns := 0
	for _, row := range rows {
		of := values(row)
		args, columns = append(args, of...), len(of)
	}
	return insertRows(ctx, tx, insert, columns, args, otherwise)
}

func scanEvent(r *sql.Rows, more ...any) (e billing.Event, err error) {
	err = r.Scan(append([]any{&e.ID, &e.Type, &e.PendingWebhooks, &e.SubscriptionID, &e.CustomerID, &e.OrgID, &e.Created}, more...)...)
	return e, err
}

// AddLateEvents puts some of the events that were taken late among those whose organizations are looked up, and
// reports whether there may be others: those that have left the list of those undelivered since it was last read,
// and those of catch-ups that were stopped or ran out of time. [Store.SaveEvents] puts those there that the list
// still has, for another endpoint. Each is kept until the catch-up that took it last has ended well.
func (s *Store) AddLateEvents(ctx context.Context, l billing.Lease, w billing.Window) (more bool, err error) {
	err = s.underLease(ctx, l, func(tx *sql.Tx) error {
		key, err := runKey(ctx, tx, l.RunID)
		if err != nil {
			return err
		}
		if more, err = takeOver(ctx, tx, key); err != nil || more {
			return err
		}
		more, err = takeDelivered(ctx, tx, key, w)
		return err
	})
	return more, failure(err, "look for events that were delivered late")
}

// keepLate gives the run events that were taken late.
func keepLate(ctx context.Context, tx *sql.Tx, key int64, late []billing.Event) error {
	err := upsert(ctx, tx, insertLate, lateAgain, late, func(e billing.Event) []any { return append([]any{key}, eventValues(e)...) })
	if err != nil {
		return err
	}
	return putEvents(ctx, tx, key, late)
}

// takeDelivered takes events that have left the list of those undelivered since it was last read. An endpoint has
// taken them, at whatever time; or they are too old to be listed, and Stripe may have gone on sending them after
// they were last seen.
func takeDelivered(ctx context.Context, tx *sql.Tx, key int64, w billing.Window) (more bool, err error) {
	var gone []any
	var late []billing.Event
	err = query(ctx, tx, func(r *sql.Rows) error {
		var seen time.Time
		e, err := scanEvent(r, &seen)
		gone = append(gone, e.ID)
		if !e.Created.Before(w.UndeliveredFrom()) {
			e.PendingWebhooks = 0
			late = append(late, e)
		} else if seen.Before(e.Created.Add(billing.Redelivery)) {
			late = append(late, e)
		}
		return err
	}, `SELECT `+eventColumns+`, seen_at FROM reconciliation_undelivered WHERE seen_key < ? AND created_at <= ? ORDER BY seen_key, event_id LIMIT ? FOR UPDATE`,
		key, w.To, eventPage)
	if err != nil || len(gone) == 0 {
		return false, err
	}
	if err := keepLate(ctx, tx, key, late); err != nil {
		return false, err
	}
	_, err = tx.ExecContext(ctx, deleteUndelivered+in(len(gone)), gone...)
	return len(gone) == eventPage, err
}

// takeOver takes events of catch-ups that were stopped, ran out of time or are gone: who they concern may not have
// been read. It forgets those of catch-ups that ended well.
func takeOver(ctx context.Context, tx *sql.Tx, key int64) (more bool, err error) {
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
			some, err = hit(ctx, tx, `DELETE FROM reconciliation_late WHERE run_key = ? ORDER BY event_id LIMIT ?`, other, prunePage)
		} else {
			some, err = takeLateOf(ctx, tx, other, key)
		}
		if err != nil {
			return false, err
		}
		more = more || some
	}
	return more, nil
}

func takeLateOf(ctx context.Context, tx *sql.Tx, other, key int64) (some bool, err error) {
	var late []billing.Event
	err = query(ctx, tx, func(r *sql.Rows) error {
		e, err := scanEvent(r)
		late = append(late, e)
		return err
	}, `SELECT `+eventColumns+` FROM reconciliation_late WHERE run_key = ? ORDER BY event_id LIMIT ? FOR UPDATE`, other, eventPage)
	if err != nil {
		return false, err
	}
	return len(late) > 0, keepLate(ctx, tx, key, late)
}

// subject is an event with what the catch-up has it under, and the organizations that it leads to.
type subject struct {
	id    string
	event billing.Event
	leads []string
}

func (s *Store) subjects(ctx context.Context, runID, after string, limit int) (page []subject, err error) {
	err = query(ctx, s.db, func(r *sql.Rows) error {
		var one subject
		var err error
		one.event, err = scanEvent(r, &one.id)
		page = append(page, one)
		return err
	}, `SELECT `+eventColumns+`, subject FROM reconciliation_events WHERE run_key = `+keyOfRun+` AND subject > ? ORDER BY subject LIMIT ?`, runID, after, limit)
	return page, err
}

// ListFromEvents lists the organizations whose row records a subscription that events tell of, and those that its
// metadata names, of some of the events behind one. through is where to go on; empty at the end. What leads
// nowhere stays for [Store.ListByEventCustomers].
func (s *Store) ListFromEvents(ctx context.Context, l billing.Lease, after string) (through string, err error) {
	page, err := s.subjects(ctx, l.RunID, after, eventPage)
	if err != nil {
		return "", failure(err, "look whom the events of catch-up "+l.RunID+" name")
	}
	if len(page) == eventPage {
		through = page[len(page)-1].id
	}
	var ids []string
	for _, one := range page {
		if id := one.event.SubscriptionID; id != "" {
			ids = append(ids, id)
		}
	}
	owners, err := recordedBy(ctx, s.db, ids, orPadded)
	if err != nil {
		return "", failure(err, "look whose the subscriptions of events are")
	}
	var names []string
	for _, one := range page {
		names = append(append(names, one.event.OrgID), owners[one.event.SubscriptionID]...)
	}
	found, err := organizationsNamed(ctx, s.db, names)
	if err != nil {
		return "", failure(err, "look up the organizations that events name")
	}
	for i := range page {
		one := &page[i]
		for _, name := range append([]string{one.event.OrgID}, owners[one.event.SubscriptionID]...) {
			if org, ok := found[name]; ok && name != "" && !org.Deleted {
				one.leads = append(one.leads, org.ID)
			}
		}
	}
	page = slices.DeleteFunc(page, func(one subject) bool { return len(one.leads) == 0 })
	return through, s.name(ctx, l, page)
}

// ListByEventCustomers lists the organizations that are known under the customer of a subscription that leads nowhere
// else, of some of the events, and reports whether there may be others. The application has no index for that: each call goes through its tables once, if there are any.
func (s *Store) ListByEventCustomers(ctx context.Context, l billing.Lease) (more bool, err error) {
	page, err := s.subjects(ctx, l.RunID, "", customerPage)
	if err != nil || len(page) == 0 {
		return false, failure(err, "look whom the events of catch-up "+l.RunID+" name")
	}
	var customers []string
	for _, one := range page {
		if id := one.event.CustomerID; id != "" {
			customers = append(customers, id)
		}
	}
	known, err := s.SharedCustomers(ctx, customers)
	if err != nil {
		return false, err
	}
	for i := range page {
		page[i].leads = known[page[i].event.CustomerID]
	}
	return len(page) == customerPage, s.name(ctx, l, page)
}

// name gives the run an item for each organization that the events lead to, keeps which subscriptions name it,
// and is done with these events.
func (s *Store) name(ctx context.Context, l billing.Lease, page []subject) error {
	if len(page) == 0 {
		return nil
	}
	type naming struct {
		org   string
		event billing.Event
	}
	var items []billing.Item
	var namings []naming
	var done []any
	listed := map[string]bool{}
	for _, one := range page {
		done = append(done, one.id)
		for _, org := range slices.Compact(slices.Sorted(slices.Values(one.leads))) {
			namings = append(namings, naming{org, one.event})
			if !listed[org] {
				listed[org] = true
				items = append(items, billing.Item{OrgID: org})
			}
		}
	}
	err := s.underLease(ctx, l, func(tx *sql.Tx) error {
		key, err := runKey(ctx, tx, l.RunID)
		if err != nil {
			return err
		}
		if err := insertItems(ctx, tx, l.RunID, items); err != nil {
			return err
		}
		err = upsert(ctx, tx, insertNamed, latestCause, namings, func(n naming) []any {
			e := n.event
			return []any{key, n.org, e.ID, e.Type, e.PendingWebhooks, e.SubscriptionID, e.Created}
		})
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, deleteEvents+in(len(done)), append([]any{key}, done...)...)
		return err
	})
	return failure(err, "list whom the events of catch-up "+l.RunID+" name")
}

// EventSubscriptions returns the subscriptions that events name for these organizations of catch-ups, in one query a run.
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
		}, `SELECT org_id, subscription_id FROM reconciliation_named WHERE run_key = `+keyOfRun+` AND subscription_id <> '' AND org_id IN `+in(len(ids)),
			append([]any{runID}, ids...)...)
		if err != nil {
			return nil, failure(err, "read which subscriptions events name")
		}
	}
	return named, nil
}

// addCauses gives the items of a catch-up their cause.
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
		if i := byOrg[org]; i != nil && (i.Cause == nil || i.Cause.Later(c)) {
			i.Cause = &c
		}
		return err
	}, `SELECT n.org_id, n.event_id, n.type, n.pending_webhooks, n.created_at FROM reconciliation_runs r JOIN reconciliation_named n ON n.run_key = r.run_key
		WHERE r.id = ? AND r.strategy = ? AND n.org_id IN `+in(len(items)), args...)
}

// LatestCause returns the latest of the events by which catch-ups were led to the organization, as far as they are
// kept; nil if there is none.
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

// LastCatchUpAt returns when the last catch-up, not a dry one, ended well by the given time; before the first one,
// when this system's tables were made fit for it.
func (s *Store) LastCatchUpAt(ctx context.Context, by time.Time) (time.Time, error) {
	var at sql.NullTime
	err := s.db.QueryRowContext(ctx, `SELECT MAX(finished_at) FROM reconciliation_runs
		WHERE strategy = ? AND dry_run = FALSE AND status IN ('completed','completed_with_errors') AND finished_at <= ?`, billing.StrategyEvents, by).Scan(&at)
	if err == nil && !at.Valid {
		err = s.db.QueryRowContext(ctx, `SELECT MAX(tstamp) FROM reconciliation_migrations WHERE version_id = ?`, catchUpMigration).Scan(&at)
	}
	return at.Time, failure(err, "look for the last catch-up")
}

// catchUpMigration is the number of the migration that catch-ups need.
const catchUpMigration = 5

// pruneCatchUp removes what a run has of a catch-up.
func (s *Store) pruneCatchUp(ctx context.Context, runID string, key int64) error {
	for _, rows := range []string{
		`DELETE FROM reconciliation_named WHERE run_key = ? ORDER BY org_id, subscription_id LIMIT ?`,
		`DELETE FROM reconciliation_events WHERE run_key = ? ORDER BY subject LIMIT ?`,
	} {
		for more := true; more; {
			var err error
			if more, err = hit(ctx, s.db, rows, key, prunePage); err != nil {
				return err
			}
		}
	}
	if _, err := s.db.ExecContext(ctx, `DELETE FROM reconciliation_unreadable WHERE run_id = ?`, runID); err != nil {
		return err
	}
	_, err := s.db.ExecContext(ctx, `DELETE FROM reconciliation_windows WHERE run_id = ?`, runID)
	return err
}
