package billing

import (
	"encoding/json"
	"time"
)

// Change is one column that differs. From and To are string, bool, int64, time.Time (UTC, whole seconds) or nil for
// NULL, also after decoding; in JSON times are RFC 3339.
type Change struct {
	Field string `json:"field"`
	From  any    `json:"from"`
	To    any    `json:"to"`
}

// UnmarshalJSON restores the values' types in a plan.
func (c *Change) UnmarshalJSON(text []byte) error {
	type plain Change
	if err := json.Unmarshal(text, (*plain)(c)); err != nil {
		return err
	}
	kind := columnNamed(c.Field).Kind
	c.From, c.To = fromJSON(kind, c.From), fromJSON(kind, c.To)
	return nil
}

// fromJSON returns a value that does not fit the kind unchanged: the column may have been another when it was stored.
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

// value is a column's value; the zero value is NULL. Values can be compared with ==, also times of different zones.
type value struct {
	kind   Kind
	text   string
	number int64 // a time's Unix seconds; a flag's 1 or 0
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

// textOrNull returns NULL for "", which means null in a [Subscription].
func textOrNull(s string) value {
	if s == "" {
		return value{}
	}
	return textValue(s)
}

// timeOrNull returns NULL for the zero time, which means null in a [Subscription].
func timeOrNull(t time.Time) value {
	if t.IsZero() {
		return value{}
	}
	return timeValue(t)
}

// valueIn returns the value that a column's cell points at.
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

// wholeSecond drops fractions of a second, which neither the tables' nor Stripe's times have.
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

// diff returns the changes that row and organization need to match the subscription and its tier. A nil row does not
// exist yet.
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
