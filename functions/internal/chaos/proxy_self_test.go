package chaos_test

import (
	"testing"
)

// The proxy must know a COMMIT when the driver sends one, or it would lose none.
func TestTheProxyLosesCommitsAndTheirAnswers(t *testing.T) {
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
		t.Error("a COMMIT that was lost was answered")
	}
	p.loseAnswers.Store(1)
	if err := insert(2); err == nil {
		t.Error("an answer that was lost has come")
	}
	if err := insert(3); err != nil {
		t.Error(err)
	}
	var sum int
	if err := s.admin.QueryRowContext(t.Context(), "SELECT SUM(n) FROM chaos_proxy.t").Scan(&sum); err != nil || sum != 2+3 {
		t.Errorf("the table holds %d (%v), want the second and the third row", sum, err)
	}
	if p.commitsLost.Load() != 1 || p.answersLost.Load() != 1 {
		t.Errorf("%d COMMITs and %d answers are counted as lost", p.commitsLost.Load(), p.answersLost.Load())
	}
}
