package billing

import (
	"slices"
	"time"
)

// Strategy is how a run reads Stripe.
type Strategy string

const (
	// StrategySweep lists all subscriptions into a snapshot, and then reads only what the snapshot does not decide. It
	// is the default.
	StrategySweep Strategy = "sweep"
	// StrategyRetrieve reads the subscriptions of each organization.
	StrategyRetrieve Strategy = "retrieve"
	// StrategyEvents does so for the organizations that Stripe's recent events name.
	StrategyEvents Strategy = "events"
)

// Strategies returns all strategies.
func Strategies() []Strategy { return []Strategy{StrategySweep, StrategyRetrieve, StrategyEvents} }

// RunStatus is the state of a run.
type RunStatus string

const (
	// RunEnumerating: organizations are being listed and sent to the queue.
	RunEnumerating RunStatus = "enumerating"
	// RunRunning: all messages were sent; the workers are processing them.
	RunRunning RunStatus = "running"
	// RunCompleted: every organization has an outcome, none an error.
	RunCompleted RunStatus = "completed"
	// RunCompletedWithErrors: every organization has an outcome, some an error.
	RunCompletedWithErrors RunStatus = "completed_with_errors"
	// RunIncomplete: the deadline passed with organizations pending.
	RunIncomplete RunStatus = "incomplete"
	// RunSuspect: the run found nothing although the last one found something.
	RunSuspect RunStatus = "suspect"
	// RunStopped: a failure of the whole run (key, account, mode), or an operator, stopped it.
	RunStopped RunStatus = "stopped"
)

// RunStatuses returns all statuses.
func RunStatuses() []RunStatus {
	return []RunStatus{RunEnumerating, RunRunning, RunCompleted, RunCompletedWithErrors, RunIncomplete, RunSuspect, RunStopped}
}

// Open reports whether the run is still going.
func (s RunStatus) Open() bool { return s == RunEnumerating || s == RunRunning }

// LeaseTTL is the time to live of an enumerator's lease after each write: much longer than a page takes, and short
// enough to resume soon after a crash.
const LeaseTTL = time.Minute

// Lease makes its owner the only one that lists and sends a run, or archives it.
type Lease struct {
	RunID string
	Owner string    // a new one for each lease
	End   time.Time // each write under the lease renews it
}

// ArchiveLeaseTTL is the time to live of the lease for archiving a run's reports: much longer than that takes, and
// shorter than a tick.
const ArchiveLeaseTTL = 10 * time.Minute

// Run is one pass over all organizations, those that events name, or one.
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
	// By is who requested it; "" for the schedule.
	By string
	// AllowDowngrade lets a run over one organization make a repair that another run withholds, or that something undid.
	AllowDowngrade bool
	// Approval is the approved limit, if there is one.
	Approval   *Approval
	Downgrades int
	// DowngradeLimit is how many organizations the run may lower. Catch-ups share their limit for 24 hours.
	DowngradeLimit int
	StatusReason   Reason // why it was stopped or is suspect
	StatusMessage  string
	Usage          Usage
	StartedAt      time.Time
	DeadlineAt     time.Time
	FinishedAt     *time.Time
	Trimmed        bool // plainly skipped items were deleted; their counts remain
	Summarized     bool // its summary was stored
	// SummaryRevision counts the stored summaries, for optimistic locking.
	SummaryRevision int
}

// RunKind is the scope of a run.
type RunKind string

const (
	KindFull    RunKind = "full"     // all organizations
	KindCatchUp RunKind = "catch-up" // those that events name
	KindOne     RunKind = "one"
)

// RunKinds returns all kinds.
func RunKinds() []RunKind { return []RunKind{KindFull, KindCatchUp, KindOne} }

// Kind returns the scope of the run.
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

// Allowed returns how many organizations the run may lower apart from the limit that catch-ups share.
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

// OverridesGuard reports whether a person allowed the run to lower its only organization even if another run withholds
// that. An approval does not: it only sets a limit.
func (r Run) OverridesGuard() bool { return r.OrgID != "" && r.AllowDowngrade }

// MaxWhoLength limits the characters of the name of who requested something.
const MaxWhoLength = 255

// Approval is the total number of organizations that a person allows a run to lower.
type Approval struct {
	Limit int       `json:"limit"`
	By    string    `json:"by"`
	At    time.Time `json:"at"`
}

// Usage counts requests to Stripe by endpoint, and those answered with 429.
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
	// SubscriptionID is the governing Stripe subscription, which plainly skipped items do not keep. A pending item has
	// a subscription that names the organization and that none of its rows records.
	SubscriptionID string
	Changes        []Change
	Warnings       []Warning
	Error          string
	Cause          *Cause       // of a catch-up
	Accepted       []Acceptance // of its error and warnings; read only for reports
	// Revision counts the writes of the item, for optimistic locking.
	Revision int
}

// Final reports whether the outcome can no longer change. A redrive may still change an error.
func (i Item) Final() bool { return i.Outcome != OutcomePending && i.Outcome != OutcomeError }

// Differed reports whether the record differed from Stripe: repaired, withheld, or found by a dry run.
func (i Item) Differed() bool {
	return i.Outcome == OutcomeSynced || i.Outcome == OutcomeDrifted || (i.Outcome == OutcomeError && i.Reason.Withholds())
}

// Warns reports whether the item has the warning.
func (i Item) Warns(code WarningCode) bool {
	return slices.ContainsFunc(i.Warnings, func(w Warning) bool { return w.Code == code })
}

// PlainlySkipped reports whether the item was skipped without warnings, as nearly all are.
func (i Item) PlainlySkipped() bool { return i.Outcome == OutcomeSkipped && len(i.Warnings) == 0 }

// Work names one organization to reconcile in a run.
type Work struct {
	RunID string
	OrgID string
}
