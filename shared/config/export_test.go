package config

import "github.com/pixell-global/subscription-reconciliation/shared/billing"

// Variable is a documented variable.
type Variable struct{ Name, Default, Remedy string }

// Variables returns the documented variables, with the lists of the default tiers.
func Variables() (all []Variable) {
	for _, s := range settings(&Config{}, billing.DefaultTiers) {
		all = append(all, Variable{s.name, s.defaultText, s.remedy})
	}
	return all
}
