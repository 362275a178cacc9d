package billing

// Drift is what differed from Stripe in a run, repaired, withheld, or found by a dry run, counted in
// organizations.
type Drift struct {
	ByField map[string]int // by column; those without drift are absent
	Access  int            // with a column that grants access among them
	Detail  int            // with other columns only
	// TierMetadataMismatch counts organizations with that warning, whatever their outcome.
	TierMetadataMismatch int
}

// Add counts one organization's item.
func (d *Drift) Add(i Item) {
	d.TierMetadataMismatch += one(i.Warns(WarnTierMetadataMismatch))
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
	if access {
		d.Access++
	} else {
		d.Detail++
	}
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}
