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

// ran is a run as its row has it.
type ran struct {
	id, org    string
	status     billing.RunStatus
	dryRun     bool
	swept      bool // its sweep came to its end
	catchUp    bool
	approved   bool
	downgrades int
	limit      int
	summary    *billing.Summary
}

// letter is a message in the dead-letter queue.
type letter struct {
	work billing.Work
	// reason: a worker gave it up. Without one SQS moved it there, after its last receive.
	reason string
	body   string
}

// seen is what a round has come to.
type seen struct {
	people   population
	runs     map[string]ran
	items    map[billing.Work]billing.Item
	letters  []letter
	journal  []write
	before   tables
	now      tables
	versions map[string][]stripetest.Subscription
	junk     map[string]bool

	resultsJunk map[string]bool
	unreported  []string // bodies in the dead-letter queue of results
	downgrades  config.DowngradeLimit
	budget      budget
	told        told
	mixed       bool // programs took part that announce nothing
}

// budget is what catch-ups together have lowered, and may.
type budget struct{ used, most int }

func (r *round) look(ctx context.Context) (seen, error) {
	s := seen{people: r.people, runs: map[string]ran{}, items: map[billing.Work]billing.Item{}, before: r.before, versions: r.app.versions, junk: r.junk, resultsJunk: r.resultsJunk, told: r.told(), mixed: r.mixed}
	if err := s.downgrades.UnmarshalText([]byte(r.Downgrades)); err != nil {
		return s, err
	}
	err := each(ctx, r.db, func(rows *sql.Rows) error {
		var run ran
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
		var changes sql.NullString
		if err := rows.Scan(&i.RunID, &i.OrgID, &i.Outcome, &i.Reason, &changes, &i.Revision, &i.Error); err != nil {
			return err
		}
		var err error
		if changes.Valid {
			err = json.Unmarshal([]byte(changes.String), &i.Changes)
		}
		s.items[billing.Work{RunID: i.RunID, OrgID: i.OrgID}] = i
		return err
	}, `SELECT r.id, i.org_id, i.outcome, i.reason, i.changes, i.revision, COALESCE(i.error, '')
		FROM reconciliation_items i JOIN reconciliation_runs r ON r.run_key = i.run_key`)
	if err != nil {
		return s, err
	}
	err = each(ctx, r.db, func(rows *sql.Rows) error { return rows.Scan(&s.budget.used, &s.budget.most) },
		`SELECT used, most FROM reconciliation_budgets WHERE opened_at IS NOT NULL`)
	if err != nil {
		return s, err
	}
	messages, err := r.peek(ctx, r.urls.deadLetter)
	if err != nil {
		return s, err
	}
	unreported, err := r.peek(ctx, r.urls.unreported)
	if err != nil {
		return s, err
	}
	for _, m := range unreported {
		s.unreported = append(s.unreported, bodyOf(m))
	}
	for _, m := range messages {
		l := letter{body: bodyOf(m)}
		if reason, ok := m.MessageAttributes["reason"]; ok {
			l.reason = *reason.StringValue
		}
		_ = json.Unmarshal([]byte(l.body), &struct {
			RunID *string `json:"runId"`
			OrgID *string `json:"orgId"`
		}{&l.work.RunID, &l.work.OrgID}) // junk is no JSON
		s.letters = append(s.letters, l)
	}
	var writesErr, tablesErr error
	s.journal, writesErr = readJournal(ctx, r.db)
	s.now, tablesErr = readTables(ctx, r.db)
	return s, errors.Join(writesErr, tablesErr)
}

// dead are the organizations, by run, that the dead-letter queue names.
func (s seen) dead() map[billing.Work]bool {
	all := map[billing.Work]bool{}
	for _, l := range s.letters {
		all[l.work] = true
	}
	return all
}

// tally counts the items of a run by outcome.
func (s seen) tally(run string) map[billing.Outcome]int {
	n := map[billing.Outcome]int{}
	for w, i := range s.items {
		if w.RunID == run {
			n[i.Outcome]++
		}
	}
	return n
}
