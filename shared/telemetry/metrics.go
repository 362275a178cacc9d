package telemetry

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// Unit is the unit of a metric, as CloudWatch names it.
type Unit string

// The units in use. No unit at all means None.
const (
	UnitCount        Unit = "Count"
	UnitMilliseconds Unit = "Milliseconds"
	UnitSeconds      Unit = "Seconds"
	UnitPercent      Unit = "Percent"
	UnitPerSecond    Unit = "Count/Second"
	UnitNone         Unit = "None"
)

// Dimension is one name and value that tells metrics of one name apart.
// CloudWatch bills every combination: run ids do not belong here.
type Dimension struct {
	Name  string
	Value string
}

// Metric is one measured value.
type Metric struct {
	Name  string
	Unit  Unit
	Value float64
}

// Count returns a metric that counts things.
func Count(name string, n int) Metric {
	return Metric{Name: name, Unit: UnitCount, Value: float64(n)}
}

// CountIf returns a metric that is 1 if so, else 0.
func CountIf(name string, so bool) Metric {
	if so {
		return Count(name, 1)
	}
	return Count(name, 0)
}

// Metrics writes metrics in CloudWatch's embedded metric format. Its methods may
// be called from several goroutines.
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

// Emit writes the metrics as one line, under one set of dimensions. No metrics: no line. Names and units are
// constants that CloudWatch takes; a value that is no number is an error, and nothing is written.
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
func (m *Metrics) Emit(dimensions []Dimension, metrics ...Metric) error {
	if len(metrics) == 0 {
		return nil
	}
	line, err := json.Marshal(m.line(dimensions, metrics))
	if err == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		_, err = m.w.Write(append(line, '\n'))
	}
	if err != nil {
		return fmt.Errorf("emit metrics: %w", err)
	}
	return nil
}

func (m *Metrics) line(dimensions []Dimension, metrics []Metric) map[string]any {
	line := map[string]any{}
	names := []string{}
	for _, d := range dimensions {
		names = append(names, d.Name)
		line[d.Name] = d.Value
	}
	definitions := []map[string]any{}
	for _, v := range metrics {
		definitions = append(definitions, map[string]any{"Name": v.Name, "Unit": cmp.Or(v.Unit, UnitNone)})
		line[v.Name] = v.Value
	}
	line["_aws"] = map[string]any{
		"Timestamp":         m.now().UnixMilli(),
		"CloudWatchMetrics": []any{map[string]any{"Namespace": m.namespace, "Dimensions": [][]string{names}, "Metrics": definitions}},
	}
	return line
}
