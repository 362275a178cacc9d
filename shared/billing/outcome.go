package billing

// Outcome is the result of one organization in one run.
type Outcome string

const (
	// OutcomePending: not decided yet.
	OutcomePending Outcome = "pending"
	// OutcomeSynced: the record differed and was repaired.
	OutcomeSynced Outcome = "synced"
	// OutcomeDrifted: the record differs; a dry run, so nothing was written.
	OutcomeDrifted Outcome = "drifted"
	// OutcomeSkipped: nothing to do.
	OutcomeSkipped Outcome = "skipped"
	// OutcomeError: not decided or not written, for the item's reason.
	OutcomeError Outcome = "error"
)

// Warning is a WarningCode with a sentence that says what was found and what to do.
type Warning struct {
	Code    WarningCode `json:"code"`
	Message string      `json:"message"`
}
