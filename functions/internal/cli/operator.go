package cli

import (
	"os"
	"os/user"
	"strings"
)

// byLocal marks the runs of local among those that people asked for: they have no queue that could be redriven.
const byLocal = " (local)"

// LocalOperator returns the Operator of a run of local.
func LocalOperator() string { return Operator() + byLocal }

// MadeByLocal reports whether LocalOperator asked for a run.
func MadeByLocal(by string) bool { return strings.HasSuffix(by, byLocal) }

// Operator returns user@host, which is stored with what the operator asks for.
func Operator() string {
	name, host := "somebody", "somewhere"
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil && h != "" {
		host = h
	}
	return name + "@" + host
}
