package chaos_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/eventserver"
)

// announced is what consumers received, without repeated announcements.
type announced struct {
	ids        map[string]bool
	repairs    map[billing.Work][]billing.Change
	ends       map[string][]billing.Summary
	unreadable []error
}

func (r *round) announced() announced {
	all := announced{map[string]bool{}, map[billing.Work][]billing.Change{}, map[string][]billing.Summary{}, nil}
	for _, e := range r.bus.Events() {
		all.add(e.DetailType, e.Detail)
	}
	return all
}

func (t *announced) add(kind string, text []byte) {
	var detail struct {
		ID, OrgID, RunID string
		Changes          []billing.Change
	}
	var end billing.Summary
	err := json.Unmarshal(text, &detail)
	if kind == string(billing.AnnounceRunFinished) {
		err = errors.Join(err, json.Unmarshal(text, &end))
	}
	if err != nil {
		t.unreadable = append(t.unreadable, fmt.Errorf("announcement %s cannot be read: %w", text, err))
	}
	if t.ids[detail.ID] {
		return
	}
	t.ids[detail.ID] = true
	if kind == string(billing.AnnounceRunFinished) {
		t.ends[detail.RunID] = append(t.ends[detail.RunID], end)
		return
	}
	work := billing.Work{RunID: detail.RunID, OrgID: detail.OrgID}
	t.repairs[work] = append(t.repairs[work], detail.Changes...)
}

// announcementsAreTheRepairs: exactly the repairs were announced, and the latest end of each run that announces its end.
// Repairs may be missing if programs of a version without announcements took part.
func announcementsAreTheRepairs(s result) error {
	problems := slices.Clone(s.announced.unreadable)
	for work, changes := range s.announced.repairs {
		announced := changeTexts(changes)
		made := changeTexts(s.items[work].Changes)
		if s.items[work].Outcome != billing.OutcomeSynced || s.runs[work.RunID].dryRun || !within(announced, made) {
			problems = append(problems, fmt.Errorf("the announced changes of organization %s in run %s are %v; its item is %s with %v", work.OrgID, work.RunID, announced, s.items[work].Outcome, made))
		}
	}
	if s.mixed {
		return errors.Join(problems...)
	}
	for work, item := range s.items {
		if item.Outcome == billing.OutcomeSynced && !within(changeTexts(item.Changes), changeTexts(s.announced.repairs[work])) {
			problems = append(problems, fmt.Errorf("run %s repaired organization %s and did not announce %v", work.RunID, work.OrgID, changeTexts(item.Changes)))
		}
	}
	for id, run := range s.runs {
		if run.org != "" || run.summary == nil || run.status.Open() {
			continue
		}
		if run.catchUp && !billing.AnnouncesEnd(billing.Run{Strategy: billing.StrategyEvents}, *run.summary) {
			continue
		}
		if !slices.ContainsFunc(s.announced.ends[id], func(end billing.Summary) bool { return !run.summary.IsNewsAfter(end) }) {
			problems = append(problems, fmt.Errorf("the end of run %s, %s, was not announced, only %d other ends", id, run.status, len(s.announced.ends[id])))
		}
	}
	return errors.Join(problems...)
}

func changeTexts(changes []billing.Change) []string {
	var all []string
	for _, c := range changes {
		all = append(all, fmt.Sprintf("%s: %v -> %v", c.Field, c.From, c.To))
	}
	slices.Sort(all)
	return all
}

// within reports whether the sorted others contain all of the sorted texts, duplicates included.
func within(texts, others []string) bool {
	for _, text := range texts {
		i := slices.Index(others, text)
		if i < 0 {
			return false
		}
		others = others[i+1:]
	}
	return true
}

// endPauses makes the announcements due that were refused or whose end may still be amended.
func (r *round) endPauses(ctx context.Context) {
	_, _ = r.db.ExecContext(ctx, `UPDATE reconciliation_outbox SET next_try_at = '2000-01-01' WHERE next_try_at > '2000-01-01'`) // the tables may not exist yet
}

// busFault fails requests to EventBridge.
func busFault(answer eventserver.Fault) func(context.Context, *round, fault) {
	return func(ctx context.Context, r *round, f fault) {
		countHit := r.hitCounter(f)
		defer r.failBus.add(func() *eventserver.Fault {
			if !r.chance(0.2 + 0.8*f.severity) {
				return nil
			}
			countHit()
			return &answer
		})()
		pause(ctx, f.duration)
	}
}

func refuseEvents(ctx context.Context, r *round, f fault) {
	countHit := r.hitCounter(f)
	defer r.failEvent.add(func(eventserver.Entry) string {
		if !r.chance(0.2 + 0.6*f.severity) {
			return ""
		}
		countHit()
		return "InternalFailure"
	})()
	pause(ctx, f.duration)
}

func (r *round) startBus() (err error) {
	if r.bus, err = eventserver.Start(eventserver.Options{Buses: []string{"application"}}); err != nil {
		return err
	}
	r.cleanups = append(r.cleanups, r.bus.Close)
	r.bus.SetFail(func() *eventserver.Fault {
		for _, f := range r.failBus.list() {
			if fault := f(); fault != nil {
				return fault
			}
		}
		return nil
	})
	r.bus.SetFailEntry(func(e eventserver.Entry) string {
		for _, f := range r.failEvent.list() {
			if code := f(e); code != "" {
				return code
			}
		}
		return ""
	})
	return nil
}
