package output

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// View selects the parts of a summary that people want to see.
type View struct {
	// OnlyErrors leaves out the organizations that are not in error, OnlyFigures all of them.
	OnlyErrors, OnlyFigures bool
	// Names are the known names of organizations, by id.
	Names map[string]string
	// Queued is true if the run has queues, so that commands that use them are shown. Else those of local are shown.
	Queued bool
	// Window is the part of Stripe's event log that a catch-up read; nil for other runs.
	Window *billing.Window
	// Tiers tell which changes lower access; without them, no organization of a dry run is marked.
	Tiers billing.Tiers
	// Stored is true if the database still exists, which has the details that a summary leaves out.
	Stored bool
}

// JSON writes the summary as the log line has it.
func JSON(w io.Writer, s billing.Summary) error {
	message := pipeline.Headline(s.Status)
	if s.Status.Open() {
		message = "Reconciliation running"
	}
	return json.NewEncoder(w).Encode(map[string]any{"message": message, "result": s})
}

// Summary writes what changed, field by field, the run's figures, and what is to be done next.
func Summary(w io.Writer, s billing.Summary, v View) error {
	p := NewPage(w)
	p.details(s, v)
	p.figures(s, v.Window)
	p.toDo(s, v)
	return p.Flush()
}

// details lists each organization with its changes below it.
func (p *Page) details(s billing.Summary, v View) {
	if v.OnlyFigures {
		return
	}
	listed, errors := 0, 0
	m := marksOf(s, v.Tiers)
	for _, d := range s.Details {
		if d.Action == billing.OutcomeError {
			errors++
		} else if v.OnlyErrors {
			continue
		}
		listed++
		p.detail(d, s, v, m)
	}
	if len(m.lowered) > 0 && !v.OnlyErrors {
		p.Line(0, "%d of those that lower access would be withheld; which ones depends on the order in which a run decides them", s.WouldWithhold()[billing.ReasonWithheld])
	}
	rest := leftOut(s)
	if v.OnlyErrors {
		rest = s.Errors - errors
	}
	if rest > 0 {
		p.Line(0, "... and %d more; %s", rest, whereTheRestIs(s, v))
	}
	if listed > 0 {
		p.Blank()
	}
}

// leftOut is how many organizations with changes or an error are no details.
func leftOut(s billing.Summary) int {
	rest := s.Synchronized + s.Errors
	for _, d := range s.Details {
		if d.Action != billing.OutcomeSkipped {
			rest--
		}
	}
	return rest
}

func whereTheRestIs(s billing.Summary, v View) string {
	if !v.Stored {
		return "local --hold keeps the database that has them"
	}
	return s.Command("reconcile report RUN --csv changes.csv", "") + " has all of them"
}

func (p *Page) detail(d billing.Detail, s billing.Summary, v View, m marks) {
	const indent = 4
	widest := Did(billing.OutcomeSkipped)
	switch {
	case len(m.certain) > 0:
		widest = wouldBeWithheld
	case s.DryRun:
		widest = Did(billing.OutcomeDrifted)
	}
	did, reason := Did(d.Action), d.Reason
	if held, certain := m.certain[d.OrgID]; certain {
		did, reason = wouldBeWithheld, held
	}
	colour := ColourOf(d.Action, reason)
	parts := []Span{Part(colour, "%-*s", len(widest), did), Part(Plain, "  %s", telemetry.OneLine(d.OrgID))}
	if name := v.Names[d.OrgID]; name != "" {
		parts = append(parts, Part(Plain, "  %s", telemetry.OneLine(name)))
	}
	parts = append(parts, Part(colour, "  %s", reason))
	if m.lowered[d.OrgID] {
		parts = append(parts, Part(Attention, "  lowers access"))
	}
	p.Parts(0, indent, parts...)
	if d.Event != nil {
		p.Line(indent, "named by %s", d.Event.Describe(s.StartedAt))
	}
	p.Changes(indent, d.Changes)
	if d.Error != "" && d.Reason != billing.ReasonWithheld { // which is said once, below
		p.Line(indent, "%s", d.Error)
	}
	p.Warnings(indent, d.Warnings)
	for _, a := range d.Accepted {
		p.Line(indent, "%s", Accepted(a))
	}
}

// Accepted says what is accepted, by whom and until when.
func Accepted(a billing.Acceptance) string {
	until := "until it is removed"
	if a.Until != nil {
		until = "until " + a.Until.UTC().Format(time.RFC3339)
	}
	return telemetry.OneLine(fmt.Sprintf("accepted: %s, by %s at %s, %s: %s", a.Code, a.By, a.At.UTC().Format(time.RFC3339), until, a.Why))
}

// Did says in words what became of an organization, or would.
func Did(outcome billing.Outcome) string {
	if outcome == billing.OutcomeDrifted {
		return "would repair"
	}
	return string(outcome)
}

// ColourOf an organization with this outcome and reason.
func ColourOf(outcome billing.Outcome, reason billing.Reason) Colour {
	switch {
	case reason.Withholds():
		return Attention
	case outcome == billing.OutcomeError:
		return Failed
	default:
		return Plain
	}
}

// Changes writes each change on a line.
func (p *Page) Changes(indent int, changes []billing.Change) {
	for _, c := range changes {
		p.Line(indent, "%-36s %s -> %s", c.Field, Value(c.From), Value(c.To))
	}
}

// Warnings writes each warning on a line.
func (p *Page) Warnings(indent int, warnings []billing.Warning) {
	for _, w := range warnings {
		p.Line(indent, "warning %s: %s", w.Code, w.Message)
	}
}

// wouldBeWithheld is what a run that writes would withhold.
const wouldBeWithheld = "would be withheld"

func (p *Page) figures(s billing.Summary, window *billing.Window) {
	kind := ""
	if s.DryRun {
		kind = " (dry run: nothing was written to the application's tables)"
	}
	p.Parts(0, deeper, Part(Plain, "run %s: ", s.RunID), Part(ColourOfStatus(s.Status), "%s", s.Status), Part(Plain, "%s", kind))
	if s.StatusReason != "" {
		p.Line(2, "because of %s: %s", s.StatusReason, s.StatusMessage)
	}
	if s.By != "" {
		p.Figure("asked for by", "%s", telemetry.OneLine(s.By))
	}
	if window != nil {
		p.Figure("Stripe's events from", "%s", window.From.UTC().Format(time.RFC3339))
		p.Figure("to", "%s", window.To.UTC().Format(time.RFC3339))
		if s.TotalOrganizations == 0 && !s.Status.Open() {
			p.Line(4, "no event in this window names an organization")
		}
	}
	done := "synced"
	if s.DryRun {
		done = Did(billing.OutcomeDrifted)
	}
	p.Count(2, "organizations", s.TotalOrganizations, Plain)
	wouldWithhold := s.WouldWithholdInAll()
	p.Count(4, done, s.Synchronized-wouldWithhold, Plain)
	if wouldWithhold > 0 {
		p.Count(4, wouldBeWithheld, wouldWithhold, Attention)
	}
	p.Count(4, "error", s.Errors, Failed)
	p.Count(4, "skipped", s.Skipped, Plain)
	p.Count(4, "pending", s.Pending, Plain)
	Counts(p, "reasons", s.Reasons, colourOfReason)
	Counts(p, "warnings", s.Warnings, func(billing.WarningCode) Colour { return Attention })
	Counts(p, "accepted, counted apart", s.Accepted, func(string) Colour { return Plain })
	Counts(p, "drift by field", s.DriftByField, func(string) Colour { return Plain })
	for _, missed := range s.DriftByCause.Missed() {
		p.Count(2, missed.What, missed.Organizations, Attention)
	}
	p.downgrades(s)
	p.sweep(s)
	p.Line(2, "Stripe requests")
	p.Count(4, "list", int(s.StripeRequests.List), Plain)
	p.Count(4, "retrieve", int(s.StripeRequests.Retrieve), Plain)
	p.Count(4, "other", int(s.StripeRequests.Other), Plain)
	p.Count(4, "of them throttled", int(s.StripeRequests.Throttled), Plain)
	if s.FinishedAt == nil {
		p.Figure("started", "%s, not finished", s.StartedAt.Format(time.RFC3339))
		return
	}
	p.Figure("took", "%7s", time.Duration(s.DurationMs)*time.Millisecond)
}

// ColourOfStatus of a run.
func ColourOfStatus(status billing.RunStatus) Colour {
	switch status {
	case billing.RunStopped, billing.RunSuspect, billing.RunIncomplete:
		return Failed
	case billing.RunCompletedWithErrors:
		return Attention
	default:
		return Plain
	}
}

func colourOfReason(reason billing.Reason) Colour {
	switch reason.Advice().Concern {
	case billing.ConcernPerson, billing.ConcernPassing:
		return ColourOf(billing.OutcomeError, reason)
	default:
		return Plain
	}
}

// downgrades writes how many repairs lowered access, and their limit.
func (p *Page) downgrades(s billing.Summary) {
	p.Count(2, "downgrades", s.Downgrades, Plain)
	if s.LimitShared {
		p.Count(4, "limit of all catch-ups in 24 h", s.DowngradeLimit, Plain)
	} else {
		p.Count(4, "limit", s.DowngradeLimit, Plain)
	}
	if a := s.Approval; a != nil {
		p.Line(4, "%d approved by %s at %s", a.Limit, telemetry.OneLine(a.By), a.At.UTC().Format(time.RFC3339))
	}
	if s.AllowDowngrade {
		p.Line(4, "allowed even if another run withholds it")
	}
}

// sweep writes the results that only a sweep has.
func (p *Page) sweep(s billing.Summary) {
	if s.SweepAbandoned {
		p.Line(2, "the sweep was abandoned, the log says why: each organization is read from Stripe, and orphans were not looked for")
	}
	if s.OrphansTotal > 0 {
		p.Count(2, "orphans", s.OrphansTotal, Attention)
		p.Line(4, "live subscriptions that no organization accounts for: %s", orphans(s))
	}
}

// orphans names some of the live subscriptions that lead to no organization.
func orphans(s billing.Summary) string {
	const some = 3
	var ids []string
	for _, o := range s.Orphans[:min(len(s.Orphans), some)] {
		ids = append(ids, o.SubscriptionID)
	}
	text := strings.Join(ids, ", ")
	if s.OrphansTotal > len(ids) {
		text += ", ..."
	}
	return text
}

// Value is a column's value, as a terminal may show it.
func Value(v any) string {
	switch v := v.(type) {
	case nil:
		return "NULL"
	case time.Time:
		return v.Format(time.RFC3339)
	default:
		return telemetry.Clean(fmt.Sprint(v))
	}
}
