package pipeline

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// guardReader reads what runs wrote and withheld before. The run's downgrades are counted elsewhere, in the transaction
// that writes.
type guardReader interface {
	RecentRepairs(ctx context.Context, orgIDs []string, since time.Time) ([]billing.Repair, error)
	WithholdingRun(ctx context.Context, orgID string, since time.Time) (billing.Withholding, error)
}

// repairCache has the repairs of a batch's organizations within 24 hours. It is filled for all of them at once, when
// the first one has something to write.
type repairCache struct {
	mu      sync.Mutex
	read    bool
	repairs map[string][]billing.Repair
}

// guard checks a plan that changes something. If the plan repeats a change that a run made within 24 hours and
// something undid, guard adds a warning. held is the reason not to carry out the plan, nil if there is none. There are
// two: the repeated change lowers access, or this run is over one organization and would lower access while another run
// withholds that. A person can override both.
func (b *batch) guard(ctx context.Context, t *task, plan billing.Plan) (guarded billing.Plan, held *billing.Failure, err error) {
	repairs, err := b.recentRepairs(ctx, t)
	if err != nil {
		return plan, nil, err
	}
	undone, by := billing.Undone(plan.Changes, repairs)
	if len(undone) > 0 {
		plan.Warnings = append(slices.Clone(plan.Warnings), billing.RepairUndone(by))
	}
	switch {
	case !b.lowers(plan) || t.run.OverridesGuard():
		return plan, nil, nil
	case b.Rules.Tiers.LowersAccess(undone):
		if err := b.checkUnchanged(ctx, t); err != nil {
			return plan, nil, err
		}
		return plan, billing.NotRepeated(by), nil
	case t.run.OrgID == "":
		return plan, nil, nil
	}
	holder, err := b.Store.WithholdingRun(ctx, t.work.OrgID, b.now().Add(-billing.WithheldFor))
	if err != nil || holder.RunID == "" {
		return plan, nil, err
	}
	held = billing.WithheldByRun(holder)
	if t.item.Reason == billing.ReasonWithheldByRun && b.now().Sub(holder.ApprovedAt) < billing.ApprovalWait {
		// Both messages were redriven, in no order. The other run's repairs the organization: this one is tried again.
		held.Class = billing.Unavailable
		return plan, nil, held
	}
	return plan, held, nil
}

// checkUnchanged returns [billing.ErrRecordChanged] if the record changed since it was read. Then the repair may be one
// that another run made since, and nothing has undone it.
func (b *batch) checkUnchanged(ctx context.Context, t *task) error {
	records, err := b.Store.Records(ctx, []string{t.work.OrgID})
	if err == nil && !records[t.work.OrgID].Same(t.record) {
		err = billing.ErrRecordChanged
	}
	return err
}

// recentRepairs returns the recent repairs of the task's organization that other runs made.
func (b *batch) recentRepairs(ctx context.Context, t *task) ([]billing.Repair, error) {
	all, err := b.readRepairs(ctx, t)
	return slices.DeleteFunc(slices.Clone(all), func(r billing.Repair) bool { return r.RunID == t.work.RunID }), err
}

// readRepairs reads the cache, or the database if the task's record was reloaded: it may have been repaired since.
func (b *batch) readRepairs(ctx context.Context, t *task) ([]billing.Repair, error) {
	since := b.now().Add(-billing.UndoneWithin)
	if t.lookUpAlone {
		return b.Store.RecentRepairs(ctx, []string{t.work.OrgID}, since)
	}
	b.recent.mu.Lock()
	defer b.recent.mu.Unlock()
	if !b.recent.read {
		all, err := b.Store.RecentRepairs(ctx, b.orgs, since)
		if err != nil {
			return nil, err
		}
		b.recent.read, b.recent.repairs = true, map[string][]billing.Repair{}
		for _, r := range all {
			b.recent.repairs[r.OrgID] = append(b.recent.repairs[r.OrgID], r)
		}
	}
	return b.recent.repairs[t.work.OrgID], nil
}
