package stripetest

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
)

// replacements are values of each JSON type. Null is neither a replacement nor replaced: many of Stripe's values may be
// null, so that a reader could not notice.
var replacements = []any{"odd", json.Number("5"), true, []any{}, []any{"odd"}, map[string]any{}}

// WithWrongType returns the JSON text with one value replaced by one of another type. draw selects both. A text that is
// not JSON, or is null, is returned unchanged.
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
	fitting := slices.DeleteFunc(slices.Clone(replacements), func(v any) bool { return reflect.TypeOf(v) == reflect.TypeOf(at.is) })
	at.put(fitting[draw/uint64(len(places))%uint64(len(fitting))])
	text, err := json.Marshal(root)
	if err != nil {
		panic(err) // impossible: it was decoded from JSON
	}
	return text
}

// place is a value and a function that replaces it.
type place struct {
	is  any
	put func(any)
}

// collect adds the value and its elements, in an order that depends on the value only.
func collect(value any, put func(any), into *[]place) {
	if value == nil {
		return
	}
	*into = append(*into, place{value, put})
	switch v := value.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			collect(v[name], func(other any) { v[name] = other }, into)
		}
	case []any:
		for i := range v {
			collect(v[i], func(other any) { v[i] = other }, into)
		}
	}
}
