package mysqlstore_test

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

// trackedVariables are the variables used here that RDS Proxy tracks: a session may set them without pinning its
// connection. https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-proxy-pinning.html
var trackedVariables = []string{"autocommit", "time_zone", "sql_mode", "wait_timeout"}

func TestSessionsSetOnlyWhatRDSProxyTracks(t *testing.T) {
	t.Parallel()
	f := newFixture(t, mysqltest.WithOwnServer(t))
	f.addPaying(t, "a")
	f.startRun(t, "r", 5)
	config := f.userConfig(t, "worker")
	config.LockWait = 5 * time.Second
	f.set(t, "innodb_lock_wait_timeout", "5", "50")
	f.set(t, "log_output", "'TABLE'", "'FILE'")
	f.set(t, "general_log", "1", "0")

	store := open(t, config)
	if steps, err := store.Migrate(t.Context()); steps != 0 || err != nil {
		t.Fatalf("%d steps, %v", steps, err)
	}
	if err := store.Apply(t.Context(), f.record(t, "a"), upgrade("a"), itemOf("r", "a", upgrade("a")), false, now); err != nil {
		t.Fatal(err)
	}
	statements := f.selectStrings(t, `SELECT CONVERT(argument USING utf8mb4) FROM mysql.general_log WHERE user_host LIKE 'worker[%' AND command_type NOT IN ('Connect','Quit')`)
	for _, statement := range statements {
		t.Log(statement)
		if strings.Contains(statement, "GET_LOCK") {
			t.Error("a session takes a named lock, which pins")
		}
		if !strings.HasPrefix(statement, "SET ") || statement == "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED" {
			continue
		}
		for _, name := range regexp.MustCompile(`(\S+) = `).FindAllStringSubmatch(statement, -1) {
			if !slices.Contains(trackedVariables, name[1]) {
				t.Errorf("%q pins", statement)
			}
		}
	}
	if len(statements) < 8 {
		t.Errorf("the log has only %d statements", len(statements))
	}
	if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM mysql.general_log WHERE user_host LIKE 'worker[%' AND command_type = 'Prepare'`); n != 0 {
		t.Errorf("%d statements were prepared, which pins", n)
	}

	for server, want := range map[string]string{"50": "5", "3": "3"} {
		f.set(t, "innodb_lock_wait_timeout", server, "50")
		if got := variable(t, open(t, config), "innodb_lock_wait_timeout"); got != want {
			t.Errorf("the server's lock wait timeout is %s s: the session's is %s s, want %s", server, got, want)
		}
	}
}

func TestSessionIsReadCommittedAndEndsWhenIdle(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		if err := f.Close(); err != nil { // the server may allow only one connection
			t.Fatal(err)
		}
		config := configOf(f.DB)
		config.MaxConns = 1
		store := open(t, config)
		if level := cmp.Or(variable(t, store, "transaction_isolation"), variable(t, store, "tx_isolation")); level != "READ-COMMITTED" { // MariaDB has the latter
			t.Errorf("the isolation level is %s", level)
		}
		if idle := variable(t, store, "wait_timeout"); idle != "300" {
			t.Errorf("an idle session ends after %s s, want 300", idle)
		}
	})
}

// variable returns a variable of the session, or "" if the server does not have it.
func variable(t *testing.T, store *mysqlstore.Store, name string) string {
	t.Helper()
	var shownName, value string
	err := store.DB().QueryRowContext(t.Context(), `SHOW VARIABLES LIKE '`+name+`'`).Scan(&shownName, &value)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		t.Fatal(err)
	}
	return value
}

// Lambda may freeze a process for longer than the server keeps idle sessions.
func TestConnectionThatTheServerClosedIsReplaced(t *testing.T) {
	f := onServer(t)
	config := configOf(f.DB)
	config.MaxConns = 1
	store := open(t, config)
	before := connectionID(t, store)
	if _, err := store.DB().ExecContext(t.Context(), `SET SESSION wait_timeout = 1`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for n := 1; n > 0; {
		if err := f.QueryRowContext(ctx, `SELECT COUNT(*) FROM information_schema.processlist WHERE id = ?`, before).Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.Runs(t.Context(), []string{"r"}); err != nil {
		t.Errorf("after the pause: %v", err)
	}
	if connectionID(t, store) == before {
		t.Error("the connection is the same")
	}
}

func TestOpenOfASilentServerTimesOut(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // the kernel accepts the connection, but no process answers
	began := time.Now()
	_, err = mysqlstore.Open(t.Context(), mysqlstore.Config{Host: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port, User: "u", Name: "n"})
	wantFailure(t, err, billing.Unavailable, billing.ReasonDatabaseUnavailable)
	if err == nil || !strings.Contains(err.Error(), "no answer within 4s") || !strings.Contains(err.Error(), "DB_HOST") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("Open took %s, want less than 8s", took)
	}
}
