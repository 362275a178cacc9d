package chaos_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// runRow is a run's row.
type runRow struct {
	id, org    string
	status     billing.RunStatus
	dryRun     bool
	swept      bool // its sweep completed
	catchUp    bool
	approved   bool
	downgrades int
	limit      int
	summary    *billing.Summary
}

// deadLetter is a message in the dead-letter queue.
type deadLetter struct {
	work billing.Work
	// reason is set by the worker that sent the dead letter. It is empty if SQS moved the message after its last receive.
	reason string
	body   string
}

// result is the state of a round after a phase.
type result struct {
	population  population
	runs        map[string]runRow
	items       map[billing.Work]billing.Item
	deadLetters []deadLetter
	journal     []write
	before      tables
	now         tables
	versions    map[string][]stripetest.Subscription
	junk        map[string]bool

	resultsJunk        map[string]bool
	resultsDeadLetters []string // bodies in the dead-letter queue of the results queue
	downgrades         config.DowngradeLimit
	budget             budget
	announced          announced
	mixed              bool // programs of a version without announcements and the catch-ups' limit took part
}

// budget has the number of downgrades that all catch-ups made, and their limit.
type budget struct{ used, limit int }

func (r *round) readResult(ctx context.Context) (result, error) {
	s := result{population: r.population, runs: map[string]runRow{}, items: map[billing.Work]billing.Item{}, before: r.before, versions: r.app.versions, junk: r.junk, resultsJunk: r.resultsJunk, announced: r.announced(), mixed: r.withOldVersion}
	if err := s.downgrades.UnmarshalText([]byte(r.Downgrades)); err != nil {
		return s, err
	}
	err := each(ctx, r.db, func(rows *sql.Rows) error {
		var run runRow
		var summary sql.NullString
		err := rows.Scan(&run.id, &run.org, &run.status, &run.dryRun, &run.downgrades, &run.limit, &summary, &run.swept, &run.catchUp, &run.approved)
		if err != nil {
			return err
		}
		run.summary, err = summaryOf(summary)
		s.runs[run.id] = run
		return err
	}, `SELECT id, org_id, status, dry_run, downgrades, downgrade_limit, summary, COALESCE(state, '') = 'complete', strategy = 'events',
		EXISTS (SELECT 1 FROM reconciliation_orders o WHERE o.run_id = id AND o.approved_limit IS NOT NULL)
		FROM reconciliation_runs LEFT JOIN reconciliation_sweeps s ON s.run_id = id`)
	if err != nil {
		return s, err
	}
	err = each(ctx, r.db, func(rows *sql.Rows) error {
		var i billing.Item
		var changes, warnings string
		if err := rows.Scan(&i.RunID, &i.OrgID, &i.Outcome, &i.Reason, &changes, &warnings, &i.Revision, &i.Error); err != nil {
			return err
		}
		err := errors.Join(json.Unmarshal([]byte(changes), &i.Changes), json.Unmarshal([]byte(warnings), &i.Warnings))
		s.items[billing.Work{RunID: i.RunID, OrgID: i.OrgID}] = i
		return err
	}, `SELECT r.id, i.org_id, i.outcome, i.reason, COALESCE(i.changes, '[]'), COALESCE(i.warnings, '[]'), i.revision, COALESCE(i.error, '')
		FROM reconciliation_items i JOIN reconciliation_runs r ON r.run_key = i.run_key`)
	if err != nil {
		return s, err
	}
	err = each(ctx, r.db, func(rows *sql.Rows) error { return rows.Scan(&s.budget.used, &s.budget.limit) },
		`SELECT used, most FROM reconciliation_budgets WHERE opened_at IS NOT NULL`)
	if err != nil {
		return s, err
	}
	messages, err := r.peek(ctx, r.urls.deadLetter)
	if err != nil {
		return s, err
	}
	resultsDeadLetters, err := r.peek(ctx, r.urls.resultsDeadLetter)
	if err != nil {
		return s, err
	}
	for _, m := range resultsDeadLetters {
		s.resultsDeadLetters = append(s.resultsDeadLetters, bodyOf(m))
	}
	for _, m := range messages {
		l := deadLetter{body: bodyOf(m)}
		if reason, ok := m.MessageAttributes["reason"]; ok {
			l.reason = *reason.StringValue
		}
		_ = json.Unmarshal([]byte(l.body), &struct {
			RunID *string `json:"runId"`
			OrgID *string `json:"orgId"`
		}{&l.work.RunID, &l.work.OrgID}) // junk is not JSON
		s.deadLetters = append(s.deadLetters, l)
	}
	var writesErr, tablesErr error
	s.journal, writesErr = readJournal(ctx, r.db)
	s.now, tablesErr = readTables(ctx, r.db)
	return s, errors.Join(writesErr, tablesErr)
}

// dead returns the work that the dead-letter queue names.
func (s result) dead() map[billing.Work]bool {
	all := map[billing.Work]bool{}
	for _, l := range s.deadLetters {
		all[l.work] = true
	}
	return all
}

// tally counts the items of a run by outcome.
func (s result) tally(run string) map[billing.Outcome]int {
	n := map[billing.Outcome]int{}
	for w, i := range s.items {
		if w.RunID == run {
			n[i.Outcome]++
		}
	}
	return n
}
