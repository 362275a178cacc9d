package testworld

import (
	"context"
	"database/sql"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// Webhook is the application's handler of Stripe's events. It writes an event's payload as it is: first the row, then the
// organization, without a transaction.
type Webhook struct {
	DB    *sql.DB
	Tiers map[string]string // by price
}

// Webhook returns the handler of this world's application.
func (w *World) Webhook() Webhook {
	tiers := map[string]string{}
	for price, tier := range Rules.Prices {
		tiers[price] = string(tier)
	}
	return Webhook{w.DB.DB, tiers}
}

// Handle executes all statements of an event, with pauses between them.
func (h Webhook) Handle(ctx context.Context, org string, sub stripetest.Subscription, pause func()) error {
	if err := h.insertRow(ctx, org); err != nil {
		return err
	}
	pause()
	if err := h.updateRow(ctx, org, sub); err != nil {
		return err
	}
	pause()
	return h.WriteOrganization(ctx, org, sub)
}

// WriteRow executes the statements for the organization's row.
func (h Webhook) WriteRow(ctx context.Context, org string, sub stripetest.Subscription) error {
	if err := h.insertRow(ctx, org); err != nil {
		return err
	}
	return h.updateRow(ctx, org, sub)
}

func (h Webhook) insertRow(ctx context.Context, org string) error {
	var rows int
	err := h.DB.QueryRowContext(ctx, `SELECT COUNT(*) FROM subscriptions WHERE org_id = ?`, org).Scan(&rows)
	if err == nil && rows == 0 {
		_, err = h.DB.ExecContext(ctx, `INSERT INTO subscriptions (id, org_id) VALUES (UUID(), ?)`, org)
	}
	return err
}

func (h Webhook) updateRow(ctx context.Context, org string, sub stripetest.Subscription) error {
	_, err := h.DB.ExecContext(ctx, `UPDATE subscriptions SET stripe_subscription_id = ?, stripe_customer_id = ?, stripe_price_id = ?, plan_tier = ?,
		status = ?, current_period_start = ?, current_period_end = ?, trial_end = ?, cancel_at_period_end = ?, canceled_at = ?, ended_at = ?
		WHERE org_id = ? ORDER BY created_at DESC LIMIT 1`,
		sub.ID, sub.CustomerID, sub.PriceID, h.Tier(sub), RowStatus(sub.Status), date(sub.CurrentPeriodStart), date(sub.CurrentPeriodEnd), date(sub.TrialEnd),
		sub.CancelAtPeriodEnd, date(sub.CanceledAt), date(sub.EndedAt), org)
	return err
}

// WriteOrganization executes the statement for the organization.
func (h Webhook) WriteOrganization(ctx context.Context, org string, sub stripetest.Subscription) error {
	_, err := h.DB.ExecContext(ctx, `UPDATE organizations SET stripe_customer_id = ?, subscription_tier = ?, subscription_status = ?, trial_ends_at = ? WHERE id = ?`,
		sub.CustomerID, h.Tier(sub), OrgStatus(sub.Status), date(sub.TrialEnd), org)
	return err
}

// Tier returns the tier that the application derives from a subscription.
func (h Webhook) Tier(sub stripetest.Subscription) string {
	switch sub.Status {
	case "canceled", "incomplete", "incomplete_expired", "paused":
		return "free"
	}
	if tier, ok := h.Tiers[sub.PriceID]; ok {
		return tier
	}
	return "starter"
}

// RowStatus returns the status in a subscriptions row for a status in Stripe.
func RowStatus(status string) string {
	if status == "paused" {
		return "incomplete"
	}
	return status
}

// OrgStatus returns the status of an organization for a status in Stripe.
func OrgStatus(status string) string {
	switch status {
	case "unpaid":
		return "past_due"
	case "incomplete_expired":
		return "canceled"
	default:
		return RowStatus(status)
	}
}

// date converts Stripe's time to a value of the tables.
func date(seconds int64) sql.NullTime {
	return sql.NullTime{Time: time.Unix(seconds, 0).UTC(), Valid: seconds != 0}
}
