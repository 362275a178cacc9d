package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/present"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/wire"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
)

// explain shows what a worker would see and do, and writes nothing.
func (c *command) explain(ctx context.Context, orgID string) error {
	settings, err := config.Load(c.environ, config.NeedDatabase, config.NeedStripe)
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	stripe := wire.Stripe(settings, 1, log)
	return onStore(ctx, settings, func(store *mysqlstore.Store) error {
		if err := rightAccount(ctx, stripe, settings.Stripe.AccountID); err != nil {
			return err
		}
		e, err := wire.Reconciler(settings, store, stripe, log).Explain(ctx, orgID)
		if err != nil {
			return err
		}
		return c.showExplanation(explanationOf(e))
	})
}

// rightAccount: in another account every subscription would seem to be missing.
func rightAccount(ctx context.Context, stripe *stripesource.Client, want string) error {
	if want == "" {
		return nil
	}
	got, err := stripe.Account(ctx)
	if err == nil && got != want {
		err = &billing.Failure{Class: billing.RunFatal, Reason: billing.ReasonWrongAccount, Message: fmt.Sprintf(
			"STRIPE_SECRET_KEY belongs to account %s but STRIPE_ACCOUNT_ID is %s; correct one of them", got, want)}
	}
	return err
}

// explanation is an organization as people and machines are shown it. Columns have their names
// in the database, and what Stripe holds has Stripe's.
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
	Why             string    `json:"why"`
	Plan            planned   `json:"plan"`
}

// seen is a subscription in Stripe and what it counts for.
type seen struct {
	billing.Considered

	fields []stripeField
}

// stripeField is one of a subscription's: null is nil.
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

// seenOf shows under its column's name what is compared as Stripe has it.
func seenOf(c billing.Considered) seen {
	s := c.Subscription
	fields := []stripeField{{"customer", "customer", s.CustomerID}, {"price", "price", s.PriceID}, {"product", "product", s.ProductID}, {"created", "created", orNull(s.Created)}}
	for _, column := range billing.ColumnsOf(billing.TableSubscriptions) {
		switch column.Group {
		case billing.GroupID, billing.GroupTier, billing.GroupStatus: // Stripe has them under other names, or not
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
		Outcome: e.Plan.Outcome, Reason: e.Plan.Reason, Changes: []billing.Change{}, Warnings: []billing.Warning{}, LowersAccess: e.Lowers,
	}
	p.Changes = append(p.Changes, e.Plan.Changes...)
	p.Warnings = append(p.Warnings, e.Plan.Warnings...)
	if e.Refusal != nil {
		p.Outcome, p.Reason, p.Error = billing.OutcomeError, e.Refusal.Reason, e.Refusal.Error()
	}
	return p
}

func (c *command) showExplanation(x explanation) error {
	if c.json {
		return json.NewEncoder(c.out).Encode(x)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "organization %s\n\nthe database says\n", present.Clean(x.OrgID))
	writeColumns(&b, billing.TableOrganizations, x.Database.Organization, append(compared(billing.TableOrganizations), "is_deleted"))
	for _, row := range x.Database.Subscriptions {
		writeColumns(&b, billing.TableSubscriptions, row, append([]string{"id"}, compared(billing.TableSubscriptions)...))
	}
	if len(x.Database.Subscriptions) == 0 {
		b.WriteString("  subscriptions: no row\n")
	}
	fmt.Fprintf(&b, "\nStripe says, read at %s\n", x.ReadAt.Format(time.RFC3339))
	writeSeen(&b, x)
	writePlan(&b, x)
	_, err := io.WriteString(c.out, b.String())
	return err
}

// compared are the names of the table's columns that are.
func compared(table string) (names []string) {
	for _, c := range billing.ColumnsOf(table) {
		names = append(names, c.Name())
	}
	return names
}

// writeColumns writes a row of the database, the columns in the order given.
func writeColumns(b *strings.Builder, table string, row map[string]any, columns []string) {
	fmt.Fprintf(b, "  %s\n", table)
	for _, column := range columns {
		fmt.Fprintf(b, "    %-24s %s\n", column, present.Value(row[column]))
	}
}

func writeSeen(b *strings.Builder, x explanation) {
	if len(x.Stripe) == 0 {
		b.WriteString("  no subscription\n")
	}
	for _, s := range x.Stripe {
		role := "no candidate"
		switch {
		case s.Subscription.ID == x.Governs:
			role = "governs"
		case s.Candidate:
			role = "candidate"
		}
		fmt.Fprintf(b, "  %s  %s  %s (%s)\n", present.Clean(s.Subscription.ID), present.Clean(string(s.Subscription.Status)), role, present.Clean(s.Why))
		for _, f := range s.fields {
			if f.value != nil && f.value != "" {
				fmt.Fprintf(b, "    %-24s %s\n", f.name, present.Value(f.value))
			}
		}
	}
}

func writePlan(b *strings.Builder, x explanation) {
	governs := "none"
	if x.Governs != "" {
		governs = x.Governs
	}
	fmt.Fprintf(b, "\ngoverns  %s: %s\n", present.Clean(governs), present.Clean(x.Why))
	fmt.Fprintf(b, "plan     %s, %s\n", x.Plan.Outcome, x.Plan.Reason)
	present.WriteChanges(b, x.Plan.Changes)
	advice, commands := x.Plan.Reason.Advice(), []string(nil)
	if x.Plan.Error != "" {
		fmt.Fprintf(b, "           %s\n", present.Clean(x.Plan.Error))
		commands = advice.Repair(billing.Summary{}, x.OrgID)
	}
	present.WriteAdvice(b, "           ", advice, commands)
	present.WriteWarnings(b, x.Plan.Warnings)
	if x.Plan.LowersAccess {
		b.WriteString("           this lowers access, so it counts against a run's limit of downgrades\n")
	}
	b.WriteString("nothing was written\n")
}
