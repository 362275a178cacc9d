package billing

import "maps"

// Drift counts the organizations of a run that differed from Stripe: repaired, withheld, or found by a dry run.
type Drift struct {
	ByField map[string]int // by column, only nonzero counts
	Access  int            // with at least one column that grants access
	Detail  int            // with other columns only
	// Warnings counts organizations of any outcome by warning, without accepted ones.
	Warnings      map[WarningCode]int
	AccessChanges AccessChanges
	ByCause       DriftByCause
	// Accepted counts organizations by accepted error or warning, AcceptedErrors those with an accepted error. Neither
	// Access nor Detail includes the latter.
	Accepted       map[string]int
	AcceptedErrors int
}

// AccessChanges are the organizations whose access a run raised or lowered, or would in a dry run.
type AccessChanges struct {
	Raised  Affected `json:"raised"`
	Lowered Affected `json:"lowered"`
}

// Affected counts organizations and lists the first ids in their order, at most maxAffected.
type Affected struct {
	Organizations int      `json:"organizations"`
	First         []string `json:"first"`
}

const maxAffected = 10

func (a *Affected) add(orgID string) {
	a.Organizations++
	if len(a.First) < maxAffected {
		a.First = append(a.First, orgID)
	}
}

// Add counts one organization's item.
func (d *Drift) Add(i Item, tiers Tiers) {
	d.addAccepted(i)
	d.addWarnings(i)
	if len(i.Changes) == 0 || !i.Differed() {
		return
	}
	if d.ByField == nil {
		d.ByField = map[string]int{}
	}
	counted, access := map[string]bool{}, false
	for _, c := range i.Changes {
		access = access || GrantsAccess(c.Field)
		if !counted[c.Field] {
			counted[c.Field] = true
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
	case i.Outcome == OutcomeError: // withheld, so nothing was written
	case tiers.LowersAccess(i.Changes):
		d.AccessChanges.Lowered.add(i.OrgID)
	case tiers.RaisesAccess(i.Changes):
		d.AccessChanges.Raised.add(i.OrgID)
	}
}

func (d *Drift) addAccepted(i Item) {
	d.AcceptedErrors += one(i.AcceptedError())
	for _, code := range i.AcceptableCodes() {
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

// withoutNil replaces nil slices by empty ones, for the JSON.
func (a AccessChanges) withoutNil() AccessChanges {
	for _, affected := range []*Affected{&a.Raised, &a.Lowered} {
		if affected.First == nil {
			affected.First = []string{}
		}
	}
	return a
}

// DriftByCause counts a catch-up's drifted organizations by the delivery of their event. In other runs both are 0.
type DriftByCause struct {
	Pending    int `json:"pending"`    // an endpoint had not accepted the event
	NotPending int `json:"notPending"` // every subscribed endpoint had, or none is subscribed
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
