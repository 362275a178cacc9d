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

// tracked are the variables that a session of RDS Proxy's may set without keeping its connection for itself, as
// https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-proxy-pinning.html has them, of those in use here.
var tracked = []string{"autocommit", "time_zone", "sql_mode", "wait_timeout"}

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
	said := f.selectStrings(t, `SELECT CONVERT(argument USING utf8mb4) FROM mysql.general_log WHERE user_host LIKE 'worker[%' AND command_type NOT IN ('Connect','Quit')`)
	for _, statement := range said {
		t.Log(statement)
		if strings.Contains(statement, "GET_LOCK") {
			t.Error("a named lock pins")
		}
		if !strings.HasPrefix(statement, "SET ") || statement == "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED" {
			continue
		}
		for _, name := range regexp.MustCompile(`(\S+) = `).FindAllStringSubmatch(statement, -1) {
			if !slices.Contains(tracked, name[1]) {
				t.Errorf("%q pins", statement)
			}
		}
	}
	if len(said) < 8 {
		t.Errorf("the log has only %d statements", len(said))
	}
	if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM mysql.general_log WHERE user_host LIKE 'worker[%' AND command_type = 'Prepare'`); n != 0 {
		t.Errorf("%d statements were prepared, which pins", n)
	}

	for server, want := range map[string]string{"50": "5", "3": "3"} {
		f.set(t, "innodb_lock_wait_timeout", server, "50")
		if got := variable(t, open(t, config), "innodb_lock_wait_timeout"); got != want {
			t.Errorf("where the server waits for locks for %s s, a session waits %s s, want %s", server, got, want)
		}
	}
}

func TestSessionIsReadCommittedAndEndsWhenIdle(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		if err := f.Close(); err != nil { // there may be room for one connection only
			t.Fatal(err)
		}
		config := configOf(f.DB)
		config.MaxConns = 1
		store := open(t, config)
		if level := cmp.Or(variable(t, store, "transaction_isolation"), variable(t, store, "tx_isolation")); level != "READ-COMMITTED" { // MariaDB's is the latter
			t.Errorf("isolation %s", level)
		}
		if idle := variable(t, store, "wait_timeout"); idle != "300" {
			t.Errorf("an idle session ends after %s s", idle)
		}
	})
}

// variable returns a session's variable, "" where there is none of this name.
func variable(t *testing.T, store *mysqlstore.Store, called string) string {
	t.Helper()
	var name, value string
	err := store.DB().QueryRowContext(t.Context(), `SHOW VARIABLES LIKE '`+called+`'`).Scan(&name, &value)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		t.Fatal(err)
	}
	return value
}

// Lambda freezes a process for longer than the server keeps idle sessions.
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

func TestConnectToASilentServerTimesOut(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // nobody accepts: the kernel does, and nobody says anything
	began := time.Now()
	_, err = mysqlstore.Open(t.Context(), mysqlstore.Config{Host: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port, User: "u", Name: "n"})
	wantFailure(t, err, billing.Unavailable, billing.ReasonDatabaseUnavailable)
	if err == nil || !strings.Contains(err.Error(), "no answer within 4s") || !strings.Contains(err.Error(), "DB_HOST") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("it took %s", took)
	}
}
