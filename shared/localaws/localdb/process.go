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
	// portAttempts is how many ports are tried if another program takes the chosen one.
	portAttempts = 5
	// logLines is how many lines of a failed server's log are in the error.
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

// programEnv is the variable with the server program, instead of a search for one.
const programEnv = "MYSQLD"

// Start runs mariadbd or mysqld, from PATH or the usual directories of packages, in a temporary directory. The
// environment variable MYSQLD names another program. Start returns when the server accepts connections, after about
// half a second (MySQL: three), or when ctx ends. The error is ErrNoServer, ErrNoProgram, or has the last lines of the
// server's log.
func Start(ctx context.Context) (*Server, error) { return StartWith(ctx) }

// StartInMemory is Start with the server's directory in memory, where the machine has room for it there: tables
// are created and dropped ten times as fast.
func StartInMemory(ctx context.Context) (*Server, error) { return startIn(ctx, memoryDir()) }

// StartWith is Start with more options of the server program, which override the usual ones.
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

// findIn returns the program of the first directory that has one. In each it looks for mariadbd first, because mysqld is
// often another name for it.
func findIn(dirs []string) (string, error) {
	for _, dir := range dirs {
		for _, name := range []string{"mariadbd", "mysqld"} {
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
	owner, err := serverAccount()
	if err != nil {
		return nil, err
	}
	h, err := newHome(dir, p, owner)
	if err != nil {
		return nil, err
	}
	h.extra = options
	s, err := h.start(ctx)
	if err != nil {
		return nil, errors.Join(err, h.remove())
	}
	return s, nil
}

var versionPattern = regexp.MustCompile(`\bVer (\d+\.\d+\.\d+)`)

// identify runs the program with --version: its file name is not enough, because MariaDB also installs itself as
// mysqld.
func identify(ctx context.Context, path string) (program, error) {
	out, err := exec.CommandContext(ctx, path, "--no-defaults", "--version").Output()
	if err != nil {
		return program{}, fmt.Errorf("run it with --version: %w", err)
	}
	match := versionPattern.FindSubmatch(out)
	if match == nil {
		return program{}, fmt.Errorf("it is neither MariaDB nor MySQL, its version is %.100q", bytes.TrimSpace(out))
	}
	return program{
		path:    path,
		mariaDB: bytes.Contains(out, []byte("MariaDB")),
		version: string(match[1]),
	}, nil
}

// home is the temporary directory of one server.
type home struct {
	dir      string
	program  program
	extra    []string // options
	account  *account
	watchdog *watchdog
}

func newHome(parent string, p program, account *account) (*home, error) {
	dir, err := os.MkdirTemp(parent, "reconciliation-db-")
	if err != nil {
		return nil, err
	}
	return &home{dir: dir, program: p, account: account, watchdog: startWatchdog(dir)}, nil
}

// remove deletes the directory after the server has ended.
func (h *home) remove() error {
	err := os.RemoveAll(h.dir)
	h.watchdog.release()
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
		if err := h.account.chown(path); err != nil {
			return nil, err
		}
	}
	if err := h.initialize(ctx); err != nil {
		return nil, fmt.Errorf("initialize: %w", err)
	}
	return h.serve(ctx, password)
}

// accountsSQL runs before the server accepts connections: one statement a line.
func accountsSQL(password string) string {
	account := fmt.Sprintf("'%s'@'%s'", userName, loopback)
	return "DROP USER IF EXISTS 'root'@'localhost';\n" +
		"CREATE USER " + account + " IDENTIFIED BY '" + password + "';\n" +
		"GRANT ALL PRIVILEGES ON *.* TO " + account + " WITH GRANT OPTION;\n"
}

// options are for data that may be lost: no flush, no doublewrite buffer and no binary log. A server ignores a loose-
// option that it does not know.
func (h *home) options() []string {
	opts := []string{
		"--no-defaults", // it must be first
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
		// The defaults of MySQL's packages are a directory that may not exist, and a second port.
		opts = append(opts, "--secure-file-priv=NULL", "--loose-mysqlx=OFF")
	}
	return append(opts, h.extra...)
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

// systemTables returns the SQL of MariaDB's system tables, one statement a line, as --bootstrap requires.
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
	return nil, fmt.Errorf("its SQL files are missing: none of %s exists", strings.Join(tried, ", "))
}

// serve starts the initialized server on a free port. If another program takes the port first, the server ends, and
// serve tries another port.
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
			c.terminate(ctx)
			again, err := h.run(nil, "--bind-address="+loopback, "--port="+strconv.Itoa(port)) // its accounts exist
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

// ready returns when the server accepts the password, which another program on the same port does not know.
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

// run starts the server program with its output in a new log file.
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

// runLogged starts the child in a goroutine that keeps its thread until the child has ended: Linux kills the child when
// the thread that started it ends.
func (h *home) runLogged(c *child, log *os.File, input io.Reader, args []string) error {
	cmd := exec.Command(h.program.path, append(h.options(), args...)...) //nolint:noctx // the server outlives the call that starts it
	cmd.Dir = h.dir
	cmd.Stdin = input
	cmd.Stdout = log
	cmd.Stderr = log
	prepare(cmd, h.account)

	c.cmd = cmd
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			h.watchdog.watch(cmd.Process.Pid)
		}
		started <- err
		if err != nil {
			return
		}
		c.err = cmd.Wait()
		h.watchdog.unwatch()
		close(c.exited)
	}()
	return <-started
}

// terminate sends SIGTERM, and kills the child when ctx ends.
func (c *child) terminate(ctx context.Context) {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // fails only where it has ended already
	select {
	case <-c.exited:
	case <-ctx.Done():
		c.kill()
	}
}

// kill kills the child and waits for its end. Its data may be lost.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // fails only where it has ended already
	<-c.exited
}

// reason returns how the child ended. Call it after exited is closed.
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

// portTaken reports whether the child ended because another program uses its port.
func (c *child) portTaken() bool {
	content, err := os.ReadFile(c.log)
	if err != nil {
		return false
	}
	return bytes.Contains(content, []byte("Address already in use")) ||
		bytes.Contains(content, []byte("Do you already have another"))
}
