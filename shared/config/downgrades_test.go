package config_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

func TestLimitIsANumberOrAPercentageOfTheListed(t *testing.T) {
	for _, test := range []struct {
		text   string
		listed int
		want   int
	}{
		{"", 0, 10},
		{"", 199, 10},
		{"", 200, 10},
		{"", 219, 10},
		{"", 220, 11},
		{"", 50_000, 2_500},
		{"25", 10, 25},
		{"0", 10_000, 0},
		{"5%", 0, 0},
		{"5%", 19, 1}, // a run over one organization must be able to repair it
		{"5%", 1, 1},
		{"0%", 100, 0},
		{"5%", 20, 1},
		{"0.29%", 10_000, 29},
		{"100%", 12_345, 12_345},
	} {
		limit := mustLoad(t, map[string]string{"MAX_DOWNGRADES": test.text}).MaxDowngrades
		if got := limit.Limit(test.listed); got != test.want {
			t.Errorf("Limit(%d) of %q = %d, want %d", test.listed, test.text, got, test.want)
		}
	}
}

func TestLimitPrintsAsMaxDowngradesIsWritten(t *testing.T) {
	for text, want := range map[string]string{
		"": "the larger of 10 and 5%", "25": "25", "5%": "5%", "2.50 %": "2.5%",
	} {
		if got := mustLoad(t, map[string]string{"MAX_DOWNGRADES": text}).MaxDowngrades.String(); got != want {
			t.Errorf("%q prints as %q, want %q", text, got, want)
		}
	}
}

func TestPercentageIsMonotonicAndAtMostTheListed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[0-9]{1,2}(\.[0-9]{1,2})?%`).Draw(t, "text")
		listed := rapid.IntRange(0, 1<<40).Draw(t, "listed")
		var limit config.DowngradeLimit
		if err := limit.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		got := limit.Limit(listed)
		if got < 0 || got > listed || limit.Limit(listed+1) < got {
			t.Fatalf("%s of %d = %d", text, listed, got)
		}
	})
}
