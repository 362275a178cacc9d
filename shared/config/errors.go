package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is what is wrong with one variable. It never holds the value.
type Problem struct {
	Variable string `json:"variable"`
	Wrong    string `json:"wrong"` // such as "is not set"
	Remedy   string `json:"remedy"`
}

// String returns the problem as one line.
func (p Problem) String() string {
	return fmt.Sprintf("%s %s: set %s", p.Variable, p.Wrong, p.Remedy)
}

// Error lists every problem of a configuration, in the order in which the
// variables are documented.
type Error struct {
	Problems []Problem
}

// Error returns all problems, each on a line of its own where there are several.
func (e *Error) Error() string {
	const headline = "the configuration is not usable:"
	if len(e.Problems) == 1 {
		return headline + " " + e.Problems[0].String()
	}
	lines := make([]string, 0, len(e.Problems)+1)
	lines = append(lines, headline)
	for _, problem := range e.Problems {
		lines = append(lines, "  "+problem.String())
	}
	return strings.Join(lines, "\n")
}

// problems collects at most one problem for each variable: the first, since the
// later ones follow from it.
type problems struct {
	found []Problem
}

func (p *problems) add(variable, wrong string) {
	if p.has(variable) {
		return
	}
	p.found = append(p.found, Problem{Variable: variable, Wrong: wrong, Remedy: remedyOf(variable)})
}

func (p *problems) addIf(isWrong bool, variable, wrong string) {
	if isWrong {
		p.add(variable, wrong)
	}
}

func (p *problems) has(variable string) bool {
	return slices.ContainsFunc(p.found, func(known Problem) bool { return known.Variable == variable })
}

func (p *problems) err() error {
	if len(p.found) == 0 {
		return nil
	}
	slices.SortStableFunc(p.found, func(a, b Problem) int {
		return cmp.Compare(position(a.Variable), position(b.Variable))
	})
	return &Error{Problems: p.found}
}
