package report

import (
	"html/template"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

// page is what the template shows.
type page struct {
	Policy string
	Style  template.CSS
	Script template.JS

	RunID, OrgID      string
	Status            string
	Tone              string // good, bad or open: how the status looks
	StatusMeans       string
	StatusCommand     string
	StatusReason      string
	StatusAdvice      billing.Advice
	StatusMessage     string
	DryRun            bool
	CatchUp           bool
	Window            string // of a catch-up: the part of Stripe's event log that it read
	Amended           string
	Started, Finished string
	Took              string
	WrittenAt         string
	Mode              config.Mode

	Total    int
	Outcomes []outcomeFigure
	Segments []segment

	Errors, Warnings, Reasons []reasonRow
	WouldWithhold             []reasonRow
	WouldSplit                string // how a run that writes would divide what a dry run lists together
	Accepted                  []acceptedRow
	Guard, Decided            string
	Missed                    []billing.MissedWebhooks
	Orphans                   []orphanRow
	OrphansTotal              int
	SweepAbandoned            bool

	Fields       []fieldRow
	FieldOptions []option
	History      *history
	Past         []pastRow

	Organizations, Changes        int
	Finance                       []financeGroup
	FinanceTotal                  int
	TierMatrix                    *matrix
	Knows                         bool // for how long access was wrong
	Plain                         []entry
	Omitted                       []string
	OutcomeOptions, ReasonOptions []option
	AccessOptions                 []option
}

type outcomeFigure struct {
	Key, Label, Note string
	N                int
}

// segment is a part of the bar of outcomes, in percent of its width.
type segment struct {
	Key      string
	X, Width float64
}

type reasonRow struct {
	billing.Advice

	N     int
	Named []string // the first organizations
}

// Unnamed counts the organizations that are not named.
func (r reasonRow) Unnamed() int { return r.N - len(r.Named) }

// acceptedRow is an accepted error or warning.
type acceptedRow struct {
	billing.Advice

	Org, Name, Why, By, At, Until string
}

func newAcceptedRow(i mysqlstore.ReportItem, a billing.Acceptance) acceptedRow {
	row := acceptedRow{
		Advice: billing.Reason(a.Code).Advice(), Org: clean(i.OrgID), Name: nameOf(i),
		Why: clean(a.Why), By: clean(a.By), At: moment(a.At), Until: "until it is removed",
	}
	if a.Until != nil {
		row.Until = "until " + moment(*a.Until)
	}
	return row
}

type orphanRow struct {
	Subscription, Customer stripeLink
	Status, OrgID          string
}

type fieldRow struct {
	Field string
	N     int
	Width float64 // of the bar, in percent of the longest
}

type option struct {
	Value string
	N     int
	Note  string // beside the value
}

func newPage(run Run, f *findings) page {
	s := run.Summary
	p := page{
		Policy: policy(), Style: template.CSS(style), Script: template.JS(script), //nolint:gosec // G203: both are files of this package
		RunID: clean(s.RunID), OrgID: clean(run.OrgID), Status: strings.ReplaceAll(string(s.Status), "_", " "), Tone: tone(s),
		StatusReason: string(s.StatusReason), StatusAdvice: s.StatusReason.Advice(), StatusMessage: clean(s.StatusMessage), DryRun: s.DryRun,
		Started: moment(s.StartedAt), WrittenAt: moment(run.WrittenAt), Mode: run.Mode,
		Total: s.TotalOrganizations, Outcomes: outcomeFigures(s), Segments: segments(s),
		Guard: guard(s), Missed: s.DriftByCause.Missed(), Decided: decided(s), Reasons: reasonRows(s.Reasons), Errors: errorRows(f, s, run.OrgID), WouldWithhold: heldIfWritten(s, run.OrgID), WouldSplit: wouldSplit(s), Warnings: f.withNames(reasonRows(f.warnings)), Accepted: f.accepted,
		Orphans: orphanRows(run.Mode, s.Orphans), OrphansTotal: max(s.OrphansTotal, len(s.Orphans)), SweepAbandoned: s.SweepAbandoned,
		Fields: fieldRows(s.DriftByField), FieldOptions: options(f.fields),
		History: chart(run.History, s.RunID), Past: pastRows(run.History, s.RunID),
		Organizations: f.changed, Changes: f.changes,
		Finance: f.finance.list(), TierMatrix: f.finance.matrix(),
		Plain: f.plain, Omitted: f.omitted(),
		OutcomeOptions: outcomeOptions(f.found), ReasonOptions: options(f.reasons), AccessOptions: options(f.access),
		CatchUp: run.Kind == billing.KindCatchUp,
	}
	if w := run.Window; w != nil {
		p.Window = "from " + moment(w.From) + " to " + moment(w.To)
	}
	if !run.AmendedAt.IsZero() {
		p.Amended = moment(run.AmendedAt)
	}
	for _, g := range p.Finance {
		p.FinanceTotal += g.N
		p.Knows = p.Knows || g.longest > 0
	}
	p.StatusMeans, p.StatusCommand = s.ExplainStatus()
	p.StatusCommand = clean(p.StatusCommand)
	if s.FinishedAt != nil {
		p.Finished, p.Took = moment(*s.FinishedAt), duration(time.Duration(s.DurationMs)*time.Millisecond)
	}
	return p
}

func tone(s billing.Summary) string {
	switch {
	case s.Status == billing.RunCompleted && s.StatusReason == "":
		return "good"
	case s.Status.Open():
		return "open"
	default:
		return "bad"
	}
}

// outcomeFigures add up to the total.
func outcomeFigures(s billing.Summary) []outcomeFigure {
	drift := outcomeFigure{Key: "synced", Label: "repaired", Note: "differed from Stripe, now as Stripe says", N: repaired(s)}
	held := outcomeFigure{Key: "withheld", Label: "withheld", Note: "differ; check them before the next run", N: withheld(s)}
	if s.DryRun {
		drift.Label, drift.Note = "would be repaired", "differ from Stripe; a dry run writes nothing"
		held.Label, held.Note = "would be withheld", "differ, above the limit"
	}
	all := []outcomeFigure{
		drift,
		held,
		{Key: "error", Label: "other errors", Note: "need a person", N: otherErrors(s)},
		{Key: "skipped", Label: "nothing to do", Note: "in sync, or nothing in Stripe", N: s.Skipped},
	}
	if s.AcceptedErrors > 0 {
		all = slices.Insert(all, 3, outcomeFigure{Key: "accepted", Label: "accepted errors", Note: "known, need nobody", N: s.AcceptedErrors})
	}
	if s.Pending > 0 {
		all = append(all, outcomeFigure{Key: "pending", Label: "pending", Note: "without an outcome yet", N: s.Pending})
	}
	return all
}

// repaired and withheld are the organizations that differed from Stripe. Those of a dry run would be.
func repaired(s billing.Summary) int { return s.Synchronized - s.WouldWithholdInAll() }

func withheld(s billing.Summary) int { return s.Withheld() + s.WouldWithholdInAll() }

// otherErrors are those that need a person and are not withheld.
func otherErrors(s billing.Summary) int { return s.OtherErrors() - s.AcceptedErrors }

func segments(s billing.Summary) []segment {
	if s.TotalOrganizations == 0 {
		return nil
	}
	var all []segment
	x := 0.0
	for _, o := range outcomeFigures(s) {
		width := 100 * float64(o.N) / float64(s.TotalOrganizations)
		if o.N > 0 {
			all = append(all, segment{Key: o.Key, X: x, Width: width})
		}
		x += width
	}
	return all
}

// guard says how many organizations were lowered and withheld, or would be.
func guard(s billing.Summary) string {
	lowered, whose := "Access lowered: "+billing.Count(s.Downgrades, "organization"), "run's limit"
	limit := billing.Thousands(s.DowngradeLimit)
	if s.LimitShared {
		whose = "limit of all catch-ups together within 24 hours"
	}
	would, did := s.WouldWithhold()[billing.ReasonWithheld], s.Reasons[billing.ReasonWithheld]
	switch {
	case would > 0:
		return "Access would be lowered for " + billing.Count(s.Downgrades, "organization") + "; " + article(s) + whose + " is " + limit + ", so it would withhold " + billing.Thousands(would) + "."
	case s.DryRun:
		return "Access would be lowered for " + billing.Count(s.Downgrades, "organization") + ", within " + article(s) + whose + " of " + limit + "."
	case did > 0 || s.LimitShared:
		return lowered + ", the " + whose + " is " + limit + "; withheld: " + billing.Thousands(did) + "."
	default:
		return lowered + ", the " + whose + " is " + limit + "."
	}
}

// article of the limit: a dry run's is that of any run, while catch-ups share one.
func article(s billing.Summary) string {
	if s.LimitShared {
		return "the "
	}
	return "a "
}

// heldIfWritten lists what a run that writes would withhold: a dry run has it in no other table.
func heldIfWritten(s billing.Summary, orgID string) []reasonRow {
	var all []reasonRow
	would := s.WouldWithhold()
	for _, reason := range most(would) {
		all = append(all, reasonRow{Advice: s.AdviceIfWritten(reason, orgID), N: would[reason]})
	}
	return all
}

// wouldSplit is "" if nothing would be withheld.
func wouldSplit(s billing.Summary) string {
	would := s.WouldWithholdInAll()
	if would == 0 {
		return ""
	}
	lowered := s.Access.Lowered.Organizations
	text := "Access would be lowered for " + billing.Count(lowered, "organization") + ": a run that writes lowers " + billing.Thousands(lowered-would) +
		" and withholds " + billing.Thousands(would) + "."
	if lowered > would {
		text += " Which ones is not known in advance."
	}
	return text
}

// decided says who started the run, who approved its downgrades, and how many errors are accepted; it may be empty.
func decided(s billing.Summary) string {
	var all []string
	if s.By != "" {
		all = append(all, "Asked for by "+s.By+".")
	}
	if s.AllowDowngrade {
		all = append(all, "It may lower the organization's access even if another run withholds that change.")
	}
	if a := s.Approval; a != nil {
		all = append(all, "Approved: "+billing.Count(a.Limit, "downgrade")+" in all, by "+a.By+", "+moment(a.At)+".")
	}
	if s.AcceptedErrors > 0 {
		all = append(all, "Accepted as known: "+billing.Count(s.AcceptedErrors, "error")+".")
	}
	return clean(strings.Join(all, " "))
}

// coded is a billing.Reason or a billing.WarningCode.
type coded interface {
	~string
	Advice() billing.Advice
}

func reasonRows[K coded](counts map[K]int) []reasonRow {
	var all []reasonRow
	for _, code := range most(counts) {
		all = append(all, reasonRow{Advice: code.Advice(), N: counts[code]})
	}
	return all
}

// errorRows have the commands for this run, or for its only organization.
func errorRows(f *findings, s billing.Summary, orgID string) []reasonRow {
	all := f.withNames(reasonRows(f.errors))
	for i, row := range all {
		reason := billing.Reason(row.Code)
		all[i].Commands = repair(reason, f.lowers[reason], s, orgID)
	}
	return all
}

// withNames adds to each row the first organizations that have its error or warning.
func (f *findings) withNames(all []reasonRow) []reasonRow {
	for i, row := range all {
		all[i].Named = f.named[row.Code]
	}
	return all
}

func orphanRows(mode config.Mode, orphans []billing.Orphan) []orphanRow {
	var all []orphanRow
	for _, o := range orphans {
		all = append(all, orphanRow{
			Subscription: linkSubscription(mode, o.SubscriptionID), Customer: linkCustomer(mode, o.CustomerID),
			Status: clean(string(o.Status)), OrgID: clean(o.OrgID),
		})
	}
	return all
}

func fieldRows(drift map[string]int) []fieldRow {
	fields := most(drift)
	all := make([]fieldRow, len(fields))
	for i, field := range fields {
		all[i] = fieldRow{Field: clean(field), N: drift[field], Width: 100 * float64(drift[field]) / float64(drift[fields[0]])}
	}
	return all
}

func options[K ~string](counts map[K]int) []option {
	var all []option
	for _, key := range most(counts) {
		all = append(all, option{Value: clean(string(key)), N: counts[key]})
	}
	return all
}

// outcomeOptions say that of the skipped organizations only those with a warning are listed.
func outcomeOptions(found map[billing.Outcome]int) []option {
	all := options(found)
	for i, o := range all {
		if o.Value == string(billing.OutcomeSkipped) {
			all[i].Note = " with a warning"
		}
	}
	return all
}

// moment is to the minute: the page says that times are UTC.
func moment(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04") + " UTC" }

func duration(d time.Duration) string {
	if d < time.Second {
		return "less than a second"
	}
	return d.Round(time.Second).String()
}

// percent is of the total, to a tenth; the space does not break.
func percent(n, total int) string {
	if total == 0 {
		return "0\u00a0%"
	}
	return strconv.FormatFloat(100*float64(n)/float64(total), 'f', 1, 64) + "\u00a0%"
}
