package bootstrap_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

// The database user that infra/README.md has people create is all that the functions need, from a
// database without their tables on, and what it has people remove is all that they leave.
func TestTheDocumentedGrantsAreEnough(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root(t), "infra", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	s := newStack(t, demo.Options{Orgs: 20, Drift: 0.5, Seed: 3, Now: time.Now().UTC().Truncate(time.Second)})
	user, password := strings.TrimPrefix(s.db.Name, "test_"), "Secret-1-secret"
	here := strings.NewReplacer("application.", s.db.Name+".", "reconciliation IDENTIFIED BY '...'", "'"+user+"'@'%' IDENTIFIED BY '"+password+"'", "TO reconciliation", "TO '"+user+"'@'%'")
	statements := regexp.MustCompile(`(?m)^\s+((?:CREATE USER|GRANT) .*);$`).FindAllStringSubmatch(string(readme), -1)
	if len(statements) == 0 {
		t.Fatal("infra/README.md has no statement that creates the user")
	}
	for i, statement := range statements {
		_, err := s.db.ExecContext(t.Context(), here.Replace(statement[1]))
		if err != nil && i == 0 {
			t.Skipf("needs a user that may create users: %v", err)
		}
		if err != nil {
			t.Fatalf("%s: %v", statement[1], err)
		}
	}
	t.Cleanup(func() {
		if _, err := s.db.ExecContext(context.Background(), `DROP USER '`+user+`'@'%'`); err != nil {
			t.Error(err)
		}
	})
	as := []string{"DB_USER", user, "SECRET_NAME", "", "DB_PASSWORD", password, "STRIPE_SECRET_KEY", s.stripe.Key()}
	s.invoke(s.function("enumerator", as...), `{"scheduledFor":"`+scheduledRun+`"}`)
	if answer, err := s.function("worker", as...).HandleSQS(t.Context(), s.receive(s.work)); err != nil || len(answer.BatchItemFailures) != 0 {
		t.Errorf("worker: %+v, %v", answer, err)
	}
	aggregator := s.function("aggregator", as...)
	if answer, err := aggregator.HandleSQS(t.Context(), s.receive(s.results)); err != nil || len(answer.BatchItemFailures) != 0 {
		t.Errorf("aggregator: %+v, %v", answer, err)
	}
	s.invoke(aggregator, `{"tick":true}`)
	if status := mysqltest.Value[string](t, s.db, `SELECT status FROM reconciliation_runs`); !strings.HasPrefix(status, "completed") {
		t.Errorf("the run ended %s", status)
	}
	drop := regexp.MustCompile(`DROP TABLE reconciliation[a-z_, ]*`).FindString(string(readme))
	s.db.MustExec(t, drop)
	if n := s.ownTables(); n != 0 {
		t.Errorf("%q leaves %d tables", drop, n)
	}
}
