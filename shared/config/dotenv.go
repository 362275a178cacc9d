package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/joho/godotenv"
)

// Environ turns the result of os.Environ into a map. If a name is there twice, the first value counts, as it
// does for os.Getenv.
func Environ(entries []string) map[string]string {
	environ := make(map[string]string, len(entries))
	for _, entry := range entries {
		name, value, found := strings.Cut(entry, "=")
		if _, seen := environ[name]; found && name != "" && !seen {
			environ[name] = value
		}
	}
	return environ
}

// ReadDotEnv returns the environment with the values of a .env file as defaults: a variable of the
// environment wins, even an empty one. The file may be missing. Only the command lines read such a file.
//
// A malformed line, a name that is there twice and a name that nothing reads (AWS_* is for the SDK) are
// problems of an *Error, which then also has the problems that Load finds for these needs.
func ReadDotEnv(path string, environ map[string]string, needs ...Need) (map[string]string, error) {
	file, problems, err := parse(path)
	if err != nil {
		return nil, err
	}
	merged := maps.Clone(file.Values)
	maps.Copy(merged, environ)
	tiersInSecret := valueOf(merged, tiersVariable) == "" && SecretName(merged) != ""
	known := Names(merged)
	for name := range file.Values {
		if strings.HasPrefix(name, "AWS_") || tiersInSecret && IsTierList(name) {
			known = append(known, name)
		}
	}
	problems = append(problems, file.Unknown(known)...)
	if len(problems) == 0 {
		return merged, nil
	}
	if SecretName(merged) != "" {
		needs = nil // the secret may have what is not set
	}
	_, err = Load(merged, needs...)
	if invalid, ok := errors.AsType[*Error](err); ok {
		for _, p := range file.Locate(invalid, environ).Problems {
			isReported := slices.ContainsFunc(problems, func(q Problem) bool {
				return q.Variable == p.Variable || strings.HasPrefix(q.Remedy, p.Variable+" instead") // misspelled
			})
			needsTiers := IsTierList(p.Variable) || p.Variable == defaultTierVariable
			if !isReported && (!needsTiers || !tiersInSecret) {
				problems = append(problems, p)
			}
		}
	}
	return nil, &Error{Problems: problems}
}

// File is a file of NAME=value lines.
type File struct {
	Values map[string]string

	path  string
	lines map[string]int // in which a name is set last: that value counts
}

// ReadFile reads such a file. A missing one is empty; malformed lines and names that are there twice are an
// *Error.
func ReadFile(path string) (File, error) {
	file, problems, err := parse(path)
	if err == nil && len(problems) > 0 {
		err = &Error{Problems: problems}
	}
	return file, err
}

// parse skips malformed lines, so that it finds all of them. Errors of the parser are not wrapped: they quote
// the line, which may hold a password.
func parse(path string) (file File, problems []Problem, err error) {
	file = File{Values: map[string]string{}, path: path, lines: map[string]int{}}
	content, err := os.ReadFile(path) //nolint:gosec // G304: the operator names the file
	if errors.Is(err, fs.ErrNotExist) {
		return file, nil, nil
	}
	if err != nil {
		return file, nil, fmt.Errorf("read environment file: %w", err)
	}
	var wellFormed strings.Builder
	lines := strings.SplitAfter(string(content), "\n")
	for start := 0; start < len(lines); {
		names, end := assignment(lines, start)
		if end == start {
			problems = append(problems, Problem{
				fmt.Sprintf("line %d of %s", start+1, path), "is malformed", "one NAME=value a line, in single quotes where the value contains a space, a quote, # or $",
			})
			start++
			continue
		}
		for name := range names {
			if earlier := file.lines[name]; earlier > 0 {
				problems = append(problems, Problem{printable(name), fmt.Sprintf("is set in lines %d and %d of %s", earlier, start+1, path), "it in one of them only"})
			}
			file.lines[name] = start + 1
		}
		wellFormed.WriteString(strings.Join(lines[start:end], ""))
		start = end
	}
	if file.Values, err = godotenv.Unmarshal(wellFormed.String()); err != nil {
		return file, problems, fmt.Errorf("environment file %s is malformed", path)
	}
	return file, problems, nil
}

// assignment returns the names that the assignment in lines[start:end] sets: one, or none for a comment. A
// quoted value may have several lines. end is start if the line is malformed.
func assignment(lines []string, start int) (names map[string]string, end int) {
	for end = start + 1; end <= len(lines); end++ {
		names, err := godotenv.Unmarshal(strings.Join(lines[start:end], ""))
		if _, unnamed := names[""]; err == nil && !unnamed { // unnamed: a last line without =
			return names, end
		}
	}
	return nil, start
}

// Locate returns the error with the line of each variable that the file sets and the environment does not.
func (f File) Locate(e *Error, environ map[string]string) *Error {
	located := &Error{Problems: slices.Clone(e.Problems)}
	for i, p := range e.Problems {
		_, set := environ[p.Variable]
		if line := f.lines[p.Variable]; line > 0 && !set {
			located.Problems[i].Wrong += fmt.Sprintf(" (line %d of %s)", line, f.path)
		}
	}
	return located
}

// Unknown returns a problem for each name in the file that is not in known, with its line and the known name
// that is most like it.
func (f File) Unknown(known []string) (problems []Problem) {
	for _, name := range slices.Sorted(maps.Keys(f.Values)) {
		if slices.Contains(known, name) {
			continue
		}
		where := fmt.Sprintf("in line %d of %s ", f.lines[name], f.path)
		p := unknown(name, where, known)
		if printable(name) != name {
			p.Variable, p.Wrong = printable(name), where+"is unknown"
		}
		problems = append(problems, p)
	}
	return problems
}

var variableName = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)

// printable returns the name unless it may be a part of a value, such as a password with a line break.
func printable(name string) string {
	if variableName.MatchString(name) {
		return name
	}
	return "a variable"
}
