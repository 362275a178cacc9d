package billing

import (
	"fmt"
	"slices"
	"time"
)

// UndoneWithin is how long after a repair the same change means that something undid the repair.
const UndoneWithin = 24 * time.Hour

// WithheldFor is how long a withheld repair blocks runs over its organization alone: as long as SQS keeps the message
// for the redrive.
const WithheldFor = 14 * 24 * time.Hour

// Repair is what a run wrote to an organization.
type Repair struct {
	OrgID   string
	RunID   string
	At      time.Time
	Changes []Change
}

// Undone returns the changes that the latest repair of their column already made, from and to the same values, and the
// latest of these repairs: something undid them. If a later repair reversed the column, Stripe itself changed back and
// forth and nothing was undone. Several writes of a column by one repair count as one change.
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

// RepairUndone is the warning for a plan that repeats the repair.
func RepairUndone(by Repair) Warning {
	return Warning{Code: WarnRepairUndone, Message: fmt.Sprintf(
		"run %s made the same change at %s and something undid it; find out what writes the old state back, mostly a webhook that takes it from the subscription's metadata",
		by.RunID, by.At.UTC().Format(time.RFC3339))}
}

// NotRepeated is the failure of a plan that would lower access again like the repair.
func NotRepeated(by Repair) *Failure {
	return permanent(ReasonNotRepeated,
		"run %s lowered access at %s and something undid it, so it was not written again within 24 hours; stop what writes the old state back, then allow it for this organization",
		by.RunID, by.At.UTC().Format(time.RFC3339))
}

// Withholding is a run that withholds the repair of an organization.
type Withholding struct {
	RunID  string // "" if there is none
	Reason Reason // why the run withholds it
	// ApprovedAt is when the run was approved to lower more than it has lowered, if that was after its decision; else
	// zero. Once its message is redriven, the run makes the repair.
	ApprovedAt time.Time
}

// ApprovalWait is how long after the approval of a run a redriven run over one of its organizations waits for it.
const ApprovalWait = time.Hour

// WithheldByRun is the failure of a run over one organization that would lower access although another run withholds
// that.
func WithheldByRun(by Withholding) *Failure {
	switch {
	case by.Reason == ReasonNotRepeated:
		return permanent(ReasonWithheldByRun,
			"run %s did not repeat this downgrade, which something had undone, and a run over one organization does not bypass that, so it was not written; stop what writes the old state back, then allow it for this organization",
			by.RunID)
	case !by.ApprovedAt.IsZero():
		return permanent(ReasonWithheldByRun,
			"run %s withheld this downgrade and was approved at %s, but has not made it yet, and a run over one organization does not anticipate that, so it was not written; redrive, so that run %s makes it",
			by.RunID, by.ApprovedAt.UTC().Format(time.RFC3339), by.RunID)
	}
	return permanent(ReasonWithheldByRun,
		"run %s withholds this downgrade, and a run over one organization does not bypass that, so it was not written; check whether the changes are right, then raise the limit of run %s and redrive",
		by.RunID, by.RunID)
}
