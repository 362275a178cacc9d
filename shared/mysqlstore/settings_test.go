package mysqlstore_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

// Each case restores the server's settings for the next one.
func TestStoreWorksWithAnySettingsOfTheServer(t *testing.T) {
	t.Parallel()
	f := newFixture(t, mysqltest.WithOwnServer(t))
	f.addPaying(t, "a", "b", "c")
	f.startRun(t, "r", 5)
	config := f.userConfig(t, "worker")

	t.Run("without autocommit every write is committed", func(t *testing.T) {
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

	t.Run("sessions of a server that is not strict are strict, also after a reconnect", func(t *testing.T) {
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

	t.Run("a read-only server is reported, and the connection is not used again", func(t *testing.T) {
		config.MaxConns = 1
		store := open(t, config)
		before := connectionID(t, store)
		record, state := f.record(t, "a"), f.state(t)
		empty := config
		empty.Name = "empty_database"
		f.MustExec(t, `CREATE DATABASE empty_database`)
		f.MustExec(t, `GRANT ALL ON empty_database.* TO worker`)
		f.set(t, "read_only", "1", "0")
		_, openErr := store.OpenRun(t.Context(), newRun("x"))
		_, migrateErr := open(t, empty).Migrate(t.Context())
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
			t.Error("the connection to the read-only server is used again")
		}
		f.MustExec(t, `SET GLOBAL read_only = 0`)
		if err := store.Apply(t.Context(), record, upgrade("a"), itemOf("r", "a", upgrade("a")), false, now); err != nil {
			t.Errorf("on the writer again: %v", err)
		}
	})

	t.Run("a server that becomes read-only before the commit is reported, and the connection is not used again", func(t *testing.T) {
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
			t.Fatal("the read-only server committed")
		}
		if connectionID(t, store) == before {
			t.Error("the connection to the read-only server is used again")
		}
	})

	t.Run("a limit of connections is unavailable, not fatal", func(t *testing.T) {
		f.MustExec(t, `ALTER USER worker WITH MAX_USER_CONNECTIONS 1`)
		open(t, config)
		_, err := mysqlstore.Open(t.Context(), config)
		wantFailure(t, err, billing.Unavailable, billing.ReasonDatabaseUnavailable)
		if err == nil || !strings.Contains(err.Error(), "limit") {
			t.Errorf("got %v", err)
		}
		f.MustExec(t, `ALTER USER worker WITH MAX_USER_CONNECTIONS 0`)
	})

	t.Run("an expired password, a locked account and a connection without TLS are fatal for the run", func(t *testing.T) {
		for _, c := range []struct{ change, restore, text string }{
			{`ALTER USER worker PASSWORD EXPIRE`, `ALTER USER worker IDENTIFIED BY '` + config.Password + `'`, "expired"},
			{`ALTER USER worker ACCOUNT LOCK`, `ALTER USER worker ACCOUNT UNLOCK`, "locked"},
			{`SET GLOBAL require_secure_transport = 1`, `SET GLOBAL require_secure_transport = 0`, "DB_TLS"},
		} {
			f.MustExec(t, c.change)
			err := connectAndRead(t, config)
			f.MustExec(t, c.restore)
			wantFailure(t, err, billing.RunFatal, billing.ReasonDatabaseLogin)
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%s: got %v, want an error with %q", c.change, err, c.text)
			}
		}
	})
}

// connectAndRead connects and executes a statement: MariaDB lets a user with an expired password connect, and then
// refuses every statement.
func connectAndRead(t *testing.T, config mysqlstore.Config) error {
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

// set changes a setting of the server until the end of the test.
func (f *fixture) set(t *testing.T, name, value, restored string) {
	t.Helper()
	f.MustExec(t, `SET GLOBAL `+name+` = `+value)
	t.Cleanup(func() {
		if _, err := f.Exec(`SET GLOBAL ` + name + ` = ` + restored); err != nil {
			t.Error(err)
		}
	})
}

// userConfig creates a user with all rights to the database and none to the server.
func (f *fixture) userConfig(t *testing.T, name string) mysqlstore.Config {
	t.Helper()
	config := configOf(f.DB)
	config.User, config.Password = name, "Secret-1-secret" // secret-scan:allow of a server that the test stops
	f.MustExec(t, `CREATE USER `+name+` IDENTIFIED BY '`+config.Password+`'`)
	f.MustExec(t, `GRANT ALL ON `+f.Name+`.* TO `+name)
	return config
}
