package output

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Reasons writes the reasons and warnings below what they concern: what each means, what to do, and what to run then.
func (p *Page) Reasons(all []billing.Advice) {
	var concern billing.Concern
	for i, a := range all {
		if a.Concern != concern {
			if concern = a.Concern; i > 0 {
				p.Blank()
			}
			p.Line(0, "%s", strings.ToUpper(string(concern)))
		}
		p.Line(2, "%s", a.Code)
		p.Advice(6, a, a.Commands)
	}
}

// Advice writes what a code means, what to do, and the commands, each on a line.
func (p *Page) Advice(indent int, a billing.Advice, commands []string) {
	for _, line := range []string{a.Means, a.Do} {
		if line != "" {
			p.Line(indent, "%s", line)
		}
	}
	p.commands(indent, commands)
}

// commands are to be copied: each stays whole.
func (p *Page) commands(indent int, commands []string) {
	for _, command := range commands {
		p.Whole(indent, command)
	}
}

// toDo writes what people must do because of the run's end, its reasons and its warnings.
func (p *Page) toDo(s billing.Summary, v View) {
	p.ending(s, v)
	for _, reason := range slices.Sorted(maps.Keys(s.Reasons)) {
		a := reason.Advice()
		p.task(ColourOf(billing.OutcomeError, reason), a, s.Unaccepted(reason), v.commands(s, reason, a.RetryCommands(s, "")))
	}
	would := s.WouldWithhold()
	for _, reason := range slices.Sorted(maps.Keys(would)) {
		a := s.AdviceIfWritten(reason, onlyOrganization(s))
		p.Blank()
		p.Parts(0, deeper, Part(Attention, wouldBeWithheld), Part(Plain, ", %d", would[reason]))
		if !v.Queued && reason == billing.ReasonWithheld {
			a.Do = "Look at the changes. If they are right, run it with a higher limit."
		}
		p.Advice(2, a, v.commands(s, reason, a.Commands))
	}
	for _, code := range slices.Sorted(maps.Keys(s.Warnings)) {
		p.task(Attention, code.Advice(), s.Warnings[code], nil)
	}
	for _, missed := range s.DriftByCause.Missed() {
		p.Blank()
		p.Parts(0, deeper, Part(Attention, "%s", missed.What), Part(Plain, ", %d", missed.Organizations))
		p.Line(2, "%s", missed.Means)
		p.Line(2, "%s", missed.Do)
	}
}

// onlyOrganization is the one of a run over one organization, "" of other runs.
func onlyOrganization(s billing.Summary) string {
	if s.TotalOrganizations == 1 && len(s.Details) == 1 {
		return s.Details[0].OrgID
	}
	return ""
}

// ending writes what the status means and what to do next, unless the run completed without a problem.
func (p *Page) ending(s billing.Summary, v View) {
	if s.Status == billing.RunCompleted && s.StatusReason == "" {
		return
	}
	p.Blank()
	means, command := s.ExplainStatus()
	p.Parts(0, deeper, Part(ColourOfStatus(s.Status), "%s", s.Status), Part(Plain, ": %s", means))
	p.Advice(2, s.StatusReason.Advice(), nil)
	switch {
	case command == "":
	case v.Queued:
		p.Whole(2, command)
	case v.Stored:
		p.Whole(2, ofLocal(command))
	}
}

// task is what one reason or warning, met n times, asks of people.
func (p *Page) task(colour Colour, a billing.Advice, n int, commands []string) {
	if a.Do == "" || n == 0 {
		return
	}
	p.Blank()
	title := []Span{Part(colour, "%s", a.Code)}
	if a.Concern == billing.ConcernWarning {
		title = []Span{Part(Plain, "warning "), Part(colour, "%s", a.Code)}
	}
	p.Parts(0, deeper, append(title, Part(Plain, ", %d", n))...)
	p.Advice(2, a, commands)
}

// commands returns the commands for organizations with this reason. A run of local has no queue, so there is nothing
// to redrive: local runs again.
func (v View) commands(s billing.Summary, reason billing.Reason, queued []string) (commands []string) {
	if v.Queued {
		return queued
	}
	if reason.Withholds() && v.Stored {
		commands = []string{s.Command("reconcile org ORG --explain", onlyOrganization(s))}
	}
	again := "local"
	if !v.Stored { // a demonstration's database is gone, and no other must be written
		again += " --demo"
	}
	if org := onlyOrganization(s); org != "" {
		again = s.Command(again+" --org ORG", org)
	}
	switch {
	case reason == billing.ReasonWithheld:
		return append(commands, fmt.Sprintf("MAX_DOWNGRADES=%d %s", v.limitForAll(s), again))
	case reason.Withholds(), !v.Stored:
		return commands
	case s.DryRun:
		again += " --dry-run"
	}
	return append(commands, again)
}

// limitForAll returns the limit with which another run lowers everything that this one withheld. In a database that
// remains, the others are lowered already.
func (v View) limitForAll(s billing.Summary) int {
	if v.Stored && !s.DryRun {
		return s.Reasons[billing.ReasonWithheld]
	}
	return s.Downgrades + s.Reasons[billing.ReasonWithheld]
}

// ofLocal returns the command for a run of local.
func ofLocal(command string) string {
	if rest, resumes := strings.CutPrefix(command, "reconcile start"); resumes {
		return "local" + rest
	}
	return command
}
