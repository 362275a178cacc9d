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
	commands := reason.Advice().Repair(s, orgID)
	for i, command := range commands {
		commands[i] = clean(command)
	}
	return commands
}

// ending says what the run's status means, and which command comes next if one does: the one for
// the reason of the status, where it has one.
func ending(s billing.Summary) (means, command string) {
	switch s.Status {
	case billing.RunEnumerating, billing.RunRunning:
		means, command = "The run is still going; the figures are of the moment.", "reconcile status RUN --watch"
	case billing.RunCompleted:
		means = "Every organization has an outcome, none an error."
	case billing.RunCompletedWithErrors:
		means = "Every organization has an outcome, but some need a person."
	case billing.RunIncomplete:
		means, command = "The deadline passed with organizations pending. Find out why the workers did not get through, then resume.", "reconcile start --resume RUN"
	case billing.RunSuspect:
		means = "Nothing was found where the last run found something. Check the database and the Stripe account before you trust it."
	case billing.RunStopped:
		means, command = "Something about the whole run is wrong. Repair it, then resume; organizations without an outcome wait.", "reconcile start --resume RUN"
	}
	if commands := s.StatusReason.Advice().Resolve(s); len(commands) > 0 {
		return means, clean(commands[0])
	}
	return means, clean(s.Command(command, ""))
}
