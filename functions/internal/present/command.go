package present

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// Execute runs a command line and returns the exit code. Errors are written here and nowhere
// else; with --json, as JSON on out. An empty argument is refused: where a script's variable is not
// set, a command for one organization or run would otherwise be one for all.
func Execute(ctx context.Context, cmd *cobra.Command, args []string, out, errs io.Writer) int {
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	cmd.SetOut(out)
	cmd.SetErr(errs)
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return Usage("%w", err) })
	err := refuseEmpty(args)
	if err == nil {
		err = cmd.ExecuteContext(ctx)
	}
	if err == nil {
		return ExitOK
	}
	if _, known := errors.AsType[*Error](err); !known && ctx.Err() != nil {
		err = &Error{Exit: ExitFailed, Code: CodeInterrupted, Err: errors.New("interrupted")}
	}
	// A flag that could not be read may stand before --json.
	return Fail(out, errs, asksForJSON(args), err)
}

func refuseEmpty(args []string) error {
	if len(args) > 0 && args[0] == cobra.ShellCompRequestCmd {
		return nil // asks what could stand there
	}
	for i, arg := range args {
		name, value, isFlag := strings.Cut(arg, "=")
		switch {
		case isFlag && strings.HasPrefix(name, "--") && strings.TrimSpace(value) == "":
			return Usage("the value of %s is empty", name)
		case strings.TrimSpace(arg) == "" && i > 0 && strings.HasPrefix(args[i-1], "--"):
			return Usage("the argument after %s is empty", args[i-1])
		case strings.TrimSpace(arg) == "":
			return Usage("argument %d is empty", i+1)
		}
	}
	return nil
}

func asksForJSON(args []string) bool {
	return slices.ContainsFunc(args, func(arg string) bool { return arg == "--json" || arg == "--json=true" })
}

// NoArgs refuses arguments, as a usage error.
func NoArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Usage("unknown argument %q", args[0])
	}
	return nil
}

// OneArg wants exactly one argument.
func OneArg(name string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return Usage("give one %s, not %d arguments", name, len(args))
		}
		return nil
	}
}

// AtMostOneArg wants one argument or none.
func AtMostOneArg(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return OneArg(name)(cmd, args)
	}
}
