package pipeline

import (
	"context"
	"slices"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// snapshotReader is what the workers need of the database to go by what was swept.
type snapshotReader interface {
	Snapshot(ctx context.Context, runID string, records []billing.Record) ([]billing.Subscription, error)
	DecideInSync(ctx context.Context, runID string, sweptFrom time.Time, items []billing.Item, now time.Time) (int, error)
}

// loadSnapshots reads what the sweep saw of the organizations whose runs have a snapshot to go
// by, in a number of queries a run that does not depend on theirs. A repair of an error is none of these: it is read afresh.
func (r *Reconciler) loadSnapshots(ctx context.Context, tasks map[billing.Work]*task) error {
	now := r.now()
	byRun := map[string][]*task{}
	for _, t := range tasks {
		t.swept = nil
		if t.exists && t.item.OrgID != "" && t.item.Outcome == billing.OutcomePending && t.run.HasSnapshot(now) {
			byRun[t.run.ID] = append(byRun[t.run.ID], t)
		}
	}
	for runID, ofRun := range byRun {
		if err := r.loadSnapshot(ctx, runID, ofRun); err != nil {
			return err
		}
	}
	return nil
}

func (r *Reconciler) loadSnapshot(ctx context.Context, runID string, tasks []*task) error {
	records := make([]billing.Record, len(tasks))
	for i, t := range tasks {
		records[i] = t.record
	}
	subs, err := r.Store.Snapshot(ctx, runID, records)
	if err != nil {
		return err
	}
	seen := indexed(subs)
	var unrecorded []billing.Subscription // somebody else may account for these
	for _, t := range tasks {
		found := seen.of(t.record)
		t.swept = &billing.Truth{Subscriptions: found, ReadAt: *t.run.SweptFrom}
		for _, sub := range found {
			if !t.record.Records(sub.ID) {
				unrecorded = append(unrecorded, sub)
			}
		}
	}
	claims, err := r.Store.Claims(ctx, unrecorded)
	for _, t := range tasks {
		t.swept.Claims = claims
	}
	return err
}

// seen is a part of a snapshot, by what may lead from an organization to a subscription.
type seen struct {
	byID, byCustomer, byOrg map[string][]billing.Subscription
}

func indexed(subs []billing.Subscription) seen {
	s := seen{map[string][]billing.Subscription{}, map[string][]billing.Subscription{}, map[string][]billing.Subscription{}}
	for _, sub := range subs {
		s.byID[sub.ID] = append(s.byID[sub.ID], sub)
		s.byCustomer[sub.CustomerID] = append(s.byCustomer[sub.CustomerID], sub)
		if key := billing.OrgKey(sub.OrgID); key != "" {
			s.byOrg[key] = append(s.byOrg[key], sub)
		}
	}
	return s
}

// of returns what may concern the organization, each subscription once.
func (s seen) of(record billing.Record) []billing.Subscription {
	var found subscriptions
	for _, id := range record.RecordedIDs() {
		found.addAll(s.byID[id])
	}
	for _, id := range record.CustomerIDs() {
		found.addAll(s.byCustomer[id])
	}
	found.addAll(s.byOrg[billing.OrgKey(record.Org.ID)])
	return found
}

// decideFromSnapshot decides the organizations that the snapshot shows to be in sync, all of a run in one
// statement, and returns the others: Stripe is asked about those.
func (b *batch) decideFromSnapshot(ctx context.Context, todo []*task) (rest []*task) {
	byRun := map[string][]*task{}
	items := map[string][]billing.Item{}
	for _, t := range todo {
		item, ok := b.inSync(t)
		if !ok {
			rest = append(rest, t)
			continue
		}
		byRun[t.run.ID] = append(byRun[t.run.ID], t)
		items[t.run.ID] = append(items[t.run.ID], item)
	}
	for runID, settled := range byRun {
		if !b.decideInSync(ctx, settled, items[runID]) {
			rest = append(rest, b.undecided(ctx, settled)...)
		}
	}
	return rest
}

// inSync leaves what makes the rules panic to [batch.one], which records it.
func (b *batch) inSync(t *task) (item billing.Item, ok bool) {
	defer func() {
		if recover() != nil {
			item, ok = billing.Item{}, false
		}
	}()
	if t.swept == nil {
		return billing.Item{}, false
	}
	plan, ok := b.Rules.InSync(*t.swept, t.record)
	return t.planned(plan), ok
}

// undecided returns those that still want an outcome; the others' result is to acknowledge.
func (b *batch) undecided(ctx context.Context, tasks []*task) []*task {
	work := make([]billing.Work, len(tasks))
	for i, t := range tasks {
		work[i] = t.work
	}
	items, err := b.Store.Items(ctx, work)
	if err != nil {
		return tasks // each finds out for itself
	}
	return slices.DeleteFunc(tasks, func(t *task) bool { return items[t.work].OrgID != "" && items[t.work].Final() })
}

// decideInSync reports whether all of them got their outcome.
func (b *batch) decideInSync(ctx context.Context, settled []*task, items []billing.Item) bool {
	run := settled[0].run
	n, err := retry(ctx, b.Retry, func() (int, error) { return b.Store.DecideInSync(ctx, run.ID, *run.SweptFrom, items, b.now()) })
	if err != nil {
		b.Log.WarnContext(ctx, "organizations in sync are gone through singly", telemetry.KeyRunID, run.ID, telemetry.KeyError, err.Error())
	}
	return err == nil && n == len(items) // their result is to acknowledge
}

// hints are what the sweep saw, and the subscription that led to the organization.
func (t *task) hints() hints {
	known := hints{named: slices.Clone(t.told), told: t.told}
	if id := t.item.SubscriptionID; id != "" && !t.record.Records(id) {
		known.named = append(known.named, id)
	}
	if t.swept == nil {
		// Unless a row is active the customers' lists are needed, and they include the recorded subscriptions.
		known.unsettled = !slices.ContainsFunc(t.record.Rows, func(row billing.Row) bool { return row.Status == string(billing.StatusActive) })
		return known
	}
	known.sweptBy, known.sweptFrom = t.run.ID, t.swept.ReadAt
	var recorded []billing.Subscription
	for _, sub := range t.swept.Subscriptions {
		switch {
		case t.record.Records(sub.ID):
			recorded = append(recorded, sub)
		case t.swept.Claims.Names(sub, t.record.Org.ID) && sub.ID != t.item.SubscriptionID:
			known.named = append(known.named, sub.ID)
		}
	}
	known.unsettled = len(recorded) > 0 && !billing.RecordedSuffice(recorded)
	return known
}
