package telemetry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

const namespace = "SubscriptionReconciliation"

var emitted = time.Date(2026, 11, 22, 3, 0, 0, 123_000_000, time.UTC)

func newMetrics(w io.Writer) *telemetry.Metrics {
	return telemetry.NewMetrics(w, namespace, func() time.Time { return emitted })
}

func TestLineHasCloudWatchsFormat(t *testing.T) {
	var out bytes.Buffer
	err := newMetrics(&out).Emit(
		[]telemetry.Dimension{{Name: "Stage", Value: "production"}, {Name: "Function", Value: "worker"}},
		telemetry.Count("Synced", 12),
		telemetry.Metric{Name: "Duration", Unit: telemetry.UnitMilliseconds, Value: 0.5},
		telemetry.Metric{Name: "Age", Value: 7},
	)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"Age":7,"Duration":0.5,"Function":"worker","Stage":"production","Synced":12,` +
		`"_aws":{"CloudWatchMetrics":[{"Dimensions":[["Stage","Function"]],` +
		`"Metrics":[{"Name":"Synced","Unit":"Count"},{"Name":"Duration","Unit":"Milliseconds"},{"Name":"Age"}],` +
		`"Namespace":"SubscriptionReconciliation"}],"Timestamp":1795316400123}}` + "\n"
	if out.String() != want {
		t.Errorf("line = %s\nwant   %s", &out, want)
	}
}

func TestMetricsWithoutDimensionsHaveOneEmptySet(t *testing.T) {
	var out bytes.Buffer
	if err := newMetrics(&out).Emit(nil, telemetry.Count("Runs", 1)); err != nil {
		t.Fatal(err)
	}
	if err := followsTheFormat(out.Bytes()); err != nil {
		t.Error(err)
	}
	if !strings.Contains(out.String(), `"Dimensions":[[]]`) {
		t.Errorf("line = %s, want one empty set of dimensions", &out)
	}
}

func TestEveryMetricInUseFollowsTheFormat(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var metrics []telemetry.Metric
		for _, m := range telemetry.All() {
			metrics = append(metrics, telemetry.Metric{Name: m.Name, Unit: telemetry.UnitCount, Value: rapid.Float64Range(-1e100, 1e100).Draw(t, "value")})
		}
		dimension := []telemetry.Dimension{{Name: telemetry.DimensionField, Value: rapid.StringMatching(`[a-z_.]{1,40}`).Draw(t, "field")}}
		var out bytes.Buffer
		if err := newMetrics(&out).Emit(dimension, metrics...); err != nil {
			t.Fatal(err)
		}
		if err := followsTheFormat(out.Bytes()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestConcurrentLinesDoNotMix(t *testing.T) {
	const goroutines, lines = 8, 50
	out := &recorder{}
	metrics := newMetrics(out)
	var group sync.WaitGroup
	for range goroutines {
		group.Go(func() {
			for i := range lines {
				if err := metrics.Emit(nil, telemetry.Count("Line", i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if len(out.writes) != goroutines*lines {
		t.Fatalf("%d writes, want %d", len(out.writes), goroutines*lines)
	}
	for _, line := range out.writes {
		if err := followsTheFormat(line); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFailedWriteIsReported(t *testing.T) {
	broken := errors.New("pipe is closed")
	err := newMetrics(writerFunc(func([]byte) (int, error) { return 0, broken })).Emit(nil, telemetry.Count("Runs", 1))
	if !errors.Is(err, broken) {
		t.Errorf("Emit() = %v, want %v", err, broken)
	}
}

// recorder keeps each Write. It has no lock: Metrics has one.
type recorder struct{ writes [][]byte }

func (r *recorder) Write(line []byte) (int, error) {
	r.writes = append(r.writes, bytes.Clone(line))
	return len(line), nil
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// followsTheFormat checks a line against AWS's "Specification: Embedded
// metric format". It shares no code with Metrics.
func followsTheFormat(line []byte) error {
	body, found := bytes.CutSuffix(line, []byte("\n"))
	if !found || bytes.ContainsRune(body, '\n') {
		return fmt.Errorf("not exactly one line: %q", line)
	}
	var root map[string]any
	if err := json.Unmarshal(body, &root); err != nil {
		return fmt.Errorf("not a JSON object: %w", err)
	}
	var head struct {
		AWS struct {
			Timestamp         json.Number
			CloudWatchMetrics []struct {
				Namespace  string
				Dimensions [][]string
				Metrics    []struct{ Name, Unit string }
			}
		} `json:"_aws"`
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(&head); err != nil {
		return fmt.Errorf("metadata object: %w", err)
	}
	if at, err := head.AWS.Timestamp.Int64(); err != nil || at != emitted.UnixMilli() {
		return fmt.Errorf("timestamp %s is not the clock's in milliseconds", head.AWS.Timestamp)
	}
	if len(head.AWS.CloudWatchMetrics) != 1 {
		return fmt.Errorf("%d metric directives, want 1", len(head.AWS.CloudWatchMetrics))
	}
	directive := head.AWS.CloudWatchMetrics[0]
	if directive.Namespace != namespace {
		return fmt.Errorf("namespace %q", directive.Namespace)
	}
	if len(directive.Dimensions) != 1 || directive.Dimensions[0] == nil || len(directive.Dimensions[0]) > 30 {
		return fmt.Errorf("dimension sets %v", directive.Dimensions)
	}
	for _, name := range directive.Dimensions[0] {
		if value, ok := root[name].(string); !ok || value == "" || len(value) > 1024 {
			return fmt.Errorf("dimension %q has no text at the top level", name)
		}
	}
	if len(directive.Metrics) < 1 || len(directive.Metrics) > 100 {
		return fmt.Errorf("%d metrics in a line", len(directive.Metrics))
	}
	for _, metric := range directive.Metrics {
		if _, ok := root[metric.Name].(float64); !ok {
			return fmt.Errorf("metric %q has no number at the top level", metric.Name)
		}
		if metric.Unit != "" && !slices.Contains(unitsOfCloudWatch, metric.Unit) {
			return fmt.Errorf("metric %q has the unit %q", metric.Name, metric.Unit)
		}
	}
	if want := 1 + len(directive.Dimensions[0]) + len(directive.Metrics); len(root) != want {
		return fmt.Errorf("%d members, want %d", len(root), want)
	}
	return nil
}

// unitsOfCloudWatch is the list in the reference of MetricDatum.
var unitsOfCloudWatch = strings.Fields(`Seconds Microseconds Milliseconds
	Bytes Kilobytes Megabytes Gigabytes Terabytes Bits Kilobits Megabits Gigabits Terabits Percent Count
	Bytes/Second Kilobytes/Second Megabytes/Second Gigabytes/Second Terabytes/Second
	Bits/Second Kilobits/Second Megabits/Second Gigabits/Second Terabits/Second Count/Second None`)
