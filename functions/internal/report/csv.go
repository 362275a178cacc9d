package report

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

// byteOrderMark marks the text as UTF-8: without it, spreadsheets assume the local encoding.
const byteOrderMark = "\uFEFF"

// The columns of the tables. Programs read them: add at the end only.
var (
	changeHeader = []string{
		"run_id", "organization_id", "organization_name", "outcome", "reason", "applied", "field", "before", "after",
		"tier_changed", "period_changed", "access_lowered", "subscription_id", "customer_id", "decided_at", "error", "warnings",
		"event_id", "event_type", "event_at", "event_webhooks", "accepted",
	}
	organizationHeader = []string{
		"run_id", "organization_id", "organization_name", "outcome", "reason", "applied", "tier_before", "tier_after", "status_before", "status_after",
		"access", "price_id", "subscription_id", "customer_id", "decided_at", "error", "warnings",
		"event_id", "event_type", "event_at", "event_webhooks", "accepted",
	}
)

// CSV writes one row for each change, and one for each organization without changes that has an error or a warning, in
// the order of the organization ids. It streams: items are not held in memory. An empty cell is NULL.
func CSV(ctx context.Context, w io.Writer, items Items) (Written, error) {
	return table(ctx, w, changeHeader, items, func(i mysqlstore.ReportItem) [][]string {
		if len(i.Changes) == 0 {
			return [][]string{changeRow(i, nil)}
		}
		rows := make([][]string, len(i.Changes))
		for n := range i.Changes {
			rows[n] = changeRow(i, &i.Changes[n])
		}
		return rows
	})
}

// OrganizationsCSV writes one row for each organization that has changes, an error or a warning, as CSV
// does: its tier and status before and after.
func OrganizationsCSV(ctx context.Context, w io.Writer, items Items) (Written, error) {
	return table(ctx, w, organizationHeader, items, func(i mysqlstore.ReportItem) [][]string {
		return [][]string{organizationRow(i)}
	})
}

func table(ctx context.Context, w io.Writer, header []string, items Items, rows func(mysqlstore.ReportItem) [][]string) (Written, error) {
	var n Written
	if _, err := io.WriteString(w, byteOrderMark); err != nil {
		return n, err
	}
	out := csv.NewWriter(w)
	if err := out.Write(header); err != nil {
		return n, err
	}
	err := items(ctx, func(i mysqlstore.ReportItem) error {
		n.count(i)
		for _, row := range rows(i) {
			for cell, text := range row {
				row[cell] = plain(clean(text))
			}
			if err := out.Write(row); err != nil {
				return err
			}
			n.Rows++
		}
		return nil
	}, billing.OutcomeSynced, billing.OutcomeDrifted, billing.OutcomeError, billing.OutcomeSkipped)
	if err != nil {
		return n, err
	}
	out.Flush()
	return n, out.Error()
}

// changeRow returns the row of one change. c is nil if the organization has no change.
func changeRow(i mysqlstore.ReportItem, c *billing.Change) []string {
	event := eventCells(i.Cause)
	var field, before, after string
	if c != nil {
		field, before, after = c.Field, cell(c.From), cell(c.To)
	}
	return []string{
		i.RunID, i.OrgID, i.OrgName, string(i.Outcome), string(i.Reason), appliedCell(i), field, before, after,
		yesNo(touches(i.Changes, billing.GroupTier)), yesNo(touches(i.Changes, billing.GroupPeriod)), yesNo(i.Lowers),
		i.SubscriptionID, customerOf(i), timestamp(i.DecidedAt), i.Error, warningsCell(i.Warnings),
		event[0], event[1], event[2], event[3], acceptedCell(i.Item),
	}
}

// eventCells are id, type, time and delivery of the event that named the organization in a catch-up; empty otherwise.
func eventCells(c *billing.Cause) [4]string {
	if c == nil {
		return [4]string{}
	}
	return [4]string{c.ID, c.Type, timestamp(c.Created), c.Delivery()}
}

func organizationRow(i mysqlstore.ReportItem) []string {
	tier, status, event := tierOf(i), statusOf(i), eventCells(i.Cause)
	return []string{
		i.RunID, i.OrgID, i.OrgName, string(i.Outcome), string(i.Reason), appliedCell(i), tier.before, tier.after, status.before, status.after,
		accessCell(i), priceOf(i), i.SubscriptionID, customerOf(i), timestamp(i.DecidedAt), i.Error, warningsCell(i.Warnings),
		event[0], event[1], event[2], event[3], acceptedCell(i.Item),
	}
}

// acceptedCell has the codes of the error and the warnings that are accepted.
func acceptedCell(i billing.Item) string {
	codes := slices.DeleteFunc(i.AcceptableCodes(), func(code string) bool { return !i.Accepts(code) })
	return strings.Join(codes, " | ")
}

// appliedCell is empty if the organization has no changes.
func appliedCell(i mysqlstore.ReportItem) string {
	if len(i.Changes) == 0 {
		return ""
	}
	return yesNo(applied(i.Item))
}

func accessCell(i mysqlstore.ReportItem) string {
	switch {
	case i.Lowers:
		return "lowered"
	case i.Raises:
		return "raised"
	default:
		return ""
	}
}

func warningsCell(warnings []billing.Warning) string {
	texts := make([]string, len(warnings))
	for n, w := range warnings {
		texts[n] = fmt.Sprintf("%s: %s", w.Code, w.Message)
	}
	return strings.Join(texts, " | ")
}

func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case time.Time:
		return timestamp(v)
	default:
		return fmt.Sprint(v)
	}
}

// timestamp is a time in UTC in a form that spreadsheets read as a date.
func timestamp(t time.Time) string { return t.UTC().Format(time.DateTime) }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// formula matches the start of a formula at the start of the text or after a semicolon: in locales with decimal commas,
// spreadsheets split cells at semicolons even inside quotes. Some spreadsheets skip white space before a formula and
// accept full-width characters.
var formula = regexp.MustCompile(`(^|;)([\s\p{Z}\x{FFFD}]*[=+\-@＝＋－＠])`)

// plain puts an apostrophe in front of a formula, which makes it text. https://owasp.org/www-community/attacks/CSV_Injection
func plain(s string) string { return formula.ReplaceAllString(s, "${1}'${2}") }
