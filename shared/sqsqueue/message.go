package sqsqueue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// version of the message format. A worker refuses another: a newer one may mean something that
// it would not do.
const version = 1

// The widths, in characters, of the columns that hold the ids.
const (
	maxRunID = 64
	maxOrgID = 36
)

type message struct {
	Version int    `json:"version"`
	RunID   string `json:"runId"`
	OrgID   string `json:"orgId,omitempty"`
}

// EncodeWork returns the body of the message for one organization.
func EncodeWork(w billing.Work) (string, error) {
	return encode(message{Version: version, RunID: w.RunID, OrgID: w.OrgID})
}

// EncodeProgress returns the body of the message that says: look at this run.
func EncodeProgress(runID string) (string, error) {
	return encode(message{Version: version, RunID: runID})
}

func encode(m message) (string, error) {
	b, err := json.Marshal(m)
	return string(b), err
}

// DecodeWork reads a work message. Its error says in one line what is wrong with the body,
// without repeating it.
func DecodeWork(body string) (billing.Work, error) {
	m, err := decode(body)
	if err != nil {
		return billing.Work{}, err
	}
	if !fits(m.OrgID, maxOrgID) {
		return billing.Work{}, fmt.Errorf("orgId must have 1 to %d characters", maxOrgID)
	}
	return billing.Work{RunID: m.RunID, OrgID: m.OrgID}, nil
}

// DecodeProgress reads a progress message and returns the run's id.
func DecodeProgress(body string) (string, error) {
	m, err := decode(body)
	if err == nil && m.OrgID != "" {
		err = errors.New("a progress message has no orgId")
	}
	return m.RunID, err
}

func decode(body string) (message, error) {
	var m message
	d := json.NewDecoder(bytes.NewBufferString(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil { // it may quote the body, which may be anybody's and of any length
		return message{}, errors.New(`body is not a message of this system: it wants {"version":1,"runId":"...","orgId":"..."} and nothing more`)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return message{}, errors.New("body has something behind the message")
	}
	if m.Version != version {
		return message{}, fmt.Errorf("message version %d is unknown, this program knows %d", m.Version, version)
	}
	if !fits(m.RunID, maxRunID) {
		return message{}, fmt.Errorf("runId must have 1 to %d characters", maxRunID)
	}
	return m, nil
}

func fits(id string, width int) bool { return id != "" && utf8.RuneCountInString(id) <= width }
