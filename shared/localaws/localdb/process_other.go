//go:build !unix

package localdb

import "os/exec"

// account is the user a server runs as; here always the user of this process.
type account struct{}

func serverAccount() (*account, error) { return nil, nil }

func (a *account) give(string) error { return nil }

func prepare(*exec.Cmd, *account) {}

// janitor does nothing here: only Close cleans up.
type janitor struct{}

func startJanitor(string) *janitor { return nil }

func (j *janitor) watch(int) {}

func (j *janitor) unwatch() {}

func (j *janitor) release() {}
