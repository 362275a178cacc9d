package telemetry

// Namespace is where CloudWatch shows this system's metrics.
const Namespace = "SubscriptionReconciliation"

// NamespaceOf returns where those of a stage are shown; "" is the stage without a name.
func NamespaceOf(stage string) string {
	if stage == "" {
		return Namespace
	}
	return Namespace + "/" + stage
}

// Metrics of a run over all organizations that writes, emitted once, when it ends, without
// dimensions. Runs over one organization and dry runs emit none: whoever starts one looks at it.
const (
	MetricOrganizations = "Organizations"
	MetricSynchronized  = "Synchronized"
	MetricErrors        = "Errors"
	MetricSkipped       = "Skipped"
	MetricPending       = "Pending"
	MetricWithheld      = "Withheld" // of the errors, those the guard held back
	MetricDowngrades    = "Downgrades"
	MetricRunDuration   = "RunDuration" // milliseconds
	MetricOrphans       = "Orphans"

	// One of these is 1 where the run ended so, else 0. A catch-up that could not see everything is suspect.
	MetricRunIncomplete = "RunIncomplete"
	MetricRunSuspect    = "RunSuspect"
	MetricRunStopped    = "RunStopped"

	// MetricAccessDrift counts organizations whose tier, status or subscription id had drifted,
	// MetricDetailDrift those where only something else had.
	MetricAccessDrift          = "AccessDrift"
	MetricDetailDrift          = "DetailDrift"
	MetricTierMetadataMismatch = "TierMetadataMismatch" // organizations with that warning

	// Requests to Stripe; the throttled ones are counted in the others too.
	MetricStripeList      = "StripeListRequests"
	MetricStripeRetrieve  = "StripeRetrieveRequests"
	MetricStripeOther     = "StripeOtherRequests"
	MetricStripeThrottled = "StripeThrottled"
)

// MetricFieldDrift counts the changes of one field, the value of DimensionField, zero included.
const (
	MetricFieldDrift = "FieldDrift"
	DimensionField   = "Field"
)

// MetricLastRunAge is emitted at each tick: seconds since a run over all organizations completed;
// before the first one, since this system's tables were created.
const MetricLastRunAge = "LastRunAge"

// MetricRunsToArchive is emitted at each tick where reports are archived: runs whose reports are not, or not as
// they were amended last.
const MetricRunsToArchive = "RunsToArchive"

// Metrics of catch-ups, without dimensions. Those of a full run say nothing of a catch-up.
const (
	// MetricCatchUpAccessDrift is emitted when a catch-up ends: its organizations whose tier, status or
	// subscription id had drifted, repaired or withheld. Dry runs emit none.
	MetricCatchUpAccessDrift = "CatchUpAccessDrift"
	// MetricCatchUpAge is emitted at each tick: seconds since a catch-up last ended well; before the first
	// one, since this system's tables were created.
	MetricCatchUpAge = "CatchUpAge"
	// MetricRepairUndone counts organizations whose repair something undid within a day.
	MetricRepairUndone = "RepairUndone"
)

// Metrics of what is announced on the application's event bus.
const (
	// Of each time that something was sent: how many announcements were accepted, and how many were not.
	MetricAnnounced          = "Announced"
	MetricAnnouncementErrors = "AnnouncementErrors"
	// Of each tick: how many wait, and for how long the first of them does, in seconds.
	MetricOutboxSize = "OutboxSize"
	MetricOutboxAge  = "OutboxAge"
)

// Emitted is a metric that the functions write.
type Emitted struct {
	Name       string
	Dimensions []string // names; none: the metric stands alone
}

// All returns every metric of this system, for who builds alarms and dashboards on them.
func All() []Emitted {
	all := []Emitted{{Name: MetricFieldDrift, Dimensions: []string{DimensionField}}}
	for _, name := range []string{
		MetricOrganizations, MetricSynchronized, MetricErrors, MetricSkipped, MetricPending, MetricWithheld, MetricDowngrades,
		MetricRunDuration, MetricOrphans, MetricRunIncomplete, MetricRunSuspect, MetricRunStopped,
		MetricAccessDrift, MetricDetailDrift, MetricTierMetadataMismatch,
		MetricStripeList, MetricStripeRetrieve, MetricStripeOther, MetricStripeThrottled, MetricLastRunAge, MetricRunsToArchive,
		MetricCatchUpAccessDrift, MetricCatchUpAge, MetricRepairUndone,
		MetricAnnounced, MetricAnnouncementErrors, MetricOutboxSize, MetricOutboxAge,
	} {
		all = append(all, Emitted{Name: name})
	}
	return all
}
