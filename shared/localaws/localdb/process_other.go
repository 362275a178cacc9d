//go:build !unix

package localdb

import "os/exec"

// account is the user that a server runs as; here always the user of this process.
type account struct{}

func serverAccount() (*account, error) { return nil, nil }

func (a *account) chown(string) error { return nil }

func prepare(*exec.Cmd, *account) {}

// watchdog does nothing here: only Close cleans up.
type watchdog struct{}

func startWatchdog(string) *watchdog { return nil }

func (j *watchdog) watch(int) {}

func (j *watchdog) unwatch() {}

func (j *watchdog) release() {}
