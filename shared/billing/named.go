package billing

import "strings"

// Identity is the identity of an organization in the database.
type Identity struct {
	ID string // in the database's spelling
	// CaseInsensitive: the column's collation ignores case.
	CaseInsensitive bool
	Deleted         bool
}

// NamedID returns the organization's id in the metadata's spelling, "" if there is none.
func (s Subscription) NamedID() string { return strings.TrimSpace(s.OrgID) }

// MayName reports whether the metadata names the organization if case is ignored: people type it. [Claims.Names]
// decides.
func (s Subscription) MayName(orgID string) bool { return OrgKey(s.OrgID) == OrgKey(orgID) }

// OrgKey normalizes an id for the comparison in [Subscription.MayName].
func OrgKey(id string) string { return strings.ToLower(strings.TrimSpace(id)) }

// spellings returns the spellings of an id in metadata that the database may have, in order of preference.
func spellings(id string) []string { return []string{id, strings.ToLower(id), strings.ToUpper(id)} }

// Spellings returns the ids, each once, to look up for the organizations that metadata names: see
// [Subscription.NamedID].
func Spellings(named []string) []string {
	var all []string
	added := make(map[string]bool, 2*len(named))
	for _, id := range named {
		for _, spelled := range spellings(id) {
			if spelled != "" && !added[spelled] {
				added[spelled] = true
				all = append(all, spelled)
			}
		}
	}
	return all
}

// Named maps the ids in metadata to the organizations found for [Spellings]: the one with exactly this id, else the one
// with the id in lower case, else in upper case, else one that the database considers equal. Ids that differ only in
// case may belong to two organizations.
func Named(named []string, found []Identity) map[string]Identity {
	exactly, anyCase := make(map[string]Identity, len(found)), map[string]Identity{}
	for _, org := range found {
		exactly[org.ID] = org
		if org.CaseInsensitive {
			anyCase[OrgKey(org.ID)] = org
		}
	}
	byName := map[string]Identity{}
	for _, id := range named {
		if org, ok := anyCase[OrgKey(id)]; ok {
			byName[id] = org
		}
		for _, spelled := range spellings(id) {
			if org, ok := exactly[spelled]; ok {
				byName[id] = org
				break
			}
		}
	}
	return byName
}
