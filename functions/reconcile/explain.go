package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/wiring"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// explain shows what a worker would read and write.
func (c *command) explain(ctx context.Context, orgID string) error {
	settings, err := config.Load(c.environ, needsToExplain...)
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	stripe := wiring.Stripe(settings, 1, log)
	return onStore(ctx, settings, func(store *mysqlstore.Store) error {
		if err := schemaFault(ctx, store); err != nil {
			return err
		}
		if want := settings.Stripe.AccountID; want != "" {
			if _, err := pipeline.CheckAccount(ctx, stripe, want, ""); err != nil {
				return err
			}
		}
		e, err := wiring.Reconciler(settings, store, stripe, log).Explain(ctx, orgID)
		if err != nil {
			return err
		}
		names, err := store.OrganizationNames(ctx, []string{e.Record.Org.ID})
		if err != nil {
			return err
		}
		x := explanationOf(e)
		if x.Event, err = store.LatestCause(ctx, e.Record.Org.ID); err != nil {
			return err
		}
		if x.next, err = nextStepsOf(ctx, store, x); err != nil {
			return err
		}
		return c.showExplanation(x, names[e.Record.Org.ID])
	})
}

// schemaFault returns why no run could be started on the application's tables. It ignores other errors: a server that is
// read-only is good enough to explain.
func schemaFault(ctx context.Context, store *mysqlstore.Store) error {
	_, err := store.CheckApplication(ctx, false)
	if err == nil || billing.AsFailure(err).Reason != billing.ReasonDatabaseSchema {
		return nil
	}
	return err
}

// nextSteps are what to do about a plan that a run would not carry out.
type nextSteps struct {
	first    string // what to do before the commands; may be empty
	commands []string
	note     string // on the commands; may be empty
}

func nextStepsOf(ctx context.Context, store *mysqlstore.Store, x explanation) (nextSteps, error) {
	switch x.Plan.Reason {
	case billing.ReasonNotRepeated:
		return allowOne(x.OrgID), nil
	case billing.ReasonWithheldByRun:
		by, err := store.WithholdingRun(ctx, x.OrgID, time.Now().Add(-billing.WithheldFor))
		if err != nil || by.RunID == "" {
			return nextSteps{}, err
		}
		if !by.ApprovedAt.IsZero() {
			return nextSteps{commands: []string{"reconcile redrive --watch"}}, nil
		}
		if by.Reason != billing.ReasonWithheld { // the run's limit is not what withheld it
			return allowOne(x.OrgID), nil
		}
		a, err := approvalOf(ctx, store, by.RunID)
		return lookThenApprove(a), err
	default:
		return nextSteps{commands: x.Plan.Reason.Advice().RetryCommands(billing.Summary{}, x.OrgID)}, nil
	}
}

// allowOne returns the steps for an undone repair. The person must first stop what writes the old state back, because it
// would undo the repair again.
func allowOne(orgID string) nextSteps {
	return nextSteps{first: billing.ReasonNotRepeated.Advice().Do, commands: []string{billing.Summary{}.Command("reconcile org ORG --allow-downgrade", orgID)}}
}

// lookThenApprove leaves the limit open: an approval is for all that the run withholds, and only one organization was
// looked at.
func lookThenApprove(a approval) nextSteps {
	run := billing.Summary{RunID: a.RunID}
	return nextSteps{
		commands: []string{
			run.Command("reconcile status RUN", ""), run.Command("reconcile report RUN --html FILE", ""),
			run.Command("reconcile approve RUN", "") + " --limit N", "reconcile redrive --watch",
		},
		note: fmt.Sprintf("N allows that many downgrades in all, not this organization alone: look at the others first; this run withholds %s and has downgraded %d",
			billing.Count(a.Withheld, "organization"), a.Downgrades),
	}
}

// explanation is what explain prints. Columns have their names in the database, Stripe's fields those of Stripe.
type explanation struct {
	OrgID    string `json:"orgId"`
	Database struct {
		Organization  map[string]any   `json:"organizations"`
		Subscriptions []map[string]any `json:"subscriptions"`
	} `json:"database"`
	Stripe          []seen    `json:"stripe"`
	CustomerMissing bool      `json:"customerMissing"`
	ReadAt          time.Time `json:"readAt"`
	Governs         string    `json:"governs"` // "" if none does
	// Event is the latest event that named the organization in a catch-up; nil if there is none.
	Event *billing.Cause `json:"event"`
	Why   string         `json:"why"`
	Plan  planned        `json:"plan"`

	next nextSteps
}

// seen is a subscription in Stripe and its part in the choice.
type seen struct {
	billing.Considered

	fields []stripeField
}

// stripeField is a field of a subscription; nil is null.
type stripeField struct {
	name, key string // for people, in JSON
	value     any
}

// planned is what a run would do.
type planned struct {
	Outcome      billing.Outcome   `json:"outcome"`
	Reason       billing.Reason    `json:"reason"`
	Error        string            `json:"error"`
	Changes      []billing.Change  `json:"changes"`
	Warnings     []billing.Warning `json:"warnings"`
	LowersAccess bool              `json:"lowersAccess"`
}

func explanationOf(e pipeline.Explanation) explanation {
	x := explanation{
		OrgID: e.Record.Org.ID, Stripe: []seen{}, CustomerMissing: e.Truth.CustomerMissing, ReadAt: e.Truth.ReadAt,
		Governs: e.Choice.GoverningID, Why: e.Choice.Why, Plan: plannedOf(e),
	}
	x.Database.Organization = map[string]any{"is_deleted": e.Record.Org.Deleted}
	for _, c := range billing.ColumnsOf(billing.TableOrganizations) {
		x.Database.Organization[c.Name()] = c.Value(nil, &e.Record.Org)
	}
	x.Database.Subscriptions = []map[string]any{}
	for _, r := range e.Record.Rows {
		row := map[string]any{"id": r.ID}
		for _, c := range billing.ColumnsOf(billing.TableSubscriptions) {
			row[c.Name()] = c.Value(&r, nil)
		}
		x.Database.Subscriptions = append(x.Database.Subscriptions, row)
	}
	for _, c := range e.Choice.Considered {
		x.Stripe = append(x.Stripe, seenOf(c))
	}
	return x
}

// seenOf returns the fields that are compared under the names of their columns.
func seenOf(c billing.Considered) seen {
	s := c.Subscription
	fields := []stripeField{{"customer", "customer", s.CustomerID}, {"price", "price", s.PriceID}, {"created", "created", orNull(s.Created)}}
	for _, column := range billing.ColumnsOf(billing.TableSubscriptions) {
		switch column.Group {
		case billing.GroupID, billing.GroupTier, billing.GroupStatus: // Stripe has other names for them
		default:
			fields = append(fields, stripeField{column.Name(), camelCase(column.Name()), column.Wanted(s, "")})
		}
	}
	return seen{c, append(fields, stripeField{"metadata.orgId", "metadataOrgId", s.OrgID}, stripeField{"metadata.tier", "metadataTier", s.MetadataTier})}
}

// MarshalJSON writes one object.
func (s seen) MarshalJSON() ([]byte, error) {
	all := map[string]any{"id": s.Subscription.ID, "candidate": s.Candidate, "why": s.Why, "status": s.Subscription.Status}
	for _, f := range s.fields {
		all[f.key] = f.value
	}
	return json.Marshal(all)
}

// camelCase of current_period_end is currentPeriodEnd.
func camelCase(name string) string {
	words := strings.Split(name, "_")
	for i, word := range words[1:] {
		words[i+1] = strings.ToUpper(word[:1]) + word[1:]
	}
	return strings.Join(words, "")
}

func orNull(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}

func plannedOf(e pipeline.Explanation) planned {
	p := planned{
		Outcome: e.Plan.Outcome, Reason: e.Plan.Reason, Changes: []billing.Change{}, Warnings: []billing.Warning{}, LowersAccess: e.LowersAccess,
	}
	p.Changes = append(p.Changes, e.Plan.Changes...)
	p.Warnings = append(p.Warnings, e.Plan.Warnings...)
	if f := cmp.Or(e.Refusal, e.Withheld); f != nil {
		p.Outcome, p.Reason, p.Error = billing.OutcomeError, f.Reason, f.Error()
	}
	return p
}

func (c *command) showExplanation(x explanation, name string) error {
	if c.json {
		return json.NewEncoder(c.out).Encode(x)
	}
	p := output.NewPage(c.out)
	p.Line(0, "organization %s  %s", telemetry.OneLine(x.OrgID), telemetry.OneLine(name))
	p.Blank()
	p.Line(0, "the database says")
	writeColumns(p, billing.TableOrganizations, x.Database.Organization, append(compared(billing.TableOrganizations), "is_deleted"))
	for _, row := range x.Database.Subscriptions {
		writeColumns(p, billing.TableSubscriptions, row, append([]string{"id"}, compared(billing.TableSubscriptions)...))
	}
	if len(x.Database.Subscriptions) == 0 {
		p.Line(2, "subscriptions: no row")
	}
	p.Blank()
	p.Line(0, "Stripe says, read at %s", x.ReadAt.Format(time.RFC3339))
	writeSeen(p, x)
	if x.Event != nil {
		p.Line(2, "named in a catch-up by %s", x.Event.Describe(x.ReadAt))
	}
	p.Blank()
	writePlan(p, x)
	return p.Flush()
}

// compared returns the names of the table's compared columns.
func compared(table string) (names []string) {
	for _, c := range billing.ColumnsOf(table) {
		names = append(names, c.Name())
	}
	return names
}

// writeColumns writes a row of the database, the columns in the order given.
func writeColumns(p *output.Page, table string, row map[string]any, columns []string) {
	p.Line(2, "%s", table)
	for _, column := range columns {
		writeField(p, column, row[column])
	}
}

func writeField(p *output.Page, name string, value any) {
	p.Line(4, "%-24s %s", name, output.Value(value))
}

func writeSeen(p *output.Page, x explanation) {
	if len(x.Stripe) == 0 {
		p.Line(2, "no subscription")
	}
	for _, s := range x.Stripe {
		role := "no candidate"
		switch {
		case s.Subscription.ID == x.Governs:
			role = "governs"
		case s.Candidate:
			role = "candidate"
		}
		p.Line(2, "%s  %s  %s (%s)", s.Subscription.ID, s.Subscription.Status, role, s.Why)
		for _, f := range s.fields {
			if f.value != nil && f.value != "" {
				writeField(p, f.name, f.value)
			}
		}
	}
}

func writePlan(p *output.Page, x explanation) {
	const indent = 4
	governs := "none"
	if x.Governs != "" {
		governs = x.Governs
	}
	colour := output.ColourOf(x.Plan.Outcome, x.Plan.Reason)
	p.Line(0, "governs  %s: %s", governs, x.Why)
	p.Parts(0, indent, output.Part(output.Plain, "plan     "), output.Part(colour, "%s, %s", wouldBe(x.Plan), x.Plan.Reason))
	p.Changes(indent, x.Plan.Changes)
	advice, next := x.Plan.Reason.Advice(), nextSteps{}
	if x.Plan.Error != "" {
		p.Line(indent, "%s", x.Plan.Error)
		next = x.next
	}
	if x.Plan.Reason.Withholds() { // the error says what it means
		advice.Means, advice.Do = "", next.first
	}
	p.Advice(indent, advice, next.commands)
	if next.note != "" {
		p.Line(indent, "%s", next.note)
	}
	p.Warnings(indent, x.Plan.Warnings)
	if x.Plan.LowersAccess {
		p.Line(indent, "this lowers access and counts against a run's limit of downgrades")
	}
	p.Line(0, "nothing was written")
}

// wouldBe describes what a run would do.
func wouldBe(p planned) string {
	if p.Outcome == billing.OutcomeSynced {
		return output.Did(billing.OutcomeDrifted)
	}
	return output.Did(p.Outcome)
}
