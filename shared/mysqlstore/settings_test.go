package mysqlstore_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

// What a server's own settings do to us. Each case puts back what it set, for the next.
func TestSettingsOfTheServer(t *testing.T) {
	t.Parallel()
	f := newFixture(t, mysqltest.WithOwnServer(t))
	f.addPaying(t, "a", "b", "c")
	f.startRun(t, "r", 5)
	config := f.userConfig(t, "worker")

	t.Run("without autocommit every write stands", func(t *testing.T) {
		f.set(t, "autocommit", "0", "1")
		first, second := open(t, config), open(t, config)
		run := newRun("without autocommit")
		if _, err := first.OpenRun(t.Context(), run); err != nil {
			t.Fatal(err)
		}
		if runs, err := second.Runs(t.Context(), []string{run.ID}); err != nil || len(runs) != 1 {
			t.Errorf("another connection sees %v, %v", runs, err)
		}
		if held, err := second.AcquireLease(t.Context(), leaseOf(run.ID), now); !held || err != nil {
			t.Errorf("held %v, %v", held, err)
		}
	})

	t.Run("a lax server's sessions stay strict when they connect anew", func(t *testing.T) {
		f.set(t, "sql_mode", "''", "DEFAULT")
		config.MaxConns = 1
		db := open(t, config).DB()
		for range 2 {
			var id int64
			var mode string
			if err := db.QueryRowContext(t.Context(), `SELECT CONNECTION_ID(), @@session.sql_mode`).Scan(&id, &mode); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(mode, "STRICT_TRANS_TABLES") || !strings.Contains(mode, "NO_ZERO_DATE") {
				t.Errorf("connection %d has mode %q", id, mode)
			}
			f.MustExec(t, fmt.Sprintf("KILL CONNECTION %d", id))
		}
	})

	t.Run("a read-only server says so, and the connection is not used again", func(t *testing.T) {
		config.MaxConns = 1
		store := open(t, config)
		before := connectionID(t, store)
		record, state := f.record(t, "a"), f.state(t)
		bare := config
		bare.Name = "bare"
		f.MustExec(t, `CREATE DATABASE bare`)
		f.MustExec(t, `GRANT ALL ON bare.* TO worker`)
		f.set(t, "read_only", "1", "0")
		_, openErr := store.OpenRun(t.Context(), newRun("x"))
		_, migrateErr := open(t, bare).Migrate(t.Context())
		for what, err := range map[string]error{
			"open a run": openErr,
			"migrate":    migrateErr,
			"repair":     store.Apply(t.Context(), record, upgrade("a"), itemOf("r", "a", upgrade("a")), false, now),
		} {
			wantFailure(t, err, billing.Unavailable, billing.ReasonDatabaseUnavailable)
			if !strings.Contains(err.Error(), "read-only") || !strings.Contains(err.Error(), "DB_HOST") {
				t.Errorf("%s: got %v", what, err)
			}
		}
		f.requireUnchanged(t, state)
		if connectionID(t, store) == before {
			t.Error("the connection to what is a reader now is still in use")
		}
		f.MustExec(t, `SET GLOBAL read_only = 0`)
		if err := store.Apply(t.Context(), record, upgrade("a"), itemOf("r", "a", upgrade("a")), false, now); err != nil {
			t.Errorf("on the writer again: %v", err)
		}
	})

	t.Run("one that becomes read-only before the commit says so", func(t *testing.T) {
		config.MaxConns = 1
		store := open(t, config)
		before := connectionID(t, store)
		tx, err := store.DB().BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(t.Context(), `UPDATE organizations SET name = 'x' WHERE id = 'c'`); err != nil {
			t.Fatal(err)
		}
		f.set(t, "read_only", "1", "0")
		if err := tx.Commit(); err == nil {
			t.Fatal("committed")
		}
		if connectionID(t, store) == before {
			t.Error("the connection to what is a reader now is still in use")
		}
	})

	t.Run("its limits of connections pass", func(t *testing.T) {
		f.MustExec(t, `ALTER USER worker WITH MAX_USER_CONNECTIONS 1`)
		open(t, config)
		_, err := mysqlstore.Open(t.Context(), config)
		wantFailure(t, err, billing.Unavailable, billing.ReasonDatabaseUnavailable)
		if err == nil || !strings.Contains(err.Error(), "limit") {
			t.Errorf("got %v", err)
		}
		f.MustExec(t, `ALTER USER worker WITH MAX_USER_CONNECTIONS 0`)
	})

	t.Run("an expired password, a locked account and a connection without TLS are about the run", func(t *testing.T) {
		for _, c := range []struct{ change, back, says string }{
			{`ALTER USER worker PASSWORD EXPIRE`, `ALTER USER worker IDENTIFIED BY '` + config.Password + `'`, "expired"},
			{`ALTER USER worker ACCOUNT LOCK`, `ALTER USER worker ACCOUNT UNLOCK`, "locked"},
			{`SET GLOBAL require_secure_transport = 1`, `SET GLOBAL require_secure_transport = 0`, "DB_TLS"},
		} {
			f.MustExec(t, c.change)
			err := use(t, config)
			f.MustExec(t, c.back)
			wantFailure(t, err, billing.RunFatal, billing.ReasonDatabaseLogin)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: got %v, want %s", c.change, err, c.says)
			}
		}
	})
}

// use connects and reads: MariaDB lets a user in whose password has expired, and then refuses all.
func use(t *testing.T, config mysqlstore.Config) error {
	t.Helper()
	store, err := mysqlstore.Open(t.Context(), config)
	if err != nil {
		return err
	}
	defer store.Close()
	_, err = store.Runs(t.Context(), []string{"r"})
	return err
}

func connectionID(t *testing.T, store *mysqlstore.Store) (id int64) {
	t.Helper()
	if err := store.DB().QueryRowContext(t.Context(), `SELECT CONNECTION_ID()`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	return id
}

// set changes a setting of the server for what remains of the test.
func (f *fixture) set(t *testing.T, name, value, back string) {
	t.Helper()
	f.MustExec(t, `SET GLOBAL `+name+` = `+value)
	t.Cleanup(func() {
		if _, err := f.Exec(`SET GLOBAL ` + name + ` = ` + back); err != nil {
			t.Error(err)
		}
	})
}

// userConfig makes a user that may work with the tables, but has no power over the server.
func (f *fixture) userConfig(t *testing.T, name string) mysqlstore.Config {
	t.Helper()
	config := configOf(f.DB)
	config.User, config.Password = name, "Secret-1-secret" // secret-scan:allow of a server that ends with the test
	f.MustExec(t, `CREATE USER `+name+` IDENTIFIED BY '`+config.Password+`'`)
	f.MustExec(t, `GRANT ALL ON `+f.Name+`.* TO `+name)
	return config
}
