package billing

import "maps"

// Drift is what differed from Stripe in a run, repaired, withheld, or found by a dry run, counted in
// organizations.
type Drift struct {
	ByField map[string]int // by column; those without drift are absent
	Access  int            // with a column that grants access among them
	Detail  int            // with other columns only
	// Warnings counts organizations by warning, whatever their outcome.
	Warnings      map[WarningCode]int
	AccessChanges AccessChanges
	ByCause       DriftByCause
	// Accepted counts organizations by the code of an error or a warning that somebody accepted: such warnings
	// are not among the others, and what differs in such an error is not in Access and Detail. AcceptedErrors are
	// those in error.
	Accepted       map[string]int
	AcceptedErrors int
}

// AccessChanges tells whose access the changes of a run raised or lowered, or in a dry run would.
type AccessChanges struct {
	Raised  Affected `json:"raised"`
	Lowered Affected `json:"lowered"`
}

// Affected counts organizations and names the first, at most maxAffected, in the order of their ids.
type Affected struct {
	Organizations int      `json:"organizations"`
	First         []string `json:"first"`
}

// maxAffected is how many organizations people read the ids of in a message.
const maxAffected = 10

func (m *Affected) add(orgID string) {
	m.Organizations++
	if len(m.First) < maxAffected {
		m.First = append(m.First, orgID)
	}
}

// Add counts one organization's item; tiers tells which of two ranks higher. What was withheld
// moved nobody's access.
func (d *Drift) Add(i Item, tiers Tiers) {
	d.addAccepted(i)
	d.addWarnings(i)
	if len(i.Changes) == 0 || !i.Differed() {
		return
	}
	if d.ByField == nil {
		d.ByField = map[string]int{}
	}
	seen, access := map[string]bool{}, false
	for _, c := range i.Changes {
		access = access || GrantsAccess(c.Field)
		if !seen[c.Field] {
			seen[c.Field] = true
			d.ByField[c.Field]++
		}
	}
	d.ByCause.add(i.Cause)
	switch {
	case i.AcceptedError():
	case access:
		d.Access++
	default:
		d.Detail++
	}
	switch {
	case i.Outcome == OutcomeError: // withheld
	case tiers.LowersAccess(i.Changes):
		d.AccessChanges.Lowered.add(i.OrgID)
	case tiers.RaisesAccess(i.Changes):
		d.AccessChanges.Raised.add(i.OrgID)
	}
}

func (d *Drift) addAccepted(i Item) {
	d.AcceptedErrors += one(i.AcceptedError())
	for _, code := range i.Codes() {
		if !i.Accepts(code) {
			continue
		}
		if d.Accepted == nil {
			d.Accepted = map[string]int{}
		}
		d.Accepted[code]++
	}
}

func (d *Drift) addWarnings(i Item) {
	codes := map[WarningCode]int{}
	for _, w := range i.Warnings {
		if !i.Accepts(string(w.Code)) {
			codes[w.Code] = 1
		}
	}
	for code := range maps.Keys(codes) {
		if d.Warnings == nil {
			d.Warnings = map[WarningCode]int{}
		}
		d.Warnings[code]++
	}
}

// listed never has null for a list.
func (m AccessChanges) listed() AccessChanges {
	for _, moved := range []*Affected{&m.Raised, &m.Lowered} {
		if moved.First == nil {
			moved.First = []string{}
		}
	}
	return m
}

// DriftByCause counts a catch-up's organizations that had drifted, by their cause. In other runs both are 0.
type DriftByCause struct {
	Pending    int `json:"pending"`    // some endpoint had not taken the event
	NotPending int `json:"notPending"` // it was taken, or no endpoint is subscribed to it
}

func (d *DriftByCause) add(c *Cause) {
	switch {
	case c == nil:
	case c.Pending():
		d.Pending++
	default:
		d.NotPending++
	}
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}
