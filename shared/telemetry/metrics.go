package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strings"
	"sync"
	"time"
)

// CloudWatch's limits for one line.
const (
	maxMetrics        = 100
	maxDimensions     = 30
	maxMetricName     = 255
	maxDimensionName  = 250
	maxDimensionValue = 1024
)

// reservedName is the key under which a line describes itself.
const reservedName = "_aws"

// maxMagnitude is 2^360, beyond which CloudWatch refuses a value.
var maxMagnitude = math.Ldexp(1, 360)

// namespacePattern is what CloudWatch takes; AWS/ is its own.
var namespacePattern = regexp.MustCompile(`^[A-Za-z0-9._/#:-]{1,255}$`)

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

// Emit writes the metrics as one line, under one set of dimensions, both in the
// given order. No metrics: no line. What CloudWatch would not take is an error,
// and nothing is written.
func (m *Metrics) Emit(dimensions []Dimension, metrics ...Metric) error {
	if len(metrics) == 0 {
		return nil
	}
	if err := m.check(dimensions, metrics); err != nil {
		return fmt.Errorf("emit metrics: %w", err)
	}
	line, err := m.line(dimensions, metrics)
	if err != nil {
		return fmt.Errorf("emit metrics: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.w.Write(line); err != nil {
		return fmt.Errorf("emit metrics: %w", err)
	}
	return nil
}

func (m *Metrics) check(dimensions []Dimension, metrics []Metric) error {
	if !namespacePattern.MatchString(m.namespace) || strings.HasPrefix(m.namespace, "AWS/") {
		return fmt.Errorf("namespace %q is not one that CloudWatch takes", m.namespace)
	}
	if len(dimensions) > maxDimensions {
		return fmt.Errorf("%d dimensions, at most %d fit a line", len(dimensions), maxDimensions)
	}
	if len(metrics) > maxMetrics {
		return fmt.Errorf("%d metrics, at most %d fit a line", len(metrics), maxMetrics)
	}
	taken := map[string]bool{reservedName: true}
	for _, dimension := range dimensions {
		if err := dimension.check(); err != nil {
			return err
		}
		if err := take(taken, dimension.Name); err != nil {
			return err
		}
	}
	for _, metric := range metrics {
		if err := metric.check(); err != nil {
			return err
		}
		if err := take(taken, metric.Name); err != nil {
			return err
		}
	}
	return nil
}

// take refuses a name that the line has already: of two equal keys of a JSON
// object one would be lost.
func take(taken map[string]bool, name string) error {
	if taken[name] {
		return fmt.Errorf("name %q stands twice in a line", name)
	}
	taken[name] = true
	return nil
}

func (d Dimension) check() error {
	if len(d.Name) > maxDimensionName || strings.HasPrefix(d.Name, ":") || !isText(d.Name) {
		return fmt.Errorf("dimension name %q is not one that CloudWatch takes", d.Name)
	}
	if len(d.Value) > maxDimensionValue || !isText(d.Value) {
		return fmt.Errorf("value %q of dimension %s is not one that CloudWatch takes", d.Value, d.Name)
	}
	return nil
}

// isText reports whether the text is printable ASCII and more than blanks.
func isText(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return strings.TrimSpace(text) != ""
}

func (m Metric) check() error {
	if len(m.Name) > maxMetricName || !isText(m.Name) {
		return fmt.Errorf("metric name %q is not one that CloudWatch takes", m.Name)
	}
	switch m.Unit {
	case "", UnitCount, UnitMilliseconds, UnitSeconds, UnitPercent, UnitPerSecond, UnitNone:
	default:
		return fmt.Errorf("unit %q of metric %s is unknown", m.Unit, m.Name)
	}
	if math.IsNaN(m.Value) || math.Abs(m.Value) > maxMagnitude {
		return fmt.Errorf("value of metric %s is not a number that CloudWatch takes", m.Name)
	}
	return nil
}

type envelope struct {
	Timestamp         int64       `json:"Timestamp"`
	CloudWatchMetrics []directive `json:"CloudWatchMetrics"`
}

type directive struct {
	Namespace  string       `json:"Namespace"`
	Dimensions [][]string   `json:"Dimensions"`
	Metrics    []definition `json:"Metrics"`
}

type definition struct {
	Name string `json:"Name"`
	Unit Unit   `json:"Unit"`
}

// line writes the object member by member: a map would lose the order.
func (m *Metrics) line(dimensions []Dimension, metrics []Metric) ([]byte, error) {
	names := make([]string, 0, len(dimensions))
	for _, dimension := range dimensions {
		names = append(names, dimension.Name)
	}
	definitions := make([]definition, 0, len(metrics))
	for _, metric := range metrics {
		unit := metric.Unit
		if unit == "" {
			unit = UnitNone
		}
		definitions = append(definitions, definition{Name: metric.Name, Unit: unit})
	}
	var object objectWriter
	object.member(reservedName, envelope{
		Timestamp: m.now().UnixMilli(),
		CloudWatchMetrics: []directive{{
			Namespace:  m.namespace,
			Dimensions: [][]string{names},
			Metrics:    definitions,
		}},
	})
	for _, dimension := range dimensions {
		object.member(dimension.Name, dimension.Value)
	}
	for _, metric := range metrics {
		object.member(metric.Name, metric.Value)
	}
	return object.line()
}

// objectWriter writes a JSON object whose members keep their order.
type objectWriter struct {
	buffer bytes.Buffer
	err    error
}

func (o *objectWriter) member(name string, value any) {
	key, keyErr := json.Marshal(name)
	text, valueErr := json.Marshal(value)
	if err := errors.Join(keyErr, valueErr); err != nil {
		o.err = errors.Join(o.err, err)
		return
	}
	separator := byte(',')
	if o.buffer.Len() == 0 {
		separator = '{'
	}
	o.buffer.WriteByte(separator)
	o.buffer.Write(key)
	o.buffer.WriteByte(':')
	o.buffer.Write(text)
}

func (o *objectWriter) line() ([]byte, error) {
	if o.err != nil {
		return nil, o.err
	}
	o.buffer.WriteString("}\n")
	return o.buffer.Bytes(), nil
}
