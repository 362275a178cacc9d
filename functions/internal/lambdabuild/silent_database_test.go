package lambdabuild_test

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/runtimeapi"
)

// Lambda ends a start after 10 s and reports only a timeout.
func TestStartFailsInTimeIfDatabaseIsSilent(t *testing.T) {
	s := newStack(t, demo.Options{Orgs: 1, Seed: 1, Now: time.Now().UTC()})
	listener, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections and does not answer
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	worker := s.function("worker", "DB_PORT", strconv.Itoa(listener.Addr().(*net.TCPAddr).Port))
	began := time.Now()
	_, err = worker.Invoke(t.Context(), []byte(`{"Records":[]}`))
	took := time.Since(began)
	e, ok := errors.AsType[*runtimeapi.Error](err)
	if !ok || e.Type != "Function.CannotStart" || !strings.Contains(e.Message, "no answer within 4s") || !strings.Contains(e.Message, "DB_HOST") {
		t.Errorf("got %v", err)
	}
	if took > 9*time.Second {
		t.Errorf("the start took %s", took)
	}
	if !strings.Contains(s.printed["worker"].String(), "no answer within 4s") {
		t.Errorf("the log does not have the reason: %s", s.printed["worker"])
	}
}
