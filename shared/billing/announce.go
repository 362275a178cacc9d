package billing

import (
	"encoding/json"
	"strings"
	"time"
)

// AnnouncementSource is the source of the events on the bus.
const AnnouncementSource = "subscription-reconciliation"

// AnnouncementVersion is the version of the announcements' keys. Adding a key keeps the version; removing one or
// changing its meaning makes a new version.
const AnnouncementVersion = 1

// AnnouncementType is the detail-type of the event on the bus.
type AnnouncementType string

const (
	// AnnounceReconciled: an organization's rows were repaired.
	AnnounceReconciled AnnouncementType = "Organization Reconciled"
	// AnnounceRunFinished: a run ended, or its summary changed afterwards.
	AnnounceRunFinished AnnouncementType = "Reconciliation Run Finished"
)

// AnnouncementTypes returns all types.
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
	// MaxAnnouncementBackoff limits the time until a refused announcement is sent again.
	MaxAnnouncementBackoff = time.Hour
	// AmendmentDelay collects the amendments of a run into one announcement: a redrive makes many.
	AmendmentDelay = 2 * time.Minute
)

// Backoff returns the time until the announcement is sent again after another refusal: 5 s, doubled each time.
func (a Announcement) Backoff() time.Duration {
	const first, doublings = 5 * time.Second, 10
	return min(first<<min(a.Attempts, doublings), MaxAnnouncementBackoff)
}

// Origin identifies the deployment that an announcement comes from.
type Origin struct {
	Stage    string `json:"stage"`    // "" is the stage without a name
	LiveMode bool   `json:"livemode"` // the mode of the Stripe key
}

// Origin returns the origin that the announcement's detail states.
func (a Announcement) Origin() (from Origin, err error) {
	err = json.Unmarshal(a.Detail, &from)
	return from, err
}

// SameBus reports whether two ARNs name the same event bus. A missing account, of a bus that was configured by its name
// only, matches any. The partition is ignored because it follows from the region.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
func SameBus(a, b string) bool {
	const partition, account, parts = 1, 4, 6
	left, right := strings.SplitN(a, ":", parts), strings.SplitN(b, ":", parts)
	if len(left) != parts || len(right) != parts {
		return a == b
	}
	for i := range parts {
		ignored := i == partition || i == account && (left[i] == "" || right[i] == "")
		if !ignored && left[i] != right[i] {
			return false
		}
	}
	return true
}

// OrganizationReconciled announces one committed repair. Consumers must read the row again instead of using these
// values: events are unordered, and the row may have changed since.
type OrganizationReconciled struct {
	Version int    `json:"version"`
	ID      string `json:"id"` // of the repair; a repeated event has the same
	Origin
	RunID          string     `json:"runId"`
	OrgID          string     `json:"orgId"`
	SubscriptionID any        `json:"subscriptionId"` // the governing one, else the recorded one, else null
	CustomerID     any        `json:"customerId"`     // of the row after the repair
	Tier           Transition `json:"tier"`           // organizations.subscription_tier
	Status         Transition `json:"status"`         // subscriptions.status; from null if there was no row
	Period         Period     `json:"period"`
	AccessLowered  bool       `json:"accessLowered"`
	Changes        []Change   `json:"changes"`
	DecidedAt      time.Time  `json:"decidedAt"`
}

// Transition is a value before and after a repair; both are equal if it did not change.
type Transition struct {
	From any `json:"from"`
	To   any `json:"to"`
}

// Period is the subscription's current period after the repair, null if the row has none.
type Period struct {
	From any `json:"from"`
	To   any `json:"to"`
}

// Reconciled returns the announcement of a repair, without id and origin.
func (t Tiers) Reconciled(before Record, plan Plan, runID string, at time.Time) OrganizationReconciled {
	var row *Row
	for i := range before.Rows {
		if before.Rows[i].ID == plan.RowID && !plan.Insert {
			row = &before.Rows[i]
		}
	}
	transition := func(field string) Transition {
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
	reconciled := OrganizationReconciled{
		Version: AnnouncementVersion, RunID: runID, OrgID: before.Org.ID,
		SubscriptionID: transition(FieldSubscriptionID).To, CustomerID: transition(FieldCustomerID).To,
		Tier: transition(FieldOrgTier), Status: transition(FieldStatus),
		Period:        Period{From: transition(FieldCurrentPeriodStart).To, To: transition(FieldCurrentPeriodEnd).To},
		AccessLowered: t.LowersAccess(plan.Changes), Changes: plan.Changes, DecidedAt: at.UTC(),
	}
	if plan.GoverningID != "" {
		reconciled.SubscriptionID = plan.GoverningID
	}
	return reconciled
}

// RunFinished announces the end of a run. An amended run is announced again with another id.
type RunFinished struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	Origin
	Kind RunKind `json:"kind"`
	Text string  `json:"text"` // the digest
	// Lines are the lines of Text, from [TemplateLines].
	Lines []string `json:"lines"`
	Summary
	Details *struct{} `json:"details,omitempty"` // hides the summary's details, which may exceed the size of an event
	// By and Approval hide the summary's fields: announcements name no person.
	By       *struct{} `json:"by,omitempty"`
	Approval *struct{} `json:"approval,omitempty"`
}

// ForAnnouncement returns the summary with the meaning of its reason instead of the message, which may contain hosts
// and users from a database error.
func (s Summary) ForAnnouncement() Summary {
	s.StatusMessage = s.StatusReason.Advice().Means
	return s
}

// TemplateLines returns the lines of a digest, at most [MaxDigestLines], for an input transformer's template, which can
// name only single values. EventBridge does not escape them: a double quote would end the string, and what happens to
// line breaks and backslashes is not documented.
// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html#eb-transform-input-issues
func TemplateLines(digest string) []string {
	lines := strings.Split(strings.NewReplacer(`"`, "'", `\`, "/").Replace(digest), "\n")
	return lines[:min(len(lines), MaxDigestLines)]
}

// End is what is stored and announced when a run ends.
type End struct {
	Summary  Summary
	Baseline Baseline // for the next run
	Kind     RunKind
	Text     string // the digest; "" if the end is not announced
	At       time.Time
	// NotBefore delays the announcement; zero means no delay.
	NotBefore time.Time
}

// IsNewsAfter reports whether there is something to tell of the summary to who knows the one before: a few more
// requests to Stripe are no news.
func (s Summary) IsNewsAfter(before Summary) bool {
	return s.Status != before.Status || s.Synchronized != before.Synchronized || s.Errors != before.Errors || s.Skipped != before.Skipped ||
		s.Pending != before.Pending || s.Downgrades != before.Downgrades || s.OrphansTotal != before.OrphansTotal
}

// AnnouncesEnd reports whether the end of the run is announced. Full runs always are, so that a missing announcement
// is noticed; catch-ups, of which there are many, only if something was repaired or needs a person; runs over one
// organization never.
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
