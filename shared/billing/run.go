package billing

import (
	"slices"
	"time"
)

// Strategy is how a run reads Stripe.
type Strategy string

const (
	// StrategySweep lists every subscription into a snapshot first, and reads singly only what
	// the snapshot cannot settle. It is the default.
	StrategySweep Strategy = "sweep"
	// StrategyRetrieve reads every organization's subscription singly.
	StrategyRetrieve Strategy = "retrieve"
	// StrategyEvents reads only the organizations that Stripe's recent events name, singly.
	StrategyEvents Strategy = "events"
)

// Strategies are all there are.
func Strategies() []Strategy { return []Strategy{StrategySweep, StrategyRetrieve, StrategyEvents} }

// RunStatus is where a run stands.
type RunStatus string

const (
	// RunEnumerating: organizations are being listed and sent to the queue.
	RunEnumerating RunStatus = "enumerating"
	// RunRunning: every message was sent; the workers are at it.
	RunRunning RunStatus = "running"
	// RunCompleted: every organization has an outcome, none an error.
	RunCompleted RunStatus = "completed"
	// RunCompletedWithErrors: every organization has an outcome, some an error.
	RunCompletedWithErrors RunStatus = "completed_with_errors"
	// RunIncomplete: the deadline passed with organizations pending.
	RunIncomplete RunStatus = "incomplete"
	// RunSuspect: the run saw nothing where the last one saw something; do not trust it.
	RunSuspect RunStatus = "suspect"
	// RunStopped: something about the whole run is wrong (key, account, mode).
	RunStopped RunStatus = "stopped"
)

// RunStatuses are all there are.
func RunStatuses() []RunStatus {
	return []RunStatus{RunEnumerating, RunRunning, RunCompleted, RunCompletedWithErrors, RunIncomplete, RunSuspect, RunStopped}
}

// Open reports whether the run is still going.
func (s RunStatus) Open() bool { return s == RunEnumerating || s == RunRunning }

// LeaseTTL is how long an enumerator has a run for itself after each write: many times what a page
// takes, and short enough to go on soon after a crash.
const LeaseTTL = time.Minute

// Lease is an enumerator's claim to be the only one that lists and sends a run.
type Lease struct {
	RunID string
	Owner string    // of one enumerator, once
	End   time.Time // unless a write under the lease moves it
}

// ArchiveLeaseTTL is how long whoever archives the reports of a run has it for itself: far more than it takes, and
// short enough for the next tick but one after a crash.
const ArchiveLeaseTTL = 10 * time.Minute

// Run is one pass over all organizations, or over one.
type Run struct {
	ID              string
	RequestID       string // of the manual invocation that opened it; "" for a scheduled run
	Status          RunStatus
	DryRun          bool
	Strategy        Strategy
	AccountID       string // the Stripe account that it reads; "" where that is not known
	OrgID           string // the only organization of a run over one, else ""
	Total           int    // organizations listed
	Listed          bool   // the listing reached its end
	Sweep           SweepState
	SweptFrom       *time.Time // when the sweep began
	OrphansRecorded bool       // in the snapshot, and what was found is recorded
	Window          *Window    // of a catch-up; nil of other runs
	ListedThrough   string     // last organization listed, "" before the first
	SentThrough     string     // last organization sent to the queue
	// By is who asked for it; "" for the schedule.
	By string
	// AllowDowngrade: of a run over one organization, which may lower what a guard holds back elsewhere.
	AllowDowngrade bool
	// Approval is what was approved for it; nil where nothing was.
	Approval   *Approval
	Downgrades int
	// DowngradeLimit is how many organizations it may lower; of a catch-up, how many all catch-ups together may
	// within 24 hours.
	DowngradeLimit int
	StatusReason   Reason // why it was stopped or is suspect
	StatusMessage  string
	Usage          Usage
	StartedAt      time.Time
	DeadlineAt     time.Time
	FinishedAt     *time.Time
	Trimmed        bool // plainly skipped items were deleted, and are counted only
	Summarized     bool // its summary was written
	// SummaryRevision counts how often; a later write names the one it builds on.
	SummaryRevision int
}

// RunKind tells apart which organizations a run is over.
type RunKind string

const (
	KindFull    RunKind = "full" // all
	KindCatchUp RunKind = "catch-up"
	KindOne     RunKind = "one"
)

// RunKinds are all there are.
func RunKinds() []RunKind { return []RunKind{KindFull, KindCatchUp, KindOne} }

// Kind returns which organizations the run is over.
func (r Run) Kind() RunKind {
	switch {
	case r.OrgID != "":
		return KindOne
	case r.Strategy == StrategyEvents:
		return KindCatchUp
	default:
		return KindFull
	}
}

// Allowed is how many organizations the run may lower by itself: of a catch-up what was approved for it, for
// the limit is of all of them together.
func (r Run) Allowed() int {
	switch {
	case r.Strategy != StrategyEvents:
		return r.DowngradeLimit
	case r.Approval != nil:
		return r.Approval.Limit
	default:
		return 0
	}
}

// OverridesGuard reports whether a person lets the only organization of the run be lowered, whatever another run
// holds back. An approval does not: it sets how many the run may lower, and is no look at what another one holds.
func (r Run) OverridesGuard() bool { return r.OrgID != "" && r.AllowDowngrade }

// MaxWhoLength is the most characters that are kept of who asked for something.
const MaxWhoLength = 255

// Approval is how many organizations a person lets a run lower in all.
type Approval struct {
	Limit int       `json:"limit"`
	By    string    `json:"by"`
	At    time.Time `json:"at"`
}

// Usage counts requests to Stripe: answers of any kind, by what was asked, and how many of
// them were 429.
type Usage struct {
	List      int64 `json:"list"`
	Retrieve  int64 `json:"retrieve"`
	Other     int64 `json:"other"`
	Throttled int64 `json:"throttled"`
}

// Item is one organization in one run.
type Item struct {
	RunID   string
	OrgID   string
	Outcome Outcome
	Reason  Reason
	// SubscriptionID is the Stripe subscription that governs; "" if none does, and not kept of an
	// item that is plainly skipped. Of a pending one it is a subscription that names the organization
	// and that no row of it records.
	SubscriptionID string
	Changes        []Change
	Warnings       []Warning
	Error          string
	Cause          *Cause       // in a catch-up; nil in other runs
	Accepted       []Acceptance // of what it says; only of an item that was read for people
	// Revision counts the writes of the item; a later write names the one it builds on.
	Revision int
}

// Final reports whether the outcome can no longer change. An error may still be repaired.
func (i Item) Final() bool { return i.Outcome != OutcomePending && i.Outcome != OutcomeError }

// Differed reports whether the organization's record differed from what Stripe said: it was repaired,
// withheld, or found by a dry run.
func (i Item) Differed() bool {
	return i.Outcome == OutcomeSynced || i.Outcome == OutcomeDrifted || (i.Outcome == OutcomeError && i.Reason.Withholds())
}

// Warns reports whether the item carries the warning.
func (i Item) Warns(code WarningCode) bool {
	return slices.ContainsFunc(i.Warnings, func(w Warning) bool { return w.Code == code })
}

// PlainlySkipped reports whether there is nothing to tell of the organization: nearly all are such.
func (i Item) PlainlySkipped() bool { return i.Outcome == OutcomeSkipped && len(i.Warnings) == 0 }

// Work names one organization to reconcile in a run.
type Work struct {
	RunID string
	OrgID string
}
