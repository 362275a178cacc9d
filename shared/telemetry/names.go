package telemetry

// Namespace is the CloudWatch namespace of this system's metrics.
const Namespace = "SubscriptionReconciliation"

// NamespaceOf returns the namespace of a stage; "" is the stage without a name.
func NamespaceOf(stage string) string {
	if stage == "" {
		return Namespace
	}
	return Namespace + "/" + stage
}

// Metrics of a run over all organizations, emitted once, when the run ends, without dimensions. Runs over one
// organization and dry runs emit none: a person starts them and sees the result.
const (
	MetricOrganizations = "Organizations"
	MetricSynchronized  = "Synchronized"
	MetricErrors        = "Errors"
	MetricSkipped       = "Skipped"
	MetricPending       = "Pending"
	MetricWithheld      = "Withheld" // of the errors, those that the guard withheld
	MetricDowngrades    = "Downgrades"
	MetricRunDuration   = "RunDuration" // milliseconds
	MetricOrphans       = "Orphans"

	// One of these is 1 if the run has that status. A catch-up that could not read all events is suspect.
	MetricRunIncomplete = "RunIncomplete"
	MetricRunSuspect    = "RunSuspect"
	MetricRunStopped    = "RunStopped"

	// MetricAccessDrift counts organizations with drift in tier, status or subscription id, MetricDetailDrift
	// those with drift in other fields only.
	MetricAccessDrift          = "AccessDrift"
	MetricDetailDrift          = "DetailDrift"
	MetricTierMetadataMismatch = "TierMetadataMismatch" // organizations with that warning

	// Requests to Stripe. The first three include the throttled ones.
	MetricStripeList      = "StripeListRequests"
	MetricStripeRetrieve  = "StripeRetrieveRequests"
	MetricStripeOther     = "StripeOtherRequests"
	MetricStripeThrottled = "StripeThrottled"
)

// MetricFieldDrift counts the changes of one field, the value of DimensionField. It is emitted for zero too.
const (
	MetricFieldDrift = "FieldDrift"
	DimensionField   = "Field"
)

// MetricLastRunAge is the number of seconds since a run over all organizations last completed, emitted at each tick.
// Before the first run it counts from the creation of this system's tables.
const MetricLastRunAge = "LastRunAge"

// MetricRunsToArchive counts the runs without a current report in the archive, emitted at each tick if there is an
// archive.
const MetricRunsToArchive = "RunsToArchive"

// Metrics of catch-ups, without dimensions.
const (
	// MetricCatchUpAccessDrift counts the organizations of a catch-up with drift in tier, status or subscription
	// id, repaired or withheld, emitted when it ends. Dry runs emit none.
	MetricCatchUpAccessDrift = "CatchUpAccessDrift"
	// MetricCatchUpAge is the number of seconds since a catch-up last succeeded, emitted at each tick. Before the
	// first one it counts from the creation of this system's tables.
	MetricCatchUpAge = "CatchUpAge"
	// MetricRepairUndone counts the organizations whose repair was undone within a day.
	MetricRepairUndone = "RepairUndone"
)

// Metrics of announcements on the application's event bus.
const (
	// Emitted after each send: how many announcements the bus accepted and refused.
	MetricAnnounced          = "Announced"
	MetricAnnouncementErrors = "AnnouncementErrors"
	// Emitted at each tick: the number of waiting announcements, and the age of the oldest in seconds.
	MetricOutboxSize = "OutboxSize"
	MetricOutboxAge  = "OutboxAge"
)

// Emitted is a metric that the functions write.
type Emitted struct {
	Name       string
	Dimensions []string // names
}

// All returns every metric, for alarms and dashboards.
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
