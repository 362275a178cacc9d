package config

import "github.com/pixell-global/subscription-reconciliation/shared/billing"

// Variable is one that is documented.
type Variable struct{ Name, Default, Remedy string }

// Variables gives the tests the documented variables, with the lists of the default tiers.
func Variables() (all []Variable) {
	for _, s := range settings(&Config{}, billing.DefaultTiers) {
		all = append(all, Variable{s.name, s.defaultText, s.remedy})
	}
	return all
}
