package output

import (
	"slices"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// marks tells which organizations of a dry run a run that writes would withhold.
type marks struct {
	// certain has the reason of each organization that would be withheld whatever the order of the run.
	certain map[string]billing.Reason
	// lowered are the other organizations whose access would be lowered. The limit withholds some of them.
	lowered map[string]bool
}

func marksOf(s billing.Summary, tiers billing.Tiers) marks {
	m := marks{map[string]billing.Reason{}, map[string]bool{}}
	would := s.WouldWithhold()
	if len(would) == 0 || len(tiers) == 0 {
		return m
	}
	var undone, others []string
	for _, d := range s.Details {
		switch {
		case d.Action != billing.OutcomeDrifted || !tiers.LowersAccess(d.Changes):
		case warns(d, billing.WarnRepairUndone):
			undone = append(undone, d.OrgID)
		default:
			others = append(others, d.OrgID)
		}
	}
	if would[billing.ReasonWithheldByRun] > 0 { // of a run over one organization
		m.add(others, billing.ReasonWithheldByRun)
		return m
	}
	if n := would[billing.ReasonNotRepeated]; n > 0 && n == len(undone) {
		m.add(undone, billing.ReasonNotRepeated)
	} else {
		others = append(others, undone...)
	}
	switch would[billing.ReasonWithheld] {
	case 0:
	case s.Downgrades: // the limit is 0
		m.add(others, billing.ReasonWithheld)
	default:
		for _, id := range others {
			m.lowered[id] = true
		}
	}
	return m
}

func (m marks) add(ids []string, reason billing.Reason) {
	for _, id := range ids {
		m.certain[id] = reason
	}
}

func warns(d billing.Detail, code billing.WarningCode) bool {
	return slices.ContainsFunc(d.Warnings, func(w billing.Warning) bool { return w.Code == code })
}
