package telemetry

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
