package report

import (
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

// next is the command for an organization in error, and what it does.
func next(i mysqlstore.ReportItem, s billing.Summary) (does, command string) {
	commands := repair(i.Reason, i.Lowers, s, i.OrgID)
	if len(commands) > 1 {
		return "Look at it first", commands[0]
	}
	return "Try it again", commands[0]
}

// repair returns the commands for organizations in error, or for one of them. Changes that lower
// access were withheld, whatever became of the organization at a later try.
func repair(reason billing.Reason, lowering bool, s billing.Summary, orgID string) []string {
	if lowering && orgID != "" && !reason.Withholds() {
		reason = billing.ReasonWithheld
	}
	commands := reason.Advice().RetryCommands(s, orgID)
	for i, command := range commands {
		commands[i] = clean(command)
	}
	return commands
}
