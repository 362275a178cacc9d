package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

// Execute runs a command line, writes its error, with --json as JSON to out, and returns the exit code. It refuses an
// empty argument: if a script's variable is unset, a command for one organization or run would be one for all.
func Execute(ctx context.Context, cmd *cobra.Command, args []string, out, errs io.Writer) int {
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	cmd.SetOut(out)
	cmd.SetErr(errs)
	cmd.SetFlagErrorFunc(flagError)
	setHelp(cmd)
	cmd.Version = version(debug.ReadBuildInfo())
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
	if wrong, ok := err.(*config.Error); ok { //nolint:errorlint // a wrapped one already names its source
		err = addLines(wrong)
	}
	// Flags are not parsed after a wrong one, so --json is searched for in the arguments.
	return Fail(out, errs, asksForJSON(args), err)
}

// addLines adds to the problems the lines of .env that set their variables.
func addLines(e *config.Error) error {
	file, err := config.ReadFile(dotEnv)
	if err != nil {
		return e
	}
	return file.Locate(e, config.Environ(os.Environ()))
}

// flagError words pflag's errors in this program's style.
func flagError(cmd *cobra.Command, err error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok && unknown.GetSpecifiedShortnames() == "" {
		name := unknown.GetSpecifiedName()
		if near, isNear := config.Nearest(name, flagsOf(cmd)); isNear {
			return Usage("unknown flag --%s; did you mean --%s?", name, near)
		}
		return Usage("unknown flag --%s", name)
	}
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		flag := invalid.GetFlag()
		if moment, ok := errors.AsType[timeError](err); ok {
			return Usage("--%s %w", flag.Name, moment)
		}
		return Usage("--%s is %q, which is no %s", flag.Name, invalid.GetValue(), valueKind(flag))
	}
	if missing, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return Usage("--%s needs a value", missing.GetSpecifiedName())
	}
	return Usage("%w", err)
}

func flagsOf(cmd *cobra.Command) (names []string) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

// valueKind names the kind of value that a flag takes.
func valueKind(flag *pflag.Flag) string {
	switch flag.Value.Type() {
	case "bool":
		return "true or false"
	case "int", "int64":
		return "whole number"
	case "uint", "uint64":
		return "whole number from 0 on"
	case "float64":
		return "number"
	case "duration":
		return "duration such as 300ms or 2s"
	default:
		return "such value"
	}
}

// version names the module's version if it was installed by version, else the commit of the checkout.
func version(info *debug.BuildInfo, ok bool) string {
	if !ok {
		return "unknown"
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	text := info.Main.Version
	if revision := settings["vcs.revision"]; revision != "" && !strings.Contains(text, revision[:min(12, len(revision))]) {
		text += ", commit " + revision + " of " + settings["vcs.time"]
	}
	if settings["vcs.modified"] == "true" && !strings.Contains(text, "dirty") {
		text += ", modified"
	}
	return text + ", " + info.GoVersion
}

func refuseEmpty(args []string) error {
	if len(args) > 0 && args[0] == cobra.ShellCompRequestCmd {
		return nil // shell completion may pass an empty word
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

// NoArgs takes no argument.
func NoArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Usage("unknown argument %q", args[0])
	}
	return nil
}

// OneArg takes exactly one argument.
func OneArg(name string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return Usage("give one %s, not %d arguments", name, len(args))
		}
		return nil
	}
}

// AtMostOneArg takes one argument or none.
func AtMostOneArg(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return OneArg(name)(cmd, args)
	}
}
