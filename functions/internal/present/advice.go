package present

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Reasons lists every reason and every warning: what it means, what to do, and what to run then.
func Reasons() string {
	var b strings.Builder
	var concern billing.Concern
	for _, a := range billing.AllAdvice() {
		if a.Concern != concern {
			concern = a.Concern
			fmt.Fprintf(&b, "\n%s\n", strings.ToUpper(string(concern)))
		}
		fmt.Fprintf(&b, "  %s\n", a.Code)
		WriteAdvice(&b, "      ", a, a.Commands)
	}
	return strings.TrimPrefix(b.String(), "\n")
}

// WriteAdvice writes what a code means, what to do, and the commands, each on a line.
func WriteAdvice(b *strings.Builder, indent string, a billing.Advice, commands []string) {
	for _, line := range append([]string{a.Means, a.Do}, commands...) {
		if line != "" {
			fmt.Fprintf(b, "%s%s\n", indent, Clean(line))
		}
	}
}

// writeToDo tells what the run's reasons and warnings ask of people.
func writeToDo(b *strings.Builder, s billing.Summary, queued bool) {
	a := s.StatusReason.Advice()
	writeTask(b, a.Code, a, ifQueued(queued, a.Resolve(s)))
	for _, reason := range slices.Sorted(maps.Keys(s.Reasons)) {
		a := reason.Advice()
		writeTask(b, fmt.Sprintf("%s, %d", reason, s.Reasons[reason]), a, ifQueued(queued, a.Repair(s, "")))
	}
	for _, code := range warnedOf(s.Details) {
		writeTask(b, "warning "+string(code), code.Advice(), nil)
	}
}

func writeTask(b *strings.Builder, title string, a billing.Advice, commands []string) {
	if a.Do == "" {
		return
	}
	fmt.Fprintf(b, "\n%s\n", Clean(title))
	WriteAdvice(b, "  ", a, commands)
}

// ifQueued: where the queues went with the program, there is nothing for the commands to work on.
func ifQueued(queued bool, commands []string) []string {
	if queued {
		return commands
	}
	return nil
}

// warnedOf returns each warning of the details once.
func warnedOf(details []billing.Detail) []billing.WarningCode {
	var all []billing.WarningCode
	for _, d := range details {
		for _, w := range d.Warnings {
			all = append(all, w.Code)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
