package billing

// Outcome is how one organization ended in one run.
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
	// OutcomeError: could not be decided or written; the reason says why.
	OutcomeError Outcome = "error"
)

// Reason says why an organization has its outcome, or why a run was stopped.
type Reason string

// ReasonNotDecided is the reason of a pending organization.
const ReasonNotDecided Reason = "not_decided_yet"

// Reasons of skipped organizations.
const (
	ReasonInSync              Reason = "in_sync"
	ReasonNoStripeIdentity    Reason = "no_stripe_identity"
	ReasonNoSubscription      Reason = "no_subscription"
	ReasonCustomerMissing     Reason = "customer_missing"
	ReasonOrganizationDeleted Reason = "organization_deleted"
)

// Reasons of synced and drifted organizations.
const (
	ReasonRepaired            Reason = "repaired"
	ReasonRowInserted         Reason = "row_inserted"
	ReasonSubscriptionMissing Reason = "subscription_missing"
)

// Reasons of organizations in error that only a person or a change in Stripe can mend.
const (
	ReasonSubscriptionConflict Reason = "subscription_conflict"
	ReasonUnknownStatus        Reason = "unknown_status"
	ReasonTierUnresolved       Reason = "tier_unresolved"
	ReasonInvalidSubscription  Reason = "invalid_subscription"
	ReasonWithheld             Reason = "withheld"
	ReasonStripeRefused        Reason = "stripe_refused"
	// ReasonDatabaseRefused: MySQL does not take the organization's rows: a trigger, a missing
	// default, an ENUM's value.
	ReasonDatabaseRefused Reason = "database_refused"
	// ReasonInvalidRecord: the database holds NULL where a value is needed.
	ReasonInvalidRecord Reason = "invalid_record"
)

// Reasons of messages and requests that are refused.
const (
	ReasonMalformedMessage    Reason = "malformed_message"
	ReasonUnknownRun          Reason = "unknown_run"
	ReasonUnknownItem         Reason = "unknown_item"
	ReasonUnknownOrganization Reason = "unknown_organization"
	ReasonOtherSettings       Reason = "other_settings"
)

// Reasons that pass: the organization is tried again.
const (
	ReasonStripeUnavailable   Reason = "stripe_unavailable"
	ReasonStripeThrottled     Reason = "stripe_throttled"
	ReasonDatabaseUnavailable Reason = "database_unavailable"
	ReasonQueueUnavailable    Reason = "queue_unavailable"
	ReasonChangedConcurrently Reason = "changed_concurrently"
	ReasonOutOfTime           Reason = "out_of_time"
	ReasonInternal            Reason = "internal_error"
)

// Reasons that concern the whole run: it is stopped, or suspect.
const (
	ReasonStripeUnauthorized Reason = "stripe_unauthorized"
	ReasonStripeForbidden    Reason = "stripe_forbidden"
	ReasonWrongAccount       Reason = "wrong_account"
	ReasonWrongMode          Reason = "wrong_mode"
	ReasonInterrupted        Reason = "interrupted"
	ReasonStoppedByOperator  Reason = "stopped_by_operator"
	ReasonNoOrganizations    Reason = "no_organizations"
	ReasonNoSubscriptions    Reason = "no_subscriptions"
	// ReasonDatabaseLogin: the login is refused, or shows no such database, table or column.
	ReasonDatabaseLogin Reason = "database_login"
	// ReasonDatabaseSchema: the application's tables, or what the login may do with them, are not
	// as this system needs them.
	ReasonDatabaseSchema Reason = "database_schema"
)

// WarningCode names something a person should look at; it changes no outcome.
type WarningCode string

const (
	WarnMultipleLive            WarningCode = "multiple_live_subscriptions"
	WarnMultipleRows            WarningCode = "multiple_subscription_rows"
	WarnPaidWithoutSubscription WarningCode = "paid_without_subscription"
	WarnTierMetadataMismatch    WarningCode = "tier_metadata_mismatch"
)

// Warning is a WarningCode with a sentence that says what was seen and what to do.
type Warning struct {
	Code    WarningCode `json:"code"`
	Message string      `json:"message"`
}
