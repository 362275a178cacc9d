//go:build unix

package localdb

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// account is the user that a server runs as; nil is the user of this process.
type account struct{ uid, gid int }

// serverAccount returns nil unless this process runs as root, which servers refuse.
func serverAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"mysql", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			return nil, fmt.Errorf("user %s: %w", name, err)
		}
		gid, err := strconv.Atoi(u.Gid)
		if err != nil {
			return nil, fmt.Errorf("user %s: %w", name, err)
		}
		return &account{uid: uid, gid: gid}, nil
	}
	return nil, errors.New("a database server does not run as root, and there is no user mysql or nobody")
}

// chown makes the account the owner of a file or directory.
func (a *account) chown(path string) error {
	if a == nil {
		return nil
	}
	return os.Lchown(path, a.uid, a.gid)
}

// prepare makes the command run as the account and end with its parent. A new process group keeps Ctrl-C away from it.
func prepare(cmd *exec.Cmd, account *account) {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if account != nil {
		attr.Credential = &syscall.Credential{Uid: uint32(account.uid), Gid: uint32(account.gid)}
	}
	endWithParent(attr)
	cmd.SysProcAttr = attr
}

// watchdogScript reads the id of the server's process, or an empty line for none, from its standard input. Only this
// process has the other end, so that the input ends with this process. Then the script kills the server and removes the
// directory. It retries, because the server may still write there.
const watchdogScript = `
pid=
while read -r line; do pid=$line; done
[ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do
	rm -rf -- "$1" 2>/dev/null
	[ -e "$1" ] || exit 0
	sleep 0.1
done`

// watchdog cleans up after this process if it ends without Close.
type watchdog struct {
	cmd   *exec.Cmd
	input io.WriteCloser
}

// startWatchdog returns nil where there is no shell: then only Close cleans up.
func startWatchdog(dir string) *watchdog {
	cmd := exec.Command("sh", "-c", watchdogScript, "localdb", dir) //nolint:noctx // it waits for the end of this process
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil
	}
	if err := cmd.Start(); err != nil {
		return nil
	}
	return &watchdog{cmd: cmd, input: input}
}

// watch sets the process to kill.
func (j *watchdog) watch(pid int) {
	if j != nil {
		_, _ = fmt.Fprintf(j.input, "%d\n", pid)
	}
}

// unwatch is called when the process has ended, because its id may be reused.
func (j *watchdog) unwatch() {
	if j != nil {
		_, _ = io.WriteString(j.input, "\n")
	}
}

// release makes the watchdog remove the directory and waits for its end.
func (j *watchdog) release() {
	if j == nil {
		return
	}
	_ = j.input.Close()
	_ = j.cmd.Wait()
}
