package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

// entry is one organization of the page, ready to be shown.
type entry struct {
	Org          string         `json:"org"`
	Name         string         `json:"name"`
	Outcome      string         `json:"outcome"`
	Reason       string         `json:"reason"`
	Event        string         `json:"event,omitempty"` // that named it in a catch-up
	Wrong        string         `json:"wrong,omitempty"` // since when access was wrong
	Changes      []change       `json:"changes,omitempty"`
	Error        string         `json:"error,omitempty"`
	Next         string         `json:"next,omitempty"`     // the command for one in error
	NextDoes     string         `json:"nextDoes,omitempty"` // what that does
	Warnings     []entryWarning `json:"warnings,omitempty"`
	Subscription stripeLink     `json:"subscription"`
	Customer     stripeLink     `json:"customer"`
	Group        state          `json:"group,omitempty"`   // of finance: tier, period or access changed
	Lowered      bool           `json:"lowered,omitempty"` // the changes lower access
	Raised       bool           `json:"raised,omitempty"`  // the changes raise access
	Note         string         `json:"note,omitempty"`    // there are changes, but they were not written
}

// change has nil for NULL.
type change struct {
	Field   string  `json:"field"`
	From    *string `json:"from"`
	To      *string `json:"to"`
	Finance bool    `json:"finance,omitempty"`
}

type entryWarning struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// findings are the page's entries, and counts of all items, listed or not.
type findings struct {
	mode  config.Mode
	limit int // of entries of one outcome

	entries  *spool
	plain    []entry // the first, for where scripts do not run
	finance  finance
	listed   map[billing.Outcome]int
	found    map[billing.Outcome]int
	fields   map[string]int // organizations by field, applied or not
	access   map[string]int // raised, lowered
	warnings map[billing.WarningCode]int
	named    map[string][]string // the first organizations with an error or a warning, by its code
	reasons  map[billing.Reason]int
	errors   map[billing.Reason]int
	lowers   map[billing.Reason]bool // an organization in error would lose access by its changes
	accepted []acceptedRow           // errors and warnings that were accepted; they are not among the others

	changed, changes int // organizations, single changes
}

func newFindings(mode config.Mode, limit int) *findings {
	return &findings{
		mode: mode, limit: limit, entries: newSpool(), finance: newFinance(),
		listed: map[billing.Outcome]int{}, found: map[billing.Outcome]int{}, fields: map[string]int{},
		access: map[string]int{}, named: map[string][]string{}, warnings: map[billing.WarningCode]int{}, reasons: map[billing.Reason]int{}, errors: map[billing.Reason]int{},
		lowers: map[billing.Reason]bool{},
	}
}

func (f *findings) add(i mysqlstore.ReportItem, s billing.Summary) error {
	f.count(i)
	if f.listed[i.Outcome] == f.limit {
		return nil
	}
	f.listed[i.Outcome]++
	e := f.entry(i, s)
	if len(f.plain) < maxPlain {
		f.plain = append(f.plain, e)
	}
	if g := f.finance.groups[e.Group]; g != nil && len(g.First) < maxPlain {
		g.First = append(g.First, e.forFinance())
	}
	return f.entries.add(e)
}

func (f *findings) count(i mysqlstore.ReportItem) {
	f.found[i.Outcome]++
	f.reasons[i.Reason]++
	for _, a := range i.Accepted {
		f.accepted = append(f.accepted, newAcceptedRow(i, a))
	}
	if i.Outcome == billing.OutcomeError && !i.AcceptedError() {
		f.errors[i.Reason]++
		f.name(string(i.Reason), i)
		f.lowers[i.Reason] = f.lowers[i.Reason] || i.Lowers
	}
	for _, w := range i.Warnings {
		if !i.Accepts(string(w.Code)) {
			f.warnings[w.Code]++
			f.name(string(w.Code), i)
		}
	}
	if len(i.Changes) == 0 {
		return
	}
	if access := accessCell(i); access != "" {
		f.access[access]++
	}
	f.changed++
	f.changes += len(i.Changes)
	for _, field := range fieldsOf(i.Changes) {
		f.fields[field]++
	}
	f.finance.add(i)
}

// maxNamed is how many organizations a row of errors or warnings names.
const maxNamed = 10

func (f *findings) name(code string, i mysqlstore.ReportItem) {
	if all := f.named[code]; len(all) < maxNamed {
		f.named[code] = append(all, cmp.Or(clean(i.OrgName), clean(i.OrgID)))
	}
}

// nameOf is for the bold line above the id.
func nameOf(i mysqlstore.ReportItem) string { return cmp.Or(clean(i.OrgName), "(no name)") }

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// fieldsOf returns each field once.
func fieldsOf(changes []billing.Change) []string {
	seen := map[string]bool{}
	for _, c := range changes {
		seen[c.Field] = true
	}
	return slices.Collect(maps.Keys(seen))
}

func (f *findings) entry(i mysqlstore.ReportItem, s billing.Summary) entry {
	e := entry{
		Org: clean(i.OrgID), Name: nameOf(i), Outcome: string(i.Outcome), Reason: string(i.Reason), Error: clean(i.Error),
		Subscription: linkSubscription(f.mode, i.SubscriptionID), Customer: linkCustomer(f.mode, customerOf(i)),
		Lowered: i.Lowers, Raised: i.Raises, Wrong: wrong(i),
	}
	if len(i.Changes) > 0 {
		e.Note = stateOf(i.Item).note()
	}
	if i.Lowers && i.Outcome == billing.OutcomeDrifted && s.WouldWithholdInAll() > 0 {
		e.Note = "would change, or be withheld"
	}
	if concernsFinance(i) {
		e.Group = stateOf(i.Item)
	}
	if i.Cause != nil {
		e.Event = clean(i.Cause.Describe(s.StartedAt))
	}
	if i.Outcome == billing.OutcomeError && !i.AcceptedError() {
		e.NextDoes, e.Next = next(i, s)
	}
	for _, c := range i.Changes {
		e.Changes = append(e.Changes, change{Field: clean(c.Field), From: shown(c.From), To: shown(c.To), Finance: isFinance(i, c.Field)})
	}
	for _, w := range i.Warnings {
		e.Warnings = append(e.Warnings, entryWarning{Code: string(w.Code), Message: clean(w.Message)})
	}
	return e
}

// forFinance is the entry with what concerns tier, period and access only.
func (e entry) forFinance() entry {
	e.Changes = slices.DeleteFunc(slices.Clone(e.Changes), func(c change) bool { return !c.Finance })
	e.Error, e.Next, e.Warnings, e.Event = "", "", nil, ""
	return e
}

// shown is a value for people: times to the second without the letters of RFC 3339.
func shown(v any) *string {
	if v == nil {
		return nil
	}
	if at, ok := v.(time.Time); ok {
		return new(at.Format(time.DateTime))
	}
	return new(clean(fmt.Sprint(v)))
}

// omitted says what the page does not list, one sentence for each outcome.
func (f *findings) omitted() []string {
	var all []string
	for _, outcome := range slices.Sorted(maps.Keys(f.found)) {
		if listed := f.listed[outcome]; listed < f.found[outcome] {
			all = append(all, fmt.Sprintf("Of %s organizations with outcome %s, only the first %s (by organization id) are listed here.",
				billing.Thousands(f.found[outcome]), outcome, billing.Thousands(listed)))
		}
	}
	return all
}

// most returns the keys, the one with the highest count first.
func most[K ~string](counts map[K]int) []K {
	return slices.SortedFunc(maps.Keys(counts), func(a, b K) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), strings.Compare(string(a), string(b)))
	})
}
