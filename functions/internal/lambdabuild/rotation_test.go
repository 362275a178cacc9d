package lambdabuild_test

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/runtimeapi"
)

// The database's password and Stripe's key are rotated during a run, after each step that leaves a warm process. The
// processes continue with the new secret.
func TestRunCompletesWhileSecretsAreRotated(t *testing.T) {
	s := newStack(t, demo.Options{Orgs: 120, Drift: 0.3, Plain: true, Seed: 3, Now: time.Now().UTC().Truncate(time.Second)})
	user := s.ownUser("rotating")
	enumerator, worker, aggregator := s.function("enumerator", user...), s.function("worker", user...), s.function("aggregator", user...)
	wantJSON(t, s.invoke(aggregator, `{"tick":true}`), map[string]any{"closed": []any{}, "pruned": 0.0})
	for week, runID := range []string{"2026-11-22T03:00:00Z", "2026-11-29T03:00:00Z"} {
		s.rotate("rotating", week, "enumerated")
		if answer := s.invoke(enumerator, `{"scheduledFor":"`+runID+`"}`); !strings.Contains(answer, `"done":true`) {
			t.Fatal(answer)
		}
		batch := s.receive(s.work)
		half := batch
		half.Records = batch.Records[:len(batch.Records)/2]
		batch.Records = batch.Records[len(batch.Records)/2:]
		s.deliver(worker, half)
		s.rotate("rotating", week, "half done")
		s.deliver(worker, batch)
		s.deliver(aggregator, s.receive(s.results))
		if summary := s.invoke(aggregator, `{"runId":"`+runID+`"}`); !strings.Contains(summary, `"status":"completed"`) {
			t.Error(summary)
		}
	}
	for _, name := range []string{"enumerator", "worker"} {
		s.awaitPrinted(name, "Stripe's key was rotated")
	}
}

// Stripe refuses the old key before the secret has the new one. The worker returns the batch and does not stop the run.
// After the secret has the new key, the same process continues.
func TestRefusedKeyIsRetriedUntilSecretHasTheNewOne(t *testing.T) {
	s := newStack(t, demo.Options{Orgs: 20, Drift: 1, Plain: true, Seed: 3, Now: time.Now().UTC().Truncate(time.Second)})
	old := s.stripe.Key()
	enumerator, worker := s.function("enumerator"), s.function("worker")
	s.invoke(enumerator, `{"scheduledFor":"`+scheduledRun+`"}`)
	batch := s.receive(s.work)
	s.key.Store(old)
	s.stripe.RollKey()
	answer, err := worker.HandleSQS(t.Context(), batch)
	if err != nil || len(answer.BatchItemFailures) != len(batch.Records) {
		t.Fatalf("%d of %d messages were returned, %v", len(answer.BatchItemFailures), len(batch.Records), err)
	}
	if n := s.undecided(); n != len(batch.Records) {
		t.Errorf("%d of %d organizations are pending", n, len(batch.Records))
	}
	s.key.Store("") // the secret has the new key
	s.deliver(worker, batch)
	if n := s.undecided(); n != 0 {
		t.Errorf("%d organizations are pending", n)
	}
}

// deliver delivers the batch again until the function returns no message. That may take a second, because a process
// fetches the secret at most once a second.
func (s *stack) deliver(f *runtimeapi.Function, batch events.SQSEvent) {
	s.Helper()
	for deadline := time.Now().Add(patience); ; {
		answer, err := f.HandleSQS(s.Context(), batch)
		if err != nil || time.Now().After(deadline) {
			s.Fatalf("%d messages were returned, %v", len(answer.BatchItemFailures), err)
		}
		if len(answer.BatchItemFailures) == 0 {
			return
		}
	}
}

// ownUser creates a database user and returns the environment that names it.
func (s *stack) ownUser(name string) []string {
	s.Helper()
	s.password.Store("Secret-0-secret") // secret-scan:allow of a server that the test stops
	for _, statement := range []string{
		fmt.Sprintf(`CREATE USER %s IDENTIFIED BY '%s'`, name, s.password.Load()),
		fmt.Sprintf(`GRANT ALL ON %s.* TO %s`, s.db.Name, name),
	} {
		s.db.MustExec(s.TB, statement)
	}
	return []string{"DB_USER", name}
}

// rotate changes the user's password and Stripe's key, and closes the connections that used the old password.
func (s *stack) rotate(user string, week int, when string) {
	s.Helper()
	password := fmt.Sprintf("Secret-%d-%s", week, strings.ReplaceAll(when, " ", "-"))
	s.password.Store(password)
	s.db.MustExec(s.TB, fmt.Sprintf(`ALTER USER %s IDENTIFIED BY '%s'`, user, password))
	s.stripe.RollKey()
	var ids []string
	s.eachRow(`SELECT id FROM information_schema.processlist WHERE user = ?`, func(values []sql.NullString) {
		ids = append(ids, values[0].String)
	}, user)
	for _, id := range ids {
		s.db.MustExec(s.TB, `KILL `+id)
	}
}
