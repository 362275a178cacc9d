package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/wiring"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

const (
	// quiet is how long the work queue must be empty before outcomes that are missing are no longer expected. SQS's
	// counts may be that late, and organizations that already had an outcome get no new one.
	quiet = time.Minute
	// amendTime is how long to wait for the aggregator to amend a summary.
	amendTime = 15 * time.Second
)

// Statuses of a redrive, beside SQS's own.
const (
	redriveEmpty     = "empty"
	redriveCompleted = "completed"
)

// redriven is the result of redrive.
type redriven struct {
	Status string            `json:"status"`
	Moved  int               `json:"moved"`
	ToMove int               `json:"toMove"`
	Runs   []billing.Summary `json:"runs"` // with --watch: the runs of the organizations that were tried again
}

func (c *command) redrive(ctx context.Context) *cobra.Command {
	watches := false
	cmd := &cobra.Command{
		Use:   "redrive",
		Short: "Move the dead-letter queue back to the work queue",
		Long: `Moves every message of the dead-letter queue back to the work queue, so that the workers try
those organizations again. Fix the cause first: a message that fails again returns to the
dead-letter queue. Withheld changes need reconcile approve first.

--watch shows the progress. If the database can be reached, it also waits for the outcomes and
prints the amended summary of each run.`,
		Example: `  reconcile redrive --watch
  reconcile approve 2026-11-22T03:00:00Z --limit 40 && reconcile redrive --watch`,
		Args:              cli.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			if err := cli.CheckView(c.view); err != nil {
				return err
			}
			return c.moveBack(ctx, watches)
		},
	}
	cli.BindView(cmd, &c.view)
	cmd.Flags().BoolVar(&watches, "watch", false, "show progress, then the amended summaries")
	return cmd
}

// mover is a redrive with what it needs.
type mover struct {
	*sqsqueue.Redrive

	deadLetter, work *sqsqueue.Queue
	region           string
}

func (c *command) moveBack(ctx context.Context, watches bool) error {
	needs := slices.Clone(needsToRedrive)
	if watches && c.hasDatabase() {
		needs = append(needs, config.NeedDatabase)
	}
	settings, err := config.Load(c.environ, needs...)
	if err != nil {
		return err
	}
	m, err := newMover(ctx, settings.Queues)
	if err != nil {
		return err
	}
	if !watches || !c.hasDatabase() {
		return c.move(ctx, m, watches, nil)
	}
	return onStore(ctx, settings, func(store *mysqlstore.Store) error { return c.move(ctx, m, watches, store) })
}

func newMover(ctx context.Context, urls config.Queues) (m mover, err error) {
	settings, err := awsSettings(ctx)
	if err != nil {
		return m, err
	}
	client := wiring.Queues(settings)
	m = mover{deadLetter: sqsqueue.New(client, urls.DeadLetter), work: sqsqueue.New(client, urls.Work), region: settings.Region}
	m.Redrive, err = sqsqueue.NewRedrive(ctx, m.deadLetter, m.work)
	return m, m.explained(ctx, err)
}

func (m mover) explained(ctx context.Context, err error) error {
	return awsError(ctx, err, target{"queue", "WORK_QUEUE_URL and DEAD_LETTER_QUEUE_URL", m.region})
}

// begin starts a move unless the queue is empty or a move is running.
func (m mover) begin(ctx context.Context, progress *output.Progress) (begun bool, move sqsqueue.MoveTask, err error) {
	last, found, err := m.Last(ctx)
	if err != nil {
		return false, last, m.explained(ctx, err)
	}
	if found && last.Running() {
		progress.Note("a redrive is running since %s", last.Started.Format(time.RFC3339))
		return true, last, nil
	}
	depth, err := m.deadLetter.Depth(ctx)
	if err != nil {
		return false, last, m.explained(ctx, err)
	}
	if depth.InFlight > 0 {
		progress.Note("somebody is looking at %s, which stay in the dead-letter queue", billing.Count(depth.InFlight, "message"))
	}
	if depth.Visible == 0 {
		return false, last, nil
	}
	if err := m.Start(ctx); err != nil {
		return false, last, m.explained(ctx, err)
	}
	last, _, err = m.Last(ctx)
	return true, last, m.explained(ctx, err)
}

// move redrives. If it watches, it waits until SQS has moved everything and, with a database, for the outcomes.
func (c *command) move(ctx context.Context, m mover, watches bool, store *mysqlstore.Store) error {
	progress := output.NewProgress(c.errs)
	before, err := lookAtUnfinished(ctx, store)
	if err != nil {
		return err
	}
	r := redriven{Status: redriveEmpty, Runs: []billing.Summary{}}
	begun, move, err := m.begin(ctx, progress)
	if err == nil && begun && watches {
		move, err = m.untilMoved(ctx, progress, move)
	}
	if err != nil {
		return err
	}
	if begun {
		r.Status, r.Moved, r.ToMove = strings.ToLower(move.Status), move.Moved, move.ToMove
	}
	if err := c.showMoved(r); err != nil {
		return err
	}
	if begun && store != nil {
		if r.Runs, err = m.outcomes(ctx, store, progress, before, move.Moved); err != nil {
			return notMoved(ctx, err)
		}
	}
	if err := c.showRedriven(ctx, store, r, before); err != nil {
		return err
	}
	if store != nil && !begun && !c.json {
		if err := c.noteErrorsWithoutMessage(ctx, m, store, before); err != nil {
			return err
		}
	}
	return endedAll(r.Runs)
}

// untilMoved follows SQS to the end of the move.
func (m mover) untilMoved(ctx context.Context, progress *output.Progress, move sqsqueue.MoveTask) (sqsqueue.MoveTask, error) {
	defer progress.Done()
	err := cli.Poll(ctx, lookEvery, func() (ended bool, err error) {
		if move, _, err = m.Last(ctx); move.Running() {
			progress.Count("moving", "messages", move.Moved, move.ToMove)
		}
		return !move.Running(), err
	})
	if err != nil {
		return move, notMoved(ctx, m.explained(ctx, err))
	}
	if !move.Completed() {
		return move, &cli.Error{
			Exit: cli.ExitFailed, Code: codeRefused, Err: fmt.Errorf("SQS ended the redrive as %s after %d of %d messages: %s", move.Status, move.Moved, move.ToMove, telemetry.OneLine(move.Failure)),
			Hint: "the rest is still in the dead-letter queue: redrive again",
		}
	}
	return move, nil
}

// notMoved is the error of a watch that was interrupted: SQS continues.
func notMoved(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return &cli.Error{
		Exit: cli.ExitFailed, Code: codeInterrupted, Err: errors.New("interrupted"),
		Hint: "SQS and the workers continue; to follow them:\n    reconcile redrive --watch\n    reconcile status",
	}
}

// unfinished are the runs that a redrive may change, the latest first, as they were before it.
type unfinished struct {
	ids       []string
	runs      map[string]billing.Run
	decisions map[string]int
}

func lookAtUnfinished(ctx context.Context, store *mysqlstore.Store) (u unfinished, err error) {
	if store == nil {
		return u, nil
	}
	if u.ids, err = store.UnfinishedRuns(ctx); err != nil {
		return u, err
	}
	if u.runs, err = store.Runs(ctx, u.ids); err != nil {
		return u, err
	}
	u.decisions, err = store.CountDecisions(ctx, u.ids)
	return u, err
}

// changed returns the runs with new decisions, and how many there are.
func (u unfinished) changed(ctx context.Context, store *mysqlstore.Store) (runs []billing.Run, decided int, err error) {
	now, err := store.CountDecisions(ctx, u.ids)
	for _, id := range u.ids {
		if n := now[id] - u.decisions[id]; n > 0 {
			runs, decided = append(runs, u.runs[id]), decided+n
		}
	}
	return runs, decided, err
}

// outcomes waits for the outcomes of the moved messages, and returns the summary of each run that has one.
func (m mover) outcomes(ctx context.Context, store *mysqlstore.Store, progress *output.Progress, before unfinished, moved int) ([]billing.Summary, error) {
	changed, err := m.untilSettled(ctx, store, progress, before, moved)
	progress.Done()
	if err != nil {
		return nil, err
	}
	summaries := make([]billing.Summary, len(changed))
	for i, run := range changed {
		if summaries[i], err = amendedSummary(ctx, store, run, amendTime); err != nil {
			return nil, err
		}
	}
	return summaries, nil
}

// untilSettled waits until every moved message has an outcome, or the work queue has been empty for [quiet]. It
// returns the runs with new decisions.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-monitoring-using-cloudwatch.html
func (m mover) untilSettled(ctx context.Context, store *mysqlstore.Store, progress *output.Progress, before unfinished, moved int) (changed []billing.Run, err error) {
	busy := time.Now()
	err = cli.Poll(ctx, lookEvery, func() (settled bool, err error) {
		depth, err := m.work.Depth(ctx)
		if err != nil {
			return false, m.explained(ctx, err)
		}
		progress.Count("reconciling", "messages", max(0, moved-depth.All()), moved)
		if depth.All() > 0 {
			busy = time.Now()
		}
		var decided int
		changed, decided, err = before.changed(ctx, store)
		return decided >= moved || time.Since(busy) > quiet, err
	})
	return changed, err
}

// amendedSummary waits until the aggregator has amended the run's summary with every decision. If it does not within
// the patience, the run is counted here.
func amendedSummary(ctx context.Context, store *mysqlstore.Store, before billing.Run, patience time.Duration) (summary billing.Summary, err error) {
	began, amended := time.Now(), false
	err = cli.Poll(ctx, lookEvery, func() (done bool, err error) {
		summary, amended, err = summaryAfter(ctx, store, before)
		return amended || time.Since(began) > patience, err
	})
	if err != nil || amended {
		return summary, err
	}
	return (&pipeline.Aggregator{Store: store}).Summary(ctx, before.ID)
}

func summaryAfter(ctx context.Context, store *mysqlstore.Store, before billing.Run) (written billing.Summary, amended bool, err error) {
	run, err := findRun(ctx, store, before.ID)
	if err != nil || run.SummaryRevision == before.SummaryRevision {
		return written, false, err
	}
	written, found, err := store.StoredSummary(ctx, run.ID)
	if err != nil || !found {
		return written, false, err
	}
	tallies, err := store.Tallies(ctx, run.ID)
	counted := billing.Summarize(billing.Run{}, tallies, billing.Drift{}, nil)
	return written, written.Errors == counted.Errors && written.Synchronized == counted.Synchronized && written.Pending == counted.Pending, err
}

// endedAll returns an error if one of the runs did not end completed.
func endedAll(runs []billing.Summary) error {
	for _, s := range runs {
		if err := cli.Ended(s.Status); err != nil {
			return err
		}
	}
	return nil
}

func (c *command) showRedriven(ctx context.Context, store *mysqlstore.Store, r redriven, before unfinished) error {
	if c.json {
		return json.NewEncoder(c.out).Encode(r)
	}
	for _, s := range r.Runs {
		if err := say(c.out, "\n"); err != nil {
			return err
		}
		if err := c.showSummary(ctx, store, s, before.runs[s.RunID].Window); err != nil {
			return err
		}
	}
	if store != nil && r.Status != redriveEmpty && len(r.Runs) == 0 {
		return say(c.out, "no organization has a new outcome")
	}
	return nil
}

// latestInError is how many runs with errors are named if the queue is empty.
const latestInError = 3

// noteErrorsWithoutMessage says what helps the organizations in error whose messages neither queue has.
func (c *command) noteErrorsWithoutMessage(ctx context.Context, m mover, store *mysqlstore.Store, left unfinished) error {
	depth, err := m.work.Depth(ctx)
	if err != nil {
		return m.explained(ctx, err)
	}
	if depth.All() > 0 { // the workers have not tried them all again
		return nil
	}
	var inError []string
	for _, id := range left.ids {
		if len(inError) == latestInError {
			break
		}
		if left.runs[id].Status.Open() {
			continue // its workers may not be done
		}
		summary, err := (&pipeline.Aggregator{Store: store}).Summary(ctx, id)
		if err != nil {
			return err
		}
		if n := summary.Errors - summary.AcceptedErrors; n > 0 {
			inError = append(inError, fmt.Sprintf("run %s has %s", id, billing.Count(n, "error")))
		}
	}
	if len(inError) == 0 {
		return nil
	}
	return say(c.out, "%s\nand no message of theirs is in the queue: local made the run, or somebody is looking at the messages or has deleted them; "+
		"to try these organizations again, start a new run, or after local run it again:\n  reconcile start --watch\n  local", strings.Join(inError, "\n"))
}

// showMoved says what SQS has moved. With --json, everything is one object at the end.
func (c *command) showMoved(r redriven) error {
	if c.json {
		return nil
	}
	switch r.Status {
	case redriveEmpty:
		return say(c.out, "the dead-letter queue is empty: nothing to redrive (SQS counts up to a minute late)")
	case redriveCompleted:
		return say(c.out, "%s moved back to the work queue", billing.Count(r.Moved, "message"))
	default:
		return say(c.out, "%d of about %s moved back to the work queue; --watch shows the rest", r.Moved, billing.Count(r.ToMove, "message"))
	}
}
