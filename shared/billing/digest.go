package billing

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

const (
	// MaxDigestLines keeps a digest readable on a phone.
	MaxDigestLines = 20
	// digestIDs limits the ids of a line, digestReasons the explained reasons.
	digestIDs     = 5
	digestReasons = 3
	// digestWidth limits the characters of a line.
	digestWidth = 500
)

// Digest summarizes a run for people who do not know this system, in at most [MaxDigestLines] lines of plain text: the
// repairs, changes of access, what needs a person with the commands to run, and the report (reportURL, if there is
// one). It names organizations by their ids only.
func Digest(run Run, s Summary, reportURL string) string {
	d := digest{run: run, s: s}
	d.title()
	d.counts()
	d.access()
	d.causes()
	d.needsAPerson()
	d.warnings()
	d.orphans()
	if reportURL != "" {
		d.line("Report: %s", reportURL)
	} else {
		d.line("Report: %s", s.Command("reconcile report RUN --html report.html", ""))
	}
	return strings.Join(d.lines, "\n")
}

type digest struct {
	run   Run
	s     Summary
	lines []string
}

// line adds exactly one line, even if the data contains line breaks.
func (d *digest) line(format string, args ...any) {
	text := []rune(strings.Map(printable, fmt.Sprintf(format, args...)))
	if len(text) > digestWidth {
		text = append(text[:digestWidth-1], '…')
	}
	d.lines = append(d.lines, string(text))
}

// printable replaces characters that could end a line or change its direction.
func printable(r rune) rune {
	switch {
	case unicode.IsPrint(r):
		return r
	case unicode.IsSpace(r):
		return ' '
	default:
		return unicode.ReplacementChar
	}
}

func (d *digest) title() {
	kind := "Subscription reconciliation"
	if d.run.OrgID != "" {
		kind += " of organization " + d.run.OrgID
	}
	if d.s.DryRun {
		kind += ", dry run (nothing was written)"
	}
	d.line("%s, %s: %s", kind, d.s.StartedAt.UTC().Format("Monday 2 January 2006, 15:04 UTC"), ended(d.s))
	if d.s.StatusReason == "" {
		return
	}
	advice := d.s.StatusReason.Advice()
	// The message may contain hosts and users from a database error, and every subscriber gets the digest.
	d.line("Why: %s (%s)", cmp.Or(advice.Means, "see the report"), d.s.StatusReason)
	d.do(advice.Do, advice.RunCommands(d.s))
}

// ended returns the run's end as the rest of a sentence.
func ended(s Summary) string {
	switch s.Status {
	case RunCompleted:
		if s.StatusReason != "" {
			return "done, but it could not see everything."
		}
		return "all went well."
	case RunCompletedWithErrors:
		return "done, but some organizations need a person."
	case RunIncomplete:
		return "not finished in time, some organizations were not looked at."
	case RunSuspect:
		return "done, but do not trust it yet."
	case RunStopped:
		return "stopped before its end."
	default:
		return "still going."
	}
}

// do adds a line with the remedy and the commands, if there are any.
func (d *digest) do(do string, commands []string) {
	switch {
	case do == "" && len(commands) == 0:
	case len(commands) == 0:
		d.line("  To do: %s", do)
	default:
		d.line("  To do: %s Then run: %s", cmp.Or(do, "Nothing else."), strings.Join(commands, ", then "))
	}
}

func (d *digest) counts() {
	s := d.s
	differed := "were repaired"
	if s.DryRun {
		differed = "would be repaired"
	}
	text := fmt.Sprintf("Compared with Stripe: %s; %s %s, %s need a person, %s needed nothing",
		organizations(s.TotalOrganizations), Thousands(s.Synchronized), differed, Thousands(s.Errors-s.AcceptedErrors), Thousands(s.Skipped))
	if s.AcceptedErrors > 0 {
		text += fmt.Sprintf(", %s are in error as is known", Thousands(s.AcceptedErrors))
	}
	if s.Pending > 0 {
		text += fmt.Sprintf(", %s not looked at", Thousands(s.Pending))
	}
	d.line("%s.", text)
	if s.Status == RunIncomplete && s.StatusReason == "" {
		d.do("Find out why the workers did not get through.", s.commands(thenResume, ""))
	}
}

func (d *digest) access() {
	would := ""
	if d.s.DryRun {
		would = "would be "
	}
	for _, change := range []struct {
		how string
		Affected
	}{{"raised", d.s.Access.Raised}, {"lowered", d.s.Access.Lowered}} {
		if change.Organizations > 0 {
			d.line("Access %s%s for %s: %s.", would, change.how, organizations(change.Organizations), some(change.First, change.Organizations))
		}
	}
	if d.s.DryRun && d.s.Downgrades > d.s.DowngradeLimit {
		d.line("A run that writes would stop lowering access at its limit of %s and leave the rest to a person.", Thousands(d.s.DowngradeLimit))
	}
}

// causes adds the webhook deliveries of a catch-up's drift.
func (d *digest) causes() {
	var all []string
	if n := d.s.DriftByCause.Pending; n > 0 {
		all = append(all, fmt.Sprintf("of %s Stripe could not deliver yet (an endpoint fails)", organizations(n)))
	}
	if n := d.s.DriftByCause.NotPending; n > 0 {
		all = append(all, fmt.Sprintf("of %s none waits for delivery (the application mishandled it, or no endpoint asks for such events)", organizations(n)))
	}
	if len(all) > 0 {
		d.line("Missed webhooks: %s.", strings.Join(all, "; "))
	}
}

// needsAPerson explains the most frequent reasons that a person must resolve.
func (d *digest) needsAPerson() {
	var reasons []Reason
	others := 0
	for _, reason := range byCount(d.s.Reasons) {
		switch concern := reason.Advice().Concern; {
		case d.s.Unaccepted(reason) == 0:
		case concern != ConcernPerson && concern != ConcernPassing && concern != "":
		case len(reasons) < digestReasons:
			reasons = append(reasons, reason)
		default:
			others += d.s.Unaccepted(reason)
		}
	}
	if len(reasons) == 0 {
		if d.s.Status == RunCompleted && d.s.StatusReason == "" && d.s.OrphansTotal == 0 {
			d.line("Nothing needs a person.")
		}
		return
	}
	d.line("Needs a person:")
	for _, reason := range reasons {
		advice := reason.Advice()
		d.line("- %s, %s: %s", organizations(d.s.Unaccepted(reason)), reason, advice.Means)
		d.do(advice.Do, advice.RetryCommands(d.s, ""))
	}
	if others > 0 {
		d.line("- %s for other reasons, which the report explains.", organizations(others))
	}
}

func (d *digest) warnings() {
	var all []string
	for _, code := range byCount(d.s.Warnings) {
		all = append(all, fmt.Sprintf("%s %s", code, Thousands(d.s.Warnings[code])))
	}
	if len(all) > 0 {
		d.line("Warnings, to be looked at when there is time (the report explains them): %s.", strings.Join(all, ", "))
	}
}

func (d *digest) orphans() {
	if d.s.SweepAbandoned {
		d.line("Stripe's list could not be read to its end, so nobody looked for subscriptions without an organization.")
	}
	if d.s.OrphansTotal == 0 {
		return
	}
	var ids []string
	for _, o := range d.s.Orphans {
		ids = append(ids, o.SubscriptionID)
	}
	d.line("Orphans, to be given to an organization or ended in Stripe: %s that no organization accounts for: %s.",
		Count(d.s.OrphansTotal, "live subscription"), some(ids, d.s.OrphansTotal))
}

// some lists the first ids and the number of others.
func some(ids []string, total int) string {
	shown := ids[:min(len(ids), digestIDs)]
	text := strings.Join(shown, ", ")
	switch rest := total - len(shown); {
	case len(shown) == 0:
		return "the report names them"
	case rest > 0:
		return fmt.Sprintf("%s and %s more", text, Thousands(rest))
	default:
		return text
	}
}

// byCount returns the keys by descending count.
func byCount[K ~string](counts map[K]int) []K {
	return slices.SortedFunc(maps.Keys(counts), func(a, b K) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), strings.Compare(string(a), string(b)))
	})
}

func organizations(n int) string { return Count(n, "organization") }
