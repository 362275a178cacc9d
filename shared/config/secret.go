package config

import (
	"fmt"
	"io"
)

const redacted = "[redacted]"

// Secret is a value that is not printed. Only Reveal gives it.
//
// The value is behind a pointer: fmt does not call the methods of unexported fields, and would print the value
// of such a field.
type Secret struct {
	value *string
}

// NewSecret returns a Secret with the given value.
func NewSecret(value string) Secret {
	return Secret{value: &value}
}

// Reveal returns the value, or "" if none is set.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero reports whether there is no value.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// Equal reports whether both hold the same value; == compares addresses.
func (s Secret) Equal(other Secret) bool { return s.Reveal() == other.Reveal() }

// String returns a placeholder.
func (Secret) String() string { return redacted }

// Format writes a placeholder, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, redacted) // a fmt.State keeps its own error
}

// MarshalText returns a placeholder, also to encoding/json and slog.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// UnmarshalText sets the value.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}
