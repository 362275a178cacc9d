package mysqlstore

import (
	"context"
	"database/sql"
	"strings"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

const acceptanceColumns = `a.org_id, a.code, a.why, a.accepted_by, a.accepted_at, a.until_at`

func scanAcceptance(r *sql.Rows) (a billing.Acceptance, err error) {
	err = r.Scan(&a.OrgID, &a.Code, &a.Why, &a.By, &a.At, &a.Until)
	return a, err
}

const (
	insertAccepted  = `INSERT INTO reconciliation_accepted (org_id, code, why, accepted_by, accepted_at, until_at) VALUES `
	replaceAccepted = ` ON DUPLICATE KEY UPDATE why = VALUES(why), accepted_by = VALUES(accepted_by), accepted_at = VALUES(accepted_at), until_at = VALUES(until_at)`
)

// Accept records acceptances. One for the same organization and code replaces the earlier one.
func (s *Store) Accept(ctx context.Context, all []billing.Acceptance) error {
	if len(all) == 0 {
		return nil
	}
	var args []any
	for _, a := range all {
		args = append(args, a.OrgID, a.Code, truncateRunes(billing.MaxWhyLength, a.Why), truncateRunes(billing.MaxWhoLength, a.By), a.At, a.Until)
	}
	err := insertRows(ctx, s.db, insertAccepted, 6, args, replaceAccepted)
	return failure(err, "record acceptances")
}

// truncateRunes returns the first n runes of the text, without invalid UTF-8.
func truncateRunes(n int, text string) string {
	all := []rune(strings.ToValidUTF8(text, ""))
	return string(all[:min(len(all), n)])
}

// Accepted returns all acceptances, expired ones too, by organization and code.
func (s *Store) Accepted(ctx context.Context) ([]billing.Acceptance, error) {
	all, err := s.acceptances(ctx, `TRUE`)
	return all, failure(err, "read acceptances")
}

func (s *Store) acceptances(ctx context.Context, condition string, args ...any) ([]billing.Acceptance, error) {
	var all []billing.Acceptance
	err := query(ctx, s.db, func(r *sql.Rows) error {
		a, err := scanAcceptance(r)
		all = append(all, a)
		return err
	}, `SELECT `+acceptanceColumns+` FROM reconciliation_accepted a WHERE `+condition+` ORDER BY a.org_id, a.code`, args...)
	return all, err
}

// DeleteAccepted deletes the acceptance of the code for the organization, all of its acceptances if code is "",
// and returns how many it deleted.
func (s *Store) DeleteAccepted(ctx context.Context, orgID, code string) (int, error) {
	res, err := s.db.ExecContext(ctx, `DELETE FROM reconciliation_accepted WHERE org_id = ? AND (code = ? OR ? = '')`, orgID, code, code)
	var n int64
	if err == nil {
		n, err = res.RowsAffected()
	}
	return int(n), failure(err, "delete acceptances of organization "+orgID)
}

// IsAccepted reports whether the code was accepted for the organization when the run started.
func (s *Store) IsAccepted(ctx context.Context, run billing.Run, orgID, code string) (bool, error) {
	all, err := s.acceptances(ctx, `a.org_id = ? AND a.code = ?`, orgID, code)
	return len(all) > 0 && all[0].InForce(run.StartedAt), failure(err, "read acceptances of organization "+orgID)
}

// addAcceptances gives each item the acceptances of its codes that were valid when its run started.
func (s *Store) addAcceptances(ctx context.Context, runID string, items []*billing.Item) error {
	byOrg := map[string]*billing.Item{}
	var ids []any
	for _, i := range items {
		if len(i.AcceptableCodes()) > 0 {
			byOrg[i.OrgID] = i
			ids = append(ids, i.OrgID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	all, err := s.acceptances(ctx, `a.org_id IN `+placeholders(len(ids))+` AND (a.until_at IS NULL OR a.until_at > (SELECT r.started_at FROM reconciliation_runs r WHERE r.id = ?))`,
		append(ids, runID)...)
	for _, a := range all {
		if i := byOrg[a.OrgID]; i != nil {
			for _, code := range i.AcceptableCodes() {
				if code == a.Code {
					i.Accepted = append(i.Accepted, a)
				}
			}
		}
	}
	return err
}

// LatestItem returns the item of the organization that was decided last, in any run; false if there is none.
func (s *Store) LatestItem(ctx context.Context, orgID string) (item billing.Item, found bool, err error) {
	err = query(ctx, s.db, func(r *sql.Rows) error {
		found = true
		var runID string
		item, err = scanItem(r, "", &runID)
		item.RunID = runID
		return err
	}, `SELECT `+itemColumns+`, r.id FROM reconciliation_runs r JOIN reconciliation_items i ON i.run_key = r.run_key AND i.org_id = ?
		WHERE i.outcome <> 'pending' ORDER BY i.updated_at DESC LIMIT 1`, orgID)
	return item, found, failure(err, "read the latest item of organization "+orgID)
}
