package cli

import (
	"os"
	"os/user"
)

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
