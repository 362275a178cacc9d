//go:build unix && !linux

package localdb

import "syscall"

// endWithParent does nothing here: the watchdog alone ends the server.
func endWithParent(*syscall.SysProcAttr) {}
