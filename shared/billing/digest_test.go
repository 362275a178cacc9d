package billing_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

const reportURL = "s3://acme-reports/reports/2026-11-29T03:00:00Z/report.html"

func weekly(status billing.RunStatus) billing.Summary {
	return billing.Summary{
		RunID: "2026-11-29T03:00:00Z", Status: status, TotalOrganizations: 24_812, DowngradeLimit: 1240,
		StartedAt: time.Date(2026, 11, 29, 3, 0, 0, 0, time.UTC),
	}
}

func goodWeek() billing.Summary {
	s := weekly(billing.RunCompleted)
	s.Synchronized, s.Skipped, s.Downgrades = 22, 24_790, 3
	s.Reasons = map[billing.Reason]int{billing.ReasonRepaired: 21, billing.ReasonRowInserted: 1, billing.ReasonInSync: 24_100, billing.ReasonNoSubscription: 690}
	s.Warnings = map[billing.WarningCode]int{billing.WarnMultipleLive: 2, billing.WarnCancellationScheduled: 14}
	s.Access = billing.AccessChanges{
		Raised:  billing.Affected{Organizations: 8, First: []string{"org_03", "org_11", "org_12", "org_19", "org_20", "org_31", "org_40", "org_52"}},
		Lowered: billing.Affected{Organizations: 3, First: []string{"org_07", "org_08", "org_77"}},
	}
	return s
}

func badWeek() billing.Summary {
	s := weekly(billing.RunCompletedWithErrors)
	s.Synchronized, s.Errors, s.Skipped, s.Downgrades = 1302, 84, 23_426, 1240
	s.Reasons = map[billing.Reason]int{
		billing.ReasonRepaired: 1302, billing.ReasonInSync: 23_426, billing.ReasonWithheld: 61, billing.ReasonTierUnresolved: 12,
		billing.ReasonStripeUnavailable: 8, billing.ReasonSubscriptionConflict: 2, billing.ReasonOtherMode: 1,
	}
	s.Warnings = map[billing.WarningCode]int{billing.WarnMultipleLive: 2, billing.WarnPaidWithoutSubscription: 4}
	s.Access = billing.AccessChanges{
		Raised:  billing.Affected{Organizations: 1, First: []string{"org_03"}},
		Lowered: billing.Affected{Organizations: 1240, First: []string{"org_07", "org_08", "org_09", "org_10", "org_11", "org_12"}},
	}
	s.SweepAbandoned = false
	s.OrphansTotal = 7
	for n := range 7 {
		s.Orphans = append(s.Orphans, billing.Orphan{SubscriptionID: fmt.Sprintf("sub_%d", n)})
	}
	return s
}

func dryRun() billing.Summary {
	s := weekly(billing.RunCompletedWithErrors)
	s.DryRun, s.Synchronized, s.Errors, s.Skipped, s.Downgrades = true, 1363, 12, 23_437, 1301
	s.Reasons = map[billing.Reason]int{billing.ReasonRepaired: 1363, billing.ReasonInSync: 23_437, billing.ReasonTierUnresolved: 12}
	s.Access = billing.AccessChanges{Lowered: billing.Affected{Organizations: 1301, First: []string{"org_07", "org_08", "org_09", "org_10", "org_11", "org_12"}}}
	return s
}

func TestDigestTellsTheOutcomeAndWhatToDo(t *testing.T) {
	stopped := weekly(billing.RunStopped)
	stopped.Pending, stopped.TotalOrganizations, stopped.StatusReason = 300, 300, billing.ReasonStripeUnauthorized
	stopped.StatusMessage = "Invalid API Key provided"
	suspect := weekly(billing.RunSuspect)
	suspect.TotalOrganizations, suspect.StatusReason, suspect.StatusMessage = 0, billing.ReasonNoOrganizations, "no organization was found, the last run had 24811"
	incomplete := weekly(billing.RunIncomplete)
	incomplete.Pending, incomplete.Skipped, incomplete.SweepAbandoned = 12, 24_800, true
	missed := weekly(billing.RunCompleted)
	missed.TotalOrganizations, missed.Synchronized, missed.DriftByCause = 3, 3, billing.DriftByCause{Pending: 2, NotPending: 1}
	one := weekly(billing.RunCompleted)
	one.RunID, one.TotalOrganizations, one.Skipped = "0193", 1, 1

	tests := map[string]struct {
		run  billing.Run
		s    billing.Summary
		url  string
		want []string
	}{
		"a good week": {s: goodWeek(), url: reportURL, want: []string{
			"Subscription reconciliation, Sunday 29 November 2026, 03:00 UTC: all went well.",
			"Compared with Stripe: 24,812 organizations; 22 were repaired, 0 need a person, 24,790 needed nothing.",
			"Access raised for 8 organizations: org_03, org_11, org_12, org_19, org_20 and 3 more.",
			"Access lowered for 3 organizations: org_07, org_08, org_77.",
			"Nothing needs a person.",
			"Warnings, to be looked at when there is time (the report explains them): cancellation_scheduled 14, multiple_live_subscriptions 2.",
			"Report: s3://acme-reports/reports/2026-11-29T03:00:00Z/report.html",
		}},
		"a bad week": {s: badWeek(), url: reportURL, want: []string{
			"Subscription reconciliation, Sunday 29 November 2026, 03:00 UTC: done, but some organizations need a person.",
			"Compared with Stripe: 24,812 organizations; 1,302 were repaired, 84 need a person, 23,426 needed nothing.",
			"Access raised for 1 organization: org_03.",
			"Access lowered for 1,240 organizations: org_07, org_08, org_09, org_10, org_11 and 1,235 more.",
			"Needs a person:",
			"- 61 organizations, withheld: It would lower access, and the run's limit of downgrades was reached, so nothing was written.",
			"  To do: Look at the changes. If they are right, raise the limit. Then run: reconcile org ORG --explain, then reconcile approve 2026-11-29T03:00:00Z --limit 1301, then reconcile redrive --watch",
			"- 12 organizations, tier_unresolved: No tier is configured for the subscription's prices or products, or what is known is not enough to lower the record's tier.",
			"  To do: Add the price to its tier's STRIPE_PRICE_ID list or to STRIPE_PRICE_ID_ADDON, or the product to its STRIPE_PRODUCT_ID list or to STRIPE_PRODUCT_ID_ADDON. Then run: reconcile redrive --watch",
			"- 8 organizations, stripe_unavailable: Stripe did not answer any of many requests.",
			"  To do: Wait until status.stripe.com is green. Then run: reconcile redrive --watch",
			"- 3 organizations for other reasons, which the report explains.",
			"Warnings, to be looked at when there is time (the report explains them): paid_without_subscription 4, multiple_live_subscriptions 2.",
			"Orphans, to be given to an organization or ended in Stripe: 7 live subscriptions that no organization accounts for: sub_0, sub_1, sub_2, sub_3, sub_4 and 2 more.",
			"Report: s3://acme-reports/reports/2026-11-29T03:00:00Z/report.html",
		}},
		"a dry run": {s: dryRun(), want: []string{
			"Subscription reconciliation, dry run (nothing was written), Sunday 29 November 2026, 03:00 UTC: done, but some organizations need a person.",
			"Compared with Stripe: 24,812 organizations; 1,363 would be repaired, 12 need a person, 23,437 needed nothing.",
			"Access would be lowered for 1,301 organizations: org_07, org_08, org_09, org_10, org_11 and 1,296 more.",
			"A run that writes would stop lowering access at its limit of 1,240 and leave the rest to a person.",
			"Needs a person:",
			"- 12 organizations, tier_unresolved: No tier is configured for the subscription's prices or products, or what is known is not enough to lower the record's tier.",
			"  To do: Add the price to its tier's STRIPE_PRICE_ID list or to STRIPE_PRICE_ID_ADDON, or the product to its STRIPE_PRODUCT_ID list or to STRIPE_PRODUCT_ID_ADDON. Then run: reconcile start --dry-run",
			"Report: reconcile report 2026-11-29T03:00:00Z --html report.html",
		}},
		"a stopped run": {s: stopped, want: []string{
			"Subscription reconciliation, Sunday 29 November 2026, 03:00 UTC: stopped before its end.",
			"Why: Stripe refuses the key: it was rolled, has expired, or is wrong. (stripe_unauthorized)",
			"  To do: Put a valid key into STRIPE_SECRET_KEY or the secret. Then run: reconcile start --resume 2026-11-29T03:00:00Z",
			"Compared with Stripe: 300 organizations; 0 were repaired, 0 need a person, 0 needed nothing, 300 not looked at.",
			"Report: reconcile report 2026-11-29T03:00:00Z --html report.html",
		}},
		"a suspect run": {s: suspect, want: []string{
			"Subscription reconciliation, Sunday 29 November 2026, 03:00 UTC: done, but do not trust it yet.",
			"Why: No organization was found where the last run found some. (no_organizations)",
			"  To do: Check DB_HOST, DB_NAME and the organizations table before you trust it. Then run: reconcile start",
			"Compared with Stripe: 0 organizations; 0 were repaired, 0 need a person, 0 needed nothing.",
			"Report: reconcile report 2026-11-29T03:00:00Z --html report.html",
		}},
		"an incomplete run": {s: incomplete, want: []string{
			"Subscription reconciliation, Sunday 29 November 2026, 03:00 UTC: not finished in time, some organizations were not looked at.",
			"Compared with Stripe: 24,812 organizations; 0 were repaired, 0 need a person, 24,800 needed nothing, 12 not looked at.",
			"  To do: Find out why the workers did not get through. Then run: reconcile start --resume 2026-11-29T03:00:00Z",
			"Stripe's list could not be read to its end, so nobody looked for subscriptions without an organization.",
			"Report: reconcile report 2026-11-29T03:00:00Z --html report.html",
		}},
		"a catch-up": {s: missed, want: []string{
			"Subscription reconciliation, Sunday 29 November 2026, 03:00 UTC: all went well.",
			"Compared with Stripe: 3 organizations; 3 were repaired, 0 need a person, 0 needed nothing.",
			"Missed webhooks: of 2 organizations Stripe could not deliver yet (an endpoint fails); of 1 organization none waits for delivery (the application mishandled it, or no endpoint asks for such events).",
			"Nothing needs a person.",
			"Report: reconcile report 2026-11-29T03:00:00Z --html report.html",
		}},
		"one organization": {run: billing.Run{OrgID: "org_03"}, s: one, want: []string{
			"Subscription reconciliation of organization org_03, Sunday 29 November 2026, 03:00 UTC: all went well.",
			"Compared with Stripe: 1 organization; 0 were repaired, 0 need a person, 1 needed nothing.",
			"Nothing needs a person.",
			"Report: reconcile report 0193 --html report.html",
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, strings.Split(billing.Digest(tt.run, tt.s, tt.url), "\n")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDigestOfACatchUpThatBeganTooLateDoesNotSayThatAllWentWell(t *testing.T) {
	s := weekly(billing.RunCompleted)
	s.StatusReason, s.StatusMessage = billing.ReasonEventsExpired, "Stripe lists events of 30 days only"
	text := billing.Digest(billing.Run{Strategy: billing.StrategyEvents}, s, "")
	if strings.Contains(text, "all went well") || strings.Contains(text, "Nothing needs a person") || !strings.Contains(text, "reconcile start") {
		t.Error(text)
	}
}

// The summary has every line that a digest may have, and every text of the data is hostile.
func TestDigestStaysShortAndOnItsLines(t *testing.T) {
	hostile := "org\r\nReport: https://evil.example\u2028\u202e\x1b[2J\x00" + strings.Repeat("x", 5000)
	s := badWeek()
	s.RunID, s.DryRun, s.SweepAbandoned, s.Downgrades, s.DowngradeLimit = hostile, true, true, 2, 1
	s.StatusReason, s.StatusMessage = billing.ReasonNoSubscriptions, hostile
	s.Access.Raised = billing.Affected{Organizations: 1_000_000, First: []string{hostile, hostile}}
	s.Access.Lowered = billing.Affected{Organizations: 1_000_000, First: []string{hostile, hostile}}
	s.DriftByCause = billing.DriftByCause{Pending: 1, NotPending: 1}
	s.Reasons, s.Warnings = map[billing.Reason]int{}, map[billing.WarningCode]int{}
	for n, a := range billing.AllAdvice() {
		if a.Concern == billing.ConcernWarning {
			s.Warnings[billing.WarningCode(a.Code)] = n
		} else {
			s.Reasons[billing.Reason(a.Code)] = n
		}
	}
	s.Reasons[billing.Reason(hostile)] = 1000
	for n := range s.Orphans {
		s.Orphans[n].SubscriptionID = hostile
	}
	for _, status := range []billing.RunStatus{"completed", "completed_with_errors", "incomplete", "suspect", "stopped", "running"} {
		s.Status = status
		lines := strings.Split(billing.Digest(billing.Run{OrgID: hostile}, s, "s3://bucket/"+hostile), "\n")
		if len(lines) > billing.MaxDigestLines {
			t.Errorf("%d lines:\n%s", len(lines), strings.Join(lines, "\n"))
		}
		for _, line := range lines {
			if strings.ContainsAny(line, "\r\u2028\u202e\x1b\x00") || strings.HasPrefix(line, "Report: https") {
				t.Errorf("the data broke a line: %q", line)
			}
			if n := utf8.RuneCountInString(line); n > 500 {
				t.Errorf("a line of %d characters: %.60q", n, line)
			}
		}
	}
}
