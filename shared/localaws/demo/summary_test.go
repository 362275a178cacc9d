package demo

import (
	"slices"
	"testing"
)

func TestSummaryCountsEachKindOnce(t *testing.T) {
	var told []Kind
	for _, topic := range topics {
		told = append(told, topic.kinds...)
	}
	want := Drifts()
	slices.Sort(told)
	slices.Sort(want)
	if !slices.Equal(told, want) {
		t.Errorf("told of %v, want %v", told, want)
	}
	p := Population{Drifted: map[Kind]int{MissedUpgrade: 2, Replaced: 1, RowMissing: 4}}
	if got := p.Summary(); got != "changed plans 3, checkouts 4" {
		t.Errorf("%q", got)
	}
	if got := (Population{}).Summary(); got != "none" {
		t.Errorf("%q", got)
	}
}
