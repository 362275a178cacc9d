package sqsserver

import (
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	maxMessageAttributes = 10
	maxAttributeName     = 256
)

// messageAttributes are the attributes that a sender gives a message.
type messageAttributes map[string]messageAttribute

// messageAttribute is one of them, as in requests and responses.
type messageAttribute struct {
	DataType    string  `json:"DataType"`
	StringValue *string `json:"StringValue,omitempty"`
	BinaryValue []byte  `json:"BinaryValue,omitempty"`
}

var (
	attributeName = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)
	number        = regexp.MustCompile(`^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$`)
)

// check applies the rules of "Amazon SQS message metadata" in the developer
// guide.
func (a messageAttributes) check() error {
	if len(a) > maxMessageAttributes {
		return invalidParameter("Number of message attributes [%d] exceeds the allowed maximum [%d].", len(a), maxMessageAttributes)
	}
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if err := a[name].check(name); err != nil {
			return err
		}
	}
	return nil
}

func (a messageAttribute) check(name string) error {
	lower := strings.ToLower(name)
	if len(name) > maxAttributeName || !attributeName.MatchString(name) {
		return invalidParameter("Can only include alphanumeric characters, hyphens, underscores, or dots. 1 to 256 in length: %q", name)
	}
	if strings.HasPrefix(lower, "aws.") || strings.HasPrefix(lower, "amazon.") {
		return invalidParameter("You can't use message attribute names beginning with 'AWS.' or 'Amazon.'. These strings are reserved for internal use.")
	}
	kind, _, _ := strings.Cut(a.DataType, ".")
	switch kind {
	case "String", "Number":
		if a.StringValue == nil || *a.StringValue == "" {
			return invalidParameter("The message attribute '%s' with type '%s' must use field 'String'.", name, kind)
		}
		if !validText(*a.StringValue) {
			return errInvalidContents()
		}
		if kind == "Number" && !number.MatchString(*a.StringValue) {
			return invalidParameter("Can't cast the value of message (user) attribute '%s' to a number.", name)
		}
	case "Binary":
		if len(a.BinaryValue) == 0 {
			return invalidParameter("The message attribute '%s' with type 'Binary' must use field 'Binary'.", name)
		}
	default:
		return invalidParameter("The type of message (user) attribute '%s' is invalid. You must use only the following supported type prefixes: Binary, Number, String.", name)
	}
	return nil
}

func (a messageAttribute) value() []byte {
	if a.StringValue != nil {
		return []byte(*a.StringValue)
	}
	return a.BinaryValue
}

// size is the part of the message's size for attributes: names, types
// and values.
func (a messageAttributes) size() int {
	n := 0
	for name, attribute := range a {
		n += len(name) + len(attribute.DataType) + len(attribute.value())
	}
	return n
}

// md5 is the digest that SDKs compare, as the developer guide defines it
// ("Calculating the MD5 message digest for message attributes"); empty for no
// attributes.
func (a messageAttributes) md5() string {
	if len(a) == 0 {
		return ""
	}
	var text []byte
	field := func(b []byte) {
		text = binary.BigEndian.AppendUint32(text, uint32(len(b)))
		text = append(text, b...)
	}
	for _, name := range slices.Sorted(maps.Keys(a)) {
		attribute := a[name]
		field([]byte(name))
		field([]byte(attribute.DataType))
		transport := byte(1)
		if strings.HasPrefix(attribute.DataType, "Binary") {
			transport = 2
		}
		text = append(text, transport)
		field(attribute.value())
	}
	return hexMD5(text)
}

// selected returns the attributes that a receive requests: by name,
// "All", ".*", or a prefix such as "trace.*".
func (a messageAttributes) selected(patterns []string) messageAttributes {
	if len(a) == 0 || len(patterns) == 0 {
		return nil
	}
	var out messageAttributes
	for name, attribute := range a {
		if !slices.ContainsFunc(patterns, func(p string) bool { return nameMatches(p, name) }) {
			continue
		}
		if out == nil {
			out = messageAttributes{}
		}
		out[name] = attribute
	}
	return out
}

func nameMatches(pattern, name string) bool {
	if pattern == "All" || pattern == name {
		return true
	}
	prefix, ok := strings.CutSuffix(pattern, ".*")
	return ok && strings.HasPrefix(name, prefix)
}

func hexMD5(b []byte) string {
	sum := md5.Sum(b)
	return hex.EncodeToString(sum[:])
}

// validText reports whether s has only the characters that XML 1.0 allows, as
// SQS requires in bodies.
func validText(s string) bool {
	for i, r := range s {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
		case r < 0x20 || r == 0xFFFE || r == 0xFFFF:
			return false
		case r == utf8.RuneError:
			if _, width := utf8.DecodeRuneInString(s[i:]); width == 1 {
				return false
			}
		}
	}
	return true
}
