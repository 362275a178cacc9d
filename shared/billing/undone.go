package billing

import (
	"fmt"
	"slices"
	"time"
)

// UndoneWithin is how long after a repair the same one counts as undone by something, not as needed anew.
const UndoneWithin = 24 * time.Hour

// WithheldFor is how long a run counts as recent of which a guard held something back: as long as SQS keeps the
// message with which it can be redriven.
const WithheldFor = 14 * 24 * time.Hour

// Repair is what a run wrote for an organization.
type Repair struct {
	OrgID   string
	RunID   string
	At      time.Time
	Changes []Change
}

// Undone returns those of the changes that the latest repair of their column made already, from the same value to
// the same one, and the latest of these repairs: something has undone them. Where a later repair wrote the column
// back, Stripe itself went back and forth, and nothing was undone. Where a repair wrote a column several times, what
// it came to counts.
func Undone(changes []Change, repairs []Repair) (undone []Change, by Repair) {
	for _, c := range changes {
		var latest Repair
		for _, r := range repairs {
			if r.At.After(latest.At) && r.wrote(c.Field) {
				latest = r
			}
		}
		if !latest.made(c) {
			continue
		}
		undone = append(undone, c)
		if latest.At.After(by.At) {
			by = latest
		}
	}
	return undone, by
}

func (r Repair) wrote(field string) bool {
	return slices.ContainsFunc(r.Changes, func(c Change) bool { return c.Field == field })
}

// made reports whether the repair changed the column as c would.
func (r Repair) made(c Change) bool {
	first := slices.IndexFunc(r.Changes, func(made Change) bool { return made.Field == c.Field })
	if first < 0 {
		return false
	}
	last := first
	for i := first + 1; i < len(r.Changes); i++ {
		if r.Changes[i].Field == c.Field {
			last = i
		}
	}
	return sameValue(r.Changes[first].From, c.From) && sameValue(r.Changes[last].To, c.To)
}

func sameValue(a, b any) bool {
	at, isTime := a.(time.Time)
	bt, isTimeToo := b.(time.Time)
	if isTime && isTimeToo {
		return at.Equal(bt)
	}
	return a == b
}

// RepairUndone is the warning for a plan that makes again what the repair made.
func RepairUndone(by Repair) Warning {
	return Warning{Code: WarnRepairUndone, Message: fmt.Sprintf(
		"run %s made the same change at %s and something undid it; find out what writes the old state back, mostly a webhook that takes it from the subscription's metadata",
		by.RunID, by.At.UTC().Format(time.RFC3339))}
}

// NotRepeated is the failure of a plan that lowers access again as the repair did.
func NotRepeated(by Repair) *Failure {
	return permanent(ReasonNotRepeated,
		"run %s lowered access at %s and something undid it, so it was not written again within 24 hours; stop what writes the old state back, then allow it for this organization",
		by.RunID, by.At.UTC().Format(time.RFC3339))
}

// WithheldByRun is the failure of a run over one organization that would lower what another run holds back.
func WithheldByRun(runID string) *Failure {
	return permanent(ReasonWithheldByRun,
		"run %s holds this lowering back, and a run over one organization does not lead around that, so it was not written; check whether the changes are right, then raise the limit of run %s and redrive",
		runID, runID)
}
