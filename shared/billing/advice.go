package billing

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Concern says what a reason or warning goes with.
type Concern string

const (
	// ConcernPending, ConcernSkipped and ConcernSynced: the organization has this outcome (synced is
	// drifted in a dry run), and nothing has to be done.
	ConcernPending Concern = "pending"
	ConcernSkipped Concern = "skipped"
	ConcernSynced  Concern = "synced"
	// ConcernPerson: the organization is in error until somebody decides.
	ConcernPerson Concern = "error, a person decides"
	// ConcernPassing: the organization is in error after the last of many tries.
	ConcernPassing Concern = "error, after many tries"
	// ConcernRefused: a message or a request was refused.
	ConcernRefused Concern = "refused"
	// ConcernRun: the run was stopped, or is suspect.
	ConcernRun Concern = "the whole run"
	// ConcernWarning: whatever the outcome, somebody should look.
	ConcernWarning Concern = "warning"
)

// Advice is what people are told of a reason or a warning, wherever they meet it.
type Advice struct {
	Code    string
	Concern Concern // "" of a code that this version does not know
	Means   string  // one sentence
	Do      string  // "" where there is nothing to do
	// Commands are what to run after that, in their order, as [Summary.Command] takes them.
	Commands []string
}

// AllAdvice returns what to tell of each reason and warning, in the order in which to show them.
func AllAdvice() []Advice { return slices.Clone(allAdvice) }

// Advice returns what to tell of the reason.
func (r Reason) Advice() Advice { return adviceOn(string(r)) }

// Advice returns what to tell of the warning.
func (w WarningCode) Advice() Advice { return adviceOn(string(w)) }

func adviceOn(code string) Advice {
	for _, a := range allAdvice {
		if a.Code == code {
			return a
		}
	}
	return Advice{Code: code}
}

// RetryCommands returns what to run for organizations of the run that ended in error with this reason, once
// the cause is gone: for one of them, or for all where orgID is empty. What a guard holds back is
// looked at and allowed by a person: trying it again would lead around the guard.
func (a Advice) RetryCommands(s Summary, orgID string) []string {
	if Reason(a.Code).Withholds() && !s.DryRun {
		return s.commands(a.Commands, orgID)
	}
	return s.commands([]string{tryAgain(s.DryRun, orgID)}, orgID)
}

// tryAgain: what a dry run could not decide is in no dead-letter queue.
func tryAgain(dryRun bool, orgID string) string {
	switch {
	case orgID != "" && dryRun:
		return runOne + " --dry-run"
	case orgID != "":
		return runOne
	case dryRun:
		return startAnew + " --dry-run"
	default:
		return redrive
	}
}

// RunCommands returns what to run about a run that has this reason, once the cause is gone.
func (a Advice) RunCommands(s Summary) []string {
	if s.DryRun && slices.Equal(a.Commands, anew) {
		return []string{startAnew + " --dry-run"}
	}
	return s.commands(a.Commands, "")
}

// ExplainStatus says what the run's status means, and which command comes next if one does: the one for the
// reason of the status, where it has one.
func (s Summary) ExplainStatus() (means, command string) {
	switch s.Status {
	case RunEnumerating, RunRunning:
		means, command = "The run is still going; the figures are of the moment.", "reconcile status RUN --watch"
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
		means, command = "Something about the whole run is wrong. Repair it, then resume; organizations without an outcome wait.", "reconcile start --resume RUN"
		if s.StatusReason == ReasonStoppedByOperator {
			means = "Somebody stopped it; the reason says why. Organizations without an outcome wait until it is resumed."
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

// Command fills in the run for RUN, the organization for ORG, quoted for the shell, and for N the
// limit that allows what was withheld. What is not known stays as it is.
func (s Summary) Command(template, orgID string) string {
	var known []string
	if s.RunID != "" {
		known = append(known, "RUN", shellWord(s.RunID), "--limit N", "--limit "+strconv.Itoa(s.Downgrades+s.Reasons[ReasonWithheld]))
	}
	if orgID != "" {
		known = append(known, "ORG", shellWord(orgID))
	}
	return strings.NewReplacer(known...).Replace(template)
}

var bareWord = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:._-]*$`)

// shellWord quotes a word for the shell where it needs that.
func shellWord(s string) string {
	if bareWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
