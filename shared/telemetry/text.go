package telemetry

import (
	"strings"
	"unicode"
)

// OneLine makes a log line, or a sentence of a message, of any text: white space and control
// characters become single blanks, and broken encodings go.
func OneLine(text string) string {
	words := strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) })
	return strings.ToValidUTF8(strings.Join(words, " "), "")
}

// Clean replaces what a reader would not see as it is, or a terminal would take as a command: broken
// encodings, control characters but for line ends, and those that turn the direction of text. Data may
// hold anything.
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
