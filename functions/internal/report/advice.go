package report

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// advice says what a reason means and what to do about it; an empty Do is nothing.
type advice struct{ Means, Do string }

// reasons is the one list of what each outcome's reason means. Every reason of an error has its
// remedy; the command that follows it is of [repairCommands].
var reasons = map[billing.Reason]advice{
	billing.ReasonInSync:              {Means: "Stripe and the database agree."},
	billing.ReasonNoStripeIdentity:    {Means: "Nothing in Stripe is known for the organization."},
	billing.ReasonNoSubscription:      {Means: "The customer has no subscription in Stripe."},
	billing.ReasonCustomerMissing:     {Means: "The customer does not exist in Stripe, or was deleted there."},
	billing.ReasonOrganizationDeleted: {Means: "The organization was deleted after it was listed."},

	billing.ReasonRepaired:            {Means: "The database differed from Stripe."},
	billing.ReasonRowInserted:         {Means: "Stripe has a subscription for which the database had no row."},
	billing.ReasonSubscriptionMissing: {Means: "Stripe knows none of the recorded subscriptions, so access ends."},

	billing.ReasonSubscriptionConflict: {
		"The subscription stands on another organization's row, or belongs to another organization.",
		"Decide whose it is; correct metadata.orgId in Stripe, or the row in the database.",
	},
	billing.ReasonUnknownStatus: {
		"Stripe uses a status that this version does not know.",
		"Install a version that knows it.",
	},
	billing.ReasonTierUnresolved: {
		"No tier is configured for the subscription's price, nor for its product.",
		"Add the price id to its tier's STRIPE_PRICE_ID_*, or the product to STRIPE_PRODUCT_ID_*, or set metadata.tier in Stripe.",
	},
	billing.ReasonInvalidSubscription: {
		"The subscription in Stripe cannot be stored as it is.",
		"Correct what the message names in Stripe.",
	},
	billing.ReasonInvalidRecord: {
		"The database has NULL where a value is needed; nothing was compared.",
		"Give the columns that the message names a value, and make them NOT NULL.",
	},
	billing.ReasonStripeRefused: {
		"Stripe refused the request about this organization.",
		"Read the message; mostly an id in the database is broken.",
	},
	billing.ReasonOtherMode: {
		"The ids in the database exist in Stripe's other mode only: test instead of live, or live instead of test.",
		"Correct or remove the ids. If it is so for all organizations, STRIPE_SECRET_KEY is of the wrong mode.",
	},
	billing.ReasonDatabaseRefused: {
		"MySQL does not take the organization's row as it should be. Nothing was written.",
		"Read the message; correct the table's columns, keys or triggers, or the row.",
	},
	billing.ReasonWithheld: {
		"It would lower access, and the run's limit of downgrades was reached. Nothing was written.",
		"Look at the changes. If they are right, raise the limit.",
	},
	billing.ReasonStripeUnavailable: {
		"Stripe did not answer, however often it was asked.",
		"Wait until status.stripe.com is green.",
	},
	billing.ReasonStripeThrottled: {
		"Stripe kept asking to slow down.",
		"Lower STRIPE_RPS, or find out what else uses the account's limit.",
	},
	billing.ReasonDatabaseUnavailable: {
		"The database did not answer, was read-only, or its rows stayed locked.",
		"Make sure that it is up, DB_HOST is the writer, and nothing holds locks for long.",
	},
	billing.ReasonQueueUnavailable: {
		"SQS did not take a message.",
		"Make sure that the queues exist and may be used.",
	},
	billing.ReasonChangedConcurrently: {
		"Somebody changed the organization each time it was about to be written.",
		"Nothing to repair: try again.",
	},
	billing.ReasonOutOfTime: {
		"The function's time ended first.",
		"If it happens again, give the worker more time or smaller batches.",
	},
	billing.ReasonInternal: {
		"Something unexpected went wrong.",
		"Read the message; if it happens again, report it.",
	},
}

// warnings is the same for warnings.
var warnings = map[billing.WarningCode]advice{
	billing.WarnMultipleLive: {
		"The customer pays for more than one subscription.",
		"Cancel in Stripe what should not be there.",
	},
	billing.WarnMultipleRows: {
		"The database has more than one row for the organization; one was compared.",
		"Remove the rows that are not the governing subscription's.",
	},
	billing.WarnPaidWithoutSubscription: {
		"The database grants a paid tier, but Stripe has no subscription.",
		"End the access by hand, or note it as complimentary.",
	},
	billing.WarnTierMetadataMismatch: {
		"Price and metadata.tier disagree. The price won, but the webhook will write the metadata's tier at the next event.",
		"Correct metadata.tier in Stripe.",
	},
}

// repairCommands are what to run once the cause is repaired.
func repairCommands(s billing.Summary, orgID string, reason billing.Reason) []string {
	switch {
	case orgID != "":
		return []string{orgCommand(s, orgID)}
	case s.DryRun: // its messages are not in the dead-letter queue
		return []string{"reconcile start --dry-run"}
	case reason == billing.ReasonWithheld:
		limit := s.Downgrades + s.Reasons[billing.ReasonWithheld]
		return []string{fmt.Sprintf("reconcile approve %s --limit %d", shellWord(s.RunID), limit), "reconcile redrive --watch"}
	default:
		return []string{"reconcile redrive --watch"}
	}
}

// orgCommand reconciles one organization.
func orgCommand(s billing.Summary, orgID string) string {
	if s.DryRun {
		return "reconcile org " + shellWord(orgID) + " --dry-run"
	}
	return "reconcile org " + shellWord(orgID)
}

// ending says what the run's status means, and which command comes next if one does.
func ending(s billing.Summary) (means, command string) {
	run := shellWord(s.RunID)
	switch s.Status {
	case billing.RunEnumerating, billing.RunRunning:
		return "The run is still going; the figures are of the moment.", "reconcile status " + run + " --watch"
	case billing.RunCompleted:
		return "Every organization has an outcome, none an error.", ""
	case billing.RunCompletedWithErrors:
		return "Every organization has an outcome, but some need a person.", ""
	case billing.RunIncomplete:
		return "The deadline passed with organizations pending. Find out why the workers did not get through, then resume.", "reconcile start --resume " + run
	case billing.RunSuspect:
		return "Nothing was found where the last run found something. Check the database and the Stripe account before you trust it.", ""
	case billing.RunStopped:
		return "Something about the whole run is wrong. Repair it, then resume; organizations without an outcome wait.", "reconcile start --resume " + run
	default:
		return "", ""
	}
}

var bareWord = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:._-]*$`)

// shellWord quotes a word for the shell where it needs that.
func shellWord(s string) string {
	if s = clean(s); bareWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
