package chaos_test

import (
	"maps"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// consistentResult is a result that violates no invariant: a was downgraded, b has an unknown status, c pays.
func consistentResult() result {
	a, b, c := billing.Work{RunID: firstRun, OrgID: "a"}, billing.Work{RunID: firstRun, OrgID: "b"}, billing.Work{RunID: firstRun, OrgID: "c"}
	row := map[string]any{"subscription_tier": "max", "subscription_status": "active"}
	paid := map[string]any{"stripe_subscription_id": "sub_c", "status": "active", "plan_tier": "pro", "stripe_price_id": priceOf("PRO"), "cancel_at_period_end": 0.0}
	lowered := maps.Clone(row)
	lowered["subscription_tier"] = "pro"
	var limit config.DowngradeLimit
	if err := limit.UnmarshalText([]byte("1")); err != nil {
		panic(err)
	}
	version := stripetest.Subscription{ID: "sub_c", Status: "active", PriceID: priceOf("PRO"), Metadata: map[string]string{"orgId": "c"}}
	paid["stripe_customer_id"] = version.CustomerID
	return result{
		population: population{eligible: map[string]bool{"a": true, "b": true, "c": true}, named: map[string]bool{}, unreconcilable: map[string]billing.Reason{"b": billing.ReasonUnknownStatus}},
		runs: map[string]runRow{firstRun: {
			id: firstRun, status: billing.RunCompletedWithErrors, downgrades: 1, limit: 1,
			summary: &billing.Summary{Status: billing.RunCompletedWithErrors, TotalOrganizations: 3, Synchronized: 2, Errors: 1},
		}},
		items: map[billing.Work]billing.Item{
			a: {Outcome: billing.OutcomeSynced, Revision: 1, Changes: []billing.Change{{Field: billing.FieldOrgTier, From: "max", To: "pro"}}},
			b: {Outcome: billing.OutcomeError, Reason: billing.ReasonUnknownStatus, Revision: 1},
			c: {Outcome: billing.OutcomeSynced, Revision: 1, Changes: []billing.Change{{Field: billing.FieldPlanTier, From: "free", To: "pro"}}},
		},
		deadLetters: []deadLetter{{work: b, reason: "unknown_status"}, {body: hostile, reason: "malformed_message"}},
		junk:        map[string]bool{hostile: true, "perhaps": false}, resultsJunk: map[string]bool{hostile: true}, resultsDeadLetters: []string{hostile},
		downgrades: limit,
		before:     tables{"organizations/a": row, "organizations/c": row, "subscriptions/c": with(paid, "plan_tier", "free")},
		now:        tables{"organizations/a": lowered, "organizations/c": row, "subscriptions/c": paid},
		journal: []write{
			{seq: 1, account: systemAccount, table: "organizations", row: "a", org: "a", before: row, after: lowered},
			{seq: 2, account: systemAccount, table: "subscriptions", row: "c", org: "c", before: with(paid, "plan_tier", "free"), after: paid},
		},
		versions: map[string][]stripetest.Subscription{"sub_c": {version}},
		announced: announced{
			repairs: map[billing.Work][]billing.Change{
				a: {{Field: billing.FieldOrgTier, From: "max", To: "pro"}}, c: {{Field: billing.FieldPlanTier, From: "free", To: "pro"}},
			},
			ends: map[string][]billing.Summary{firstRun: {{Status: billing.RunStopped}, {Status: billing.RunCompletedWithErrors, TotalOrganizations: 3, Synchronized: 2, Errors: 1}}},
		},
	}
}

func with(row map[string]any, column string, value any) map[string]any {
	other := maps.Clone(row)
	other[column] = value
	return other
}

func change(s *result, org string, change func(*billing.Item)) {
	w := billing.Work{RunID: firstRun, OrgID: org}
	i := s.items[w]
	change(&i)
	s.items[w] = i
}

func changeRun(s *result, change func(*runRow)) {
	run := s.runs[firstRun]
	change(&run)
	s.runs[firstRun] = run
}

func TestEveryInvariantDetectsItsViolation(t *testing.T) {
	live := []billing.Subscription{{ID: "sub_c", Status: "active", OrgID: "c"}}
	invariants := map[string]func(result) error{
		"everyOrganizationHasAnOutcome": everyOrganizationHasAnOutcome, "nothingIsPending": nothingIsPending, "totalsAddUp": totalsAddUp, "downgradeLimitHolds": downgradeLimitHolds,
		"deadLettersAreTheErrors": deadLettersAreTheErrors, "onlyUnreconcilableAreInError": onlyUnreconcilableAreInError, "auditReplays": auditReplays,
		"deadLettersAreExactlyTheErrors": deadLettersAreExactlyTheErrors, "unreadableProgressIsKept": unreadableProgressIsKept, "limitsFollowTheSetting": limitsFollowTheSetting,
		"announcementsAreTheRepairs": announcementsAreTheRepairs, "noStaleWrites": noStaleWrites, "payingOrganizationsAreNotFree": func(s result) error { return payingOrganizationsAreNotFree(s, live) },
	}
	for name, holds := range invariants {
		if err := holds(consistentResult()); err != nil {
			t.Errorf("%s fails for a consistent result: %v", name, err)
		}
	}
	for _, c := range []struct {
		violation  string
		breaks     func(*result)
		detectedBy string
	}{
		{"an organization is not listed", func(s *result) { delete(s.items, billing.Work{RunID: firstRun, OrgID: "a"}) }, "everyOrganizationHasAnOutcome"},
		{"an organization is listed that is not eligible", func(s *result) { delete(s.population.eligible, "a") }, "everyOrganizationHasAnOutcome"},
		{"a pending organization has no message", func(s *result) { change(s, "a", func(i *billing.Item) { i.Outcome = billing.OutcomePending }) }, "everyOrganizationHasAnOutcome"},
		{"an organization stays pending", func(s *result) { change(s, "a", func(i *billing.Item) { i.Outcome = billing.OutcomePending }) }, "nothingIsPending"},
		{"a run stays open", func(s *result) { changeRun(s, func(r *runRow) { r.status = billing.RunRunning }) }, "nothingIsPending"},
		{"a sum is wrong", func(s *result) { s.runs[firstRun].summary.Skipped = 1 }, "totalsAddUp"},
		{"a summary counts another outcome", func(s *result) { s.runs[firstRun].summary.Synchronized, s.runs[firstRun].summary.Skipped = 1, 1 }, "totalsAddUp"},
		{"a summary is missing", func(s *result) { changeRun(s, func(r *runRow) { r.summary = nil }) }, "totalsAddUp"},
		{"a summary was not amended", func(s *result) { s.runs[firstRun].summary.Status = billing.RunIncomplete }, "totalsAddUp"},
		{"a downgrade is not counted", func(s *result) { changeRun(s, func(r *runRow) { r.downgrades = 0 }) }, "downgradeLimitHolds"},
		{"a run made one downgrade above its limit", func(s *result) { changeRun(s, func(r *runRow) { r.limit = 0 }) }, "downgradeLimitHolds"},
		{"a repair is withheld below the limit", func(s *result) {
			change(s, "b", func(i *billing.Item) { i.Reason = billing.ReasonWithheld })
			changeRun(s, func(r *runRow) { r.limit = 2 })
		}, "downgradeLimitHolds"},
		{"an error has no dead letter", func(s *result) { s.deadLetters = s.deadLetters[1:] }, "deadLettersAreTheErrors"},
		{"an unreadable message is lost", func(s *result) { s.deadLetters = s.deadLetters[:1] }, "deadLettersAreTheErrors"},
		{"an organization that was repaired at the first attempt has a dead letter", func(s *result) {
			s.deadLetters = append(s.deadLetters, deadLetter{work: billing.Work{RunID: firstRun, OrgID: "a"}, reason: "withheld"})
		}, "deadLettersAreTheErrors"},
		{"a pending organization has a dead letter with a reason", func(s *result) { change(s, "b", func(i *billing.Item) { i.Outcome = billing.OutcomePending }) }, "deadLettersAreTheErrors"},
		{"a temporary failure stays an error", func(s *result) { change(s, "b", func(i *billing.Item) { i.Reason = billing.ReasonStripeUnavailable }) }, "onlyUnreconcilableAreInError"},
		{"an organization that cannot be reconciled is synced", func(s *result) { change(s, "b", func(i *billing.Item) { i.Outcome = billing.OutcomeSynced }) }, "onlyUnreconcilableAreInError"},
		{"a change is not recorded", func(s *result) { change(s, "a", func(i *billing.Item) { i.Changes = nil }) }, "auditReplays"},
		{"a change is recorded twice", func(s *result) { change(s, "a", func(i *billing.Item) { i.Changes = append(i.Changes, i.Changes[0]) }) }, "auditReplays"},
		{"the overwritten value is not the one that was read", func(s *result) { change(s, "a", func(i *billing.Item) { i.Changes[0].From = "free" }) }, "auditReplays"},
		{"a table has a value that was not written", func(s *result) { s.now["organizations/a"]["subscription_tier"] = "free" }, "auditReplays"},
		{"a dry run wrote", func(s *result) { change(s, "a", func(i *billing.Item) { i.Outcome = billing.OutcomeDrifted }) }, "auditReplays"},
		{"a row is deleted", func(s *result) {
			s.journal = append(s.journal, write{seq: 3, account: systemAccount, table: "organizations", row: "c", org: "c", before: s.now["organizations/c"]})
			delete(s.now, "organizations/c")
		}, "auditReplays"},
		{"a row is missing", func(s *result) { delete(s.now, "organizations/c") }, "auditReplays"},
		{"a column of another system is written", func(s *result) {
			s.before["organizations/a"] = with(s.before["organizations/a"], "name", "A")
			s.journal[0].before, s.journal[0].after = with(s.journal[0].before, "name", "A"), with(s.journal[0].after, "name", "B")
			s.now["organizations/a"] = s.journal[0].after
		}, "auditReplays"},
		{"an organization that is not in error has a dead letter", func(s *result) {
			s.deadLetters = append(s.deadLetters, deadLetter{work: billing.Work{RunID: firstRun, OrgID: "a"}})
		}, "deadLettersAreExactlyTheErrors"},
		{"a dead letter has no reason", func(s *result) { s.deadLetters[0].reason = "" }, "deadLettersAreExactlyTheErrors"},
		{"a dead letter has another reason than its item", func(s *result) { s.deadLetters[0].reason = "withheld" }, "deadLettersAreExactlyTheErrors"},
		{"an unreadable dead letter has no reason", func(s *result) { s.deadLetters[1].reason = "" }, "deadLettersAreExactlyTheErrors"},
		{"an unreadable progress message is lost", func(s *result) { s.resultsDeadLetters = nil }, "unreadableProgressIsKept"},
		{"a limit does not follow the setting", func(s *result) { changeRun(s, func(r *runRow) { r.limit = 2 }) }, "limitsFollowTheSetting"},
		{"an organization mixes two states", func(s *result) {
			s.versions["sub_a"] = []stripetest.Subscription{{ID: "sub_a", Status: "active", PriceID: priceOf("MAX"), Metadata: map[string]string{"orgId": "a"}}}
		}, "noStaleWrites"},
		{"a row mixes two states", func(s *result) { s.journal[1].after = with(s.journal[1].after, "status", "past_due") }, "noStaleWrites"},
		{"a repair is not announced", func(s *result) { delete(s.announced.repairs, billing.Work{RunID: firstRun, OrgID: "a"}) }, "announcementsAreTheRepairs"},
		{"one of two changes is not announced", func(s *result) { change(s, "a", func(i *billing.Item) { i.Changes = append(i.Changes, i.Changes[0]) }) }, "announcementsAreTheRepairs"},
		{"an announced repair was not committed", func(s *result) { change(s, "a", func(i *billing.Item) { i.Outcome = billing.OutcomeError }) }, "announcementsAreTheRepairs"},
		{"an announced repair was not committed, beside programs without announcements", func(s *result) {
			change(s, "a", func(i *billing.Item) { i.Changes = nil })
			s.mixed = true
		}, "announcementsAreTheRepairs"},
		{"the end of a run is not announced", func(s *result) { s.announced.ends[firstRun] = s.announced.ends[firstRun][:1] }, "announcementsAreTheRepairs"},
		{"a paying organization is on the free tier", func(s *result) { s.now["organizations/c"] = map[string]any{"subscription_tier": "free"} }, "payingOrganizationsAreNotFree"},
		{"the row of a paying organization has the free tier", func(s *result) { s.now["subscriptions/c"]["plan_tier"] = "free" }, "payingOrganizationsAreNotFree"},
	} {
		s := consistentResult()
		c.breaks(&s)
		if err := invariants[c.detectedBy](s); err == nil {
			t.Errorf("%s: %s does not detect it", c.violation, c.detectedBy)
		}
	}
}

func TestSecretSearchFindsSecrets(t *testing.T) {
	if found := findSecrets(map[string]string{"a log": "key sk_test_1 was refused", "a table": "nothing"}, "sk_test_1", "pw-1"); len(found) != 1 {
		t.Errorf("found %v, want one secret", found)
	}
}
