package billing

import (
	"encoding/json"
	"time"
)

// Change is one column that differs. From and To are string, bool, int64, time.Time (UTC, whole
// seconds) or nil for NULL, in a plan and where one is read back; in JSON times are RFC 3339.
type Change struct {
	Field string `json:"field"`
	From  any    `json:"from"`
	To    any    `json:"to"`
}

// UnmarshalJSON gives the values the types that a plan gives them.
func (c *Change) UnmarshalJSON(text []byte) error {
	type plain Change
	if err := json.Unmarshal(text, (*plain)(c)); err != nil {
		return err
	}
	kind := columnNamed(c.Field).Kind
	c.From, c.To = fromJSON(kind, c.From), fromJSON(kind, c.To)
	return nil
}

// fromJSON leaves alone what no value of the kind is written as: columns come and go.
func fromJSON(kind Kind, v any) any {
	switch v := v.(type) {
	case string:
		if at, err := time.Parse(time.RFC3339, v); err == nil && kind == KindTime {
			return at.UTC()
		}
	case float64:
		return int64(v)
	}
	return v
}

// value is what stands in a column, or is to; the zero value is NULL. Equal ones are the same.
type value struct {
	kind   Kind
	text   string
	time   time.Time // UTC
	flag   bool
	number int64
}

func textValue(s string) value    { return value{kind: KindText, text: s} }
func flagValue(b bool) value      { return value{kind: KindFlag, flag: b} }
func numberValue(n int64) value   { return value{kind: KindNumber, number: n} }
func timeValue(t time.Time) value { return value{kind: KindTime, time: t.UTC()} }

// textOrNull is NULL for "", which stands for null in a [Subscription].
func textOrNull(s string) value {
	if s == "" {
		return value{}
	}
	return textValue(s)
}

// timeOrNull is NULL for the zero time, which stands for null in a [Subscription].
func timeOrNull(t time.Time) value {
	if t.IsZero() {
		return value{}
	}
	return timeValue(t)
}

// valueIn is what stands in a column's cell.
func valueIn(cell any) value {
	switch p := cell.(type) {
	case *string:
		return textValue(*p)
	case **string:
		return orNull(*p, textValue)
	case **bool:
		return orNull(*p, flagValue)
	case **int64:
		return orNull(*p, numberValue)
	case **time.Time:
		return orNull(*p, timeValue)
	default:
		panic("a column's cell has a type that no value has")
	}
}

func orNull[T any](p *T, valueOf func(T) value) value {
	if p == nil {
		return value{}
	}
	return valueOf(*p)
}

// wholeSecond: the tables' times have no more, and Stripe's neither.
func (v value) wholeSecond() value {
	if v.kind == KindTime {
		v.time = v.time.Truncate(time.Second)
	}
	return v
}

func (v value) any() any {
	switch v.kind {
	case KindText:
		return v.text
	case KindTime:
		return v.time
	case KindFlag:
		return v.flag
	case KindNumber:
		return v.number
	default:
		return nil
	}
}

// diff lists the columns in which row and organization are not as wanted; nil is a row that there
// is not. want says false of a column that may stay as it is.
func diff(row *Row, org *Organization, want func(*Column) (value, bool)) []Change {
	var changes []Change
	for i := range columns {
		c := &columns[i]
		to, wanted := want(c)
		if !wanted {
			continue
		}
		var from value
		if row != nil || c.Table() != TableSubscriptions {
			from = c.read(row, org).wholeSecond()
		}
		if to = to.wholeSecond(); from != to {
			changes = append(changes, Change{Field: c.Field, From: from.any(), To: to.any()})
		}
	}
	return changes
}
