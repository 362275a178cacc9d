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
		stateWritten: "Written", stateWouldBe: "Would change", stateWithheld: "Withheld", stateUnwritten: "Not written",
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
		return "would change"
	default:
		return "not written"
	}
}

// financeGroup counts the organizations with changes of tier, period or access in one state.
type financeGroup struct {
	State             state
	N, Tiers, Periods int
	ByStatus          int // neither tier nor period changed: a status alone raises or lowers access
	Raised, Lower     int
	First             []entry // shown if scripts do not run
	longest           time.Duration
}

// Longest returns the longest known time for which access was wrong, or "" if it is unknown.
func (g financeGroup) Longest() string {
	if g.longest == 0 {
		return ""
	}
	return span(g.longest)
}

// concernsFinance reports whether tier, period or access changed.
func concernsFinance(i mysqlstore.ReportItem) bool {
	return i.Raises || i.Lowers || touches(i.Changes, billing.GroupTier) || touches(i.Changes, billing.GroupPeriod)
}

// isFinance reports whether the section about tier, period and access shows the change: a status and an end explain
// how access changed.
func isFinance(i mysqlstore.ReportItem, field string) bool {
	switch billing.GroupOf(field) {
	case billing.GroupTier, billing.GroupPeriod:
		return true
	case billing.GroupStatus:
		return i.Raises || i.Lowers
	default:
		return i.Lowers && field == billing.FieldEndedAt
	}
}

// finance counts organizations with changes of tier, period or access.
type finance struct {
	groups map[state]*financeGroup
	moves  map[move]*matrixCell
	tiers  map[string]bool
}

func newFinance() finance {
	return finance{groups: map[state]*financeGroup{}, moves: map[move]*matrixCell{}, tiers: map[string]bool{}}
}

func (f *finance) add(i mysqlstore.ReportItem) {
	if !concernsFinance(i) {
		return
	}
	tier, period := touches(i.Changes, billing.GroupTier), touches(i.Changes, billing.GroupPeriod)
	s := stateOf(i.Item)
	g := f.groups[s]
	if g == nil {
		g = &financeGroup{State: s}
		f.groups[s] = g
	}
	g.N++
	g.Tiers += one(tier)
	g.Periods += one(period)
	g.ByStatus += one(!tier && !period)
	g.Raised += one(i.Raises)
	g.Lower += one(i.Lowers)
	g.longest = max(g.longest, wrongSince(i).before(i.DecidedAt))
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

// since is the time since which access was wrong, as far as the run's data tell, and what tells it.
type since struct {
	at   time.Time // zero if nothing is known
	what string
}

// wrongSince returns the subscription's end, or else the later of its cancellation and the event that named the
// organization; but never before another run left the organization right.
func wrongSince(i mysqlstore.ReportItem) since {
	var s since
	if !i.Lowers && !i.Raises {
		return s
	}
	if i.Cause != nil {
		s = since{i.Cause.Created, "since the event of"}
		if at := written(i, billing.FieldCanceledAt); at.After(s.at) {
			s = since{at, "since the cancellation of"}
		}
	}
	if at := written(i, billing.FieldEndedAt); i.Lowers && !at.IsZero() && i.SubscriptionID != "" { // else it is the time of the run
		s = since{at, "since the subscription’s end of"}
	}
	if i.RightAt.After(s.at) {
		s = since{i.RightAt, "after another run left it right,"}
	}
	return s
}

// written returns the time that the changes write to the field, or zero.
func written(i mysqlstore.ReportItem, field string) time.Time {
	for _, c := range i.Changes {
		if at, ok := c.To.(time.Time); ok && c.Field == field {
			return at
		}
	}
	return time.Time{}
}

// before returns the time until then, or 0 if it is unknown.
func (s since) before(then time.Time) time.Duration {
	if s.at.IsZero() {
		return 0
	}
	return max(0, then.Sub(s.at))
}

// wrong returns since when access was wrong, for people, or "" if it is unknown.
func wrong(i mysqlstore.ReportItem) string {
	s := wrongSince(i)
	d := s.before(i.DecidedAt)
	if d == 0 {
		return ""
	}
	access, until := "too little access", "when it was looked at"
	if i.Lowers {
		access = "too much access"
	}
	if applied(i.Item) {
		until = "when it was repaired"
	}
	return access + " " + s.what + " " + moment(s.at) + " (" + span(d) + " " + until + ")"
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
