package billing

import (
	"slices"
	"time"
)

// MaxWhyLength limits the characters of an acceptance's reason.
const MaxWhyLength = 1000

// Acceptance marks an error or a warning about an organization as known, a complimentary account for example. An
// accepted one is counted separately, raises no alarm and does not make a run end with errors. It changes no write.
type Acceptance struct {
	OrgID string     `json:"orgId"`
	Code  string     `json:"code"` // a Reason or a WarningCode
	Why   string     `json:"why"`
	By    string     `json:"by"`
	At    time.Time  `json:"at"`
	Until *time.Time `json:"until"` // its expiry; nil: never
}

// InForce reports whether it counts for a run that started at the given time. It also counts for runs that started
// before it was accepted: a redrive recomputes their summaries.
func (a Acceptance) InForce(started time.Time) bool { return a.Until == nil || a.Until.After(started) }

// Acceptable reports whether the code can be accepted: a warning, or an error that only a person can resolve. A
// withheld repair cannot: it is approved or wrong.
func Acceptable(code string) bool {
	concern := adviceOn(code).Concern
	return concern == ConcernWarning || concern == ConcernPerson && !Reason(code).Withholds()
}

// AcceptableCodes returns the codes that can be accepted, in display order.
func AcceptableCodes() []string {
	var codes []string
	for _, a := range allAdvice {
		if Acceptable(a.Code) {
			codes = append(codes, a.Code)
		}
	}
	return codes
}

// AcceptableCodes returns the item's acceptable codes, each once: its error's reason and its warnings.
func (i Item) AcceptableCodes() []string {
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

// AcceptedError reports whether the item has an error that is accepted.
func (i Item) AcceptedError() bool { return i.Outcome == OutcomeError && i.Accepts(string(i.Reason)) }
