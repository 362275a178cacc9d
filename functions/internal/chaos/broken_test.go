package chaos_test

import (
	"maps"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// sound is what a round may come to: a was downgraded, b is unknown to everybody, c pays.
func sound() seen {
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
	return seen{
		people: population{eligible: map[string]bool{"a": true, "b": true, "c": true}, named: map[string]bool{}, wrong: map[string]billing.Reason{"b": billing.ReasonUnknownStatus}},
		runs: map[string]ran{firstRun: {
			id: firstRun, status: billing.RunCompletedWithErrors, downgrades: 1, limit: 1,
			summary: &billing.Summary{Status: billing.RunCompletedWithErrors, TotalOrganizations: 3, Synchronized: 2, Errors: 1},
		}},
		items: map[billing.Work]billing.Item{
			a: {Outcome: billing.OutcomeSynced, Revision: 1, Changes: []billing.Change{{Field: billing.FieldOrgTier, From: "max", To: "pro"}}},
			b: {Outcome: billing.OutcomeError, Reason: billing.ReasonUnknownStatus, Revision: 1},
			c: {Outcome: billing.OutcomeSynced, Revision: 1, Changes: []billing.Change{{Field: billing.FieldPlanTier, From: "free", To: "pro"}}},
		},
		letters: []letter{{work: b, reason: "unknown_status"}, {body: hostile, reason: "malformed_message"}},
		junk:    map[string]bool{hostile: true, "perhaps": false}, resultsJunk: map[string]bool{hostile: true}, unreported: []string{hostile},
		downgrades: limit,
		before:     tables{"organizations/a": row, "organizations/c": row, "subscriptions/c": with(paid, "plan_tier", "free")},
		now:        tables{"organizations/a": lowered, "organizations/c": row, "subscriptions/c": paid},
		journal: []write{
			{seq: 1, who: systemAccount, table: "organizations", row: "a", org: "a", was: row, became: lowered},
			{seq: 2, who: systemAccount, table: "subscriptions", row: "c", org: "c", was: with(paid, "plan_tier", "free"), became: paid},
		},
		versions: map[string][]stripetest.Subscription{"sub_c": {version}},
		told: told{
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

func change(s *seen, org string, change func(*billing.Item)) {
	w := billing.Work{RunID: firstRun, OrgID: org}
	i := s.items[w]
	change(&i)
	s.items[w] = i
}

func changeRun(s *seen, change func(*ran)) {
	run := s.runs[firstRun]
	change(&run)
	s.runs[firstRun] = run
}

// Each invariant must notice what it is there for.
func TestEveryInvariantDetectsItsViolation(t *testing.T) {
	live := []billing.Subscription{{ID: "sub_c", Status: "active", OrgID: "c"}}
	invariants := map[string]func(seen) error{
		"nobodyIsLeftOut": nobodyIsLeftOut, "nobodyIsPending": nobodyIsPending, "totalsAddUp": totalsAddUp, "guardHolds": guardHolds,
		"deadLettersAreTheErrors": deadLettersAreTheErrors, "onlyTheWrongAreInError": onlyTheWrongAreInError, "auditReplays": auditReplays,
		"deadLettersAreJustTheErrors": deadLettersAreJustTheErrors, "unreadableProgressIsKept": unreadableProgressIsKept, "limitsAreAsSet": limitsAreAsSet,
		"announcedIsRepaired": announcedIsRepaired, "nothingStaleIsMixedIn": nothingStaleIsMixedIn, "nobodyLiveIsFree": func(s seen) error { return nobodyLiveIsFree(s, live) },
	}
	for name, holds := range invariants {
		if err := holds(sound()); err != nil {
			t.Errorf("%s finds in what is sound: %v", name, err)
		}
	}
	for _, c := range []struct {
		what     string
		breaks   func(*seen)
		noticing string
	}{
		{"an organization is not listed", func(s *seen) { delete(s.items, billing.Work{RunID: firstRun, OrgID: "a"}) }, "nobodyIsLeftOut"},
		{"one is listed that is not eligible", func(s *seen) { delete(s.people.eligible, "a") }, "nobodyIsLeftOut"},
		{"a pending one has no message", func(s *seen) { change(s, "a", func(i *billing.Item) { i.Outcome = billing.OutcomePending }) }, "nobodyIsLeftOut"},
		{"one stays pending", func(s *seen) { change(s, "a", func(i *billing.Item) { i.Outcome = billing.OutcomePending }) }, "nobodyIsPending"},
		{"a run stays open", func(s *seen) { changeRun(s, func(r *ran) { r.status = billing.RunRunning }) }, "nobodyIsPending"},
		{"a sum is wrong", func(s *seen) { s.runs[firstRun].summary.Skipped = 1 }, "totalsAddUp"},
		{"a summary counts another outcome", func(s *seen) { s.runs[firstRun].summary.Synchronized, s.runs[firstRun].summary.Skipped = 1, 1 }, "totalsAddUp"},
		{"a summary is missing", func(s *seen) { changeRun(s, func(r *ran) { r.summary = nil }) }, "totalsAddUp"},
		{"a summary was not amended", func(s *seen) { s.runs[firstRun].summary.Status = billing.RunIncomplete }, "totalsAddUp"},
		{"a downgrade is not counted", func(s *seen) { changeRun(s, func(r *ran) { r.downgrades = 0 }) }, "guardHolds"},
		{"one downgrade too many", func(s *seen) { changeRun(s, func(r *ran) { r.limit = 0 }) }, "guardHolds"},
		{"withheld below the limit", func(s *seen) {
			change(s, "b", func(i *billing.Item) { i.Reason = billing.ReasonWithheld })
			changeRun(s, func(r *ran) { r.limit = 2 })
		}, "guardHolds"},
		{"an error is not dead-lettered", func(s *seen) { s.letters = s.letters[1:] }, "deadLettersAreTheErrors"},
		{"what cannot be read is lost", func(s *seen) { s.letters = s.letters[:1] }, "deadLettersAreTheErrors"},
		{"one that was repaired at once is given up", func(s *seen) {
			s.letters = append(s.letters, letter{work: billing.Work{RunID: firstRun, OrgID: "a"}, reason: "withheld"})
		}, "deadLettersAreTheErrors"},
		{"a pending one is given up", func(s *seen) { change(s, "b", func(i *billing.Item) { i.Outcome = billing.OutcomePending }) }, "deadLettersAreTheErrors"},
		{"a passing failure stays", func(s *seen) { change(s, "b", func(i *billing.Item) { i.Reason = billing.ReasonStripeUnavailable }) }, "onlyTheWrongAreInError"},
		{"a wrong one is synced", func(s *seen) { change(s, "b", func(i *billing.Item) { i.Outcome = billing.OutcomeSynced }) }, "onlyTheWrongAreInError"},
		{"a change is not recorded", func(s *seen) { change(s, "a", func(i *billing.Item) { i.Changes = nil }) }, "auditReplays"},
		{"a change is recorded twice", func(s *seen) { change(s, "a", func(i *billing.Item) { i.Changes = append(i.Changes, i.Changes[0]) }) }, "auditReplays"},
		{"another value was overwritten than was read", func(s *seen) { change(s, "a", func(i *billing.Item) { i.Changes[0].From = "free" }) }, "auditReplays"},
		{"a table is not what was written", func(s *seen) { s.now["organizations/a"]["subscription_tier"] = "free" }, "auditReplays"},
		{"a dry run wrote", func(s *seen) { change(s, "a", func(i *billing.Item) { i.Outcome = billing.OutcomeDrifted }) }, "auditReplays"},
		{"a row is deleted", func(s *seen) {
			s.journal = append(s.journal, write{seq: 3, who: systemAccount, table: "organizations", row: "c", org: "c", was: s.now["organizations/c"]})
			delete(s.now, "organizations/c")
		}, "auditReplays"},
		{"a row vanishes", func(s *seen) { delete(s.now, "organizations/c") }, "auditReplays"},
		{"a column is written that is not ours", func(s *seen) {
			s.before["organizations/a"] = with(s.before["organizations/a"], "name", "A")
			s.journal[0].was, s.journal[0].became = with(s.journal[0].was, "name", "A"), with(s.journal[0].became, "name", "B")
			s.now["organizations/a"] = s.journal[0].became
		}, "auditReplays"},
		{"one who is not in error is in the dead-letter queue", func(s *seen) {
			s.letters = append(s.letters, letter{work: billing.Work{RunID: firstRun, OrgID: "a"}})
		}, "deadLettersAreJustTheErrors"},
		{"a dead letter does not say why", func(s *seen) { s.letters[0].reason = "" }, "deadLettersAreJustTheErrors"},
		{"a dead letter says another reason", func(s *seen) { s.letters[0].reason = "withheld" }, "deadLettersAreJustTheErrors"},
		{"junk in the dead-letter queue does not say why", func(s *seen) { s.letters[1].reason = "" }, "deadLettersAreJustTheErrors"},
		{"progress that cannot be read is lost", func(s *seen) { s.unreported = nil }, "unreadableProgressIsKept"},
		{"a limit is not as set", func(s *seen) { changeRun(s, func(r *ran) { r.limit = 2 }) }, "limitsAreAsSet"},
		{"an organization is half the webhook's", func(s *seen) {
			s.versions["sub_a"] = []stripetest.Subscription{{ID: "sub_a", Status: "active", PriceID: priceOf("MAX"), Metadata: map[string]string{"orgId": "a"}}}
		}, "nothingStaleIsMixedIn"},
		{"a row is half the webhook's", func(s *seen) { s.journal[1].became = with(s.journal[1].became, "status", "past_due") }, "nothingStaleIsMixedIn"},
		{"a repair is not announced", func(s *seen) { delete(s.told.repairs, billing.Work{RunID: firstRun, OrgID: "a"}) }, "announcedIsRepaired"},
		{"one of two changes is not announced", func(s *seen) { change(s, "a", func(i *billing.Item) { i.Changes = append(i.Changes, i.Changes[0]) }) }, "announcedIsRepaired"},
		{"what was not committed is announced", func(s *seen) { change(s, "a", func(i *billing.Item) { i.Outcome = billing.OutcomeError }) }, "announcedIsRepaired"},
		{"so it is where others announce nothing", func(s *seen) {
			change(s, "a", func(i *billing.Item) { i.Changes = nil })
			s.mixed = true
		}, "announcedIsRepaired"},
		{"how a run ended is not announced", func(s *seen) { s.told.ends[firstRun] = s.told.ends[firstRun][:1] }, "announcedIsRepaired"},
		{"who pays is cut off", func(s *seen) { s.now["organizations/c"] = map[string]any{"subscription_tier": "free"} }, "nobodyLiveIsFree"},
		{"the row of who pays has the free tier", func(s *seen) { s.now["subscriptions/c"]["plan_tier"] = "free" }, "nobodyLiveIsFree"},
	} {
		s := sound()
		c.breaks(&s)
		if err := invariants[c.noticing](s); err == nil {
			t.Errorf("%s: %s does not notice", c.what, c.noticing)
		}
	}
}

func TestSecretSearchFindsSecrets(t *testing.T) {
	if found := findSecrets(map[string]string{"a log": "key sk_test_1 was refused", "a table": "nothing"}, "sk_test_1", "pw-1"); len(found) != 1 {
		t.Errorf("found %v", found)
	}
}
