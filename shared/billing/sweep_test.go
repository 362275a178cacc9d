package billing_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// pageOf is a page of subscriptions created at these seconds, newest first.
func pageOf(more bool, seconds ...int64) billing.Page {
	p := billing.Page{More: more}
	for i, at := range seconds {
		p.Subscriptions = append(p.Subscriptions, billing.Subscription{ID: fmt.Sprintf("sub_%d_%d", at, i), Created: time.Unix(at, 0).UTC()})
	}
	return p
}

func TestARangeWithMuchLeftIsDivided(t *testing.T) {
	const newest = 1_700_000_000
	for name, test := range map[string]struct {
		r     billing.Range
		page  billing.Page
		split bool
	}{
		"everything":            {billing.Range{}, pageOf(true, newest, newest-1000), true},
		"many pages":            {billing.Range{From: newest - 10_000}, pageOf(true, newest, newest-1000), true},
		"few pages":             {billing.Range{From: newest - 4000}, pageOf(true, newest, newest-1000), false},
		"the last page":         {billing.Range{}, pageOf(false, newest, newest-1000), false},
		"an empty page":         {billing.Range{}, pageOf(false), false},
		"one second":            {billing.Range{From: newest, Before: newest + 1}, pageOf(true, newest, newest), false},
		"two seconds":           {billing.Range{From: newest - 1}, pageOf(true, newest, newest), false},
		"created before Stripe": {billing.Range{}, pageOf(true, 1_000_000_000, 999_999_000), false},
		"a page in disorder":    {billing.Range{}, pageOf(true, newest-1000, newest), false},
	} {
		t.Run(name, func(t *testing.T) {
			newer, older, ok := test.r.Split(test.page)
			if ok != test.split {
				t.Fatalf("divided: %t (%+v, %+v)", ok, newer, older)
			}
			if !ok && newer != test.r.Rest(test.page) {
				t.Errorf("the rest is %+v, want %+v", newer, test.r.Rest(test.page))
			}
		})
	}
}

// lister is a Stripe that holds subscriptions created at these seconds.
type lister []int64

func (l lister) page(r billing.Range, limit int) billing.Page {
	p := billing.Page{}
	for i, at := range l {
		id := fmt.Sprintf("sub_%d", i)
		if at < r.From || (r.Before > 0 && at >= r.Before) {
			continue
		}
		p.Subscriptions = append(p.Subscriptions, billing.Subscription{ID: id, Created: time.Unix(at, 0).UTC()})
	}
	slices.SortFunc(p.Subscriptions, func(a, b billing.Subscription) int {
		if d := b.Created.Compare(a.Created); d != 0 {
			return d
		}
		return -slices.Compare([]byte(a.ID), []byte(b.ID))
	})
	if r.StartingAfter != "" {
		i := slices.IndexFunc(p.Subscriptions, func(s billing.Subscription) bool { return s.ID == r.StartingAfter })
		p.Subscriptions = p.Subscriptions[i+1:]
	}
	p.More = len(p.Subscriptions) > limit
	p.Subscriptions = p.Subscriptions[:min(limit, len(p.Subscriptions))]
	return p
}

// TestDividedRangesSeeEverySubscriptionOnce reads ranges in any order, dividing whenever a range
// says so and somebody has room.
func TestDividedRangesSeeEverySubscriptionOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stripe := lister(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) int64 {
			around := rapid.SampledFrom([]int64{1, 1_299_999_999, 1_400_000_000, 1_700_000_000, 1_763_000_000, 4_000_000_000}).Draw(t, "around")
			return around + rapid.SampledFrom([]int64{0, 0, 1, 2, 59, 3600, 86_400, 5_000_000}).Draw(t, "offset")
		}), 0, 60).Draw(t, "created"))
		ranges := []billing.Range{{}}
		seen := map[string]int{}
		for len(ranges) > 0 {
			i := rapid.IntRange(0, len(ranges)-1).Draw(t, "next")
			r := ranges[i]
			page := stripe.page(r, 3)
			for _, s := range page.Subscriptions {
				seen[s.ID]++
			}
			switch newer, older, ok := r.Split(page); {
			case !page.More:
				ranges = slices.Delete(ranges, i, i+1)
			case ok && rapid.Bool().Draw(t, "somebody has room"):
				ranges[i] = newer
				ranges = append(ranges, older)
			default:
				ranges[i] = r.Rest(page)
			}
		}
		for i := range stripe {
			if id := fmt.Sprintf("sub_%d", i); seen[id] != 1 {
				t.Errorf("%s, created at %d, was seen %d times", id, stripe[i], seen[id])
			}
		}
	})
}

// There is a subscription in each second, so every edge between two ranges has one on both sides.
func TestDividingLosesNoSecond(t *testing.T) {
	const first, n = 1_700_000_000, 200
	stripe := lister{}
	for i := range int64(n) {
		stripe = append(stripe, first+i)
	}
	seen, divided := map[string]int{}, 0
	for ranges := []billing.Range{{From: first}}; len(ranges) > 0; {
		r := ranges[0]
		page := stripe.page(r, 3)
		for _, s := range page.Subscriptions {
			seen[s.ID]++
		}
		newer, older, ok := r.Split(page)
		ranges = ranges[1:]
		if page.More {
			ranges = append(ranges, newer)
		}
		if ok {
			ranges = append(ranges, older)
			divided++
		}
	}
	for i := range stripe {
		if id := fmt.Sprintf("sub_%d", i); seen[id] != 1 {
			t.Errorf("the subscription of second %d was seen %d times", i, seen[id])
		}
	}
	if divided < 5 {
		t.Errorf("divided only %d times", divided)
	}
}

func TestSnapshotIsUsedOnlyIfItIsCompleteRecentAndOfAnOpenRun(t *testing.T) {
	from := readAt
	for name, test := range map[string]struct {
		run  billing.Run
		age  time.Duration
		want bool
	}{
		"complete":          {billing.Run{Sweep: billing.SweepComplete, Status: billing.RunRunning, SweptFrom: &from}, time.Hour, true},
		"being sent":        {billing.Run{Sweep: billing.SweepComplete, Status: billing.RunEnumerating, SweptFrom: &from}, 0, true},
		"nearly too old":    {billing.Run{Sweep: billing.SweepComplete, Status: billing.RunRunning, SweptFrom: &from}, 2*time.Hour - time.Second, true},
		"too old":           {billing.Run{Sweep: billing.SweepComplete, Status: billing.RunRunning, SweptFrom: &from}, 2 * time.Hour, false},
		"skewed clock":      {billing.Run{Sweep: billing.SweepComplete, Status: billing.RunRunning, SweptFrom: &from}, -time.Minute, true},
		"of the future":     {billing.Run{Sweep: billing.SweepComplete, Status: billing.RunRunning, SweptFrom: &from}, -time.Minute - time.Millisecond, false},
		"of the next day":   {billing.Run{Sweep: billing.SweepComplete, Status: billing.RunRunning, SweptFrom: &from}, -24 * time.Hour, false},
		"not at its end":    {billing.Run{Sweep: billing.SweepOpen, Status: billing.RunRunning, SweptFrom: &from}, 0, false},
		"given up":          {billing.Run{Sweep: billing.SweepAbandoned, Status: billing.RunRunning, SweptFrom: &from}, 0, false},
		"of a closed run":   {billing.Run{Sweep: billing.SweepComplete, Status: billing.RunCompletedWithErrors, SweptFrom: &from}, 0, false},
		"of a stopped run":  {billing.Run{Sweep: billing.SweepComplete, Status: billing.RunStopped, SweptFrom: &from}, 0, false},
		"without beginning": {billing.Run{Sweep: billing.SweepComplete, Status: billing.RunRunning}, 0, false},
	} {
		if got := test.run.HasSnapshot(readAt.Add(test.age)); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestSweepContinuesOnlyWhileItsSnapshotIsValid(t *testing.T) {
	for age, want := range map[time.Duration]bool{
		-24 * time.Hour: true, -time.Minute - time.Millisecond: true, -time.Minute: false, 0: false,
		2*time.Hour - time.Millisecond: false, 2 * time.Hour: true,
	} {
		if got := (billing.Run{SweptFrom: ptr(readAt)}).SweepExpired(readAt.Add(age)); got != want {
			t.Errorf("%v after it began: %t", age, got)
		}
	}
	if (billing.Run{}).SweepExpired(readAt) {
		t.Error("it has not begun")
	}
}

func TestSnapshotSettlesOnlyOrganizationsInSync(t *testing.T) {
	for name, test := range map[string]struct {
		truth  billing.Truth
		record billing.Record
		reason billing.Reason // "" where Stripe must be asked
	}{
		"in sync":           {truth(subscription("sub_1", billing.StatusActive)), recorded("sub_1"), billing.ReasonInSync},
		"never subscribed":  {truth(), customerOnly(), billing.ReasonNoSubscription},
		"no identity":       {truth(), billing.Record{Org: billing.Organization{ID: org, Tier: "free"}}, billing.ReasonNoStripeIdentity},
		"paid, no identity": {truth(), billing.Record{Org: billing.Organization{ID: org, Tier: "pro"}}, billing.ReasonNoStripeIdentity},
		"deleted meanwhile": {truth(), billing.Record{Org: billing.Organization{ID: org, Tier: "pro", Deleted: true}}, billing.ReasonOrganizationDeleted},
		"another customer's old one beside it": {
			truth(subscription("sub_1", billing.StatusActive), subscription("sub_0", billing.StatusCanceled)), recorded("sub_1"), billing.ReasonInSync,
		},

		"drifted":                      {truth(subscription("sub_1", billing.StatusPastDue)), recorded("sub_1"), ""},
		"recorded one not seen":        {truth(), recorded("sub_1"), ""},
		"another one seen instead":     {truth(subscription("sub_2", billing.StatusActive)), recorded("sub_1"), ""},
		"of two recorded one not seen": {truth(subscription("sub_1", billing.StatusActive)), billing.Record{Org: organization(), Rows: []billing.Row{row("row_1", "sub_1"), row("row_2", "sub_2")}}, ""},
		"paid without subscription":    {truth(), billing.Record{Org: billing.Organization{ID: org, CustomerID: ptr("cus_1"), Tier: "pro"}}, ""},
		"missed checkout":              {truth(subscription("sub_1", billing.StatusActive)), customerOnly(), ""},
		"of a customer the record does not name": {
			truth(
				subscription("sub_1", billing.StatusActive),
				subscription("sub_2", billing.StatusCanceled, func(s *billing.Subscription) { s.CustomerID = "cus_other" }),
			),
			billing.Record{Org: organization(), Rows: []billing.Row{row("row_1", "sub_1"), row("row_2", "sub_2")}},
			"",
		},
		"one that cannot be read": {truth(subscription("sub_1", billing.StatusActive), billing.Subscription{ID: "sub_2", Unreadable: true}), recorded("sub_1"), ""},
		"conflict":                {claimed(truth(subscription("sub_2", billing.StatusActive)), recordedElsewhere("sub_2")), customerOnly(), ""},
		"unknown status":          {truth(subscription("sub_1", "dormant")), recorded("sub_1"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			plan, ok := rules.InSync(test.truth, test.record)
			if ok != (test.reason != "") || (ok && plan.Reason != test.reason) {
				t.Errorf("settled: %t, %s", ok, plan.Reason)
			}
			if ok && (plan.Outcome != billing.OutcomeSkipped || len(plan.Changes) > 0) {
				t.Errorf("%+v", plan)
			}
		})
	}
}

func TestOrganizationThatASnapshotSettlesHasNothingToChange(t *testing.T) {
	settled := 0
	rapid.Check(t, func(t *rapid.T) {
		truth, record := genTruth().Draw(t, "truth"), genRecord().Draw(t, "record")
		if plan, err := rules.Plan(truth, record); err == nil && len(plan.Changes) > 0 && rapid.Bool().Draw(t, "repaired") {
			if record, err = apply(record, plan); err != nil {
				t.Fatal(err)
			}
		}
		got, ok := rules.InSync(truth, record)
		if !ok {
			return
		}
		settled++
		want, err := rules.Plan(truth, record)
		if err != nil || len(want.Changes) > 0 || got.Reason != want.Reason {
			t.Errorf("settled as %s, the plan is %+v, %v", got.Reason, want, err)
		}
		if want.GoverningID == "" && !record.Org.Deleted && record.HasStripeIdentity() && record.Org.Tier != "free" {
			t.Errorf("tier %s of a customer without a subscription is settled", record.Org.Tier)
		}
	})
	if settled < 20 {
		t.Errorf("only %d cases were settled", settled)
	}
}
