package billing

import "slices"

// Reason is why an organization has its outcome, why a run was stopped or is suspect, or why a message or request was
// refused.
type Reason string

// ReasonNotDecided is the reason of a pending organization: the column's default.
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

// Reasons of errors that only a person or a change in Stripe can resolve.
const (
	ReasonSubscriptionConflict Reason = "subscription_conflict"
	ReasonUnknownStatus        Reason = "unknown_status"
	ReasonTierUnresolved       Reason = "tier_unresolved"
	ReasonInvalidSubscription  Reason = "invalid_subscription"
	ReasonInvalidRecord        Reason = "invalid_record"
	ReasonStripeRefused        Reason = "stripe_refused"
	ReasonOtherMode            Reason = "other_mode"
	ReasonDatabaseRefused      Reason = "database_refused"
	ReasonWithheld             Reason = "withheld"
	ReasonWithheldByRun        Reason = "withheld_by_run"
	ReasonNotRepeated          Reason = "not_repeated"
)

// WithheldReasons returns the reasons of repairs that a guard withheld because they lower access.
func WithheldReasons() []Reason {
	return []Reason{ReasonWithheld, ReasonWithheldByRun, ReasonNotRepeated}
}

// Withholds reports whether the reason is one of [WithheldReasons].
func (r Reason) Withholds() bool { return slices.Contains(WithheldReasons(), r) }

// Reasons of temporary failures: the organization is in error once all retries failed.
const (
	ReasonStripeUnavailable   Reason = "stripe_unavailable"
	ReasonStripeThrottled     Reason = "stripe_throttled"
	ReasonDatabaseUnavailable Reason = "database_unavailable"
	ReasonQueueUnavailable    Reason = "queue_unavailable"
	ReasonChangedConcurrently Reason = "changed_concurrently"
	ReasonOutOfTime           Reason = "out_of_time"
	ReasonInternal            Reason = "internal_error"
)

// Reasons of messages and requests that are refused.
const (
	ReasonMalformedMessage    Reason = "malformed_message"
	ReasonUnknownRun          Reason = "unknown_run"
	ReasonUnknownItem         Reason = "unknown_item"
	ReasonUnknownOrganization Reason = "unknown_organization"
	ReasonOtherSettings       Reason = "other_settings"
	ReasonCatchUpListing      Reason = "catch_up_listing"
)

// Reasons that concern the whole run: it is stopped, or suspect.
const (
	ReasonStripeUnauthorized Reason = "stripe_unauthorized"
	ReasonStripeForbidden    Reason = "stripe_forbidden"
	ReasonWrongAccount       Reason = "wrong_account"
	ReasonWrongMode          Reason = "wrong_mode"
	ReasonDatabaseLogin      Reason = "database_login"
	ReasonDatabaseSchema     Reason = "database_schema"
	ReasonInterrupted        Reason = "interrupted"
	ReasonStoppedByOperator  Reason = "stopped_by_operator"
	ReasonNoOrganizations    Reason = "no_organizations"
	ReasonNoSubscriptions    Reason = "no_subscriptions"
	ReasonEventsExpired      Reason = "events_expired"
	ReasonEventsUnreadable   Reason = "events_unreadable"
)

// WarningCode names something that a person should look at. It changes no outcome.
type WarningCode string

const (
	WarnMultipleLive            WarningCode = "multiple_live_subscriptions"
	WarnMultipleRows            WarningCode = "multiple_subscription_rows"
	WarnPaidWithoutSubscription WarningCode = "paid_without_subscription"
	WarnTierMetadataMismatch    WarningCode = "tier_metadata_mismatch"
	WarnSeveralTiers            WarningCode = "several_tiers"
	WarnCancellationScheduled   WarningCode = "cancellation_scheduled"
	WarnCollectionPaused        WarningCode = "collection_paused"
	WarnSearchUnavailable       WarningCode = "search_unavailable"
	WarnRepairUndone            WarningCode = "repair_undone"
)

// Commands of the list below, as templates of [Summary.Command].
const (
	explainOne = "reconcile org ORG --explain"
	runOne     = "reconcile org ORG"
	allowOne   = "reconcile org ORG --allow-downgrade"
	approve    = "reconcile approve RUN --limit N"
	redrive    = "reconcile redrive --watch"
	startRun   = "reconcile start"
)

var (
	thenRedrive       = []string{redrive}
	thenApprove       = []string{explainOne, approve, redrive}
	thenReviewRedrive = []string{explainOne, redrive}
	thenAllow         = []string{explainOne, allowOne}
	thenResume        = []string{"reconcile start --resume RUN"}
	thenStart         = []string{startRun}
	thenRunOne        = []string{runOne}
	thenListRuns      = []string{"reconcile runs"}
)

// allAdvice has one entry for each constant above, in display order. A test compares the README's table with it.
var allAdvice = []Advice{
	{string(ReasonNotDecided), ConcernPending, "No worker has decided it yet.", "", nil},

	{string(ReasonInSync), ConcernSkipped, "Stripe and the database agree.", "", nil},
	{string(ReasonNoSubscription), ConcernSkipped, "The customer has no subscription in Stripe.", "", nil},
	{string(ReasonCustomerMissing), ConcernSkipped, "The customer does not exist in Stripe, or was deleted there.", "", nil},
	{string(ReasonNoStripeIdentity), ConcernSkipped, "Nothing in Stripe is known for the organization.", "", nil},
	{string(ReasonOrganizationDeleted), ConcernSkipped, "The organization was deleted after it was listed.", "", nil},

	{string(ReasonRepaired), ConcernSynced, "The database differed from Stripe.", "", nil},
	{string(ReasonRowInserted), ConcernSynced, "Stripe has a subscription for which the database had no row.", "", nil},
	{string(ReasonSubscriptionMissing), ConcernSynced, "Stripe knows none of the recorded subscriptions, so access ends.", "", nil},

	{
		string(ReasonSubscriptionConflict), ConcernPerson,
		"Another organization's row records the subscription, or it belongs to another organization.",
		"Decide which organization owns it; correct metadata.orgId in Stripe, or the row in the database.", thenRedrive,
	},
	{
		string(ReasonUnknownStatus), ConcernPerson,
		"Stripe uses a status that this version does not know.",
		"Install a version that knows it.", thenRedrive,
	},
	{
		string(ReasonTierUnresolved), ConcernPerson,
		"No tier is configured for the subscription's prices or products, or what is known is not enough to lower the record's tier.",
		"Add the price to its tier's STRIPE_PRICE_ID list or to STRIPE_PRICE_ID_ADDON, or the product to its STRIPE_PRODUCT_ID list or to STRIPE_PRODUCT_ID_ADDON.", thenRedrive,
	},
	{
		string(ReasonInvalidSubscription), ConcernPerson,
		"The subscription in Stripe cannot be stored as it is.",
		"Correct what the message names in Stripe.", thenRedrive,
	},
	{
		string(ReasonInvalidRecord), ConcernPerson,
		"The database has NULL where a value is needed; nothing was compared.",
		"Give the columns that the message names a value, and make them NOT NULL.", thenRedrive,
	},
	{
		string(ReasonStripeRefused), ConcernPerson,
		"Stripe refused the request about this organization.",
		"Read the message; mostly an id in the database is broken.", thenRedrive,
	},
	{
		string(ReasonOtherMode), ConcernPerson,
		"The recorded ids exist in Stripe's other mode only, test instead of live or live instead of test, so nothing was written.",
		"Correct or remove the ids in the database; if that is so for all organizations, STRIPE_SECRET_KEY is of the wrong mode.", thenRedrive,
	},
	{
		string(ReasonDatabaseRefused), ConcernPerson,
		"MySQL refuses the change of the organization's row, so nothing was written.",
		"Read the message; correct the table's columns, keys or triggers, or the row.", thenRedrive,
	},
	{
		string(ReasonWithheld), ConcernPerson,
		"It would lower access, and the run's limit of downgrades was reached, so nothing was written.",
		"Look at the changes. If they are right, raise the limit.", thenApprove,
	},
	{
		string(ReasonWithheldByRun), ConcernPerson,
		"It would lower access, and another run withholds that, so this run over one organization wrote nothing.",
		"Look at the changes. If they are right, approve the run that the error names, then redrive.", thenReviewRedrive,
	},
	{
		string(ReasonNotRepeated), ConcernPerson,
		"It would lower access again: the same repair was made within 24 hours and something undid it, so nothing was written.",
		"Find out what writes the old state back, mostly a webhook that takes it from the subscription's metadata, and stop that; then allow it for this organization.", thenAllow,
	},

	{
		string(ReasonStripeUnavailable), ConcernPassing,
		"Stripe did not answer any of many requests.",
		"Wait until status.stripe.com is green.", thenRedrive,
	},
	{
		string(ReasonStripeThrottled), ConcernPassing,
		"Stripe kept asking to slow down.",
		"Lower STRIPE_RPS, or find out what else uses the account's limit.", thenRedrive,
	},
	{
		string(ReasonDatabaseUnavailable), ConcernPassing,
		"The database did not answer, was read-only, or its rows stayed locked.",
		"Make sure that it is up, DB_HOST is the writer, and nothing holds locks for long.", thenRedrive,
	},
	{
		string(ReasonQueueUnavailable), ConcernPassing,
		"SQS did not take a message.",
		"Make sure that the queues exist and may be used.", thenRedrive,
	},
	{
		string(ReasonChangedConcurrently), ConcernPassing,
		"Somebody changed the organization each time it was about to be written.",
		"Nothing to fix: try again.", thenRedrive,
	},
	{
		string(ReasonOutOfTime), ConcernPassing,
		"The function's time ended first.",
		"If it happens again, give the worker more time or smaller batches.", thenRedrive,
	},
	{
		string(ReasonInternal), ConcernPassing,
		"Something unexpected went wrong.",
		"Read the message; if it happens again, report it.", thenRedrive,
	},

	{
		string(ReasonMalformedMessage), ConcernRefused,
		"A message in the work queue cannot be read.",
		"Delete it from the dead-letter queue.", nil,
	},
	{
		string(ReasonUnknownRun), ConcernRefused,
		"The database has no such run: it was pruned, or belongs to another database.",
		"Check the id and DB_NAME; delete a dead letter that names it.", thenListRuns,
	},
	{
		string(ReasonUnknownItem), ConcernRefused,
		"The organization is not part of the run that the message names.",
		"Delete the dead letter, and reconcile the organization alone.", thenRunOne,
	},
	{
		string(ReasonUnknownOrganization), ConcernRefused,
		"There is no organization with this id, or it is deleted.",
		"Check the id.", nil,
	},
	{
		string(ReasonOtherSettings), ConcernRefused,
		"The run was started with other settings than those asked for.",
		"Resume the run without other options, or start another.", thenResume,
	},
	{
		string(ReasonCatchUpListing), ConcernRefused,
		"Another catch-up is still listing the organizations that Stripe's events name; only one may do so at a time.",
		"Follow it and try again in a few minutes, or resume it (--resume) if its enumerator stopped.", thenListRuns,
	},

	{
		string(ReasonStripeUnauthorized), ConcernRun,
		"Stripe refuses the key: it was rolled, has expired, or is wrong.",
		"Put a valid key into STRIPE_SECRET_KEY or the secret.", thenResume,
	},
	{
		string(ReasonStripeForbidden), ConcernRun,
		"The restricted key lacks a permission.",
		"Give it the permission that the message names.", thenResume,
	},
	{
		string(ReasonWrongAccount), ConcernRun,
		"The key belongs to another Stripe account than STRIPE_ACCOUNT_ID, or than the one that the run was started with.",
		"Give all functions the key of one account, and set STRIPE_ACCOUNT_ID.", thenResume,
	},
	{
		string(ReasonWrongMode), ConcernRun,
		"The key reads objects of the other mode, live or test.",
		"Make STRIPE_SECRET_KEY, STRIPE_MODE and the database fit together.", thenResume,
	},
	{
		string(ReasonDatabaseLogin), ConcernRun,
		"The database refuses the login, or shows it no such database, table or column.",
		"Correct what the message names: DB_USER, its password or grants, DB_NAME, DB_TLS, or the server's binlog_format.", thenResume,
	},
	{
		string(ReasonDatabaseSchema), ConcernRun,
		"The application's tables, or the login's rights to them, do not meet the requirements.",
		"Correct each column, type and right that the message lists.", thenResume,
	},
	{
		string(ReasonInterrupted), ConcernRun,
		"The program that ran it was ended.",
		"Resume it; without AWS, with local --resume RUN.", thenResume,
	},
	{
		string(ReasonStoppedByOperator), ConcernRun,
		"Somebody ran reconcile stop.",
		"Ask the person whom the message names whether to resume it.", thenResume,
	},
	{
		string(ReasonNoOrganizations), ConcernRun,
		"No organization was found where the last run found some.",
		"Check DB_HOST, DB_NAME and the organizations table before you trust it.", thenStart,
	},
	{
		string(ReasonNoSubscriptions), ConcernRun,
		"No organization has a subscription in Stripe, where in the last run some had.",
		"Check that STRIPE_SECRET_KEY is of the right account before you trust it.", thenStart,
	},
	{
		string(ReasonEventsExpired), ConcernRun,
		"The catch-up had to begin before the start of Stripe's event log, which covers 30 days.",
		"Start a run over all organizations, which needs no events.", thenStart,
	},
	{
		string(ReasonEventsUnreadable), ConcernRun,
		"Events of Stripe's log could not be fully read, so organizations that they name may be missing.",
		"Start a run over all organizations. If it happens again, compare an event that the log names with Stripe's documentation.", thenStart,
	},

	{
		string(WarnMultipleLive), ConcernWarning,
		"The customer pays for more than one subscription.",
		"Cancel in Stripe what should not be there.", nil,
	},
	{
		string(WarnMultipleRows), ConcernWarning,
		"The database has more than one row for the organization; one was compared.",
		"Remove the rows that are not the governing subscription's.", nil,
	},
	{
		string(WarnPaidWithoutSubscription), ConcernWarning,
		"The database grants a paid tier, but Stripe has no subscription.",
		"End the access by hand, or note it as complimentary.", nil,
	},
	{
		string(WarnTierMetadataMismatch), ConcernWarning,
		"Price and metadata.tier disagree: the price won, but the webhook will write the metadata's tier at the next event.",
		"Correct metadata.tier in Stripe.", nil,
	},
	{
		string(WarnSeveralTiers), ConcernWarning,
		"The items of the subscription are of several tiers; the highest counts.",
		"Remove the items in Stripe that should not be there.", nil,
	},
	{
		string(WarnCancellationScheduled), ConcernWarning,
		"The subscription ends on a date, and cancel_at_period_end does not say so, neither in Stripe nor in the database.",
		"Nothing, if the application shows it by cancel_at; else tell the customer's manager.", nil,
	},
	{
		string(WarnCollectionPaused), ConcernWarning,
		"Collecting payments is paused in Stripe, and the status does not say so: the customer keeps the tier without paying.",
		"Resume collection in Stripe, or end the subscription there.", nil,
	},
	{
		string(WarnSearchUnavailable), ConcernWarning,
		"Access was lowered on an account without Stripe's search, so a subscription that only metadata.orgId connects was not looked for.",
		"Look for one in Stripe's dashboard if the customer complains.", nil,
	},
	{
		string(WarnRepairUndone), ConcernWarning,
		"The same repair was made within 24 hours before, and something undid it.",
		"Find out what writes the old state back: mostly a webhook that takes it from the subscription's metadata, or one that came late.", nil,
	},
}
