package billing

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Concern classifies reasons and warnings by what they are about.
type Concern string

const (
	// ConcernPending, ConcernSkipped and ConcernSynced: an outcome that needs no action. ConcernSynced covers drifted.
	ConcernPending Concern = "pending"
	ConcernSkipped Concern = "skipped"
	ConcernSynced  Concern = "synced"
	// ConcernPerson: an error that only a person can resolve.
	ConcernPerson Concern = "error, a person decides"
	// ConcernPassing: a temporary failure that outlasted all retries.
	ConcernPassing Concern = "error, after many tries"
	// ConcernRefused: a message or a request was refused.
	ConcernRefused Concern = "refused"
	// ConcernRun: the run was stopped, or is suspect.
	ConcernRun Concern = "the whole run"
	// ConcernWarning: a person should look; the outcome does not depend on it.
	ConcernWarning Concern = "warning"
)

// Advice explains a reason or a warning in every report, message and document.
type Advice struct {
	Code    string
	Concern Concern // "" for a code that this version does not know
	Means   string  // one sentence
	Do      string  // "" if there is nothing to do
	// Commands are to be run in this order after that, as templates of [Summary.Command].
	Commands []string
}

// AllAdvice returns the advice on every reason and warning, in display order.
func AllAdvice() []Advice { return slices.Clone(allAdvice) }

// Advice returns the advice on the reason.
func (r Reason) Advice() Advice { return adviceOn(string(r)) }

// Advice returns the advice on the warning.
func (w WarningCode) Advice() Advice { return adviceOn(string(w)) }

func adviceOn(code string) Advice {
	for _, a := range allAdvice {
		if a.Code == code {
			return a
		}
	}
	return Advice{Code: code}
}

// ifWritten is the advice on organizations of a dry run whose repair a run that writes would withhold.
var ifWritten = map[Reason]Advice{
	ReasonWithheld: {
		string(ReasonWithheld), ConcernPerson, "A run that writes would lower access beyond its limit of downgrades, and withhold these.",
		"Look at the changes. If they are right, start a run, then approve what it withholds.",
		[]string{explainOne, startRun},
	},
	ReasonWithheldByRun: {
		string(ReasonWithheldByRun), ConcernPerson, "A run that writes would not lower access here, because another run withholds that.",
		"Look at the changes. If they are right, approve the run that --explain names, then redrive.",
		[]string{explainOne},
	},
	ReasonNotRepeated: {
		string(ReasonNotRepeated), ConcernPerson,
		"A run that writes would not lower access again: the same repair was made within 24 hours and something undid it.",
		ReasonNotRepeated.Advice().Do,
		[]string{explainOne},
	},
}

// AdviceIfWritten returns the advice on a reason of [Summary.WouldWithhold], with the commands for one organization, or
// for all if orgID is empty.
func (s Summary) AdviceIfWritten(r Reason, orgID string) Advice {
	a := ifWritten[r]
	a.Commands = s.commands(a.Commands, orgID)
	return a
}

// RetryCommands returns the commands that retry the organizations with this reason once the cause is fixed: one
// organization, or all if orgID is empty. For a withheld repair they are those that review and approve it, since a
// retry would bypass the guard.
func (a Advice) RetryCommands(s Summary, orgID string) []string {
	if Reason(a.Code).Withholds() && !s.DryRun {
		return s.commands(a.Commands, orgID)
	}
	return s.commands([]string{retryCommand(s.DryRun, orgID)}, orgID)
}

// retryCommand starts a new dry run instead of a redrive, since errors of dry runs are not in the dead-letter queue.
func retryCommand(dryRun bool, orgID string) string {
	switch {
	case orgID != "" && dryRun:
		return runOne + " --dry-run"
	case orgID != "":
		return runOne
	case dryRun:
		return startRun + " --dry-run"
	default:
		return redrive
	}
}

// RunCommands returns the commands for a run with this reason, once the cause is fixed.
func (a Advice) RunCommands(s Summary) []string {
	if s.DryRun && slices.Equal(a.Commands, thenStart) {
		return []string{startRun + " --dry-run"}
	}
	return s.commands(a.Commands, "")
}

// ExplainStatus returns what the run's status means and the next command, if there is one. The command for the status
// reason has precedence.
func (s Summary) ExplainStatus() (means, command string) {
	switch s.Status {
	case RunEnumerating, RunRunning:
		means, command = "The run is still going; these are its figures so far.", "reconcile status RUN --watch"
	case RunCompleted:
		means = "Every organization has an outcome, none an error."
		if s.AcceptedErrors > 0 {
			means = "Every organization has an outcome, and each error is known and accepted."
		}
	case RunCompletedWithErrors:
		means = "Every organization has an outcome, but some need a person."
	case RunIncomplete:
		means, command = "The deadline passed with organizations pending. Find out why the workers did not get through, then resume.", "reconcile start --resume RUN"
	case RunSuspect:
		means = "Nothing was found where the last run found something. Check the database and the Stripe account before you trust it."
	case RunStopped:
		means, command = "Something about the whole run is wrong. Fix it, then resume; organizations without an outcome wait.", "reconcile start --resume RUN"
		switch s.StatusReason {
		case ReasonStoppedByOperator:
			means = "Somebody stopped it; the reason says why. Organizations without an outcome wait until it is resumed."
		case ReasonInterrupted:
			means = "It was interrupted. Organizations without an outcome wait until it is resumed."
		default: // what is wrong must be fixed first
		}
	}
	if commands := s.StatusReason.Advice().RunCommands(s); len(commands) > 0 {
		return means, commands[0]
	}
	return means, s.Command(command, "")
}

func (s Summary) commands(templates []string, orgID string) []string {
	all := make([]string, len(templates))
	for i, template := range templates {
		all[i] = s.Command(template, orgID)
	}
	return all
}

// Command replaces RUN and ORG by the ids, quoted for the shell, and N by the limit that allows everything withheld.
// Placeholders without a value remain.
func (s Summary) Command(template, orgID string) string {
	var replacements []string
	if s.RunID != "" {
		replacements = append(replacements, "RUN", shellWord(s.RunID), "--limit N", "--limit "+strconv.Itoa(s.Downgrades+s.Reasons[ReasonWithheld]))
	}
	if orgID != "" {
		replacements = append(replacements, "ORG", shellWord(orgID))
	}
	return strings.NewReplacer(replacements...).Replace(template)
}

var bareWord = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:._-]*$`)

// shellWord quotes a word for the shell if necessary.
func shellWord(s string) string {
	if bareWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
