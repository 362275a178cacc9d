package config

import (
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
// variables are documented, at its end those that are not.
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

// unknown is the problem with a variable that means nothing. where, if it is not empty, is "in ..."
// and a space.
func unknown(name, where string, known []string) Problem {
	nearest, letters := Nearest(name, known)
	isNear := letters <= max(2, len(name)/3)
	p := Problem{name, where + "is unknown", nearest + " instead, which is the nearest name there is, or remove it"}
	if IsTierList(name) {
		p.Wrong = where + "is of no tier in " + tiersVariable
		p.Remedy = tiersVariable + " to a list with its tier"
		if isNear {
			p.Remedy = nearest + " instead, which is the nearest name there is, or " + p.Remedy
		}
	} else if !isNear {
		p.Remedy = "what the example file names, and remove this"
	}
	return p
}

// Nearest returns the word that is most like the one given, and by how many letters it differs.
func Nearest(word string, known []string) (nearest string, letters int) {
	if len(known) == 0 {
		return "", len(word)
	}
	nearest = slices.MinFunc(known, func(a, b string) int { return distance(word, a) - distance(word, b) })
	return nearest, distance(word, nearest)
}

// distance is how many letters must be put in, left out or replaced to make one of the other
// (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		above := row[0] // and to the left
		row[0] = i + 1
		for j := range len(b) {
			change := above
			if a[i] != b[j] {
				change++
			}
			above = row[j+1]
			row[j+1] = min(change, above+1, row[j]+1)
		}
	}
	return row[len(b)]
}
