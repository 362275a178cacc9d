package billing_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func TestUnusableTextIsRefused(t *testing.T) {
	fields := map[string]func(*billing.Subscription) *string{
		"id":       func(s *billing.Subscription) *string { return &s.ID },
		"customer": func(s *billing.Subscription) *string { return &s.CustomerID },
		"price":    func(s *billing.Subscription) *string { return &s.Items[0].PriceID },
	}
	values := map[string]struct {
		value string
		says  string // "" where it is fine
	}{
		"empty":            {"", "is empty"},
		"120 characters":   {strings.Repeat("x", 120), ""},
		"120 of two bytes": {strings.Repeat("é", 120), ""},
		"121 characters":   {strings.Repeat("x", 121), "is longer than"},
		"10000 characters": {strings.Repeat("x", 10_000), "is longer than"},
	}
	for field, of := range fields {
		for name, tt := range values {
			t.Run(field+" "+name, func(t *testing.T) {
				s := subscription("sub_1", "active", ofOrg(org), func(s *billing.Subscription) { s.MetadataTier = "pro" })
				*of(&s) = tt.value
				assertInvalid(t, s, field, tt.says)
			})
		}
	}
}

func TestDatesThatATimestampCannotHoldAreRefused(t *testing.T) {
	last := time.Date(2038, time.January, 19, 3, 14, 7, 0, time.UTC)
	fields := map[string]struct {
		of       func(*billing.Subscription) *time.Time
		required bool
	}{
		"created":              {func(s *billing.Subscription) *time.Time { return &s.Created }, true},
		"current_period_start": {func(s *billing.Subscription) *time.Time { return &s.CurrentPeriodStart }, true},
		"current_period_end":   {func(s *billing.Subscription) *time.Time { return &s.CurrentPeriodEnd }, true},
		"trial_end":            {func(s *billing.Subscription) *time.Time { return &s.TrialEnd }, false},
		"canceled_at":          {func(s *billing.Subscription) *time.Time { return &s.CanceledAt }, false},
		"ended_at":             {func(s *billing.Subscription) *time.Time { return &s.EndedAt }, false},
	}
	const outside = "outside what a MySQL TIMESTAMP holds"
	values := map[string]struct {
		at   time.Time
		says string // "" where it is fine
	}{
		"first second":                   {time.Unix(1, 0), ""},
		"zero":                           {time.Unix(0, 0), outside},
		"negative":                       {time.Unix(-1, 0), outside},
		"before the year 1":              {time.Unix(-1<<40, 0), outside},
		"last second":                    {last, ""},
		"last second in another zone":    {last.In(time.FixedZone("east", 7200)), ""},
		"one second later":               {last.Add(time.Second), outside},
		"year 2100":                      {time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), outside},
		"milliseconds taken for seconds": {time.Unix(1_700_000_000_000, 0), outside},
	}
	for field, f := range fields {
		for name, tt := range values {
			t.Run(field+" "+name, func(t *testing.T) {
				s := subscription("sub_1", "active")
				*f.of(&s) = tt.at
				assertInvalid(t, s, field, tt.says)
			})
		}
		t.Run(field+" missing", func(t *testing.T) {
			s := subscription("sub_1", "active", func(s *billing.Subscription) {
				s.TrialEnd, s.CanceledAt, s.EndedAt = trialEnd, canceledAt, endedAt
			})
			*f.of(&s) = time.Time{}
			says := ""
			if f.required {
				says = "is missing"
			}
			assertInvalid(t, s, field, says)
		})
	}
}

// assertInvalid fails the test unless the subscription is refused with a message that names the field and contains
// says. If says is empty, the subscription must not be refused.
func assertInvalid(t *testing.T, s billing.Subscription, field, says string) {
	t.Helper()
	plan, err := rules.Plan(truth(s), customerOnly())
	got := reasonOf(t, err)
	if says == "" {
		if got != "" || plan.GoverningID != s.ID {
			t.Errorf("Plan() = %+v, %v, want no error", plan, err)
		}
		return
	}
	if got != billing.ReasonInvalidSubscription || len(plan.Changes) > 0 {
		t.Fatalf("Plan() = %+v, %v, want invalid_subscription", plan, err)
	}
	for _, part := range []string{field + " ", says, "nothing was written"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}
