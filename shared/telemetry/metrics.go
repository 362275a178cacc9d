package telemetry

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// Unit is the unit of a metric, in CloudWatch's words.
type Unit string

// The units in use.
const (
	UnitCount        Unit = "Count"
	UnitMilliseconds Unit = "Milliseconds"
	UnitSeconds      Unit = "Seconds"
)

// Dimension distinguishes metrics of one name. CloudWatch bills each combination of values, so a run id is never one.
type Dimension struct{ Name, Value string }

// Metric is one measured value.
type Metric struct {
	Name  string
	Unit  Unit    `json:",omitempty"` // without one, CloudWatch assumes None
	Value float64 `json:"-"`          // each metric's value is a separate key of the line
}

// Count returns a metric that counts things.
func Count(name string, n int) Metric { return Metric{name, UnitCount, float64(n)} }

// CountIf returns a metric that is 1 or 0.
func CountIf(name string, so bool) Metric {
	if so {
		return Count(name, 1)
	}
	return Count(name, 0)
}

// Metrics writes metrics in CloudWatch's embedded metric format. It is safe for concurrent use.
type Metrics struct {
	namespace string
	now       func() time.Time

	mu sync.Mutex // guards w
	w  io.Writer
}

// NewMetrics returns Metrics that write to w. The clock dates each line.
func NewMetrics(w io.Writer, namespace string, now func() time.Time) *Metrics {
	return &Metrics{namespace: namespace, now: now, w: w}
}

// Emit writes the metrics as one line, under one set of dimensions. Without metrics it writes nothing. A value that
// is not a number is an error, and nothing is written.
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
func (m *Metrics) Emit(dimensions []Dimension, metrics ...Metric) error {
	if len(metrics) == 0 {
		return nil
	}
	names, line := []string{}, map[string]any{}
	for _, d := range dimensions {
		names, line[d.Name] = append(names, d.Name), d.Value
	}
	for _, v := range metrics {
		line[v.Name] = v.Value
	}
	definition := map[string]any{"Namespace": m.namespace, "Dimensions": [][]string{names}, "Metrics": metrics}
	line["_aws"] = map[string]any{"Timestamp": m.now().UnixMilli(), "CloudWatchMetrics": []any{definition}}
	text, err := json.Marshal(line)
	if err == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		_, err = m.w.Write(append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("emit metrics: %w", err)
	}
	return nil
}
