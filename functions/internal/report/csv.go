package report

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"regexp"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

// header names the columns. Programs read it: add at the end only.
var header = []string{
	"run_id", "organization_id", "organization_name", "outcome", "reason", "applied", "field", "before", "after",
	"tier_changed", "period_changed", "access_lowered", "subscription_id", "customer_id", "decided_at",
}

// CSV writes one row for each change, by organization id, while it reads them. An empty
// cell is NULL.
func CSV(ctx context.Context, w io.Writer, items Items) (Written, error) {
	var n Written
	out := csv.NewWriter(w)
	if err := out.Write(header); err != nil {
		return n, err
	}
	err := items(ctx, func(i mysqlstore.ReportItem) error {
		if len(i.Changes) > 0 {
			n.Organizations++
		}
		for _, c := range i.Changes {
			n.Changes++
			if err := out.Write(row(i, c)); err != nil {
				return err
			}
		}
		return nil
	}, billing.OutcomeSynced, billing.OutcomeDrifted, billing.OutcomeError)
	if err != nil {
		return n, err
	}
	out.Flush()
	return n, out.Error()
}

func row(i mysqlstore.ReportItem, c billing.Change) []string {
	cells := []string{
		i.RunID, i.OrgID, i.OrgName, string(i.Outcome), string(i.Reason), yesNo(applied(i.Item)), c.Field, cell(c.From), cell(c.To),
		yesNo(touches(i.Changes, billing.GroupTier)), yesNo(touches(i.Changes, billing.GroupPeriod)), yesNo(i.Lowers),
		i.SubscriptionID, customerOf(i), i.DecidedAt.UTC().Format(time.RFC3339),
	}
	for n, text := range cells {
		cells[n] = plain(clean(text))
	}
	return cells
}

func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case time.Time:
		return v.Format(time.RFC3339)
	default:
		return fmt.Sprint(v)
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// formula is the start of one: of the text, or of what follows a semicolon. Where decimals have a
// comma, spreadsheets take semicolons to separate cells, and then no quotes keep a cell together.
// The wide forms count, and white space in front does not help with every spreadsheet.
var formula = regexp.MustCompile(`(^|;)([\s\p{Z}\x{FFFD}]*[=+\-@＝＋－＠])`)

// plain keeps a spreadsheet from taking the text for a formula: an apostrophe in front makes it
// text. https://owasp.org/www-community/attacks/CSV_Injection
func plain(s string) string { return formula.ReplaceAllString(s, "${1}'${2}") }
