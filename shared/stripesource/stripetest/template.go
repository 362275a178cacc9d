package stripetest

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
)

//go:embed objects/*.json
var objects embed.FS

var (
	subscriptionTemplate    = mustTemplate("subscription")
	itemTemplate            = mustTemplate("item")
	priceTemplate           = mustTemplate("price")
	planTemplate            = mustTemplate("plan")
	pauseTemplate           = mustTemplate("pause_collection")
	customerTemplate        = mustTemplate("customer")
	deletedCustomerTemplate = mustTemplate("deleted_customer")
	accountTemplate         = mustTemplate("account")
	eventTemplate           = mustTemplate("event")
)

// A template is a JSON object with "$name" strings for values. Nearly all of a Stripe object is constant, so that a
// template is much faster than encoding a struct of a hundred fields.
type template struct {
	literals []string // one more than there are names
	names    []string
}

// fields are the values for a template, which need not use all of them.
type fields []struct {
	name  string
	value any
}

// An object is a template and its fields.
type object struct {
	template template
	fields   fields
}

type (
	unix     int64  // a time; 0 is null
	nullable string // "" is null
)

var placeholder = regexp.MustCompile(`"\$(\w+)"`)

func mustTemplate(name string) template {
	text, err := objects.ReadFile("objects/" + name + ".json")
	if err != nil {
		panic(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		panic(name + ".json: " + err.Error())
	}
	t := template{literals: placeholder.Split(compact.String(), -1)}
	for _, match := range placeholder.FindAllStringSubmatch(compact.String(), -1) {
		t.names = append(t.names, match[1])
	}
	return t
}

func (t template) append(b []byte, f fields) []byte {
	b = append(b, t.literals[0]...)
	for i, name := range t.names {
		b = appendValue(b, f.get(name))
		b = append(b, t.literals[i+1]...)
	}
	return b
}

func (f fields) get(name string) any {
	for i := range f {
		if f[i].name == name {
			return f[i].value
		}
	}
	panic("stripetest: a template names the unknown field " + name)
}

func objectOrNull(ok bool, t template, f fields) any {
	if !ok {
		return nullable("")
	}
	return object{t, f}
}

func appendValue(b []byte, value any) []byte {
	switch v := value.(type) {
	case string:
		return appendString(b, v)
	case nullable:
		if v == "" {
			return append(b, "null"...)
		}
		return appendString(b, string(v))
	case unix:
		if v == 0 {
			return append(b, "null"...)
		}
		return strconv.AppendInt(b, int64(v), 10)
	case int:
		return strconv.AppendInt(b, int64(v), 10)
	case bool:
		return strconv.AppendBool(b, v)
	case json.RawMessage:
		return append(b, v...)
	case map[string]string:
		return appendMap(b, v)
	case object:
		return v.template.append(b, v.fields)
	case []object:
		b = append(b, '[')
		for i, o := range v {
			b = appendComma(b, i)
			b = o.template.append(b, o.fields)
		}
		return append(b, ']')
	default:
		panic(fmt.Sprintf("stripetest: no way to encode a %T", v))
	}
}

func appendComma(b []byte, i int) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	return b
}

func appendMap(b []byte, m map[string]string) []byte {
	b = append(b, '{')
	for i, key := range slices.Sorted(maps.Keys(m)) {
		b = appendComma(b, i)
		b = appendString(b, key)
		b = append(b, ':')
		b = appendString(b, m[key])
	}
	return append(b, '}')
}

func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return appendAny(b, s)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// appendOverridden appends an object with some of its top-level fields replaced.
func appendOverridden(b []byte, override map[string]any, appendObject func([]byte) []byte) []byte {
	if len(override) == 0 {
		return appendObject(b)
	}
	merged := map[string]any{}
	if err := json.Unmarshal(appendObject(nil), &merged); err != nil {
		panic("stripetest: a served object is not JSON: " + err.Error())
	}
	maps.Copy(merged, override)
	return appendAny(b, merged)
}

func appendAny(b []byte, v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic("stripetest: " + err.Error())
	}
	return append(b, text...)
}
