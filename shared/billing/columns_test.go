package billing_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// everything is a subscription that sets every column, and the record that agrees with it.
func everything() (billing.Subscription, billing.Record) {
	s := subscription("sub_1", "past_due", func(s *billing.Subscription) {
		s.TrialEnd, s.CanceledAt, s.EndedAt, s.CancelAtPeriodEnd = trialEnd, canceledAt, endedAt, true
	})
	record := recorded("sub_1", func(r *billing.Row) {
		r.Status, r.CancelAtPeriodEnd = "past_due", ptr(true)
		r.TrialEnd, r.CanceledAt, r.EndedAt = ptr(trialEnd), ptr(canceledAt), ptr(endedAt)
	})
	record.Org.Status, record.Org.TrialEndsAt = "past_due", ptr(trialEnd)
	return s, record
}

func TestEveryColumnAloneIsOneChange(t *testing.T) {
	wrong := time.Date(2020, time.May, 1, 12, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		alter func(*billing.Organization, *billing.Row)
		want  billing.Change
	}{
		// subscriptions.stripe_subscription_id follows below: it decides what governs.
		"customer":                {func(_ *billing.Organization, r *billing.Row) { r.CustomerID = ptr("cus_2") }, billing.Change{Field: "subscriptions.stripe_customer_id", From: "cus_2", To: "cus_1"}},
		"customer in odd case":    {func(_ *billing.Organization, r *billing.Row) { r.CustomerID = ptr("CUS_1") }, billing.Change{Field: "subscriptions.stripe_customer_id", From: "CUS_1", To: "cus_1"}},
		"no customer":             {func(_ *billing.Organization, r *billing.Row) { r.CustomerID = nil }, billing.Change{Field: "subscriptions.stripe_customer_id", To: "cus_1"}},
		"empty customer":          {func(_ *billing.Organization, r *billing.Row) { r.CustomerID = ptr("") }, billing.Change{Field: "subscriptions.stripe_customer_id", From: "", To: "cus_1"}},
		"price":                   {func(_ *billing.Organization, r *billing.Row) { r.PriceID = ptr("price_max") }, billing.Change{Field: "subscriptions.stripe_price_id", From: "price_max", To: "price_pro"}},
		"no price":                {func(_ *billing.Organization, r *billing.Row) { r.PriceID = nil }, billing.Change{Field: "subscriptions.stripe_price_id", To: "price_pro"}},
		"tier":                    {func(_ *billing.Organization, r *billing.Row) { r.Tier = "max" }, billing.Change{Field: "subscriptions.plan_tier", From: "max", To: "pro"}},
		"unknown tier":            {func(_ *billing.Organization, r *billing.Row) { r.Tier = "gold" }, billing.Change{Field: "subscriptions.plan_tier", From: "gold", To: "pro"}},
		"status":                  {func(_ *billing.Organization, r *billing.Row) { r.Status = "active" }, billing.Change{Field: "subscriptions.status", From: "active", To: "past_due"}},
		"unknown status":          {func(_ *billing.Organization, r *billing.Row) { r.Status = "dormant" }, billing.Change{Field: "subscriptions.status", From: "dormant", To: "past_due"}},
		"period start":            {func(_ *billing.Organization, r *billing.Row) { r.CurrentPeriodStart = &wrong }, billing.Change{Field: "subscriptions.current_period_start", From: wrong, To: periodStart}},
		"no period start":         {func(_ *billing.Organization, r *billing.Row) { r.CurrentPeriodStart = nil }, billing.Change{Field: "subscriptions.current_period_start", To: periodStart}},
		"period end":              {func(_ *billing.Organization, r *billing.Row) { r.CurrentPeriodEnd = &wrong }, billing.Change{Field: "subscriptions.current_period_end", From: wrong, To: periodEnd}},
		"no period end":           {func(_ *billing.Organization, r *billing.Row) { r.CurrentPeriodEnd = nil }, billing.Change{Field: "subscriptions.current_period_end", To: periodEnd}},
		"trial end":               {func(_ *billing.Organization, r *billing.Row) { r.TrialEnd = &wrong }, billing.Change{Field: "subscriptions.trial_end", From: wrong, To: trialEnd}},
		"no trial end":            {func(_ *billing.Organization, r *billing.Row) { r.TrialEnd = nil }, billing.Change{Field: "subscriptions.trial_end", To: trialEnd}},
		"cancel at period end":    {func(_ *billing.Organization, r *billing.Row) { r.CancelAtPeriodEnd = ptr(false) }, billing.Change{Field: "subscriptions.cancel_at_period_end", From: false, To: true}},
		"no cancel at period end": {func(_ *billing.Organization, r *billing.Row) { r.CancelAtPeriodEnd = nil }, billing.Change{Field: "subscriptions.cancel_at_period_end", To: true}},
		"canceled at":             {func(_ *billing.Organization, r *billing.Row) { r.CanceledAt = &wrong }, billing.Change{Field: "subscriptions.canceled_at", From: wrong, To: canceledAt}},
		"no canceled at":          {func(_ *billing.Organization, r *billing.Row) { r.CanceledAt = nil }, billing.Change{Field: "subscriptions.canceled_at", To: canceledAt}},
		"ended at":                {func(_ *billing.Organization, r *billing.Row) { r.EndedAt = &wrong }, billing.Change{Field: "subscriptions.ended_at", From: wrong, To: endedAt}},
		"no ended at":             {func(_ *billing.Organization, r *billing.Row) { r.EndedAt = nil }, billing.Change{Field: "subscriptions.ended_at", To: endedAt}},
		"one second late":         {func(_ *billing.Organization, r *billing.Row) { r.EndedAt = ptr(endedAt.Add(time.Second)) }, billing.Change{Field: "subscriptions.ended_at", From: endedAt.Add(time.Second), To: endedAt}},

		"organization's customer":     {func(o *billing.Organization, _ *billing.Row) { o.CustomerID = ptr("cus_2") }, billing.Change{Field: "organizations.stripe_customer_id", From: "cus_2", To: "cus_1"}},
		"organization's no customer":  {func(o *billing.Organization, _ *billing.Row) { o.CustomerID = nil }, billing.Change{Field: "organizations.stripe_customer_id", To: "cus_1"}},
		"organization's tier":         {func(o *billing.Organization, _ *billing.Row) { o.Tier = "free" }, billing.Change{Field: "organizations.subscription_tier", From: "free", To: "pro"}},
		"organization's empty tier":   {func(o *billing.Organization, _ *billing.Row) { o.Tier = "" }, billing.Change{Field: "organizations.subscription_tier", From: "", To: "pro"}},
		"organization's status":       {func(o *billing.Organization, _ *billing.Row) { o.Status = "incomplete" }, billing.Change{Field: "organizations.subscription_status", From: "incomplete", To: "past_due"}},
		"organization's trial end":    {func(o *billing.Organization, _ *billing.Row) { o.TrialEndsAt = &wrong }, billing.Change{Field: "organizations.trial_ends_at", From: wrong, To: trialEnd}},
		"organization's no trial end": {func(o *billing.Organization, _ *billing.Row) { o.TrialEndsAt = nil }, billing.Change{Field: "organizations.trial_ends_at", To: trialEnd}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, record := everything()
			tt.alter(&record.Org, &record.Rows[0])
			assertChanges(t, mustPlan(t, rules, truth(s), record), tt.want)
		})
	}
}

func TestSubscriptionIDAloneIsOneChange(t *testing.T) {
	for name, from := range map[string]*string{"another": ptr("sub_0"), "empty": ptr(""), "NULL": nil} {
		t.Run(name, func(t *testing.T) {
			s, record := everything()
			record.Rows[0].SubscriptionID = from
			want := billing.Change{Field: "subscriptions.stripe_subscription_id", To: "sub_1"}
			if from != nil {
				want.From = *from
			}
			assertChanges(t, mustPlan(t, rules, truth(s), record), want)
		})
	}
}

func TestWhatStripeDoesNotHaveBecomesNull(t *testing.T) {
	tests := map[string]struct {
		alter func(*billing.Subscription)
		want  []billing.Change
	}{
		"trial end": {
			func(s *billing.Subscription) { s.TrialEnd = time.Time{} },
			[]billing.Change{{Field: "subscriptions.trial_end", From: trialEnd}, {Field: "organizations.trial_ends_at", From: trialEnd}},
		},
		"canceled at": {
			func(s *billing.Subscription) { s.CanceledAt = time.Time{} },
			[]billing.Change{{Field: "subscriptions.canceled_at", From: canceledAt}},
		},
		"ended at": {
			func(s *billing.Subscription) { s.EndedAt = time.Time{} },
			[]billing.Change{{Field: "subscriptions.ended_at", From: endedAt}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, record := everything()
			tt.alter(&s)
			assertChanges(t, mustPlan(t, rules, truth(s), record), tt.want...)
		})
	}
}

func TestZeroDateInARowIsDrift(t *testing.T) {
	record := recorded("sub_1", func(r *billing.Row) { r.EndedAt = &time.Time{} })
	assertChanges(t, mustPlan(t, rules, truth(subscription("sub_1", "active")), record),
		billing.Change{Field: "subscriptions.ended_at", From: time.Time{}})
}

func TestTimesAreComparedAsInstantsToTheSecond(t *testing.T) {
	tests := map[string]func(time.Time) *time.Time{
		"the same":          func(at time.Time) *time.Time { return &at },
		"later by less":     func(at time.Time) *time.Time { return ptr(at.Add(999_999_999)) },
		"another time zone": func(at time.Time) *time.Time { return ptr(at.In(time.FixedZone("Tokyo", 9*3600))) },
		"half-hour zone": func(at time.Time) *time.Time {
			return ptr(at.Add(time.Millisecond).In(time.FixedZone("Adelaide", 34200)))
		},
	}
	for name, as := range tests {
		t.Run(name, func(t *testing.T) {
			s, record := everything()
			r := &record.Rows[0]
			r.CurrentPeriodStart, r.CurrentPeriodEnd = as(periodStart), as(periodEnd)
			r.TrialEnd, r.CanceledAt, r.EndedAt = as(trialEnd), as(canceledAt), as(endedAt)
			record.Org.TrialEndsAt = as(trialEnd)
			assertChanges(t, mustPlan(t, rules, truth(s), record))

			// and the other way round
			s.CurrentPeriodStart, s.CurrentPeriodEnd = *as(periodStart), *as(periodEnd)
			s.TrialEnd, s.CanceledAt, s.EndedAt = *as(trialEnd), *as(canceledAt), *as(endedAt)
			_, record = everything()
			assertChanges(t, mustPlan(t, rules, truth(s), record))
		})
	}
}

func TestChangesHoldWholeSecondsOfUTC(t *testing.T) {
	tokyo := time.FixedZone("Tokyo", 9*3600)
	record := recorded("sub_1", func(r *billing.Row) {
		r.CurrentPeriodEnd = ptr(periodEnd.Add(-time.Hour + 123*time.Millisecond).In(tokyo))
	})
	s := subscription("sub_1", "active", func(s *billing.Subscription) { s.CurrentPeriodEnd = periodEnd.Add(time.Millisecond).In(tokyo) })
	plan := mustPlan(t, rules, truth(s), record)
	assertChanges(t, plan, billing.Change{Field: billing.FieldCurrentPeriodEnd, From: periodEnd.Add(-time.Hour), To: periodEnd})
	for _, at := range []any{plan.Changes[0].From, plan.Changes[0].To} {
		if at.(time.Time).Location() != time.UTC {
			t.Errorf("%v is not in UTC", at)
		}
	}
}

func TestOtherColumnsAreNotLookedAt(t *testing.T) {
	s, record := everything()
	record.Rows[0].CreatedAt, record.Rows[0].UpdatedAt = time.Time{}, readAt
	record.Org.UpdatedAt = readAt
	s.Created = created.Add(-time.Hour)
	assertChanges(t, mustPlan(t, rules, truth(s), record))
}

func assertChanges(t *testing.T, plan billing.Plan, want ...billing.Change) {
	t.Helper()
	if diff := cmp.Diff(want, plan.Changes, samePlan); diff != "" {
		t.Errorf("changes (-want +got)\n%s", diff)
	}
	outcome, reason := billing.OutcomeSynced, billing.ReasonRepaired
	if len(want) == 0 {
		outcome, reason = billing.OutcomeSkipped, billing.ReasonInSync
	}
	if plan.Outcome != outcome || plan.Reason != reason {
		t.Errorf("outcome = %s %s, want %s %s", plan.Outcome, plan.Reason, outcome, reason)
	}
}
