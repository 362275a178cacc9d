package telemetry

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strings"
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

// Emit writes the metrics as one line, under one set of dimensions, both in the
// given order. No metrics: no line. What CloudWatch would not take is an error,
// and nothing is written.
func (m *Metrics) Emit(dimensions []Dimension, metrics ...Metric) error {
	if len(metrics) == 0 {
		return nil
	}
	err := m.check(dimensions, metrics)
	if err == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		_, err = m.w.Write(m.line(dimensions, metrics))
	}
	if err != nil {
		return fmt.Errorf("emit metrics: %w", err)
	}
	return nil
}

// reservedName is the key under which a line describes itself.
const reservedName = "_aws"

var (
	namespacePattern = regexp.MustCompile(`^[A-Za-z0-9._/#:-]{1,255}$`) // AWS/ is CloudWatch's own
	units            = []Unit{"", UnitCount, UnitMilliseconds, UnitSeconds, UnitPercent, UnitPerSecond, UnitNone}
	maxMagnitude     = math.Ldexp(1, 360)
)

// check refuses what CloudWatch drops in silence, and a name that stands twice: of two equal keys of
// a JSON object one would be lost.
func (m *Metrics) check(dimensions []Dimension, metrics []Metric) error {
	if !namespacePattern.MatchString(m.namespace) || strings.HasPrefix(m.namespace, "AWS/") {
		return fmt.Errorf("namespace %q is not one that CloudWatch takes", m.namespace)
	}
	if len(dimensions) > 30 || len(metrics) > 100 {
		return fmt.Errorf("%d dimensions and %d metrics, at most 30 and 100 fit a line", len(dimensions), len(metrics))
	}
	taken := map[string]bool{reservedName: true}
	for _, d := range dimensions {
		if taken[d.Name] || !isText(d.Name, 250) || d.Name[0] == ':' || !isText(d.Value, 1024) {
			return fmt.Errorf("dimension %q with value %q is not one that CloudWatch takes, or its name stands twice", d.Name, d.Value)
		}
		taken[d.Name] = true
	}
	for _, v := range metrics {
		if taken[v.Name] || !isText(v.Name, 255) || !slices.Contains(units, v.Unit) || math.IsNaN(v.Value) || math.Abs(v.Value) > maxMagnitude {
			return fmt.Errorf("metric %q with value %v and unit %q is not one that CloudWatch takes, or its name stands twice", v.Name, v.Value, v.Unit)
		}
		taken[v.Name] = true
	}
	return nil
}

// isText reports whether the text is printable ASCII, more than blanks, and not too long.
func isText(text string, most int) bool {
	odd := strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
	return !odd && len(text) <= most && strings.TrimSpace(text) != ""
}

type envelope struct {
	Timestamp         int64
	CloudWatchMetrics []directive
}

type directive struct {
	Namespace  string
	Dimensions [][]string
	Metrics    []definition
}

type definition struct {
	Name string
	Unit Unit
}

// line is a JSON object and a newline.
func (m *Metrics) line(dimensions []Dimension, metrics []Metric) []byte {
	names, definitions, members := []string{}, []definition{}, [][]byte{nil}
	for _, d := range dimensions {
		names = append(names, d.Name)
		members = append(members, member(d.Name, d.Value))
	}
	for _, v := range metrics {
		definitions = append(definitions, definition{v.Name, cmp.Or(v.Unit, UnitNone)})
		members = append(members, member(v.Name, v.Value))
	}
	members[0] = member(reservedName, envelope{m.now().UnixMilli(), []directive{{m.namespace, [][]string{names}, definitions}}})
	return slices.Concat([]byte("{"), bytes.Join(members, []byte(",")), []byte("}\n"))
}

// member is one name and value of an object: a map would put them all in another order.
func member(name string, value any) []byte {
	object, _ := json.Marshal(map[string]any{name: value}) // what was checked cannot fail to marshal
	return object[1 : len(object)-1]
}
