package report

import (
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

// move is a value before and after the run. Both are "" if the value is unknown.
type move struct{ before, after string }

// tierOf is the organization's tier before and after: from the change of the organization's column, else of its
// subscriptions row, else the current one. Where there was no row, the current one is also that before.
func tierOf(i mysqlstore.ReportItem) move {
	return moved(i.Changes, i.OrgTier, billing.FieldOrgTier, billing.FieldPlanTier)
}

// statusOf is the organization's status, found as tierOf finds the tier.
func statusOf(i mysqlstore.ReportItem) move {
	return moved(i.Changes, i.OrgStatus, billing.FieldOrgStatus, billing.FieldStatus)
}

// priceOf is the price that decides the organization's tier, once the changes are written.
func priceOf(i mysqlstore.ReportItem) string {
	return moved(i.Changes, i.PriceID, billing.FieldPriceID).after
}

// moved is the change of the first of these fields that has one, else the current value twice.
func moved(changes []billing.Change, current string, fields ...string) move {
	for _, field := range fields {
		for _, c := range changes {
			switch {
			case c.Field != field:
			case c.From == nil: // the row is new and the organization's own column did not change: it had this value
				return move{cell(c.To), cell(c.To)}
			default:
				return move{cell(c.From), cell(c.To)}
			}
		}
	}
	return move{current, current}
}
