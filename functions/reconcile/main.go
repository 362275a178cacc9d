// Reconcile is the operator's command line.
package main

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/wiring"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

func main() { cli.Main(realMain) }

// command is shared by all subcommands.
type command struct {
	environ   map[string]string
	out, errs io.Writer
	json      bool
	view      output.View // of a run, as the flags say
}

func realMain(ctx context.Context, args []string, environ map[string]string, out, errs io.Writer) int {
	c := &command{environ: environ, out: out, errs: errs}
	root := &cobra.Command{
		Use:   "reconcile",
		Short: "Operate the subscription reconciliation",
		Long: `Operates the subscription reconciliation, which repairs the application's database so that
every organization's subscription is as Stripe says. Nothing is ever written to Stripe.

Settings come from the environment or from .env; .env.example lists them. AWS settings are
those of every AWS tool (AWS_PROFILE, AWS_REGION and so on). start, org and redrive need AWS;
start --watch and org --watch need the database too, org --explain needs the database and
Stripe. reasons and completion need nothing, all other commands the database.

Results go to standard output, progress to standard error.
Exit codes: 0 the run ended completed, or the command succeeded; 1 the run could not be
started or followed, or the command failed; 2 usage or configuration; 3 the run ended any
other way.`,
		Example: `  reconcile start --dry-run --watch     what would a run over all organizations change?
  reconcile start --watch               repair them
  reconcile org ID --explain            why does this organization have its tier?
  reconcile status                      how did the last run end?
  reconcile redrive --watch             try again what ended in error
  reconcile help reasons                what each reason means, and what to do
  eval "$(reconcile completion bash)"   complete commands with the Tab key`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SuggestionsMinimumDistance = 2
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Parent() != root || strings.HasPrefix(cmd.Name(), "__") || cmd.Name() == reasonsCommand { // help and completion
			return nil
		}
		return c.readSettings(ctx, needsOf(cmd))
	}
	root.PersistentFlags().BoolVar(&c.json, "json", false, "results as JSON on standard output")
	root.AddCommand(c.start(ctx))
	root.AddCommand(c.org(ctx))
	root.AddCommand(c.status(ctx))
	root.AddCommand(c.redrive(ctx))
	root.AddCommand(c.approve(ctx))
	root.AddCommand(c.stop(ctx))
	root.AddCommand(c.accept(ctx))
	root.AddCommand(c.report(ctx))
	root.AddCommand(c.runs(ctx))
	root.AddCommand(c.migrate(ctx))
	root.AddCommand(c.reasons())
	root.SetOut(out) // the completion scripts need it now
	root.InitDefaultCompletionCmd(args...)
	refuseOtherShells(root)
	root.InitDefaultHelpCmd()
	c.refuseOtherTopics(root)
	return cli.Execute(ctx, root, args, out, errs)
}

// refuseOtherShells makes an unknown shell an error: a shell's start file would run the help text as a script.
func refuseOtherShells(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			cmd.RunE = func(_ *cobra.Command, args []string) error {
				if len(args) == 0 {
					return cli.Usage("give the shell: bash, zsh, fish or powershell")
				}
				return cli.Usage("no completion for %q; the shells are bash, zsh, fish and powershell", args[0])
			}
			cmd.Args = cobra.ArbitraryArgs
		}
	}
}

// refuseOtherTopics makes help about an unknown command an error: cobra prints it to standard output and succeeds.
func (c *command) refuseOtherTopics(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		if cmd.Name() != "help" {
			continue
		}
		cmd.Run = nil
		cmd.RunE = func(_ *cobra.Command, args []string) error {
			topic, unknown, err := root.Find(args)
			if err != nil {
				return err
			}
			if topic.Name() == reasonsCommand {
				return c.explainReasons(first(unknown))
			}
			if len(unknown) > 0 {
				return knownCommand(root, unknown)
			}
			topic.InitDefaultHelpFlag()
			return topic.Help()
		}
	}
}

// readSettings adds the settings of .env and of the secret to the environment.
func (c *command) readSettings(ctx context.Context, needs []config.Need) (err error) {
	if c.environ, err = cli.WithDotEnv(c.environ, needs...); err == nil {
		c.environ, err = wiring.Environment(ctx, c.environ)
	}
	return err
}

// What commands need; to watch, start and redrive need the database too.
var (
	needsToStart   = []config.Need{config.NeedEnumerator}
	needsToExplain = []config.Need{config.NeedDatabase, config.NeedStripe}
	needsToRedrive = []config.Need{config.NeedWorkQueue, config.NeedDeadLetterQueue}
)

// needsOf returns what the command needs whether it watches or not.
func needsOf(cmd *cobra.Command) []config.Need {
	explains, _ := cmd.Flags().GetBool("explain") // false if the command has no such flag
	switch {
	case explains:
		return needsToExplain
	case cmd.Name() == "start", cmd.Name() == "org":
		return needsToStart
	case cmd.Name() == "redrive":
		return needsToRedrive
	default:
		return []config.Need{config.NeedDatabase}
	}
}

// knownCommand refuses arguments of the root command: they are unknown commands.
func knownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if near := root.SuggestionsFor(args[0]); len(near) > 0 {
		return cli.Usage("unknown command %q; did you mean %s?", args[0], strings.Join(near, " or "))
	}
	return cli.Usage("unknown command %q", args[0])
}
