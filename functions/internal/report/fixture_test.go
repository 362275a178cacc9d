package report

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

var (
	now      = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	november = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	december = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
)

// these returns the items as a store would, in their order.
func these(items ...mysqlstore.ReportItem) Items {
	return func(_ context.Context, fn func(mysqlstore.ReportItem) error, outcomes ...billing.Outcome) error {
		for _, i := range items {
			if !slices.Contains(outcomes, i.Outcome) {
				continue
			}
			i.Lowers = billing.DefaultTiers.LowersAccess(i.Changes)
			i.Raises = !i.Lowers && billing.DefaultTiers.RaisesAccess(i.Changes)
			if err := fn(i); err != nil {
				return err
			}
		}
		return nil
	}
}

// item returns organization org with these changes, named "Name of" org and decided now.
func item(org string, outcome billing.Outcome, reason billing.Reason, changes ...billing.Change) mysqlstore.ReportItem {
	return mysqlstore.ReportItem{
		Item: billing.Item{
			RunID: "run-1", OrgID: org, Outcome: outcome, Reason: reason, SubscriptionID: "sub_" + org, Changes: changes,
		},
		DecidedAt: now, OrgName: "Name of " + org, OrgCustomerID: "cus_" + org, OrgTier: "pro", OrgStatus: "active", PriceID: "price_" + org,
	}
}

func tierChange(from, to any) billing.Change {
	return billing.Change{Field: billing.FieldPlanTier, From: from, To: to}
}

// runOf returns a run with these items, in test mode.
func runOf(items ...mysqlstore.ReportItem) Run {
	s := billing.Summary{
		RunID: "run-1", Status: billing.RunCompletedWithErrors, TotalOrganizations: len(items), Reasons: map[billing.Reason]int{},
		DriftByField: map[string]int{}, StartedAt: now, FinishedAt: new(now.Add(time.Minute)), DurationMs: 60_000,
	}
	for _, i := range items {
		s.Reasons[i.Reason]++
		switch i.Outcome {
		case billing.OutcomeError:
			s.Errors++
		case billing.OutcomeSkipped:
			s.Skipped++
		default:
			s.Synchronized++
			for _, field := range fieldsOf(i.Changes) {
				s.DriftByField[field]++
			}
		}
	}
	return Run{Summary: s, Mode: config.ModeTest, WrittenAt: now.Add(time.Hour), Items: these(items...)}
}

// many returns n organizations with one change each, every tenth of them an error.
func many(n int) []mysqlstore.ReportItem {
	items := make([]mysqlstore.ReportItem, n)
	for i := range items {
		org := fmt.Sprintf("org-%05d", i)
		items[i] = item(org, billing.OutcomeSynced, billing.ReasonRepaired, tierChange("free", "pro"),
			billing.Change{Field: billing.FieldCurrentPeriodEnd, From: november, To: december})
		if i%10 == 9 {
			items[i].Outcome, items[i].Reason, items[i].Error = billing.OutcomeError, billing.ReasonWithheld, "the limit is reached"
		}
	}
	return items
}
