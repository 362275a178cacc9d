package billing

import "strings"

// Identity is an organization as far as its id goes.
type Identity struct {
	ID string // as the database spells it
	// CaseInsensitive: the database takes an id that differs from it in case only for the same. Whether it
	// does is up to the collation of the column.
	CaseInsensitive bool
	Deleted         bool
}

// NamedID returns the organization's id as the metadata spells it; "" if it has none.
func (s Subscription) NamedID() string { return strings.TrimSpace(s.OrgID) }

// MayName reports whether the metadata may mean the organization: people type it by hand, in
// whatever case. Whether it does, [Claims.Names] says.
func (s Subscription) MayName(orgID string) bool { return OrgKey(s.OrgID) == OrgKey(orgID) }

// OrgKey is the form in which ids are the same that may mean the same organization.
func OrgKey(id string) string { return strings.ToLower(strings.TrimSpace(id)) }

// spellings of an id that metadata has, the likeliest first.
func spellings(id string) []string { return []string{id, strings.ToLower(id), strings.ToUpper(id)} }

// Spellings returns the ids, each once, under which to look for the organizations that these texts,
// [Subscription.NamedID], name.
func Spellings(named []string) []string {
	var all []string
	seen := make(map[string]bool, 2*len(named))
	for _, id := range named {
		for _, spelled := range spellings(id) {
			if spelled != "" && !seen[spelled] {
				seen[spelled] = true
				all = append(all, spelled)
			}
		}
	}
	return all
}

// Named returns which of the organizations, found under [Spellings], each of the texts names: the
// one whose id is spelled like that, else the one with that id in small letters or in capitals,
// else the one that the database takes for the same. Ids that differ in case only may be those of
// two organizations.
func Named(named []string, found []Identity) map[string]Identity {
	exactly, anyCase := make(map[string]Identity, len(found)), map[string]Identity{}
	for _, org := range found {
		exactly[org.ID] = org
		if org.CaseInsensitive {
			anyCase[OrgKey(org.ID)] = org
		}
	}
	whose := map[string]Identity{}
	for _, id := range named {
		if org, ok := anyCase[OrgKey(id)]; ok {
			whose[id] = org
		}
		for _, spelled := range spellings(id) {
			if org, ok := exactly[spelled]; ok {
				whose[id] = org
				break
			}
		}
	}
	return whose
}
