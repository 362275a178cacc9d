package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/present"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/wire"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
)

const (
	// quiet is how long the work queue must seem empty where not all that was moved has a new
	// outcome: some may have had theirs already. SQS's counts may be so late.
	quiet = time.Minute
	// amendTime is how long a summary may lag behind the outcomes it counts.
	amendTime = 15 * time.Second
)

// redriven is what redrive answers.
type redriven struct {
	Status string            `json:"status"` // empty, running, completed
	Moved  int               `json:"moved"`
	ToMove int               `json:"toMove"`
	Runs   []billing.Summary `json:"runs"` // whose organizations were tried again, with --watch
}

func (c *command) redrive(ctx context.Context) *cobra.Command {
	watches := false
	cmd := &cobra.Command{
		Use:   "redrive",
		Short: "Move the dead-letter queue back to the work queue",
		Long: `Has SQS move every message of the dead-letter queue back to the work queue, so that the
workers try those organizations again. Repair the cause first: what fails again ends there
again. What the guard withheld needs reconcile approve first.

--watch shows how far it is and, where the database can be reached, waits for the outcomes
and prints the amended summary of each run that they belong to.`,
		Example: `  reconcile redrive --watch
  reconcile approve 2026-11-22T03:00:00Z --limit 40 && reconcile redrive --watch`,
		Args:              present.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(*cobra.Command, []string) error { return c.moveBack(ctx, watches) },
	}
	cmd.Flags().BoolVar(&watches, "watch", false, "show its progress, then the summaries that it amends")
	return cmd
}

// mover is a redrive with what it needs.
type mover struct {
	*sqsqueue.Redrive

	deadLetter, work *sqsqueue.Queue
	region           string
}

func (c *command) moveBack(ctx context.Context, watches bool) error {
	needs := []config.Need{config.NeedWorkQueue, config.NeedDeadLetterQueue}
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
		return c.move(ctx, m, watches)
	}
	return onStore(ctx, settings, func(store *mysqlstore.Store) error { return c.moveAndSettle(ctx, m, store) })
}

func newMover(ctx context.Context, urls config.Queues) (m mover, err error) {
	settings, err := awsSettings(ctx)
	if err != nil {
		return m, err
	}
	client := wire.Queues(settings)
	m = mover{deadLetter: sqsqueue.New(client, urls.DeadLetter), work: sqsqueue.New(client, urls.Work), region: settings.Region}
	m.Redrive, err = sqsqueue.NewRedrive(ctx, m.deadLetter, m.work)
	return m, m.explained(ctx, err)
}

func (m mover) explained(ctx context.Context, err error) error {
	return awsError(ctx, err, target{"queue", "WORK_QUEUE_URL and DEAD_LETTER_QUEUE_URL", m.region})
}

// begin starts to move, unless there is nothing to move or a move is under way; it says which.
func (m mover) begin(ctx context.Context, progress *present.Progress) (begun bool, move sqsqueue.Move, err error) {
	last, found, err := m.Last(ctx)
	if err != nil {
		return false, last, m.explained(ctx, err)
	}
	if found && last.Running() {
		progress.Note("a redrive has been under way since %s", last.Started.Format(time.RFC3339))
		return true, last, nil
	}
	depth, err := m.deadLetter.Depth(ctx)
	if err != nil {
		return false, last, m.explained(ctx, err)
	}
	if depth.InFlight > 0 {
		progress.Note("%d messages are being looked at by somebody; they stay in the dead-letter queue", depth.InFlight)
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

// move starts to move and, if asked to, waits until SQS has moved everything.
func (c *command) move(ctx context.Context, m mover, watches bool) error {
	progress := present.NewProgress(c.errs)
	begun, move, err := m.begin(ctx, progress)
	if err != nil {
		return err
	}
	if !begun {
		return c.showRedriven(redriven{Status: "empty", Runs: []billing.Summary{}})
	}
	if watches {
		if move, err = m.untilMoved(ctx, progress, move); err != nil {
			return err
		}
	}
	return c.showRedriven(redriven{Status: strings.ToLower(move.Status), Moved: move.Moved, ToMove: move.ToMove, Runs: []billing.Summary{}})
}

// untilMoved follows SQS to the end of the move.
func (m mover) untilMoved(ctx context.Context, progress *present.Progress, move sqsqueue.Move) (sqsqueue.Move, error) {
	defer progress.Done()
	for move.Running() {
		progress.Count("moving", "messages", move.Moved, move.ToMove)
		err := pause(ctx, lookEvery)
		if err == nil {
			move, _, err = m.Last(ctx)
		}
		if err != nil {
			return move, notMoved(ctx, m.explained(ctx, err))
		}
	}
	if !move.Completed() {
		return move, &present.Error{
			Exit: present.ExitFailed, Code: codeRefused, Err: fmt.Errorf("SQS ended the redrive as %s after %d of %d messages: %s", move.Status, move.Moved, move.ToMove, oneLine(move.Failure)),
			Hint: "what was not moved is still in the dead-letter queue: redrive again",
		}
	}
	return move, nil
}

// notMoved says that SQS goes on although nobody watches it.
func notMoved(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return &present.Error{
		Exit: present.ExitFailed, Code: codeInterrupted, Err: errors.New("interrupted"),
		Hint: "SQS goes on moving, and the workers go on; reconcile redrive --watch and reconcile status show how far it is",
	}
}

// moveAndSettle moves, waits for the outcomes, and shows the runs that they belong to.
func (c *command) moveAndSettle(ctx context.Context, m mover, store *mysqlstore.Store) error {
	progress := present.NewProgress(c.errs)
	unfinished, err := store.UnfinishedRuns(ctx)
	if err != nil {
		return err
	}
	before, err := decisionsOf(ctx, store, unfinished)
	if err != nil {
		return err
	}
	begun, move, err := m.begin(ctx, progress)
	if err != nil {
		return err
	}
	if !begun {
		return c.showRedriven(redriven{Status: "empty", Runs: []billing.Summary{}})
	}
	if move, err = m.untilMoved(ctx, progress, move); err != nil {
		return err
	}
	changed, err := m.untilSettled(ctx, store, progress, before, move.Moved)
	progress.Done()
	if err != nil {
		return notMoved(ctx, m.explained(ctx, err))
	}
	r := redriven{Status: strings.ToLower(move.Status), Moved: move.Moved, ToMove: move.ToMove, Runs: []billing.Summary{}}
	for _, id := range changed {
		summary, err := amendedSummary(ctx, store, id, amendTime)
		if err != nil {
			return notMoved(ctx, err)
		}
		r.Runs = append(r.Runs, summary)
	}
	if err := c.showRedriven(r); err != nil {
		return err
	}
	return endedAll(r.Runs)
}

// decisions are the runs that a redrive may change, the latest first, and when each last decided
// anything.
type decisions struct {
	runs []string
	last map[string]time.Time
}

func decisionsOf(ctx context.Context, store *mysqlstore.Store, runs []string) (d decisions, err error) {
	d.runs = runs
	d.last, err = store.LastDecisions(ctx, runs)
	return d, err
}

// decidedSince counts what the runs decided after before was taken.
func decidedSince(ctx context.Context, store *mysqlstore.Store, before decisions) (int, error) {
	total := 0
	for _, id := range before.runs {
		n, err := store.DecidedSince(ctx, id, before.last[id])
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// since returns the runs that decided something after before was taken.
func (d decisions) since(before decisions) []string {
	var changed []string
	for _, id := range d.runs {
		if d.last[id].After(before.last[id]) {
			changed = append(changed, id)
		}
	}
	return changed
}

// untilSettled waits until everything that was moved has an outcome, or the work queue was empty for
// so long that the rest has none to come: SQS may count a minute late. It returns the runs in which
// something was decided.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-monitoring-using-cloudwatch.html
func (m mover) untilSettled(ctx context.Context, store *mysqlstore.Store, progress *present.Progress, before decisions, moved int) ([]string, error) {
	for since := time.Now(); ; {
		depth, err := m.work.Depth(ctx)
		if err != nil {
			return nil, err
		}
		progress.Count("reconciling", "messages", max(0, moved-depth.All()), moved)
		if depth.All() > 0 {
			since = time.Now()
		}
		decided, err := decidedSince(ctx, store, before)
		if err != nil {
			return nil, err
		}
		if decided >= moved || time.Since(since) > quiet {
			now, err := decisionsOf(ctx, store, before.runs)
			return now.since(before), err
		}
		if err := pause(ctx, lookEvery); err != nil {
			return nil, err
		}
	}
}

// amendedSummary waits for the aggregator to have counted what was decided. Should it not come to
// that, the run is counted here.
func amendedSummary(ctx context.Context, store *mysqlstore.Store, runID string, patience time.Duration) (billing.Summary, error) {
	for began := time.Now(); time.Since(began) < patience; {
		written, found, err := store.StoredSummary(ctx, runID)
		if err != nil {
			return written, err
		}
		tallies, err := store.Tallies(ctx, runID)
		if err != nil {
			return written, err
		}
		counted := billing.Summarize(billing.Run{}, tallies, nil, nil)
		if found && written.Errors == counted.Errors && written.Synchronized == counted.Synchronized && written.Pending == counted.Pending {
			return written, nil
		}
		if err := pause(ctx, lookEvery); err != nil {
			return written, err
		}
	}
	return (&pipeline.Aggregator{Store: store}).Summary(ctx, runID)
}

// endedAll is an error if one of the runs did not end completed.
func endedAll(runs []billing.Summary) error {
	for _, s := range runs {
		if err := present.Ended(s.Status); err != nil {
			return err
		}
	}
	return nil
}

func (c *command) showRedriven(r redriven) error {
	if c.json {
		return json.NewEncoder(c.out).Encode(r)
	}
	for _, s := range r.Runs {
		if err := present.Summary(c.out, s, true); err != nil {
			return err
		}
	}
	switch r.Status {
	case "empty":
		return say(c.out, "the dead-letter queue is empty: nothing to redrive (SQS counts up to a minute late)")
	case "completed":
		return say(c.out, "messages moved back to the work queue: %d", r.Moved)
	default:
		return say(c.out, "messages moved back to the work queue so far: %d of about %d; --watch shows how far it is", r.Moved, r.ToMove)
	}
}
