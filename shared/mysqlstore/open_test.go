package mysqlstore_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

func configOf(db *mysqltest.DB) mysqlstore.Config {
	return mysqlstore.Config{Host: db.Host, Port: db.Port, User: db.User, Password: db.Password, Name: db.Name}
}

func open(t *testing.T, c mysqlstore.Config) *mysqlstore.Store {
	t.Helper()
	store, err := mysqlstore.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

func TestOpenedSessionIsStrictAndInUTC(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a")
		if err := f.Close(); err != nil { // the server may allow only one connection
			t.Fatal(err)
		}
		config := configOf(f.DB)
		config.MaxConns = 1
		db := open(t, config).DB()

		var mode, zone string
		if err := db.QueryRowContext(t.Context(), `SELECT @@session.sql_mode, @@session.time_zone`).Scan(&mode, &zone); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(mode, "STRICT_TRANS_TABLES") || !strings.Contains(mode, "NO_ZERO_DATE") || zone != "+00:00" {
			t.Errorf("mode %s, zone %s", mode, zone)
		}
		for range 2 {
			result, err := db.ExecContext(t.Context(), `UPDATE organizations SET stripe_customer_id = 'x' WHERE id = ?`, "a")
			if err != nil {
				t.Fatal(err)
			}
			if n, err := result.RowsAffected(); n != 1 || err != nil {
				t.Errorf("%d rows matched, want 1 even if nothing changes (%v)", n, err)
			}
		}
		var at time.Time
		if err := db.QueryRowContext(t.Context(), `SELECT created_at FROM organizations`).Scan(&at); err != nil {
			t.Fatal(err)
		}
		if !at.Equal(old) || at.Location() != time.UTC {
			t.Errorf("a time reads as %v, want %v", at, old)
		}
	})
}

func TestPoolIsLimitedToMaxConns(t *testing.T) {
	db := mysqltest.New(t)
	config := configOf(db)
	for conns, want := range map[int]int{0: 10, 3: 3} {
		config.MaxConns = conns
		if got := open(t, config).DB().Stats().MaxOpenConnections; got != want {
			t.Errorf("MaxConns %d: at most %d connections, want %d", conns, got, want)
		}
	}
}

func TestRefusedConnectionGivesTheReasonInOneLine(t *testing.T) {
	t.Parallel()
	db := mysqltest.New(t)
	const secret = "hunter2secret" // secret-scan:allow a made-up password that must not be shown
	for name, c := range map[string]struct {
		change func(*mysqlstore.Config)
		class  billing.Class
		reason billing.Reason
		hint   string
	}{
		"wrong password": {
			func(c *mysqlstore.Config) { c.Password = secret },
			billing.RunFatal, billing.ReasonDatabaseLogin, "DB_PASSWORD",
		},
		"unknown user": {
			func(c *mysqlstore.Config) { c.User, c.Password = "unknown", secret },
			billing.RunFatal, billing.ReasonDatabaseLogin, "DB_USER",
		},
		"unknown database": {
			func(c *mysqlstore.Config) { c.Name = "no_such_database" },
			billing.RunFatal, billing.ReasonDatabaseLogin, "DB_NAME",
		},
		"closed port": {
			func(c *mysqlstore.Config) { c.Port = closedPort(t) },
			billing.Unavailable, billing.ReasonDatabaseUnavailable, "DB_HOST",
		},
		"no TLS": {
			func(c *mysqlstore.Config) { c.TLS = true },
			billing.Unavailable, billing.ReasonDatabaseUnavailable, "DB_TLS",
		},
	} {
		t.Run(name, func(t *testing.T) {
			config := configOf(db)
			c.change(&config)
			store, err := mysqlstore.Open(t.Context(), config)
			if err == nil {
				store.Close()
				if config.TLS {
					t.Skip("this server offers TLS with a trusted certificate")
				}
				t.Fatal("Open returned no error")
			}
			wantFailure(t, err, c.class, c.reason)
			if !strings.Contains(err.Error(), c.hint) {
				t.Errorf("the message does not name %s: %v", c.hint, err)
			}
			if strings.Contains(err.Error(), secret) || (db.Password != "" && strings.Contains(err.Error(), db.Password)) {
				t.Errorf("the password is in the message: %v", err)
			}
		})
	}
}

// closedPort returns a port on which no process listens.
func closedPort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

func TestUnansweredOpenEndsWithItsContext(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if conn, err := listener.Accept(); err == nil {
			cancel()
			<-t.Context().Done()
			conn.Close()
		}
	}()
	_, err = mysqlstore.Open(ctx, mysqlstore.Config{Host: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port, User: "u", Name: "n"})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if f := billing.AsFailure(err); f.Class != billing.Unavailable || f.Reason != billing.ReasonOutOfTime {
		t.Errorf("got %s %s", f.Class, f.Reason)
	}
}

func TestUnusableCAFileIsNamed(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("no certificate in here\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{empty, filepath.Join(t.TempDir(), "missing.pem")} {
		_, err := mysqlstore.Open(t.Context(), mysqlstore.Config{Host: "127.0.0.1", Port: closedPort(t), TLS: true, CAFile: file})
		if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "DB_TLS") {
			t.Errorf("got %v, want DB_TLS and %s", err, file)
		}
	}
}

func TestErrorOfADatabaseWithoutTheTablesNamesDBName(t *testing.T) {
	t.Parallel()
	db := mysqltest.New(t)
	db.MustExec(t, `DROP TABLE subscriptions, organizations`)
	_, err := mysqlstore.New(db.DB).Records(t.Context(), []string{"a"})
	wantFailure(t, err, billing.RunFatal, billing.ReasonDatabaseLogin)
	if !strings.Contains(err.Error(), "DB_NAME") {
		t.Errorf("the message does not name DB_NAME: %v", err)
	}
}

func TestMissingOwnTablesAdviseMigrate(t *testing.T) {
	t.Parallel()
	db := mysqltest.New(t)
	_, err := mysqlstore.New(db.DB).OpenRun(t.Context(), newRun("r"))
	wantFailure(t, err, billing.RunFatal, billing.ReasonDatabaseLogin)
	if !strings.Contains(err.Error(), "migrate") {
		t.Errorf("the message does not name migrate: %v", err)
	}
}

func TestMissingGrantIsFatalForTheRun(t *testing.T) {
	t.Parallel()
	f := newFixture(t, mysqltest.New(t))
	f.addPaying(t, "a")
	f.startRun(t, "r", 0)
	user := strings.TrimPrefix(f.Name, "test_")
	if _, err := f.ExecContext(t.Context(), `CREATE USER '`+user+`'@'%' IDENTIFIED BY 'Secret-1-secret'`); err != nil {
		t.Skipf("needs a user that may create users: %v", err)
	}
	t.Cleanup(func() {
		if _, err := f.ExecContext(context.Background(), `DROP USER '`+user+`'@'%'`); err != nil {
			t.Error(err)
		}
	})
	config := configOf(f.DB)
	config.User, config.Password = user, "Secret-1-secret"

	_, err := mysqlstore.Open(t.Context(), config)
	wantFailure(t, err, billing.RunFatal, billing.ReasonDatabaseLogin)

	f.MustExec(t, `GRANT SELECT ON `+f.Name+`.* TO '`+user+`'@'%'`)
	store := open(t, config)
	_, err = store.OpenRun(t.Context(), newRun("other"))
	wantFailure(t, err, billing.RunFatal, billing.ReasonDatabaseLogin)

	f.MustExec(t, `GRANT UPDATE ON `+f.Name+`.reconciliation_items TO '`+user+`'@'%'`)
	f.MustExec(t, `GRANT UPDATE (name) ON `+f.Name+`.organizations TO '`+user+`'@'%'`)
	f.MustExec(t, `GRANT UPDATE (stripe_price_id) ON `+f.Name+`.subscriptions TO '`+user+`'@'%'`)
	before := f.state(t)
	err = open(t, config).Apply(t.Context(), f.record(t, "a"), billing.Plan{Changes: []billing.Change{
		{Field: billing.FieldOrgCustomerID, From: "cus_a", To: "cus_b"},
	}}, billing.Item{RunID: "r", OrgID: "a", Outcome: billing.OutcomeSynced}, false, now)
	wantFailure(t, err, billing.RunFatal, billing.ReasonDatabaseLogin)
	f.requireUnchanged(t, before)
}
