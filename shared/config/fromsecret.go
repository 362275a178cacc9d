package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// SecretName returns the name or ARN of the secret that has further variables, or "".
func SecretName(environ map[string]string) string {
	return strings.TrimSpace(environ[secretNameVariable])
}

// SecretError returns an *Error about the named secret. wrong completes "names secret NAME, ..." and remedy
// "set ..."; neither may contain a value of the secret.
func SecretError(name, wrong, remedy string) error {
	return &Error{Problems: []Problem{{
		Variable: secretNameVariable, Wrong: fmt.Sprintf("names secret %q, %s", name, wrong), Remedy: remedy,
	}}}
}

// FromSecret returns this package's variables from a secret, a JSON object whose keys are their names. Numbers
// and booleans become text. Other keys are ignored, because other programs may share the secret, except lists
// of prices and products: Load refuses one whose tier does not exist. The error is an *Error and contains no
// value.
func FromSecret(name, text string) (map[string]string, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &members); err != nil || members == nil {
		// Not wrapped: err quotes the text.
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

// scalar returns the text of a JSON string, number or boolean.
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

// Merge returns the environment with defaults for what it does not set. A variable that is empty in the
// environment counts as not set: it must not switch off a setting of a secret, such as the account to check.
func Merge(environ, defaults map[string]string) map[string]string {
	merged := map[string]string{}
	maps.Copy(merged, defaults)
	for name, value := range environ {
		if _, set := merged[name]; !set || value != "" {
			merged[name] = value
		}
	}
	return merged
}
