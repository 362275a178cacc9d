package pipeline

import (
	"errors"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// emitRun writes the metrics of a closed run. The counts of errors, warnings and access drift exclude what somebody
// accepted, because that must not raise an alarm.
func emitRun(m *telemetry.Metrics, s billing.Summary, drift billing.Drift) error {
	problems := []error{m.Emit(nil,
		telemetry.Count(telemetry.MetricOrganizations, s.TotalOrganizations),
		telemetry.Count(telemetry.MetricSynchronized, s.Synchronized),
		telemetry.Count(telemetry.MetricErrors, s.Errors-s.AcceptedErrors),
		telemetry.Count(telemetry.MetricSkipped, s.Skipped),
		telemetry.Count(telemetry.MetricPending, s.Pending),
		telemetry.Count(telemetry.MetricWithheld, s.Unaccepted(billing.ReasonWithheld)+s.Unaccepted(billing.ReasonNotRepeated)),
		telemetry.Count(telemetry.MetricDowngrades, s.Downgrades),
		telemetry.Metric{Name: telemetry.MetricRunDuration, Unit: telemetry.UnitMilliseconds, Value: float64(s.DurationMs)},
		telemetry.Count(telemetry.MetricOrphans, s.OrphansTotal),
		telemetry.CountIf(telemetry.MetricRunIncomplete, s.Status == billing.RunIncomplete),
		telemetry.CountIf(telemetry.MetricRunSuspect, s.Status == billing.RunSuspect),
		telemetry.CountIf(telemetry.MetricRunStopped, s.Status == billing.RunStopped),
		telemetry.Count(telemetry.MetricAccessDrift, drift.Access),
		telemetry.Count(telemetry.MetricDetailDrift, drift.Detail),
		telemetry.Count(telemetry.MetricTierMetadataMismatch, drift.Warnings[billing.WarnTierMetadataMismatch]),
		telemetry.Count(telemetry.MetricRepairUndone, drift.Warnings[billing.WarnRepairUndone]),
		telemetry.Count(telemetry.MetricStripeList, int(s.StripeRequests.List)),
		telemetry.Count(telemetry.MetricStripeRetrieve, int(s.StripeRequests.Retrieve)),
		telemetry.Count(telemetry.MetricStripeOther, int(s.StripeRequests.Other)),
		telemetry.Count(telemetry.MetricStripeThrottled, int(s.StripeRequests.Throttled)),
	)}
	for _, field := range billing.Fields() {
		dimension := []telemetry.Dimension{{Name: telemetry.DimensionField, Value: field}}
		problems = append(problems, m.Emit(dimension, telemetry.Count(telemetry.MetricFieldDrift, drift.ByField[field])))
	}
	return errors.Join(problems...)
}

// emitCatchUp writes the metrics of a closed catch-up. It reports a suspect catch-up as 1 and never reports 0: the next
// catch-up does not make up for it.
func emitCatchUp(m *telemetry.Metrics, s billing.Summary, drift billing.Drift) error {
	metrics := []telemetry.Metric{
		telemetry.Count(telemetry.MetricCatchUpAccessDrift, drift.Access),
		telemetry.Count(telemetry.MetricRepairUndone, drift.Warnings[billing.WarnRepairUndone]),
	}
	if s.Status != billing.RunStopped && s.StatusReason != "" {
		metrics = append(metrics, telemetry.Count(telemetry.MetricRunSuspect, 1))
	}
	return m.Emit(nil, metrics...)
}
