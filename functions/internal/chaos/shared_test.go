package chaos_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/lambdabuild"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/localdb"
)

// The database accounts. The journal records which of them wrote. Neither may write while the server is read-only.
const (
	systemAccount      = "system"
	applicationAccount = "application"
)

// server is the rounds' database server.
type server struct {
	*localdb.Server

	admin        *sql.DB
	passwords    map[string]string // by account
	restarting   sync.Mutex
	databaseTurn int
}

// shared is used by all rounds: the server, and the programs, which are built once.
var shared struct {
	once   sync.Once
	err    error
	dir    string // has the programs
	server *server
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		if err := errors.Join(shared.server.admin.Close(), shared.server.Close()); err != nil {
			fmt.Fprintln(os.Stderr, "stop the database server:", err)
			code = 1
		}
	}
	if err := os.RemoveAll(shared.dir); err != nil {
		fmt.Fprintln(os.Stderr, "remove the programs:", err)
		code = 1
	}
	os.Exit(code)
}

// prepared builds the programs and returns the server. If this machine cannot run them, prepared skips the test, or
// fails it if CI=true.
func prepared(t *testing.T) *server {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("a bootstrap runs on Linux")
	}
	shared.once.Do(func() { shared.err = prepare() })
	if errors.Is(shared.err, localdb.ErrNoServer) && os.Getenv("CI") != "true" {
		t.Skip(shared.err)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}

// prepare does not take the context of a test, because the server outlives the first test.
func prepare() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if shared.dir, err = os.MkdirTemp("", "chaos-"); err != nil {
		return err
	}
	root, err := lambdabuild.Root()
	if err != nil {
		return err
	}
	for _, name := range lambdabuild.Functions() {
		if err := lambdabuild.Build(ctx, root, "./functions/"+name, program(name), runtime.GOARCH); err != nil {
			return err
		}
	}
	shared.server, err = startServer(ctx)
	return err
}

func program(name string) string { return filepath.Join(shared.dir, name, "bootstrap") }

func startServer(ctx context.Context) (*server, error) {
	local, err := localdb.Start(ctx)
	if err != nil {
		return nil, err
	}
	s := &server{Server: local, passwords: map[string]string{}}
	if s.admin, err = s.open(local.User(), local.Password(), ""); err != nil {
		return nil, errors.Join(err, local.Close())
	}
	for _, account := range []string{systemAccount, applicationAccount} {
		s.passwords[account] = "pw-" + rand.Text()
		for _, statement := range []string{
			"CREATE USER '" + account + "'@'127.0.0.1' IDENTIFIED BY '" + s.passwords[account] + "'",
			"GRANT ALL PRIVILEGES ON `chaos\\_%`.* TO '" + account + "'@'127.0.0.1'",
		} {
			if _, err := s.admin.ExecContext(ctx, statement); err != nil {
				return nil, errors.Join(err, s.admin.Close(), local.Close())
			}
		}
	}
	return s, nil
}

func (s *server) address() string { return net.JoinHostPort(s.Host(), strconv.Itoa(s.Port())) }

// open returns a connection pool of the account.
func (s *server) open(user, password, database string) (*sql.DB, error) {
	return s.openAt(s.Port(), user, password, database)
}

func (s *server) openAt(port int, user, password, database string) (*sql.DB, error) {
	cfg := s.DSN()
	cfg.Addr = net.JoinHostPort(s.Host(), strconv.Itoa(port))
	cfg.User, cfg.Passwd, cfg.DBName = user, password, database
	cfg.ParseTime, cfg.Loc, cfg.InterpolateParams = true, time.UTC, true
	cfg.Timeout, cfg.ReadTimeout = 2*time.Second, 10*time.Second
	cfg.Logger = &mysql.NopLogger{}
	cfg.Params = map[string]string{
		"time_zone": "'+00:00'", "sql_mode": "'STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE'",
		"innodb_lock_wait_timeout": strconv.Itoa(int(lockWait.Seconds())), // two transactions and SET GLOBAL read_only may deadlock
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// restart restarts the server. It may be called concurrently.
func (s *server) restart(ctx context.Context) error {
	s.restarting.Lock()
	defer s.restarting.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute) // a restart must complete
	defer cancel()
	return s.Restart(ctx)
}

// cryptoText returns a random text that occurs nowhere else.
func cryptoText() string { return rand.Text() }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
