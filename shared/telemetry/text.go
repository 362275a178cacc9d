package telemetry

import (
	"strings"
	"unicode"
)

// OneLine returns the text as one line of a log or message: it replaces white space and control characters by single
// spaces and removes invalid UTF-8.
func OneLine(text string) string {
	words := strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) })
	return strings.ToValidUTF8(strings.Join(words, " "), "")
}

// Clean replaces what a reader would not see or a terminal would execute: invalid UTF-8, control characters except
// line feeds, and characters that change the direction of text.
func Clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r == '\n':
			return r
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029', r == '\uFEFF':
			return unicode.ReplacementChar
		default:
			return r
		}
	}, strings.ToValidUTF8(text, string(unicode.ReplacementChar)))
}
