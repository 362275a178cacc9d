package chaos_test

import (
	"database/sql"
	"net"
	"strconv"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// The proxy must recognize the driver's COMMIT statements. Otherwise it would drop none, and the campaign would check
// less.
func TestProxyDropsCommitsAndTheirAnswers(t *testing.T) {
	s := prepared(t)
	p, err := startProxy(s.address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	db, err := s.openAt(p.port(), s.User(), s.Password(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, statement := range []string{"DROP DATABASE IF EXISTS chaos_proxy", "CREATE DATABASE chaos_proxy", "CREATE TABLE chaos_proxy.t (n INT)"} {
		if _, err := s.admin.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	insert := func(n int) error {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(t.Context(), "INSERT INTO chaos_proxy.t VALUES (?)", n); err != nil {
			t.Fatal(err)
		}
		return tx.Commit()
	}
	p.loseCommits.Store(1)
	if err := insert(1); err == nil {
		t.Error("the dropped COMMIT was answered")
	}
	p.loseAnswers.Store(1)
	if err := insert(2); err == nil {
		t.Error("the dropped answer arrived")
	}
	if err := insert(3); err != nil {
		t.Error(err)
	}
	var sum int
	if err := s.admin.QueryRowContext(t.Context(), "SELECT SUM(n) FROM chaos_proxy.t").Scan(&sum); err != nil || sum != 2+3 {
		t.Errorf("the sum of the rows is %d (%v), want the second and the third row", sum, err)
	}
	if p.commitsLost.Load() != 1 || p.answersLost.Load() != 1 {
		t.Errorf("the proxy counts %d dropped COMMITs and %d dropped answers, want 1 and 1", p.commitsLost.Load(), p.answersLost.Load())
	}
}

// The proxy must recognize the statement that sets the lock wait timeout. Otherwise no lock wait times out in the
// tests.
func TestProxyShortensLockWaitsAndCountsErrors(t *testing.T) {
	s := prepared(t)
	p, err := startProxy(s.address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	cfg := s.DSN()
	cfg.Addr = net.JoinHostPort(s.Host(), strconv.Itoa(p.port()))
	cfg.Params = map[string]string{"innodb_lock_wait_timeout": "5"} // the same parameter as in the functions
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	var seconds int
	if err := db.QueryRowContext(t.Context(), "SELECT @@innodb_lock_wait_timeout").Scan(&seconds); err != nil || seconds != int(lockWait.Seconds()) {
		t.Errorf("the lock wait timeout is %d s, want %v: %v", seconds, lockWait, err)
	}
	if _, err := db.ExecContext(t.Context(), "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1205"); err == nil {
		t.Error("the statement returned no error")
	}
	if got := p.errorCounts(); got[1205] != 1 || len(got) != 1 {
		t.Errorf("the proxy counts the errors %v, want 1205 once", got)
	}
}
