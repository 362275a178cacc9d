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

// account is the user a server runs as; nil means the user of this process.
type account struct{ uid, gid int }

// serverAccount returns nil unless this process belongs to root, as whom no server will run.
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
	return nil, errors.New("a database server does not run as root, and there is no user mysql or nobody to run it as")
}

// give makes the account the owner of a file or directory.
func (a *account) give(path string) error {
	if a == nil {
		return nil
	}
	return os.Lchown(path, a.uid, a.gid)
}

// prepare makes the command run as the account, in a process group of its own so that an
// interrupt typed at the terminal does not reach it, and end with its parent.
func prepare(cmd *exec.Cmd, as *account) {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if as != nil {
		attr.Credential = &syscall.Credential{Uid: uint32(as.uid), Gid: uint32(as.gid)}
	}
	endWithParent(attr)
	cmd.SysProcAttr = attr
}

// janitorScript reads the process id to end, or an empty line for none, from its standard
// input, whose other end only this process holds. At the end of the input, which is also the end
// of this process, it ends that process and removes the directory, trying again while a dying
// server still writes there.
const janitorScript = `
pid=
while read -r line; do pid=$line; done
[ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do
	rm -rf -- "$1" 2>/dev/null
	[ -e "$1" ] || exit 0
	sleep 0.1
done`

// janitor cleans up after this process if it ends without Close.
type janitor struct {
	cmd   *exec.Cmd
	input io.WriteCloser
}

// startJanitor returns nil where there is no shell: then only Close cleans up.
func startJanitor(dir string) *janitor {
	cmd := exec.Command("sh", "-c", janitorScript, "localdb", dir) //nolint:noctx // it waits for the end of this process
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil
	}
	if err := cmd.Start(); err != nil {
		return nil
	}
	return &janitor{cmd: cmd, input: input}
}

// watch names the process to end with this one.
func (j *janitor) watch(pid int) {
	if j != nil {
		_, _ = fmt.Fprintf(j.input, "%d\n", pid)
	}
}

// unwatch says that the process has ended: its id may soon be another's.
func (j *janitor) unwatch() {
	if j != nil {
		_, _ = io.WriteString(j.input, "\n")
	}
}

// release has the janitor remove the directory now, and waits for it.
func (j *janitor) release() {
	if j == nil {
		return
	}
	_ = j.input.Close()
	_ = j.cmd.Wait()
}
