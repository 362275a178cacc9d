package localdb

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// childEnv makes the test binary start a server and print its port. Then it exits ("exit") or waits to be killed ("kill").
const childEnv = "LOCALDB_TEST_CHILD"

func TestMain(m *testing.M) {
	if how := os.Getenv(childEnv); how != "" {
		runChild(how)
		return
	}
	os.Exit(m.Run())
}

func runChild(how string) {
	s, err := Start(context.Background())
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println(s.Port())
	if how == "exit" {
		os.Exit(0)
	}
	select {}
}

// requireProgram returns the server program of this machine. Without one it skips the test, with CI=true it fails.
func requireProgram(t *testing.T) string {
	t.Helper()
	path, err := find()
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	return path
}

// startServer returns a new server, closed when the test ends. Without a program it skips the test, with CI=true it fails.
func startServer(t *testing.T, start func(context.Context) (*Server, error)) *Server {
	t.Helper()
	s, err := start(t.Context())
	if errors.Is(err, ErrNoServer) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func openServer(t *testing.T, s *Server, database string) *sql.DB {
	t.Helper()
	cfg := s.DSN()
	cfg.DBName = database
	db, err := open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestCreatedDatabasesHoldData(t *testing.T) {
	for name, start := range map[string]func(context.Context) (*Server, error){
		"separate process": Start,
		"in-process":       StartInProcess,
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, start)
			t.Log(s.Kind())
			for _, database := range []string{"one", "two`quoted"} {
				if err := s.CreateDatabase(t.Context(), database); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.CreateDatabase(t.Context(), "one"); err == nil {
				t.Error("a second database of the same name was accepted")
			}
			if err := s.DropDatabase(t.Context(), "two`quoted"); err != nil {
				t.Error(err)
			}

			db := openServer(t, s, "one")
			if _, err := db.ExecContext(t.Context(), "CREATE TABLE t (id INT PRIMARY KEY)"); err != nil {
				t.Fatal(err)
			}
			if _, err := db.ExecContext(t.Context(), "INSERT INTO t VALUES (1), (2)"); err != nil {
				t.Fatal(err)
			}
			var n int
			if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM t").Scan(&n); err != nil {
				t.Fatal(err)
			}
			if n != 2 {
				t.Errorf("counted %d rows, want 2", n)
			}
		})
	}
}

func TestLoginWithoutPasswordIsRefused(t *testing.T) {
	for name, start := range map[string]func(context.Context) (*Server, error){
		"separate process": Start,
		"in-process":       StartInProcess,
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, start)
			for _, user := range []string{s.User(), "root", "mysql", "nobody", ""} {
				cfg := s.DSN()
				cfg.User, cfg.Passwd = user, ""
				db, err := open(cfg)
				if err != nil {
					t.Fatal(err)
				}
				if err := db.PingContext(t.Context()); err == nil {
					t.Errorf("user %q logged in without a password", user)
				}
				db.Close()
			}
		})
	}
}

func TestServerNeverPrintsItsPassword(t *testing.T) {
	s := &Server{kind: "kind", password: "hidden"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(format, s); got != "kind" {
			t.Errorf("%s prints %s", format, got)
		}
	}
}

func TestServerUsesStrictModeAndUTC(t *testing.T) {
	s := startServer(t, Start)
	db := openServer(t, s, "")
	var mode, zone, charset string
	err := db.QueryRowContext(t.Context(), "SELECT @@sql_mode, @@time_zone, @@character_set_server").Scan(&mode, &zone, &charset)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(mode, "STRICT_TRANS_TABLES") || zone != "+00:00" || charset != "utf8mb4" {
		t.Errorf("sql_mode %s, time_zone %s, character set %s", mode, zone, charset)
	}
}

func TestGivenOptionsOverrideTheDefaults(t *testing.T) {
	s := startServer(t, func(ctx context.Context) (*Server, error) {
		return StartWith(ctx, "--log-bin=binlog", "--server-id=1", "--max-connections=123")
	})
	var logged, connections int
	if err := openServer(t, s, "").QueryRowContext(t.Context(), "SELECT @@log_bin, @@max_connections").Scan(&logged, &connections); err != nil {
		t.Fatal(err)
	}
	if logged != 1 || connections != 123 {
		t.Errorf("log_bin %d, max_connections %d", logged, connections)
	}
}

func TestRestartKeepsDataPortAndAccount(t *testing.T) {
	s := startServer(t, Start)
	if err := s.CreateDatabase(t.Context(), "kept"); err != nil {
		t.Fatal(err)
	}
	if err := s.exec(t.Context(), "CREATE TABLE kept.t (n INT) SELECT 1 AS n"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.exec(t.Context(), "INSERT INTO kept.t SELECT n + 1 FROM kept.t ORDER BY n DESC LIMIT 1"); err != nil {
			t.Fatal(err)
		}
	}
	db, err := open(s.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var n int
	if err := db.QueryRowContext(t.Context(), "SELECT MAX(n) FROM kept.t").Scan(&n); err != nil || n != 3 {
		t.Errorf("%d, %v", n, err)
	}
}

func TestInProcessServerCannotRestart(t *testing.T) {
	s := startServer(t, StartInProcess)
	if err := s.Restart(t.Context()); err == nil {
		t.Error("it claims to have restarted")
	}
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	tmp := ownTempDir(t)
	s := startServer(t, Start)
	if got := entries(t, tmp); len(got) != 1 {
		t.Fatalf("while running: %v", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	if got := entries(t, tmp); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
	if accepts(s.Port()) {
		t.Error("the server still accepts connections")
	}
}

func TestServerStopsWhenParentDies(t *testing.T) {
	requireProgram(t)
	for _, how := range []string{"exit", "kill"} {
		t.Run(how, func(t *testing.T) {
			tmp := ownTempDir(t)
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), childEnv+"="+how, "TMPDIR="+tmp)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			port, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				t.Fatal(line)
			}
			if how == "kill" {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			_ = cmd.Wait()
			eventually(t, "server gone", func() bool { return !accepts(port) })
			eventually(t, "directory gone", func() bool { return len(entries(t, tmp)) == 0 })
		})
	}
}

func TestFailedStartReturnsTheLogAndLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mysqld")
	script := `#!/bin/sh
case "$2" in --version) echo "mysqld  Ver 8.4.1 for Linux"; exit;; esac
echo "[ERROR] the disk is made of cheese"
exit 3
`
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	openToAll(t, filepath.Dir(path))
	tmp := ownTempDir(t)
	_, err := start(t.Context(), "", path)
	if err == nil || !strings.Contains(err.Error(), "made of cheese") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v", err)
	}
	if got := entries(t, tmp); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

// programs creates empty executable files in a new directory.
func programs(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestProgramInMYSQLDIsPreferred(t *testing.T) {
	dir := programs(t, "mariadbd", "mysqld", "mysqld-9")
	t.Setenv("PATH", dir)
	t.Chdir(dir)
	for named, want := range map[string]string{
		"":                             "mariadbd",
		"mysqld":                       "mysqld",
		"./mysqld-9":                   "mysqld-9",
		filepath.Join(dir, "mysqld-9"): "mysqld-9",
	} {
		t.Setenv(programEnv, named)
		path, err := find()
		if err != nil || path != filepath.Join(dir, want) {
			t.Errorf("MYSQLD=%s is %s, %v; want %s", named, path, err, want)
		}
	}
}

func TestInvalidMYSQLDIsReportedInOneLine(t *testing.T) {
	dir := programs(t)
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for what, named := range map[string]string{
		"nothing there":  filepath.Join(dir, "mysqld"),
		"not on PATH":    "mysqld-of-nowhere",
		"a directory":    dir,
		"not executable": text,
	} {
		t.Setenv(programEnv, named)
		_, err := Start(t.Context())
		if !errors.Is(err, ErrNoProgram) || !strings.Contains(err.Error(), named) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestProgramThatIsNotAServerIsRefused(t *testing.T) {
	dir := programs(t, "true")
	t.Setenv(programEnv, filepath.Join(dir, "true"))
	if _, err := Start(t.Context()); err == nil || !strings.Contains(err.Error(), "neither MariaDB nor MySQL") {
		t.Errorf("got %v", err)
	}
}

func TestServerOfTheFirstDirectoryIsFound(t *testing.T) {
	mysql, both := programs(t, "mysqld"), programs(t, "mysqld", "mariadbd")
	path, err := findIn([]string{t.TempDir(), "relative", mysql, both})
	if err != nil || path != filepath.Join(mysql, "mysqld") {
		t.Errorf("got %s, %v", path, err)
	}
	path, err = findIn([]string{both, mysql})
	if err != nil || path != filepath.Join(both, "mariadbd") {
		t.Errorf("beside mariadbd: got %s, %v", path, err)
	}
	if _, err := findIn([]string{t.TempDir()}); !errors.Is(err, ErrNoServer) {
		t.Errorf("without any: %v", err)
	}
}

func TestStartFailsWhenContextIsCanceled(t *testing.T) {
	requireProgram(t)
	tmp := ownTempDir(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := entries(t, tmp); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

func TestTakenPortIsRecognized(t *testing.T) {
	path := requireProgram(t)
	p, err := identify(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	owner, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(t, Start)

	second, err := newHome("", p, owner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := second.remove(); err != nil {
			t.Error(err)
		}
	})
	if err := os.Mkdir(second.path("data"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{second.dir, second.path("data")} {
		if err := owner.chown(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := second.initialize(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := second.run(nil, "--bind-address="+loopback, "--port="+strconv.Itoa(s.Port()))
	if err != nil {
		t.Fatal(err)
	}
	<-c.exited
	if !c.portTaken() {
		t.Errorf("the log does not show that the port is taken:\n%s", c.logTail())
	}
}

func TestSecondConnectionToInProcessServerWaitsForTheFirst(t *testing.T) {
	s := startServer(t, StartInProcess)
	if s.Concurrent() {
		t.Fatal("it claims to be concurrent")
	}
	first, second := openServer(t, s, ""), openServer(t, s, "")
	if err := first.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := second.PingContext(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("beside the first: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := second.PingContext(t.Context()); err != nil {
		t.Errorf("after the first: %v", err)
	}
}

// ownTempDir sets TMPDIR to a new directory that the server's user can access.
func ownTempDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	openToAll(t, dir)
	t.Setenv("TMPDIR", dir)
	return dir
}

// openToAll makes a t.TempDir directory and its parent accessible to every user: the server runs as another one.
func openToAll(t *testing.T, dir string) {
	t.Helper()
	for _, path := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range found {
		names = append(names, entry.Name())
	}
	return names
}

func accepts(port int) bool {
	conn, err := net.Dial("tcp", net.JoinHostPort(loopback, strconv.Itoa(port)))
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		case <-ticker.C:
		}
	}
}
