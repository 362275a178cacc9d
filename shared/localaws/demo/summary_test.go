package demo

import (
	"slices"
	"testing"
)

func TestTheStoryTellsOfEachKindOnce(t *testing.T) {
	var told []Kind
	for _, chapter := range chapters {
		told = append(told, chapter.kinds...)
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
