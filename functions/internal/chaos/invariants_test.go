package chaos_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

// everyOrganizationHasAnOutcome: a run over all organizations lists exactly the eligible ones. Each has an outcome, or its
// message is in the dead-letter queue because the worker crashed at the last receive.
func everyOrganizationHasAnOutcome(s result) error {
	var problems []error
	dead := s.dead()
	for _, run := range s.runs {
		if run.org != "" || run.catchUp { // a catch-up lists only the organizations that events name
			continue
		}
		for org := range s.population.eligible {
			if _, listed := s.items[billing.Work{RunID: run.id, OrgID: org}]; !listed {
				problems = append(problems, fmt.Errorf("run %s (%s) left out organization %s", run.id, run.status, org))
			}
		}
		for org := range s.population.named {
			if _, listed := s.items[billing.Work{RunID: run.id, OrgID: org}]; run.swept && !listed {
				problems = append(problems, fmt.Errorf("run %s swept, and left out organization %s, which metadata names", run.id, org))
			}
		}
	}
	for w, i := range s.items {
		if s.runs[w.RunID].org == "" && !s.population.eligible[w.OrgID] && !s.population.named[w.OrgID] {
			problems = append(problems, fmt.Errorf("run %s lists organization %s, which is not eligible", w.RunID, w.OrgID))
		}
		if i.Outcome == billing.OutcomePending && !dead[w] {
			problems = append(problems, fmt.Errorf("organization %s is pending in run %s and has no message", w.OrgID, w.RunID))
		}
	}
	return errors.Join(problems...)
}

// nothingIsPending: no organization is pending and no run is open. It holds after a redrive and after a run without
// faults.
func nothingIsPending(s result) error {
	var problems []error
	for w, i := range s.items {
		if i.Outcome == billing.OutcomePending {
			problems = append(problems, fmt.Errorf("organization %s is pending in run %s", w.OrgID, w.RunID))
		}
	}
	for _, run := range s.runs {
		if run.status.Open() {
			problems = append(problems, fmt.Errorf("run %s is %s, but no work is left", run.id, run.status))
		}
	}
	return errors.Join(problems...)
}

// totalsAddUp: total = synchronized + errors + skipped + pending, and each equals the count of the items.
func totalsAddUp(s result) error {
	var problems []error
	for id, run := range s.runs {
		sum := run.summary
		if sum == nil {
			if !run.status.Open() {
				problems = append(problems, fmt.Errorf("run %s is %s and has no summary", id, run.status))
			}
			continue
		}
		n := s.tally(id)
		total := 0
		for _, items := range n {
			total += items
		}
		if sum.TotalOrganizations != sum.Synchronized+sum.Errors+sum.Skipped+sum.Pending {
			problems = append(problems, fmt.Errorf("the summary of run %s does not add up: %d, of them %d synchronized, %d errors, %d skipped, %d pending",
				id, sum.TotalOrganizations, sum.Synchronized, sum.Errors, sum.Skipped, sum.Pending))
		}
		if sum.TotalOrganizations != total || sum.Synchronized != n[billing.OutcomeSynced]+n[billing.OutcomeDrifted] ||
			sum.Errors != n[billing.OutcomeError] || sum.Skipped != n[billing.OutcomeSkipped] || sum.Pending != n[billing.OutcomePending] {
			problems = append(problems, fmt.Errorf("the summary of run %s has %d synchronized, %d errors, %d skipped, %d pending of %d; its items have %v",
				id, sum.Synchronized, sum.Errors, sum.Skipped, sum.Pending, sum.TotalOrganizations, n))
		}
		if sum.Status != run.status {
			problems = append(problems, fmt.Errorf("run %s is %s, but its summary has the status %s", id, run.status, sum.Status))
		}
	}
	return errors.Join(problems...)
}

// downgradeLimitHolds: every downgrade is counted, each organization once. A dry run does not count the downgrades that a
// real run would not repeat. No run exceeds its limit, and no run withholds a repair below its limit. Catch-ups share one
// limit, and an approval adds to it for one of them. The workers of an old version do not count in it.
func downgradeLimitHolds(s result) error {
	var problems []error
	byCatchUps, approved := 0, false
	for id, run := range s.runs {
		lowered, notRepeated, withheld := 0, 0, 0
		for w, i := range s.items {
			if w.RunID != id {
				continue
			}
			if (i.Outcome == billing.OutcomeSynced || i.Outcome == billing.OutcomeDrifted) && billing.DefaultTiers.LowersAccess(i.Changes) {
				lowered++
				if run.dryRun && slices.ContainsFunc(i.Warnings, func(w billing.Warning) bool { return w.Code == billing.WarnRepairUndone }) {
					notRepeated++ // not counted, unless the undone repair had raised access
				}
			}
			if i.Reason == billing.ReasonWithheld {
				withheld++
			}
		}
		if run.downgrades > lowered || run.downgrades < lowered-notRepeated {
			problems = append(problems, fmt.Errorf("run %s counts %d downgrades, but its items have %d, of which %d may be left out", id, run.downgrades, lowered, notRepeated))
		}
		if run.catchUp {
			byCatchUps += run.downgrades
			approved = approved || run.approved
			if withheld > 0 && s.budget.used < s.budget.limit {
				problems = append(problems, fmt.Errorf("catch-up %s withheld %d organizations, although all catch-ups lowered only %d of %d", id, withheld, s.budget.used, s.budget.limit))
			}
			continue
		}
		if !run.dryRun && run.downgrades > run.limit {
			problems = append(problems, fmt.Errorf("run %s made %d downgrades, its limit is %d", id, run.downgrades, run.limit))
		}
		if withheld > 0 && (run.dryRun || run.downgrades < run.limit) {
			problems = append(problems, fmt.Errorf("run %s withheld %d organizations, although it made only %d downgrades of %d", id, withheld, run.downgrades, run.limit))
		}
	}
	if s.budget.used > s.budget.limit || s.budget.used > byCatchUps || (!approved && !s.mixed && s.budget.used != byCatchUps) {
		problems = append(problems, fmt.Errorf("catch-ups made %d downgrades, but their budget counts %d of %d", byCatchUps, s.budget.used, s.budget.limit))
	}
	return errors.Join(problems...)
}

// deadLettersAreTheErrors: the dead-letter queue has every error of a run that writes and every unreadable message. It may
// also have messages that were received too often: SQS moved them, or one worker sent the dead letter while another
// worker with a duplicate decided.
func deadLettersAreTheErrors(s result) error {
	var problems []error
	dead := s.dead()
	for w, i := range s.items {
		if i.Outcome == billing.OutcomeError && !s.runs[w.RunID].dryRun && !dead[w] {
			problems = append(problems, fmt.Errorf("organization %s ended in error (%s) in run %s and is not in the dead-letter queue", w.OrgID, i.Reason, w.RunID))
		}
	}
	bodies := map[string]bool{}
	for _, l := range s.deadLetters {
		bodies[l.body] = true
		i, known := s.items[l.work]
		_, isJunk := s.junk[l.body]
		switch {
		case isJunk || l.reason == "":
		case !known:
			problems = append(problems, fmt.Errorf("the dead letter %.100q (%s) is of no message that was sent", l.body, l.reason))
		case i.Outcome == billing.OutcomePending:
			problems = append(problems, fmt.Errorf("organization %s of run %s has a dead letter (%s) and is still pending", l.work.OrgID, l.work.RunID, l.reason))
		case i.Outcome != billing.OutcomeError && i.Revision < 2:
			problems = append(problems, fmt.Errorf("organization %s of run %s has a dead letter (%s) and was never in error", l.work.OrgID, l.work.RunID, l.reason))
		}
	}
	for body, sent := range s.junk {
		if sent && !bodies[body] {
			problems = append(problems, fmt.Errorf("an unreadable message is lost: %.100q", body))
		}
	}
	return errors.Join(problems...)
}

// deadLettersAreExactlyTheErrors: without faults the dead-letter queue has no other messages, and each message has its
// reason.
func deadLettersAreExactlyTheErrors(s result) error {
	var problems []error
	for _, l := range s.deadLetters {
		_, isJunk := s.junk[l.body]
		i := s.items[l.work]
		if l.reason == "" || (!isJunk && l.reason != string(i.Reason)) {
			problems = append(problems, fmt.Errorf("the dead letter %.100q has the reason %q; its item is %s (%s)", l.body, l.reason, i.Outcome, i.Reason))
		}
		if !isJunk && (i.Outcome != billing.OutcomeError || s.runs[l.work.RunID].dryRun) {
			problems = append(problems, fmt.Errorf("organization %s of run %s has a dead letter and is %q (%s)", l.work.OrgID, l.work.RunID, i.Outcome, i.Reason))
		}
	}
	return errors.Join(append(problems, deadLettersAreTheErrors(s))...)
}

// unreadableProgressIsKept: the dead-letter queue of the results queue has every progress message that cannot be decoded.
func unreadableProgressIsKept(s result) error {
	var problems []error
	for body, sent := range s.resultsJunk {
		if _, err := sqsqueue.DecodeProgress(body); err != nil && sent && !slices.Contains(s.resultsDeadLetters, body) {
			problems = append(problems, fmt.Errorf("an unreadable progress message is lost: %.100q", body))
		}
	}
	return errors.Join(problems...)
}

// limitsFollowTheSetting: a run's limit is the limit that MAX_DOWNGRADES sets for the organizations that it lists. A
// catch-up has at most the limit of a run over all organizations.
func limitsFollowTheSetting(s result) error {
	var problems []error
	for id, run := range s.runs {
		if run.catchUp && run.limit > s.downgrades.Limit(len(s.population.eligible)+len(s.population.named)) {
			problems = append(problems, fmt.Errorf("catch-up %s has the limit %d, more than a run over all organizations", id, run.limit))
		}
		if run.catchUp {
			continue
		}
		listed := 0
		for w := range s.items {
			if w.RunID == id {
				listed++
			}
		}
		if want := s.downgrades.Limit(listed); run.limit != want {
			problems = append(problems, fmt.Errorf("run %s lists %d organizations and has the limit %d, want %d by MAX_DOWNGRADES=%s", id, listed, run.limit, want, s.downgrades))
		}
	}
	return errors.Join(problems...)
}

// onlyUnreconcilableAreInError: in runs that write, exactly the organizations that cannot be reconciled are in error, with
// their reasons.
func onlyUnreconcilableAreInError(s result) error {
	var problems []error
	for w, i := range s.items {
		if s.runs[w.RunID].dryRun {
			continue // a dry run records its errors, and their messages are acknowledged
		}
		want := s.population.unreconcilable[w.OrgID]
		if got := i.Outcome == billing.OutcomeError; got != (want != "") || (got && i.Reason != want) {
			problems = append(problems, fmt.Errorf("organization %s is %s (%s) in run %s, want an error %q: %s", w.OrgID, i.Outcome, i.Reason, w.RunID, want, i.Error))
		}
	}
	return errors.Join(problems...)
}

// auditReplays replays the items' changes and the application's writes in the journal's order. The replay must turn the
// tables at the beginning into the present ones. So the recorded changes are exactly those that were made, and each
// replaced the value that the worker had read.
func auditReplays(s result) error {
	var problems []error
	state := tables{}
	for row, columns := range s.before {
		state[row] = maps.Clone(columns)
	}
	recorded := s.recorded()
	for _, w := range s.journal {
		key := w.table + "/" + w.row
		if w.after == nil {
			problems = append(problems, fmt.Errorf("write %d deleted %s", w.seq, key))
			continue
		}
		if state[key] == nil {
			state[key] = map[string]any{}
		}
		for _, column := range w.differing() {
			if got, want := normalized(w.before[column]), normalized(state[key][column]); got != want && w.before != nil {
				return fmt.Errorf("write %d overwrote %s in %s of %s, but the replay has %s", w.seq, got, column, key, want)
			}
			if w.before == nil && slices.Contains(identifyingColumns, column) {
				state[key][column] = w.after[column]
				continue
			}
			if w.isOfSystem() && !recorded.take(w.org, w.table+"."+column, w.before[column], w.after[column]) {
				problems = append(problems, fmt.Errorf("write %d at %s set %s.%s of organization %s from %s to %s, but no item has that change",
					w.seq, w.written.Format("15:04:05.000"), w.table, column, w.org, normalized(w.before[column]), normalized(w.after[column])))
			}
			state[key][column] = w.after[column]
		}
	}
	for f, changes := range recorded {
		for _, c := range changes {
			problems = append(problems, fmt.Errorf("the item of organization %s in run %s records %s: %s -> %s, but no write made that change",
				f.org, f.run, f.field, normalized(c.From), normalized(c.To)))
		}
	}
	for row := range state {
		if s.now[row] == nil {
			problems = append(problems, fmt.Errorf("%s is missing", row))
		}
	}
	for row, columns := range s.now {
		for column, value := range columns {
			if normalized(value) != normalized(state[row][column]) {
				problems = append(problems, fmt.Errorf("%s of %s is %s, but the replay ends with %s", column, row, normalized(value), normalized(state[row][column])))
			}
		}
	}
	return errors.Join(problems...)
}

// field is a column of an organization that a run changed.
type field struct{ org, run, field string }

// recordedChanges are the changes that the items list and that the replay has not used yet, in their order.
type recordedChanges map[field][]billing.Change

func (s result) recorded() recordedChanges {
	all := recordedChanges{}
	for w, i := range s.items {
		if i.Outcome != billing.OutcomeSynced {
			continue // dry runs and withheld changes
		}
		for _, c := range i.Changes {
			f := field{w.OrgID, w.RunID, c.Field}
			all[f] = append(all[f], c)
		}
	}
	return all
}

// take removes the change from a run in which it is the next change of the column. If several runs have it, take chooses
// the run with the most remaining changes.
func (all recordedChanges) take(org, column string, from, to any) bool {
	var found field
	for f, next := range all {
		if f.org == org && f.field == column && len(next) > len(all[found]) && normalized(next[0].From) == normalized(from) && normalized(next[0].To) == normalized(to) {
			found = f
		}
	}
	if len(all[found]) == 0 {
		return false
	}
	all[found] = all[found][1:]
	return true
}

// noStaleWrites: each row that the system wrote equals, as a whole, a state of the subscription in Stripe. If the
// application had written between the worker's read and its write, the row would mix two states.
func noStaleWrites(s result) error {
	var problems []error
	for _, w := range s.journal {
		if !w.isOfSystem() || w.after == nil {
			continue
		}
		versions, columns := s.candidates(w)
		if len(versions) > 0 && !slices.ContainsFunc(versions, func(v stripetest.Subscription) bool { return matches(w.after, columns(v)) }) {
			problems = append(problems, fmt.Errorf("after write %d, the row of organization %s in %s equals no state that one of its subscriptions ever had: %v", w.seq, w.org, w.table, w.after))
		}
	}
	return errors.Join(problems...)
}

// candidates returns the states in Stripe that the write may come from, and a function from a state to the row's columns.
// It returns no state if Stripe has no such subscription.
func (s result) candidates(w write) ([]stripetest.Subscription, func(stripetest.Subscription) map[string]any) {
	if w.table == "subscriptions" {
		return s.versions[normalized(w.after["stripe_subscription_id"])], rowOf
	}
	var all []stripetest.Subscription
	for _, versions := range s.versions {
		if versions[0].Metadata["orgId"] == w.org {
			all = append(all, versions...)
		}
	}
	return all, organizationOf
}

func rowOf(v stripetest.Subscription) map[string]any {
	return map[string]any{
		"stripe_customer_id": v.CustomerID, "stripe_price_id": v.PriceID, "status": testworld.RowStatus(v.Status), "plan_tier": webhook(nil).Tier(v),
		"current_period_start": date(v.CurrentPeriodStart), "current_period_end": date(v.CurrentPeriodEnd), "trial_end": date(v.TrialEnd),
		"cancel_at_period_end": v.CancelAtPeriodEnd, "canceled_at": date(v.CanceledAt), "ended_at": date(v.EndedAt),
	}
}

func organizationOf(v stripetest.Subscription) map[string]any {
	return map[string]any{
		"stripe_customer_id": v.CustomerID, "subscription_tier": webhook(nil).Tier(v), "subscription_status": testworld.OrgStatus(v.Status), "trial_ends_at": date(v.TrialEnd),
	}
}

// matches reports whether the row has these values.
func matches(row, values map[string]any) bool {
	for column, want := range values {
		if normalized(row[column]) != normalized(want) {
			return false
		}
	}
	return true
}

// date converts Stripe's date to the format of normalized.
func date(seconds int64) any {
	if seconds == 0 {
		return nil
	}
	return time.Unix(seconds, 0).UTC().Format("2006-01-02T15:04:05Z")
}

// payingOrganizationsAreNotFree: no organization with a live subscription is on the free tier.
func payingOrganizationsAreNotFree(s result, inStripe []billing.Subscription) error {
	var problems []error
	for _, sub := range inStripe {
		org := sub.OrgID
		row, exists := s.now["organizations/"+org]
		if !sub.Status.Live() || !exists || s.population.unreconcilable[org] != "" || (!s.population.eligible[org] && !s.population.named[org]) {
			continue
		}
		if normalized(row["subscription_tier"]) == string(billing.TierFree) {
			problems = append(problems, fmt.Errorf("organization %s pays for %s (%s) and is on the free tier", org, sub.ID, sub.Status))
		}
		for key, row := range s.now {
			if row["stripe_subscription_id"] == sub.ID && normalized(row["plan_tier"]) == string(billing.TierFree) {
				problems = append(problems, fmt.Errorf("organization %s pays for %s (%s), whose row %s has the free tier", org, sub.ID, sub.Status, key))
			}
		}
	}
	return errors.Join(problems...)
}
