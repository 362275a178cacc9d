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

// value is what stands in a column, or is to; the zero value is NULL. Equal ones are the same, times
// of whatever zone.
type value struct {
	kind   Kind
	text   string
	number int64 // a time's seconds since 1970; of a flag 1 or 0
	nanos  int
}

func textValue(s string) value  { return value{kind: KindText, text: s} }
func numberValue(n int64) value { return value{kind: KindNumber, number: n} }
func timeValue(t time.Time) value {
	return value{kind: KindTime, number: t.Unix(), nanos: t.Nanosecond()}
}

func flagValue(b bool) value {
	v := value{kind: KindFlag}
	if b {
		v.number = 1
	}
	return v
}

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
		if *p != nil {
			return textValue(**p)
		}
	case **time.Time:
		if *p != nil {
			return timeValue(**p)
		}
	case **bool:
		if *p != nil {
			return flagValue(**p)
		}
	case **int64:
		if *p != nil {
			return numberValue(**p)
		}
	}
	return value{}
}

// wholeSecond: the tables' times have no more, and Stripe's neither.
func (v value) wholeSecond() value {
	v.nanos = 0
	return v
}

func (v value) any() any {
	switch v.kind {
	case KindText:
		return v.text
	case KindTime:
		return time.Unix(v.number, int64(v.nanos)).UTC()
	case KindFlag:
		return v.number == 1
	case KindNumber:
		return v.number
	default:
		return nil
	}
}

// diff lists the columns in which row and organization are not as the subscription and its tier want
// them; nil is a row that there is not.
func diff(row *Row, org *Organization, s *Subscription, tier Tier) []Change {
	var changes []Change
	for i := range columns {
		c := &columns[i]
		var from value
		if row != nil || c.Table() != TableSubscriptions {
			from = c.read(row, org).wholeSecond()
		}
		if to := c.want(s, tier).wholeSecond(); from != to {
			changes = append(changes, Change{Field: c.Field, From: from.any(), To: to.any()})
		}
	}
	return changes
}
