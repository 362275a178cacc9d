package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// enumeratorTime is a little more than a Lambda function may run.
const enumeratorTime = 16 * time.Minute

// event is the enumerator's input.
type event struct {
	OrgID    string    `json:"orgId,omitempty"`
	DryRun   bool      `json:"dryRun,omitempty"`
	Strategy string    `json:"strategy,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	Resume   string    `json:"resume,omitempty"`
	// AllowDowngrade lowers the organization's access even if another run withholds that change.
	AllowDowngrade bool   `json:"allowDowngrade,omitempty"`
	By             string `json:"by"` // the caller
}

// isFull reports whether it opens a run over all organizations.
func (e event) isFull() bool {
	return e.OrgID == "" && e.Resume == "" && e.Strategy != string(billing.StrategyEvents)
}

// patience is the part of a message that announces a long wait.
func (e event) patience() string {
	if e.OrgID != "" {
		return ""
	}
	return "; this takes minutes if there are many organizations"
}

func (c *command) start(ctx context.Context) *cobra.Command {
	var e event
	var reading cli.StrategyFlags
	watches := false
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Start a run over all organizations, or resume one",
		Long: `Invokes the enumerator in AWS, which opens a run, lists the organizations and enqueues
them. It answers when everything is enqueued or its time is over; then its next invocation
enqueues the rest. The run continues in AWS when this command ends.

--strategy events starts a catch-up: it reads only the organizations that Stripe's events
name, from the end of the last catch-up or from --since. Catch-ups are scheduled; start one
by hand after webhooks failed.

--resume continues a run with the settings that it was started with: it reopens a run that
was stopped or ended incomplete, and sends what is pending again.`,
		Example: `  reconcile start --dry-run --watch     what would change?
  reconcile start --watch               change it
  reconcile start --strategy events --since 3d --watch
  reconcile start --resume 2026-11-22T03:00:00Z`,
		Args:              cli.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			if err := reading.Check("", e.Resume); err != nil {
				return err
			}
			e.Strategy, e.Since = reading.Strategy, reading.Since.At
			if err := cli.CheckView(c.view); err != nil {
				return err
			}
			return c.enqueue(ctx, e, watches)
		},
	}
	cli.BindView(cmd, &c.view)
	reading.Bind(cmd)
	f := cmd.Flags()
	f.BoolVar(&e.DryRun, "dry-run", false, "plan and record only; write nothing to the application's tables")
	f.StringVar(&e.Resume, "resume", "", "resume the run with this `ID`: send what is pending again")
	f.BoolVar(&watches, "watch", false, "show progress until the run ends, then its summary")
	return cmd
}

// enqueue invokes the enumerator with the event and shows its response, or follows the run.
func (c *command) enqueue(ctx context.Context, e event, watches bool) error {
	needs := slices.Clone(needsToStart)
	if watches {
		needs = append(needs, config.NeedDatabase)
	}
	settings, err := config.Load(c.environ, needs...)
	if err != nil {
		return err
	}
	if !watches {
		if e.isFull() && c.hasDatabase() { // a database that does not answer does not keep the run from starting
			looking, cancel := context.WithTimeout(ctx, cli.WarningTime)
			_ = c.withDatabase(looking, func(store *mysqlstore.Store, _ config.Config) error {
				cli.WarnOfOpenRun(looking, store, output.NewProgress(c.errs))
				return nil
			})
			cancel()
		}
		result, err := c.invoke(ctx, settings.EnumeratorFunction, e, output.NewProgress(c.errs))
		if err != nil {
			return err
		}
		return c.showStarted(result)
	}
	// The database is opened first: if the run cannot be watched, nothing is started.
	return onStore(ctx, settings, func(store *mysqlstore.Store) error {
		progress := output.NewProgress(c.errs)
		if e.isFull() {
			cli.WarnOfOpenRun(ctx, store, progress)
		}
		var result pipeline.Enumeration
		err := cli.ShowProgressWhile(ctx, store, progress, lookEvery, e.Resume, func() (err error) {
			result, err = c.invoke(ctx, settings.EnumeratorFunction, e, progress)
			return err
		})
		if err != nil {
			return err
		}
		progress.Note("%s", started(result))
		return c.watch(ctx, store, result.RunID)
	})
}

// invoke waits for the enumerator's response. It never retries: a second invocation would open a second run.
func (c *command) invoke(ctx context.Context, function string, e event, progress *output.Progress) (result pipeline.Enumeration, err error) {
	settings, err := awsSettings(ctx)
	if err != nil {
		return result, err
	}
	e.By = c.caller(ctx, settings)
	payload, err := json.Marshal(e)
	if err != nil {
		return result, err
	}
	client := lambda.NewFromConfig(settings, func(o *lambda.Options) { o.Retryer = aws.NopRetryer{} })
	waiting, cancel := context.WithTimeout(ctx, enumeratorTime)
	defer cancel()
	progress.Note("asking %s in %s%s", function, settings.Region, e.patience())
	out, err := client.Invoke(waiting, &lambda.InvokeInput{FunctionName: &function, Payload: payload})
	if waiting.Err() != nil {
		return result, notAwaited(ctx)
	}
	if err != nil {
		return result, awsError(ctx, err, target{"function " + function, "ENUMERATOR_FUNCTION", settings.Region})
	}
	if out.FunctionError != nil {
		return result, functionError(function, out.Payload)
	}
	if err := json.Unmarshal(out.Payload, &result); err != nil || result.RunID == "" {
		return result, &cli.Error{
			Exit: cli.ExitFailed, Code: codeRefused, Err: errors.New("the response of function " + function + " is not the enumerator's"), Hint: "check ENUMERATOR_FUNCTION",
		}
	}
	return result, nil
}

// notAwaited is the error if no answer came in time; the run may have started.
func notAwaited(ctx context.Context) error {
	e := &cli.Error{
		Exit: cli.ExitFailed, Code: "no_answer", Err: errors.New("the enumerator did not answer in time"),
		Hint: "if a run was started, it continues in AWS; to follow it:\n    reconcile status --watch",
	}
	if ctx.Err() != nil {
		e.Code, e.Err = codeInterrupted, errors.New("interrupted")
	}
	return e
}

// functionError is the error that the function answered with. The enumerator's own errors have their reason as type;
// other types come from its runtime, such as a timeout.
func functionError(function string, payload []byte) error {
	var response struct {
		Message string `json:"errorMessage"`
		Type    string `json:"errorType"`
	}
	if err := json.Unmarshal(payload, &response); err != nil || response.Message == "" {
		response.Message = "it failed without a message"
	}
	e := &cli.Error{Exit: cli.ExitFailed, Code: response.Type, Err: errors.New(telemetry.OneLine(response.Message))}
	if a := billing.Reason(response.Type).Advice(); a.Concern == billing.ConcernRefused && len(a.Commands) > 0 {
		e.Hint = a.Do + "\n    " + strings.Join(a.Commands, "\n    ")
	}
	if strings.Trim(response.Type, "abcdefghijklmnopqrstuvwxyz_") != "" || response.Type == "" || response.Type == string(billing.ReasonInternal) {
		e.Code, e.Err = "function_failed", fmt.Errorf("function %s failed: %w", function, e.Err)
		e.Hint = "read its log in CloudWatch; a run that was opened continues within 15 minutes; to see it:\n    reconcile status"
	}
	return e
}

func (c *command) showStarted(result pipeline.Enumeration) error {
	if c.json {
		return json.NewEncoder(c.out).Encode(result)
	}
	if err := say(c.out, "%s", started(result)); err != nil {
		return err
	}
	run := billing.Summary{RunID: result.RunID}
	if result.Done && result.Enqueued == 0 {
		return say(c.errs, "to see how it ended:\n  %s", run.Command("reconcile status RUN", ""))
	}
	return say(c.errs, "to follow it:\n  %s", run.Command("reconcile status RUN --watch", ""))
}

// started describes the enumerator's response in one line.
func started(r pipeline.Enumeration) string {
	switch {
	case r.Done && r.Enqueued == 0:
		return fmt.Sprintf("run %s: nothing left to enqueue", r.RunID)
	case r.Done:
		return fmt.Sprintf("run %s: %s enqueued", r.RunID, billing.Count(r.Enqueued, "organization"))
	default:
		return fmt.Sprintf("run %s: %s enqueued so far; the enumerator continues within 15 minutes", r.RunID, billing.Count(r.Enqueued, "organization"))
	}
}
