package mysqltest

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

func TestMain(m *testing.M) { Main(m) }

// onEach runs a test on a server with concurrency and on the in-process one.
func onEach(t *testing.T, test func(t *testing.T, db *DB)) {
	t.Run("server", func(t *testing.T) {
		t.Parallel()
		test(t, New(t))
	})
	t.Run("in process", func(t *testing.T) {
		t.Parallel()
		test(t, InProcess(t))
	})
}

// createThings makes a table with every kind of column that this system uses.
func createThings(t *testing.T, db *DB) {
	t.Helper()
	db.MustExec(t, `CREATE TABLE things (
		id      INT          NOT NULL PRIMARY KEY,
		kind    ENUM('a','b') NOT NULL DEFAULT 'a',
		token   VARCHAR(20)  NULL UNIQUE,
		n       INT          NOT NULL DEFAULT 0,
		seen    TIMESTAMP    NULL,
		precise DATETIME(6)  NULL,
		doc     JSON         NULL,
		body    LONGTEXT     NULL,
		changed TIMESTAMP    NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP)`)
	db.MustExec(t, "INSERT INTO things (id, token, n) VALUES (1, 'x', 10), (2, 'y', 20)")
}

func numberOf(err error) uint16 {
	if refused, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return refused.Number
	}
	return 0
}

func TestEachTestGetsItsOwnDatabase(t *testing.T) {
	onEach(t, func(t *testing.T, db *DB) {
		if got := Value[int](t, db, "SELECT COUNT(*) FROM organizations"); got != 0 {
			t.Errorf("%d organizations in a new database", got)
		}
		db.MustExec(t, "INSERT INTO organizations (id, name, created_by) VALUES ('o', 'n', 'c')")
		if got := Value[string](t, db, "SELECT DATABASE()"); got != db.Name {
			t.Errorf("in database %s, want %s", got, db.Name)
		}
	})
}

func TestDatabaseIsDroppedWithItsTest(t *testing.T) {
	var name string
	t.Run("inner", func(t *testing.T) { name = New(t).Name })
	db := New(t)
	left := Value[int](t, db, "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = ?", name)
	if left != 0 {
		t.Errorf("%s is still there", name)
	}
}

func TestNewIsConcurrent(t *testing.T) {
	db := New(t)
	if !db.Concurrent {
		t.Fatal("it is not")
	}
	db.MustExec(t, "INSERT INTO organizations (id, name, created_by) VALUES ('o', 'n', 'c')")
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	var id string
	if err := tx.QueryRowContext(t.Context(), "SELECT id FROM organizations FOR UPDATE").Scan(&id); err != nil {
		t.Fatal(err)
	}

	other := db.Open(t)
	other.SetMaxOpenConns(1)
	if _, err := other.ExecContext(t.Context(), "SET innodb_lock_wait_timeout = 0"); err != nil {
		t.Fatal(err)
	}
	_, err = other.ExecContext(t.Context(), "SELECT id FROM organizations FOR UPDATE")
	if numberOf(err) != 1205 {
		t.Errorf("a locked row: got %v, want error 1205", err)
	}
}

func TestConfigurationReachesTheDatabase(t *testing.T) {
	db := New(t)
	address := fmt.Sprintf("%s:%s@tcp(%s:%d)/%s", db.User, db.Password, db.Host, db.Port, db.Name)
	other, err := sql.Open("mysql", address)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.PingContext(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNamedServerIsUsed(t *testing.T) {
	db := New(t)
	s, err := namedServer(fmt.Sprintf("%s:%s@tcp(%s:%d)/", db.User, db.Password, db.Host, db.Port))
	if err != nil {
		t.Fatal(err)
	}
	named := s.newDatabase(t)
	if named.Name == db.Name || !named.Concurrent {
		t.Errorf("got %s, concurrent %v", named.Name, named.Concurrent)
	}
	named.MustExec(t, "INSERT INTO organizations (id, name, created_by) VALUES ('o', 'n', 'c')")
}

func TestUnusableNamedServerIsRefused(t *testing.T) {
	for _, dsn := range []string{"nonsense", "user@unix(/tmp/socket)/"} {
		if _, err := namedServer(dsn); err == nil || !strings.Contains(err.Error(), dsnEnv) {
			t.Errorf("%s: got %v", dsn, err)
		}
	}
}

func TestSessionIsStrictAndInUTC(t *testing.T) {
	onEach(t, func(t *testing.T, db *DB) {
		createThings(t, db)
		for _, wrong := range []string{
			"kind = 'zz'", "kind = ''", "n = NULL", "token = '012345678901234567890123'", "doc = '{'", "seen = 'nonsense'",
			"seen = '1970-01-01 00:00:00'", "seen = '2038-01-19 03:14:08'",
		} {
			if _, err := db.ExecContext(t.Context(), "UPDATE things SET "+wrong+" WHERE id = 1"); err == nil {
				t.Errorf("accepted %s", wrong)
			}
		}

		when := time.Date(2026, 3, 29, 2, 30, 15, 0, time.FixedZone("", 2*60*60))
		precise := when.Add(123456 * time.Microsecond)
		db.MustExec(t, "UPDATE things SET seen = ?, precise = ? WHERE id = 1", when, precise)
		if got := Value[time.Time](t, db, "SELECT seen FROM things WHERE id = 1"); !got.Equal(when) {
			t.Errorf("TIMESTAMP %v, want %v", got, when.UTC())
		}
		if got := Value[time.Time](t, db, "SELECT precise FROM things WHERE id = 1"); !got.Equal(precise) {
			t.Errorf("DATETIME(6) %v, want %v", got, precise.UTC())
		}
		if got := Value[int](t, db, "SELECT COUNT(*) FROM things WHERE seen = ? AND precise <= ?", when, precise); got != 1 {
			t.Error("a time does not compare equal to itself")
		}
		if got := Value[string](t, db, "SELECT CAST(seen AS CHAR) FROM things WHERE id = 1"); !strings.HasPrefix(got, "2026-03-29 00:30:15") {
			t.Errorf("stored as %s", got)
		}
	})
}

func TestMatchedRowsCountAsAffected(t *testing.T) {
	onEach(t, func(t *testing.T, db *DB) {
		createThings(t, db)
		for _, c := range []struct {
			statement string
			want      int64
		}{
			{"UPDATE things SET n = 10 WHERE id = 1", 1},
			{"UPDATE things SET n = 11 WHERE id = 1", 1},
			{"UPDATE things SET n = n + 1 WHERE id = 1 AND n < 11", 0},
			{"UPDATE things SET kind = 'b' WHERE id IN (1, 2) AND kind IN ('a')", 2},
			{"UPDATE things SET n = CASE id WHEN 1 THEN 100 WHEN 2 THEN 200 ELSE n END WHERE id IN (1, 2)", 2},
			{"INSERT INTO things (id) VALUES (3), (4)", 2},
			{"INSERT IGNORE INTO things (id) VALUES (4), (5)", 1},
			{"INSERT INTO things (id, n) VALUES (6, 1) ON DUPLICATE KEY UPDATE n = VALUES(n)", 1},
			{"INSERT INTO things (id, n) VALUES (6, 2) ON DUPLICATE KEY UPDATE n = VALUES(n)", 2},
			{"INSERT INTO things (id, n) VALUES (6, 2) ON DUPLICATE KEY UPDATE n = VALUES(n)", 1},
			{"INSERT INTO things (id, n) VALUES (7, 1), (6, 3), (1, 100) ON DUPLICATE KEY UPDATE n = VALUES(n)", 4},
			{"DELETE FROM things WHERE id > 2 ORDER BY id LIMIT 2", 2},
		} {
			if got := db.MustExec(t, c.statement); got != c.want {
				t.Errorf("%s: %d rows, want %d", c.statement, got, c.want)
			}
		}
		if got := Value[int](t, db, "SELECT SUM(n) FROM things WHERE id IN (1, 2, 6, 7)"); got != 304 {
			t.Errorf("the values sum up to %d, want 304", got)
		}
	})
}

func TestConstraintViolationsHaveMySQLsErrorNumbers(t *testing.T) {
	onEach(t, func(t *testing.T, db *DB) {
		createThings(t, db)
		for _, c := range []struct {
			statement string
			want      uint16
		}{
			{"INSERT INTO things (id) VALUES (1)", 1062},
			{"INSERT INTO things (id, token) VALUES (3, 'x')", 1062},
			{"INSERT INTO things (id) VALUES (4), (1), (5)", 1062},
			{"UPDATE things SET token = 'x' WHERE id = 2", 1062},
			{"INSERT INTO subscriptions (id, org_id) VALUES ('s', 'none')", 1452},
		} {
			_, err := db.ExecContext(t.Context(), c.statement)
			if got := numberOf(err); got != c.want {
				t.Errorf("%s: error %d, want %d (%v)", c.statement, got, c.want, err)
			}
		}
		if got := Value[int](t, db, "SELECT COUNT(*) FROM things"); got != 2 {
			t.Errorf("%d rows, want 2: a refused statement left something", got)
		}
	})
}

func TestTransactionsRollBackAndCommit(t *testing.T) {
	onEach(t, func(t *testing.T, db *DB) {
		createThings(t, db)
		change := func(end func(*sql.Tx) error) {
			t.Helper()
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback()
			var n int
			if err := tx.QueryRowContext(t.Context(), "SELECT n FROM things WHERE id = 1 FOR UPDATE").Scan(&n); err != nil {
				t.Fatal(err)
			}
			for _, statement := range []string{
				"UPDATE things SET n = n + 1 WHERE id = 1", "DELETE FROM things WHERE id = 2", "INSERT INTO things (id) VALUES (3), (4)",
			} {
				if _, err := tx.ExecContext(t.Context(), statement); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := tx.ExecContext(t.Context(), "INSERT INTO things (id) VALUES (9), (1)"); numberOf(err) != 1062 {
				t.Fatalf("got %v, want error 1062", err)
			}
			if err := end(tx); err != nil {
				t.Fatal(err)
			}
		}
		state := func() string {
			return Value[string](t, db, "SELECT GROUP_CONCAT(CONCAT(id, '=', n) ORDER BY id) FROM things")
		}

		change((*sql.Tx).Rollback)
		if got := state(); got != "1=10,2=20" {
			t.Errorf("rolled back: %s", got)
		}
		change((*sql.Tx).Commit)
		if got := state(); got != "1=11,3=0,4=0" {
			t.Errorf("committed: %s", got)
		}
	})
}

func TestTextColumnsKeepTheirContent(t *testing.T) {
	onEach(t, func(t *testing.T, db *DB) {
		createThings(t, db)
		body := "é🚀'\"\\\n\x00%"
		db.MustExec(t, "UPDATE things SET doc = ?, body = ? WHERE id = 1", `{"a":[true,null,"é"]}`, body)
		if got := Value[string](t, db, "SELECT body FROM things WHERE id = 1"); got != body {
			t.Errorf("text %q, want %q", got, body)
		}
		if got := Value[string](t, db, "SELECT JSON_UNQUOTE(JSON_EXTRACT(doc, '$.a[2]')) FROM things WHERE id = 1"); got != "é" {
			t.Errorf("document holds %q, want é", got)
		}
	})
}

func TestNamedLocksAreAcquiredAndReleased(t *testing.T) {
	onEach(t, func(t *testing.T, db *DB) {
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		var taken, released int
		if err := conn.QueryRowContext(t.Context(), "SELECT GET_LOCK('x', 0)").Scan(&taken); err != nil {
			t.Fatal(err)
		}
		if err := conn.QueryRowContext(t.Context(), "SELECT RELEASE_LOCK('x')").Scan(&released); err != nil {
			t.Fatal(err)
		}
		if taken != 1 || released != 1 {
			t.Errorf("taken %d, released %d, want 1 and 1", taken, released)
		}
	})
}

func TestNewAnyPrefersTheServer(t *testing.T) {
	db := New(t)
	if kind := NewAny(t).Kind; kind != db.Kind {
		t.Errorf("got %s, want %s", kind, db.Kind)
	}
}

func TestSharedServerIsTheNamedOneIfSet(t *testing.T) {
	named := os.Getenv(dsnEnv) != ""
	if got := strings.Contains(New(t).Kind, dsnEnv); got != named {
		t.Errorf("the server of %s: %v, want %v", dsnEnv, got, named)
	}
}
