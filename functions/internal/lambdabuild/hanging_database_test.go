package lambdabuild_test

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
)

// If Lambda ended the aggregator at its timeout, the log would have no reason, and the whole batch would be delivered
// again at once.
func TestAggregatorAnswersInTimeIfDatabaseHangs(t *testing.T) {
	s := newStack(t, demo.Options{Orgs: 1, Seed: 1, Now: time.Now().UTC()})
	s.timeout = 5 * time.Second
	aggregator := s.function("aggregator")
	s.invoke(aggregator, `{"tick":true}`)
	s.lockTables()
	var batch events.SQSEvent
	for _, id := range []string{"a", "b", "c"} {
		batch.Records = append(batch.Records, events.SQSMessage{MessageId: id, Body: `{"version":1,"runId":"` + id + `"}`})
	}
	answer, err := aggregator.HandleSQS(t.Context(), batch)
	if err != nil || len(answer.BatchItemFailures) != 3 {
		t.Errorf("the aggregator returned %+v, %v, want 3 failed messages", answer, err)
	}
	if _, err := aggregator.Invoke(t.Context(), []byte(`{"tick":true}`)); err == nil || strings.Contains(err.Error(), "timed out after") {
		t.Errorf("the tick returned %v, want an error before the timeout", err)
	}
	for _, message := range []string{"the progress message will be delivered again", "the invocation failed"} {
		s.awaitPrinted("aggregator", message)
	}
}

// awaitPrinted waits until the function's output has the text. The output comes through a pipe, possibly after the answer.
func (s *stack) awaitPrinted(name, text string) {
	s.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(s.printed[name].String(), text); {
		if time.Now().After(deadline) {
			s.Fatalf("%s did not print %q", name, text)
		}
		time.Sleep(time.Millisecond)
	}
}

// lockTables blocks every statement on the runs until the test ends.
func (s *stack) lockTables() {
	s.Helper()
	conn, err := s.db.Conn(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.ExecContext(s.Context(), `LOCK TABLES reconciliation_runs WRITE`); err != nil {
		s.Fatal(err)
	}
}
