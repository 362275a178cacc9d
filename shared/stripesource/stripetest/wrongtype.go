package stripetest

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
)

// oddities stand where a value of another type is expected. Null is none of them, nor is it
// replaced: many of Stripe's values may be null, so that nobody could tell.
var oddities = []any{"odd", json.Number("5"), true, []any{}, []any{"odd"}, map[string]any{}}

// WithWrongType returns a JSON text in which one value is replaced by one of another type. Each draw makes
// one of the choices there are; what is no JSON, or only null, stays as it is.
func WithWrongType(text []byte, draw uint64) []byte {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var root any
	if decoder.Decode(&root) != nil {
		return text
	}
	var places []place
	collect(root, func(v any) { root = v }, &places)
	if len(places) == 0 {
		return text
	}
	at := places[draw%uint64(len(places))]
	fitting := slices.DeleteFunc(slices.Clone(oddities), func(v any) bool { return reflect.TypeOf(v) == reflect.TypeOf(at.is) })
	at.put(fitting[draw/uint64(len(places))%uint64(len(fitting))])
	odd, err := json.Marshal(root)
	if err != nil {
		panic(err) // all of it was read from JSON
	}
	return odd
}

// place is where a value stands.
type place struct {
	is  any
	put func(any)
}

// collect adds the value and what it holds, in an order that depends on the value alone.
func collect(value any, put func(any), into *[]place) {
	if value == nil {
		return
	}
	*into = append(*into, place{value, put})
	switch v := value.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			collect(v[name], func(odd any) { v[name] = odd }, into)
		}
	case []any:
		for i := range v {
			collect(v[i], func(odd any) { v[i] = odd }, into)
		}
	}
}
