package config

import (
	"bytes"
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

// Environ turns what os.Environ returns into a map. Of a name that stands there
// twice the first counts, as it does for os.Getenv.
func Environ(entries []string) map[string]string {
	environ := make(map[string]string, len(entries))
	for _, entry := range entries {
		name, value, found := strings.Cut(entry, "=")
		if !found || name == "" {
			continue
		}
		if _, seen := environ[name]; !seen {
			environ[name] = value
		}
	}
	return environ
}

// ReadDotEnv returns the environment with the values of a .env file beneath it:
// a variable of the environment wins, also an empty one. A file that does not
// exist is fine. A variable in it that is neither this package's nor AWS's
// (AWS_*) is an *Error. Only the command line reads such a file.
func ReadDotEnv(path string, environ map[string]string) (map[string]string, error) {
	file, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	merged := maps.Clone(file.Values)
	maps.Copy(merged, environ)
	known := Names(merged)
	tiersElsewhere := valueOf(merged, tiersVariable) == "" && SecretName(merged) != "" // then Load looks at the lists
	for name := range file.Values {
		if strings.HasPrefix(name, "AWS_") || tiersElsewhere && IsTierList(name) {
			known = append(known, name)
		}
	}
	if found := file.Unknown(known); len(found) > 0 {
		return nil, &Error{Problems: found}
	}
	return merged, nil
}

// File is what a file of NAME=value lines says.
type File struct {
	Values map[string]string

	path  string
	lines map[string]int
}

// assignment is the begin of a line that gives a name its value.
var assignment = regexp.MustCompile(`^\s*(?:export\s+)?([A-Za-z0-9_.]+)\s*[=:]`)

// ReadFile reads such a file. One that does not exist says nothing.
func ReadFile(path string) (File, error) {
	file := File{Values: map[string]string{}, path: path, lines: map[string]int{}}
	content, err := os.ReadFile(path) //nolint:gosec // G304: the path is the caller's, to read it is the task
	if errors.Is(err, fs.ErrNotExist) {
		return file, nil
	}
	if err != nil {
		return file, fmt.Errorf("read environment file: %w", err)
	}
	if file.Values, err = godotenv.UnmarshalBytes(content); err != nil {
		return file, malformed(path, malformedLine(content))
	}
	lines := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
	if _, unnamed := file.Values[""]; unnamed { // what the parser makes of a last line without =
		return file, malformed(path, len(lines))
	}
	for i, line := range lines {
		if named := assignment.FindStringSubmatch(line); named != nil {
			file.lines[named[1]] = i + 1
		}
	}
	for name := range file.Values { // the parser takes more for a name than this package does
		if file.lines[name] == 0 {
			file.lines[name] = 1 + slices.IndexFunc(lines, func(line string) bool { return strings.Contains(line, name) })
		}
	}
	return file, nil
}

// malformed wraps nothing: the parser quotes what it could not read, maybe a password.
func malformed(path string, line int) error {
	return fmt.Errorf("environment file %s is malformed in line %d: write one NAME=value a line, "+
		"in single quotes where the value contains a space, a quote, # or $", path, line)
}

// malformedLine is the first line that nothing before it makes sense of: a quote that does not end
// begins there.
func malformedLine(content []byte) int {
	lines := bytes.SplitAfter(content, []byte("\n"))
	good := 0
	for n := range lines {
		if _, err := godotenv.UnmarshalBytes(bytes.Join(lines[:n], nil)); err == nil {
			good = n
		}
	}
	return good + 1
}

// Locate returns the error with the line of each variable that the file sets, and the environment does not.
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

// spelledAsName is how a variable is spelled. What is spelled otherwise may be a part of a value that
// went over its line.
var spelledAsName = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)

// Unknown returns a problem for each name in the file that is none of the known ones, with its line
// and the known one that is most like it.
func (f File) Unknown(known []string) (problems []Problem) {
	for _, name := range slices.Sorted(maps.Keys(f.Values)) {
		if slices.Contains(known, name) {
			continue
		}
		p := unknown(name, fmt.Sprintf("in line %d of %s ", f.lines[name], f.path), known)
		if !spelledAsName.MatchString(name) {
			p.Variable, p.Wrong = "a variable", fmt.Sprintf("in line %d of %s is unknown", f.lines[name], f.path)
		}
		problems = append(problems, p)
	}
	return problems
}
