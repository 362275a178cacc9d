package billing

import (
	"fmt"
	"maps"
	"time"
)

// MaxDetails bounds the organizations, and the orphans, that a summary lists; the rest stays
// in the items.
const MaxDetails = 100

// keptDetails is how many of them are kept for organizations with warnings, and for those that were
// repaired, where there are as many: a bad day's errors must not hide the rest.
const keptDetails = MaxDetails / 4

// Tally is how many items of a run share an outcome and a reason.
type Tally struct {
	Outcome Outcome
	Reason  Reason
	Items   int
}

// Summary is a run in figures: the log line, the machine-readable answer and the run's row.
// TotalOrganizations = Synchronized + Errors + Skipped + Pending, always; what a dry run found
// drifted counts as synchronized.
type Summary struct {
	RunID              string              `json:"runId"`
	Status             RunStatus           `json:"status"`
	DryRun             bool                `json:"dryRun"`
	TotalOrganizations int                 `json:"totalOrganizations"`
	Synchronized       int                 `json:"synchronized"`
	Errors             int                 `json:"errors"`
	Skipped            int                 `json:"skipped"`
	Pending            int                 `json:"pending"`
	Details            []Detail            `json:"details"`
	Reasons            map[Reason]int      `json:"reasons"`
	Warnings           map[WarningCode]int `json:"warnings"`                 // organizations by warning, those accepted left out
	Accepted           map[string]int      `json:"accepted"`                 // organizations by the code of an error or a warning that somebody accepted
	AcceptedErrors     int                 `json:"acceptedErrors,omitempty"` // of the errors, those that are accepted
	DriftByField       map[string]int      `json:"driftByField"`
	DriftByCause       DriftByCause        `json:"driftByCause"`
	Access             AccessChanges       `json:"access"`
	Orphans            []Orphan            `json:"orphans"`
	OrphansTotal       int                 `json:"orphansTotal"`
	SweepAbandoned     bool                `json:"sweepAbandoned,omitempty"` // so nobody looked for orphans
	StripeRequests     Usage               `json:"stripeRequests"`
	Downgrades         int                 `json:"downgrades"`
	DowngradeLimit     int                 `json:"downgradeLimit"`
	LimitShared        bool                `json:"limitShared,omitempty"`    // by all catch-ups, within 24 hours
	By                 string              `json:"by,omitempty"`             // who asked for it; not of a scheduled run
	AllowDowngrade     bool                `json:"allowDowngrade,omitempty"` // of a run over one organization: they let it be lowered
	Approval           *Approval           `json:"approval,omitempty"`       // of more downgrades, or fewer
	StatusReason       Reason              `json:"statusReason,omitempty"`
	StatusMessage      string              `json:"statusMessage,omitempty"`
	StartedAt          time.Time           `json:"startedAt"`
	FinishedAt         *time.Time          `json:"finishedAt"`
	DurationMs         int64               `json:"durationMs"`
}

// Detail is one organization of a summary.
type Detail struct {
	OrgID    string       `json:"orgId"`
	Action   Outcome      `json:"action"`
	Reason   Reason       `json:"reason"`
	Changes  []Change     `json:"changes"`
	Error    string       `json:"error"`
	Warnings []Warning    `json:"warnings"`
	Event    *Cause       `json:"event,omitempty"`    // in a catch-up
	Accepted []Acceptance `json:"accepted,omitempty"` // of its error and warnings
}

// Orphan is a live Stripe subscription that no organization accounts for.
type Orphan struct {
	SubscriptionID string `json:"subscriptionId"`
	CustomerID     string `json:"customerId"`
	Status         Status `json:"status"`
	OrgID          string `json:"orgId"`
}

// Summarize is a pure function of a run and its items: tallies and drift of all of them, and those worth
// a line, of which it lists some of each kind.
func Summarize(run Run, tallies []Tally, drift Drift, notable []Item) Summary {
	s := Summary{
		RunID: run.ID, Status: run.Status, DryRun: run.DryRun,
		Details: details(notable), Reasons: map[Reason]int{}, Warnings: map[WarningCode]int{}, Accepted: map[string]int{}, DriftByField: map[string]int{}, Orphans: []Orphan{},
		Access:         drift.AccessChanges.listed(),
		StripeRequests: run.Usage, Downgrades: run.Downgrades,
		StatusReason: run.StatusReason, StatusMessage: run.StatusMessage,
		StartedAt: run.StartedAt, FinishedAt: run.FinishedAt, SweepAbandoned: run.Sweep == SweepAbandoned,
	}
	s.SetDecisions(run)
	for _, t := range tallies {
		s.add(t)
	}
	maps.Copy(s.DriftByField, drift.ByField)
	s.DriftByCause = drift.ByCause
	maps.Copy(s.Warnings, drift.Warnings)
	maps.Copy(s.Accepted, drift.Accepted)
	s.AcceptedErrors = drift.AcceptedErrors
	if run.FinishedAt != nil {
		s.DurationMs = max(0, run.FinishedAt.Sub(run.StartedAt).Milliseconds()) // clocks differ
	}
	return s
}

// SetDecisions brings into the summary what people decided about the run, which may be later than the rest of it.
func (s *Summary) SetDecisions(run Run) {
	s.By, s.AllowDowngrade, s.Approval, s.DowngradeLimit = run.By, run.AllowDowngrade, run.Approval, run.DowngradeLimit
	s.LimitShared = run.Kind() == KindCatchUp
}

// Withheld is how many organizations differed and were not written, because a guard held their lowering back.
func (s Summary) Withheld() int {
	n := 0
	for _, reason := range WithheldReasons() {
		n += s.Reasons[reason]
	}
	return n
}

// Drifted is how many organizations differed from Stripe: they were repaired or withheld, or a dry run
// found them.
func (s Summary) Drifted() int { return s.Synchronized + s.Withheld() }

// WouldWithhold is how many organizations of a dry run a run that writes would withhold, by reason. They are among
// Synchronized.
func (s Summary) WouldWithhold() map[Reason]int {
	would := map[Reason]int{}
	if !s.DryRun {
		return would
	}
	if n := s.Downgrades - s.DowngradeLimit; n > 0 {
		would[ReasonWithheld] = n
	}
	if n := s.Access.Lowered.Organizations - s.Downgrades; n > 0 { // only what no guard holds back is counted as a downgrade
		would[s.heldBackBy()] = n
	}
	return would
}

// heldBackBy is the guard, besides the limit of downgrades, that holds back lowerings of a dry run. Only a run over one
// organization heeds what another run withholds.
func (s Summary) heldBackBy() Reason {
	if s.TotalOrganizations == 1 && s.Warnings[WarnRepairUndone]+s.Accepted[string(WarnRepairUndone)] == 0 {
		return ReasonWithheldByRun
	}
	return ReasonNotRepeated
}

// WouldWithholdInAll sums up [Summary.WouldWithhold].
func (s Summary) WouldWithholdInAll() int {
	n := 0
	for _, organizations := range s.WouldWithhold() {
		n += organizations
	}
	return n
}

// Unaccepted is how many organizations have the reason, those left out for whom it is accepted.
func (s Summary) Unaccepted(r Reason) int { return s.Reasons[r] - s.Accepted[string(r)] }

// OtherErrors are the organizations in error that were not withheld: whether they differ is not known.
func (s Summary) OtherErrors() int { return s.Errors - s.Withheld() }

// DriftRate is the part of the run's organizations that differed, from 0 to 1.
func (s Summary) DriftRate() float64 {
	return float64(s.Drifted()) / float64(max(s.TotalOrganizations, 1))
}

func (s *Summary) add(t Tally) {
	s.TotalOrganizations += t.Items
	switch t.Outcome {
	case OutcomeSynced, OutcomeDrifted:
		s.Synchronized += t.Items
	case OutcomeError:
		s.Errors += t.Items
	case OutcomeSkipped:
		s.Skipped += t.Items
	case OutcomePending:
		s.Pending += t.Items
		return // it has no reason yet
	}
	s.Reasons[t.Reason] += t.Items
}

// details keeps the order. Errors come before warnings, and these before repairs, once each has what is
// kept for it.
func details(notable []Item) []Detail {
	found := map[notability]int{}
	for _, i := range notable {
		found[notabilityOf(i)]++
	}
	room := map[notability]int{}
	room[anError] = MaxDetails - min(found[aWarning], keptDetails) - min(found[aRepair], keptDetails)
	room[aWarning] = MaxDetails - min(found[anError], room[anError]) - min(found[aRepair], keptDetails)
	room[aRepair] = MaxDetails - min(found[anError], room[anError]) - min(found[aWarning], room[aWarning])
	all := []Detail{}
	for _, i := range notable {
		if kind := notabilityOf(i); room[kind] > 0 {
			room[kind]--
			all = append(all, detail(i))
		}
	}
	return all
}

// notability is why an item is worth a line.
type notability int

const (
	anError notability = iota
	aWarning
	aRepair
)

func notabilityOf(i Item) notability {
	switch {
	case i.Outcome == OutcomeError:
		return anError
	case len(i.Warnings) > 0:
		return aWarning
	default:
		return aRepair
	}
}

func detail(i Item) Detail {
	d := Detail{OrgID: i.OrgID, Action: i.Outcome, Reason: i.Reason, Changes: i.Changes, Error: i.Error, Warnings: i.Warnings, Event: i.Cause, Accepted: i.Accepted}
	if d.Changes == nil {
		d.Changes = []Change{}
	}
	if d.Warnings == nil {
		d.Warnings = []Warning{}
	}
	return d
}

// Baseline is how much of the world a run over all organizations met.
type Baseline struct {
	Organizations int
	Subscriptions int // organizations that a Stripe subscription governs
}

// Anomaly compares a run with the last one that was trusted: a list that is suddenly empty is
// a broken query, a wrong database or a wrong key far sooner than the end of the business.
func (now Baseline) Anomaly(last Baseline) (Reason, string) {
	switch {
	case now.Organizations == 0 && last.Organizations > 0:
		return ReasonNoOrganizations, fmt.Sprintf("no organization was found, the last run had %d; check DB_NAME and the organizations table", last.Organizations)
	case now.Subscriptions == 0 && last.Subscriptions > 0:
		return ReasonNoSubscriptions, fmt.Sprintf("no organization has a subscription in Stripe, in the last run %d had; check that STRIPE_SECRET_KEY is of the right account", last.Subscriptions)
	default:
		return "", ""
	}
}

// FinalStatus is the status of a run whose organizations stand as counted: completed, with or without errors, or
// incomplete where some are pending. Errors that somebody accepted are no reason to end with errors.
func (s Summary) FinalStatus() RunStatus {
	switch {
	case s.Pending > 0:
		return RunIncomplete
	case s.Errors > s.AcceptedErrors:
		return RunCompletedWithErrors
	default:
		return RunCompleted
	}
}
