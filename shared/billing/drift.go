package billing

// Drift is what a run repaired, or found in a dry run, counted in organizations.
type Drift struct {
	ByField map[string]int // by column; those without drift are absent
	Access  int            // with a column that grants access among them
	Detail  int            // with other columns only
	// TierMetadataMismatch counts organizations with that warning, whatever their outcome.
	TierMetadataMismatch int
}

// Add counts one organization's item. Changes that were withheld are not drift that is gone, so
// only synced and drifted items count.
func (d *Drift) Add(i Item) {
	for _, w := range i.Warnings {
		if w.Code == WarnTierMetadataMismatch {
			d.TierMetadataMismatch++
			break
		}
	}
	if len(i.Changes) == 0 || (i.Outcome != OutcomeSynced && i.Outcome != OutcomeDrifted) {
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
