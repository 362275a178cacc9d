package billing

import (
	"encoding/json"
	"strings"
	"time"
)

// AnnouncementSource is who announces, as a rule's pattern names it.
const AnnouncementSource = "subscription-reconciliation"

// AnnouncementVersion is that of what is announced. Within a version keys are only added; one that goes, or
// whose meaning changes, makes a new version.
const AnnouncementVersion = 1

// AnnouncementType is what an announcement tells: the detail-type of the event on the bus.
type AnnouncementType string

const (
	// AnnounceReconciled: an organization's rows were repaired.
	AnnounceReconciled AnnouncementType = "Organization Reconciled"
	// AnnounceRunFinished: a run ended, or what is to be told of its end changed.
	AnnounceRunFinished AnnouncementType = "Reconciliation Run Finished"
)

// AnnouncementTypes are all there are.
func AnnouncementTypes() []AnnouncementType {
	return []AnnouncementType{AnnounceReconciled, AnnounceRunFinished}
}

// Announcement is an event for the application's bus.
type Announcement struct {
	ID     string
	Type   AnnouncementType
	Detail []byte // JSON
	// Attempts counts how often the bus refused it.
	Attempts int
}

const (
	// MaxAnnouncementBackoff is how long one that was refused waits at most for the next try.
	MaxAnnouncementBackoff = time.Hour
	// AmendmentDelay is how long the news that a run was amended waits for more of them: a redrive amends it
	// many times.
	AmendmentDelay = 2 * time.Minute
)

// Backoff is how long the announcement waits after it was refused once more: from 5 s, doubled each time.
func (a Announcement) Backoff() time.Duration {
	const first, doublings = 5 * time.Second, 10
	return min(first<<min(a.Attempts, doublings), MaxAnnouncementBackoff)
}

// Origin says whose database something happened in, so that nobody takes one stage's for another's.
type Origin struct {
	Stage    string `json:"stage"`    // "" is the one without a name
	LiveMode bool   `json:"livemode"` // of the Stripe key, as Stripe's objects say it
}

// Origin returns where the announcement says that it comes from.
func (a Announcement) Origin() (from Origin, err error) {
	err = json.Unmarshal(a.Detail, &from)
	return from, err
}

// SameBus reports whether two ARNs are of one event bus. One without an account, that of a bus that was named by its
// name alone, is that of the account in the other. The partition follows from the region.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
func SameBus(a, b string) bool {
	const partition, account, parts = 1, 4, 6
	left, right := strings.SplitN(a, ":", parts), strings.SplitN(b, ":", parts)
	if len(left) != parts || len(right) != parts {
		return a == b
	}
	for i := range parts {
		either := i == partition || i == account && (left[i] == "" || right[i] == "")
		if !either && left[i] != right[i] {
			return false
		}
	}
	return true
}

// OrganizationReconciled tells of one committed repair. It is the sign to read the row anew and never what to
// set: events are in no order, and the row may have moved on.
type OrganizationReconciled struct {
	Version int    `json:"version"`
	ID      string `json:"id"` // of the repair, the same however often it is sent
	Origin
	RunID          string     `json:"runId"`
	OrgID          string     `json:"orgId"`
	SubscriptionID any        `json:"subscriptionId"` // that governs, else that the row records; null if none
	CustomerID     any        `json:"customerId"`     // of the row after the repair
	Tier           Transition `json:"tier"`           // organizations.subscription_tier
	Status         Transition `json:"status"`         // subscriptions.status; from null where there was no row
	Period         Period     `json:"period"`
	AccessLowered  bool       `json:"accessLowered"`
	Changes        []Change   `json:"changes"`
	DecidedAt      time.Time  `json:"decidedAt"`
}

// Transition is a value before and after a repair, alike where it did not change.
type Transition struct {
	From any `json:"from"`
	To   any `json:"to"`
}

// Period is the subscription's current one after the repair; null where the row has none.
type Period struct {
	From any `json:"from"`
	To   any `json:"to"`
}

// Reconciled returns what is told of a repair of the record by the plan, without version, id and origin.
func (t Tiers) Reconciled(before Record, plan Plan, runID string, at time.Time) OrganizationReconciled {
	var row *Row
	for i := range before.Rows {
		if before.Rows[i].ID == plan.RowID && !plan.Insert {
			row = &before.Rows[i]
		}
	}
	move := func(field string) Transition {
		c := columnNamed(field)
		var from any
		if row != nil || c.Table() != TableSubscriptions {
			from = c.Value(row, &before.Org)
		}
		for _, change := range plan.Changes {
			if change.Field == field {
				return Transition{From: from, To: change.To}
			}
		}
		return Transition{From: from, To: from}
	}
	told := OrganizationReconciled{
		Version: AnnouncementVersion, RunID: runID, OrgID: before.Org.ID, SubscriptionID: move(FieldSubscriptionID).To, CustomerID: move(FieldCustomerID).To,
		Tier: move(FieldOrgTier), Status: move(FieldStatus), Period: Period{From: move(FieldCurrentPeriodStart).To, To: move(FieldCurrentPeriodEnd).To},
		AccessLowered: t.LowersAccess(plan.Changes), Changes: plan.Changes, DecidedAt: at.UTC(),
	}
	if plan.GoverningID != "" {
		told.SubscriptionID = plan.GoverningID
	}
	return told
}

// RunFinished tells how a run ended. A run that a redrive amends is told of again, with another id.
type RunFinished struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	Origin
	Kind RunKind `json:"kind"`
	Text string  `json:"text"` // the digest that a person reads
	// Lines are those of Text as [TemplateLines] returns them.
	Lines []string `json:"lines"`
	Summary
	Details *struct{} `json:"details,omitempty"` // takes those of the summary out: there may be too many for an event
	// By and Approval take out who asked and who approved: what is announced names no person.
	By       *struct{} `json:"by,omitempty"`
	Approval *struct{} `json:"approval,omitempty"`
}

// ForAnnouncement returns the summary with what its reason means in the place of the message: that may quote the
// database's driver, with hosts and users, and is for the run's row and the log.
func (s Summary) ForAnnouncement() Summary {
	s.StatusMessage = s.StatusReason.Advice().Means
	return s
}

// TemplateLines returns the lines of a digest, at most [MaxDigestLines], so that a rule's input transformer can put
// each between the double quotes of its template. A template names single values, and EventBridge does not escape
// what it puts in: a double quote would end the string, and how a line break or a backslash arrives is not documented.
// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html#eb-transform-input-issues
func TemplateLines(digest string) []string {
	lines := strings.Split(strings.NewReplacer(`"`, "'", `\`, "/").Replace(digest), "\n")
	return lines[:min(len(lines), MaxDigestLines)]
}

// End is what is kept and told of a run that ended.
type End struct {
	Summary  Summary
	Baseline Baseline // to compare the next run with
	Kind     RunKind
	Text     string // the digest; "" where the end is not announced
	At       time.Time
	// NotBefore is when it is announced; the zero time is at once.
	NotBefore time.Time
}

// IsNewsAfter reports whether there is something to tell of the summary to who knows the one before: a few more
// requests to Stripe are no news.
func (s Summary) IsNewsAfter(before Summary) bool {
	return s.Status != before.Status || s.Synchronized != before.Synchronized || s.Errors != before.Errors || s.Skipped != before.Skipped ||
		s.Pending != before.Pending || s.Downgrades != before.Downgrades || s.OrphansTotal != before.OrphansTotal
}

// AnnouncesEnd reports whether the end of the run is announced: of a run over one organization never, for whoever
// started it looks at it; of a catch-up only where something was repaired or a person is needed, for there are
// many; else always, so that silence is a sign.
func AnnouncesEnd(run Run, s Summary) bool {
	switch run.Kind() {
	case KindOne:
		return false
	case KindCatchUp:
		return s.Synchronized > 0 || s.Status != RunCompleted || s.StatusReason != ""
	default:
		return true
	}
}
