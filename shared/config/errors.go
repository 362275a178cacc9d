package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Problem is what is wrong with one variable. It never contains the value.
type Problem struct {
	Variable string `json:"variable"`
	Wrong    string `json:"wrong"` // such as "is not set"
	Remedy   string `json:"remedy"`
}

// String returns the problem as one line.
func (p Problem) String() string {
	return fmt.Sprintf("%s %s: set %s", p.Variable, p.Wrong, p.Remedy)
}

// Error has every problem of a configuration: those of documented variables in the order of the
// documentation, then the others.
type Error struct {
	Problems []Problem
}

// Error returns the problems, each on its own line if there are several.
func (e *Error) Error() string {
	text := "the configuration is not usable:"
	for _, problem := range e.Problems {
		if len(e.Problems) > 1 {
			text += "\n "
		}
		text += " " + problem.String()
	}
	return text
}

// unknown is the problem of a name that nothing reads. where is "" or "in ... ".
func unknown(name, where string, known []string) Problem {
	p := Problem{name, where + "is unknown", "a variable of the example file, and remove this one"}
	if IsTierList(name) {
		p.Wrong = where + "is of no tier in " + tiersVariable + " (" + strings.Join(tiersWithLists(known), ", ") + ")"
		p.Remedy = tiersVariable + " to a list with its tier, or correct the tier in the name"
		return p
	}
	if nearest, isNear := nearestVariable(name, known); isNear {
		p.Remedy = nearest + " instead, which is the most similar name, or remove it"
	}
	return p
}

// tiersWithLists returns the tiers whose lists of prices are among the names.
func tiersWithLists(names []string) (tiers []string) {
	for _, name := range names {
		if suffix, isList := strings.CutPrefix(name, pricePrefix); isList && suffix != suffixOf(billing.Addon) {
			tiers = append(tiers, strings.ToLower(suffix))
		}
	}
	return tiers
}

// nearestVariable is [Nearest] without the lists of tiers that the name does not end with: in the list of another
// tier, ids would give customers the wrong tier.
func nearestVariable(name string, known []string) (nearest string, isNear bool) {
	return Nearest(name, slices.DeleteFunc(slices.Clone(known), func(other string) bool {
		return IsTierList(other) && !strings.HasSuffix(name, other[strings.LastIndex(other, "_"):])
	}))
}

// Nearest returns the word with the smallest edit distance, and whether it is near enough to be meant.
func Nearest(word string, known []string) (nearest string, isNear bool) {
	if len(known) == 0 {
		return "", false
	}
	nearest = slices.MinFunc(known, func(a, b string) int { return distance(word, a) - distance(word, b) })
	return nearest, distance(word, nearest) <= max(2, len(word)/3)
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitution := diagonal
			if a[i] != b[j] {
				substitution++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitution, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
