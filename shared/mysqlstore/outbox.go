package mysqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// announcementNamespace derives an announcement's id from what it announces.
var announcementNamespace = uuid.MustParse("0c0d9ac4-3f57-4b0c-8f3e-6d3cf1e0a4b1")

const announceSetting = "announce"

// SetEventBus stores the bus on which the functions of this database announce, for other programs that work on
// it; "" means none.
func (s *Store) SetEventBus(ctx context.Context, bus string) error {
	stmt, args := `DELETE FROM reconciliation_settings WHERE name = ?`, []any{announceSetting}
	if bus != "" {
		stmt, args = `INSERT INTO reconciliation_settings (name, content) VALUES (?, ?) ON DUPLICATE KEY UPDATE content = VALUES(content)`, append(args, bus)
	}
	_, err := s.db.ExecContext(ctx, stmt, args...)
	return failure(err, "store the event bus")
}

// EventBus returns the recorded bus, "" if there is none, and the origin of this store's announcements.
func (s *Store) EventBus(ctx context.Context) (bus string, from billing.Origin, err error) {
	bus, from, err = s.eventBus(ctx, s.db)
	return bus, from, failure(err, "read the event bus")
}

// AnnouncesRepairs reports whether this store's repairs are announced: by its configuration, or because the
// database records a bus.
func (s *Store) AnnouncesRepairs(ctx context.Context) (bool, error) {
	bus, _, err := s.eventBus(ctx, s.db)
	return s.announce || bus != "", failure(err, "read the event bus")
}

// eventBus is read again in each transaction that announces, because the functions may have set it since this
// process started.
func (s *Store) eventBus(ctx context.Context, q querier) (bus string, from billing.Origin, err error) {
	from = billing.Origin{Stage: s.origin.Stage, LiveMode: s.origin.LiveMode}
	err = query(ctx, q, func(r *sql.Rows) error {
		var name, content string
		err := r.Scan(&name, &content)
		if name == announceSetting {
			bus = content
		} else {
			from.Stage = content
		}
		return err
	}, `SELECT name, content FROM reconciliation_settings WHERE name IN (?, 'stage')`, announceSetting)
	return bus, from, err
}

// announceRepair adds the announcement of a repair to the repair's transaction. A revision of an item is
// written once, so each repair has one id.
func (s *Store) announceRepair(ctx context.Context, tx *sql.Tx, before billing.Record, plan billing.Plan, item billing.Item, now time.Time) error {
	bus, from, err := s.eventBus(ctx, tx)
	if err != nil || !s.announce && bus == "" {
		return err
	}
	event := s.tiers.Reconciled(before, plan, item.RunID, now)
	event.Origin = from
	event.ID = announcementID(item.RunID, item.OrgID, item.Revision)
	return putAnnouncement(ctx, tx, event.ID, billing.AnnounceReconciled, event, sql.NullString{}, now, dueAtOnce)
}

// announceEnd adds the announcement of a run's end to the transaction that writes it. It replaces an earlier
// one that still waits.
func (s *Store) announceEnd(ctx context.Context, tx *sql.Tx, end billing.End) error {
	bus, from, err := s.eventBus(ctx, tx)
	if err != nil || !s.announce && bus == "" {
		return err
	}
	runID := end.Summary.RunID
	var revision int
	if err := tx.QueryRowContext(ctx, `SELECT summary_revision FROM reconciliation_runs WHERE id = ?`, runID).Scan(&revision); err != nil {
		return err
	}
	event := billing.RunFinished{
		Version: billing.AnnouncementVersion, ID: announcementID(runID, "", revision), Origin: from,
		Kind: end.Kind, Text: end.Text, Lines: billing.TemplateLines(end.Text), Summary: end.Summary.ForAnnouncement(),
	}
	next := end.NotBefore
	if next.IsZero() {
		next = dueAtOnce
	}
	return putAnnouncement(ctx, tx, event.ID, billing.AnnounceRunFinished, event, sql.NullString{String: runID, Valid: true}, end.At, next)
}

// dueAtOnce is earlier than any time at which a refused announcement is retried.
var dueAtOnce = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func putAnnouncement(ctx context.Context, tx *sql.Tx, id string, kind billing.AnnouncementType, event any, run sql.NullString, now, next time.Time) error {
	detail, err := json.Marshal(event)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO reconciliation_outbox (id, type, run_id, detail, created_at, next_try_at) VALUES (?,?,?,?,?,?)
		ON DUPLICATE KEY UPDATE id = VALUES(id), detail = VALUES(detail), attempts = 0, next_try_at = VALUES(next_try_at), last_error = NULL`,
		id, kind, run, string(detail), now, next)
	return err
}

// announcementID identifies the repair of an organization or, without one, the end of a run.
func announcementID(runID, orgID string, revision int) string {
	return uuid.NewSHA1(announcementNamespace, fmt.Appendf(nil, "%s\x00%s\x00%d", runID, orgID, revision)).String()
}

// DueAnnouncements returns the next announcements to send: new ones in the order in which they were written,
// then refused ones that are due. One whose time is later than a correct clock can have set it is due too.
func (s *Store) DueAnnouncements(ctx context.Context, now time.Time, limit int) ([]billing.Announcement, error) {
	var due []billing.Announcement
	err := query(ctx, s.db, func(r *sql.Rows) error {
		var a billing.Announcement
		err := r.Scan(&a.ID, &a.Type, &a.Detail, &a.Attempts)
		due = append(due, a)
		return err
	}, `SELECT id, type, detail, attempts FROM reconciliation_outbox WHERE next_try_at <= ? OR next_try_at > ? ORDER BY next_try_at, seq LIMIT ?`,
		now, now.Add(billing.MaxAnnouncementBackoff+billing.ClockSkew), limit)
	return due, failure(err, "read the outbox")
}

const deleteAnnouncements = `DELETE FROM reconciliation_outbox WHERE id IN `

// DeleteAnnouncements deletes announcements that the bus accepted.
func (s *Store) DeleteAnnouncements(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := s.db.ExecContext(ctx, deleteAnnouncements+placeholders(len(ids)), toAny(ids)...)
	return failure(err, "delete sent announcements")
}

// PostponeAnnouncement puts an announcement that the bus refused behind the others until the given time.
func (s *Store) PostponeAnnouncement(ctx context.Context, id, reason string, until time.Time) error {
	_, err := s.db.ExecContext(ctx, `UPDATE reconciliation_outbox SET attempts = attempts + 1, last_error = ?, next_try_at = ? WHERE id = ?`, truncateMessage(reason), until, id)
	return failure(err, "postpone an announcement")
}

// OutboxBacklog returns how many announcements wait and when the oldest was written; nil if none wait.
func (s *Store) OutboxBacklog(ctx context.Context) (waiting int, since *time.Time, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT COUNT(*), (SELECT created_at FROM reconciliation_outbox ORDER BY seq LIMIT 1) FROM reconciliation_outbox`).Scan(&waiting, &since)
	return waiting, since, failure(err, "count the announcements in the outbox")
}
