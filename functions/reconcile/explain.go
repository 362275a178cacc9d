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
	ID                 string     `json:"id"`
	Candidate          bool       `json:"candidate"`
	Why                string     `json:"why"`
	Status             string     `json:"status"`
	Customer           string     `json:"customer"`
	Price              string     `json:"price"`
	Product            string     `json:"product"`
	Created            *time.Time `json:"created"`
	CurrentPeriodStart *time.Time `json:"currentPeriodStart"`
	CurrentPeriodEnd   *time.Time `json:"currentPeriodEnd"`
	TrialEnd           *time.Time `json:"trialEnd"`
	CancelAtPeriodEnd  bool       `json:"cancelAtPeriodEnd"`
	CanceledAt         *time.Time `json:"canceledAt"`
	EndedAt            *time.Time `json:"endedAt"`
	MetadataOrgID      string     `json:"metadataOrgId"`
	MetadataTier       string     `json:"metadataTier"`
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
	org := e.Record.Org
	x.Database.Organization = map[string]any{
		"stripe_customer_id": org.CustomerID, "subscription_tier": org.Tier, "subscription_status": org.Status, "trial_ends_at": org.TrialEndsAt,
		"is_deleted": org.Deleted,
	}
	x.Database.Subscriptions = []map[string]any{}
	for _, r := range e.Record.Rows {
		x.Database.Subscriptions = append(x.Database.Subscriptions, map[string]any{
			"id": r.ID, "stripe_subscription_id": r.SubscriptionID, "stripe_customer_id": r.CustomerID, "stripe_price_id": r.PriceID,
			"plan_tier": r.Tier, "status": r.Status, "current_period_start": r.CurrentPeriodStart, "current_period_end": r.CurrentPeriodEnd,
			"trial_end": r.TrialEnd, "cancel_at_period_end": r.CancelAtPeriodEnd, "canceled_at": r.CanceledAt, "ended_at": r.EndedAt,
		})
	}
	for _, c := range e.Choice.Considered {
		x.Stripe = append(x.Stripe, seenOf(c))
	}
	return x
}

func seenOf(c billing.Considered) seen {
	s := c.Subscription
	return seen{
		ID: s.ID, Candidate: c.Candidate, Why: c.Why, Status: string(s.Status), Customer: s.CustomerID, Price: s.PriceID, Product: s.ProductID,
		Created: orNull(s.Created), CurrentPeriodStart: orNull(s.CurrentPeriodStart), CurrentPeriodEnd: orNull(s.CurrentPeriodEnd),
		TrialEnd: orNull(s.TrialEnd), CancelAtPeriodEnd: s.CancelAtPeriodEnd, CanceledAt: orNull(s.CanceledAt), EndedAt: orNull(s.EndedAt),
		MetadataOrgID: s.OrgID, MetadataTier: s.MetadataTier,
	}
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
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
	writeColumns(&b, "organizations", x.Database.Organization,
		"stripe_customer_id", "subscription_tier", "subscription_status", "trial_ends_at", "is_deleted")
	for _, row := range x.Database.Subscriptions {
		writeColumns(&b, "subscriptions", row, "id", "stripe_subscription_id", "stripe_customer_id", "stripe_price_id", "plan_tier", "status",
			"current_period_start", "current_period_end", "trial_end", "cancel_at_period_end", "canceled_at", "ended_at")
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

// writeColumns writes a row of the database, the columns in the order given.
func writeColumns(b *strings.Builder, table string, row map[string]any, columns ...string) {
	fmt.Fprintf(b, "  %s\n", table)
	for _, column := range columns {
		fmt.Fprintf(b, "    %-24s %s\n", column, present.Value(plain(row[column])))
	}
}

// plain is what a pointer points at; a nil one is nil, which is NULL.
func plain(v any) any {
	switch v := v.(type) {
	case *string:
		if v != nil {
			return *v
		}
	case *bool:
		if v != nil {
			return *v
		}
	case *time.Time:
		if v != nil {
			return *v
		}
	default:
		return v
	}
	return nil
}

func writeSeen(b *strings.Builder, x explanation) {
	if len(x.Stripe) == 0 {
		b.WriteString("  no subscription\n")
	}
	for _, s := range x.Stripe {
		role := "no candidate"
		switch {
		case s.ID == x.Governs:
			role = "governs"
		case s.Candidate:
			role = "candidate"
		}
		fmt.Fprintf(b, "  %s  %s  %s (%s)\n", present.Clean(s.ID), present.Clean(s.Status), role, present.Clean(s.Why))
		for _, line := range []struct {
			name  string
			value any
		}{
			{"customer", s.Customer},
			{"price", s.Price},
			{"product", s.Product},
			{"created", plain(s.Created)},
			{"current_period_start", plain(s.CurrentPeriodStart)},
			{"current_period_end", plain(s.CurrentPeriodEnd)},
			{"trial_end", plain(s.TrialEnd)},
			{"cancel_at_period_end", s.CancelAtPeriodEnd},
			{"canceled_at", plain(s.CanceledAt)},
			{"ended_at", plain(s.EndedAt)},
			{"metadata.orgId", s.MetadataOrgID},
			{"metadata.tier", s.MetadataTier},
		} {
			if line.value != nil && line.value != "" {
				fmt.Fprintf(b, "    %-24s %s\n", line.name, present.Value(line.value))
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
	if x.Plan.Error != "" {
		fmt.Fprintf(b, "           %s\n", present.Clean(x.Plan.Error))
	}
	present.WriteWarnings(b, x.Plan.Warnings)
	if x.Plan.LowersAccess {
		b.WriteString("           this lowers access, so it counts against a run's limit of downgrades\n")
	}
	b.WriteString("nothing was written\n")
}
