package report

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
)

// spool keeps the entries of a page as the JSON that the page has, compressed: tens of thousands of them
// would not fit into a function's memory.
type spool struct {
	text  bytes.Buffer
	gzip  *gzip.Writer
	found int
}

func newSpool() *spool {
	s := &spool{}
	s.gzip = gzip.NewWriter(&s.text)
	return s
}

func (s *spool) add(e entry) error {
	text, err := json.Marshal(e) // which escapes what could end a script
	if err != nil {
		return err
	}
	comma := ","
	if s.found == 0 {
		comma = ""
	}
	s.found++
	if _, err := io.WriteString(s.gzip, comma); err != nil {
		return err
	}
	_, err = s.gzip.Write(text)
	return err
}

// writeTo writes the list; nothing can be added any more.
func (s *spool) writeTo(w io.Writer) error {
	if err := s.gzip.Close(); err != nil {
		return err
	}
	list, err := gzip.NewReader(&s.text)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, "["); err != nil {
		return err
	}
	if _, err := io.Copy(w, list); err != nil { //nolint:gosec // G110: it is what this process compressed
		return err
	}
	_, err = io.WriteString(w, "]")
	return err
}
