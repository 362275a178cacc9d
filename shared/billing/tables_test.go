package billing_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// fits returns what is wrong with writing the value to the column.
func fits(c billing.Column, value any) string {
	switch v := value.(type) {
	case nil:
		if !c.Null {
			return "NULL"
		}
	case string:
		switch {
		case c.Kind != billing.KindText:
			return "text"
		case c.Values != nil && !slices.Contains(c.Values, v):
			return "a value that the column is not said to need"
		case utf8.RuneCountInString(v) > billing.MaxIDLength:
			return "too long a text"
		}
	case bool:
		if c.Kind != billing.KindFlag {
			return "a flag"
		}
	case time.Time:
		if c.Kind != billing.KindTime {
			return "a time"
		}
	}
	return ""
}

func TestWhateverIsPlannedFitsTheColumns(t *testing.T) {
	all := rules.Tiers.Columns()
	rapid.Check(t, func(t *rapid.T) {
		plan, err := genSituation().Draw(t, "situation").plan()
		if err != nil {
			return
		}
		for _, c := range plan.Changes {
			i := slices.IndexFunc(all, func(column billing.Column) bool { return column.Field == c.Field })
			if i < 0 {
				t.Fatalf("%s is no column", c.Field)
			}
			if wrong := fits(all[i], c.To); wrong != "" {
				t.Errorf("%s was given %s: %v", c.Field, wrong, c.To)
			}
		}
	})
}

func TestColumnsSayWhatIsWrittenAndNoMore(t *testing.T) {
	written, null := map[string]map[any]bool{}, map[string]bool{}
	for _, status := range statuses {
		for _, tier := range []string{"price_starter", "price_pro", "price_max"} {
			s := subscription("sub_1", status, of(tier))
			_, bare := everything()
			bare.Org.Tier, bare.Org.Status, bare.Rows[0].Tier, bare.Rows[0].Status = "?", "?", "?", "?"
			plan, err := rules.Plan(truth(s), bare)
			if err != nil {
				continue
			}
			for _, c := range plan.Changes {
				if c.To == nil {
					null[c.Field] = true
					continue
				}
				if written[c.Field] == nil {
					written[c.Field] = map[any]bool{}
				}
				written[c.Field][c.To] = true
			}
		}
	}
	for _, c := range rules.Tiers.Columns() {
		for _, value := range c.Values {
			if !written[c.Field][value] {
				t.Errorf("%s is said to need %q, which nothing writes", c.Field, value)
			}
		}
		if c.Null != null[c.Field] {
			t.Errorf("%s: NULL is written %t, said to be %t", c.Field, null[c.Field], c.Null)
		}
	}
}

func TestNullInARequiredColumnIsRefusedByName(t *testing.T) {
	s, record := everything()
	record.Nulls = []string{billing.FieldOrgTier, "subscriptions.created_at"}
	plan, err := rules.Plan(truth(s), record)
	f, ok := errors.AsType[*billing.Failure](err)
	if !ok || f.Class != billing.Permanent || f.Reason != billing.ReasonInvalidRecord || len(plan.Changes) != 0 {
		t.Fatalf("%+v, %v", plan, err)
	}
	for _, part := range append(record.Nulls, org, "NULL") {
		if !strings.Contains(f.Error(), part) {
			t.Errorf("no %q in %q", part, f)
		}
	}
	if _, settled := rules.InSync(truth(s), record); settled {
		t.Error("it counts as in sync")
	}
	record.Org.Deleted = true
	if plan, err := rules.Plan(truth(s), record); err != nil || plan.Reason != billing.ReasonOrganizationDeleted {
		t.Errorf("a deleted one: %+v, %v", plan, err)
	}
}
