package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// SecretName returns the name or ARN of the secret that holds further variables; empty: there is
// none.
func SecretName(environ map[string]string) string {
	return strings.TrimSpace(environ[secretNameVariable])
}

// SecretError is an *Error about the secret of this name. Wrong completes "names secret NAME,
// ...", remedy completes "set ..."; neither may hold a value of it.
func SecretError(name, wrong, remedy string) error {
	return &Error{Problems: []Problem{{
		Variable: secretNameVariable, Wrong: fmt.Sprintf("names secret %q, %s", name, wrong), Remedy: remedy,
	}}}
}

// FromSecret takes this package's variables from the text of a secret, a JSON object whose keys
// are their names. Numbers and booleans count as their text. Other keys are left alone: the
// secret may be shared with other programs. But each list of a tier's prices or products is taken,
// so that Load refuses one whose tier is none. The error is an *Error and repeats no value.
func FromSecret(name, text string) (map[string]string, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &members); err != nil || members == nil {
		// Not wrapped: the error quotes the text.
		return nil, SecretError(name, "which is no JSON object", `a secret such as {"DB_PASSWORD":"..."}, or correct this one`)
	}
	var problems []Problem
	values := make(map[string]string, len(members))
	known := Names(nil)
	for _, variable := range slices.Sorted(maps.Keys(members)) {
		if variable == secretNameVariable || !slices.Contains(known, variable) && !IsTierList(variable) {
			continue
		}
		value, ok := scalar(members[variable])
		if !ok {
			wrong := fmt.Sprintf("in secret %q is neither text nor a number nor a boolean", name)
			problems = append(problems, Problem{variable, wrong, "one of these"})
		}
		values[variable] = value
	}
	if len(problems) > 0 {
		return nil, &Error{Problems: problems}
	}
	return values, nil
}

// scalar returns a JSON string's text, or a number or boolean as it is written.
func scalar(raw json.RawMessage) (string, bool) {
	var text string
	switch raw[0] {
	case '"':
		err := json.Unmarshal(raw, &text)
		return text, err == nil
	case '{', '[', 'n':
		return "", false
	default:
		return string(raw), true
	}
}

// Merge returns the environment with other values beneath it: the environment wins where it says
// something. An empty variable does not: it must not switch off what a secret sets, such as the
// account to check.
func Merge(environ, beneath map[string]string) map[string]string {
	merged := maps.Clone(beneath)
	if merged == nil {
		merged = map[string]string{}
	}
	for name, value := range environ {
		if _, set := merged[name]; !set || value != "" {
			merged[name] = value
		}
	}
	return merged
}
