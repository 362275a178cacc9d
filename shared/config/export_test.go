package config

import (
	"iter"
	"reflect"
)

// VariableFields gives the tests the documented variables.
func VariableFields() iter.Seq[reflect.StructField] {
	return func(yield func(reflect.StructField) bool) {
		for _, field := range reflect.VisibleFields(reflect.TypeFor[variables]()) {
			if !yield(field) {
				return
			}
		}
	}
}
