package chaos_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// nobodyIsLeftOut: a run over all organizations has every eligible one, and no other; each has an
// outcome, or waits in the dead-letter queue because whoever received it last died.
func nobodyIsLeftOut(s seen) error {
	var problems []error
	dead := s.dead()
	for _, run := range s.runs {
		if run.org != "" || run.catchUp { // a catch-up is over whom events name
			continue
		}
		for org := range s.people.eligible {
			if _, listed := s.items[billing.Work{RunID: run.id, OrgID: org}]; !listed {
				problems = append(problems, fmt.Errorf("run %s (%s) left out organization %s", run.id, run.status, org))
			}
		}
		for org := range s.people.named {
			if _, listed := s.items[billing.Work{RunID: run.id, OrgID: org}]; run.swept && !listed {
				problems = append(problems, fmt.Errorf("run %s swept, and left out organization %s, which metadata names", run.id, org))
			}
		}
	}
	for w, i := range s.items {
		if s.runs[w.RunID].org == "" && !s.people.eligible[w.OrgID] && !s.people.named[w.OrgID] {
			problems = append(problems, fmt.Errorf("run %s lists organization %s, which is not eligible", w.RunID, w.OrgID))
		}
		if i.Outcome == billing.OutcomePending && !dead[w] {
			problems = append(problems, fmt.Errorf("organization %s is pending in run %s and no message is left that would finish it", w.OrgID, w.RunID))
		}
	}
	return errors.Join(problems...)
}

// nobodyIsPending: after a redrive, and after a run without faults.
func nobodyIsPending(s seen) error {
	var problems []error
	for w, i := range s.items {
		if i.Outcome == billing.OutcomePending {
			problems = append(problems, fmt.Errorf("organization %s is pending in run %s", w.OrgID, w.RunID))
		}
	}
	for _, run := range s.runs {
		if run.status.Open() {
			problems = append(problems, fmt.Errorf("run %s is %s, nothing of it is left to do", run.id, run.status))
		}
	}
	return errors.Join(problems...)
}

// totalsAddUp: total = synchronized + errors + skipped + pending, and all of them are what the
// items say.
func totalsAddUp(s seen) error {
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
			problems = append(problems, fmt.Errorf("the summary of run %s says %d synchronized, %d errors, %d skipped, %d pending of %d; its items say %v",
				id, sum.Synchronized, sum.Errors, sum.Skipped, sum.Pending, sum.TotalOrganizations, n))
		}
		if sum.Status != run.status {
			problems = append(problems, fmt.Errorf("run %s is %s, its summary says %s", id, run.status, sum.Status))
		}
	}
	return errors.Join(problems...)
}

// guardHolds: what counts as a downgrade was counted, each organization once, and none beyond the
// limit; and nothing was withheld before the limit was reached. Catch-ups have one limit together: what was
// approved for one of them is counted on it alone.
func guardHolds(s seen) error {
	var problems []error
	caughtUp, approved := 0, false
	for id, run := range s.runs {
		lowered, withheld := 0, 0
		for w, i := range s.items {
			if w.RunID != id {
				continue
			}
			if (i.Outcome == billing.OutcomeSynced || i.Outcome == billing.OutcomeDrifted) && billing.DefaultTiers.LowersAccess(i.Changes) {
				lowered++
			}
			if i.Reason == billing.ReasonWithheld {
				withheld++
			}
		}
		if lowered != run.downgrades {
			problems = append(problems, fmt.Errorf("run %s counts %d downgrades, its items have %d", id, run.downgrades, lowered))
		}
		if run.catchUp {
			caughtUp += run.downgrades
			approved = approved || run.approved
			if withheld > 0 && s.budget.used < s.budget.most {
				problems = append(problems, fmt.Errorf("catch-up %s withheld %d organizations, and all of them lowered %d of %d", id, withheld, s.budget.used, s.budget.most))
			}
			continue
		}
		if !run.dryRun && run.downgrades > run.limit {
			problems = append(problems, fmt.Errorf("run %s made %d downgrades, its limit is %d", id, run.downgrades, run.limit))
		}
		if withheld > 0 && (run.dryRun || run.downgrades < run.limit) {
			problems = append(problems, fmt.Errorf("run %s withheld %d organizations with %d downgrades of %d", id, withheld, run.downgrades, run.limit))
		}
	}
	if s.budget.used > s.budget.most || s.budget.used > caughtUp || (!approved && s.budget.used != caughtUp) {
		problems = append(problems, fmt.Errorf("catch-ups made %d downgrades, their budget counts %d of %d", caughtUp, s.budget.used, s.budget.most))
	}
	return errors.Join(problems...)
}

// deadLettersAreTheErrors: every error of a run that writes is in the dead-letter queue. What else
// is there was received once too often: SQS moved it, or it was given up by one worker and decided
// by another who had a duplicate. What nobody can read is there too.
func deadLettersAreTheErrors(s seen) error {
	var problems []error
	dead := s.dead()
	for w, i := range s.items {
		if i.Outcome == billing.OutcomeError && !s.runs[w.RunID].dryRun && !dead[w] {
			problems = append(problems, fmt.Errorf("organization %s ended in error (%s) in run %s and is not in the dead-letter queue", w.OrgID, i.Reason, w.RunID))
		}
	}
	bodies := map[string]bool{}
	for _, l := range s.letters {
		bodies[l.body] = true
		i, known := s.items[l.work]
		_, isJunk := s.junk[l.body]
		switch {
		case isJunk || l.reason == "":
		case !known:
			problems = append(problems, fmt.Errorf("a worker gave up %.100q (%s), which nobody sent", l.body, l.reason))
		case i.Outcome == billing.OutcomePending:
			problems = append(problems, fmt.Errorf("a worker gave up organization %s (%s) of run %s, which is still pending", l.work.OrgID, l.reason, l.work.RunID))
		case i.Outcome != billing.OutcomeError && i.Revision < 2:
			problems = append(problems, fmt.Errorf("a worker gave up organization %s (%s) of run %s, which never was in error", l.work.OrgID, l.reason, l.work.RunID))
		}
	}
	for body, surely := range s.junk {
		if surely && !bodies[body] {
			problems = append(problems, fmt.Errorf("a message that cannot be read is gone: %.100q", body))
		}
	}
	return errors.Join(problems...)
}

// deadLettersAreJustTheErrors: where nothing fails, nobody else is in the dead-letter queue, and each
// message says why it is there.
func deadLettersAreJustTheErrors(s seen) error {
	var problems []error
	for _, l := range s.letters {
		_, isJunk := s.junk[l.body]
		i := s.items[l.work]
		if l.reason == "" || (!isJunk && l.reason != string(i.Reason)) {
			problems = append(problems, fmt.Errorf("%.100q is in the dead-letter queue for %q; its organization: %s (%s)", l.body, l.reason, i.Outcome, i.Reason))
		}
		if !isJunk && (i.Outcome != billing.OutcomeError || s.runs[l.work.RunID].dryRun) {
			problems = append(problems, fmt.Errorf("organization %s of run %s is in the dead-letter queue and %q (%s)", l.work.OrgID, l.work.RunID, i.Outcome, i.Reason))
		}
	}
	return errors.Join(append(problems, deadLettersAreTheErrors(s))...)
}

// unreadableProgressIsKept: what the aggregator cannot read is in the dead-letter queue of results.
func unreadableProgressIsKept(s seen) error {
	var problems []error
	for body, surely := range s.resultsJunk {
		if _, err := sqsqueue.DecodeProgress(body); err != nil && surely && !slices.Contains(s.unreported, body) {
			problems = append(problems, fmt.Errorf("a progress message that cannot be read is gone: %.100q", body))
		}
	}
	return errors.Join(problems...)
}

// limitsAreAsSet: a run's limit is what MAX_DOWNGRADES makes of the organizations it lists; a catch-up's, of those
// of the last full run, and there is none before the first.
func limitsAreAsSet(s seen) error {
	var problems []error
	for id, run := range s.runs {
		if run.catchUp && run.limit > s.downgrades.Limit(len(s.people.eligible)+len(s.people.named)) {
			problems = append(problems, fmt.Errorf("catch-up %s may lower %d organizations", id, run.limit))
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
			problems = append(problems, fmt.Errorf("run %s lists %d organizations and may lower %d, MAX_DOWNGRADES=%s makes it %d", id, listed, run.limit, s.downgrades, want))
		}
	}
	return errors.Join(problems...)
}

// onlyTheWrongAreInError: in the runs that write, exactly those that nobody can reconcile, for their
// reasons.
func onlyTheWrongAreInError(s seen) error {
	var problems []error
	for w, i := range s.items {
		if s.runs[w.RunID].dryRun {
			continue // its errors are recorded and acknowledged
		}
		want := s.people.wrong[w.OrgID]
		if got := i.Outcome == billing.OutcomeError; got != (want != "") || (got && i.Reason != want) {
			problems = append(problems, fmt.Errorf("organization %s is %s (%s) in run %s, want an error %q: %s", w.OrgID, i.Outcome, i.Reason, w.RunID, want, i.Error))
		}
	}
	return errors.Join(problems...)
}

// auditReplays: what the items say was changed, done again in the journal's order beside what the
// application wrote, makes the tables of now out of those from before. So every change that is
// recorded was made, every one that was made is recorded, and each replaced the value that the
// worker had read.
func auditReplays(s seen) error {
	var problems []error
	state := tables{}
	for row, columns := range s.before {
		state[row] = maps.Clone(columns)
	}
	left := s.recorded()
	for _, w := range s.journal {
		key := w.table + "/" + w.row
		if w.became == nil {
			problems = append(problems, fmt.Errorf("write %d deleted %s", w.seq, key))
			continue
		}
		if state[key] == nil {
			state[key] = map[string]any{}
		}
		for _, column := range w.differing() {
			if got, want := plain(w.was[column]), plain(state[key][column]); got != want && w.was != nil {
				return fmt.Errorf("write %d finds %s in %s of %s, the replay has %s", w.seq, got, column, key, want)
			}
			if w.was == nil && slices.Contains(ofNoRepair, column) {
				state[key][column] = w.became[column]
				continue
			}
			if w.ours() && !left.take(w.org, w.table+"."+column, w.was[column], w.became[column]) {
				problems = append(problems, fmt.Errorf("write %d at %s set %s.%s of organization %s from %s to %s, and no item says so",
					w.seq, w.written.Format("15:04:05.000"), w.table, column, w.org, plain(w.was[column]), plain(w.became[column])))
			}
			state[key][column] = w.became[column]
		}
	}
	for of, changes := range left {
		for _, c := range changes {
			problems = append(problems, fmt.Errorf("organization %s of run %s is said to have had %s changed from %s to %s, and nobody did",
				of.org, of.run, of.field, plain(c.From), plain(c.To)))
		}
	}
	for row := range state {
		if s.now[row] == nil {
			problems = append(problems, fmt.Errorf("%s is gone", row))
		}
	}
	for row, columns := range s.now {
		for column, value := range columns {
			if plain(value) != plain(state[row][column]) {
				problems = append(problems, fmt.Errorf("%s of %s is %s, the replay ends with %s", column, row, plain(value), plain(state[row][column])))
			}
		}
	}
	return errors.Join(problems...)
}

// field is a column of an organization's, as a run changed it.
type field struct{ org, run, field string }

// record is what is left of the changes that the items list, in their order.
type record map[field][]billing.Change

func (s seen) recorded() record {
	all := record{}
	for w, i := range s.items {
		if i.Outcome != billing.OutcomeSynced {
			continue // a dry run's, and what was withheld
		}
		for _, c := range i.Changes {
			of := field{w.OrgID, w.RunID, c.Field}
			all[of] = append(all[of], c)
		}
	}
	return all
}

// take takes the change out of a run whose next change of the column it is: of several the one that made the most
// of it, for its others come after.
func (all record) take(org, column string, from, to any) bool {
	var found field
	for of, next := range all {
		if of.org == org && of.field == column && len(next) > len(all[found]) && plain(next[0].From) == plain(from) && plain(next[0].To) == plain(to) {
			found = of
		}
	}
	if len(all[found]) == 0 {
		return false
	}
	all[found] = all[found][1:]
	return true
}

// nothingStaleIsMixedIn: a row that we wrote is, as a whole, a state that Stripe was in. Had
// somebody else written it between our read and our write, some columns would be theirs.
func nothingStaleIsMixedIn(s seen) error {
	var problems []error
	for _, w := range s.journal {
		if !w.ours() || w.became == nil {
			continue
		}
		versions, columns := s.candidates(w)
		if len(versions) > 0 && !slices.ContainsFunc(versions, func(v stripetest.Subscription) bool { return alike(w.became, columns(v)) }) {
			problems = append(problems, fmt.Errorf("write %d left the row of organization %s in %s in a state that no subscription of it was ever in: %v", w.seq, w.org, w.table, w.became))
		}
	}
	return errors.Join(problems...)
}

// candidates are the states of Stripe that may be behind what was written, and what each makes of
// the row; none where Stripe knows no such subscription.
func (s seen) candidates(w write) ([]stripetest.Subscription, func(stripetest.Subscription) map[string]any) {
	if w.table == "subscriptions" {
		return s.versions[plain(w.became["stripe_subscription_id"])], rowOf
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
		"stripe_customer_id": v.CustomerID, "stripe_price_id": v.PriceID, "status": rowStatus(v.Status), "plan_tier": tierOf(v),
		"current_period_start": date(v.CurrentPeriodStart), "current_period_end": date(v.CurrentPeriodEnd), "trial_end": date(v.TrialEnd),
		"cancel_at_period_end": v.CancelAtPeriodEnd, "canceled_at": date(v.CanceledAt), "ended_at": date(v.EndedAt),
	}
}

func organizationOf(v stripetest.Subscription) map[string]any {
	return map[string]any{
		"stripe_customer_id": v.CustomerID, "subscription_tier": tierOf(v), "subscription_status": orgStatus(v.Status), "trial_ends_at": date(v.TrialEnd),
	}
}

// alike: the row has these values.
func alike(row, values map[string]any) bool {
	for column, want := range values {
		if plain(row[column]) != plain(want) {
			return false
		}
	}
	return true
}

// date is one of Stripe's as plain spells it.
func date(seconds int64) any {
	if seconds == 0 {
		return nil
	}
	return at(seconds).Time.Format("2006-01-02T15:04:05Z")
}

// nobodyLiveIsFree: who has a live subscription that leads to them is not on the free tier.
func nobodyLiveIsFree(s seen, inStripe []billing.Subscription) error {
	var problems []error
	for _, sub := range inStripe {
		org := sub.OrgID
		row, exists := s.now["organizations/"+org]
		if !sub.Status.Live() || !exists || s.people.wrong[org] != "" || (!s.people.eligible[org] && !s.people.named[org]) {
			continue
		}
		if plain(row["subscription_tier"]) == string(billing.TierFree) {
			problems = append(problems, fmt.Errorf("organization %s pays for %s (%s) and is on the free tier", org, sub.ID, sub.Status))
		}
		for key, row := range s.now {
			if row["stripe_subscription_id"] == sub.ID && plain(row["plan_tier"]) == string(billing.TierFree) {
				problems = append(problems, fmt.Errorf("organization %s pays for %s (%s), whose row %s has the free tier", org, sub.ID, sub.Status, key))
			}
		}
	}
	return errors.Join(problems...)
}
