package billing

import (
	"slices"
	"time"
)

// MaxWhyLength is the most characters that are kept of why something is accepted.
const MaxWhyLength = 1000

// Acceptance says that an error or a warning about an organization is known: a complimentary account, say. It is
// counted apart, raises no alarm and makes no run end with errors. What is written does not depend on it.
type Acceptance struct {
	OrgID string     `json:"orgId"`
	Code  string     `json:"code"` // a Reason or a WarningCode
	Why   string     `json:"why"`
	By    string     `json:"by"`
	At    time.Time  `json:"at"`
	Until *time.Time `json:"until"` // from then on it counts as before; nil: until it is removed
}

// InForce reports whether it is in force for a run that started at the given time. When it was accepted does not
// matter: an earlier run that is summed up again, after a redrive for example, heeds it too.
func (a Acceptance) InForce(started time.Time) bool { return a.Until == nil || a.Until.After(started) }

// Acceptable reports whether people can accept what the code stands for: a warning, or an error that only a person
// can mend. What passes by itself they cannot, nor what a guard holds back: that is approved, or it is wrong.
func Acceptable(code string) bool {
	concern := adviceOn(code).Concern
	return concern == ConcernWarning || concern == ConcernPerson && !Reason(code).Withholds()
}

// AcceptableCodes are those codes, in the order in which people are shown them.
func AcceptableCodes() []string {
	var codes []string
	for _, a := range allAdvice {
		if Acceptable(a.Code) {
			codes = append(codes, a.Code)
		}
	}
	return codes
}

// Codes are what the item says that people can accept: its error's reason, and its warnings' codes, each once.
func (i Item) Codes() []string {
	var codes []string
	if i.Outcome == OutcomeError && Acceptable(string(i.Reason)) {
		codes = append(codes, string(i.Reason))
	}
	for _, w := range i.Warnings {
		if code := string(w.Code); Acceptable(code) && !slices.Contains(codes, code) {
			codes = append(codes, code)
		}
	}
	return codes
}

// Accepts reports whether the code is accepted for the item's organization.
func (i Item) Accepts(code string) bool {
	return slices.ContainsFunc(i.Accepted, func(a Acceptance) bool { return a.Code == code })
}

// AcceptedError reports whether the item is in error, and that is accepted.
func (i Item) AcceptedError() bool { return i.Outcome == OutcomeError && i.Accepts(string(i.Reason)) }
