package pipeline

import (
	"context"
	"slices"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// snapshotReader is the part of the database that the workers use for snapshots.
type snapshotReader interface {
	Snapshot(ctx context.Context, runID string, records []billing.Record) (subs []billing.Subscription, soleOwners map[string]string, err error)
	DecideInSync(ctx context.Context, runID string, sweptFrom time.Time, items []billing.Item, now time.Time) (int, error)
}

// loadSnapshots reads what the runs' snapshots have about the organizations. The number of queries for a run does not
// depend on the number of its organizations. An organization in error is not read: its repair reads Stripe afresh.
func (r *Reconciler) loadSnapshots(ctx context.Context, tasks map[billing.Work]*task) error {
	now := r.now()
	byRun := map[string][]*task{}
	for _, t := range tasks {
		t.swept, t.soleOwners = nil, nil
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
	subs, soleOwners, err := r.Store.Snapshot(ctx, runID, records)
	if err != nil {
		return err
	}
	index := indexSnapshot(subs)
	var unrecorded []billing.Subscription // another organization may own these
	for _, t := range tasks {
		found := index.find(t.record)
		t.swept = &billing.Truth{Subscriptions: found, ReadAt: *t.run.SweptFrom}
		t.soleOwners = soleOwners
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

// snapshotIndex is a part of a snapshot, indexed by the ids that lead from an organization to a subscription.
type snapshotIndex struct {
	byID, byCustomer, byOrg map[string][]billing.Subscription
}

func indexSnapshot(subs []billing.Subscription) snapshotIndex {
	s := snapshotIndex{map[string][]billing.Subscription{}, map[string][]billing.Subscription{}, map[string][]billing.Subscription{}}
	for _, sub := range subs {
		s.byID[sub.ID] = append(s.byID[sub.ID], sub)
		s.byCustomer[sub.CustomerID] = append(s.byCustomer[sub.CustomerID], sub)
		if key := billing.OrgKey(sub.OrgID); key != "" {
			s.byOrg[key] = append(s.byOrg[key], sub)
		}
	}
	return s
}

// find returns the subscriptions that may concern the organization, each once.
func (s snapshotIndex) find(record billing.Record) []billing.Subscription {
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

// decideFromSnapshot decides the organizations that the snapshot shows to be in sync, with one statement for each run.
// It returns the others, which need Stripe.
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
			continue
		}
		for _, t := range settled {
			t.result = Result{Disposition: Acknowledge}
		}
	}
	return rest
}

// inSync returns the organization's item if the snapshot shows it to be in sync. If the rules panic, it returns false:
// [batch.reconcileOne] meets the panic again and stores it as an error.
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

// undecided returns the tasks that still need an outcome, and acknowledges the others.
func (b *batch) undecided(ctx context.Context, tasks []*task) []*task {
	work := make([]billing.Work, len(tasks))
	for i, t := range tasks {
		work[i] = t.work
	}
	items, err := b.Store.Items(ctx, work)
	if err != nil {
		return tasks // each task checks its own item
	}
	return slices.DeleteFunc(tasks, func(t *task) bool {
		decided := items[t.work].OrgID != "" && items[t.work].Final()
		if decided {
			t.result = Result{Disposition: Acknowledge}
		}
		return decided
	})
}

// decideInSync stores the items' outcomes and reports whether all of them were stored.
func (b *batch) decideInSync(ctx context.Context, settled []*task, items []billing.Item) bool {
	run := settled[0].run
	n, err := retry(ctx, b.Retry, func() (int, error) { return b.Store.DecideInSync(ctx, run.ID, *run.SweptFrom, items, b.now()) })
	if err != nil {
		b.Log.WarnContext(ctx, "organizations in sync are gone through singly", telemetry.KeyRunID, run.ID, telemetry.KeyError, err.Error())
	}
	return err == nil && n == len(items)
}

// hints returns what the snapshot, the events and the item say about the organization's subscriptions.
func (b *batch) hints(t *task) hints {
	known := hints{named: slices.Clone(t.eventSubs), eventSubs: t.eventSubs}
	if id := t.item.SubscriptionID; id != "" && !t.record.Records(id) {
		known.named = append(known.named, id)
	}
	if t.swept == nil {
		// Unless a row is active the customers' lists are needed, and they include the recorded subscriptions.
		known.unsettled = !t.record.ExpectRecordedSuffice()
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
	known.unsettled = len(recorded) > 0 && (!billing.RecordedSuffice(recorded) || b.sweptLowers(t))
	return known
}

// sweptLowers reports whether access is lowered if Stripe still has what the snapshot has.
func (b *batch) sweptLowers(t *task) bool {
	plan, err := b.Rules.Plan(*t.swept, t.record)
	return err == nil && b.lowers(plan)
}
