package localdb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
)

const (
	// startTimeout bounds a start whose context has no deadline.
	startTimeout = 60 * time.Second
	// readyEvery is the pause between two attempts to connect to a starting server.
	readyEvery = 10 * time.Millisecond
	// portAttempts is how often a port is chosen anew when another program took it meanwhile.
	portAttempts = 5
	// logLines of a failed server are shown in the error.
	logLines = 15
)

// program is an installed database server.
type program struct {
	path    string
	mariaDB bool
	version string
}

func (p program) kind() string {
	name := "MySQL"
	if p.mariaDB {
		name = "MariaDB"
	}
	return fmt.Sprintf("%s %s (%s)", name, p.version, p.path)
}

// programEnv names the server program to run, where it is not to be looked for.
const programEnv = "MYSQLD"

// Start finds mariadbd or mysqld on PATH or where packages usually put them, and runs it in a
// temporary directory; the environment variable MYSQLD names another program. It returns once the
// server answers, after about half a second (MySQL: three), or when ctx ends. ErrNoServer says
// that there is none, ErrNoProgram that MYSQLD names none; an error of a server that would not
// start carries the last lines of its log.
func Start(ctx context.Context) (*Server, error) { return StartWith(ctx) }

// StartInMemory is Start with the server's directory in memory, where the machine has room for it there: tables
// are created and dropped ten times as fast.
func StartInMemory(ctx context.Context) (*Server, error) { return startIn(ctx, memoryDir()) }

// StartWith is Start with further options of the server program, which override the usual ones.
func StartWith(ctx context.Context, options ...string) (*Server, error) {
	return startIn(ctx, "", options...)
}

// startIn starts a server below a directory, "" for the usual one of temporary files.
func startIn(ctx context.Context, dir string, options ...string) (*Server, error) {
	path, err := find()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s, err := start(ctx, dir, path, options...)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return s, nil
}

// find returns the program to run.
func find() (string, error) {
	if named := os.Getenv(programEnv); named != "" {
		path, err := exec.LookPath(named)
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrNoProgram, err)
		}
		return filepath.Abs(path)
	}
	dirs := filepath.SplitList(os.Getenv("PATH"))
	return findIn(append(dirs, "/usr/sbin", "/usr/bin", "/usr/libexec", "/usr/local/sbin", "/usr/local/bin",
		"/usr/local/libexec", "/usr/local/mysql/bin", "/opt/homebrew/bin", "/opt/homebrew/sbin"))
}

// findIn prefers mariadbd in any directory, because mysqld is often another name for it.
func findIn(dirs []string) (string, error) {
	for _, name := range []string{"mariadbd", "mysqld"} {
		for _, dir := range dirs {
			path, err := exec.LookPath(filepath.Join(dir, name))
			if err == nil && filepath.IsAbs(path) {
				return path, nil
			}
		}
	}
	return "", ErrNoServer
}

func start(ctx context.Context, dir, path string, options ...string) (*Server, error) {
	p, err := identify(ctx, path)
	if err != nil {
		return nil, err
	}
	as, err := serverAccount()
	if err != nil {
		return nil, err
	}
	h, err := newHome(dir, p, as)
	if err != nil {
		return nil, err
	}
	h.further = options
	s, err := h.start(ctx)
	if err != nil {
		return nil, errors.Join(err, h.remove())
	}
	return s, nil
}

var versionPattern = regexp.MustCompile(`\bVer (\d+\.\d+\.\d+)`)

// identify asks the program which server it is. The file's name does not tell: MariaDB also
// installs itself as mysqld.
func identify(ctx context.Context, path string) (program, error) {
	out, err := exec.CommandContext(ctx, path, "--no-defaults", "--version").Output()
	if err != nil {
		return program{}, fmt.Errorf("ask for its version: %w", err)
	}
	match := versionPattern.FindSubmatch(out)
	if match == nil {
		return program{}, fmt.Errorf("neither MariaDB nor MySQL, by what it says of its version: %.100q", bytes.TrimSpace(out))
	}
	return program{
		path:    path,
		mariaDB: bytes.Contains(out, []byte("MariaDB")),
		version: string(match[1]),
	}, nil
}

// home is the temporary directory of one server.
type home struct {
	dir     string
	program program
	further []string // options
	as      *account
	janitor *janitor
}

func newHome(parent string, p program, as *account) (*home, error) {
	dir, err := os.MkdirTemp(parent, "reconciliation-db-")
	if err != nil {
		return nil, err
	}
	return &home{dir: dir, program: p, as: as, janitor: startJanitor(dir)}, nil
}

// remove deletes the directory; its server must have ended.
func (h *home) remove() error {
	err := os.RemoveAll(h.dir)
	h.janitor.release()
	return err
}

func (h *home) path(name string) string { return filepath.Join(h.dir, name) }

func (h *home) start(ctx context.Context) (*Server, error) {
	password := randomPassword()
	if err := os.Mkdir(h.path("data"), 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(h.path("accounts.sql"), []byte(accountsSQL(password)), 0o600); err != nil {
		return nil, err
	}
	for _, path := range []string{h.dir, h.path("data"), h.path("accounts.sql")} {
		if err := h.as.give(path); err != nil {
			return nil, err
		}
	}
	if err := h.initialize(ctx); err != nil {
		return nil, fmt.Errorf("initialize: %w", err)
	}
	return h.serve(ctx, password)
}

// accountsSQL is run by the server before it accepts connections: one statement a line.
func accountsSQL(password string) string {
	account := fmt.Sprintf("'%s'@'%s'", userName, loopback)
	return "DROP USER IF EXISTS 'root'@'localhost';\n" +
		"CREATE USER " + account + " IDENTIFIED BY '" + password + "';\n" +
		"GRANT ALL PRIVILEGES ON *.* TO " + account + " WITH GRANT OPTION;\n"
}

// options are those of a server whose data may be lost: nothing is flushed, doubled or logged
// for replication. A loose- option is passed over by the server that does not know it.
func (h *home) options() []string {
	opts := []string{
		"--no-defaults", // first, or it is refused
		"--datadir=" + h.path("data"),
		"--tmpdir=" + h.dir,
		"--socket=" + h.path("socket"),
		"--pid-file=" + h.path("pid"),
		"--innodb-flush-log-at-trx-commit=0",
		"--innodb-doublewrite=0",
		"--loose-innodb-flush-method=nosync",
		"--loose-innodb-log-file-size=64M",
		"--innodb-buffer-pool-size=64M",
		"--skip-log-bin",
		"--loose-performance-schema=OFF",
		"--skip-name-resolve",
		"--max-connections=200",
		"--default-time-zone=+00:00",
		"--character-set-server=utf8mb4",
	}
	if !h.program.mariaDB {
		// MySQL's packages name a directory that may not exist, and listen on a second port.
		opts = append(opts, "--secure-file-priv=NULL", "--loose-mysqlx=OFF")
	}
	return append(opts, h.further...)
}

// initialize creates the server's own tables.
func (h *home) initialize(ctx context.Context) error {
	c, err := h.runInitialize()
	if err != nil {
		return err
	}
	select {
	case <-c.exited:
	case <-ctx.Done():
		c.kill()
		return ctx.Err()
	}
	if c.err != nil {
		return fmt.Errorf("%w\n%s", c.err, c.logTail())
	}
	return nil
}

func (h *home) runInitialize() (*child, error) {
	if !h.program.mariaDB {
		return h.run(nil, "--initialize-insecure")
	}
	script, err := systemTables(h.program.path)
	if err != nil {
		return nil, err
	}
	return h.run(script, "--bootstrap", "--log-warnings=0")
}

// systemTables reads MariaDB's definition of its own tables. A bootstrapping server wants one
// statement a line.
func systemTables(path string) (io.Reader, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	prefix := filepath.Dir(filepath.Dir(resolved))
	var tried []string
	for _, share := range []string{"share/mysql", "share/mariadb", "share", "scripts"} {
		for _, name := range []string{"mysql_system_tables.sql", "mariadb_system_tables.sql"} {
			file := filepath.Join(prefix, share, name)
			content, err := os.ReadFile(file)
			if errors.Is(err, os.ErrNotExist) {
				tried = append(tried, file)
				continue
			}
			if err != nil {
				return nil, err
			}
			head := "CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n"
			return io.MultiReader(strings.NewReader(head), bytes.NewReader(content)), nil
		}
	}
	return nil, fmt.Errorf("its SQL files are missing, looked for %s", strings.Join(tried, ", "))
}

// serve starts the initialized server on a free port. The port may be taken by another program
// between the choice and the start; then the server ends and another port is chosen.
func (h *home) serve(ctx context.Context, password string) (*Server, error) {
	for attempt := 1; ; attempt++ {
		port, err := freePort(ctx)
		if err != nil {
			return nil, err
		}
		c, err := h.run(nil,
			"--init-file="+h.path("accounts.sql"),
			"--bind-address="+loopback,
			"--port="+strconv.Itoa(port))
		if err != nil {
			return nil, err
		}
		s := &Server{
			kind:       h.program.kind(),
			concurrent: true,
			port:       port,
			password:   password,
			stop: func() error {
				c.kill()
				return h.remove()
			},
		}
		s.restart = func(ctx context.Context) error {
			c.end(ctx)
			again, err := h.run(nil, "--bind-address="+loopback, "--port="+strconv.Itoa(port)) // it has its accounts
			if err != nil {
				return err
			}
			c = again
			if err := ready(ctx, c, s); err != nil {
				return fmt.Errorf("%w\n%s", err, c.logTail())
			}
			return nil
		}
		err = ready(ctx, c, s)
		if err == nil {
			return s, nil
		}
		c.kill()
		if attempt < portAttempts && c.portTaken() {
			continue
		}
		return nil, fmt.Errorf("%w\n%s", err, c.logTail())
	}
}

func freePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(loopback, "0"))
	if err != nil {
		return 0, err
	}
	port, err := portOf(l)
	return port, errors.Join(err, l.Close())
}

func portOf(l net.Listener) (int, error) {
	address, err := netip.ParseAddrPort(l.Addr().String())
	return int(address.Port()), err
}

// ready returns once the server accepts this start's password: another program on the same port
// does not know it.
func ready(ctx context.Context, c *child, s *Server) (err error) {
	cfg := s.DSN()
	cfg.Logger = &mysql.NopLogger{}
	db, err := open(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()

	ticker := time.NewTicker(readyEvery)
	defer ticker.Stop()
	for {
		pingErr := db.PingContext(ctx)
		if pingErr == nil {
			return nil
		}
		select {
		case <-c.exited:
			return fmt.Errorf("the server ended at once: %w", c.reason())
		case <-ctx.Done():
			return errors.Join(ctx.Err(), pingErr)
		case <-ticker.C:
		}
	}
}

// child is a process that ends with this one.
type child struct {
	cmd    *exec.Cmd
	log    string        // file its output goes to
	exited chan struct{} // closed when it has ended and err is set
	err    error
}

// run starts the server program with its output in a file of its own.
func (h *home) run(input io.Reader, args ...string) (*child, error) {
	log, err := os.CreateTemp(h.dir, "log-")
	if err != nil {
		return nil, err
	}
	c := &child{log: log.Name(), exited: make(chan struct{})}
	err = errors.Join(h.runLogged(c, log, input, args), log.Close())
	if err != nil {
		return nil, err
	}
	return c, nil
}

// runLogged starts the child in a goroutine that keeps its thread until the child has ended,
// because Linux takes the end of that thread for the end of the parent.
func (h *home) runLogged(c *child, log *os.File, input io.Reader, args []string) error {
	cmd := exec.Command(h.program.path, append(h.options(), args...)...) //nolint:noctx // the server outlives the call that starts it
	cmd.Dir = h.dir
	cmd.Stdin = input
	cmd.Stdout = log
	cmd.Stderr = log
	prepare(cmd, h.as)

	c.cmd = cmd
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			h.janitor.watch(cmd.Process.Pid)
		}
		started <- err
		if err != nil {
			return
		}
		c.err = cmd.Wait()
		h.janitor.unwatch()
		close(c.exited)
	}()
	return <-started
}

// end asks the child to end in its own time, which it has until ctx ends.
func (c *child) end(ctx context.Context) {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // fails only where it has ended already
	select {
	case <-c.exited:
	case <-ctx.Done():
		c.kill()
	}
}

// kill ends the child without ceremony, its data being worth nothing, and waits for its end.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // fails only where it has ended already
	<-c.exited
}

// reason says how the child ended; call it after exited is closed.
func (c *child) reason() error {
	if c.err == nil {
		return errors.New("exit status 0")
	}
	return c.err
}

// logTail returns the last lines of the child's output.
func (c *child) logTail() string {
	content, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	if len(lines) > logLines {
		lines = lines[len(lines)-logLines:]
	}
	return strings.Join(lines, "\n")
}

// portTaken tells whether the child ended because another program holds its port.
func (c *child) portTaken() bool {
	content, err := os.ReadFile(c.log)
	if err != nil {
		return false
	}
	return bytes.Contains(content, []byte("Address already in use")) ||
		bytes.Contains(content, []byte("Do you already have another"))
}
