package billing_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func TestRepairCountsAsUndoneIfTheSameChangeIsPlannedAgain(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	tier := func(from, to any) billing.Change {
		return billing.Change{Field: billing.FieldPlanTier, From: from, To: to}
	}
	ends := func(from, to any) billing.Change {
		return billing.Change{Field: billing.FieldEndedAt, From: from, To: to}
	}
	made := func(run string, hour int, changes ...billing.Change) billing.Repair {
		return billing.Repair{RunID: run, At: at.Add(time.Duration(hour) * time.Hour), Changes: changes}
	}
	for name, c := range map[string]struct {
		plan    []billing.Change
		repairs []billing.Repair
		undone  []billing.Change
		by      string
	}{
		"nothing was repaired":       {plan: []billing.Change{tier("pro", "free")}},
		"the same change":            {[]billing.Change{tier("pro", "free"), ends(nil, at)}, []billing.Repair{made("1", 0, tier("pro", "free"))}, []billing.Change{tier("pro", "free")}, "1"},
		"a time in another zone":     {[]billing.Change{ends(nil, at)}, []billing.Repair{made("1", 0, ends(nil, at.In(time.FixedZone("", 3600))))}, []billing.Change{ends(nil, at)}, "1"},
		"from another value":         {[]billing.Change{tier("max", "free")}, []billing.Repair{made("1", 0, tier("pro", "free"))}, nil, ""},
		"to another value":           {[]billing.Change{tier("pro", "starter")}, []billing.Repair{made("1", 0, tier("pro", "free"))}, nil, ""},
		"the other way":              {[]billing.Change{tier("free", "pro")}, []billing.Repair{made("1", 0, tier("pro", "free"))}, nil, ""},
		"another column":             {[]billing.Change{tier("pro", "free")}, []billing.Repair{made("1", 0, billing.Change{Field: billing.FieldOrgTier, From: "pro", To: "free"})}, nil, ""},
		"the latest of several":      {[]billing.Change{tier("pro", "free")}, []billing.Repair{made("2", 2, tier("pro", "free")), made("3", 3, ends(nil, at)), made("1", 1, tier("pro", "free"))}, []billing.Change{tier("pro", "free")}, "2"},
		"Stripe went back and forth": {[]billing.Change{tier("pro", "free")}, []billing.Repair{made("1", 1, tier("pro", "free")), made("2", 2, tier("free", "pro"))}, nil, ""},
		"written twice in one":       {[]billing.Change{tier("pro", "free")}, []billing.Repair{made("1", 0, tier("pro", "starter"), ends(nil, at), tier("starter", "free"))}, []billing.Change{tier("pro", "free")}, "1"},
		"taken back in the same one": {[]billing.Change{tier("pro", "free")}, []billing.Repair{made("1", 0, tier("pro", "free"), tier("free", "pro"))}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			undone, by := billing.Undone(c.plan, c.repairs)
			if diff := cmp.Diff(c.undone, undone); diff != "" || by.RunID != c.by {
				t.Errorf("by %q, want %q (-want +got):\n%s", by.RunID, c.by, diff)
			}
		})
	}
}

// A stored repair has the changes that the same plan would make again.
func TestStoredRepairIsRecognizedAsTheSameChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plan, err := genSituation().Draw(t, "situation").plan()
		if err != nil || len(plan.Changes) == 0 {
			t.Skip()
		}
		text, err := json.Marshal(plan.Changes)
		if err != nil {
			t.Fatal(err)
		}
		var kept []billing.Change
		if err := json.Unmarshal(text, &kept); err != nil {
			t.Fatal(err)
		}
		undone, _ := billing.Undone(plan.Changes, []billing.Repair{{RunID: "1", At: readAt, Changes: kept}})
		if diff := cmp.Diff(plan.Changes, undone); diff != "" {
			t.Errorf("(-plan +undone):\n%s", diff)
		}
	})
}
