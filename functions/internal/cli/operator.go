package cli

import (
	"os"
	"os/user"
)

// Operator is who runs this, as far as this machine knows: user@host. It is kept with what they ask for.
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
