package report

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

// state says whether an organization's changes were written.
type state string

const (
	stateWritten   state = "written"
	stateWithheld  state = "withheld"
	stateWouldBe   state = "would-be" // in a dry run
	stateUnwritten state = "unwritten"
)

// states are in the order of the page.
var states = []state{stateWritten, stateWouldBe, stateWithheld, stateUnwritten}

func stateOf(i billing.Item) state {
	switch {
	case applied(i):
		return stateWritten
	case i.Outcome == billing.OutcomeDrifted:
		return stateWouldBe
	case i.Reason.Withholds():
		return stateWithheld
	default:
		return stateUnwritten
	}
}

// Label and Means are for people.
func (s state) Label() string {
	return map[state]string{
		stateWritten: "Written", stateWouldBe: "Would be written", stateWithheld: "Withheld", stateUnwritten: "Not written",
	}[s]
}

func (s state) Means() string {
	return map[state]string{
		stateWritten:   "The database has them.",
		stateWouldBe:   "A dry run writes nothing.",
		stateWithheld:  "Not written by this run. If right, approve them; if wrong, correct the cause: the next run lowers up to its own limit.",
		stateUnwritten: "An error prevented it.",
	}[s]
}

// note is the remark beside changes that are not in the database; "" for written ones.
func (s state) note() string {
	switch s {
	case stateWritten:
		return ""
	case stateWouldBe:
		return "would be written"
	default:
		return "not written"
	}
}

// financeGroup counts the organizations with changes of tier or period in one state.
type financeGroup struct {
	State                            state
	N, Tiers, Periods, Raised, Lower int
	First                            []entry // shown if scripts do not run
	longest                          time.Duration
}

// Longest returns the longest known time for which access was wrong, or "" if it is unknown.
func (g financeGroup) Longest() string {
	if g.longest == 0 {
		return ""
	}
	return span(g.longest)
}

// finance counts organizations with changes of tier or period.
type finance struct {
	groups map[state]*financeGroup
	moves  map[move]*matrixCell
	tiers  map[string]bool
}

func newFinance() finance {
	return finance{groups: map[state]*financeGroup{}, moves: map[move]*matrixCell{}, tiers: map[string]bool{}}
}

func (f *finance) add(i mysqlstore.ReportItem) {
	tier, period := touches(i.Changes, billing.GroupTier), touches(i.Changes, billing.GroupPeriod)
	if !tier && !period {
		return
	}
	s := stateOf(i.Item)
	g := f.groups[s]
	if g == nil {
		g = &financeGroup{State: s}
		f.groups[s] = g
	}
	g.N++
	g.Tiers += one(tier)
	g.Periods += one(period)
	g.Raised += one(i.Raises)
	g.Lower += one(i.Lowers)
	g.longest = max(g.longest, wrongFor(i))
	if m := tierOf(i); tier && m.before != m.after {
		f.move(move{f.tier(m.before), f.tier(m.after)}, s)
	}
}

func (f *finance) move(m move, s state) {
	cell := f.moves[m]
	if cell == nil {
		cell = &matrixCell{}
		f.moves[m] = cell
	}
	if s == stateWithheld || s == stateUnwritten {
		cell.Held++
		return
	}
	cell.N++
}

const (
	// maxTiers is how many names the matrix of tiers has: a column may hold anything.
	maxTiers   = 12
	otherTiers = "any other"
	noTier     = "none"
)

// tier is the name under which the matrix counts it.
func (f *finance) tier(name string) string {
	name = cmp.Or(clean(name), noTier)
	if !f.tiers[name] && len(f.tiers) >= maxTiers {
		return otherTiers
	}
	f.tiers[name] = true
	return name
}

// list returns the groups that have organizations.
func (f *finance) list() []financeGroup {
	var all []financeGroup
	for _, s := range states {
		if g := f.groups[s]; g != nil {
			all = append(all, *g)
		}
	}
	return all
}

// matrix counts organizations by the tier before and the tier after.
type matrix struct {
	To   []string
	Rows []matrixRow
}

type matrixRow struct {
	From  string
	Cells []matrixCell
}

// matrixCell has those that were or would be written, and those that were held back.
type matrixCell struct{ N, Held int }

// matrix is nil where no tier changed.
func (f *finance) matrix() *matrix {
	if len(f.moves) == 0 {
		return nil
	}
	from, to := map[string]bool{}, map[string]bool{}
	for m := range f.moves {
		from[m.before], to[m.after] = true, true
	}
	all := &matrix{To: slices.SortedFunc(maps.Keys(to), byTier)}
	for _, before := range slices.SortedFunc(maps.Keys(from), byTier) {
		row := matrixRow{From: before}
		for _, after := range all.To {
			cell := matrixCell{}
			if c := f.moves[move{before, after}]; c != nil {
				cell = *c
			}
			row.Cells = append(row.Cells, cell)
		}
		all.Rows = append(all.Rows, row)
	}
	return all
}

// byTier sorts no tier first, then the usual ones from the lowest on, then others by their names.
func byTier(a, b string) int {
	place := func(name string) int {
		if name == noTier {
			return -1
		}
		if i := slices.Index(billing.DefaultTiers, billing.Tier(name)); i >= 0 {
			return i
		}
		return len(billing.DefaultTiers)
	}
	return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a, b))
}

// wrongFor returns how long, at least, an organization had the wrong access before the run decided it: the time since
// the latest event about it. It is 0 if that is unknown.
func wrongFor(i mysqlstore.ReportItem) time.Duration {
	if i.Cause == nil || i.Cause.Created.IsZero() || !i.Lowers && !i.Raises {
		return 0
	}
	return max(0, i.DecidedAt.Sub(i.Cause.Created))
}

// wrong returns that time for people, or "" if it is unknown.
func wrong(i mysqlstore.ReportItem) string {
	d := wrongFor(i)
	if d == 0 {
		return ""
	}
	access := "too little access"
	if i.Lowers {
		access = "too much access"
	}
	if applied(i.Item) {
		return access + " for at least " + span(d)
	}
	return access + " since " + moment(i.Cause.Created) + " or longer (" + span(d) + " when it was looked at)"
}

// span is a length of time in its two largest units.
func span(d time.Duration) string {
	minutes := int(d / time.Minute)
	hours := minutes / 60
	switch {
	case minutes < 1:
		return "under a minute"
	case hours < 1:
		return strconv.Itoa(minutes) + " min"
	case hours < 48:
		return strconv.Itoa(hours) + " h " + strconv.Itoa(minutes%60) + " min"
	default:
		return billing.Count(hours/24, "day") + " " + strconv.Itoa(hours%24) + " h"
	}
}
