package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
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
// exist is fine. Only the command line reads such a file.
func ReadDotEnv(path string, environ map[string]string) (map[string]string, error) {
	content, err := os.ReadFile(path) //nolint:gosec // G304: the path is the caller's, to read it is the task
	if errors.Is(err, fs.ErrNotExist) {
		return maps.Clone(environ), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read environment file: %w", err)
	}
	merged, err := godotenv.UnmarshalBytes(content)
	if err != nil {
		// Not wrapped: the parser quotes what it could not read, maybe a password.
		return nil, fmt.Errorf("environment file %s is malformed: write one NAME=value a line, "+
			"in single quotes where the value contains a space, a quote, # or $", path)
	}
	maps.Copy(merged, environ)
	return merged, nil
}
