package present

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
)

// JSON writes the summary as the log line has it.
func JSON(w io.Writer, s billing.Summary) error {
	message := pipeline.Headline(s.Status)
	if s.Status.Open() {
		message = "Reconciliation running"
	}
	return json.NewEncoder(w).Encode(map[string]any{"message": message, "result": s})
}

// Summary writes what changed, field by field, the run's figures, and what is to be done; where the
// queues are still there, with the commands that work on them.
func Summary(w io.Writer, s billing.Summary, queued bool) error {
	var b strings.Builder
	writeDetails(&b, s)
	writeFigures(&b, s)
	writeToDo(&b, s, queued)
	_, err := io.WriteString(w, b.String())
	return err
}

// writeDetails lists each organization with its changes below it.
func writeDetails(b *strings.Builder, s billing.Summary) {
	for _, d := range s.Details {
		fmt.Fprintf(b, "%-8s %s  %s\n", d.Action, Clean(d.OrgID), d.Reason)
		WriteChanges(b, d.Changes)
		if d.Error != "" {
			fmt.Fprintf(b, "           %s\n", Clean(d.Error))
		}
		WriteWarnings(b, d.Warnings)
	}
	// Skipped organizations with a warning are details too, so a few more may be left out.
	if rest := s.Synchronized + s.Errors - len(s.Details); rest > 0 {
		fmt.Fprintf(b, "... and %d more; every one stands in reconciliation_items under run %s\n", rest, Clean(s.RunID))
	}
	if len(s.Details) > 0 {
		b.WriteString("\n")
	}
}

// WriteChanges writes each change on a line.
func WriteChanges(b *strings.Builder, changes []billing.Change) {
	for _, c := range changes {
		fmt.Fprintf(b, "           %-40s %s -> %s\n", Clean(c.Field), Value(c.From), Value(c.To))
	}
}

// WriteWarnings writes each warning on a line.
func WriteWarnings(b *strings.Builder, warnings []billing.Warning) {
	for _, w := range warnings {
		fmt.Fprintf(b, "           warning %s: %s\n", w.Code, Clean(w.Message))
	}
}

func writeFigures(b *strings.Builder, s billing.Summary) {
	kind := ""
	if s.DryRun {
		kind = " (dry run: nothing was written to the application's tables)"
	}
	fmt.Fprintf(b, "run %s: %s%s\n", Clean(s.RunID), s.Status, kind)
	if s.StatusReason != "" {
		fmt.Fprintf(b, "  because          %s: %s\n", s.StatusReason, Clean(s.StatusMessage))
	}
	done := "synchronized"
	if s.DryRun {
		done = "drifted"
	}
	fmt.Fprintf(b, "  organizations    %d = %d %s + %d errors + %d skipped + %d pending\n",
		s.TotalOrganizations, s.Synchronized, done, s.Errors, s.Skipped, s.Pending)
	fmt.Fprintf(b, "  reasons          %s\n", counts(s.Reasons))
	fmt.Fprintf(b, "  drift by field   %s\n", counts(s.DriftByField))
	fmt.Fprintf(b, "  downgrades       %d, limit %d%s\n", s.Downgrades, s.DowngradeLimit, guard(s))
	if s.SweepAbandoned {
		b.WriteString("  sweep            given up, the log says why: Stripe is asked for each organization, and nobody looked for orphans\n")
	}
	if s.OrphansTotal > 0 {
		fmt.Fprintf(b, "  orphans          %s\n", orphans(s))
	}
	fmt.Fprintf(b, "  Stripe requests  %d list, %d retrieve, %d other, %d of them throttled\n",
		s.StripeRequests.List, s.StripeRequests.Retrieve, s.StripeRequests.Other, s.StripeRequests.Throttled)
	if s.FinishedAt == nil {
		fmt.Fprintf(b, "  started          %s, not finished\n", s.StartedAt.Format(time.RFC3339))
		return
	}
	fmt.Fprintf(b, "  duration         %s\n", (time.Duration(s.DurationMs) * time.Millisecond).String())
}

// guard says what the limit of downgrades did, or would do.
func guard(s billing.Summary) string {
	withheld := s.Reasons[billing.ReasonWithheld]
	switch {
	case withheld > 0:
		return fmt.Sprintf("; %d more were withheld", withheld)
	case s.DryRun && s.Downgrades > s.DowngradeLimit:
		return fmt.Sprintf("; a run that writes would withhold %d of them", s.Downgrades-s.DowngradeLimit)
	default:
		return ""
	}
}

// orphans names some of the live subscriptions that lead to no organization.
func orphans(s billing.Summary) string {
	const some = 3
	var ids []string
	for _, o := range s.Orphans[:min(len(s.Orphans), some)] {
		ids = append(ids, o.SubscriptionID)
	}
	text := fmt.Sprintf("%d live subscriptions that no organization accounts for: %s", s.OrphansTotal, strings.Join(ids, ", "))
	if s.OrphansTotal > len(ids) {
		text += ", ..."
	}
	return Clean(text)
}

func counts[K ~string](m map[K]int) string {
	if len(m) == 0 {
		return "none"
	}
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %d", key, m[key]))
	}
	return Clean(strings.Join(parts, ", "))
}

// Value is a column's value, as a terminal may show it.
func Value(v any) string {
	switch v := v.(type) {
	case nil:
		return "NULL"
	case time.Time:
		return v.Format(time.RFC3339)
	default:
		return Clean(fmt.Sprint(v))
	}
}

// Clean replaces what a terminal would take as a command or not show as it is: data may hold
// anything.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
