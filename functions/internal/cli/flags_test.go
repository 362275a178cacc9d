package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
)

func TestSinceFlagTakesDurationOrTime(t *testing.T) {
	now := time.Date(2026, time.November, 29, 2, 13, 5, 678, time.UTC)
	for text, want := range map[string]string{
		"2h":                        "2026-11-29T00:13:05Z",
		"90m":                       "2026-11-29T00:43:05Z",
		"1h30m":                     "2026-11-29T00:43:05Z",
		"3d":                        "2026-11-26T02:13:05Z",
		"2026-11-22T03:00:00Z":      "2026-11-22T03:00:00Z",
		"2026-11-22T03:00:00+02:00": "2026-11-22T01:00:00Z",
		"2026-11-22T03:00Z":         "2026-11-22T03:00:00Z",
		"2026-11-22":                "2026-11-22T00:00:00Z",
	} {
		got, err := parseTime(text, now)
		if err != nil || got.Format(time.RFC3339) != want || got.Location() != time.UTC {
			t.Errorf("%s is %v, %v; want %s", text, got, err, want)
		}
	}
	for text, says := range map[string]string{
		"yesterday": "such as 2h or 3d", "0h": "such as 2h", "-2h": "such as 2h", "2": "such as 2h", "d": "such as 2h", "-1d": "such as 2h", "99999d": "such as 2h",
		"2026-11-29T03:00:00Z": "in the future", "03:00": "nor a time",
	} {
		if at, err := parseTime(text, now); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s is %v, %v", text, at, err)
		}
	}
}

func TestSinceFlagNeedsANewCatchUp(t *testing.T) {
	given := SinceFlag{At: time.Now()}
	for name, c := range map[string]struct {
		reading     StrategyFlags
		org, resume string
		says        string
	}{
		"nothing":          {},
		"a strategy":       {reading: StrategyFlags{Strategy: "retrieve"}, org: "org-1"},
		"since 29 days":    {reading: StrategyFlags{Strategy: "events", Since: SinceFlag{At: time.Now().Add(-29 * 24 * time.Hour)}}},
		"since 30 days":    {reading: StrategyFlags{Strategy: "events", Since: SinceFlag{At: time.Now().Add(-30 * 24 * time.Hour)}}, says: "719h is the most"},
		"a catch-up":       {reading: StrategyFlags{Strategy: "events", Since: given}},
		"a resumed one":    {reading: StrategyFlags{Strategy: "events"}, resume: "RUN"},
		"unknown":          {reading: StrategyFlags{Strategy: "guess"}, says: "there are sweep, retrieve, events"},
		"of one":           {reading: StrategyFlags{Strategy: "events"}, org: "org-1", says: "leave it out for one organization"},
		"no catch-up":      {reading: StrategyFlags{Since: given}, says: "add --strategy events"},
		"another strategy": {reading: StrategyFlags{Strategy: "sweep", Since: given}, says: "add --strategy events"},
		"a run that began": {reading: StrategyFlags{Strategy: "events", Since: given}, resume: "RUN", says: "leave out --since"},
	} {
		err := c.reading.Check(c.org, c.resume)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestErrorsAndSummaryAreRefusedTogether(t *testing.T) {
	if err := CheckView(output.View{OnlyErrors: true, OnlyFigures: true}); err == nil {
		t.Error("--errors and --summary were both taken")
	}
}
