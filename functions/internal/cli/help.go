package cli

import (
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
)

// withoutTerminal is the width of help that is written to a file or a pipe.
const withoutTerminal = 80

type helpPage struct{ *output.Page }

// setHelp wraps the help of the command and its subcommands at the terminal's width.
func setHelp(cmd *cobra.Command) {
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		_ = writeHelp(cmd, cmd.OutOrStdout()) // cobra takes no error from a help function
	})
	cmd.SetUsageFunc(func(cmd *cobra.Command) error { return writeHelp(cmd, cmd.ErrOrStderr()) })
}

func writeHelp(cmd *cobra.Command, w io.Writer) error {
	p := helpPage{output.NewPage(w)}
	p.WrapAt(withoutTerminal)
	p.help(cmd)
	return p.Flush()
}

func (p helpPage) help(cmd *cobra.Command) {
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	p.Paragraphs(text)
	p.title("Usage:")
	if cmd.Runnable() {
		p.Line(2, "%s", cmd.UseLine())
	}
	if cmd.HasAvailableSubCommands() {
		p.Line(2, "%s [command]", cmd.CommandPath())
	}
	if cmd.Example != "" {
		p.title("Examples:")
		p.examples(strings.Split(cmd.Example, "\n"))
	}
	p.subcommands(cmd)
	p.flags("Flags:", cmd.LocalFlags().FlagUsagesWrapped(p.Width()))
	p.flags("Global Flags:", cmd.InheritedFlags().FlagUsagesWrapped(p.Width()))
	if cmd.HasAvailableSubCommands() {
		p.Blank()
		p.Line(0, `Use "%s [command] --help" for more information about a command.`, cmd.CommandPath())
	}
}

func (p helpPage) title(text string) {
	p.Blank()
	p.Line(0, "%s", text)
}

// examples writes each command unwrapped, with its description beside it, or below it if one line is too long.
func (p helpPage) examples(lines []string) {
	below := slices.ContainsFunc(lines, func(line string) bool { return output.Columns(line) > p.Width() })
	for _, line := range lines {
		command, does, found := strings.Cut(strings.TrimSpace(line), "  ")
		if !below || !found {
			p.Whole(2, strings.TrimPrefix(line, "  "))
			continue
		}
		p.Whole(2, command)
		p.Line(6, "%s", strings.TrimSpace(does))
	}
}

func (p helpPage) subcommands(cmd *cobra.Command) {
	var shown []*cobra.Command
	widest := 0
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() || sub.Name() == "help" {
			shown, widest = append(shown, sub), max(widest, len(sub.Name()))
		}
	}
	if len(shown) == 0 {
		return
	}
	p.title("Commands:")
	for _, sub := range shown {
		p.Parts(2, 2+widest+2, output.Part(output.Plain, "%-*s  %s", widest, sub.Name(), sub.Short))
	}
}

func (p helpPage) flags(title, usages string) {
	if usages == "" {
		return
	}
	p.title(title)
	p.Lines(usages)
}
