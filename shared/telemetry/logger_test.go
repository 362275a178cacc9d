package telemetry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

func TestLogLineStartsWithTimeLevelAndMessage(t *testing.T) {
	var out bytes.Buffer
	telemetry.NewLogger(&out, slog.LevelInfo).Warn("Run stopped",
		slog.String(telemetry.KeyRunID, "2026-11-22T03:00:00Z"),
		telemetry.Err(errors.New("wrong account")))

	want := regexp.MustCompile(`^\{"time":"[^"]+Z","level":"WARN","message":"Run stopped",` +
		`"runId":"2026-11-22T03:00:00Z","error":"wrong account"\}\n$`)
	if !want.MatchString(out.String()) {
		t.Errorf("line = %s, want a match for %s", &out, want)
	}
}

func TestLogLineHasTimesInUTC(t *testing.T) {
	var out bytes.Buffer
	eastern := time.FixedZone("eastern", 5*60*60)
	at := time.Date(2026, 11, 22, 8, 0, 0, 0, eastern)
	record := slog.NewRecord(at, slog.LevelInfo, "tick", 0)
	record.AddAttrs(slog.Time("scheduledFor", at), slog.Group("run", slog.Time("startedAt", at)))

	handler := telemetry.NewLogger(&out, slog.LevelInfo).Handler()
	if err := handler.Handle(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(out.String(), `"2026-11-22T03:00:00Z"`); got != 3 {
		t.Errorf("%d of 3 times are UTC in %s", got, &out)
	}
}

func TestLinesBelowTheLevelAreOmitted(t *testing.T) {
	var out bytes.Buffer
	logger := telemetry.NewLogger(&out, slog.LevelError)
	logger.Info("not wanted")
	if out.Len() != 0 {
		t.Errorf("printed %s", &out)
	}
}

func TestNilErrorIsOmitted(t *testing.T) {
	var out bytes.Buffer
	telemetry.NewLogger(&out, slog.LevelInfo).Info("fine", telemetry.Err(nil))
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if len(line) != 3 {
		t.Errorf("line = %v, want time, level and message only", line)
	}
}

// TestKeysAreUnique reads the constants from the source, so that one added
// later is checked too.
func TestKeysAreUnique(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "keys.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	camelCase := regexp.MustCompile(`^[a-z]+([A-Z][a-z]+)*$`)
	nameOf := map[string]string{}
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok {
			return true
		}
		literal, ok := spec.Values[0].(*ast.BasicLit)
		if !ok {
			t.Errorf("%s is not a plain string", spec.Names[0].Name)
			return false
		}
		value, err := strconv.Unquote(literal.Value)
		if err != nil {
			t.Error(err)
			return false
		}
		name := spec.Names[0].Name
		if other, taken := nameOf[value]; taken {
			t.Errorf("%s and %s are both %q", name, other, value)
		}
		nameOf[value] = name
		if !camelCase.MatchString(value) {
			t.Errorf("%s = %q is not camelCase", name, value)
		}
		if !strings.EqualFold(name, "Key"+value) {
			t.Errorf("%s = %q: name and value differ", name, value)
		}
		return false
	})
	if len(nameOf) < 10 {
		t.Errorf("found %d keys only", len(nameOf))
	}
}
