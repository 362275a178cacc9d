package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

// explained is one reason or warning in the JSON that reasons prints.
type explained struct {
	Code     string          `json:"code"`
	Concern  billing.Concern `json:"concern"`
	Means    string          `json:"means"`
	Do       string          `json:"do"`
	Commands []string        `json:"commands"`
}

func (c *command) reasons() *cobra.Command {
	return &cobra.Command{
		Use:   reasonsCommand + " [CODE]",
		Short: "What each reason and warning means, and what to do",
		Long: `Explains every reason and warning, or only CODE: what it means, what to do, and the commands
to run then. ORG, RUN and N stand for the organization's and the run's id and the new limit.
reconcile help reasons prints the same.`,
		Example: `  reconcile reasons
  reconcile reasons withheld`,
		Args: cli.AtMostOneArg("code"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return codes(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error { return c.explainReasons(first(args)) },
	}
}

// reasonsCommand is the name of the command, which needs no settings.
const reasonsCommand = "reasons"

func codes() (all []string) {
	for _, a := range billing.AllAdvice() {
		all = append(all, a.Code)
	}
	return all
}

// explainReasons explains the code, or all if it is empty.
func (c *command) explainReasons(code string) error {
	all := billing.AllAdvice()
	if code != "" {
		a := adviceOn(code)
		if a.Concern == "" {
			return unknownCode(code)
		}
		all = []billing.Advice{a}
	}
	if c.json {
		answer := []explained{}
		for _, a := range all {
			answer = append(answer, explained{a.Code, a.Concern, a.Means, a.Do, append([]string{}, a.Commands...)})
		}
		return json.NewEncoder(c.out).Encode(map[string]any{"reasons": answer})
	}
	p := output.NewPage(c.out)
	p.Reasons(all)
	return p.Flush()
}

func unknownCode(code string) error {
	e := &cli.Error{
		Exit: cli.ExitUsage, Code: "usage", Err: fmt.Errorf("there is no reason or warning %q", code), Hint: "reconcile help reasons lists all",
	}
	if near, isNear := config.Nearest(code, codes()); isNear {
		e.Err = fmt.Errorf("%w; did you mean %s?", e.Err, near)
	}
	return e
}
