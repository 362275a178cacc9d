package pipeline

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// guardReader tells what runs did and held back before. How many organizations a run may lower is counted when
// it writes.
type guardReader interface {
	RecentRepairs(ctx context.Context, orgIDs []string, since time.Time) ([]billing.Repair, error)
	WithholdingRun(ctx context.Context, orgID string, since time.Time) (runID string, err error)
}

// recent are the repairs of a batch's organizations within a day. They are read at once, when the first of them
// has something to write.
type recent struct {
	mu      sync.Mutex
	read    bool
	repairs map[string][]billing.Repair
}

// guard looks at a plan that changes something. A change that a run made within a day, and something undid,
// is warned of. held is why the plan is not to be carried out; nil if it is: a lowering is not repeated within
// a day, and a run over one organization does not lower what another run holds back, unless a person allowed it.
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
		if err := b.stillStands(ctx, t); err != nil {
			return plan, nil, err
		}
		return plan, billing.NotRepeated(by), nil
	case t.run.OrgID == "":
		return plan, nil, nil
	}
	holder, err := b.Store.WithholdingRun(ctx, t.work.OrgID, b.now().Add(-billing.WithheldFor))
	if err != nil || holder == "" {
		return plan, nil, err
	}
	return plan, billing.WithheldByRun(holder), nil
}

// stillStands makes sure that the record is the one that was read. Else what was repaired may be a repair that another
// run made since, and nothing has undone it: [billing.ErrRecordChanged].
func (b *batch) stillStands(ctx context.Context, t *task) error {
	records, err := b.Store.Records(ctx, []string{t.work.OrgID})
	if err == nil && !records[t.work.OrgID].Same(t.record) {
		err = billing.ErrRecordChanged
	}
	return err
}

// recentRepairs are those that runs other than the task's made for its organization. A record that was read
// anew may have been repaired since the others' were read.
func (b *batch) recentRepairs(ctx context.Context, t *task) ([]billing.Repair, error) {
	all, err := b.readRepairs(ctx, t)
	return slices.DeleteFunc(slices.Clone(all), func(r billing.Repair) bool { return r.RunID == t.work.RunID }), err
}

func (b *batch) readRepairs(ctx context.Context, t *task) ([]billing.Repair, error) {
	since := b.now().Add(-billing.UndoneWithin)
	if t.alone {
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
