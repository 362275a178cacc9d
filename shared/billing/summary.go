package billing

import (
	"fmt"
	"maps"
	"time"
)

// MaxDetails limits the organizations and the orphans that a summary lists.
const MaxDetails = 100

// reservedDetails of them are reserved for warnings and as many for repairs, so that many errors do not hide them.
const reservedDetails = MaxDetails / 4

// Tally counts the items of a run with the same outcome and reason.
type Tally struct {
	Outcome Outcome
	Reason  Reason
	Items   int
}

// Summary is a run in figures, for the log, for --json and for the run's row.
// TotalOrganizations = Synchronized + Errors + Skipped + Pending, always. Drifted counts as synchronized.
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
	Warnings           map[WarningCode]int `json:"warnings"`                 // organizations by warning, without accepted ones
	Accepted           map[string]int      `json:"accepted"`                 // organizations by accepted error or warning
	AcceptedErrors     int                 `json:"acceptedErrors,omitempty"` // included in Errors
	DriftByField       map[string]int      `json:"driftByField"`
	DriftByCause       DriftByCause        `json:"driftByCause"`
	Access             AccessChanges       `json:"access"`
	Orphans            []Orphan            `json:"orphans"`
	OrphansTotal       int                 `json:"orphansTotal"`
	SweepAbandoned     bool                `json:"sweepAbandoned,omitempty"` // so orphans were not looked for
	StripeRequests     Usage               `json:"stripeRequests"`
	Downgrades         int                 `json:"downgrades"`
	DowngradeLimit     int                 `json:"downgradeLimit"`
	LimitShared        bool                `json:"limitShared,omitempty"`    // with other catch-ups, for 24 hours
	By                 string              `json:"by,omitempty"`             // who requested it; "" for the schedule
	AllowDowngrade     bool                `json:"allowDowngrade,omitempty"` // of a run over one organization
	Approval           *Approval           `json:"approval,omitempty"`       // of another limit
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
	Event    *Cause       `json:"event,omitempty"`    // of a catch-up
	Accepted []Acceptance `json:"accepted,omitempty"` // of its error and warnings
}

// Orphan is a live Stripe subscription that no organization accounts for.
type Orphan struct {
	SubscriptionID string `json:"subscriptionId"`
	CustomerID     string `json:"customerId"`
	Status         Status `json:"status"`
	OrgID          string `json:"orgId"`
}

// Summarize computes the summary of a run from the tallies and the drift of all its items, and the notable ones to list.
func Summarize(run Run, tallies []Tally, drift Drift, notable []Item) Summary {
	s := Summary{
		RunID: run.ID, Status: run.Status, DryRun: run.DryRun,
		Details: details(notable), Reasons: map[Reason]int{}, Warnings: map[WarningCode]int{}, Accepted: map[string]int{}, DriftByField: map[string]int{}, Orphans: []Orphan{},
		Access:         drift.AccessChanges.withoutNil(),
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

// SetDecisions sets what people decided about the run, which may be newer than a stored summary.
func (s *Summary) SetDecisions(run Run) {
	s.By, s.AllowDowngrade, s.Approval, s.DowngradeLimit = run.By, run.AllowDowngrade, run.Approval, run.DowngradeLimit
	s.LimitShared = run.Kind() == KindCatchUp
}

// Withheld counts the organizations whose repair a guard withheld.
func (s Summary) Withheld() int {
	n := 0
	for _, reason := range WithheldReasons() {
		n += s.Reasons[reason]
	}
	return n
}

// Drifted counts the organizations that differed from Stripe: repaired, withheld, or found by a dry run.
func (s Summary) Drifted() int { return s.Synchronized + s.Withheld() }

// WouldWithhold counts by reason the organizations of a dry run whose repair a run that writes would withhold. They are
// included in Synchronized.
func (s Summary) WouldWithhold() map[Reason]int {
	would := map[Reason]int{}
	if !s.DryRun {
		return would
	}
	if n := s.Downgrades - s.DowngradeLimit; n > 0 {
		would[ReasonWithheld] = n
	}
	if n := s.Access.Lowered.Organizations - s.Downgrades; n > 0 { // Downgrades excludes what the other guards withhold
		would[s.otherGuard()] = n
	}
	return would
}

// otherGuard returns the reason for which a guard other than the limit withholds repairs of a dry run. Only a run over
// one organization respects what another run withholds.
func (s Summary) otherGuard() Reason {
	if s.TotalOrganizations == 1 && s.Warnings[WarnRepairUndone]+s.Accepted[string(WarnRepairUndone)] == 0 {
		return ReasonWithheldByRun
	}
	return ReasonNotRepeated
}

// WouldWithholdInAll returns the total of [Summary.WouldWithhold].
func (s Summary) WouldWithholdInAll() int {
	n := 0
	for _, organizations := range s.WouldWithhold() {
		n += organizations
	}
	return n
}

// Unaccepted counts the organizations that have the reason and for which it is not accepted.
func (s Summary) Unaccepted(r Reason) int { return s.Reasons[r] - s.Accepted[string(r)] }

// OtherErrors counts the errors that are not withheld repairs: whether these organizations differ is unknown.
func (s Summary) OtherErrors() int { return s.Errors - s.Withheld() }

// DriftRate is the fraction of organizations that differed.
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

// details returns at most [MaxDetails], in the order of the items. Beyond the reserved ones, errors have precedence over
// warnings and warnings over repairs.
func details(notable []Item) []Detail {
	found := map[notability]int{}
	for _, i := range notable {
		found[notabilityOf(i)]++
	}
	room := map[notability]int{}
	room[anError] = MaxDetails - min(found[aWarning], reservedDetails) - min(found[aRepair], reservedDetails)
	room[aWarning] = MaxDetails - min(found[anError], room[anError]) - min(found[aRepair], reservedDetails)
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

// notability is why an item is listed.
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

// Baseline is what a full run found, to compare the next one with.
type Baseline struct {
	Organizations int
	Subscriptions int // organizations with a governing Stripe subscription
}

// Anomaly reports why the run is suspect, compared with the last trusted one: an empty list most likely comes from a
// broken query, a wrong database or a wrong key. "" means no anomaly.
func (b Baseline) Anomaly(last Baseline) (Reason, string) {
	switch {
	case b.Organizations == 0 && last.Organizations > 0:
		return ReasonNoOrganizations, fmt.Sprintf("no organization was found, the last run had %d; check DB_NAME and the organizations table", last.Organizations)
	case b.Subscriptions == 0 && last.Subscriptions > 0:
		return ReasonNoSubscriptions, fmt.Sprintf("no organization has a subscription in Stripe, in the last run %d had; check that STRIPE_SECRET_KEY is of the right account", last.Subscriptions)
	default:
		return "", ""
	}
}

// FinalStatus returns the status of the run when it is closed now: incomplete with pending organizations, else
// completed, with or without unaccepted errors.
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
