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

// announcementNamespace makes the id of an announcement follow from what it tells.
var announcementNamespace = uuid.MustParse("0c0d9ac4-3f57-4b0c-8f3e-6d3cf1e0a4b1")

const announceSetting = "announce"

// SetEventBus records on which bus the functions of this database announce, for who works on it without being
// one of them; "" is on none.
func (s *Store) SetEventBus(ctx context.Context, bus string) error {
	stmt, args := `DELETE FROM reconciliation_settings WHERE name = ?`, []any{announceSetting}
	if bus != "" {
		stmt, args = `INSERT INTO reconciliation_settings (name, content) VALUES (?, ?) ON DUPLICATE KEY UPDATE content = VALUES(content)`, append(args, bus)
	}
	_, err := s.db.ExecContext(ctx, stmt, args...)
	return failure(err, "keep on which bus repairs are announced")
}

// EventBus returns the bus that the functions of this database announce on, "" if they have told none, and
// where what this store announces comes from.
func (s *Store) EventBus(ctx context.Context) (bus string, from billing.Origin, err error) {
	bus, from, err = s.announcing(ctx, s.db)
	return bus, from, failure(err, "look on which bus repairs are announced")
}

// AnnouncesRepairs reports whether what is done through this store is announced: its own configuration says so, or
// the database's functions do.
func (s *Store) AnnouncesRepairs(ctx context.Context) (bool, error) {
	bus, _, err := s.announcing(ctx, s.db)
	return s.announce || bus != "", failure(err, "look whether repairs are announced")
}

// announcing is asked anew in each transaction that has something to tell: these are few, and the functions may
// have begun to announce since this process started.
func (s *Store) announcing(ctx context.Context, q querier) (bus string, from billing.Origin, err error) {
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

// tellRepair puts what is told of a repair into its transaction. An item is written once at each revision, and
// so repaired once.
func (s *Store) tellRepair(ctx context.Context, tx *sql.Tx, before billing.Record, plan billing.Plan, item billing.Item, now time.Time) error {
	bus, from, err := s.announcing(ctx, tx)
	if err != nil || !s.announce && bus == "" {
		return err
	}
	told := s.tiers.Reconciled(before, plan, item.RunID, now)
	told.Origin = from
	told.ID = announcementID(item.RunID, item.OrgID, item.Revision)
	return putAnnouncement(ctx, tx, told.ID, billing.AnnounceReconciled, told, sql.NullString{}, now, sentAtOnce)
}

// tellEnd puts what is told of a run's end into the transaction that writes it, in the place of what waits there
// of an end before.
func (s *Store) tellEnd(ctx context.Context, tx *sql.Tx, end billing.End) error {
	bus, from, err := s.announcing(ctx, tx)
	if err != nil || !s.announce && bus == "" {
		return err
	}
	runID := end.Summary.RunID
	var revision int
	if err := tx.QueryRowContext(ctx, `SELECT summary_revision FROM reconciliation_runs WHERE id = ?`, runID).Scan(&revision); err != nil {
		return err
	}
	told := billing.RunFinished{
		Version: billing.AnnouncementVersion, ID: announcementID(runID, "", revision), Origin: from,
		Kind: end.Kind, Text: end.Text, Lines: billing.TemplateLines(end.Text), Summary: end.Summary.ForAnnouncement(),
	}
	next := end.NotBefore
	if next.IsZero() {
		next = sentAtOnce
	}
	return putAnnouncement(ctx, tx, told.ID, billing.AnnounceRunFinished, told, sql.NullString{String: runID, Valid: true}, end.At, next)
}

// sentAtOnce is before every time that something refused waits for.
var sentAtOnce = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func putAnnouncement(ctx context.Context, tx *sql.Tx, id string, kind billing.AnnouncementType, told any, run sql.NullString, now, next time.Time) error {
	detail, err := json.Marshal(told)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO reconciliation_outbox (id, type, run_id, detail, created_at, next_try_at) VALUES (?,?,?,?,?,?)
		ON DUPLICATE KEY UPDATE id = VALUES(id), detail = VALUES(detail), attempts = 0, next_try_at = VALUES(next_try_at), last_error = NULL`,
		id, kind, run, string(detail), now, next)
	return err
}

// announcementID is that of the repair of an organization, or with no organization of the end of a run.
func announcementID(runID, orgID string, revision int) string {
	return uuid.NewSHA1(announcementNamespace, fmt.Appendf(nil, "%s\x00%s\x00%d", runID, orgID, revision)).String()
}

// DueAnnouncements returns the next ones to send: in the order in which they were written, behind them those
// that were refused, once their time has come. A time that no right clock can have set has come.
func (s *Store) DueAnnouncements(ctx context.Context, now time.Time, limit int) ([]billing.Announcement, error) {
	var due []billing.Announcement
	err := query(ctx, s.db, func(r *sql.Rows) error {
		var a billing.Announcement
		err := r.Scan(&a.ID, &a.Type, &a.Detail, &a.Attempts)
		due = append(due, a)
		return err
	}, `SELECT id, type, detail, attempts FROM reconciliation_outbox WHERE next_try_at <= ? OR next_try_at > ? ORDER BY next_try_at, seq LIMIT ?`,
		now, now.Add(billing.AnnouncementWait+billing.ClockSkew), limit)
	return due, failure(err, "read what is to be announced")
}

const deleteAnnouncements = `DELETE FROM reconciliation_outbox WHERE id IN `

// RemoveAnnouncements removes those that the bus took.
func (s *Store) RemoveAnnouncements(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := s.db.ExecContext(ctx, deleteAnnouncements+in(len(ids)), anys(ids)...)
	return failure(err, "remove what was announced")
}

// PostponeAnnouncement keeps one that the bus refused, behind the others until the given time.
func (s *Store) PostponeAnnouncement(ctx context.Context, id, reason string, until time.Time) error {
	_, err := s.db.ExecContext(ctx, `UPDATE reconciliation_outbox SET attempts = attempts + 1, last_error = ?, next_try_at = ? WHERE id = ?`, text(reason), until, id)
	return failure(err, "keep what could not be announced")
}

// OutboxBacklog returns how many announcements wait and since when the first does; nil if none does.
func (s *Store) OutboxBacklog(ctx context.Context) (waiting int, since *time.Time, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT COUNT(*), (SELECT created_at FROM reconciliation_outbox ORDER BY seq LIMIT 1) FROM reconciliation_outbox`).Scan(&waiting, &since)
	return waiting, since, failure(err, "count what is to be announced")
}
